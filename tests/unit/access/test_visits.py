"""Visits: whose tokens hold, for which origin and how long, and what a proof of work is worth."""

import asyncio
import base64
import hashlib
import hmac
import itertools
import json
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import pytest

from rag.access import visits
from rag.access.limits import RateLimits, sqlite_storage_uri
from rag.access.visits import Origins, Proofs, Visits
from rag.errors import Forbidden, ProofRequired
from rag.stores.sqlite.file import Clocks
from tests.support.altcha import solved
from tests.support.tokens import b64
from tests.support.waiting import REPOSITORY

SITE, OTHER = "https://www.example.com", "https://docs.example.com"
FIRST, SECOND = "1" * 32, "2" * 32
ORIGINS = Origins((SITE, OTHER))


def of(*secrets: str) -> Visits:
    return Visits(secrets=secrets, origins=ORIGINS, scopes=frozenset({"chat"}))


def begun(visits: Visits, origin: str = SITE) -> tuple[str, int]:
    return asyncio.run(visits.begin({"origin": origin}, None))


def part(token: str, place: int) -> dict[str, Any]:
    text = token.split(".")[place]
    parsed: dict[str, Any] = json.loads(base64.urlsafe_b64decode(text + "=="))
    return parsed


def test_a_visit_says_where_it_began_and_when_it_ends_and_not_who_it_is() -> None:
    token, expires_at = begun(of(FIRST))
    header, claims = part(token, 0), part(token, 1)
    assert (header["alg"], header["typ"], set(header)) == ("HS256", "visit+jwt", {"alg", "typ", "kid"})
    assert set(claims) == {"sub", "org", "iat", "exp"}
    assert claims["exp"] == expires_at == claims["iat"] + 3600
    assert len(base64.urlsafe_b64decode(claims["sub"] + "==")) == 16
    assert claims["sub"] != part(begun(of(FIRST))[0], 1)["sub"]
    assert FIRST not in token


@pytest.mark.parametrize(
    ("headers", "sound"),
    [
        ({"origin": SITE}, True),
        ({"origin": SITE, "sec-fetch-site": "same-site"}, True),
        ({"origin": SITE, "sec-fetch-site": "cross-site"}, True),
        ({"origin": SITE, "sec-fetch-site": "none"}, False),
        ({"origin": SITE, "sec-fetch-site": "Cross-Site"}, False),
        ({"origin": OTHER}, False),
        ({"origin": "https://evil.example"}, False),
        ({"origin": "null"}, False),
        ({"origin": ""}, False),
        ({"origin": SITE + "/"}, False),
        ({"origin": SITE.upper()}, False),
        ({"origin": f"{SITE} https://evil.example"}, False),
        # A page that reads from its own server sends no Origin; a program that is no browser sends neither.
        ({"sec-fetch-site": "same-origin"}, True),
        ({"sec-fetch-site": "cross-site"}, False),
        ({}, False),
    ],
)
def test_a_visit_holds_where_it_began_and_nowhere_else(headers: dict[str, str], sound: bool) -> None:
    token, _ = begun(of(FIRST))
    assert of(FIRST).is_one(token)
    assert of(FIRST).sound(token, headers) is sound


def test_an_origin_that_is_no_longer_allowed_ends_its_visits() -> None:
    token, _ = begun(of(FIRST))
    narrowed = Visits(secrets=[FIRST], origins=Origins((OTHER,)), scopes=frozenset())
    assert not narrowed.sound(token, {"origin": SITE})
    assert not narrowed.sound(token, {"sec-fetch-site": "same-origin"})


def test_a_visit_ends_after_an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    token, _ = begun(of(FIRST))
    for later, sound in ((3590, True), (3601, False)):
        monkeypatch.setattr(time, "time", lambda later=later: now + later)
        assert of(FIRST).sound(token, {"origin": SITE}) is sound


def test_secrets_are_rotated_without_ending_a_visit() -> None:
    old, _ = begun(of(FIRST))
    both = of(SECOND, FIRST)
    new, _ = begun(both)
    assert both.sound(old, {"origin": SITE})
    assert both.sound(new, {"origin": SITE})
    assert not of(FIRST).sound(new, {"origin": SITE})
    assert not of(SECOND).sound(old, {"origin": SITE})


def altered() -> list[str]:
    token, _ = begun(of(FIRST))
    header, claims, signature = token.split(".")
    later = b64({**part(token, 1), "exp": 9_999_999_999})
    none = b64({**part(token, 0), "alg": "none"})
    return [
        f"{header}.{later}.{signature}", f"{none}.{claims}.", f"{none}.{claims}.{signature}", f"{header}.{claims}.",
        f"{header}.{claims}", header, f"{header}.", f"{header}..", f"{header}..{signature}", f"{token}.", f"{token}=",
        f"{header}.{claims}.{signature[:-1]}", f"{header}.{claims}.{signature}x", f".{claims}.{signature}", "", "...",
        f"{header}.{claims}.ä", f"{header}.{claims}.\udcff", f"{header}.{claims}\x00.{signature}",
    ]  # fmt: skip


@pytest.mark.parametrize("token", altered(), ids=itertools.count())
def test_a_visit_that_was_altered_is_none(token: str) -> None:
    assert not of(FIRST).sound(token, {"origin": SITE})


def test_a_machine_makes_one_secret_for_all_its_workers_and_keeps_it_private(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    program = (
        f"from pathlib import Path; from rag.access.visits import secret_in; print(secret_in(Path({str(folder)!r})))"
    )

    def worker(_: int) -> str:
        command = [sys.executable, "-c", program]
        return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout.strip()

    with ThreadPoolExecutor(4) as pool:
        made = set(pool.map(worker, range(8)))
    assert len(made) == 1
    assert len(made.pop()) == 64
    [file] = folder.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def proofs_of(secret: str, folder: Path) -> Proofs:
    used = RateLimits(
        limits=dict([visits.ONCE]), storage_uri=sqlite_storage_uri(folder / "hits.sqlite3"), enabled=True,
        clocks=Clocks.system(),
    )  # fmt: skip
    return Proofs(secret=secret, used=used)


PROOFS = Proofs(secret=FIRST, used=cast(RateLimits, None))


@pytest.fixture(scope="module")
def proof() -> dict[str, Any]:
    return solved(PROOFS.challenge(SITE))


def test_a_solved_challenge_is_known_as_an_object_or_in_base64(proof: dict[str, Any]) -> None:
    assert PROOFS.solved(proof, SITE) == proof["challenge"]
    assert PROOFS.solved(base64.b64encode(json.dumps(proof).encode()).decode(), SITE) == proof["challenge"]


@pytest.mark.parametrize(
    "changed",
    [
        {"number": -1}, {"number": 1.0}, {"number": True}, {"number": "1"}, {"number": 10**400}, {"number": None},
        {"algorithm": "SHA-1"}, {"algorithm": None}, {"signature": "0" * 64}, {"signature": None}, {"signature": "ä"},
        {"challenge": "0" * 64}, {"challenge": 5}, {"salt": None}, {"salt": ["x"]}, {"salt": "\udcff"},
    ],
)  # fmt: skip
def test_a_proof_that_was_altered_is_none(changed: dict[str, Any], proof: dict[str, Any]) -> None:
    assert PROOFS.solved({**proof, **changed}, SITE) is None


@pytest.mark.parametrize("given", [None, 5, True, [], {}, "", "ä", "bm8=", b64("[" * 9000) + "==", "x" * 10_000])
def test_what_is_no_proof_at_all_is_none(given: Any) -> None:
    assert PROOFS.solved(given, SITE) is None


def test_digits_cannot_move_between_salt_and_number(proof: dict[str, Any]) -> None:
    """Else one proof would count as many, each with another time at which it ends (CVE-2025-68113)."""
    text = f"{proof['salt']}{proof['number']}"
    for cut in range(len(text) - 6, len(text)):
        if text[cut:].isdecimal() and text[:cut] != proof["salt"]:
            assert PROOFS.solved({**proof, "salt": text[:cut], "number": int(text[cut:])}, SITE) is None
    assert proof["salt"].endswith("&")


def test_a_proof_holds_for_its_origin_for_five_minutes_and_for_its_server(
    proof: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert PROOFS.solved(proof, OTHER) is None
    assert Proofs(secret=SECOND, used=cast(RateLimits, None)).solved(proof, SITE) is None
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + visits.CHALLENGE_S + 1)
    assert PROOFS.solved(proof, SITE) is None


def test_a_page_cannot_sign_a_challenge_of_its_own() -> None:
    salt = f"00?expires={int(time.time()) + 300}&origin={SITE}&"
    easy = hashlib.sha256(f"{salt}0".encode()).hexdigest()
    for key in (b"", FIRST.encode(), b"challenge:"):
        signature = hmac.new(key, f"{salt}\n{easy}".encode(), hashlib.sha256).hexdigest()
        own = {"algorithm": "SHA-256", "challenge": easy, "salt": salt, "signature": signature, "number": 0}
        assert PROOFS.solved(own, SITE) is None


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "", SITE + "/"])
def test_a_page_of_another_site_begins_no_visit(origin: str) -> None:
    with pytest.raises(Forbidden):
        begun(of(FIRST), origin)


def test_one_proof_begins_one_visit_on_whichever_worker(tmp_path: Path) -> None:
    """Two objects over one file, as two workers have them."""

    async def begin() -> tuple[list[bool], str]:
        workers = [Visits(secrets=[FIRST], origins=ORIGINS, scopes=frozenset(), proofs=proofs_of(FIRST, tmp_path))
                   for _ in range(2)]  # fmt: skip
        with pytest.raises(ProofRequired) as asked:
            await workers[0].begin({"origin": SITE}, None)
        proof, begun = solved(asked.value.challenge), []
        for worker in (*workers, *workers):
            try:
                await worker.begin({"origin": SITE}, proof)
                begun.append(True)
            except ProofRequired:
                begun.append(False)
        for worker in workers:
            await worker.close()
        return begun, proof["challenge"]

    begun, challenge = asyncio.run(begin())
    assert begun == [True, False, False, False]
    assert challenge.encode() not in (tmp_path / "hits.sqlite3").read_bytes()
