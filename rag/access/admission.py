"""Whether a request may be answered: who calls, what they may do, and how often. Knows no route and no form of answers.

A route states a `Rule`. `Admission.admit` is asked before the route's body is read, and raises what stands in the way:
an unknown caller (401), a missing scope (403 or 404), a limit (429).
"""

from dataclasses import dataclass, field
from typing import Literal

from rag.access import callers
from rag.access.authentication import Authenticator, RawHeaders
from rag.access.budgets import Budgets, Payer, payer
from rag.access.limits import LimitExceeded, RateLimits
from rag.access.visits import NEW_VISITS
from rag.errors import Forbidden, InvalidCredential, NotFound, Unauthorized
from rag.settings import Settings
from rag.telemetry.logs import note
from rag.telemetry.metrics import Metrics

Scope = Literal["chat", "search", "ingest", "admin"]
DELETIONS = "300/minute"
"""Nobody tidies up faster than this, and each takes the write lock."""
UPLOADS = ("uploads", "300/minute")
"""The limit, by its name, of requests that bring or remove documents."""
HANDOFFS = ("handoff", "3/hour;10/day")
"""The limit, by its name, of messages to a person."""
WRONG_CREDENTIALS = ("credentials", "30/minute")
"""The limit, by its name, of wrong credentials from one address."""

SPENDING_LIMITS = ("chat", "search")
"""The limits of routes that may call a model."""


def limits_of(settings: Settings) -> dict[str, str]:
    """Every limit that these settings need, by its name."""
    return {
        "chat": settings.rate_limit_chat, "search": settings.rate_limit_search, "health": settings.rate_limit_health,
        "delete": DELETIONS, **dict([WRONG_CREDENTIALS]),
        **({} if settings.browser_sessions == "off" else dict([NEW_VISITS])),
        **(dict([HANDOFFS]) if settings.takes_handoffs else {}),
        **(dict([UPLOADS]) if settings.uploads == "on" else {}),
    }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Rule:
    """What a route asks of its callers."""

    limit: str | None = None
    """The limit that a request counts against; None for a route that has none."""
    scope: Scope | None = None
    """What the caller must be allowed to do; None for a route that is open to all."""
    exists_for_admins: bool = False
    """Whether the route, though open, exists only where a credential could have the scope `admin`."""
    tells_owners_more: bool = False
    """Whether the answer to a caller with the scope `admin` holds more."""
    takes_any_word: bool = False
    """Whether a word that cannot be a credential counts as none while strangers may call."""
    reads_own_body: bool = False
    """Whether the handler reads the body itself, as it comes and within bounds of its own."""
    free_on_loopback: bool = False
    """Whether a probe on the machine itself is not counted."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who a request comes from."""

    bucket: str
    """Whom the limits count it for: a key, the subject of a token, an address, or a network."""
    scopes: frozenset[str]
    has_key: bool = False
    """Whether the bucket is a key's or a subject's, and not an address."""
    is_local: bool = False
    """Whether it comes from the machine itself, past any proxy."""


@dataclass(frozen=True, slots=True)
class Request:
    """What admission sees of a request."""

    address: str | None
    raw_headers: RawHeaders
    headers: dict[str, str] = field(default_factory=dict)
    """Headers that the response gets, whatever becomes of it."""


class Admission:
    """Asked by every route. Where no credential could have the scope `admin`, routes that need it do not exist."""

    def __init__(
        self, *, limits: RateLimits, metrics: Metrics, authenticator: Authenticator, budgets: Budgets | None = None
    ) -> None:
        self._limits = limits
        self._metrics = metrics
        self._authenticator = authenticator
        self._budgets = budgets

    async def admit(self, rule: Rule, request: Request) -> Caller:
        """Who calls, where the rule lets them in. Raises `RagError`."""
        caller = await self._identify(rule, request)
        if rule.limit is not None and not (rule.free_on_loopback and caller.is_local):
            await self._count(rule.limit, caller.bucket, request)
        if self._budgets is not None and rule.limit in SPENDING_LIMITS:
            payer.set(Payer("key" if caller.has_key else "visitor", caller.bucket))
            request.headers.update(await self._budgets.headers())
        return caller

    async def _identify(self, rule: Rule, request: Request) -> Caller:
        address = callers.client_bucket(request.address)
        stranger = Caller(address, self._authenticator.anonymous, is_local=callers.is_loopback(request.address))
        if (rule.scope == "admin" or rule.exists_for_admins) and not self._authenticator.knows_admins():
            raise NotFound
        if rule.scope is None and not rule.tells_owners_more:
            return stranger
        any_word = rule.takes_any_word and rule.scope in stranger.scopes
        try:
            identity = await self._authenticator.identify(request.raw_headers, any_word=any_word)
        except InvalidCredential:
            # Sound ones are not counted: else one forgotten job would lock out all who share its address.
            await self._count(WRONG_CREDENTIALS[0], address, request)
            raise
        if identity is None:
            if rule.scope is not None and rule.scope not in stranger.scopes:
                raise Unauthorized
            return stranger
        note(caller=identity.name)
        if rule.scope is not None and not identity.scopes & {rule.scope, "admin"}:
            raise Forbidden.lacking(rule.scope)
        return Caller(identity.bucket or address, identity.scopes, bool(identity.bucket), stranger.is_local)

    async def _count(self, limit: str, bucket: str, request: Request) -> None:
        try:
            request.headers.update(await self._limits.check(limit, bucket))
        except LimitExceeded as error:
            self._metrics.rate_limited(limit)
            request.headers.update(error.headers)
            raise
