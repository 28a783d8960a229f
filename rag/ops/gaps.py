"""The command line of gaps: `python -m rag.gaps [--since 30d] [--html FILE] [--questions FILE]`.

Reads the log of questions, asks each gap again on the live build, and writes what it found: on the terminal, as a page
to read or to send, and as drafts of questions for `indexer evaluate`.
"""

import argparse
import asyncio
import contextlib
import html
import json
import math
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from rag.api_keys import span_s
from rag.calls import UNMETERED, UNOBSERVED
from rag.chat.owner.gaps import Gap, drafts, find_gaps
from rag.chat.retrieval import Retriever
from rag.errors import ConfigError, RagError
from rag.llm.opening import open_models
from rag.search.backends import opening as backends
from rag.search.live import LiveIndex
from rag.settings import Settings
from rag.stores import opening
from rag.telemetry.metrics import Metrics

_STYLE = """
:root { color-scheme: light dark } body { max-width: 900px; margin: 40px auto; padding: 0 20px;
font: 16px/1.5 system-ui, sans-serif } article { padding: 16px 0; border-top: 1px solid #8886 } h2 { margin: 0 }
p { margin: 4px 0 } .quiet { opacity: .75 } .tag { padding: 1px 8px; border: 1px solid; border-radius: 99px }
"""


def _days(text: str) -> int:
    try:
        return max(1, math.ceil(span_s(text) / 86_400))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m rag.gaps", description="What the site does not answer.")
    parser.add_argument("--since", type=_days, default=30, metavar="SPAN", help="such as 7d or 30d; default: 30d")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page to read or to send")
    parser.add_argument("--questions", type=Path, metavar="FILE", help="write drafts of questions for indexer evaluate")
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> int:
    """0 when the gaps were told, also where there are none; 1 with one clear sentence when they could not be."""
    options = _arguments(argv)
    try:
        settings = Settings.from_environment()
        if missing := settings.missing("EMBEDDINGS"):
            raise ConfigError(missing)
        gaps = asyncio.run(_found(settings, options.since))
        print("\n".join(_lines(gaps, options.since)))
        if options.html:
            options.html.write_text(_page(gaps, settings.site_name, options.since), "utf-8")
        if options.questions:
            lines = (json.dumps(draft, ensure_ascii=False) for draft in drafts(gaps))
            options.questions.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    except ConfigError as error:
        print("\n".join(error.faults), file=sys.stderr)
        return 1
    except (RagError, OSError) as error:
        print(str(error), file=sys.stderr)
        return 1
    return 0


async def _found(settings: Settings, days: int) -> list[Gap]:
    async with AsyncExitStack() as stack:
        embedder, _ = await open_models(settings, observer=UNOBSERVED, meter=UNMETERED, stack=stack)
        stores = opening.stores(settings)
        stack.push_async_callback(stores.close)
        store = stores.questions()
        stack.push_async_callback(store.close)
        backend = stack.enter_context(contextlib.closing(backends.backend(settings)))
        retriever = Retriever(
            index=LiveIndex(backend=backend, model=embedder.name), embedder=embedder,
            threshold=settings.similarity_threshold, metrics=Metrics(folder=None),
        )  # fmt: skip
        stack.callback(retriever.close)
        return await find_gaps(store, retriever, days=days)


def _lines(gaps: Sequence[Gap], days: int) -> list[str]:
    if not gaps:
        return [f"No gaps in the last {days} days: every question that was kept found its answer."]
    lines = [f"{len(gaps)} gaps in the last {days} days, the most frequent first"]
    for gap in gaps:
        lines += ["", f"{gap.count:>4} ×  {gap.question}", f"        {gap.meaning}{_closed_by(gap)}"]
        if gap.nearest_url:
            lines.append(f"        nearest: {gap.nearest_title} ({gap.nearest_url}), similarity {gap.similarity}")
        lines += [f"        also: {example}" for example in gap.examples[1:]]
        lines += [f"        a visitor said: {gap.reason}"] if gap.reason else []
    return lines


def _closed_by(gap: Gap) -> str:
    return f" (live: {gap.build})" if gap.diagnosis == "closed" else ""


def _page(gaps: Sequence[Gap], site_name: str, days: int) -> str:
    def text(value: object) -> str:
        return html.escape(str(value))

    articles = []
    for gap in gaps:
        also = "".join(f'<p class="quiet">{text(example)}</p>' for example in gap.examples[1:])
        said = f'<p class="quiet">A visitor said: {text(gap.reason)}</p>' if gap.reason else ""
        near = gap.nearest_url
        href = near if near.startswith(("https://", "http://", "/")) else ""
        nearest = f'<p>Nearest page: <a href="{text(href)}">{text(gap.nearest_title)}</a></p>' if near else ""
        tag = f'<span class="tag">{text(gap.meaning)}{text(_closed_by(gap))}</span>'
        articles.append(
            f"<article><h2>{text(gap.question)}</h2><p>{gap.count} × {tag}</p>{also}{said}{nearest}</article>"
        )
    what = f"{len(gaps)} gaps in the last {days} days" if gaps else f"No gaps in the last {days} days"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{text(what)}</title><style>{_STYLE}</style>"
        f"<h1>What {text(site_name)} does not answer</h1><p>{text(what)}.</p>{''.join(articles)}</html>\n"
    )
