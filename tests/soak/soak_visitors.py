"""Many chats, exact limits again and again, and a hundred thousand attempts at conversations of others."""

import asyncio
import http.client
import json
import random
import secrets
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import httpx

from tests.conftest import StartServer
from tests.soak.load import resident_bytes
from tests.support.server import RagServer
from tests.support.small_site import FACTS
from tests.support.waiting import wait_until

WORKERS = 4
WARM_UP = 2_000
CHATS = 10_000
GROWTH = 1.10
"""Of a worker's resident size over `CHATS`, at most."""
ATTEMPTS = 100_000
VICTIMS = 200
LIMIT = 20


async def chats(server: RagServer, number: int) -> None:
    left = iter(range(number))
    fresh = httpx.Limits(max_keepalive_connections=0)
    async with httpx.AsyncClient(base_url=server.base_url, timeout=60, trust_env=False, limits=fresh) as client:

        async def visitor() -> None:
            for turn in left:
                answer = await client.post("/chat", json={"message": FACTS[turn % len(FACTS)].question})
                assert answer.status_code == 200, answer.text
                assert answer.json()["degraded"] is None

        await asyncio.gather(*(visitor() for _ in range(16)))


def test_after_10_000_chats_every_worker_is_as_large_as_before(start_server: StartServer) -> None:
    server = start_server(workers=WORKERS)
    wait_until(lambda: len(server.worker_pids()) == WORKERS, 20, "all workers run")
    asyncio.run(chats(server, WARM_UP))
    before = {pid: resident_bytes(pid) for pid in server.worker_pids()}
    asyncio.run(chats(server, CHATS))
    after = {pid: resident_bytes(pid) for pid in server.worker_pids()}
    assert after.keys() == before.keys()
    mb = 1024 * 1024
    sizes = ", ".join(f"{before[pid] / mb:.1f} → {after[pid] / mb:.1f}" for pid in before)
    growth = max(after[pid] / before[pid] for pid in before)
    print(f"{CHATS} chats: MB of each worker before and after: {sizes}; the most is a factor of {growth:.3f}")
    assert growth < GROWTH


def test_in_20_runs_over_4_workers_exactly_20_of_200_chats_pass(start_server: StartServer) -> None:
    server = start_server(workers=WORKERS, RATE_LIMIT_CHAT=f"{LIMIT}/minute")
    wait_until(lambda: len(server.worker_pids()) == WORKERS, 20, "all workers run")

    def ask(address: str) -> int:
        headers = {"Connection": "close", "X-Forwarded-For": address}
        body = {"message": FACTS[0].question}
        return httpx.post(
            f"{server.base_url}/chat", json=body, headers=headers, timeout=60, trust_env=False
        ).status_code

    with ThreadPoolExecutor(32) as visitors:
        runs = [Counter(visitors.map(ask, [f"198.51.100.{run}"] * 200)) for run in range(1, 21)]
    print(f"{len(runs)} runs: {Counter(str(dict(sorted(run.items()))) for run in runs)}")
    assert runs == [{200: LIMIT, 429: 180}] * 20


def near(known: str) -> Iterator[str]:
    """Ids that are not the known one, but of its kind: one character off, cut, extended, in other letters, made up."""
    letters = "0123456789abcdef"
    for place in range(len(known)):
        yield f"{known[:place]}{random.choice(letters.replace(known[place], ''))}{known[place + 1 :]}"
    yield from (known[:-1], known[1:], f"{known}0", f"0{known}", known.upper(), known[::-1], f"{known}.", f"{known}%20")
    while True:
        yield secrets.token_hex(16)


def test_100_000_attempts_reach_no_conversation_of_another(start_server: StartServer) -> None:
    server = start_server(workers=WORKERS)
    victims = {}
    with httpx.Client(base_url=server.base_url, timeout=60, trust_env=False) as client:
        for _ in range(VICTIMS):
            answer = client.post("/chat", json={"message": f"{FACTS[0].question} secret-{secrets.token_hex(8)}"}).json()
            victims[answer["session_id"]] = client.get(f"/sessions/{answer['session_id']}/history").json()["history"]
    assert all(len(history) == 2 for history in victims.values())
    guesses = {session_id: near(session_id) for session_id in victims}
    seen: Counter[str] = Counter()

    def attack(own: list[str]) -> Counter[str]:
        mine: Counter[str] = Counter()
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        turns = count()
        for _ in range(ATTEMPTS // len(victims)):
            for victim in own:
                guess, method = next(guesses[victim]), "DELETE" if next(turns) % 4 == 0 else "GET"
                path = f"/sessions/{guess}" if method == "DELETE" else f"/sessions/{guess}/history"
                connection.request(method, path)
                answer = connection.getresponse()
                body = answer.read()
                told = method == "GET" and answer.status == 200 and json.loads(body)["history"]
                mine["read"] += bool(told or b"secret-" in body)
                mine[f"{method} {answer.status}"] += 1
        return mine

    ids = list(victims)
    with ThreadPoolExecutor(4) as attackers:
        for counted in attackers.map(attack, [ids[start::4] for start in range(4)]):
            seen += counted
    with httpx.Client(base_url=server.base_url, timeout=60, trust_env=False) as client:
        kept = {one: client.get(f"/sessions/{one}/history").json()["history"] for one in victims}
    print(f"attempts by outcome: {dict(seen)}; conversations intact: {kept == victims}")
    assert sum(number for outcome, number in seen.items() if outcome != "read") == ATTEMPTS
    assert seen["read"] == 0
    assert {outcome.split()[1] for outcome in seen} <= {"200", "422"}
    assert kept == victims
