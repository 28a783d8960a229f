"""The owner's two files: how they are read, what of them stands in a build, and what is refused, and why."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import indexer.build
from indexer import own_words
from indexer.build import Summary
from indexer.documents import Document
from indexer.reading import finding
from rag.errors import SourceUnreadable
from rag.search.backends.files import FileBackend
from rag.search.hybrid import open_build
from tests.indexer.test_build import CountingEmbedder, page

SITE = "https://x.example"
ANSWERS = """
What stands here is for ourselves.

## How do I reach you by phone?
## What is your telephone number? ##

Call 555 0100. More on the [contact page](/contact/#phone) and [by mail](mailto:help@x.example).

### Hours

Nine to five.

```sh
## no question
```

## Are you a bank?
No.
"""


def site(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text, encoding="utf-8")
    return folder


def read(*sources: Path) -> own_words.OwnWords:
    owned, _ = own_words.split(finding.find(sources).files, sources)
    return own_words.read(owned, site_url=SITE)


def built(root: Path, folder: Path, embedder: CountingEmbedder, documents: Sequence[Document]) -> Summary:
    making = indexer.build.build(
        documents, backend=FileBackend(root), embedder=embedder, clean=False, progress=lambda *_: None, own=read(folder)
    )
    return asyncio.run(making)


def test_headings_in_a_row_are_one_question_and_what_stands_below_is_its_answer(tmp_path: Path) -> None:
    own = read(site(tmp_path / "docs", answers_md=ANSWERS))
    phone, bank = own.answers
    assert phone.questions == ["How do I reach you by phone?", "What is your telephone number?"]
    assert phone.text.startswith("Call 555 0100.")
    assert phone.text.endswith("## no question\n```")
    assert (bank.questions, bank.text) == (["Are you a bank?"], "No.")


def test_the_files_are_taken_at_the_top_of_a_source_alone_and_are_no_pages(tmp_path: Path) -> None:
    folder = site(tmp_path / "docs", answers_md=ANSWERS, synonyms_txt="a, b", index_md="# Hello\n\nHello.")
    deep = site(folder / "guide", answers_md="# Answers\n\nA page.")
    owned, others = own_words.split(finding.find([folder]).files, [folder])
    assert [file.path for file in owned] == [folder / "answers.md", folder / "synonyms.txt"]
    assert [file.source for file in others] == ["guide/answers.md", "index.md"]
    named, _ = own_words.split(finding.find([deep / "answers.md"]).files, [deep / "answers.md"])
    assert len(named) == 1


def test_synonyms_are_groups_of_words_and_phrases(tmp_path: Path) -> None:
    text = "# ours and theirs\ninvoice, bill , receipt\n\nSLA, service  level agreement # contracts\n"
    assert read(site(tmp_path, synonyms_txt=text)).groups == [
        ["invoice", "bill", "receipt"], ["SLA", "service level agreement"]
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"answers_md": "Text alone."}, "holds no question"),
        ({"answers_md": "## A?\n\nYes.\n\n## B?\n"}, "no answer stands below 'B\\?'"),
        ({"answers_md": "## A?\n\nYes.\n\n## a\n\nNo."}, "'a' is asked twice"),
        ({"answers_md": "## " + "a" * 501 + "\n\nYes."}, "line 1: a question of more than 500"),
        ({"answers_md": "## A?\n\n" + "a" * 8001}, "more than 8,000 characters"),
        ({"answers_md": "".join(f"## {number}?\n\nYes.\n\n" for number in range(1001))}, "more than 1,000"),
        ({"synonyms_txt": "one, two\nalone\n"}, "synonyms.txt, line 2: not of the form"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, files: dict[str, str], reason: str) -> None:
    with pytest.raises(SourceUnreadable, match=reason):
        read(site(tmp_path, **files))


def test_answers_stand_in_the_build_with_the_pages_that_they_lead_to(tmp_path: Path) -> None:
    folder, embedder = site(tmp_path / "docs", answers_md=ANSWERS), CountingEmbedder()
    summary = built(tmp_path / "db", folder, embedder, [page("contact", "Write to us."), page("about", "We.")])
    assert summary.own == (2, 0)
    answers = open_build(tmp_path / "db").own_answers
    phone = answers.exact("what is your TELEPHONE number")
    assert phone is not None
    assert "[contact page](https://x.example/contact/#phone)" in phone.text
    assert "(mailto:help@x.example)" in phone.text
    [hit] = phone.hits
    assert (hit.passage.title, hit.passage.anchored_url) == ("contact", "https://x.example/contact/#phone")
    bank = answers.exact("Are you a bank?")
    assert bank is not None
    assert (bank.hits[0].passage.source, bank.hits[0].passage.url, bank.hits[0].passage.text) == (
        "answers.md", SITE, "No.",
    )  # fmt: skip


def test_a_link_to_no_page_of_the_site_is_named(tmp_path: Path) -> None:
    text = "## A?\n\nSee [there](/gone/), [a file](about.md) and [elsewhere](https://other.example/)."
    folder = site(tmp_path / "docs", answers_md=text)
    summary = built(tmp_path / "db", folder, CountingEmbedder(), [page("about", "We.")])
    [astray] = summary.skipped
    assert astray.reason == "leads to https://x.example/gone/, which is no page of the index"
    answer = open_build(tmp_path / "db").own_answers.exact("A?")
    assert answer is not None
    assert "[a file](https://x.example/about/)" in answer.text


def test_a_build_changes_with_the_answers_and_embeds_only_new_questions(tmp_path: Path) -> None:
    folder, embedder = site(tmp_path / "docs", answers_md=ANSWERS), CountingEmbedder()

    def again() -> Summary:
        embedder.batches.clear()
        return built(tmp_path / "db", folder, embedder, [page("about", "We.")])

    again()
    assert again().unchanged
    assert embedder.texts == []
    site(folder, answers_md=ANSWERS.replace("No.", "Not yet."))
    assert not again().unchanged
    assert embedder.texts == []
    site(folder, answers_md=f"{ANSWERS}\n## Why?\n\nBecause.\n")
    again()
    assert embedder.texts == ["Why?"]
    (folder / "answers.md").unlink()
    assert not again().unchanged
    assert len(open_build(tmp_path / "db").own_answers) == 0


def test_a_build_without_the_files_is_as_before(tmp_path: Path) -> None:
    built(tmp_path / "db", site(tmp_path / "docs", index_md="x"), CountingEmbedder(), [page("about", "We.")])
    manifest: dict[str, Any] = open_build(tmp_path / "db").manifest
    assert not {"answers", "synonyms"} & manifest.keys()
