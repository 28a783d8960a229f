"""The indexer's command line: build, search, evaluate, add, remove, info, verify, rollback.

The only place of the indexer that reads settings and constructs adapters.
"""

import argparse
import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import chain
from logging.config import dictConfig
from pathlib import Path

import numpy as np

from indexer import adding, arguments, by_hand, evaluate, ingest, own_words
from indexer.build import Embedder, Summary, build
from indexer.reading import finding
from indexer.reading.excluding import Exclusions
from indexer.reading.files import read_all
from indexer.sites import completeness, site
from indexer.sites.fetching import Fetcher
from indexer.terminal import ProgressBar, build_lines, hit_lines, score_lines
from rag.calls import UNMETERED, Meter
from rag.deadline import Deadline
from rag.documents.library import Library
from rag.errors import ConfigError, IndexUnavailable, RagError, UpstreamError, UpstreamRejected
from rag.llm import model_quirks
from rag.llm.azure import AzureEmbedder
from rag.llm.client import Upstream
from rag.llm.entra.renewal import authorised
from rag.llm.http_client import http_client
from rag.llm.opening import own_embedder
from rag.llm.resilience import RetryBudget
from rag.public_addresses import is_public
from rag.search.backends import opening
from rag.search.backends.protocol import Backend
from rag.search.hybrid import Build
from rag.settings import Settings
from rag.telemetry.logs import logging_config

QUESTION_TIMEOUT_S = 20.0


@asynccontextmanager
async def _embedder(settings: Settings, meter: Meter = UNMETERED) -> AsyncIterator[Embedder]:
    if missing := settings.missing("EMBEDDINGS"):
        raise ConfigError(missing)
    if (own := own_embedder(settings)) is not None:
        yield own
        return
    async with http_client(connections=16) as client:
        endpoints = settings.embeddings_endpoints
        upstream = Upstream(
            kind="embeddings", endpoints=endpoints, client=client, budget=RetryBudget(), meter=meter
        )  # fmt: skip
        async with authorised(settings, upstream):
            yield AzureEmbedder(upstream=upstream, name=endpoints[0].model_name)


def _agreed(named: Sequence[str]) -> bool:
    answer = input(f"All of {', '.join(named)} will be embedded anew, which costs calls. Continue? [y/N] ")
    return answer.strip().lower() in ("y", "yes")


async def _build(options: argparse.Namespace, settings: Settings, backend: Backend) -> int:
    addresses = [source for source in options.sources if site.is_address(source)]
    paths = [Path(source) for source in options.sources if not site.is_address(source)]
    found = finding.find(paths, with_unpublished=options.with_unpublished)
    exclusions = Exclusions(options.exclude)
    files = [file for file in found.files if not exclusions.excludes(file.source)]
    skipped = [about for about in found.skipped if not exclusions.excludes(about.source)]
    questions = evaluate.read(options.questions) if options.questions else []
    site_url = options.site_url if options.site_url is not None else settings.site_url
    owned, files = own_words.split(files, paths)
    own = own_words.read(owned, site_url=site_url)
    with ProgressBar(sys.stderr) as bar:
        reading = read_all(files, site_url=site_url, with_unpublished=options.with_unpublished)
        crawls = _sites(addresses, options, bar, exclusions)
        crawled = (crawl.documents() for crawl in crawls)
        documents = chain(skipped, bar.over("reading", reading, len(files)), *crawled)
        async with _embedder(settings) as embedder:
            # Before the first file is read: an hour of reading should not end at a mistaken key.
            await embedder.embed(["probe"], deadline=Deadline(QUESTION_TIMEOUT_S))

            async def accept(made: Build) -> None:
                if crawls and not (options.yes or options.clean):
                    completeness.require_complete(made, backend=backend, crawls=crawls)
                if questions:
                    scores = await evaluate.measure(made, questions, embedder=embedder, progress=bar.show)
                    evaluate.require(scores, min_ndcg=options.min_ndcg)
                if merging:
                    chosen = adding.due(merging.root, made, everything=True)
                    await merging.prepare(made, chosen, embedder=embedder, progress=bar.show)

            with by_hand.merging(backend.added_in) as merging:
                summary: Summary = await build(
                    documents, backend=backend, embedder=embedder, clean=options.clean, progress=bar.show,
                    accept=accept, made_with={"folder": str(Path.cwd()), "arguments": arguments.again(options)},
                    own=own,
                )  # fmt: skip
                if merging:
                    merging.finish()
    print("\n".join(build_lines(summary, backend.where, passed_over=found.passed_over)))
    for pattern in exclusions.unmatched():
        print(f"--exclude {pattern} matched nothing; patterns are compared with paths as shown above", file=sys.stderr)
    return 0


def _sites(
    addresses: Sequence[str], options: argparse.Namespace, bar: ProgressBar, exclusions: Exclusions
) -> list[site.Site]:
    fetcher = Fetcher(
        allows=(lambda _: True) if options.allow_private_addresses else is_public, max_bytes=int(options.max_bytes)
    )
    limits = site.Limits(
        max_pages=int(options.max_pages), max_bytes=int(options.max_bytes), delay_s=float(options.delay)
    )
    return [
        site.Site(address, fetcher=fetcher, limits=limits, exclusions=exclusions, progress=bar.show)
        for address in addresses
    ]


async def _search(options: argparse.Namespace, settings: Settings, backend: Backend) -> int:
    async with _embedder(settings) as embedder:
        live = _served(backend, model=embedder.name)
        vector = await _vector(embedder, options.question)
    if own := live.own_answers.match(options.question, vector):
        print(f"answered in your own words, as: {own.questions[0]}")
    hits = live.search(options.question, vector=vector, k=options.k)
    print("\n".join(hit_lines(hits)) or "nothing found")
    return 0


async def _vector(embedder: Embedder, question: str) -> np.ndarray | None:
    try:
        return np.asarray((await embedder.embed([question], deadline=Deadline(QUESTION_TIMEOUT_S)))[0])
    except UpstreamError as error:
        print(f"embeddings unavailable, found by words alone ({error})", file=sys.stderr)
        return None


async def _evaluate(options: argparse.Namespace, settings: Settings, backend: Backend) -> int:
    questions = evaluate.read(options.questions)
    async with _embedder(settings) as embedder:
        live = _served(backend, model=embedder.name)
        other = _served(backend, build_id=options.compare, model=embedder.name) if options.compare else None
        with ProgressBar(sys.stderr) as bar:
            scores = await evaluate.measure(live, questions, embedder=embedder, progress=bar.show)
            if other is not None:
                others = await evaluate.measure(other, questions, embedder=embedder, progress=bar.show)
    if other is None:
        print("\n".join(score_lines(scores, live.id)))
    else:
        print("\n".join(evaluate.comparison_lines(scores, others, live_id=live.id, other_id=other.id)))
    if options.min_ndcg is not None:
        evaluate.require(scores, min_ndcg=options.min_ndcg)
    return 0


async def _add(options: argparse.Namespace, settings: Settings, root: Path) -> int:
    with ProgressBar(sys.stderr) as bar:
        async with _embedder(settings) as embedder:
            library = Library(settings.state_dir / "documents")
            done = await by_hand.add_files(
                options.files, root=root, embedder=embedder, progress=bar.show, library=library
            )
    print("\n".join(done.lines))
    return 1 if done.faults else 0


async def _ingest(settings: Settings, root: Path) -> int:
    # Only here: no other command needs to count what it spends, and to load this.
    from rag.access.budgets import budgets_of
    from rag.stores.opening import stores

    ingest.end_with_parent()
    ingest.step_back()
    dictConfig(logging_config(settings.log_level, settings.log_format, settings.secrets))
    library = Library(settings.state_dir / "documents", keeps_originals=settings.keep_uploads)
    # A model of the server's own costs nothing.
    paid = settings.embeddings != "local"
    budgets = budgets_of(settings, stores(settings).spending, metrics=None) if paid else None
    try:
        async with _embedder(settings, budgets or UNMETERED) as embedder:
            await ingest.work(library, root=root, embedder=embedder, budgets=budgets)
    finally:
        if budgets is not None:
            await budgets.close()
    return 0


def _served(backend: Backend, *, model: str, build_id: str | None = None) -> Build:
    """What a server serves: the build, with all that was added."""
    return backend.overlay().over(backend.open(model=model, build_id=build_id))


def _info(backend: Backend) -> int:
    kept, where = backend.kept_ids(), backend.where
    live, fault = None, ""
    try:
        live = backend.live_id()
    except IndexUnavailable as error:
        # What is kept is what somebody with a damaged folder needs to see.
        fault = f"no build is live in {where}; run: python -m indexer rollback" if kept else str(error)
    if live and live not in kept:
        fault = f"the live build {live} is not in {where}; run: python -m indexer rollback"
    for build_id in kept:
        mark = "live" if build_id == live else "kept"
        try:
            about = backend.manifest(build_id)
        except IndexUnavailable as error:
            print(f"{mark}  {build_id}  damaged: {error}")
            fault = fault or (f"the live build is damaged: {error}" if build_id == live else "")
            continue
        size_mb = sum(file["bytes"] for file in about["files"].values()) / 1e6
        model = f"{about['embedding']['model']}, {about['embedding']['dimensions']} dimensions"
        counts = f"{about['documents']:,} documents, {about['passages']:,} passages"
        index = about["index"]["type"]
        if "recall_at_10" in about["index"]:
            index += f", recall@10 {about['index']['recall_at_10']}"
        print(f"{mark}  {build_id}  {counts}, {model}, {index}, {size_mb:,.1f} MB")
    for line in by_hand.added_lines(backend.added_in):
        print(line)
    if fault:
        print(fault, file=sys.stderr)
    return 1 if fault else 0


def _verify(backend: Backend) -> int:
    about = backend.verify(anew=True)
    print(f"{about['id']}: {len(about['files'])} parts, every checksum is right")
    by_hand.verify_added(backend.added_in)
    return 0


def _run(options: argparse.Namespace) -> int:
    settings = Settings.from_environment()
    with contextlib.closing(opening.backend(settings, output=options.output)) as backend:
        return _done(options, settings, backend)


def _done(options: argparse.Namespace, settings: Settings, backend: Backend) -> int:
    match options.command:
        case "build":
            # Asked before the event loop runs, which would keep Ctrl-C from ending the question.
            if options.clean and not options.yes and sys.stdin.isatty() and not _agreed(options.sources):
                print("Nothing was done.")
                return 1
            return asyncio.run(_build(options, settings, backend))
        case "search":
            return asyncio.run(_search(options, settings, backend))
        case "evaluate":
            return asyncio.run(_evaluate(options, settings, backend))
        case "add":
            return asyncio.run(_add(options, settings, by_hand.folder_of(backend)))
        case "remove":
            library = Library(settings.state_dir / "documents")
            return asyncio.run(by_hand.remove(options.documents, root=by_hand.folder_of(backend), library=library))
        case "ingest":
            return asyncio.run(_ingest(settings, by_hand.folder_of(backend)))
        case "info":
            return _info(backend)
        case "verify":
            return _verify(backend)
        case _:
            print(f"{backend.rollback(options.build)} is live")
            return 0


def main(argv: Sequence[str]) -> int:
    """Run one command; 0 when it did what was asked, 1 with one clear sentence when it could not."""
    options = arguments.parsed(argv)
    # A file's name, or a passage, must not become a traceback where the terminal cannot show it.
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    try:
        return _run(options)
    except ConfigError as error:
        print("\n".join(error.faults), file=sys.stderr)
    except BlockingIOError:
        print("another build is running here; wait for it, or stop it", file=sys.stderr)
    except UpstreamError as error:
        what = "refused our request" if isinstance(error, UpstreamRejected) else "cannot be reached"
        print(f"the embedding model {what}: {error}; the live build is untouched", file=sys.stderr)
        by_identity = Settings.from_environment().needs_identity
        print(f"→ {model_quirks.remedy(error, 'EMBEDDINGS', by_identity=by_identity)}", file=sys.stderr)
    except (RagError, OSError) as error:
        print(str(error), file=sys.stderr)
    except KeyboardInterrupt:
        print("interrupted; the live build is untouched", file=sys.stderr)
        return 130
    return 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
