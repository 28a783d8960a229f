"""What the optional features cost: processor time a chat with all of them off and on, in the same run.

Run: python benchmarks/features.py [--rounds N] [--seconds N] [--clients N] [--against CHECKOUT] [--tiny]

Servers with 4 workers answer the same emulated model in turn: as by default, and with keys, tokens, visits, limits,
budgets, the answer cache, the whole question log and uploads on. `--against` adds the server of another checkout of
this project, such as an earlier version, with its defaults. Each question is new. Needs wrk.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.measuring import chats, servers, site, starts  # noqa: E402
from benchmarks.measuring.figures import spread  # noqa: E402
from benchmarks.measuring.servers import Running  # noqa: E402
from tests.support.azure import AzureEmulator  # noqa: E402
from tests.support.server import RagServer  # noqa: E402

PAGES = 1_000
KEY = "0123456789abcdef0123456789abcdef"
EVERYTHING = {
    "RATE_LIMIT_CHAT": "1000000/minute",
    "API_KEYS": f"{KEY};scopes=chat",
    "JWT_ISSUER": "https://login.example.com",
    "JWT_AUDIENCE": "chat",
    "JWT_SECRET_KEY": KEY * 2,
    "BROWSER_SESSIONS": "on",
    "ALLOWED_ORIGINS": "https://www.example.com",
    "BUDGET_SITE": "1000000000000/day",
    "BUDGET_VISITOR": "1000000000000/day",
    "BUDGET_KEY": "1000000000000/day",
    "ENABLE_CACHING": "true",
    "QUESTION_LOG": "all",
    "UPLOADS": "on",
}
ELSEWHERE = """
import json, sys
from contextlib import ExitStack
from pathlib import Path
from benchmarks.measuring import servers, starts
env, folder, pages = json.loads(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
starts.index(pages, env, folder / "vector_db")
with servers.product(env, folder) as running:
    print(json.dumps([running.url, running.master]), flush=True)
    sys.stdin.read()
"""
"""The other checkout's own way to start it."""


def everything_on(env: dict[str, str], folder: Path, stack: ExitStack) -> Running:
    folder.mkdir()
    server = stack.enter_context(RagServer.start({**env, **EVERYTHING}, folder, workers=servers.WORKERS))
    return Running("everything on", server.base_url, server.pid)


def of_checkout(checkout: Path, env: dict[str, str], folder: Path, pages: Path, stack: ExitStack) -> Running:
    """The server of another checkout, which ends with `stack`."""
    folder.mkdir()
    command = [sys.executable, "-c", ELSEWHERE, json.dumps(env), str(folder), str(pages)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    process = stack.enter_context(subprocess.Popen(command, cwd=checkout, text=True, **pipes))  # type: ignore[call-overload]
    url, master = json.loads(process.stdout.readline())
    return Running(f"checkout {checkout.name}", url, master)


def main(given: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--against", type=Path, metavar="CHECKOUT", help="another checkout of this project")
    parser.add_argument("--tiny", action="store_true", help="every part once, for the test of this program")
    options = parser.parse_args(given)
    if options.tiny:
        options.rounds, options.seconds, options.clients = 1, 1, 4
    with tempfile.TemporaryDirectory() as temporary, AzureEmulator.start(dimension=1536) as azure, ExitStack() as stack:
        folder, env = Path(temporary), dict(azure.environment)
        pages = site.write_site(folder / "site", 50 if options.tiny else PAGES)
        starts.index(pages, env, folder / "vector_db")
        default = stack.enter_context(servers.product(env, folder))
        with_index = {**env, "VECTOR_DB_PATH": str(folder / "vector_db")}
        running = [default, everything_on(with_index, folder / "everything", stack)]
        if options.against:
            running.append(of_checkout(options.against.resolve(), env, folder / "other", pages, stack))
        azure.behave(embeddings_delay_ms=20, chat_delay_ms=300)
        asked = folder / "questions.txt"
        asked.write_text("\n".join(site.questions(PAGES)), encoding="utf-8")
        cpu_ms: dict[str, list[float]] = {one.name: [] for one in running}
        # The first round warms up. Turns change about, so that neither always follows the other.
        for turn in range(options.rounds + 1):
            for one in running if turn % 2 else running[::-1]:
                servers.settled(one)
                key = KEY if one.name == "everything on" else ""
                told = chats.ask_with_wrk(
                    one, questions=asked, clients=options.clients, seconds=options.seconds, key=key
                )
                if told.failed:
                    raise RuntimeError(f"{one.name}: {told.failed} answers failed")
                if turn or options.tiny:
                    cpu_ms[one.name].append(told.cpu_ms)
    for name, found in cpu_ms.items():
        ratios = [mine / default for mine, default in zip(found, cpu_ms[default.name], strict=True)]
        said = "" if name == default.name else f"   × {spread(ratios).shown('.3f')} of the default"
        print(f"{name:24} CPU ms a chat {spread(found).shown('.2f')}{said}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
