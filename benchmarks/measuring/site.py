"""A site of as many pages as wanted, the same ones every time. Knows nothing of indexes or servers."""

import random
from pathlib import Path

WORDS = """account address answer apply archive balance basket between bottle branch bridge build button cable calendar
camera canvas carbon change channel charge circle client cloud column common copper corner council credit current data
delay deliver deposit design detail device digital direct display double draft drive early edition engine entry error
event example export factor family fiber field filter finish folder format frame garden general glass green group guide
handle harbor height holder hybrid import index inner input install invoice island item journal junction keyboard kitchen
label language laser layer ledger letter level library license limit linear liquid local machine manual margin market
master matrix measure member memory metal method mirror mobile model module monitor motor mount network normal notice
number object office open option orange order outlet output owner packet panel paper parcel partner pattern payment
phase pilot pipe plan plastic plate point policy portal power press price print probe process profile program project
protect pump quarter query quick radio range rate reader record reduce refund region release remote render repair
reply report reset result return rotate sample screen sensor server service signal silver socket source space spring
standard station status storage stream supply support switch system table target template terminal theme ticket token
tool tower track transfer update valve vendor version view visit volume warranty water wheel window winter wire""".split()

PARAGRAPHS = 2
SENTENCES = 5
LONGEST_SENTENCE = 16
"""Words; a page comes to about 800 characters, which is one passage."""


def write_site(folder: Path, pages: int) -> Path:
    """The folder, with `pages` Markdown files of one passage each."""
    chosen = random.Random(7)
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(pages):
        title = " ".join(chosen.sample(WORDS, 3)).capitalize()
        text = f"# {title} {number}\n\n{_page_text(chosen)}\n"
        (folder / f"page-{number:05}.md").write_text(text, encoding="utf-8")
    return folder


def questions(pages: int) -> list[str]:
    """One question about each page, its last word left out: with any word after it, it is a new question."""
    chosen = random.Random(7)
    asked = []
    for _ in range(pages):
        first, second, third = chosen.sample(WORDS, 3)
        asked.append(f"How does the {first} {second} of the {third} work with the")
        _page_text(chosen)
    return asked


def _page_text(chosen: random.Random) -> str:
    return "\n\n".join(_paragraph(chosen) for _ in range(PARAGRAPHS))


def _paragraph(chosen: random.Random) -> str:
    return " ".join(
        " ".join(chosen.choices(WORDS, k=chosen.randint(8, LONGEST_SENTENCE))).capitalize() + "."
        for _ in range(SENTENCES)
    )
