"""What must be true before the server starts, each fault with its remedy.

Looks at settings, files, the port and one probe of the embedding model. Knows nothing of how a finding is shown, and
serves nothing.
"""

import contextlib
import errno
import os
import re
import socket
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from importlib import metadata
from pathlib import Path
from typing import Literal

from rag.errors import BuildUnreachable, ConfigError, IndexUnavailable, UpstreamError, UpstreamRejected
from rag.llm import model_quirks
from rag.llm.entra import tokens
from rag.llm.local.sentences import REMEDY, missing_packages
from rag.ops import access_checks, identity_checks, store_checks, wording_checks
from rag.search.backends.opening import backend
from rag.search.hot.following import Segments
from rag.search.hot.layered import LayeredBuild
from rag.search.hybrid import Build
from rag.settings import Settings, variable_of
from rag.telemetry.log_file import lock_of
from rag.types import Endpoint

Probe = Callable[[Settings], int]
"""Embeds one word through the configured endpoint and returns its dimension. Raises `UpstreamError`."""
PACKAGES = Path(__file__).resolve().parents[2] / "requirements-prod.lock"
ChatProbe = Callable[[Settings, Endpoint], None]
"""Asks one endpoint's chat model one word. Raises `UpstreamError`."""

REBUILD = "python -m indexer build SOURCE"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. A fault stops the start; a warning does not."""

    state: Literal["ok", "warning", "fault"]
    subject: str
    sentence: str
    remedy: str = ""


def check_all(
    settings: Settings,
    faults: Iterable[str],
    *,
    running: bool,
    probe: Probe,
    probe_chat: ChatProbe | None = None,
    fetch_token: identity_checks.Fetch = tokens.fetch_now,
) -> list[Finding]:
    """Every finding at once. `faults` are the lines of a `ConfigError`, where the environment had some.

    For a `running` server, which is about to reload, neither the port nor the network is asked, but
    for a database's schema, which may be another than the new workers know. With `probe_chat` each
    chat model is asked one word, and a port that this very server occupies is none to complain about.
    """
    faults = list(faults)
    faulty = {variable_of(line) for line in faults}
    fetch, strict = None if running else fetch_token, probe_chat is not None
    # Whose identity it is, one faulty setting is enough to mistake.
    sure = settings.auth != "entra" or not any(name.startswith("AZURE_") for name in faulty)
    identity = [*(identity_checks.findings(settings, fetch=fetch, strict=strict) if sure else ())]
    # Without a token no model answers, and one sentence says why.
    ask = sure and all(found[0] == "ok" for found in identity)
    asks_chat = ask and not settings.demo and not settings.missing("CHAT")
    return [
        *map(_setting, faults),
        *_misspelt(settings),
        *_packages(),
        *_models(settings, faulty, asked=strict),
        *(Finding(*found) for found in identity),
        *(_chat(settings, probe_chat) if asks_chat and probe_chat else ()),
        *(Finding(*found) for found in wording_checks.findings(settings)),
        *_index(settings, None if running or not ask else probe, strict=strict),
        *_state(settings),
        *(Finding(*found) for found in access_checks.findings(settings)),
        *(() if settings.log_file is None else _log_file(settings.log_file)),
        *(Finding(*found) for found in store_checks.findings(settings, running=running)),
        *(() if running or faulty & {"HOST", "PORT"} else _port(settings, may_be_ours=probe_chat is not None)),
    ]


def _setting(fault: str) -> Finding:
    what, _, allowed = fault.partition("allowed is ")
    return Finding("fault", "settings", what.rstrip(" :;"), f"allowed is {allowed}; mend it in .env or the environment")


def _misspelt(settings: Settings) -> Iterator[Finding]:
    for name, meant in () if settings.demo else settings.misspelt().items():
        yield Finding("warning", "settings", f"{name} in .env is no setting", f"did you mean {meant}?")


def _packages() -> Iterator[Finding]:
    """An update of the code may need a package that only workers load, who would end with a traceback."""
    if PACKAGES.is_file():  # an image need not hold the list of what it holds
        # A line with a condition behind a semicolon is for some Pythons only, and says nothing of this one.
        pinned = re.findall(r"^([\w.-]+)==[^;\n]*$", PACKAGES.read_text("utf-8"), re.MULTILINE)
        if missing := [name for name in pinned if not _is_installed(name)]:
            remedy = f"run: {sys.executable} -m pip install -r {PACKAGES}"
            yield Finding("fault", "packages", f"not installed: {', '.join(missing)}", remedy)


def _is_installed(package: str) -> bool:
    try:
        return bool(metadata.version(package))
    except metadata.PackageNotFoundError:
        return False


def _chat(settings: Settings, probe_chat: ChatProbe) -> Iterator[Finding]:
    # Each by itself: asked together, a sound one would answer for a broken one.
    for endpoint in settings.chat_endpoints:
        try:
            probe_chat(settings, endpoint)
        except UpstreamError as error:
            yield _unusable("chat", error, endpoint)
        else:
            yield Finding("ok", "chat", f"{endpoint.name} answers")


def _unusable(subject: str, error: UpstreamError, endpoint: Endpoint) -> Finding:
    """Why a model that was asked did not answer."""
    remedy = model_quirks.remedy(error, subject.upper(), by_identity=endpoint.identity)
    if isinstance(error, UpstreamRejected):
        return Finding("fault", subject, f"our request was refused: {error}", remedy)
    return Finding("fault", subject, f"cannot be reached: {str(error) or endpoint.name}", remedy)


def _models(settings: Settings, faulty: set[str], *, asked: bool) -> Iterator[Finding]:
    """What is missing; and where the chat model is not `asked`, which one it will be."""
    missing = [line for line in settings.missing("CHAT", "EMBEDDINGS") if line.split()[0] not in faulty]
    for line in missing:
        what, _, remedy = line.partition(": ")
        yield Finding("fault", "models", what, remedy)
    if settings.embeddings == "local":
        absent = missing_packages()
        needed = f"EMBEDDINGS=local: not installed: {', '.join(absent)}"
        yield (
            Finding("fault", "embeddings", needed, REMEDY)
            if absent
            else Finding("ok", "embeddings", f"{settings.embedding_model}, inside the server")
        )
    if settings.demo:
        yield Finding("ok", "models", "embedded, without key or network: answers quote the best passages")
    elif not missing and not asked:
        names = [endpoint.name for endpoint in settings.chat_endpoints]
        yield Finding("ok", "chat", f"{' · '.join(names)} is set; --check asks it")


def _index(settings: Settings, probe: Probe | None, *, strict: bool) -> Iterator[Finding]:
    """The live build, the model that made its vectors, and one answer of that model where `probe` is given."""
    endpoints = () if settings.demo else settings.embeddings_endpoints
    dimensions = None
    try:
        with contextlib.closing(backend(settings)) as kept:
            build, added_in = kept.open(model=settings.embedding_model), kept.added_in
    except ConfigError as error:
        what, _, remedy = error.faults[0].partition("; run: ")
        yield Finding("fault", "index", what, remedy)
    except BuildUnreachable as error:
        what, _, remedy = str(error).partition("; ")
        yield Finding("warning", "index", f"{what}; until it answers, nothing is found", remedy)
    except IndexUnavailable as error:
        what, _, remedy = str(error).partition("; ")
        yield Finding("fault", "index", what, (remedy or REBUILD).removeprefix("run: "))
    else:
        documents = build.manifest.get("documents", "?")
        dimensions = build.dimensions
        yield Finding("ok", "index", f"{build.count:,} passages of {documents} documents, build {build.id}")
        yield from _added(added_in, build) if added_in else ()
    if endpoints and probe is not None and not settings.missing("EMBEDDINGS"):
        yield _embeddings(settings, probe, dimensions, strict=strict)


def _added(root: Path, build: Build) -> Iterator[Finding]:
    """What stands beside the build, and what of it cannot be served."""
    segments = Segments(root)
    served = segments.over(build)
    if isinstance(served, LayeredBuild):
        passages = served.count - build.count
        yield Finding("ok", "index", f"{passages:,} passages of {len(served.added)} added documents")
    for reason in segments.refused.values():
        what, _, remedy = reason.partition("; ")
        yield Finding("warning", "index", f"added documents are left out: {what}", remedy.removeprefix("run: "))


def _embeddings(settings: Settings, probe: Probe, dimensions: int | None, *, strict: bool) -> Finding:
    endpoint = settings.embeddings_endpoints[0]
    name = endpoint.name
    try:
        answered = probe(settings)
    except UpstreamError as error:
        if strict or isinstance(error, UpstreamRejected):
            return _unusable("embeddings", error, endpoint)
        # Azure's bad hour must not keep a restarted server from starting.
        sentence = f"cannot be reached at the moment: {error}; until it answers, search is lexical alone"
        remedy = model_quirks.remedy(error, "EMBEDDINGS", by_identity=endpoint.identity)
        return Finding("warning", "embeddings", sentence, remedy)
    if dimensions is not None and answered != dimensions:
        remedy = f"{REBUILD} --clean, or set the model that the index was made with"
        return Finding("fault", "embeddings", f"{name} gives {answered} dimensions, the index has {dimensions}", remedy)
    return Finding("ok", "embeddings", f"{name} answers in {answered} dimensions")


def _state(settings: Settings) -> Iterator[Finding]:
    path = settings.state_dir
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        remedy = "set STATE_DIR to a folder that this user may write to"
        yield Finding("fault", "state", f"{path} cannot be written: {error.strerror}", remedy)
    else:
        yield Finding("ok", "state", f"{path} is writable")


def _log_file(path: Path) -> Iterator[Finding]:
    """Only looks: a file that root began, checking, would be closed to the server's own user."""
    for one in (path.absolute(), lock_of(path.absolute())):
        # The module's, not Path's own: those raise where a folder above may not be looked into.
        nearest = next(str(each) for each in (one, *one.parents) if os.path.exists(each))
        if os.path.isdir(one):
            reason = errno.EISDIR
        elif nearest != str(one) and not os.path.isdir(nearest):
            reason = errno.ENOTDIR
        else:
            reason = 0 if os.access(nearest, os.W_OK) else errno.EACCES
        if reason:
            remedy = "set LOG_FILE to a file that this user may write; until then the log goes to standard output alone"
            yield Finding("warning", "log", f"{one} cannot be written: {os.strerror(reason)}", remedy)
            return
    yield Finding("ok", "log", f"{path} is writable")


def _port(settings: Settings, *, may_be_ours: bool) -> Iterator[Finding]:
    host, port = settings.host, settings.port
    remedies = {errno.EADDRINUSE: "stop what listens there, or set PORT", errno.EACCES: "set PORT to 1024 or above"}
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        with contextlib.closing(socket.socket(family)) as trial:
            # As gunicorn does: connections of the last run may linger on the port without occupying it.
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind((host, port))
    except OSError as error:
        if may_be_ours and error.errno == errno.EADDRINUSE and _runs_already(host, port):
            yield Finding("ok", "port", f"{host}:{port} is served by this server already")
            return
        what = f"cannot listen on {host}:{port}: {error.strerror}"
        yield Finding("fault", "port", what, remedies.get(error.errno or 0, "mend HOST and PORT"))
    else:
        yield Finding("ok", "port", f"{host}:{port} is free")


def _runs_already(host: str, port: int) -> bool:
    asked = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    connection = HTTPConnection(asked, port, timeout=1)
    try:
        connection.request("GET", "/health")
        return b'"status":"healthy"' in connection.getresponse().read(1000)
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()
