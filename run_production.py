"""Checks first, then becomes gunicorn: `python run_production.py [--demo] [--check]`.

Every fault is named at once, each with its remedy, on one screen. Knows nothing about how a question is answered.
"""

import argparse
import asyncio
import logging
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from urllib.request import urlopen

ROOT = Path(__file__).resolve().parent

try:
    from rag.deadline import Deadline
    from rag.errors import ContentFiltered
    from rag.llm.azure import AzureChat, AzureEmbedder
    from rag.llm.client import Upstream
    from rag.llm.entra.renewal import authorised
    from rag.llm.http_client import http_client
    from rag.llm.local.sentences import missing_packages
    from rag.llm.resilience import RetryBudget
    from rag.ops.preflight import Finding, check_all
    from rag.search.backends.opening import backend
    from rag.settings import Settings
    from rag.types import Endpoint, Prompt
except ModuleNotFoundError as missing:
    if (missing.name or "").startswith("rag"):
        raise
    print(f"{missing.name} is not installed; run: {sys.executable} -m pip install -r {ROOT / 'requirements-prod.lock'}")
    raise SystemExit(1) from None

PROBE_S = 5.0
"""How long the embeddings endpoint may take to answer the probe, in seconds; a start should not wait longer."""

LISTENS_WITHIN_S = 60.0

COLOURS = {"ok": "\x1b[32m✓\x1b[0m", "warning": "\x1b[33m!\x1b[0m", "fault": "\x1b[31m✗\x1b[0m"}
PLAIN = {"ok": "✓", "warning": "!", "fault": "✗"}


def probe_embeddings(settings: Settings) -> int:
    """Embed one word and return its dimension. Raises `UpstreamError`."""

    async def embed() -> int:
        async with http_client(connections=1) as client:
            endpoints, budget = settings.embeddings_endpoints, RetryBudget()
            upstream = Upstream(kind="embeddings", endpoints=endpoints, client=client, budget=budget)
            embedder = AzureEmbedder(upstream=upstream, name=endpoints[0].model_name)
            async with authorised(settings, upstream):
                return int((await embedder.embed(["probe"], deadline=Deadline(PROBE_S))).shape[1])

    return asyncio.run(embed())


def probe_chat(settings: Settings, endpoint: Endpoint) -> None:
    """Ask one chat model one word. Raises `UpstreamError`."""

    async def ask() -> None:
        async with http_client(connections=1) as client:
            upstream = Upstream(kind="chat", endpoints=[endpoint], client=client, budget=RetryBudget())
            # As visitors will ask: the values of the settings are what the model may refuse.
            model = AzureChat(
                upstream=upstream, temperature=settings.chat_temperature, max_tokens=settings.chat_max_tokens
            )
            prompt = Prompt(question="", messages=({"role": "user", "content": "Say OK."},), hits=())
            async with authorised(settings, upstream):
                await model.complete(prompt, deadline=Deadline(2 * PROBE_S))

    with suppress(ContentFiltered):
        asyncio.run(ask())


def screen(findings: Sequence[Finding], environment: Mapping[str, str], *, terminal: bool) -> str:
    """The findings as aligned lines; in colour only on a terminal that wants it (no-color.org)."""
    marks = COLOURS if terminal and not environment.get("NO_COLOR") and environment.get("TERM") != "dumb" else PLAIN
    lines = []
    for finding in findings:
        lines.append(f"  {marks[finding.state]} {finding.subject:<11} {finding.sentence}")
        if finding.remedy:
            lines.append(f"    {'':<11} → {finding.remedy}")
    return "\n".join(lines)


def index_demo(settings: Settings) -> list[Finding]:
    """Index the project's own documentation; unchanged pages cost nothing. Returns a fault if that failed."""
    # The folder's own pages: those on why things were decided would push aside the ones that tell a user what to do.
    pages = [str(page) for page in sorted((ROOT / "docs").glob("*.md"))]
    arguments, variables = backend(settings).output()
    command = [sys.executable, "-m", "indexer", "build", *pages, *arguments]
    # Where the demo shows these pages (rag/http/demo_pages.py).
    command += ["--site-url", "/demo/pages"]
    environment = {**os.environ, **variables, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)  # noqa: S603
    if not done.returncode:
        return []
    reason = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
    return [Finding("fault", "demo", f"docs/ could not be indexed: {' '.join(reason)}", "run: make clean demo")]


def say_when_it_listens(address: str, sentence: str) -> None:
    """Print a line once the server answers; from a process of its own, for this one becomes gunicorn."""
    server = os.getpid()
    if os.fork():
        return
    give_up_at = time.monotonic() + LISTENS_WITHIN_S
    while time.monotonic() < give_up_at and os.getppid() == server:
        with suppress(OSError), urlopen(f"{address}/health", timeout=1):  # noqa: S310 - our own address
            print(sentence, flush=True)
            break
        time.sleep(0.1)
    os._exit(0)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="run_production.py", description="Check everything, then serve.")
    parser.add_argument("--demo", action="store_true", help="serve this project's own docs: no key, no network")
    parser.add_argument("--check", action="store_true", help="stop after the checks; exit code 0 or 1")
    # What gunicorn.conf.py asks before a reload: all that does not concern the start itself.
    parser.add_argument("--running", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    # In an ASCII locale a check mark must not become a traceback.
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    # The screen says in a sentence what the modules would log; gunicorn's process sets up its own logging.
    logging.disable()
    if options.demo:
        os.environ["DEMO"] = "true"
        os.environ.setdefault("LOG_FORMAT", "text")
        if not missing_packages():
            os.environ.setdefault("EMBEDDINGS", "local")
        # A newcomer's terminal ends with the address, not with a log.
        os.environ.setdefault("LOG_LEVEL", "warning")
    settings, config_faults = Settings.with_faults()
    findings = index_demo(settings) if options.demo and not config_faults else []
    findings += check_all(
        settings, config_faults, running=options.running, probe=probe_embeddings,
        # Only when it is asked for: a start should cost no tokens.
        probe_chat=probe_chat if options.check and not options.running else None,
    )  # fmt: skip
    faults = sum(finding.state == "fault" for finding in findings)
    print("\nRAG Server\n", screen(findings, os.environ, terminal=sys.stdout.isatty()), "", sep="\n")
    if faults:
        print(f"{faults} {'fault' if faults == 1 else 'faults'}: nothing was started.", flush=True)
        return 1
    if options.check:
        print("Everything is in place.", flush=True)
        return 0
    shown = "localhost" if settings.host in ("0.0.0.0", "::") else settings.host  # noqa: S104
    address = f"http://{shown}:{settings.port}"
    if settings.demo:
        say_when_it_listens(address, f"Open {address}/demo and ask something. Ctrl-C stops it.")
    else:
        print(f"{settings.workers} workers start; the chat is on {address}/demo", flush=True)
    # Becomes gunicorn instead of starting it, so that signals reach it.
    command = [sys.executable, "-m", "gunicorn", "--config", str(ROOT / "gunicorn.conf.py"), "rag_server:app"]
    os.execv(sys.executable, command)  # noqa: S606


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
