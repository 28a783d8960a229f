"""Who is asked, when again, and when no longer: on a faked wire, with a clock and pauses that take no time."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import orjson
import pytest
import respx

from rag.deadline import Deadline
from rag.errors import ContentFiltered, UpstreamError, UpstreamRejected, UpstreamTimeout
from rag.llm.client import ATTEMPTS, Unanswered, Upstream
from rag.llm.http_client import http_client, read_body
from rag.llm.resilience import Breaker, RetryBudget
from rag.types import Endpoint
from tests.support.azure import AzureEmulator

KEY = "a-key-that-nobody-may-see"
EAST, WEST, NORTH = (
    f"https://{place}.openai.azure.com/openai/deployments/gpt/chat/completions" for place in ("east", "west", "north")
)
SOUND = httpx.Response(200, json={"text": "sound"})
DOWN = httpx.Response(503)


class Time:
    """A clock, and pauses that only move it; `pauses_s` keeps what was asked for."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.pauses_s: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.pauses_s.append(seconds)
        self.now += seconds


class Wire:
    """Endpoints behind a fake wire, and an `Upstream` that asks them."""

    def __init__(self, router: respx.MockRouter) -> None:
        self.router = router
        self.time = Time()
        self.budget = RetryBudget()
        self.upstream: Upstream | None = None

    def answers(self, url: str, *responses: httpx.Response | Exception | Callable[..., Any]) -> list[httpx.Request]:
        """The responses in turn, the last one for ever; returned is what arrives, also what is never answered."""
        received: list[httpx.Request] = []
        left = list(responses)

        async def next_one(request: httpx.Request) -> httpx.Response:
            received.append(request)
            response = left.pop(0) if len(left) > 1 else left[0]
            if callable(response):
                return await response(request)  # type: ignore[no-any-return]
            if isinstance(response, Exception):
                raise response
            return httpx.Response(response.status_code, headers=response.headers, content=response.content)

        self.router.post(url).side_effect = next_one
        return received

    def ask(
        self, *urls: str, requests: int = 1, seconds: float = 25.0, models: tuple[str, ...] = (),
        body: dict[str, Any] | None = None,
    ) -> list[Any]:  # fmt: skip
        """What each request in turn came to: the answer, or the error. Breakers last from one `ask` to the next."""

        async def story() -> list[Any]:
            async with httpx.AsyncClient(verify=False) as client:
                if self.upstream is None:
                    names = models or ("",) * len(urls)
                    endpoints = [Endpoint(url, KEY, name, False) for url, name in zip(urls, names, strict=True)]
                    self.upstream = Upstream(
                        kind="chat", endpoints=endpoints, client=client, budget=self.budget, clock=self.time,
                        sleep=self.time.sleep, jitter=lambda attempt, **_: attempt * 0.125,
                    )  # fmt: skip
                self.upstream._client = client
                return [await outcome(self.upstream, Deadline(seconds, clock=self.time), body) for _ in range(requests)]

        return asyncio.run(story())


async def text_of(response: httpx.Response) -> str:
    return str(orjson.loads(await read_body(response, limit=10_000))["text"])


async def outcome(upstream: Upstream, deadline: Deadline, body: dict[str, Any] | None = None) -> Any:
    try:
        return await upstream.call(body or {"ask": 1}, deadline=deadline, read=text_of)
    except UpstreamError as error:
        return error


@pytest.fixture
def wire() -> Iterator[Wire]:
    with respx.mock(using="httpx", assert_all_called=False) as router:
        yield Wire(router)


async def hang(request: httpx.Request) -> httpx.Response:
    await asyncio.Event().wait()
    raise AssertionError


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504])
def test_a_passing_failure_is_tried_again_after_a_jittered_pause(wire: Wire, status: int) -> None:
    route = wire.answers(EAST, httpx.Response(status), httpx.Response(status), SOUND)
    assert wire.ask(EAST) == ["sound"]
    assert len(route) == 3
    assert wire.time.pauses_s == [0.125, 0.25]


@pytest.mark.parametrize(
    "error", [httpx.ConnectError("x"), httpx.ConnectTimeout("x"), httpx.ReadError("x"), httpx.RemoteProtocolError("x")]
)
def test_a_broken_connection_is_tried_again(wire: Wire, error: Exception) -> None:
    route = wire.answers(EAST, error, SOUND)
    assert wire.ask(EAST) == ["sound"]
    assert len(route) == 2


def test_three_attempts_are_all_and_the_last_failure_is_told(wire: Wire) -> None:
    route = wire.answers(EAST, DOWN)
    (error,) = wire.ask(EAST)
    assert (type(error), error.status) == (Unanswered, 503)
    assert len(route) == ATTEMPTS == 3


def test_three_attempts_are_all_over_all_endpoints(wire: Wire) -> None:
    routes = [wire.answers(url, DOWN) for url in (EAST, WEST)]
    wire.ask(EAST, WEST)
    assert [len(route) for route in routes] == [2, 1]


@pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 405, 413, 415, 422])
def test_what_would_be_refused_again_is_never_asked_again(wire: Wire, status: int) -> None:
    route = wire.answers(EAST, httpx.Response(status))
    (error,) = wire.ask(EAST)
    assert (type(error).__base__, error.status) == (UpstreamRejected, 502)
    assert (len(route), wire.time.pauses_s) == (1, [])


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_wrong_key_or_deployment_is_asked_elsewhere_at_once_and_never_there_again(wire: Wire, status: int) -> None:
    east = wire.answers(EAST, httpx.Response(status))
    west = wire.answers(WEST, DOWN, SOUND)
    assert wire.ask(EAST, WEST) == ["sound"]
    assert (len(east), len(west)) == (1, 2)
    assert wire.time.pauses_s[0] == 0.0


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_refused_question_is_asked_elsewhere_at_once_and_opens_no_breaker(wire: Wire, status: int) -> None:
    refused = httpx.Response(status, json={"error": {"code": "context_length_exceeded"}})
    east, west = wire.answers(EAST, refused), wire.answers(WEST, SOUND)
    assert wire.ask(EAST, WEST, requests=20) == ["sound"] * 20
    assert (len(east), len(west)) == (20, 20)
    assert wire.upstream is not None
    assert wire.upstream.health()["endpoints"][0]["breaker"] == "closed"


def test_a_question_that_is_refused_everywhere_is_asked_once_everywhere(wire: Wire) -> None:
    routes = [wire.answers(url, httpx.Response(400)) for url in (EAST, WEST)]
    (error,) = wire.ask(EAST, WEST)
    assert isinstance(error, UpstreamRejected)
    assert [len(route) for route in routes] == [1, 1]


def test_an_endpoint_that_takes_none_of_our_requests_is_left_alone(wire: Wire) -> None:
    refused = httpx.Response(400, json={"error": {"code": "unsupported_parameter", "param": "messages"}})
    east, west = wire.answers(EAST, refused), wire.answers(WEST, SOUND)
    assert wire.ask(EAST, WEST, requests=20) == ["sound"] * 20
    assert (len(east), len(west)) == (5, 20)
    assert wire.upstream is not None
    assert [one["breaker"] for one in wire.upstream.health()["endpoints"]] == ["open", "closed"]


def test_each_endpoint_learns_for_itself_what_it_refuses_and_a_visitor_pays_one_call_at_most(wire: Wire) -> None:
    def reasoning(request: httpx.Request) -> httpx.Response:
        sent = orjson.loads(request.content)
        for name in ("max_tokens", "temperature"):
            if name in sent:
                return httpx.Response(400, json={"error": {"code": "unsupported_parameter", "param": name}})
        return httpx.Response(200, json={"text": "sound"})

    async def answer(request: httpx.Request) -> httpx.Response:
        return reasoning(request)

    body = {"max_tokens": 9, "temperature": 0.1}
    east, west = wire.answers(EAST, answer), wire.answers(WEST, SOUND)
    calls = []
    for _ in range(4):
        before = len(east)
        assert wire.ask(EAST, WEST, body=body) == ["sound"]
        calls.append(len(east) - before)
    assert calls == [2, 2, 1, 1]
    assert orjson.loads(east[-1].content) == {"max_completion_tokens": 9}
    assert (len(west), wire.time.pauses_s) == (0, [])
    assert wire.upstream is not None
    wire.upstream.targets.pop(0)
    wire.ask(EAST, WEST, body=body)
    assert orjson.loads(west[-1].content) == body


def test_a_filtered_prompt_is_neither_asked_again_nor_held_against_the_endpoint(wire: Wire) -> None:
    refused = httpx.Response(400, json={"error": {"code": "content_filter", "message": "private"}})
    route = wire.answers(EAST, refused)
    errors = wire.ask(EAST, requests=10)
    assert {type(error) for error in errors} == {ContentFiltered}
    assert len(route) == 10


@pytest.mark.parametrize(
    ("headers", "pause_s"),
    [({"retry-after-ms": "40", "Retry-After": "9"}, 0.04), ({"Retry-After": "3"}, 3.0), ({"Retry-After": "0"}, 0.125)],
)
def test_the_pause_that_the_endpoint_asks_for_is_kept(wire: Wire, headers: dict[str, str], pause_s: float) -> None:
    wire.answers(EAST, httpx.Response(429, headers=headers), SOUND)
    assert wire.ask(EAST) == ["sound"]
    assert wire.time.pauses_s == [pytest.approx(pause_s)]


def test_a_pause_beyond_the_deadline_is_not_begun(wire: Wire) -> None:
    route = wire.answers(EAST, httpx.Response(429, headers={"Retry-After": "30"}))
    (error,) = wire.ask(EAST, seconds=25)
    assert isinstance(error, Unanswered)
    assert (len(route), wire.time.pauses_s) == (1, [])


def test_the_next_endpoint_is_asked_at_once_when_one_throttles_and_first_until_it_is_free(wire: Wire) -> None:
    east = wire.answers(EAST, httpx.Response(429, headers={"Retry-After": "10"}), SOUND)
    west = wire.answers(WEST, SOUND)
    assert wire.ask(EAST, WEST, requests=3) == ["sound"] * 3
    assert (len(east), len(west), wire.time.pauses_s) == (1, 3, [0.0])
    assert wire.upstream is not None
    assert [one["throttled"] for one in wire.upstream.health()["endpoints"]] == [True, False]
    wire.time.now += 10
    wire.ask(EAST, WEST)
    assert len(east) == 2


def test_an_endpoint_that_failed_once_is_asked_again_before_one_that_is_throttled(wire: Wire) -> None:
    east = wire.answers(EAST, httpx.Response(429, headers={"Retry-After": "10"}), SOUND)
    west = wire.answers(WEST, SOUND, DOWN, SOUND)
    assert wire.ask(EAST, WEST, requests=2) == ["sound"] * 2
    assert (len(east), len(west)) == (1, 3)
    assert wire.time.pauses_s == [0.0, 0.125]


def test_nobody_pauses_for_an_endpoint_whose_breaker_has_just_opened(wire: Wire) -> None:
    route = wire.answers(EAST, DOWN)
    wire.ask(EAST, requests=3)
    assert len(route) == 5
    assert wire.time.pauses_s == [0.125, 0.25, 0.125]


def test_where_all_throttle_the_one_that_is_free_soonest_is_waited_for(wire: Wire) -> None:
    east = wire.answers(EAST, httpx.Response(429, headers={"Retry-After": "2"}), SOUND)
    west = wire.answers(WEST, httpx.Response(429, headers={"Retry-After": "9"}))
    assert wire.ask(EAST, WEST) == ["sound"]
    assert (len(east), len(west)) == (2, 1)
    assert wire.time.pauses_s == [0.0, pytest.approx(2.0)]


def test_each_endpoint_gets_the_name_of_its_own_model(wire: Wire) -> None:
    routes = [wire.answers(EAST, DOWN), wire.answers(WEST, DOWN), wire.answers(NORTH, SOUND)]
    wire.ask(EAST, WEST, NORTH, models=("gpt-a", "", "gpt-c"))
    bodies = [orjson.loads(route[-1].content) for route in routes]
    assert bodies == [{"ask": 1, "model": "gpt-a"}, {"ask": 1}, {"ask": 1, "model": "gpt-c"}]


def test_a_failing_endpoint_is_left_alone_and_found_again_when_it_is_back(wire: Wire) -> None:
    east = wire.answers(EAST, *[DOWN] * 6, SOUND)
    west = wire.answers(WEST, SOUND)
    assert wire.ask(EAST, WEST, requests=50) == ["sound"] * 50
    assert len(east) == 5
    assert wire.upstream is not None
    assert [one["breaker"] for one in wire.upstream.health()["endpoints"]] == ["open", "closed"]
    wire.time.now += 2
    assert wire.ask(EAST, WEST, requests=5) == ["sound"] * 5
    assert len(east) == 6
    wire.time.now += 2
    wire.ask(EAST, WEST, requests=5)
    assert (len(east), len(west)) == (11, 55)
    assert wire.upstream.health()["status"] == "ok"


@pytest.mark.parametrize(
    "failure",
    [DOWN, httpx.Response(401), httpx.Response(429), httpx.Response(429, headers={"Retry-After": "1"}),
     httpx.ConnectError("x"), httpx.Response(200, text="<html>")],
)  # fmt: skip
def test_a_total_outage_of_any_kind_costs_a_handful_of_calls(wire: Wire, failure: httpx.Response | Exception) -> None:
    async def read(response: httpx.Response) -> str:
        raise Unanswered(f"a body of a wrong form, status {response.status_code}")

    routes = [wire.answers(url, failure) for url in (EAST, WEST)]
    wire.ask(EAST, WEST, requests=0)
    assert wire.upstream is not None
    upstream = wire.upstream

    async def story() -> set[type[BaseException]]:
        async with httpx.AsyncClient(verify=False) as client:
            upstream._client = client
            asked = (upstream.call({}, deadline=Deadline(1.0, clock=wire.time), read=read) for _ in range(200))
            return {type(one) for one in await asyncio.gather(*asked, return_exceptions=True)}  # type: ignore[misc]

    # All at once is the worst case: every one of them begins before the first has failed.
    assert all(issubclass(kind, UpstreamError) for kind in asyncio.run(story()))
    assert sum(len(route) for route in routes) <= 2 * 200 + 3
    before = sum(len(route) for route in routes)
    wire.time.now += 0.5
    assert all(isinstance(one, UpstreamError) for one in wire.ask(EAST, WEST, requests=200))
    assert sum(len(route) for route in routes) - before <= 2
    assert upstream.health()["status"] == "unavailable"


def test_the_budget_bounds_retries_of_requests_that_fail_together(wire: Wire) -> None:
    paused, all_there, go_on = 0, asyncio.Event(), asyncio.Event()

    async def fail_together(request: httpx.Request) -> httpx.Response:
        if len(route) == 100:
            all_there.set()
        await all_there.wait()
        return httpx.Response(503)

    async def pause(seconds: float) -> None:
        nonlocal paused
        paused += 1
        await go_on.wait()

    route = wire.answers(EAST, fail_together)
    wire.time.sleep = pause  # type: ignore[method-assign]
    wire.ask(EAST, requests=0)
    assert wire.upstream is not None
    upstream = wire.upstream

    async def story() -> None:
        async with httpx.AsyncClient(verify=False) as client:
            upstream._client = client
            # A breaker that never opens: the budget alone has to hold.
            upstream.targets[0].breaker = Breaker(failures_to_open=10_000, clock=wire.time)
            asked = [asyncio.create_task(outcome(upstream, Deadline(60, clock=wire.time))) for _ in range(100)]
            while paused + sum(one.done() for one in asked) < 100:
                await asyncio.sleep(0)
            assert 3 <= paused <= 20
            go_on.set()
            await asyncio.gather(*asked)

    asyncio.run(story())
    assert len(route) <= 100 + 20 * 2
    assert (wire.budget.active, wire.budget.retrying) == (0, 0)


def test_a_hang_of_the_only_endpoint_ends_at_the_deadline_and_counts_against_it(wire: Wire) -> None:
    route = wire.answers(EAST, hang)
    errors = wire.ask(EAST, requests=6, seconds=0.02)
    assert [type(error) for error in errors] == [UpstreamTimeout] * 5 + [UpstreamError]
    assert len(route) == 5


def test_a_hanging_first_endpoint_leaves_time_for_the_next(wire: Wire) -> None:
    east, west = wire.answers(EAST, hang), wire.answers(WEST, SOUND)
    assert wire.ask(EAST, WEST, requests=7, seconds=0.2) == ["sound"] * 7
    assert (len(east), len(west)) == (5, 7)


def test_a_probe_of_a_hanging_endpoint_costs_its_visitor_little_while_another_is_healthy(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rag.llm.client.PROBE_TIMEOUT_S", 0.02)
    east, west = wire.answers(EAST, *[DOWN] * 5, hang), wire.answers(WEST, SOUND)
    wire.ask(EAST, WEST, requests=5)
    wire.time.now += 2

    async def soon() -> list[Any]:
        async with asyncio.timeout(5):
            return await asyncio.to_thread(wire.ask, EAST, WEST, seconds=600)

    assert asyncio.run(soon()) == ["sound"]
    assert (len(east), len(west)) == (6, 6)


def test_a_visitor_who_leaves_is_not_held_against_the_endpoint(wire: Wire) -> None:
    wire.answers(EAST, hang)
    wire.ask(EAST, requests=0)
    assert wire.upstream is not None
    upstream = wire.upstream

    async def story() -> None:
        async with httpx.AsyncClient(verify=False) as client:
            upstream._client = client
            for _ in range(20):
                asked = asyncio.create_task(upstream.call({}, deadline=Deadline(60), read=text_of))
                await asyncio.sleep(0)
                asked.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await asked

    asyncio.run(story())
    assert upstream.health()["endpoints"][0]["breaker"] == "closed"
    assert (wire.budget.active, wire.budget.retrying) == (0, 0)


def test_those_who_come_during_the_probe_after_a_recovery_are_answered(wire: Wire) -> None:
    async def answer_last(request: httpx.Request) -> httpx.Response:
        # All the others come while the probe is under way.
        for _ in range(100):
            await asyncio.sleep(0)
        return httpx.Response(200, json={"text": "sound"})

    route = wire.answers(EAST, *[DOWN] * 5, answer_last)
    wire.ask(EAST, requests=5)
    wire.time.now += 2
    assert wire.upstream is not None
    upstream = wire.upstream

    async def story() -> list[Any]:
        async with httpx.AsyncClient(verify=False) as client:
            upstream._client = client
            return await asyncio.gather(*(outcome(upstream, Deadline(9, clock=wire.time)) for _ in range(30)))

    assert asyncio.run(story()) == ["sound"] * 30
    assert len(route) == 5 + 30


def test_a_retry_is_logged_with_attempt_and_delay_and_no_key_is(wire: Wire, caplog: pytest.LogCaptureFixture) -> None:
    body = {"error": {"code": "Overloaded", "message": f"upstream words {KEY}"}}
    wire.answers(EAST, httpx.Response(503, json=body), SOUND)
    with caplog.at_level(logging.DEBUG):
        wire.ask(EAST)
    (retry,) = (vars(record) for record in caplog.records if record.message == "upstream call failed, trying again")
    assert (retry["attempt"], retry["attempts"], retry["delay_ms"]) == (1, 3, 125)
    assert (retry["endpoint"], retry["reason"]) == (
        "east.openai.azure.com/gpt", "east.openai.azure.com/gpt: HTTP 503 Overloaded",
    )  # fmt: skip
    assert not any(KEY in str(vars(record)) or "upstream words" in str(vars(record)) for record in caplog.records)
    assert KEY not in repr(wire.upstream and wire.upstream.targets)


def test_opening_and_closing_of_a_breaker_are_logged(wire: Wire, caplog: pytest.LogCaptureFixture) -> None:
    wire.answers(EAST, *[DOWN] * 5, SOUND)
    wire.ask(EAST, requests=20)
    wire.time.now += 2
    wire.ask(EAST, requests=3)
    changes = [vars(one)["breaker"] for one in caplog.records if one.message == "endpoint's breaker changed"]
    assert changes == ["open", "closed"]


def test_a_body_beyond_the_limit_is_not_read_to_its_end() -> None:
    sent = 0

    async def endless() -> Any:
        nonlocal sent
        while True:
            sent += 1
            yield b"x" * 1_000

    async def story() -> None:
        response = httpx.Response(200, content=endless())
        with pytest.raises(Unanswered):
            await read_body(response, limit=10_000)
        assert response.is_closed

    asyncio.run(story())
    assert sent == 11


def test_no_proxy_of_the_environment_sees_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")

    async def story() -> None:
        async with http_client() as client:
            assert not client._mounts
            assert not client.trust_env

    asyncio.run(story())


def test_visitors_who_leave_take_no_connection_of_the_pool_with_them(azure: AzureEmulator) -> None:
    azure.fail("hang", times=100)

    async def story() -> str:
        async with http_client(connections=2) as client:
            endpoint = Endpoint(azure.embeddings_url, azure.api_key, "", False)
            upstream = Upstream(kind="embeddings", endpoints=[endpoint], client=client, budget=RetryBudget())

            async def read(response: httpx.Response) -> str:
                return (await read_body(response, limit=1_000_000)).decode()

            async def asked(seconds: float) -> str:
                return await upstream.call({"input": ["x"]}, deadline=Deadline(seconds), read=read)

            for number in range(50):
                pair = [asyncio.create_task(asked(60)) for _ in range(2)]
                while len(azure.requests()) < 2 * (number + 1):
                    await asyncio.sleep(0.001)
                for task in pair:
                    task.cancel()
                assert [type(one) for one in await asyncio.gather(*pair, return_exceptions=True)] == [
                    asyncio.CancelledError
                ] * 2
            return await asked(5)

    assert '"embedding"' in asyncio.run(story())
    assert azure.stats()["connections"] >= 100
