"""Markdown inside a paragraph, heading or cell -> the text a reader sees. Knows nothing of blocks."""

import html
import re
from collections.abc import Container

TAGS = (
    r"a|abbr|acronym|address|area|article|aside|audio|b|base|bdi|bdo|big|blockquote|body|br|"
    r"button|canvas|caption|center|cite|code|col|colgroup|data|datalist|dd|del|details|dfn|dialog|"
    r"dir|div|dl|dt|em|embed|fieldset|figcaption|figure|font|footer|form|frame|frameset|h1|h2|h3|"
    r"h4|h5|h6|head|header|hr|html|i|iframe|img|input|ins|kbd|label|legend|li|link|main|map|"
    r"mark|marquee|menu|meta|meter|nav|noscript|object|ol|optgroup|option|output|p|param|picture|"
    r"pre|progress|q|rp|rt|ruby|s|samp|script|section|select|slot|small|source|span|strike|strong|"
    r"style|sub|summary|sup|svg|table|tbody|td|template|textarea|tfoot|th|thead|time|title|tr|"
    r"track|tt|u|ul|var|video|wbr"
)
"""Only these are HTML in Markdown: `List<T>` and `<your-name>` are what the author meant to show."""

CODE = re.compile(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", re.S)
ESCAPE = re.compile(r"\\([!-/:-@\[-`{-~])")
COMMENT = re.compile(r"<!--.*?-->", re.S)
TEMPLATE = re.compile(r"\{[%{*!].*?[%}*!]\}", re.S)
AUTOLINK = re.compile(r"<((?:https?|ftp)://[^\s<>]+|mailto:[^\s<>]+|[\w.+-]+@[\w-]+(?:\.[\w-]+)+)>")
TEXT = r"((?>[^\[\]]|\[[^\[\]]*\])*)"
LINK = re.compile(
    r"!?\[" + TEXT + r"\]\(\s*(?:<[^<>\n]*>|(?>[^\s()]|\([^\s()]*\))*)"
    r"(?:\s+(?:\"[^\"]*\"|'[^']*'|\([^()]*\)))?\s*\)(?:\{[:.# ][^{}]*\})?"
)
REFERENCE = re.compile(r"!?\[" + TEXT + r"\] ?\[([^\[\]]*)\]")
SHORTCUT = re.compile(r"!?\[([^\[\]^][^\[\]]*)\](?![(:\[])")
FOOTNOTE = re.compile(r"\[\^[^\[\]\s]+\](?!:)")
IMAGE_TAG = re.compile(r"<img\b[^<>]*?\balt\s*=\s*(?:\"([^\"]*)\"|'([^']*)')[^<>]*>", re.I)
BREAK_TAG = re.compile(r"<(?:br|hr)\s*/?>", re.I)
TAG = re.compile(rf"</?(?:{TAGS})(?=[\s/>])(?>\"[^\"]*\"|'[^']*'|[^<>\"'])*>", re.I)
PARTING_TAG = re.compile(r"</?(?:td|th|tr|li|p|div|dt|dd|table|ul|ol|dl|summary|details|h[1-6])\b", re.I)
"""Tags between which words never touch."""
STRONG = re.compile(r"(\*\*|~~)(?=[^\s*~])(.+?)(?<=\S)\1", re.S)
STRONG_UNDERSCORE = re.compile(r"(?<!\w)__(?=\S)(.+?)(?<=\S)__(?!\w)", re.S)
EMPHASIS = re.compile(r"(?<![A-Za-z0-9_*])\*(?=[^\s*])(.+?)(?<=[^\s*])\*(?![A-Za-z0-9_*])", re.S)
EMPHASIS_UNDERSCORE = re.compile(r"(?<!\w)_(?=[^\s_])(.+?)(?<=[^\s_])_(?!\w)", re.S)
HARD_BREAK = re.compile(r"(?: {2,}|\\)\n")
WIDE = "\u3000-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uff00-\uffef"
SOFT_WIDE = re.compile(rf"(?<=[{WIDE}])\n[ \t]*(?=[{WIDE}])")
HELD = re.compile("\x02(\\d+)\x03")


def text_of(source: str, references: Container[str] = frozenset()) -> str:
    """The text of inline Markdown: links as their text, images as their alt text, tags and emphasis gone.

    Code spans stay in their backticks, untouched. A hard line break stays a line break, a soft one becomes a space
    (nothing between Chinese or Japanese characters). `references` holds the lower-case labels that have a definition.
    """
    if "\n" not in source and not MARKED.search(source):
        return " ".join(source.split())
    held: list[str] = []

    def hold(value: str) -> str:
        held.append(value)
        return f"\x02{len(held) - 1}\x03"

    text = CODE.sub(lambda match: hold(match[1] + " ".join(match[2].split()) + match[1]), source)
    text = HARD_BREAK.sub(lambda _: hold("\n"), text)
    text = ESCAPE.sub(lambda match: hold(match[1]), text)
    text = TEMPLATE.sub("", COMMENT.sub("", text))
    text = AUTOLINK.sub(lambda match: hold(match[1].removeprefix("mailto:")), text)
    text = IMAGE_TAG.sub(lambda match: match[1] or match[2] or "", text)
    text = TAG.sub(lambda match: " " if PARTING_TAG.match(match[0]) else "", BREAK_TAG.sub(lambda _: hold("\n"), text))
    if "[" in text:
        text = _unlinked(text, references)
    text = STRONG_UNDERSCORE.sub(r"\1", STRONG.sub(r"\2", STRONG.sub(r"\2", text)))
    text = EMPHASIS_UNDERSCORE.sub(r"\1", EMPHASIS.sub(r"\1", text))
    text = html.unescape(SOFT_WIDE.sub("", text))
    text = " ".join(text.split())
    for _ in range(2):  # a code span inside a link's text is held once, and only once
        text = HELD.sub(lambda match: held[int(match[1])], text)
    return "\n".join(line.strip() for line in text.split("\n") if line.strip())


MARKED = re.compile(r"[`\\<>\[\]*_~&{!\x02]")


def plain(source: str, references: Container[str] = frozenset()) -> str:
    """`text_of` for a heading or title: one line, and without backticks."""
    return " ".join(text_of(source, references).replace("`", "").split())


def _unlinked(text: str, references: Container[str]) -> str:
    def defined(match: re.Match[str]) -> str:
        label = (match[2] if match.lastindex == 2 and match[2] else match[1]).strip().lower()
        return match[1] if label in references else match[0]

    for _ in range(4):  # an image inside a link inside brackets: innermost first
        plainer = LINK.sub(r"\1", text)
        if plainer == text:
            break
        text = plainer
    text = REFERENCE.sub(defined, text)
    text = SHORTCUT.sub(defined, text)
    return FOOTNOTE.sub("", text)
