"""The emulated Azure OpenAI resource as a raw ASGI application: routes, keys, validation, control.

Raw, because benchmarks measure the product against it: it must not be what they measure. How an answer is sent or
spoilt is the business of `azure_delivery`.
"""

import time
from collections import Counter, deque
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import parse_qs, unquote

import orjson

from tests.support import azure_errors as errors
from tests.support.azure_chat import reasons
from tests.support.azure_delivery import Profile, deliver_chat, deliver_embeddings
from tests.support.azure_exchange import ClientGone, Exchange, Receive, Send
from tests.support.azure_faults import Fault, FaultBook
from tests.support.azure_tokens import is_in_force
from tests.support.azure_vectors import Vectors

REMEMBERED_REQUESTS = 5_000
MOST_INPUTS = 2_048
TARGETS = {"/chat/completions": "chat", "/embeddings": "embeddings"}


@dataclass(frozen=True)
class Route:
    """Where a request is addressed."""

    target: str
    deployment: str
    """Empty where the body names a model instead."""
    azure: bool
    key_headers: tuple[str, ...]


def route_of(path: str) -> Route | None:
    """None for a path that neither Azure nor OpenAI has."""
    for tail, target in TARGETS.items():
        if not path.endswith(tail):
            continue
        head = path[: -len(tail)]
        if head.startswith("/openai/deployments/") and head.count("/") == 3:
            return Route(target, unquote(head.rpartition("/")[2]), True, ("api-key",))
        if head == "/openai/v1":
            return Route(target, "", True, ("api-key", "authorization"))
        if head == "/v1":
            return Route(target, "", False, ("authorization",))
    return None


class Emulator:
    """The ASGI application; all its state is in memory and can be looked at through `/_control/`."""

    def __init__(self, *, vectors: Vectors, api_key: str, profile: Profile) -> None:
        self._vectors = vectors
        self._api_key = api_key
        self._usual_profile = profile
        self._profile = profile
        self._faults = FaultBook()
        self._requests: deque[dict[str, Any]] = deque(maxlen=REMEMBERED_REQUESTS)
        self._now: Counter[str] = Counter()
        self._forget()

    def _forget(self) -> None:
        self._requests.clear()
        self._total: Counter[str] = Counter()
        self._cancelled: Counter[str] = Counter()
        self._statuses: Counter[str] = Counter()
        self._peak: Counter[str] = Counter()
        self._clients: set[Any] = set()
        self._billed = 0

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        exchange = Exchange(scope, receive, send)
        path = scope["path"]
        try:
            if path.startswith("/_control/"):
                await self._control(exchange, scope["method"], path.removeprefix("/_control/"))
            elif (route := route_of(path)) is None or scope["method"] != "POST":
                await exchange.answer(404, errors.NO_SUCH_RESOURCE)
            else:
                await self._serve(exchange, route)
        except ClientGone:
            pass

    async def _serve(self, exchange: Exchange, route: Route) -> None:
        target = route.target
        self._now[target] += 1
        self._total[target] += 1
        self._peak[target] = max(self._peak[target], self._now[target])
        self._clients.add(exchange.scope["client"])
        seen: dict[str, Any] = {"kind": target, "at": time.time(), "outcome": "open"}
        try:
            raw = await exchange.body()
            await self._answer(exchange, route, raw, seen)
            seen["outcome"] = "answered" if seen["fault"] is None else "fault"
        except ClientGone:
            seen["outcome"] = "cancelled"
            self._cancelled[target] += 1
        finally:
            seen["status"] = exchange.status
            self._billed += exchange.billed
            self._statuses[str(exchange.status)] += 1
            self._now[target] -= 1

    async def _answer(self, exchange: Exchange, route: Route, raw: bytes, seen: dict[str, Any]) -> None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in exchange.scope["headers"]}
        query = exchange.scope["query_string"].decode("latin-1")
        try:
            body = orjson.loads(raw)
        except orjson.JSONDecodeError:
            body = None
        body = body if isinstance(body, dict) else None
        deployment = route.deployment or str((body or {}).get("model", ""))
        given = (body or {}).get("input")
        seen.update(
            route=exchange.scope["path"], query=query, deployment=deployment, headers=headers, body=body,
            inputs=len(given) if isinstance(given, list) else int(isinstance(given, str)), fault=None,
        )  # fmt: skip
        self._requests.append(seen)

        refused = self._refusal(route, headers, query, deployment, body)
        if refused is not None:
            await exchange.answer(*refused)
            return
        fault = self._faults.take(route.target, deployment, raw)
        seen["fault"] = fault.kind if fault else None
        if route.target == "chat":
            await deliver_chat(exchange, body or {}, fault, self._profile, model=deployment, azure=route.azure)
        else:
            await deliver_embeddings(exchange, body or {}, fault, self._profile, self._vectors, model=deployment)

    def _refusal(
        self, route: Route, headers: dict[str, str], query: str, deployment: str, body: dict[str, Any] | None
    ) -> tuple[int, bytes] | None:
        """Status and body for a request that Azure refuses; None for a sound one."""
        keys = [headers.get(name, "").removeprefix("Bearer ") for name in route.key_headers]
        token = headers.get("authorization", "").removeprefix("Bearer ")
        if self._api_key not in keys and not (route.azure and is_in_force(token, self._api_key)):
            return 401, errors.UNAUTHORIZED if route.azure else errors.UNAUTHORIZED_OPENAI
        if route.deployment and not parse_qs(query).get("api-version"):
            return 404, errors.NO_SUCH_RESOURCE
        if deployment.startswith("missing"):
            return 404, errors.NO_SUCH_DEPLOYMENT
        if body is None:
            return 400, errors.bad_request("The body is not a JSON object.")
        if route.target == "embeddings":
            return self._embeddings_fault(body)
        return self._chat_fault(body) or (self._reasoning_fault(body) if reasons(deployment) else None)

    @staticmethod
    def _chat_fault(body: dict[str, Any]) -> tuple[int, bytes] | None:
        messages = body.get("messages")
        if not isinstance(messages, list) or not messages:
            return 400, errors.bad_request("'messages' must be a list with at least one message.", "messages")
        for place, message in enumerate(messages):
            if not isinstance(message, dict) or message.get("role") not in (
                "system", "developer", "user", "assistant", "tool"
            ):  # fmt: skip
                return 400, errors.bad_request("A message has no known role.", f"messages[{place}].role")
        if body.get("stream_options") is not None and not body.get("stream"):
            return 400, errors.bad_request("'stream_options' needs 'stream'.", "stream_options")
        return None

    @staticmethod
    def _reasoning_fault(body: dict[str, Any]) -> tuple[int, bytes] | None:
        """One at a time, as Azure reports them."""
        if "max_tokens" in body:
            return 400, errors.unsupported("max_tokens", "parameter", "is to be called 'max_completion_tokens'")
        if body.get("temperature", 1) != 1:
            return 400, errors.unsupported("temperature", "value", "can only be 1")
        return None

    def _embeddings_fault(self, body: dict[str, Any]) -> tuple[int, bytes] | None:
        given = body.get("input")
        texts = given if isinstance(given, list) else [given]
        if not texts or not all(isinstance(text, str) and text for text in texts):
            return 400, errors.bad_request("'input' must be texts that are not empty.", "input")
        if len(texts) > MOST_INPUTS:
            return 400, errors.bad_request(f"'input' holds more than {MOST_INPUTS} texts.", "input")
        wanted = body.get("dimensions")
        if wanted is not None and not (isinstance(wanted, int) and 1 <= wanted <= self._vectors.dimension):
            return 400, errors.bad_request(f"'dimensions' must be 1 to {self._vectors.dimension}.", "dimensions")
        if body.get("encoding_format", "float") not in ("float", "base64"):
            return 400, errors.bad_request("'encoding_format' must be float or base64.", "encoding_format")
        return None

    async def _control(self, exchange: Exchange, method: str, what: str) -> None:
        raw = await exchange.body()
        try:
            answer = self._controlled(method, what, orjson.loads(raw) if raw else None)
        except (ValueError, TypeError) as error:
            await exchange.answer_json({"error": str(error)}, 400)
            return
        await exchange.answer_json(answer, 200 if answer is not None else 404)

    def _controlled(self, method: str, what: str, given: Any) -> Any:
        """What a control request answers; None where there is no such control."""
        match method, what:
            case "POST", "faults":
                added = [Fault.from_json(entry) for entry in (given if isinstance(given, list) else [given])]
                for fault in added:
                    self._faults.add(fault)
                return {"added": len(added)}
            case "DELETE", "faults":
                self._faults.clear()
                return {}
            case "POST", "profile":
                self._profile = Profile(**{**asdict(self._profile), **given})
                return asdict(self._profile)
            case "DELETE", "profile":
                self._profile = self._usual_profile
                return asdict(self._profile)
            case "GET", "requests":
                return list(self._requests)
            case "DELETE", "requests":
                self._forget()
                return {}
            case "GET", "stats":
                return {
                    "total": self._total, "now": self._now, "peak": self._peak, "cancelled": self._cancelled,
                    "statuses": self._statuses, "connections": len(self._clients), "billed": self._billed,
                    "dimension": self._vectors.dimension,
                }  # fmt: skip
        return None
