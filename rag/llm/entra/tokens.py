"""One token of this server's identity, by `azure-identity`: which way is taken, and what a failure means.

Knows nothing of models: `renewal` gives the tokens to their endpoints.
"""

import asyncio
import contextlib
import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from types import MappingProxyType
from typing import Any

from rag.errors import UpstreamError
from rag.settings import Settings

FETCH_S = 10.0
"""For one token; the machine's own identity answers in milliseconds, the login in a few hundred."""
_SAID = re.compile(r"(AADSTS\d+): ?([^\r\n]*?)(?= ?(?:Trace ID|Correlation ID)|[\r\n]|$)")
LONGEST_REASON = 300
REMEDIES: Mapping[str, str] = MappingProxyType({
    "AADSTS7000215": "set AZURE_CLIENT_SECRET to the secret's value, which is not its id",
    "AADSTS7000222": "the secret has ended: make a new one and set AZURE_CLIENT_SECRET",
    "AADSTS700016": "compare AZURE_CLIENT_ID and AZURE_TENANT_ID: this tenant has no such application",
    "AADSTS90002": "compare AZURE_TENANT_ID with the tenant's id in the portal",
    "AADSTS700211": "compare the issuer of the federated credential with that of the cluster",
    "AADSTS700213": "compare the subject of the federated credential with namespace and service account of the pod",
    "AADSTS700024": "the token in AZURE_FEDERATED_TOKEN_FILE has ended: look whether the cluster still renews it",
    "AADSTS500011": "set AZURE_TOKEN_SCOPE to one that this tenant knows, mostly its default",
    "AADSTS70011": "set AZURE_TOKEN_SCOPE to an address that ends in /.default",
})  # fmt: skip
"""What to do about the login's codes that operators meet."""


class NoToken(UpstreamError):
    """This server's identity has no token. `remedy` says what to change."""

    def __init__(self, private: str, *, remedy: str, refused: bool = False) -> None:
        super().__init__(private)
        self.remedy = remedy
        self.refused = refused
        """Whether asking again is useless before something is changed."""


@dataclass(frozen=True, slots=True)
class Token:
    text: str = field(repr=False)
    expires_at: float
    """Seconds since 1970."""
    renew_at: float
    """When the next one should be fetched, likewise; earlier than the end."""


def is_installed() -> bool:
    try:
        return find_spec("azure.identity") is not None
    except ModuleNotFoundError:
        return False


def way_of(settings: Settings) -> str:
    """How the identity is shown, in words for people."""
    if settings.azure_client_secret:
        return f"application {settings.azure_client_id}, by its secret,"
    if settings.azure_federated_token_file:
        return f"workload identity {settings.azure_client_id}"
    return f"managed identity {settings.azure_client_id or 'of this machine'}"


def _credential(settings: Settings) -> Any:
    # Loaded where it is wanted: it is optional, and takes half a second and 20 MB.
    from azure.identity.aio import ClientSecretCredential, ManagedIdentityCredential, WorkloadIdentityCredential

    # Whoever asks for tokens has patience of its own, and asks again by itself.
    options: dict[str, Any] = {"retry_total": 1, "retry_backoff_factor": 0.2, "connection_timeout": FETCH_S / 2}
    whose = {"tenant_id": settings.azure_tenant_id, "client_id": settings.azure_client_id}
    if settings.azure_authority_host:
        whose["authority"] = settings.azure_authority_host
    if settings.azure_client_secret:
        return ClientSecretCredential(client_secret=settings.azure_client_secret, **whose, **options)
    if settings.azure_federated_token_file:
        return WorkloadIdentityCredential(token_file_path=str(settings.azure_federated_token_file), **whose, **options)
    # It is on this machine, where no proxy leads.
    return ManagedIdentityCredential(
        client_id=settings.azure_client_id or None, use_env_settings=False,
        _exclude_workload_identity_credential=True, **options,
    )  # fmt: skip


async def fetch_token(settings: Settings, *, within_s: float = FETCH_S) -> Token:
    """A new token, never one that was kept: when it is renewed is `renewal`'s business. Raises `NoToken`."""
    try:
        async with asyncio.timeout(within_s), contextlib.AsyncExitStack() as stack:
            credential = await stack.enter_async_context(_credential(settings))
            given = await credential.get_token_info(settings.azure_token_scope)
    except ModuleNotFoundError as missing:
        remedy = "install the packages of requirements-entra.lock"
        raise NoToken(f"{missing.name} is not installed", remedy=remedy, refused=True) from None
    except Exception as error:
        # Whatever the library meets: a file that is gone, a host, a status, an answer of another form.
        raise _failure(error, settings, within_s) from None
    now = time.time()
    if not given.token or not given.token.isascii() or not given.token.isprintable() or " " in given.token:
        raise NoToken("what was answered is no token", remedy=_reach(settings))
    if not now < given.expires_on < math.inf:
        remedy = "set this machine's clock right"
        raise NoToken("the token had ended before it came", remedy=remedy)
    soonest = now + (given.expires_on - now) * 0.8
    return Token(given.token, given.expires_on, min(soonest, given.refresh_on or math.inf))


def fetch_now(settings: Settings) -> Token:
    """The same for whoever has no event loop."""
    return asyncio.run(fetch_token(settings))


def _failure(error: Exception, settings: Settings, within_s: float) -> NoToken:
    text = str(error)
    if said := _SAID.search(text):
        code = said[1]
        reason = f"{code}: {said[2]}"[:LONGEST_REASON]
        remedy = REMEDIES.get(code, "look the code up at https://login.microsoftonline.com/error")
        return NoToken(reason, remedy=remedy, refused=True)
    if isinstance(error, FileNotFoundError | PermissionError):
        remedy = "set AZURE_FEDERATED_TOKEN_FILE to a file that this user may read"
        return NoToken(f"{error.filename}: {error.strerror}", remedy=remedy, refused=True)
    if any(words in text for words in ("has been assigned", "has not been assigned", "No User Assigned")):
        if settings.azure_client_id:
            remedy = "assign the managed identity AZURE_CLIENT_ID to this machine, or unset it for the machine's own"
        else:
            remedy = "switch on a managed identity for this machine, or set AZURE_CLIENT_ID to the one it has"
        return NoToken("this machine has no such managed identity", remedy=remedy, refused=True)
    if isinstance(error, TimeoutError):
        reason = f"no answer within {within_s:g} s"
    elif isinstance(error, KeyError | ValueError | TypeError | AttributeError):
        reason = f"an answer of a wrong form ({type(error).__name__})"
    else:
        reason = " ".join(text.split())
    return NoToken(reason[:LONGEST_REASON] or type(error).__name__, remedy=_reach(settings))


def _reach(settings: Settings) -> str:
    if settings.azure_client_secret or settings.azure_federated_token_file:
        host = settings.azure_authority_host or "https://login.microsoftonline.com"
        return f"let this machine reach {host} (firewall, proxy, certificate), or correct AZURE_AUTHORITY_HOST"
    return (
        "run on a machine of Azure with a managed identity; elsewhere set AZURE_TENANT_ID, AZURE_CLIENT_ID and "
        "AZURE_CLIENT_SECRET"
    )
