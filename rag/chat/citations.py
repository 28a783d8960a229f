"""What an answer cites and links to, checked against its passages, piece by piece as it arrives.

A number without a source is removed, the others are counted in order of appearance; a link leads to an address that
stands in a passage or is one's own, or it is taken off its words. Code is left as it is where every reader of Markdown
takes it for code; where only some do, its numbers stay and its links go. Pure; knows no models.
"""

import re
from collections.abc import Sequence

from rag.chat import markdown_patterns as patterns
from rag.chat.addresses import CLOSING_MARKS, OPENINGS, URL, URL_BEGUN, Addresses, relative
from rag.chat.code_blocks import CodeBlocks
from rag.types import Hit

LINK_REMOVED = "(link removed)"

_Step = tuple[str, int] | None
"""What may be shown, and how many characters that settles; None where the end of the construct has not arrived."""


class Citations:
    """Checks one answer. `feed` it the pieces, then `end` it; both return text that may be shown."""

    def __init__(self, hits: Sequence[Hit]) -> None:
        self._hits = hits
        self._count = len(hits)
        self._addresses = Addresses(hits)
        self._waiting = ""
        self._blocks = CodeBlocks()
        self._is_line_new = True
        self._line_begins = True
        """Nothing but indentation and the marks of quotes and lists stood in this line yet."""
        self._doubtful = False
        """Readers may disagree on which backticks of this paragraph belong together."""
        self._shown = ""
        """The end of what was shown."""
        self._taken = ""
        """The last character that was settled, as it came."""
        self._glued = False
        """Since an address was shown no blank was: some readers take all of that for the address, backticks too."""
        self.order: list[int] = []
        """Places in `hits` of what was cited, in order of appearance: `[n]` in the text is `hits[order[n - 1]]`."""

    def feed(self, piece: str) -> str:
        """Text that is settled after `piece`; what may still become a citation, a link or code waits."""
        self._waiting += piece
        # However the pieces are cut, each construct is judged only when all of it is there.
        return self._settle(final=len(self._waiting) > patterns.HELD_CHARS)

    def end(self) -> str:
        """The rest, and what closes code that was left open."""
        return self._settle(final=True) + self._blocks.closing()

    def sorted(self, hits: Sequence[Hit]) -> tuple[Hit, ...]:
        """The hits by their numbers in the text, those that were not cited after them."""
        rest = [place for place in range(len(hits)) if place not in self.order]
        return tuple(hits[place] for place in (*self.order, *rest))

    def _settle(self, *, final: bool) -> str:
        settled: list[str] = []
        text, at = self._waiting, 0
        while at < len(text):
            if self._is_line_new and not self._begin_line(text, at, final):
                break
            is_code = self._blocks.kind == "code"
            if is_code:
                until = patterns.whole_words(text, at, final)
                if until == at and text[at] != "\n":
                    break
            else:
                until = begin.start() if (begin := patterns.BEGIN.search(text, at)) else len(text)
            if until > at:
                shown, taken = text[at:until], until - at
                shown = self._addresses.defused(shown) if is_code else shown
            elif text[at] == "\n":
                shown, taken, self._is_line_new = "\n", 1, True
            else:
                step = self._construct(text, at, final)
                if step is not None and step[0] != text[at : at + step[1]]:
                    step = self._apart(step, text, at, final)
                if step is None:
                    break
                shown, taken = step
            settled.append(shown)
            at += taken
            self._shown = (self._shown + shown)[-2:]
            if self._line_begins or self._is_line_new:
                self._line_begins = self._is_line_new or not shown.strip(patterns.MARKS)
            if self._glued and patterns.BLANK.search(shown):
                self._glued = False
        self._taken = text[at - 1] if at else self._taken
        self._waiting = text[at:]
        return "".join(settled)

    def _begin_line(self, text: str, at: int, final: bool) -> bool:
        end = text.find("\n", at)
        line = text[at:] if end < 0 else text[at:end]
        blocks = self._blocks
        after_tick = self._shown == "`\n"
        if not blocks.begin(line, complete=final or end >= 0, doubtful=self._doubtful, after_tick=after_tick):
            return False
        self._is_line_new = False
        self._doubtful = blocks.kind == "perhaps" or blocks.in_html or (self._doubtful and not blocks.is_new_block)
        return True

    def _apart(self, step: tuple[str, int], text: str, at: int, final: bool) -> _Step:
        """The same step, kept from making something new of what stands before and after it."""
        shown, after = step[0], text[at + step[1] : at + step[1] + 2]
        joins = not shown or patterns.PART.match(shown[-1]) or shown[-1] in "`~"
        if not final and ((joins and after in ("", ".", ":")) or (shown.endswith("]") and after in ("", " "))):
            return None
        before, follows = self._shown[-1:], shown + after
        if self._line_begins and follows[:1] in patterns.OPENS_BLOCK:
            self._mistrust()
        lead = " " if patterns.grow_together(before, follows) else ""
        trail = " " if shown and patterns.grow_together(shown[-1], after) else ""
        if shown.endswith("]") and after.lstrip().startswith("("):
            trail = ","
        if before == "]" and shown.lstrip().startswith("("):
            lead = ","
        return f"{lead}{shown}{trail}", step[1]

    def _mistrust(self) -> None:
        self._blocks.doubt()
        self._doubtful = True

    def _construct(self, text: str, at: int, final: bool) -> _Step:
        match text[at]:
            case "`":
                return self._code(text, at, final)
            case "[":
                return self._bracket(text, at, final, image=False)
            case "]":
                return patterns.closing(text, at, final=final)
            case "<":
                return self._angle(text, at, final)
            case "\\":
                return self._escape(text, at, final)
            case "/":
                return relative(text, at, before=self._shown[-1:], final=final)
            case "!" | " " | "\t":
                blanks = patterns.BLANKS.match(text, at)
                after = blanks.end() if blanks else at + 1
                if after == len(text):
                    return (text[at:], after - at) if final else None
                if text[after] != "[":
                    return text[at:after], after - at
                step = self._bracket(text, after, final, image=not blanks)
                if step is None:
                    return None
                # A citation that goes takes the space before it along; the `!` of an image goes with its address.
                kept = (step[0] or self._line_begins) if blanks else text[after + step[1] - 1] != ")"
                return (text[at:after] if kept else "") + step[0], after - at + step[1]
            case _:
                return self._bare(text, at, final)

    def _code(self, text: str, at: int, final: bool) -> _Step:
        inside = found.end() if (found := patterns.TICKS.match(text, at)) else at
        ticks, until = inside - at, text.find("\n", at)
        if self._blocks.kind == "perhaps":
            return text[at:inside], ticks
        if inside == len(text) and not final:
            return None
        line_end = until if until >= 0 else len(text)
        close = re.compile(rf"(?<!`)`{{{ticks}}}(?!`)").search(text, inside, line_end)
        if until < 0 and not final and (close is None or close.end() == len(text)):
            return None
        if close is not None:
            span = text[at : close.end()]
            # A bar may end a cell of a table, and the chat on our pages ends code at a longer run too.
            longer = any(len(inner) > ticks for inner in patterns.TICKS.findall(span[ticks:-ticks]))
            if not self._leads_elsewhere(span) or not (self._doubtful or self._glued or longer or "|" in span):
                self._doubtful |= longer
                return self._addresses.defused(span), len(span)
        self._doubtful = True
        return text[at:inside], ticks

    def _leads_elsewhere(self, span: str) -> bool:
        """Whether a span of code would hold a foreign link if a reader did not take it for code."""
        without = URL.sub(lambda found: "" if self._addresses.allow(found[0].rstrip(CLOSING_MARKS)) else found[0], span)
        return patterns.LINKS.search(without) is not None

    def _escape(self, text: str, at: int, final: bool) -> _Step:
        if at + 1 == len(text) and not final:
            return None
        following = text[at + 1 : at + 2]
        if self._blocks.kind == "prose" and following in ("\\", "`"):
            return text[at : at + 2], 2
        if following in ("(", "["):
            # For some readers a formula begins, and ends lines later.
            self._mistrust()
        return "\\", 1

    def _bracket(self, text: str, at: int, final: bool, *, image: bool) -> _Step:
        if self._blocks.kind == "perhaps":
            return "[", 1
        label = patterns.LABEL.match(text, at)
        if label is None or label[2] != "]":
            if label is not None and label.end() == len(text) and label[2] != "\n" and not final:
                return None
            if image:
                # Some read on for its end.
                self._mistrust()
            return "[", 1
        after = label.end()
        if after == len(text) and not final:
            return None
        if text.startswith("(", after):
            target = patterns.TARGET.match(text, after)
            if target is not None and target[2] == ")":
                return self._link(label[1], target[1].strip(), image=image), target.end() - at
            if target is not None and target.end() == len(text) and target[2] != "\n" and not final:
                return None
        if text.startswith(":", after) and self._line_begins:
            if not final and "\n" not in text[after:]:
                return None
            defined = patterns.DEFINED.match(text, after)
            if defined is not None:
                return "", defined.end() - at
        if patterns.cites(label[1], before=text[at - 1] if at else self._taken, count=self._count):
            apart = patterns.closing(text, after - 1, final=final)
            return apart and (self._renumbered(label[1]) + apart[0][1:], after - at)
        return "[", 1

    def _link(self, label: str, target: str, *, image: bool) -> str:
        in_brackets = target.startswith("<")
        address = target[1:].partition(">")[0] if in_brackets else target.partition(" ")[0].partition("\t")[0]
        self._doubtful |= "`" in target
        words = self._within(label)
        if image or not self._addresses.allow(address):
            return words
        # Without its title: in one, the chat on our pages would find links of their own.
        return f"[{words}](<{address}>)" if in_brackets else f"[{words}]({address})"

    def _angle(self, text: str, at: int, final: bool) -> _Step:
        link = patterns.AUTOLINK.match(text, at)
        if not final and ((link and not link[1]) or patterns.HARMLESS_TAG_BEGUN.match(text, at)):
            return None
        if link and link[1]:
            return (link[0] if self._addresses.allow(link[1]) else LINK_REMOVED), link.end() - at
        if tag := patterns.HARMLESS_TAG.match(text, at):
            return tag[0], tag.end() - at
        # No tag is left to a client that obeys HTML; a reader of Markdown shows what was written.
        return ("< " if patterns.TAG_BEGINS.match(text, at) else "<"), 1

    def _bare(self, text: str, at: int, final: bool) -> _Step:
        found = URL.match(text, at)
        if found is None:
            begun = text[at : at + 8].casefold()
            may_be_one = not final and (URL_BEGUN.match(text, at) or any(one.startswith(begun) for one in OPENINGS))
            if may_be_one:
                return None
            # Some take for an address whatever follows, up to a blank.
            opening = next((one for one in OPENINGS if begun.startswith(one)), "")
            odd = opening and text[at + len(opening) : at + len(opening) + 1].strip()
            return (LINK_REMOVED, len(opening)) if odd else (text[at], 1)
        if found.end() == len(text) and not final:
            return None
        address = found[0].rstrip(CLOSING_MARKS)
        if not self._addresses.allow(address):
            return LINK_REMOVED, len(address)
        if "/" not in address.partition("://")[2]:
            beyond = patterns.OTHER_HOST.match(text, at + len(address))
            if beyond and beyond.end() == len(text) and not final:
                return None
            if beyond and re.search(r"[\w@%]\Z", beyond[0]):
                return LINK_REMOVED, len(address)
        self._glued = True
        return address, len(address)

    def _within(self, label: str) -> str:
        """The words of a link, checked in their turn."""
        inner = Citations(self._hits)
        inner.order, inner._is_line_new, inner._line_begins = self.order, False, False
        inner._doubtful = self._doubtful
        words = inner.feed(label) + inner.end()
        self._doubtful |= inner._doubtful
        return words

    def _renumbered(self, cited: str) -> str:
        numbers = []
        for number in map(int, re.findall(r"\d+", cited)):
            if 1 <= number <= self._count:
                if number - 1 not in self.order:
                    self.order.append(number - 1)
                numbers.append(self.order.index(number - 1) + 1)
        return "".join(f"[{number}]" for number in dict.fromkeys(numbers))
