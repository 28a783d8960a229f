"""A site of as many pages as wanted, each about something of its own, and questions that its pages answer.

The same ones every time. Knows nothing of indexes or servers.
"""

import random
import re
from collections.abc import Iterator
from pathlib import Path

WORDS = re.findall(
    r"\w+",
    """
account address answer apply archive balance basket between bottle branch bridge build button cable calendar camera
canvas carbon change channel charge circle client cloud column common copper corner council credit current data delay
deliver deposit design detail device digital direct display double draft drive early edition engine entry error event
example export factor family fiber field filter finish folder format frame garden general glass green group guide
handle harbor height holder hybrid import index inner input install invoice island item journal junction keyboard
kitchen label language laser layer ledger letter level library license limit linear liquid local machine manual margin
market master matrix measure member memory metal method mirror mobile model module monitor motor mount network normal
notice number object office open option orange order outlet output owner packet panel paper parcel partner pattern
payment phase pilot pipe plan plastic plate point policy portal power press price print probe process profile program
project protect pump quarter query quick radio range rate reader record reduce refund region release remote render
repair reply report reset result return rotate sample screen sensor server service signal silver socket source space
spring standard station status storage stream supply support switch system table target template terminal theme ticket
token tool tower track transfer update valve vendor version view visit volume warranty water wheel window winter wire
""",
)

TOPIC_WORDS = 8
"""What a page is about: its words are drawn from these alone, so that two pages have little in common."""
SENTENCES = 9
LONGEST_SENTENCE = 12
"""Words; a page comes to about 700 characters, which is one passage."""


def write_site(folder: Path, pages: int) -> Path:
    """The folder, with `pages` Markdown files of one passage each."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, topic in enumerate(_topics(pages)):
        chosen = random.Random(number)
        sentences = (
            " ".join(chosen.choices(topic, k=chosen.randint(6, LONGEST_SENTENCE))).capitalize() + "."
            for _ in range(SENTENCES)
        )
        title = " ".join(topic[:3]).capitalize()
        (folder / f"page-{number:05}.md").write_text(f"# {title}\n\n{' '.join(sentences)}\n", encoding="utf-8")
    return folder


def questions(pages: int) -> list[str]:
    """One about each page, without its last word: whatever word follows makes it a new question."""
    return [f"{' '.join(topic[:6])} of" for topic in _topics(pages)]


def _topics(pages: int) -> Iterator[list[str]]:
    chosen = random.Random(7)
    return (chosen.sample(WORDS, TOPIC_WORDS) for _ in range(pages))
