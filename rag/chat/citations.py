"""What an answer cites and links to, checked against its passages, piece by piece as it arrives.

A number without a source is removed, the others are counted in order of appearance. An address that is not known from
the passages is shown so that no reader of Markdown makes a link of it, in prose and in code; outside fenced code no
tag is left whole. Each construct is judged by itself, from left to right, and what is changed is set apart by blanks,
so that it grows together with nothing. Pure; knows no models.
"""

import html
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from rag.chat import markdown as md
from rag.chat.addresses import CLOSING_MARKS, URL, Addresses, leads_elsewhere
from rag.chat.fences import HARMLESS_TAG, TAG_BEGUN, Fences
from rag.types import Hit

LINK_REMOVED = "(link removed)"
_HELD_CHARS = 2_000
"""Of an unfinished construct that may wait for its end; beyond that its first character is plain text."""


class _Step(NamedTuple):
    shown: str
    taken: int
    """Characters that this settles."""
    again: str = ""
    """What stands in their place and is still to be checked."""


class Citations:
    """Checks one answer. `feed` it the pieces, then `end` it; both return text that may be shown."""

    def __init__(self, hits: Sequence[Hit]) -> None:
        self._hits = hits
        self._addresses = Addresses(hits)
        self._fences = Fences()
        self._waiting = ""
        self._is_line_new = True
        self._line = ""
        """What was shown of this line, the first thousand characters."""
        self._last = ""
        """The last character that was shown."""
        self._cell_is_split = False
        """Code in this line holds a bar, where a table would end its cell."""
        self.order: list[int] = []
        """Places in `hits` of what was cited, in order of appearance: `[n]` in the text is `hits[order[n - 1]]`."""

    def feed(self, piece: str) -> str:
        """Text that is settled after `piece`; what may still become a citation, a link or code waits."""
        # Most pieces are a word.
        in_prose = not self._waiting and not self._is_line_new and self._fences.kind == "prose"
        if in_prose and piece.isprintable() and not md.TOKEN.search(piece):
            self._note(piece)
            return piece
        self._waiting += piece.translate(md.SIGNS)
        return self._settle(final=False)

    def end(self) -> str:
        """The rest, and what closes code that was left open."""
        return self._settle(final=True) + self._fences.closing()

    def sorted(self, hits: Sequence[Hit]) -> tuple[Hit, ...]:
        """The hits by their numbers in the text, those that were not cited after them."""
        rest = [place for place in range(len(hits)) if place not in self.order]
        return tuple(hits[place] for place in (*self.order, *rest))

    def _settle(self, *, final: bool) -> str:
        settled: list[str] = []
        text, at = self._waiting, 0
        while at < len(text):
            # However the pieces are cut, each construct is judged only when all of it is there.
            patient = not final and len(text) - at <= _HELD_CHARS
            step = self._step(text, at, patient)
            if step is None:
                break
            settled.append(step.shown)
            at += step.taken
            if step.again:
                text, at = step.again + text[at:], 0
            self._note(step.shown)
        self._waiting = text[at:]
        return "".join(settled)

    def _note(self, shown: str) -> None:
        if shown.endswith("\n"):
            self._is_line_new, self._line, self._cell_is_split = True, "", False
        elif len(self._line) < 1_000:
            self._line += shown
        self._last = shown[-1:] or self._last

    def _step(self, text: str, at: int, patient: bool) -> _Step | None:
        """What comes next; None where more has to arrive."""
        if self._is_line_new:
            end = text.find("\n", at)
            line = text[at : end if end >= 0 else None].removesuffix("\r")
            if not self._fences.begin(line, complete=end >= 0 or not patient):
                return None
            self._is_line_new = False
            if marks := self._fences.opens_oddly:
                return _Step(f"{marks}text ", len(marks))
        if self._fences.kind == "sure" and text[at] != "\n":
            return self._code_line(text, at, patient)
        token = md.TOKEN.search(text, at)
        if token is None or token.start() > at:
            until = token.start() if token else len(text)
            return _Step(text[at:until], until - at)
        judge: Callable[[str, int, bool], _Step | None] = getattr(self, f"_{token.lastgroup}")
        return judge(text, at, patient)

    def _code_line(self, text: str, at: int, patient: bool) -> _Step | None:
        until = text.find("\n", at)
        if until < 0:
            # An address is one word, and is judged when all of it is there.
            until = max(text.rfind(" ", at), at - 1) + 1 if patient else len(text)
        if until == at:
            return None
        returns = "\r" if text.startswith("\r\n", until - 1) else ""
        shown = self._addresses.defused(text[at:until].removesuffix(returns).replace("\r", " ")) + returns
        if "```" in shown.lstrip(" `"):
            self._fences.doubt()
        return _Step(shown, until - at)

    def _newline(self, text: str, at: int, patient: bool) -> _Step | None:
        if patient and text[at] == "\r" and at + 1 == len(text):
            return None
        ended = md.LINE_END.match(text, at)
        # Alone, it ends a line for some readers.
        return _Step(ended[0], len(ended[0])) if ended else _Step(" ", 1)

    def _code(self, text: str, at: int, patient: bool) -> _Step | None:
        plain = _same(md.TICKS, text, at)
        if self._fences.kind == "doubtful":
            return plain
        end = text.find("\n", at, at + _HELD_CHARS)
        limit = end if end >= 0 else at + _HELD_CHARS
        found = md.CODE.match(text, at, limit)
        if patient and end < 0 and (found is None or found.end() == len(text)):
            return None
        if found is None:
            found = md.CODE_WITH_TICKS.match(text, at, limit)
            self._fences.doubt()
        if found is None:
            return plain
        if self._last == "\\":
            self._fences.doubt()
        self._cell_is_split |= "|" in found[0]
        sure = self._fences.sure and not self._cell_is_split
        return _Step(self._addresses.defused(found[0]), len(found[0])) if sure or self._is_harmless(found[0]) else plain

    def _is_harmless(self, code: str) -> bool:
        """Whether code holds nothing that matters if a reader takes it for prose."""
        rest = URL.sub(lambda found: "" if self._addresses.allow(found[0].rstrip(CLOSING_MARKS)) else found[0], code)
        return md.HARMFUL.search(rest) is None

    def _blanks(self, text: str, at: int, patient: bool) -> _Step | None:
        """A citation that goes takes the blanks before it along."""
        blanks = _same(md.BLANKS, text, at)
        if patient and at + blanks.taken == len(text):
            return None
        gone = self._invented(text, at + blanks.taken, patient)
        if gone and self._line.strip():
            return _Step("", blanks.taken + gone)
        return None if gone is None else blanks

    def _image(self, text: str, at: int, patient: bool) -> _Step | None:
        """An image is shown as a link to it: what loads by itself tells who reads."""
        marks = _same(md.MARKS, text, at)
        if patient and md.NUMBERS_BEGUN.match(text, at + marks.taken):
            return None
        is_text = self._fences.kind == "doubtful" or md.NUMBERS.match(text, at + marks.taken)
        return marks if is_text else _Step("", marks.taken)

    def _bracket(self, text: str, at: int, patient: bool) -> _Step | None:
        if self._fences.kind == "doubtful":
            return _Step("[", 1)
        if patient and md.LABEL_BEGUN.match(text, at):
            return None
        if link := md.LINK.match(text, at, at + _HELD_CHARS):
            if self._addresses.allow(_address(link[2])):
                return _Step("[", 1)
            # Its words alone. They are checked again, with what follows them, and kept apart from what was shown.
            lead = ", " if self._last == "]" else " " if self._last not in md.APART else ""
            return _Step(lead, link.end() - at, link[1])
        if cited := md.CITED.match(text, at):
            if (gone := self._invented(text, at, patient)) is None:
                return None
            numbers = [int(number) for number in re.findall(r"\d+", cited[1])]
            follows = self._last.isalnum() or self._last in ("_", "\\")
            if gone:
                return _Step("", gone)
            if not follows and all(1 <= number <= len(self._hits) for number in numbers):
                rest = self._closing(text, cited.end() - 1, patient, cites=True)
                return rest and _Step(self._renumbered(numbers)[:-1] + rest.shown, len(cited[0]) - 1 + rest.taken)
        return _Step("[", 1)

    def _invented(self, text: str, at: int, patient: bool) -> int | None:
        """The length of a citation that no source has; 0 if there is none here, or none that can go by itself."""
        cited = md.CITED.match(text, at)
        if cited is None or self._fences.kind != "prose":
            return None if patient and md.CITED_BEGUN.match(text, at) else 0
        if not cited[1].isdecimal() or int(cited[1]) <= len(self._hits) or self._is_glued(text, at):
            return 0
        if patient and md.GOES_BEGUN.match(text, cited.end()):
            return None
        return len(cited[0]) if md.GOES.match(text, cited.end()) else 0

    def _is_glued(self, text: str, at: int) -> bool:
        before = text[at - 1] if at and text[at - 1] in " \t" else self._last
        return before.isalnum() or before in ("_", "\\")

    def _renumbered(self, numbers: Sequence[int]) -> str:
        for number in numbers:
            if number - 1 not in self.order:
                self.order.append(number - 1)
        return "".join(f"[{self.order.index(number - 1) + 1}]" for number in dict.fromkeys(numbers))

    def _closing(self, text: str, at: int, patient: bool, *, cites: bool = False) -> _Step | None:
        """A bracket's end: what follows may make it a link or a definition of one."""
        if md.TARGET_BEGUN.match(text, at) and (patient or len(text) - at > _HELD_CHARS):
            return None if patient else _Step("],", 1)
        if target := md.TARGET.match(text, at, at + _HELD_CHARS):
            address = _address(target[2])
            allowed = self._addresses.allow(address)
            if self._fences.kind == "prose" and not target[1]:
                # Without its title: in one, the chat on our pages would find links of their own.
                shown = f"<{address}>" if target[2].lstrip().startswith("<") else address
                return _Step(f"]({shown})" if allowed else f"] {LINK_REMOVED}", target.end() - at)
            # An older reader lets blanks stand between a link's words and its address.
            harmless = allowed or not leads_elsewhere(address) or not md.ONE_ADDRESS.fullmatch(target[2])
            return _Step("]" if harmless else "],", 1)
        if opened := md.OPENED.match(text, at):
            # For some readers an address goes on over any lines until it is closed.
            return _Step("]" if opened[1] and not leads_elsewhere(opened[2]) else "],", 1)
        if (defined := md.DEFINED.match(text, at)) and md.DEFINES.fullmatch(f"{self._line}[" if cites else self._line):
            target_is_fence = defined[1] and defined[2][:1] in ("`", "~")
            foreign = leads_elsewhere(defined[2]) or defined[2][:1] in ("/", "#", ".")
            if defined[2] and (target_is_fence or (foreign and not self._addresses.allow(defined[2].rstrip(">")))):
                return _Step("] ", 1)
        return _Step("]", 1)

    def _tag(self, text: str, at: int, patient: bool) -> _Step | None:
        if patient and (TAG_BEGUN.match(text, at) or md.AUTOLINK_BEGUN.match(text, at)):
            return None
        if link := md.AUTOLINK.match(text, at):
            return _Step(link[0] if self._addresses.allow(link[1]) else LINK_REMOVED, len(link[0]))
        if tag := HARMLESS_TAG.match(text, at):
            return _Step(tag[0], len(tag[0]))
        # No tag is left to a client that obeys HTML; a reader of Markdown shows what was written.
        return _Step("< " if md.TAG.match(text, at) else "<", 1)

    def _entity(self, text: str, at: int, patient: bool) -> _Step | None:
        """One that stands for a part of an address hides an address; any other is a sign."""
        if patient and md.ENTITY_BEGUN.match(text, at):
            return None
        found = md.ENTITY.match(text, at)
        hides = found and re.search(r"[a-zA-Z0-9:/.\\@]", html.unescape(found[0]).removeprefix("&"))
        return _Step("& " if hides else "&", 1)

    def _slashes(self, text: str, at: int, patient: bool) -> _Step | None:
        """An address without its scheme, which some readers link too, gets a blank; a comment and a path do not."""
        if patient and md.RELATIVE_BEGUN.match(text, at):
            return None
        glued = self._last.isalnum() or self._last in ("_", ":", "/")
        return _Step("// ", 2) if md.RELATIVE.match(text, at) and not glued else _Step("/", 1)

    def _address(self, text: str, at: int, patient: bool) -> _Step | None:
        if text[at] in "dD" and self._last.isalnum():
            return _Step(text[at], 1)
        run = md.RUN.match(text, at)
        if patient and (run is None or run.end() == len(text) or md.IPV6_BEGUN.match(text, at)):
            return None
        if run is None:
            return _Step(text[at], 1)
        address = self._addresses.allowed(run[0])
        if not address:
            alone = md.OPENING_ALONE.fullmatch(run[0])
            if alone and patient and run.end() + 2 >= len(text):
                return None
            if alone and md.NAMED.match(text, run.end()):
                return _Step(run[0], len(run[0]))
            lead = " " if self._last == "]" else ""
            return _Step(lead + LINK_REMOVED, len(run[0].rstrip(CLOSING_MARKS)) or len(run[0]))
        if patient and md.ENDS_BEGUN.match(text, at + len(address)):
            return None
        return _Step(address if md.ENDS.match(text, at + len(address)) else f"{address} ", len(address))


def _same(pattern: re.Pattern[str], text: str, at: int) -> _Step:
    """What is shown as it came, as far as the pattern matches."""
    found = pattern.match(text, at)
    return _Step(found[0], len(found[0])) if found else _Step("", 0)


def _address(target: str) -> str:
    """The address in a link's parentheses, without its title."""
    target = target.strip()
    return target[1:].partition(">")[0] if target.startswith("<") else re.split(r"\s", target, maxsplit=1)[0]
