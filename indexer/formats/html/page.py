"""HTML -> draft: the page's own words, without its navigation, banners and scripts. Knows no file or address rule."""

import re
from dataclasses import replace

from selectolax.lexbor import LexborHTMLParser, LexborNode

from indexer.documents import Draft
from indexer.formats import front_matter
from indexer.formats.decoding import decoded
from indexer.formats.html.clean import clean
from indexer.formats.html.walk import Walk, text_within
from indexer.formats.robots_tag import is_noindex

CHARSET = re.compile(rb"(?:<meta\b[^>]*?charset\s*=|<\?xml\b[^>]*?encoding\s*=)\s*[\"']?\s*([\w:.-]+)", re.I)
CHARSET_WITHIN_BYTES = 2048
SEPARATORS = re.compile(r"\s+(?:\||-|–|—|·|•|::|»|›)\s+")


def read(data: bytes) -> Draft:
    """The draft of an HTML file; SourceUnreadable where it is not text in the encoding it states, or in UTF-8."""
    declared = CHARSET.search(data[:CHARSET_WITHIN_BYTES])
    parts = front_matter.split(decoded(data, declared=declared[1].decode("ascii", "ignore") if declared else ""))
    draft = read_text(parts.body)
    # A template of a site generator: what stands on top of it is not shown, and says more than the page below.
    address = draft.address or ("" if parts.slug else parts.address)
    return replace(draft, title=parts.title or draft.title, address=address, withheld=parts.withheld or draft.withheld)


def read_text(source: str) -> Draft:
    """The draft of a page or fragment that is decoded already."""
    tree = LexborHTMLParser(source)
    head_title = text_within(tree.css_first("head title"))
    address = (
        _stated(tree, "link[rel~=canonical i]", "href")
        or _stated(tree, "meta[name=url i]", "content")
        or _stated(tree, "meta[property='og:url' i]", "content")
    )
    language = _stated(tree, "html", "lang") or _stated(tree, "meta[http-equiv=content-language i]", "content")
    site_name = _stated(tree, "meta[property='og:site_name' i]", "content")
    outline = Walk().outline(_main(tree))
    return Draft(
        sections=outline.sections(),
        title=_own_title(head_title, outline.top_heading, site_name),
        top_heading=outline.top_heading,
        # A path in an HTML page is relative to where it is served from, which is not known here.
        address=address if re.match(r"https?://", address, re.I) else "",
        language=language,
        withheld="the page asks not to be indexed (noindex)" if _is_noindex(tree) else "",
    )


def _is_noindex(tree: LexborHTMLParser) -> bool:
    return any(is_noindex(node.attributes.get("content") or "") for node in tree.css("meta[name=robots i]"))


def _stated(tree: LexborHTMLParser, selector: str, attribute: str) -> str:
    node = tree.css_first(selector)
    return " ".join((node.attributes.get(attribute) or "").split()) if node else ""


def _own_title(stated: str, top_heading: str, site_name: str) -> str:
    """`stated` without the site's name, where the page's own heading or `og:site_name` says which part that is."""
    parts = SEPARATORS.split(stated)
    folded = [part.casefold() for part in parts]
    if len(parts) > 1 and top_heading and top_heading.casefold() in (folded[0], folded[-1]):
        return top_heading
    if len(parts) > 1 and site_name and site_name.casefold() in (folded[0], folded[-1]):
        shared_last = folded[-1] == site_name.casefold()
        rest = stated.removesuffix(parts[-1]) if shared_last else stated.removeprefix(parts[0])
        return rest.strip(" \t|-–—·•:»›")
    return stated


def _main(tree: LexborHTMLParser) -> LexborNode | None:
    """The element that holds the page's own words, with everything else taken out of it."""
    body = tree.body
    if body is None:
        return None
    for selector in ("main", "article", "[role=main]"):
        found = tree.css(selector)
        # Several articles are a list of teasers: only the whole body has them all.
        if len(found) == 1 and len(found[0].text().strip()) > 0:
            clean(found[0])
            if found[0].text().strip():
                return found[0]
    clean(body)
    return body
