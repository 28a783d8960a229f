"""What an answer cites and links to, checked against its passages, piece by piece as it arrives.

A number without a source is removed, the others are counted in order of appearance; a link leads to an address that
stands in a passage or is one's own, or it is taken off its words. Code is left as it is. Pure; knows no models.
"""

import re
from collections.abc import Sequence
from functools import cached_property

from rag.models import Hit

HELD_CHARS = 2_000
"""Of an unfinished link or code span that may wait for its end; beyond that it is taken for plain text."""
LINK_REMOVED = "(link removed)"

_URL = re.compile(r"https?://[^\s<>\"'`\])}|\\]+", re.IGNORECASE)
# Where a construct begins, or may begin at the end of what has arrived.
_BEGIN = re.compile(r"[`!\[<]|[ \t]+(?=\[|\Z)|h(?=ttps?://|t?t?p?s?:?/?/?\Z)", re.IGNORECASE)
_NUMBERS = re.compile(r"\d{1,3}(?:\s*,\s*\d{1,3})*")
_LABEL = re.compile(r"\[((?:[^\[\]\n]|\[[^\[\]\n]*\])*)(\]|\n|(?:\[[^\[\]\n]*)?\Z|\[)")
_TARGET = re.compile(r"\(((?:[^()\n]|\([^()\n]*\))*)(\)|\n|(?:\([^()\n]*)?\Z|\()")
_DEFINED = re.compile(r":[ \t]*<?(?:[a-z][a-z0-9+.-]*:|[/#.])[^\n]*(\n|\Z)", re.IGNORECASE)

_Step = tuple[str, int] | None
"""What may be shown, and how many characters that settles; None where the end of the construct has not arrived."""


class Citations:
    """Checks one answer. `feed` it the pieces, then `end` it; both return text that may be shown."""

    def __init__(self, hits: Sequence[Hit]) -> None:
        self._hits = hits
        self._count = len(hits)
        self._waiting = ""
        self._in_fence = False
        self._line_begins = True
        self.order: list[int] = []
        """Places in `hits` of what was cited, in order of appearance: `[n]` in the text is `hits[order[n - 1]]`."""

    def feed(self, piece: str) -> str:
        """Text that is settled after `piece`; what may still become a citation, a link or code waits."""
        self._waiting += piece
        # However the pieces are cut, each construct is judged only when all of it is there.
        return self._settle(final=len(self._waiting) > HELD_CHARS)

    def end(self) -> str:
        """The rest."""
        return self._settle(final=True)

    def sorted(self, hits: Sequence[Hit]) -> tuple[Hit, ...]:
        """The hits by their numbers in the text, those that were not cited after them."""
        rest = [place for place in range(len(hits)) if place not in self.order]
        return tuple(hits[place] for place in (*self.order, *rest))

    def _settle(self, *, final: bool) -> str:
        settled: list[str] = []
        text, at = self._waiting, 0
        while at < len(text):
            found = None if self._in_fence else _BEGIN.search(text, at)
            plain_until = found.start() if found else at if self._in_fence else len(text)
            if plain_until > at:
                settled.append(text[at:plain_until])
                self._pass(text[at:plain_until])
                at = plain_until
                continue
            step = self._fence(text, at, final) if self._in_fence else self._construct(text, at, final)
            if step is None:
                break
            settled.append(step[0])
            self._pass(text[at : at + step[1]])
            at += step[1]
        self._waiting = text[at:]
        return "".join(settled)

    def _pass(self, text: str) -> None:
        line = text.rpartition("\n")[2]
        self._line_begins = (self._line_begins or "\n" in text) and not line.strip(" ")

    def _fence(self, text: str, at: int, final: bool) -> _Step:
        close = text.find("```", at)
        if close >= 0:
            self._in_fence = False
            return text[at : close + 3], close + 3 - at
        end = len(text) if final else len(text.rstrip("`"))
        return (text[at:end], end - at) if end > at else None

    def _construct(self, text: str, at: int, final: bool) -> _Step:
        match text[at]:
            case "`":
                return self._code(text, at, final)
            case "[":
                return self._bracket(text, at, final, image=False)
            case "!" | " " | "\t":
                spaces = len(text) - at - len(text[at:].lstrip(" \t")) or 1
                if at + spaces == len(text):
                    return (text[at:], spaces) if final else None
                if text[at + spaces] != "[":
                    return text[at : at + spaces], spaces
                step = self._bracket(text, at + spaces, final, image=text[at] == "!")
                if step is None:
                    return None
                # A citation that goes takes the space before it along; the `!` of an image goes with its address.
                keep = "" if text[at] == "!" or not step[0] else text[at : at + spaces]
                return keep + step[0], spaces + step[1]
            case _:
                return self._bare(text, at, final)

    def _code(self, text: str, at: int, final: bool) -> _Step:
        ticks = len(text) - at - len(text[at:].lstrip("`"))
        if at + ticks == len(text) and not final:
            return None
        if ticks >= 3:
            self._in_fence = True
            return text[at : at + ticks], ticks
        close = re.compile(rf"(?<!`)`{{{ticks}}}(?!`)|\n\n").search(text, at + ticks)
        if close is None or (close.end() == len(text) and close[0] != "\n\n" and not final):
            return (text[at : at + ticks], ticks) if final else None
        end = at + ticks if close[0] == "\n\n" else close.end()
        return text[at:end], end - at

    def _bracket(self, text: str, at: int, final: bool, *, image: bool) -> _Step:
        label = _LABEL.match(text, at)
        if label is None or label[2] != "]":
            unfinished = label is not None and label.end() == len(text) and label[2] != "\n" and not final
            return None if unfinished else ("[", 1)
        after = label.end()
        if after == len(text) and not final:
            return None
        if text.startswith("(", after):
            target = _TARGET.match(text, after)
            if target is not None and target[2] == ")":
                address = target[1].split()[0] if target[1].split() else ""
                shown = text[at : target.end()] if self._allows(address) and not image else self._within(label[1])
                return shown, target.end() - at
            if target is not None and target.end() == len(text) and target[2] != "\n" and not final:
                return None
        if text.startswith(":", after) and self._line_begins:
            defined = _DEFINED.match(text, after)
            if not final and "\n" not in text[after:]:
                return None
            if defined is not None:
                return "", defined.end() - at
        if _NUMBERS.fullmatch(label[1]):
            return self._renumbered(label[1]), after - at
        return "[", 1

    def _bare(self, text: str, at: int, final: bool) -> _Step:
        bracket = text[at] == "<"
        if bracket and at + 1 == len(text) and not final:
            return None
        found = _URL.match(text, at + bracket)
        ends = found.end() if found else at
        if not final and (
            ends == len(text) or (not found and _BEGIN.match(text, at + bracket) and text[at + bracket] in "hH")
        ):
            return None
        if not found:
            return text[at], 1
        address = found[0].rstrip(".,;:!?*_")
        if self._allows(address):
            return text[at : at + bracket + len(address)], bracket + len(address)
        closing = bracket and text.startswith(">", ends)
        return LINK_REMOVED, bracket + (len(found[0]) + 1 if closing else len(address))

    def _within(self, label: str) -> str:
        """A label without its link, checked in its turn."""
        inner = Citations(self._hits)
        inner.order, inner._line_begins = self.order, False
        return inner.feed(label) + inner.end()

    @cached_property
    def _allowed(self) -> set[str]:
        # Most answers hold no link, and then no passage has to be searched for addresses.
        return {_address(url) for hit in self._hits for url in _addresses(hit)}

    def _allows(self, url: str) -> bool:
        return _address(url) in self._allowed

    def _renumbered(self, cited: str) -> str:
        numbers = []
        for number in map(int, re.findall(r"\d+", cited)):
            if 1 <= number <= self._count:
                if number - 1 not in self.order:
                    self.order.append(number - 1)
                numbers.append(self.order.index(number - 1) + 1)
        return "".join(f"[{number}]" for number in dict.fromkeys(numbers))


def _addresses(hit: Hit) -> list[str]:
    passage = hit.passage
    return [passage.url, *_URL.findall(passage.text)]


def _address(url: str) -> str:
    """For comparison: without fragment, closing punctuation, trailing slash or brackets."""
    return url.strip("<>").split("#")[0].rstrip(".,;:!?*_").rstrip("/").casefold()
