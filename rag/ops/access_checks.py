"""What must be true before the start of who may ask, bring documents, and what it may cost: keys, tokens, budgets."""

import tempfile
from collections.abc import Iterator
from typing import Literal
from urllib.parse import urlsplit

from rag.access.callers import is_loopback
from rag.access.key_ring import read_keys
from rag.documents import scanning
from rag.errors import ScannerUnavailable
from rag.setting_parsers import shown_size
from rag.settings import Settings

Found = tuple[Literal["ok", "warning", "fault"], str, str, str]
"""A finding: its state, its subject, a sentence, and the remedy."""


def findings(settings: Settings) -> Iterator[Found]:
    """Nothing for a server that anyone may ask, and nobody may administer."""
    try:
        keys = read_keys(settings.keys_file)
    except (OSError, ValueError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or str(error)
        remedy = "put back a sound copy, or move the file away and make new keys: python -m rag.keys new NAME"
        yield "fault", "access", f"{settings.keys_file} cannot be read: {reason}", remedy
        keys = []
    who = [f"strangers may {' and '.join(sorted(settings.anonymous_scopes)) or 'do nothing'}"]
    if settings.browser_sessions == "required":
        who = ["visits are required"]
    who += [f"{len(keys)} keys in {settings.keys_file}"] if keys else []
    who += [f"{len(settings.api_keys)} in API_KEYS"] if settings.api_keys else []
    who += (
        [f"tokens of {settings.jwt_issuer or 'a shared secret'}"]
        if settings.jwt_issuer or settings.jwt_secret_keys
        else []
    )
    if who != ["strangers may chat and search"]:
        yield "ok", "access", "; ".join(who), ""
    if settings.uploads == "on":
        yield from _uploads(
            settings, ingest_keys=sum(bool({"ingest", "admin"} & key.scopes) for key in (*keys, *settings.api_keys))
        )
    budgets = {"in all": settings.budget_site, "a visitor": settings.budget_visitor, "a key": settings.budget_key}
    caps = [f"{one.amount:g} {one.currency or 'tokens'} {whose}" for whose, one in budgets.items() if one]
    if caps:
        yield "ok", "budget", f"a day may cost {'; '.join(caps)}; at the cap: {settings.budget_at_cap}", ""
    for url in (settings.jwt_jwks_url, settings.jwt_issuer if not settings.jwt_secret_keys else ""):
        address = urlsplit(url)
        if address.scheme == "http" and address.hostname != "localhost" and not is_loopback(address.hostname):
            what = f"{url}: whoever stands on the way can put in keys of his own, for the address is not https"
            yield "warning", "access", what, "set the https address of the issuer"


def _uploads(settings: Settings, *, ingest_keys: int) -> Iterator[Found]:
    try:
        with tempfile.TemporaryFile(dir=settings.vector_db_path):
            pass
    except OSError as error:
        what = f"{settings.vector_db_path} cannot be written ({error.strerror}), where uploads go into the index"
        yield (
            "fault",
            "uploads",
            what,
            "let this user write there, set VECTOR_DB_PATH to such a folder, or set UPLOADS=off",
        )
        return
    if settings.upload_scan:
        try:
            scanning.probe(settings.upload_scan)
        except ScannerUnavailable as error:
            yield "warning", "uploads", f"{error}; until the scanner answers, uploads are refused", "start clamd"
    knows_others = settings.admin_api_key or settings.jwt_issuer or settings.jwt_secret_keys
    if not ingest_keys and not knows_others:
        remedy = "make one: python -m rag.keys new NAME --scopes ingest"
        yield "warning", "uploads", "UPLOADS is on, but no key has the scope ingest", remedy
        return
    most = f"{settings.max_files_per_request} files of {shown_size(settings.max_file_size)} a request"
    yield "ok", "uploads", f"are taken: {', '.join(settings.allowed_file_types)}, {most}", ""
