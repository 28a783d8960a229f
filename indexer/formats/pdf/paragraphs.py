"""Lines of a PDF page -> paragraphs and lists: joins lines, undoes hyphenation. Knows no page, size or heading."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise

from indexer.documents import Block, Kind
from indexer.formats.pdf.lines import Line

BULLET = re.compile(r"^(?:[•◦▪■●○‣⁃∙·–—*\uf0b7\uf0a7-]\s*(?=\S)|(\d{1,3}|[a-zA-Z])[.)]\s+(?=\S))")
SIGN = re.compile(r"^[•◦▪■●○‣⁃∙·\uf0b7\uf0a7]\s*")
ENDED = re.compile(r"[.!?:;。！？…][\"'”’)\]]*$")
WORD = re.compile(r"[^\W_]+(?:-[^\W_]+)*")
BROKEN = re.compile(r"([^\W\d_]+)[-\u00ad\u2010]$")
FULL = 0.7
"""A line shorter than this share of the usual line was ended on purpose."""
WIDE = re.compile("[\u3000-\u30ff\u3400-\u9fff\uff00-\uffef]")


class Paragraphs:
    """Knows the whole file's words, by which a hyphen at a line's end is a word's own or only a break."""

    def __init__(self, lines: Iterable[str]) -> None:
        written = [line for line in lines if line]
        self._words = Counter(word.casefold() for line in written for word in WORD.findall(line))
        lengths = sorted(map(len, written))
        self._usual_chars = lengths[int(len(lengths) * 0.8)] if lengths else 0
        pairs = [(above, below) for above, below in pairwise(written) if BROKEN.search(above)]
        proven = sum(self._words["".join(_halves(above, below)).casefold()] > 0 for above, below in pairs)
        self._hyphenates = proven > 1 or len(pairs) > 0.02 * len(written) + 2

    def rebuilt(self, lines: Sequence[Line]) -> list[Block]:
        """Blocks between empty lines; a list's items are one block, however far apart they stand."""
        blocks: list[Block] = []
        current: list[str] = []

        def close() -> None:
            if current:
                kind: Kind = "list" if BULLET.match(current[0]) else "paragraph"
                text = self._flowed(current)
                text = SIGN.sub("- ", text) if kind == "list" else text
                if blocks and kind == "list" == blocks[-1].kind:
                    blocks[-1] = Block("list", f"{blocks[-1].text}\n{text}")
                else:
                    blocks.append(Block(kind, text))
                current.clear()

        for line in lines:
            if not line.text or BULLET.match(line.text) or (current and self._was_ended(current[-1], line.text)):
                close()
            if line.text:
                current.append(line.text)
        close()
        return blocks

    def goes_on(self, above: Block, below: Block) -> bool:
        """Whether the page was turned in the middle of a sentence."""
        return not ENDED.search(above.text) and below.kind == "paragraph" and _is_inner(below.text)

    def joined(self, above: Block, below: Block) -> Block:
        return Block(above.kind, self._flowed([*above.text.split("\n"), *below.text.split("\n")], keep_breaks=True))

    def _was_ended(self, above: str, below: str) -> bool:
        return bool(ENDED.search(above)) and len(above) < FULL * self._usual_chars and not _is_inner(below)

    def _flowed(self, lines: Sequence[str], *, keep_breaks: bool = False) -> str:
        text = lines[0]
        last = lines[0]
        for number, line in enumerate(lines[1:], 1):
            turned = not keep_breaks or number == len(lines) - 1
            broken = BROKEN.search(text)
            if broken and (line[:1].islower() or text.endswith("\u00ad")):
                text = text[:-1] + ("" if self._only_a_break(text, line) else "-") + line
            elif re.search(r"\w-$", text) or (WIDE.match(text[-1]) and WIDE.match(line)):
                text += line
            elif turned and (len(last) >= FULL * self._usual_chars or _is_inner(line)):
                text += f" {line}"
            else:
                text += f"\n{line}"
            last = line
        return text

    def _only_a_break(self, above: str, below: str) -> bool:
        if above.endswith("\u00ad"):
            return True
        first, second = _halves(above, below)
        if self._words[f"{first}{second}".casefold()]:
            return True
        if self._words[f"{first}-{second}".casefold()]:
            return False
        return self._hyphenates


def _halves(above: str, below: str) -> tuple[str, str]:
    broken, rest = BROKEN.search(above), WORD.match(below)
    return broken[1] if broken else "", rest[0] if rest else ""


def _is_inner(text: str) -> bool:
    """Whether a line can only go on with a sentence."""
    return text[:1].islower() and not BULLET.match(text)
