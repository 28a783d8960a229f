"""A month of made-up but lifelike traffic on the small site, with its truth: which topics have no page.

    python -m tests.support.month_of_questions STATE_DIR [--questions 4000]

Writes what a server would have logged in thirty days, by the product's own store with a clock that goes along.
"""

import argparse
import asyncio
import random
from collections import Counter
from pathlib import Path

from rag.stores.protocols import LoggedQuestion
from rag.stores.sqlite.file import Clocks
from rag.stores.sqlite.questions import SqliteQuestions
from rag.text.asked import normalised
from tests.support.small_site import FACTS, SITE_URL

DAY_S = 86_400.0
MISSING = {
    "scholarships": [
        "Do you offer scholarships for marine biology students?", "Are there scholarships for marine biology?",
        "Is there a scholarship for students of marine biology?", "Gibt es Stipendien für Meeresbiologie?",
    ],
    "submarines": [
        "Can the controller be mounted on a submarine?", "Does the controller work on a submarine?",
        "Mounting the controller on a submarine, is that possible?",
    ],
    "astronauts": ["Has any astronaut used Brinewell aboard a space station?", "Was Brinewell aboard a space station?"],
}  # fmt: skip
"""Topics without a page, each with the ways in which visitors ask for it."""
DISLIKED = "What does error E17 mean?"


class _Month:
    """A clock that stands where it is put."""

    def __init__(self, now_s: float) -> None:
        self.now_s = now_s

    def clocks(self) -> Clocks:
        return Clocks(wall_s=lambda: self.now_s, monotonic_s=lambda: self.now_s, boot_id="a month")


async def write_month(state_dir: Path, *, until_s: float, questions: int, seed: int = 7) -> Counter[str]:
    """Thirty days that end at `until_s`; returns how often each missing topic was asked."""
    chance, asked = random.Random(seed), Counter[str]()
    month = _Month(until_s - 30 * DAY_S)
    store = SqliteQuestions(path=state_dir / "questions.sqlite3", clocks=month.clocks(), days=400)
    urls = [f"{SITE_URL}/{place}/" for place in ("guide/installation", "guide/errors", "pricing", "warranty")]
    for day in range(30):
        month.now_s = until_s - (29 - day) * DAY_S - 3_600
        weekday = 0.45 if day % 7 in (5, 6) else 1.0
        entries, figures, cited = [], Counter[str](), Counter[str]()
        for _ in range(round(questions / 30 * weekday * chance.uniform(0.75, 1.25) * (0.7 + day / 50))):
            if chance.random() < 0.12:
                topic = chance.choices(list(MISSING), weights=[6, 3, 1])[0]
                text, outcome = chance.choice(MISSING[topic]), "nothing_found"
                asked[topic] += 1
            else:
                text, outcome = chance.choice(FACTS).question, "answered"
                cited[chance.choice(urls)] += 1
            figures.update({"questions": 1, outcome: 1, "prompt_tokens": 1500, "completion_tokens": 120})
            figures.update({"first_tokens": 1, "first_token_ms": chance.randint(400, 1900)})
            figures["cache_hits"] += chance.random() < 0.2
            entries.append(
                LoggedQuestion(
                    question=text, words=normalised(text), outcome=outcome, page=chance.choice(["/", "/guide/"]),
                    language="de" if text.startswith("Gibt") else "en",
                    similarity=0.2 if outcome != "answered" else 0.7,
                    seconds=1.5, tokens=1620, build="20260101T000000Z-aaaaaa", about=chance.randbytes(32),
                )
            )  # fmt: skip
        await store.write(entries, figures=figures, cited=cited, degraded=day == 20)
    disliked = LoggedQuestion(question=DISLIKED, words=normalised(DISLIKED), outcome="answered", language="en")
    for _ in range(3):
        entry = LoggedQuestion(
            question=disliked.question, words=disliked.words, outcome="answered", language="en",
            about=chance.randbytes(32),
        )  # fmt: skip
        await store.dislike(entry, reason="The steps do not help on my model")
    await store.close()
    return asked


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("state_dir", type=Path)
    parser.add_argument("--questions", type=int, default=4_000)
    given = parser.parse_args()
    until_s = Clocks.system().wall_s()
    print(dict(asyncio.run(write_month(given.state_dir, until_s=until_s, questions=given.questions))))


if __name__ == "__main__":
    main()
