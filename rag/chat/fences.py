"""Which lines of an answer are fenced code, told line by line as it arrives.

Readers of Markdown do not agree on every fence. Code is `sure` only in the plain form that all of them know: three
backticks at the margin or in a list's item, a language and nothing else, closed the same way. After anything else,
code is `doubtful` to the answer's end: a reader may take it for prose.
"""

import re
from typing import Literal

Kind = Literal["prose", "sure", "doubtful"]

HARMLESS_TAG = re.compile(r"</?(?:br|kbd|sub|sup|details|summary)[ ]?/?>", re.IGNORECASE)
TAG_BEGUN = re.compile(r"</?[a-z]{0,7}[ ]?/?\Z", re.IGNORECASE)
_BEFORE = re.compile(r"[ \t]*(?:(?:>|[-*+](?=[ \t])|\d{1,9}[.)](?=[ \t]))[ \t]*)*")
"""Indentation, and the marks of quotes and lists."""
_QUOTES, _BLANKS = re.compile(r"[ \t>]*"), re.compile(r"[ \t]*")
_UNDECIDED = re.compile(r"[ \t>*+\-\d.)]*(?:`*|~*)")
_FENCE = re.compile(r"(`{3,})([^`]*)|(~{3,})(.*)")
_PLAIN = re.compile(r"```[\w+#-]*")


class Fences:
    """`kind` of the line that `begin` judged last."""

    def __init__(self) -> None:
        self.kind: Kind = "prose"
        self.sure = True
        """Nothing so far that two readers would split into blocks or code in two ways."""
        self.opens_oddly = ""
        """The marks before a long language, or one with quotes: some readers write it into a tag."""
        self._fence = ""
        """What opened the code that we are in: the run of backticks or tildes itself."""
        self._is_empty = False
        """No line of that code has come yet."""
        self._indent = 0
        self._quotes = 0
        self._item = 0
        """Where the text of the latest list item begins; 0 outside lists."""

    @property
    def _before(self) -> re.Pattern[str]:
        """What may stand before a line's text: in code, only what stood before its fence."""
        return _BEFORE if not self._fence else _QUOTES if self._quotes else _BLANKS

    def doubt(self) -> None:
        """From here on no code is sure."""
        self.sure = False
        if self.kind == "sure":
            self.kind = "doubtful"

    def closing(self) -> str:
        """What closes the code that was left open: some readers take it for prose until then."""
        return f"\n{' ' * self._indent}{self._fence}" if self._fence and not self._quotes else ""

    def begin(self, line: str, *, complete: bool) -> bool:
        """Judge a line, without its line break, by what has arrived of it; False where that is too little."""
        before = found[0] if (found := self._before.match(line)) else ""
        rest = line[len(before) :]
        if not complete and (_UNDECIDED.fullmatch(line) or rest.startswith(("```", "~~~")) or TAG_BEGUN.match(rest)):
            return False
        self.opens_oddly = ""
        if self._fence and before.count(">") < self._quotes:
            self._fence = ""  # The quote has ended, and its code with it.
            return self.begin(line, complete=complete)
        if self._fence:
            self._within(before, rest)
        elif fence := _FENCE.fullmatch(rest):
            self._open(before, rest, fence[1] or fence[3])
        else:
            self._prose(before, rest)
        return True

    def _open(self, before: str, rest: str, fence: str) -> None:
        self._fence, self._indent, self._quotes = fence, len(before), before.count(">")
        self._is_empty = True
        is_odd = len(rest) > 100 or any(quote in rest for quote in "\"'<>")
        self.opens_oddly = before + fence if is_odd else ""
        self.sure &= not is_odd
        in_item = self._item and self._item <= self._indent <= self._item + 3
        if before.strip(" ") or not (self._indent <= 3 or in_item) or not _PLAIN.fullmatch(rest):
            self.sure = False
        self.kind = "sure" if self.sure else "doubtful"

    def _within(self, before: str, rest: str) -> None:
        self.kind = "sure" if self.sure else "doubtful"
        closes = rest.rstrip(" \t")
        is_end = set(closes) == {self._fence[0]} and len(closes) >= len(self._fence)
        if is_end and len(before.expandtabs(4)) <= self._indent + 3:
            # An older reader does not see the end of empty code.
            if rest != self._fence or len(before) != self._indent or self._is_empty:
                self.doubt()
            self._fence = ""
        elif rest.startswith(("```", "~~~")) or (rest and len(before) < self._indent):
            # For some readers it ends the code; or it has ended the list's item, and the code with it.
            self.doubt()
        self._is_empty = False

    def _prose(self, before: str, rest: str) -> None:
        self.kind = "prose"
        if before.strip():
            # Tabs and quotes: what stands in such an item is not sure.
            self._item = len(before) if not before.strip(" *+-.)0123456789") else 0
        elif rest and len(before) < self._item:
            self._item = 0
        if HARMLESS_TAG.match(rest):
            self.sure = False  # Some read no Markdown in the block that it begins.
