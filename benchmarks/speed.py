"""How fast the server is, as ratios against its floor, both measured in the same run.

Run: python benchmarks/speed.py [--quick] [--json FILE] [--picture FILE] [--peers PYTHON]

Starts the emulated model (embeddings after 20 ms, answers after 300 ms, streams of 60 tokens 50 ms apart), the floor
(`benchmarks/floor.py`) and the server, each with 4 workers, and puts load on them in turn, several rounds. Rate limits
are off, all else is as by default; every question is new. Needs wrk. Figures count only on a machine that does nothing
else; ratios bear some company, since both are measured within the same minute.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.measuring import chats, picture, relay, servers, site, starts, streams  # noqa: E402
from benchmarks.measuring.chats import Chats  # noqa: E402
from benchmarks.measuring.figures import Spread, spread  # noqa: E402
from benchmarks.measuring.relay import Relayed  # noqa: E402
from benchmarks.measuring.servers import Running  # noqa: E402
from benchmarks.measuring.starts import Indexed  # noqa: E402
from benchmarks.measuring.streams import Streams  # noqa: E402
from rag.search.hybrid import open_build  # noqa: E402
from tests.support.azure import AzureEmulator  # noqa: E402

DIMENSIONS = 1536
DELAYS = {"embeddings_delay_ms": 20, "chat_delay_ms": 300}
TOKEN_DELAY_MS = 50
INDEX_DELAY_MS = 50
STREAM_S = 3.4
"""What one stream takes: readers begin within this time, so that as many as there are read at once."""


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    rounds: int
    seconds: float
    clients: tuple[int, ...]
    readers: int
    many_readers: int
    relayed: int
    starts: int
    pages: int = 1_000


FULL = Size(rounds=3, seconds=5, clients=(16, 64, 256, 512), readers=500, many_readers=1_000, relayed=20, starts=3)
QUICK = Size(rounds=1, seconds=3, clients=(64, 512), readers=200, many_readers=0, relayed=10, starts=1)
PEERS_SECONDS = 10
"""Of load in a run with peers: the first answers to 512 clients take them longer than the others' whole rounds."""
TINY = Size(rounds=1, seconds=1, clients=(4, 8), readers=4, many_readers=0, relayed=2, starts=1, pages=50)
"""For the test of this program: every part of it once."""


@dataclass
class Measured:
    """Everything, by the server's name."""

    chats: dict[str, dict[int, list[Chats]]] = field(default_factory=dict)
    streams: dict[str, list[Streams]] = field(default_factory=dict)
    many_streams: Streams | None = None
    relayed: dict[str, Relayed] = field(default_factory=dict)
    ready_s: list[float] = field(default_factory=list)
    built: dict[str, Indexed] = field(default_factory=dict)


@dataclass(frozen=True)
class Line:
    """One line of the table."""

    what: str
    floor: str
    server: str
    against: str
    """The ratio or the difference, median and spread over the rounds."""
    target: str


def measure(size: Size, folder: Path, peers: str | None) -> Measured:
    """All of it; `folder` is empty, and is left full."""
    found = Measured()
    with AzureEmulator.start(dimension=DIMENSIONS) as azure:
        env = azure.environment
        pages = site.write_site(folder / "site", size.pages)
        _tell("indexing")
        found.built["instant"] = starts.index(pages, env, folder / "instant")
        azure.behave(embeddings_delay_ms=INDEX_DELAY_MS)
        found.built["first"] = starts.index(pages, env, folder / "vector_db")
        found.built["again"] = starts.index(pages, env, folder / "vector_db")
        found.ready_s = [starts.seconds_to_ready(env, folder) for _ in range(size.starts)]
        questions = site.questions(size.pages)
        (folder / "questions.txt").write_text("\n".join(questions), encoding="utf-8")
        with ExitStack() as stack:
            running = [stack.enter_context(start(env, folder)) for start in (servers.floor, servers.product)]
            if peers:
                from benchmarks.peers.started import started

                running += [stack.enter_context(one) for one in started(peers, env, folder)]
            azure.behave(**DELAYS, tokens=streams.tokens())
            _measure_chats(size, running, folder / "questions.txt", found)
            azure.behave(**DELAYS, tokens=streams.tokens(), token_delay_ms=TOKEN_DELAY_MS)
            _measure_streams(size, running[:2], questions, found)
        _tell("the way of single tokens")
        vector = open_build(folder / "vector_db").vector(0)
        for name, start in (("floor", servers.floor), ("server", servers.product)):
            found.relayed[name] = relay.relay(
                _with(start, folder),
                env,
                vector=vector,
                questions=[f"{questions[0]} {n}?" for n in range(size.relayed)],
            )
    return found


def _measure_chats(size: Size, running: Sequence[Running], questions: Path, found: Measured) -> None:
    for one in running:
        chats.ask_with_wrk(one, questions=questions, clients=min(32, size.clients[-1]), seconds=1)
        found.chats[one.name] = {clients: [] for clients in size.clients}
    for turn in range(size.rounds):
        for clients in size.clients:
            _tell(f"chats, round {turn + 1} of {size.rounds}, {clients} clients")
            for one in running:
                servers.settled(one)
                measured = chats.ask_with_wrk(one, questions=questions, clients=clients, seconds=size.seconds)
                found.chats[one.name][clients].append(measured)


def _measure_streams(size: Size, running: Sequence[Running], questions: Sequence[str], found: Measured) -> None:
    spelling = {"floor": streams.UPSTREAM, "server": streams.PRODUCT}

    def read(one: Running, readers: int, rounds: int) -> Streams:
        servers.settled(one)
        return streams.read_along(
            one, spelling=spelling[one.name], questions=questions, readers=readers, rounds=rounds, ramp_s=STREAM_S
        )

    for turn in range(size.rounds):
        _tell(f"streams, round {turn + 1} of {size.rounds}, {size.readers} readers")
        for one in running:
            found.streams.setdefault(one.name, []).append(read(one, size.readers, 2))
    if size.many_readers:
        _tell(f"{size.many_readers} streams at once")
        found.many_streams = read(running[1], size.many_readers, 1)


def _with(start: Callable[..., Any], folder: Path) -> relay.Start:
    return lambda env: start(env, folder)


def lines(found: Measured, size: Size) -> list[Line]:
    """The table of what was asked for, as far as it was measured."""
    told = []
    for clients, target in ((size.clients[-1] if size.clients[-1] < 64 else 64, "≥ 0.95"), (512, "≥ 0.6")):
        if clients in found.chats["server"]:
            told.append(_chats(found, clients, "chats a second", "per_second", ".0f", f"{target} × floor", ratio=True))
    busiest = size.clients[-1]
    told += [
        _chats(found, clients, "CPU ms a chat", "cpu_ms", ".2f", "≤ 2 × floor", ratio=True)
        for clients in dict.fromkeys((min(64, busiest), busiest))
    ]
    told.append(_chats(found, min(64, busiest), "p99 ms", "p99_ms", ".0f", "≤ floor + 40 ms", ratio=False))
    for what, name, form, target, ratio in (
        ("first token p50 ms", "first_p50_ms", ".0f", "≤ floor + 15 ms", False),
        ("first token p99 ms", "first_p99_ms", ".0f", "≤ floor + 60 ms", False),
        ("CPU µs a token", "cpu_us", ".0f", "≤ 1.5 × floor", True),
    ):
        floor, server = ([getattr(one, name) for one in found.streams[which]] for which in ("floor", "server"))
        told.append(_line(f"{size.readers} streams: {what}", floor, server, form, target, ratio=ratio))
    for peer in sorted(found.chats.keys() - {"floor", "server"}):
        for clients in found.chats[peer]:
            theirs, ours = (
                spread([one.per_second for one in found.chats[which][clients]]) for which in (peer, "server")
            )
            said = f"{theirs.shown('.0f')}: the server answers {ours.median / theirs.median:.1f} times as many"
            told.append(Line(f"{clients} clients, {peer}: chats a second", "", said, "", ""))
    if (many := found.many_streams) is not None:
        said = f"{many.dropped} dropped, {many.health_p99_ms:.0f} ms"
        told.append(Line(f"{many.readers} streams: /health p99", "", said, "", "0 dropped, < 100 ms"))
    passed, ours_ms = found.relayed["floor"].p50_ms, found.relayed["server"].p50_ms
    added = f"{ours_ms - passed:+.2f}"
    told.append(Line("a token's way through p50 ms", f"{passed:.2f}", f"{ours_ms:.2f}", added, "≤ 10 ms"))
    told.append(Line("start to ready s", "", spread(found.ready_s).shown(".2f"), "", "≤ 1.5 s"))
    again, first, instant = (found.built[which] for which in ("again", "first", "instant"))
    told.append(
        Line(f"{size.pages} pages again", "", f"{again.seconds:.1f} s, {again.calls} calls", "", "≤ 3 s, 0 calls")
    )
    waited = f"{first.seconds - instant.seconds:+.2f} s"
    said = f"{first.seconds:.2f} s, {first.calls} calls"
    told.append(
        Line(
            f"{size.pages} pages first, {INDEX_DELAY_MS} ms a call", f"{instant.seconds:.2f} s (0 ms)", said, waited, ""
        )
    )
    return told


def _chats(found: Measured, clients: int, what: str, name: str, form: str, target: str, *, ratio: bool) -> Line:
    floor, server = ([getattr(one, name) for one in found.chats[which][clients]] for which in ("floor", "server"))
    return _line(f"{clients} clients: {what}", floor, server, form, target, ratio=ratio)


def _line(what: str, floor: list[float], server: list[float], form: str, target: str, *, ratio: bool) -> Line:
    pairs = list(zip(floor, server, strict=True))
    against = spread([ours / theirs if ratio else ours - theirs for theirs, ours in pairs])
    shown = f"× {against.shown('.2f')}" if ratio else against.shown("+.0f")
    return Line(what, spread(floor).shown(form), spread(server).shown(form), shown, target)


def panels(found: Measured) -> list[picture.Panel]:
    def curves(name: str) -> Mapping[str, picture.Curve]:
        return {
            which: [(clients, _median(runs, name).median) for clients, runs in by_clients.items()]
            for which, by_clients in found.chats.items()
        }

    return [
        picture.Panel("Throughput", "chats a second", curves("per_second")),
        picture.Panel("Slowest of a hundred", "p99, ms", curves("p99_ms")),
    ]


def _median(runs: Sequence[Chats], name: str) -> Spread:
    return spread([getattr(one, name) for one in runs])


def _tell(what: str) -> None:
    print(f"· {what}", file=sys.stderr, flush=True)


def _printed(told: Sequence[Line]) -> str:
    rows = [
        ("", "floor", "server", "against", "wanted"),
        *((x.what, x.floor, x.server, x.against, x.target) for x in told),
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round, fewer readers: about a minute")
    parser.add_argument("--tiny", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, help="where the figures go; of a full run docs/performance.json")
    parser.add_argument("--picture", type=Path, help="and the picture; docs/images/performance.svg")
    parser.add_argument("--peers", metavar="PYTHON", help="an interpreter with benchmarks/peers/requirements.txt")
    given = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("This needs wrk; on Debian and Ubuntu: sudo apt-get install wrk")
    size = TINY if given.tiny else QUICK if given.quick else FULL
    if given.peers:
        size = replace(size, seconds=PEERS_SECONDS)
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        # Servers start in a folder of their own. Not resolved: behind the link it is not that environment's Python.
        found = measure(size, Path(folder), os.path.abspath(given.peers) if given.peers else None)
    told = lines(found, size)
    print(f"{os.cpu_count()} cores, load {load:.1f} when it began\n\n{_printed(told)}")
    if size is FULL:
        given.json = given.json or ROOT / "docs" / "performance.json"
        given.picture = given.picture or ROOT / "docs" / "images" / "performance.svg"
    if given.json:
        document = {"cores": os.cpu_count(), "load_before": load, "lines": list(map(asdict, told)), **asdict(found)}
        given.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    if given.picture:
        title = "The server and its floor, over concurrency"
        given.picture.write_text(picture.drawn(panels(found), title=title), encoding="utf-8")


if __name__ == "__main__":
    main()
