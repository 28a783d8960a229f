"""How long to wait and when not to ask, on a clock that the test moves."""

import asyncio
from contextlib import suppress

import pytest

from rag.deadline import Deadline
from rag.llm.resilience import Breaker, RetryBudget, full_jitter, retry_after_s


class Clock:
    """Stands still until a test moves it; seconds."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker(failures_to_open=3, open_s=2.0, clock=clock)


def fail(breaker: Breaker, times: int) -> list[bool]:
    return [breaker.failed(breaker.begin()) for _ in range(times)]


def test_a_deadline_counts_down_and_never_below_zero(clock: Clock) -> None:
    deadline = Deadline(10.0, clock=clock)
    clock.now += 4
    assert deadline.remaining_s == pytest.approx(6.0)
    assert deadline.share(0.5).remaining_s == pytest.approx(3.0)
    clock.now += 60
    assert deadline.remaining_s == 0.0
    assert deadline.length_s == 10.0


def test_full_jitter_takes_anything_up_to_a_ceiling_that_doubles_and_ends() -> None:
    drawn_from: list[tuple[float, float]] = []

    def lowest(low: float, high: float) -> float:
        drawn_from.append((low, high))
        return low

    pauses = [full_jitter(attempt, first_s=0.25, longest_s=1.5, uniform=lowest) for attempt in (1, 2, 3, 4, 50)]
    assert drawn_from == [(0, 0.25), (0, 0.5), (0, 1.0), (0, 1.5), (0, 1.5)]
    assert pauses == [0.0] * 5


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": "2"}, 2.0),
        ({"retry-after-ms": "soon", "retry-after": "3"}, 3.0),
        ({"retry-after": "Wed, 04 Nov 2026 10:00:30 GMT", "date": "Wed, 04 Nov 2026 10:00:00 GMT"}, 30.0),
        ({"retry-after": "Wed, 04 Nov 2026 09:00:00 GMT", "date": "Wed, 04 Nov 2026 10:00:00 GMT"}, 0.0),
        ({"retry-after": "Wed, 04 Nov 2026 10:00:30 GMT"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "٣"}, None),
        ({"retry-after": "1_0"}, None),
        ({"retry-after": "1e3"}, None),
        ({}, None),
    ],
)
def test_the_pause_that_is_asked_for_is_read_in_every_sound_form(
    headers: dict[str, str], seconds: float | None
) -> None:
    assert retry_after_s(headers) == seconds


def test_three_retries_are_always_allowed_and_a_fifth_of_many_requests() -> None:
    for active, allowed in ((1, 3), (15, 3), (20, 4), (100, 20)):
        budget = RetryBudget()
        budget.active = active
        while budget.allows_one_more():
            budget.retrying += 1
        assert budget.retrying == allowed


def test_a_request_takes_one_share_of_the_budget_and_gives_it_back() -> None:
    budget = RetryBudget(at_least=1)
    with budget.request() as first, budget.request() as second:
        assert budget.active == 2
        assert [first.allows_a_retry(), first.allows_a_retry(), second.allows_a_retry()] == [True, True, False]
        assert budget.retrying == 1
    assert (budget.active, budget.retrying) == (0, 0)


def test_a_request_that_fails_gives_its_share_back_too() -> None:
    budget = RetryBudget()
    with suppress(KeyError), budget.request() as share:
        assert share.allows_a_retry()
        raise KeyError
    assert (budget.active, budget.retrying) == (0, 0)


def test_a_breaker_opens_after_failures_in_a_row_only(breaker: Breaker) -> None:
    fail(breaker, 2)
    breaker.succeeded(breaker.begin())
    assert fail(breaker, 3) == [False, False, True]
    assert (breaker.state, breaker.available()) == ("open", False)


def test_an_open_breaker_lets_one_probe_through_and_its_success_closes_it(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.now += 1.9
    assert not breaker.available()
    clock.now += 0.1
    assert (breaker.state, breaker.available()) == ("half_open", True)
    probe = breaker.begin()
    assert (breaker.state, breaker.available()) == ("half_open", False)
    assert breaker.succeeded(probe)
    assert (breaker.state, breaker.available()) == ("closed", True)


def test_a_probe_that_fails_opens_the_breaker_for_the_whole_time_again(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.now += 2
    assert not breaker.failed(breaker.begin())
    assert (breaker.state, breaker.available()) == ("open", False)
    clock.now += 2
    assert breaker.available()


def test_a_closed_again_breaker_forgives_what_was_before(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.now += 2
    breaker.succeeded(breaker.begin())
    fail(breaker, 2)
    assert breaker.state == "closed"


def test_a_probe_whose_visitor_left_makes_room_at_once(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.now += 2
    breaker.abandoned(breaker.begin())
    assert (breaker.state, breaker.available()) == ("half_open", True)


def test_visitors_who_leave_say_nothing_about_the_endpoint(breaker: Breaker) -> None:
    for _ in range(100):
        breaker.abandoned(breaker.begin())
    assert breaker.state == "closed"
    fail(breaker, 2)
    breaker.abandoned(breaker.begin())
    assert fail(breaker, 1) == [True]


def test_a_probe_that_hangs_makes_room_for_the_next_after_a_while(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.now += 2
    hanging = breaker.begin()
    clock.now += 2
    assert breaker.available()
    assert breaker.succeeded(breaker.begin())
    breaker.failed(hanging)
    fail(breaker, 2)
    assert breaker.state == "closed"


def test_a_slow_probe_closes_the_breaker_though_another_one_overtook_it(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.now += 2
    slow = breaker.begin()
    clock.now += 2
    breaker.begin()
    assert breaker.succeeded(slow)
    assert breaker.state == "closed"


def test_calls_from_before_the_recovery_cannot_open_the_breaker_again(breaker: Breaker, clock: Clock) -> None:
    under_way = [breaker.begin() for _ in range(20)]
    fail(breaker, 3)
    clock.now += 2
    breaker.succeeded(breaker.begin())
    for call in under_way:
        breaker.failed(call)
    assert breaker.state == "closed"


def test_calls_from_before_the_opening_neither_prolong_nor_end_it(breaker: Breaker, clock: Clock) -> None:
    under_way = [breaker.begin() for _ in range(3)]
    fail(breaker, 3)
    clock.now += 1.5
    breaker.failed(under_way[0])
    breaker.abandoned(under_way[1])
    assert not breaker.succeeded(under_way[2])
    assert not breaker.available()
    clock.now += 0.5
    assert breaker.available()


def test_who_comes_during_a_young_probe_waits_for_its_outcome(breaker: Breaker, clock: Clock) -> None:
    async def story() -> None:
        assert not await breaker.probe_outcome(within_s=5.0)
        fail(breaker, 3)
        clock.now += 2
        probe = breaker.begin()
        waiting = asyncio.create_task(breaker.probe_outcome(within_s=5.0))
        await asyncio.sleep(0)
        assert not waiting.done()
        breaker.succeeded(probe)
        assert await waiting
        assert breaker.available()

    asyncio.run(story())


def test_nobody_waits_for_a_probe_that_is_no_longer_young(breaker: Breaker, clock: Clock) -> None:
    async def story() -> None:
        fail(breaker, 3)
        clock.now += 2
        breaker.begin()
        clock.now += 0.5
        assert not await breaker.probe_outcome(within_s=0.5)

    asyncio.run(story())
