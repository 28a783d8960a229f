"""Every failure the product knows, with the status and the sentence that the public sees.

    RagError
    ├── ConfigError              a setting is missing or wrong: the process does not start
    ├── SourceUnreadable         one document cannot be read: the indexer skips and names it
    ├── IndexUnavailable         503
    │   ├── BuildMissing         nothing has been published yet
    │   ├── BuildDamaged         truncated, altered or half-copied
    │   ├── BuildMismatch        another embedding model, or a newer format
    │   └── BuildUnreachable     the database that keeps the builds does not answer
    ├── StateUnavailable         503, the store of conversations or limits does not answer
    ├── InvalidRequest           422
    ├── NotFound                 404
    ├── Unauthorized             401, a credential is missing
    │   └── InvalidCredential    401, one was presented that is not in force
    ├── AmbiguousCredential      400, several were presented
    ├── Forbidden                403, a credential does not allow this
    ├── ProofRequired            428, a visit without its proof of work
    ├── IssuerUnavailable        503, the keys that check tokens cannot be fetched
    ├── VisitorLeft              499, nobody reads the answer
    ├── BodyTooLarge             413
    ├── UnsupportedType          415
    ├── ScannerUnavailable       503, nobody can say whether an upload is harmless
    ├── RateLimited              429
    └── UpstreamError            503
        ├── UpstreamTimeout      504, the request's deadline passed
        ├── UpstreamRejected     502, our request was refused: key, deployment or parameters
        └── ContentFiltered      422

`str(error)` is private: it names the value and the remedy, and goes to the log. `detail` is public: a sentence for
a person, with nothing of the upstream, of paths, keys, prompts or tracebacks in it.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

REALM = "rag-server"
"""What responses that ask for a credential call the server (RFC 9110)."""


class RagError(Exception):
    """The root. A subclass states how it looks from outside."""

    status = 500
    code = "internal_error"
    title = "Internal error"
    detail = "Something went wrong on our side. Please try again."
    retry_after_s: float | None = None
    public_headers: Mapping[str, str] = MappingProxyType({})
    """Sent with the response."""

    def __init__(self, private: str = "", *, detail: str | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(private or detail or self.detail)
        if detail is not None:
            self.detail = detail
        if retry_after_s is not None:
            self.retry_after_s = retry_after_s


class ConfigError(RagError):
    """Settings that cannot work. `faults` holds one line a fault, each with its remedy."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


class SourceUnreadable(RagError):
    """A document that cannot be indexed; `str(error)` is the reason shown in the build's summary."""


class IndexUnavailable(RagError):
    status = 503
    code = "index_unavailable"
    title = "Index unavailable"
    detail = "The search index is not available at the moment. Please try again later."


class BuildMissing(IndexUnavailable):
    """There is no published build at the path."""


class BuildDamaged(IndexUnavailable):
    """A build's files do not agree with its manifest."""


class BuildMismatch(IndexUnavailable):
    """A sound build that this server must not serve: another embedding model, or a newer format."""


class BuildUnreachable(IndexUnavailable):
    """The database that keeps the builds does not answer, or refuses what it was asked."""


class StateUnavailable(RagError):
    status = 503
    code = "state_unavailable"
    title = "Conversations unavailable"
    detail = "Conversations cannot be read at the moment. Please try again later."


class InvalidRequest(RagError):
    status = 422
    code = "invalid_request"
    title = "Invalid request"
    detail = "The request is not valid."


class NotFound(RagError):
    status = 404
    code = "not_found"
    title = "Not found"
    detail = "There is nothing at this address."


class Unauthorized(RagError):
    status = 401
    code = "unauthorized"
    title = "Unauthorized"
    detail = "This address needs a credential: Authorization: Bearer KEY."
    public_headers: Mapping[str, str] = {"WWW-Authenticate": f'Bearer realm="{REALM}"'}


class InvalidCredential(Unauthorized):
    """One sentence for every cause: who tries keys must not learn what is wrong with one."""

    detail = "The credential is wrong, was revoked, or has ended."
    public_headers: Mapping[str, str] = {
        "WWW-Authenticate": f'Bearer realm="{REALM}", error="invalid_token", error_description="{detail}"'
    }


class AmbiguousCredential(RagError):
    status = 400
    code = "bad_request"
    title = "Bad Request"
    detail = "The request carries more than one credential. Send one: Authorization: Bearer KEY."
    public_headers: Mapping[str, str] = {"WWW-Authenticate": f'Bearer realm="{REALM}", error="invalid_request"'}


class Forbidden(RagError):
    status = 403
    code = "forbidden"
    title = "Forbidden"
    detail = "This credential does not allow that."

    @classmethod
    def lacking(cls, scope: str) -> "Forbidden":
        error = cls(f"lacks {scope}", detail=f"This credential does not allow that: it lacks the scope {scope}.")
        error.public_headers = {
            "WWW-Authenticate": f'Bearer realm="{REALM}", error="insufficient_scope", scope="{scope}"'
        }
        return error


class Conflict(RagError):
    status = 409
    code = "conflict"
    title = "Conflict"
    detail = "This cannot be done now."


class StorageFull(RagError):
    status = 507
    code = "storage_full"
    title = "Storage full"
    detail = "There is no room for this at the moment. Please try again later."


class ProofRequired(RagError):
    status = 428
    code = "proof_required"
    title = "Proof required"
    detail = "This visit has to solve the challenge in `proof` first, once."

    def __init__(self, challenge: dict[str, Any]) -> None:
        super().__init__()
        self.challenge = challenge


class IssuerUnavailable(RagError):
    status = 503
    code = "issuer_unavailable"
    title = "Token issuer unavailable"
    detail = "Tokens cannot be checked at the moment. Please try again shortly."
    retry_after_s = 5.0


class VisitorLeft(RagError):
    """The status is nginx's, for logs only: the connection is closed."""

    status = 499
    code = "client_closed_request"
    title = "Client closed request"
    detail = "The request was closed before it was answered."


class BodyTooLarge(RagError):
    status = 413
    code = "body_too_large"
    title = "Request too large"
    detail = "The request body is larger than 64 KiB."


class UnsupportedType(RagError):
    status = 415
    code = "unsupported_type"
    title = "Unsupported type"
    detail = "Files of this type are not taken."


class ScannerUnavailable(RagError):
    status = 503
    code = "scanner_unavailable"
    title = "Virus scanner unavailable"
    detail = "Files cannot be checked at the moment. Please try again later."


class RateLimited(RagError):
    status = 429
    code = "rate_limited"
    title = "Too many requests"
    detail = "Too many requests. Please wait a moment and try again."


class UpstreamError(RagError):
    status = 503
    code = "upstream_unavailable"
    title = "Model unavailable"
    detail = "The language model cannot be reached at the moment. Please try again shortly."
    http_status: int | None = None
    """What the endpoint answered with; None where it did not answer."""


class UpstreamTimeout(UpstreamError):
    status = 504
    code = "upstream_timeout"
    title = "Model too slow"
    detail = "The language model did not answer in time. Please try again."


class UpstreamRejected(UpstreamError):
    status = 502
    code = "upstream_rejected"
    title = "Model misconfigured"
    detail = "The language model refused our request. The site's operator has been told in the log."


class ContentFiltered(UpstreamError):
    status = 422
    code = "content_filtered"
    title = "Content filtered"
    detail = "The question or its answer was refused by the content filter. Please rephrase the question."


class BudgetSpent(UpstreamError):
    """No model was asked, because that could cost more than is left for today."""

    status = 429
    code = "budget_spent"
    title = "Budget spent"
    detail = "Today's budget for answers is used up. Please come back tomorrow."

    def __init__(self, private: str, *, retry_after_s: float, refuse: bool) -> None:
        super().__init__(private, retry_after_s=retry_after_s)
        self.refuse = refuse
        """Whether the visitor gets this error, and not the best passages quoted."""
