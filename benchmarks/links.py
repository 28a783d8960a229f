"""Whether a source's link opens the page at the words that were quoted, cited or found: each page is opened and read.

Run: python benchmarks/links.py [CORPORA] [--questions N]; the folder is ../shared/corpora unless named.
Three sets: FastAPI's docs as they are; SQuAD's articles and XQuAD's German and Chinese ones, a page an article and a
section a paragraph. The real indexer builds each, the real server without a model answers questions about it, and
`/search` is asked the same. Its pages are read here, by another reader of Markdown than the indexer's. A link is right
where its words stand in the page once and within what was quoted, or within the passage that was found; and where the
heading that it shows stands above them. What a model cites is tried with sentences whose section is known: for SQuAD
and XQuAD a question with its answer, as people wrote them; for the docs a sentence that has lost every third word.
Exit code 1 where a figure misses its floor.
"""

import argparse
import json
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from urllib.parse import unquote

import httpx
from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.retrieval_lab import CORPORA, load  # noqa: E402
from rag.chat.citation_marks import marks  # noqa: E402
from rag.search.hybrid import Build, open_build  # noqa: E402
from rag.text.anchors import anchor  # noqa: E402
from rag.text.citing import citations, cited_at  # noqa: E402
from rag.types import Hit, Passage  # noqa: E402
from tests.support.server import RagServer, build_index  # noqa: E402

SETS = ("fastapi_docs", "squad2_dev", "xquad/de", "xquad/zh")
FLOOR = 0.99
"""Of the links of quotes and of search results, whose words are known exactly."""
CITED_FLOOR = 0.98
"""Of those of sentences in other words, where the passage's section must be guessed from what they share."""
ASKED = 300
FEWEST_WORDS = 6
"""Of a sentence that a model could write."""
SITE = "https://site.example"

_READER = MarkdownIt("commonmark", {"html": True}).enable("table")
_ATTRIBUTES = re.compile(r"\s*\{\s*#([^}\s]+)\s*\}\s*$")
_LINK = re.compile(r"\[([^\]\n]*)\]\((https://site\.example/[^)\s]*)\) \[(\d+)\]\s*$", re.MULTILINE)
_SPACELESS = re.compile(r"[\u3041-\u9fff]")


@dataclass(frozen=True)
class Words:
    """A block of a page as a browser shows it: a paragraph, an item's text, a cell, a listing."""

    anchor: str
    """The heading's above it."""
    heading: str
    text: str
    """Case folded, white space made one."""


def shown(text: str) -> str:
    return " ".join(text.split()).casefold()


def page_of(markdown: str) -> list[Words]:
    """The blocks of a page in reading order."""
    if markdown.startswith("---\n"):
        markdown = markdown.partition("\n---\n")[2]
    blocks: list[Words] = []
    taken: set[str] = set()
    above, heading = "", ""
    tokens = _READER.parse(markdown)
    for before, token in zip([None, *tokens], tokens, strict=False):
        if token.type == "inline":
            text = _inline(token)
            if before is not None and before.type == "heading_open":
                stated = _ATTRIBUTES.search(text)
                heading = _ATTRIBUTES.sub("", text)
                above = stated[1] if stated else anchor(heading, taken)
                taken.add(above)
                text = heading
            blocks.append(Words(above, heading, shown(text)))
        elif token.type in ("fence", "code_block"):
            blocks.append(Words(above, heading, shown(token.content)))
    return blocks


def _inline(token: Token) -> str:
    spelled = {"softbreak": "\n", "hardbreak": "\n", "image": "", "html_inline": ""}
    return "".join(spelled.get(one.type, one.content) for one in token.children or ())


def places(fragment: str, blocks: Sequence[Words]) -> list[Words]:
    """The blocks in which a browser finds a text directive, one for each time: whole words, within one block."""
    words = shown(fragment)
    edge = "" if _SPACELESS.search(words) else r"\b"
    pattern = re.compile(
        rf"{edge if words[:1].isalnum() else ''}{re.escape(words)}{edge if words[-1:].isalnum() else ''}"
    )
    return [block for block in blocks for _ in pattern.finditer(block.text)]


@dataclass
class Tally:
    """What became of the links of one kind."""

    links: int = 0
    with_words: int = 0
    right_words: int = 0
    own_heading: int = 0
    wrong: list[str] = field(default_factory=list)

    @property
    def words(self) -> float:
        return self.right_words / max(1, self.with_words)

    @property
    def headings(self) -> float:
        return self.own_heading / max(1, self.links)

    def add(self, url: str, title: str, page: Sequence[Words], said: Sequence[str]) -> None:
        """A link that is to lead to one of the blocks `said`, each as `shown` has it."""
        address, _, fragment = url.partition(":~:text=")
        section = unquote(address.partition("#")[2])
        own = [block for block in page if block.anchor == section] if section else list(page)
        found = places(unquote(fragment), page) if fragment else []
        is_right = len(found) == 1 and any(places(unquote(fragment), [Words("", "", one)]) for one in said)
        stands_there = any(
            one in found if found else any(part in one.text or one.text in part for part in said) for one in own
        )
        is_named = not section or any(shown(title).endswith(shown(one.heading)) for one in own)
        self.links += 1
        self.with_words += bool(fragment)
        self.right_words += is_right
        self.own_heading += stands_there and is_named
        if (fragment and not is_right) or not (stands_there and is_named):
            self.wrong.append(f"{title}\n      {unquote(url)}\n      {len(found)} times in the page")

    def line(self, name: str) -> str:
        return (
            f"  {name:<16} {self.links:>6,} {self.with_words / max(1, self.links):>10.1%} "
            f"{self.words:>14.2%} {self.headings:>14.2%}"
        )


def pages_of(name: str, corpora: Path, folder: Path) -> Path:
    """The folder of a set's pages, made below `folder` where it has none: an article a page, a paragraph a section."""
    if name == "fastapi_docs":
        return corpora / name
    corpus = load(name, corpora)
    articles: dict[str, list[str]] = {}
    for identity, (_, text) in zip(corpus.ids, corpus.passages, strict=True):
        articles.setdefault(re.split(r"[#_](?=\d+$)", identity)[0], []).append(f"## {name} {identity}\n\n{text}")
    pages = folder / "pages"
    pages.mkdir(parents=True)
    for number, (article, paragraphs) in enumerate(articles.items()):
        (pages / f"{number}.md").write_text(f"# Article {article}\n\n" + "\n\n".join(paragraphs), encoding="utf-8")
    return pages


def questions_of(name: str, corpora: Path, build: Build) -> list[str]:
    """What people asked about the set; of docs, their headings as questions."""
    if name != "fastapi_docs":
        return list(load(name, corpora).questions.values())
    headings = {f"{p.title}: {s.headings[-1]}" for p in build.passages() for s in p.sections if s.headings}
    return sorted(headings)


def cited(name: str, corpora: Path, build: Build) -> list[tuple[str, Passage, str]]:
    """Sentences that a model could write, each with a passage that says it, and the text of the section that does."""
    if name == "fastapi_docs":
        return list(_shortened(build))
    corpus = load(name, corpora)
    holding = {(s.headings[-1], part): p for p in build.passages() for s in p.sections if s.headings
               for part in [p.text[s.start : s.end]]}  # fmt: skip
    found = []
    for line in (corpora / name / "queries.jsonl").open(encoding="utf-8"):
        row = json.loads(line)
        relevant = corpus.relevant.get(row["id"], ())
        said = row["answers"][0]["text"] if row.get("answers") else ""
        for (heading, text), passage in holding.items() if said and len(relevant) == 1 else ():
            if heading == f"{name} {next(iter(relevant))}" and said in text:
                found.append((f"{row['text'].rstrip('?？')} {said}", passage, text))
    return found


def _shortened(build: Build) -> Iterator[tuple[str, Passage, str]]:
    for passage in build.passages():
        for section in passage.sections:
            for start, end in section.phrases[:1]:
                line_end = passage.text.find("\n", end)
                line = passage.text[start : line_end if line_end >= 0 else None]
                sentence = re.split(r"(?<=[.!?])\s", line)[0].split()
                kept = [word for place, word in enumerate(sentence) if place % 3]
                if len(kept) >= FEWEST_WORDS:
                    yield " ".join(kept), passage, passage.text[section.start : section.end]


def blocks_of(markdown: str) -> list[str]:
    return [block.text for block in page_of(markdown) if block.text]


def measure(name: str, corpora: Path, folder: Path, *, questions: int) -> dict[str, Tally]:
    """The tallies of one set: links of quotes, of search results, and of sentences in other words."""
    sources = pages_of(name, corpora, folder)
    output = folder / "vector_db"
    done = build_index(sources, env={"DEMO": "true"}, output=output, extra_args=["--site-url", SITE])
    if done.returncode:
        raise RuntimeError(f"the indexer failed:\n{done.stdout}\n{done.stderr}")
    build = open_build(output)
    source_of = {passage.url: passage.source for passage in build.passages()}
    pages = {url: page_of((sources / source).read_text("utf-8")) for url, source in source_of.items()
             if source.endswith(".md")}  # fmt: skip
    tallies = {"quotes": Tally(), "search results": Tally(), "cited sentences": Tally()}

    def spread(many: Sequence[str]) -> list[str]:
        return list(many) if len(many) <= questions else [many[i * len(many) // questions] for i in range(questions)]

    settings = {"DEMO": "true", "VECTOR_DB_PATH": str(output), "RATE_LIMIT_ENABLED": "false", "SITE_URL": SITE}
    with (
        RagServer.start(settings, folder / "server", workers=1) as server,
        httpx.Client(base_url=server.base_url, timeout=30, trust_env=False) as client,
    ):
        for question in spread(questions_of(name, corpora, build)):
            answer = client.post("/chat", json={"message": question}).raise_for_status().json()
            begin = 0
            for link in _LINK.finditer(answer["response"]):
                url, quote = link[2], answer["response"][begin : link.start()]
                begin = link.end()
                if url.partition("#")[0] in pages:
                    said = blocks_of(quote.replace("…", ""))
                    tallies["quotes"].add(url, link[1], pages[url.partition("#")[0]], said)
            for result in client.post("/search", json={"query": question, "k": 5}).raise_for_status().json()["results"]:
                page = pages.get(result["metadata"]["url"])
                if page is not None:
                    title = " › ".join([result["page_title"], *result["metadata"]["headings"]])
                    tallies["search results"].add(result["citation_url"], title, page, blocks_of(result["content"]))
    random = Random(0)
    sentences = [one for one in cited(name, corpora, build) if one[1].url in pages]
    for sentence, passage, words in random.sample(sentences, min(len(sentences), 10 * questions)):
        text = f"{sentence} [1]."
        (hit,) = cited_at([Hit(passage, 1, 1, 0)], citations(text, marks(text)), question="", quoted=False)
        tallies["cited sentences"].add(
            hit.passage.citation_url, hit.passage.heading_path, pages[passage.url], blocks_of(words)
        )
    mixed = Counter(len(passage.sections) > 1 for passage in build.passages())
    print(f"\n{name}: {build.count:,} passages, {mixed[True] / build.count:.0%} of them with several sections")
    return tallies


def main(argv: Sequence[str]) -> int:
    """Measure and print; 1 where a floor is missed."""
    parser = argparse.ArgumentParser(description="Whether links open at the words that were quoted, found or cited.")
    parser.add_argument("corpora", nargs="?", type=Path, default=CORPORA)
    parser.add_argument("--questions", type=int, default=ASKED, help="that many of each set, evenly spread")
    parser.add_argument("--wrong", action="store_true", help="print the links that are wrong")
    options = parser.parse_args(argv)
    if not options.corpora.is_dir():
        print(f"No corpora in {options.corpora}: nothing is measured.")
        return 0
    faults: list[str] = []
    for name in SETS:
        with tempfile.TemporaryDirectory() as folder:
            tallies = measure(name, options.corpora, Path(folder), questions=options.questions)
        print(f"  {'':<16} {'links':>6} {'with words':>10} {'words inside':>14} {'own heading':>14}")
        for kind, tally in tallies.items():
            print(tally.line(kind))
            floor = CITED_FLOOR if kind == "cited sentences" else FLOOR
            if tally.words < floor:
                faults.append(f"{name}: {kind}: {tally.words:.2%} of the words are inside")
            if tally.headings < FLOOR:
                faults.append(f"{name}: {kind}: {tally.headings:.2%} stand under the heading that is shown")
            if options.wrong:
                print("\n".join(f"    {wrong}" for wrong in tally.wrong[:12]))
    print("\n" + ("\n".join(faults) if faults else "Every figure reaches its floor."))
    return 1 if faults else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
