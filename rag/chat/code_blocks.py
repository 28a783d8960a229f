"""Which lines of an answer are code, told line by line as it arrives.

Readers of Markdown do not agree on every block. What one of them may take for prose is code only `perhaps`: a link in
it could come alive. Knows block structure as CommonMark 0.31 has it, and where the chat on our pages differs; it knows
nothing of what stands within a line.
"""

import re
from typing import Literal

Kind = Literal["prose", "code", "perhaps"]

_BEFORE = re.compile(r"[ \t]*(?:(?:>|[-*+](?=[ \t])|\d{1,9}[.)](?=[ \t]))[ \t]*)*")
"""Indentation, and the marks of quotes and lists."""
_UNDECIDED = re.compile(r"[ \t>*+\-\d.)]*")
_RUN = re.compile(r"`+|~+")
_QUOTES = re.compile(r" {0,3}>(?: {0,3}>)* {0,3}")
_BULLET = re.compile(r" {0,3}[-*+][ \t]+\S")
_LANGUAGE = re.compile(r"[\w+#-]*")
_CLOSES = re.compile(r"[ \t]*(`*|~*)[ \t]*")


class CodeBlocks:
    """`kind` of the line that `begin` judged last."""

    def __init__(self) -> None:
        self.kind: Kind = "prose"
        self.is_new_block = True
        """Whether this line surely continues no sentence of the line before."""
        self.in_html = False
        """Whether this line may belong to a block of HTML, where no backtick means anything."""
        self._fence = ""
        """What opened the code that we are in: the run of backticks or tildes itself."""
        self._opened = False
        """By the line before."""
        self._indent = 0
        self._quoted = 0
        self._sure = True
        self._astray = False
        """Readers may disagree on which fences open and which close: from then on nothing is sure."""
        self._in_item = False
        """No line since the latest item's first stood further out than its text."""
        self._list_indent: int | None = None
        """Where the text of a list's latest item begins; None outside lists."""
        self._after_blank = True
        self._indented = False

    def doubt(self) -> None:
        """Something may have changed where blocks begin."""
        self._astray = True

    def closing(self) -> str:
        """What closes the code that was left open at the margin: some readers take it for prose until then."""
        return f"\n{self._fence}" if self._fence and not self._indent and not self._quoted else ""

    def begin(self, line: str, *, complete: bool, doubtful: bool = False, after_tick: bool = False) -> bool:
        """Judge a line, without its line break, by what has arrived of it; False where that is too little.

        `doubtful`: backticks of the lines before may belong to it; `after_tick`: the last line ended with one.
        """
        if self._fence:
            if not self._within(line, complete):
                return False
            # The chat on our pages takes the end of such a line for the end of the code.
            if after_tick and self._fence and not self._opened:
                self._mistrust()
            self._opened = False
            return True
        if not complete and _UNDECIDED.fullmatch(line):
            return False
        before = found[0] if (found := _BEFORE.match(line)) else ""
        rest = line[len(before) :]
        if not complete and rest == "<":
            return False
        if run := _RUN.match(rest):
            after = rest[run.end() :]
            ticks = run[0][0] == "`"
            if not complete and (not after or (run.end() >= 3 and "`" not in after)):
                return False
            # A backtick further on makes it code within a line.
            if run.end() >= 3 and not (ticks and "`" in after):
                # With more than one word behind it, it opens no code for some readers.
                self._open(before, run[0], doubtful or (complete and not _LANGUAGE.fullmatch(after)))
                return True
        self._prose(line, before, rest)
        return True

    def _open(self, before: str, run: str, doubtful: bool) -> None:
        indent, item = _width(before), self._list_indent
        quotes = _QUOTES.fullmatch(before)
        in_item = self._in_item and item is not None and item <= indent <= item + 3
        plain = not before.strip() and (indent <= 3 or in_item)
        sure = bool(plain or quotes)
        self._astray |= not sure or doubtful
        self._fence, self._opened, self._indent = run, True, 0 if quotes else indent
        self._quoted = before.count(">") if quotes else 0
        # The chat on our pages knows no tildes.
        self._sure = not self._astray and run[0] == "`"
        self.kind = "code" if self._sure else "perhaps"
        self.is_new_block = self._sure
        self._indented, self._after_blank = False, False
        if not indent:
            self._list_indent = None

    def _within(self, line: str, complete: bool) -> bool:
        inner = line
        if self._quoted:
            marks = re.match(rf"(?: {{0,3}}> ?){{{self._quoted}}}", line)
            if marks is None:
                if not complete and re.fullmatch(r"[ >]*", line):
                    return False
                self._fence, self._astray = "", True
                return self.begin(line, complete=complete)
            inner = line[marks.end() :]
        closes = _CLOSES.fullmatch(inner)
        if closes and not complete:
            return False
        self.kind, self.is_new_block = "code" if self._sure else "perhaps", self._sure
        indent = _width(inner[: len(inner) - len(inner.lstrip(" \t"))])
        if closes and closes[1].startswith(self._fence) and indent <= self._indent + 3:
            # Longer, further in or followed by blanks it closes for some readers and for others not.
            self._astray |= closes[1] != self._fence or inner[-1] in " \t" or indent != self._indent
            self._fence, self._after_blank = "", self._sure
            return True
        text = inner.strip(" \t")
        if self._fence[0] == "~" and text.startswith("```"):
            self._astray = True
        if text.startswith(self._fence) or (text and indent < self._indent):
            # For some readers it ends the code; or it has ended the list's item, and the code with it.
            self._mistrust()
        return True

    def _mistrust(self) -> None:
        self._sure, self._astray, self.kind, self.is_new_block = False, True, "perhaps", False

    def _prose(self, line: str, before: str, rest: str) -> None:
        self.kind = "prose"
        if not line.strip():
            self._after_blank = self.is_new_block = True
            self.in_html = False
            return
        self.is_new_block = self._after_blank or _BULLET.match(line) is not None
        indent, marks = _width(before), before.strip()
        if marks.strip("> \t"):
            self._list_indent, self._in_item = indent, True
        elif not indent and self._after_blank:
            self._list_indent = None
        if self._list_indent is None or indent < self._list_indent:
            self._in_item = False
        follows = self._after_blank or self._indented
        # Within a list it is a further paragraph of an item.
        self._indented = indent >= 4 and not marks and follows and self._list_indent is None
        if self._indented:
            self.kind = "perhaps"
        # What stands in a block of HTML are no fences.
        if re.match(r"<[a-z/!?]", rest, re.IGNORECASE):
            self._astray = self.in_html = True
        self._after_blank = False


def _width(before: str) -> int:
    return len(before.expandtabs(4))
