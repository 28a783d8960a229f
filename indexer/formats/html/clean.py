"""Takes out of an HTML tree what is not the page's own words. Knows no encoding, head or outline.

What opens with a click is content: panels of accordions and tabs are hidden until somebody asks, and hold the answers.
"""

import re
from html import escape

from selectolax.lexbor import LexborHTMLParser, LexborNode

NOISE = (
    "nav, aside, script, style, noscript, template, svg, iframe, dialog, select, object, canvas, "
    "[role=navigation], [role=banner], [role=contentinfo], [role=search], [role=complementary], [role=dialog], "
    "[role=alertdialog], a.headerlink, a.skip-link, a.hash-link, a.heading-anchor, "
    # What carousels repeat to go round.
    ".slick-cloned, .swiper-slide-duplicate"
)
NOTE = re.compile(r"\b(?:admonition|alert|callout|hint|info|note|tip|warning|starlight-aside)\b", re.I)
AROUND = re.compile(r"breadcrumb|skip-?(?:link|nav|to)|share-?(?:bar|buttons)|edit-this-page", re.I)
CONSENT = re.compile(r"cookie|consent|gdpr", re.I)
BANNER = re.compile(
    r"(?:cookies?|consent|gdpr)[-_ ]?(?:consent|banner|notice|popup|pop-up|modal|dialog|overlay|wall|law|bot|yes)"
    r"|(?:banner|notice|popup|modal|overlay)[-_](?:cookies?|consent|gdpr)|cc-(?:window|banner)|onetrust|usercentrics"
    r"|cmplz|didomi",
    re.I,
)
BANNER_LIMIT_CHARS = 3000
"""A container longer than this that is called a cookie notice is the cookie policy itself."""
ANSWER = re.compile(
    r"(?:(?:i|alles?|tout|todo|todas) )?(?:accept|agree|allow|reject|decline|deny|refuse|ok|okay|got it|understood"
    r"|akzeptieren|zustimmen|ablehnen|einverstanden|verstanden|accepter|refuser|aceptar|rechazar|accett[ao]|rifiuta"
    r"|accepteren|weigeren)\b",
    re.I,
)
"""What a visitor may say to a banner, on a button or link."""
INVISIBLE = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.I)
HIDDEN_NOISE = re.compile(r"menu|drawer|off-?canvas|search|toast|spinner|load(?:er|ing)\b", re.I)
ORNAMENTS = {"a", "b", "code", "em", "i", "img", "small", "span", "strong", "sub", "sup"}
OPENS = re.compile(r"accordion|collaps|faq|question|toggle", re.I)
HEADINGS = "h1, h2, h3, h4, h5, h6"
LABELS = {"h1", "h2", "h3", "h4", "h5", "h6", "summary", "dt"}
OF_A_PART = {"article", "section", "blockquote", "figure", "li", "td", "dd", "details"}
FORM_NOISE = re.compile(r"comment|newsletter|subscri|sign-?up|search|log-?in", re.I)
SENTENCE_CHARS = 40
"""A paragraph of a form that is longer says something; a shorter one labels a field."""


def clean(root: LexborNode) -> None:
    """Leave below `root` what the page itself says."""
    _drop_banners(root)
    for node in root.css(NOISE):
        if node.mem_id != root.mem_id and not (node.tag == "aside" and NOTE.search(_names(node))):
            node.decompose()
    for node in root.css("[hidden], [aria-hidden=true], [style]"):
        if node.mem_id == root.mem_id or not _is_hidden(node):
            continue
        # Icons, numbers, and formulas that are written twice. A block that is hidden alike may be a panel.
        is_ornament = node.tag in ORNAMENTS and node.attributes.get("aria-hidden") == "true"
        if is_ornament or HIDDEN_NOISE.search(_names(node)):
            node.decompose()
    _open_tabs(root)
    # All are judged before any is gone: the text around a button tells whether it opens something.
    for button, opens in [(button, _opens(button, root)) for button in root.css("button")]:
        if not opens:
            button.decompose()
    _drop_edges(root)


def _drop_banners(root: LexborNode) -> None:
    named = "div[id], div[class], section[id], section[class], ul[class], ol[class], a[class], p[class], aside[class]"
    for node in root.css(named):
        names = _names(node)
        if node.mem_id == root.mem_id or not (AROUND.search(names) or CONSENT.search(names) or BANNER.search(names)):
            continue
        # A bakery has cookies and a clinic consent forms: a name alone must say more than that.
        is_banner = AROUND.search(names) or BANNER.search(names) or _asks_for_consent(node)
        if is_banner and len(node.text()) < BANNER_LIMIT_CHARS:
            node.decompose()


def _asks_for_consent(node: LexborNode) -> bool:
    return any(ANSWER.match(" ".join(answer.text().split())) for answer in node.css("button, a, [role=button]"))


def _is_hidden(node: LexborNode) -> bool:
    attributes = node.attributes
    style = attributes.get("style") or ""
    return "hidden" in attributes or attributes.get("aria-hidden") == "true" or INVISIBLE.search(style) is not None


def _open_tabs(root: LexborNode) -> None:
    """Put each tab's label on top of its panel: which system a command is for stands nowhere else."""
    opened = []
    for tab in root.css("[role=tab]"):
        panel = _target(tab, root)
        label = " ".join(tab.text().split())
        if panel is None or not label:
            continue
        heading = LexborHTMLParser(f"<p>{escape(label)}</p>").css_first("p")
        if heading is not None:
            if panel.first_child is None:
                panel.insert_child(heading)
            else:
                panel.first_child.insert_before(heading)
            opened.append(tab)
    for tab in opened:
        tab.decompose()


def _opens(button: LexborNode, root: LexborNode) -> bool:
    """Whether a button is the label of a panel, such as a question whose answer opens below it."""
    attributes = button.attributes
    parent = button.parent
    while parent is not None and parent.mem_id != root.mem_id and parent.tag not in LABELS:
        parent = parent.parent
    if parent is not None and parent.tag in LABELS and parent.text().split() == button.text().split():
        return True
    if "aria-haspopup" in attributes:
        return False
    if _target_id(button):
        return _target(button, root) is not None
    opens = "aria-expanded" in attributes or attributes.get("role") == "tab" or OPENS.search(_names(button))
    following = button.next
    while following is not None and not (following.is_element_node and following.text().strip()):
        following = following.next
    return bool(opens) and following is not None


def _target_id(node: LexborNode) -> str:
    attributes = node.attributes
    names = ("aria-controls", "data-bs-target", "data-target", "href")
    stated = next((attributes[name] or "" for name in names if attributes.get(name)), "")
    return stated.split()[0].removeprefix("#") if stated.strip() else ""


def _target(node: LexborNode, root: LexborNode) -> LexborNode | None:
    """The element that a control opens, where it is below `root` and says something."""
    name = _target_id(node)
    if not re.fullmatch(r"[\w:.-]+", name):
        return None
    found = root.css_first(f'[id="{name}"]')
    return found if found is not None and found.text().strip() else None


def _drop_edges(root: LexborNode) -> None:
    """Take out headers, footers and forms, but those that say something of the page's own."""
    is_titled = root.css_first("h1") is not None
    is_main = root.tag != "body"
    for header in root.css("header"):
        # A page's header holds its H1 more often than not, an article's its heading and first words.
        holds = "h1, main, article"
        if is_main or not is_titled or _of_a_part(header, root):
            holds += f", {HEADINGS}"
        if header.mem_id != root.mem_id and header.css_first(holds) is None:
            header.decompose()
    for footer in root.css("footer"):
        if footer.mem_id != root.mem_id and not _of_a_part(footer, root):
            footer.decompose()
    for form in root.css("form"):
        # Whole pages stand in one form.
        if form.mem_id != root.mem_id and form.css_first("h1, main, article") is None:
            if FORM_NOISE.search(_names(form)) or not _says_something(form):
                form.decompose()
                continue
            for control in form.css("label, textarea, option, datalist"):
                control.decompose()


def _of_a_part(node: LexborNode, root: LexborNode) -> bool:
    """Whether the node stands in an article, a quotation or the like within `root`, and not at the page's own edge."""
    parent = node.parent
    while parent is not None and parent.mem_id != root.mem_id:
        if parent.tag in OF_A_PART:
            return True
        parent = parent.parent
    return False


def _says_something(form: LexborNode) -> bool:
    return any(len(" ".join(part.text().split())) >= SENTENCE_CHARS for part in form.css("p, li, td, dd"))


def _names(node: LexborNode) -> str:
    return f"{node.attributes.get('id') or ''} {node.attributes.get('class') or ''}"
