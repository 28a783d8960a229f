"""Where the links of a Markdown page stand and lead. The text of a page keeps their words alone."""

import re
from collections.abc import Container, Iterable, Iterator

from indexer.documents import PageLink
from indexer.formats.markdown.inline import CODE, LINK, text_of
from indexer.formats.markdown.lines import FENCE

BEFORE_CHARS = 24
AFTER_CHARS = 16
_TARGET = re.compile(r"\]\(\s*(?:<([^<>\n]*)>|([^\s()]*))")
_BEGIN, _END = "\ue000", "\ue001"
_MARKED = re.compile(f"{_BEGIN}([^{_BEGIN}{_END}]+){_END}")
_LINE_MARK = re.compile(r"\A(?:\s*(?:[-*+>]|\d+[.)])\s+)+")


def links(lines: Iterable[str], references: Container[str]) -> Iterator[PageLink]:
    """The links of the lines in reading order, outside of code; images and references are left out."""
    fence = ""
    for line in lines:
        match = FENCE.match(line)
        if match and (not fence or (match[2].startswith(fence) and not match[3].strip())):
            fence = "" if fence else match[2]
        if not fence and not match and "](" in line and _BEGIN not in line and _END not in line:
            yield from _of_line(line, references)


def _of_line(line: str, references: Container[str]) -> Iterator[PageLink]:
    # Code is hidden from the pattern behind as many letters, and read again from the line itself.
    hidden = CODE.sub(lambda code: "x" * len(code[0]), line)
    marked, targets, at = "", [], 0
    for found in LINK.finditer(hidden):
        label = line[found.start(1) : found.end(1)]
        target = _TARGET.match(hidden, found.end(1))
        if found[0].startswith("!") or target is None or not label.strip() or "[" in label:
            continue
        marked += f"{line[at : found.start()]}{_BEGIN}{label}{_END}"
        targets.append(line[slice(*target.span(1 if target[1] is not None else 2))])
        at = found.end()
    shown = text_of(_LINE_MARK.sub("", marked + line[at:]), references)
    places = list(_MARKED.finditer(shown))
    if len(places) != len(targets):
        return
    for place, target_of in zip(places, targets, strict=True):
        before, after = (_plain(part) for part in (shown[: place.start()], shown[place.end() :]))
        yield PageLink(
            before.rpartition("|")[2].lstrip()[-BEFORE_CHARS:], place[1],
            after.partition("|")[0].rstrip()[:AFTER_CHARS], target_of,
        )  # fmt: skip


def _plain(shown: str) -> str:
    return shown.replace(_BEGIN, "").replace(_END, "")
