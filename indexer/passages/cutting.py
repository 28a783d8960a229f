"""Blocks that are too long -> pieces, each cut where its kind allows. Pure; knows no sections or passages."""

import re
from collections.abc import Iterator, Sequence

from indexer.documents import Block

CODE_LIMIT_CHARS = 6_000
"""Code is kept whole up to here: half a listing answers nothing."""
SENTENCE_END = re.compile(r"(?<=[.!?…])[\"'”’»)\]]*\s+(?=[\"'“‘«(\[¿¡]*[^\W_a-z])|(?<=[。！？｡])[」』”’）]*|\n+")
ABBREVIATED = re.compile(
    r"(?:\b(?:e\.g|i\.e|z\.\s?B|d\.\s?h|bzw|etc|vs|ca|Nr|No|Dr|Mr|Mrs|Ms|Prof|St|Fig|p)|\b[^\W\d_])\.\s*$"
)
ITEM = re.compile(r"\n(?=\S)")
"""Where a list's next item of the outermost level begins."""
CLAUSE_END = re.compile(r"(?<=[,;:，；：、])\s*")


def cut(block: Block, *, piece_chars: int, limit_chars: int) -> list[Block]:
    """The block itself where it fits, else pieces of about `piece_chars`, none above `limit_chars`.

    Code is whole up to CODE_LIMIT_CHARS. Every word of the block is in exactly one piece, but for a table's header and
    a row's first line, which every piece repeats.
    """
    if block.kind == "code":
        fits = len(block.text) <= max(CODE_LIMIT_CHARS, limit_chars)
        return [block] if fits else [Block("code", text) for text in _code(block.text)]
    if len(block.text) <= limit_chars:
        return [block]
    if block.kind == "table":
        texts = _table(block.text, piece_chars, limit_chars)
    elif block.kind == "row":
        texts = _row(block.text, limit_chars)
    elif block.kind == "list":
        items = [piece for item in ITEM.split(block.text) for piece in _item(item.strip("\n"), limit_chars)]
        texts = _filled(items, piece_chars, limit_chars, "\n")
    else:
        texts = _prose(block.text, piece_chars, limit_chars)
    return [Block(block.kind, text) for text in texts]


def sentences(text: str) -> list[str]:
    """`text` in sentences, by punctuation and what follows it; joined they are the text but for white space."""
    found: list[str] = []
    start = 0
    for match in SENTENCE_END.finditer(text):
        if match.start() == match.end() == start:
            continue
        if ABBREVIATED.search(text[max(start, match.start() - 12) : match.start()]) and "\n" not in match[0]:
            continue
        found.append(text[start : match.end()].strip())
        start = match.end()
    found.append(text[start:].strip())
    return [sentence for sentence in found if sentence]


def _prose(text: str, piece_chars: int, limit_chars: int) -> list[str]:
    if len(text) <= limit_chars:
        return [text]
    short = [piece for sentence in sentences(text) for piece in _shortened(sentence, limit_chars)]
    return _filled(short, piece_chars, limit_chars, " ")


def _shortened(sentence: str, limit_chars: int) -> Iterator[str]:
    """A sentence beyond the limit cut between clauses, else words, else wherever the limit falls."""
    while len(sentence) > limit_chars:
        ends = [match.end() for match in CLAUSE_END.finditer(sentence, limit_chars // 2, limit_chars)]
        at = ends[-1] if ends else sentence.rfind(" ", limit_chars // 2, limit_chars) + 1 or limit_chars
        yield sentence[:at].strip()
        sentence = sentence[at:].strip()
    if sentence:
        yield sentence


def _filled(pieces: Sequence[str], piece_chars: int, limit_chars: int, separator: str) -> list[str]:
    """Pieces joined in order to texts of about `piece_chars`; a short last one joins its predecessor if it can."""
    texts: list[str] = []
    for piece in pieces:
        if texts and len(texts[-1]) < piece_chars and len(texts[-1]) + len(piece) + 1 <= limit_chars:
            glue = "" if separator == " " and texts[-1][-1] in "。！？｡」』）" else separator
            texts[-1] += glue + piece
        else:
            texts.append(piece)
    if len(texts) > 1 and len(texts[-1]) < piece_chars // 4 and len(texts[-2]) + len(texts[-1]) + 1 <= limit_chars:
        texts[-2:] = [texts[-2] + separator + texts[-1]]
    return texts


def _item(text: str, limit_chars: int) -> list[str]:
    return [text] if len(text) <= limit_chars else _lines(text, limit_chars, limit_chars)


def _lines(text: str, piece_chars: int, limit_chars: int) -> list[str]:
    """Text cut between its lines, and within them only where one is too long by itself."""
    short = [piece for line in text.split("\n") for piece in _prose(line, limit_chars, limit_chars)]
    return _filled(short, piece_chars, limit_chars, "\n")


def _table(text: str, piece_chars: int, limit_chars: int) -> list[str]:
    header, rule, *rows = text.split("\n")
    top = f"{header}\n{rule}\n"
    if len(top) > limit_chars // 2:  # a header as long as its table is no header to repeat
        return _lines(text, piece_chars, limit_chars)
    room = limit_chars - len(top)
    short = [piece for row in rows for piece in _prose(row, room, room)]
    return [top + body for body in _filled(short, max(1, piece_chars - len(top)), room, "\n")]


def _row(text: str, limit_chars: int) -> list[str]:
    """A long row in pieces that all begin with its first field, which names it."""
    first, *fields = text.split("\n")
    if len(first) > limit_chars // 4 or not fields:
        return _lines(text, limit_chars, limit_chars)
    room = limit_chars - len(first) - 1
    short = [piece for field in fields for piece in _prose(field, room, room)]
    return [f"{first}\n{body}" for body in _filled(short, room, room, "\n")]


def _code(text: str) -> list[str]:
    """Code cut between lines, every piece fenced like the whole."""
    opening, *lines, closing = text.split("\n")
    room = CODE_LIMIT_CHARS - len(opening) - len(closing) - 2
    short = [line[at : at + room] for line in lines for at in range(0, len(line) or 1, room)]
    bodies = _filled(short, room, room, "\n")
    return [f"{opening}\n{body}\n{closing}" for body in bodies if body.strip()]
