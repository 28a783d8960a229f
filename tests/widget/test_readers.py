"""What marked, markdown-it, showdown, GFM and our chat make of checked answers: no way elsewhere, nothing that runs.

`READER_ANSWERS=100000` makes the long form.
"""

import json
import os
import random
import re
import subprocess
from pathlib import Path

from tests.support.waiting import REPOSITORY
from tests.unit.chat.test_citations import ATOMS, checked
from tests.widget.conftest import InBrowser

OWN = ("https://site.example/p1", "https://partner.exa", "http://localhost:1", "mailto:")
NOWHERE = re.compile(r"(?:http:)?//(?:www)?(?:\.?%|\.?$|\.[^a-z0-9])")
"""What some readers make of `www.` alone: no such host can be."""
BLOCKS = [
    "\n```\n", "\n```js\n", "\n~~~\n", "\n````\n", "\n   ```\n", "\n> ```\n", "`", "``", "\n\n", "\n- a", "\n1. ",
    "\n  ", "\n    ", "\n> ", "\t", "x", "<a href=//evil.example>", "<img src=x onerror=y>", "[x](//evil.example)",
    "[x]:", "<details>", "\n<br>", "|a|b|\n|-|-|\n|", " | ",
]  # fmt: skip
"""Where code may begin and end, and what must not come alive in it."""
SIGNS = [*'[]()<>`~|\n :/."&;#!*_-=x1 \\', "https://evil.example", "//evil.example", "```", "javascript:"]


def made_up(count: int) -> list[str]:
    choose, kinds = random.Random(count), (ATOMS, BLOCKS, ATOMS, SIGNS)
    return [
        "".join(choose.choice(kinds[place % 4]) for _ in range(choose.randint(1, 20))) for place in range(count)
    ]  # fmt: skip


def test_no_reader_with_raw_html_and_bare_links_is_led_elsewhere(node_modules: Path) -> None:
    count = int(os.environ.get("READER_ANSWERS", "4000"))
    answers = made_up(count)
    shown = [checked(answer)[0] for answer in answers]
    done = subprocess.run(
        ["node", "tests/support/readers.mjs"], input=json.dumps(shown) + "\n", cwd=REPOSITORY, capture_output=True,
        text=True, timeout=600, check=True,
    )  # fmt: skip
    found = json.loads(done.stdout)
    assert len(found) == count
    reached, wrong = 0, []
    for answer, readers in zip(answers, found, strict=True):
        for reader, attributes in readers.items():
            for name, value in attributes:
                reached += 1
                leads = name in ("href", "src")
                elsewhere = re.match(r"(?:[a-z][a-z0-9+.-]*:|[/\\]{2})", value.strip(), re.IGNORECASE)
                if not leads or (elsewhere and not value.startswith(OWN) and not NOWHERE.match(value)):
                    wrong.append((reader, name, value, answer))
    assert wrong == []
    assert reached > count / 4


def test_checked_answers_lead_nowhere_else_in_the_chat(in_browser: InBrowser) -> None:
    in_browser(answers=[checked(answer)[0] for answer in made_up(int(os.environ.get("READER_ANSWERS", "4000")))])
