"""The grammar of the indexer's command line, and what its options take. Does nothing with them."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from indexer.sites import site
from rag import setting_parsers


def parsed(argv: Sequence[str]) -> argparse.Namespace:
    """The command and its options; ends the process with 2 and one sentence for those that cannot work."""
    parser = argparse.ArgumentParser(prog="python -m indexer", description="Turns documents into an index.")
    commands = parser.add_subparsers(dest="command", required=True)

    def command(name: str, meaning: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=meaning, description=meaning)
        added.add_argument("--output", type=Path, metavar="FOLDER", help="the index; default: VECTOR_DB_PATH")
        return added

    making = command("build", "index documents: .md .mdx .html .txt .csv .pdf .docx")
    making.add_argument("sources", nargs="+", metavar="SOURCE", help="files, folders, addresses of sitemaps or pages")
    making.add_argument(
        "--site-url", type=_site_url, metavar="URL", help="where the documents are published; default: SITE_URL"
    )
    making.add_argument("--clean", action="store_true", help="embed everything anew, reuse nothing")
    making.add_argument(
        "--exclude",
        action="append",
        default=[],
        metavar="PATTERN",
        help="leave out files and pages such as LICENSE* or drafts/*; several are allowed",
    )
    making.add_argument("--with-unpublished", action="store_true", help="read drafts and noindex pages in files too")
    making.add_argument(
        "--yes", action="store_true", help="do not ask before --clean; publish even if a site has lost many pages"
    )
    making.add_argument("--questions", type=Path, metavar="FILE", help="ask these questions before publishing")
    making.add_argument("--min-ndcg", type=_share, metavar="X", help="publish only where their nDCG@10 is not lower")
    limits = site.Limits()
    fetching = making.add_argument_group("of a running site")
    fetching.add_argument(
        "--max-pages", type=_number(int, 1), default=limits.max_pages, metavar="N", help="default %(default)s"
    )
    fetching.add_argument(
        "--max-bytes", type=_number(int, 1024), default=limits.max_bytes, metavar="N", help="of a page; default 10 MiB"
    )
    fetching.add_argument(
        "--delay", type=_number(float, 0), default=limits.delay_s, metavar="SECONDS", help="between pages; default 0.5"
    )
    fetching.add_argument(
        "--allow-private-addresses", action="store_true", help="for sites on this machine or on an intranet"
    )
    searching = command("search", "show what the server would retrieve")
    searching.add_argument("question")
    searching.add_argument("-k", type=int, default=5, choices=range(1, 21), metavar="1-20", help="passages; default 5")
    judging = command("evaluate", "measure the live build with questions whose answers are known")
    judging.add_argument("questions", type=Path, metavar="QUESTIONS.jsonl")
    judging.add_argument("--min-ndcg", type=_share, metavar="X", help="exit 1 where nDCG@10 is lower")
    judging.add_argument("--compare", metavar="BUILD", help="a kept build to compare with, question by question")
    adding = command("add", "put files into the live index beside the build; a file of a known name replaces it")
    adding.add_argument("files", nargs="+", type=Path, metavar="FILE")
    removing = command("remove", "take documents that were added out of the live index")
    removing.add_argument("documents", nargs="+", metavar="ID", help="their ids or names, as info shows them")
    command("ingest", "work on what was uploaded; the server starts this by itself")
    command("info", "the live build, the kept ones, and what was added")
    command("verify", "compute every checksum again")
    command("rollback", "make the previous build live").add_argument("build", nargs="?", metavar="BUILD")
    options = parser.parse_args(argv)
    if options.command == "build" and (options.questions is None) != (options.min_ndcg is None):
        making.error("--min-ndcg needs --questions FILE, and the other way round")
    return options


def again(options: argparse.Namespace) -> list[str]:
    """The arguments of `build` that make the same once more; `--clean` and `--yes` were meant for one time."""
    given = [*map(str, options.sources)]
    for name in ("site-url", "questions", "min-ndcg", "max-pages", "max-bytes", "delay"):
        if (value := getattr(options, name.replace("-", "_"))) is not None:
            given += [f"--{name}", str(value)]
    for pattern in options.exclude:
        given += ["--exclude", pattern]
    flags = ("with-unpublished", "allow-private-addresses")
    return given + [f"--{name}" for name in flags if getattr(options, name.replace("-", "_"))]


def _number(kind: Callable[[str], float], least: float) -> Callable[[str], float]:
    def number(text: str) -> float:
        value = kind(text)
        if not least <= value < 1e12:
            raise argparse.ArgumentTypeError(f"{text}: allowed is {least:g} or more")
        return value

    return number


def _share(text: str) -> float:
    if not 0 <= (value := float(text)) <= 1:
        raise argparse.ArgumentTypeError(f"{text}: allowed is 0 to 1")
    return value


def _site_url(text: str) -> str:
    # As for SITE_URL; a path alone is for links within one host, and nothing at all for none.
    if not text or (text.startswith("/") and not text.startswith("//")):
        return text
    try:
        return setting_parsers.site_url(text)
    except ValueError as allowed:
        raise argparse.ArgumentTypeError(f"{text}: allowed is {allowed}, or a path such as /docs") from None
