"""Where a file is found on the site: by what it says of itself, else by its path. Pure; opens nothing."""

import os
import re
from pathlib import PurePosixPath
from urllib.parse import quote, urlsplit

FOLDER_PAGES = {"index", "_index", "readme"}
"""Pages that a site serves at their folder's address; the second is Hugo's."""
PAGE_EXTENSIONS = {".md", ".mdx"}
"""Pages that a site serves at an address of their own, without the extension."""
HTML_EXTENSIONS = {".html", ".htm"}
PLACEHOLDER = re.compile(r"(?:^|/):\w|[\s<>\"'\\{}|^`\x00-\x1f]")
KEPT = "/%~-._"


def page_url(source: str, *, site_url: str, stated: str) -> str:
    """The address of the page made from `source`, without a fragment.

    `stated` is what the document claims: an absolute http(s) address is taken, a path is joined to `site_url` (one
    that starts with `./` to the file's folder), anything else is ignored. Without a `site_url` a path leads nowhere,
    and the source itself stands for the address.
    """
    stated = stated.split("#", 1)[0].strip()
    if is_absolute(stated):
        return _quoted(stated, KEPT + ":/?#[]@!$&()*+,;=")
    site = site_url.split("#", 1)[0].rstrip("/")
    if not site:
        return source
    if stated and _is_path(stated):
        folder = PurePosixPath(source).parent.as_posix() if stated.startswith("./") else ""
        parts = [part for part in (*folder.split("/"), *stated.split("/")) if part not in {"", "."}]
        slash = "/" if stated.endswith("/") and parts else ""
        return f"{site}/{'/'.join(_quoted(part, KEPT + '?=&') for part in parts)}{slash}"
    return f"{site}/{_path_of(source)}"


def is_absolute(stated: str) -> bool:
    """Whether it is an address of the web that may stand in a link."""
    try:
        parts = urlsplit(stated)
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and bool(parts.hostname) and "@" not in parts.netloc and _is_clean(stated)


def _is_path(stated: str) -> bool:
    has_scheme = re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", stated)
    return not has_scheme and not stated.startswith("//") and ".." not in stated.split("/") and _is_clean(stated)


def _is_clean(stated: str) -> bool:
    """Whether it is an address, and not a template (`/:categories/:title/`) or an attempt to break out of a link."""
    return not PLACEHOLDER.search(stated.split("://", 1)[-1])


def _path_of(source: str) -> str:
    path = PurePosixPath(source)
    extension = path.suffix.lower()
    folder = "".join(f"{_quoted(part)}/" for part in path.parent.parts)
    if extension in PAGE_EXTENSIONS | HTML_EXTENSIONS and path.stem.lower() in FOLDER_PAGES:
        return folder
    if extension in PAGE_EXTENSIONS:
        return f"{folder}{_quoted(path.stem)}/"
    return f"{folder}{_quoted(path.name)}"


def _quoted(text: str, safe: str = "") -> str:
    try:
        # By its bytes, as a web server finds it: a file's name need not be UTF-8.
        return quote(os.fsencode(text), safe=safe)
    except UnicodeEncodeError:  # half a character, which YAML can state
        return quote(re.sub("[\ud800-\udfff]", "\ufffd", text), safe=safe)
