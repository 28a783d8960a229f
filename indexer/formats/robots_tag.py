"""What a page says to robots: "noindex", "nofollow" (`<meta name="robots">`, `X-Robots-Tag`). Pure."""


def is_noindex(tag: str) -> bool:
    """Whether a robots tag (`<meta name="robots">`, `X-Robots-Tag`) keeps its page out of searches."""
    return not {"noindex", "none"}.isdisjoint(_directives(tag))


def is_nofollow(tag: str) -> bool:
    """Whether a robots tag says not to follow its page's links."""
    return not {"nofollow", "none"}.isdisjoint(_directives(tag))


def _directives(tag: str) -> set[str]:
    # With a colon it has a value (`max-image-preview:none`), or is a word to somebody else (`googlebot: noindex`).
    return {word for part in tag.lower().split(",") if ":" not in part for word in part.split()}
