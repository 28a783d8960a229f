"""robots.txt: which addresses of a site may be fetched, and how slowly. Pure; fetches nothing.

After RFC 9309: the group that names us, else the one for all; the longest rule that matches decides, and of two
equally long ones the one that allows; `*` stands for anything, a `$` at the end for the end.
"""

import re
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import unquote, urlsplit

LIMIT_CHARS = 500 * 1024


@dataclass(slots=True)
class Robots:
    """The rules for one agent."""

    rules: list[tuple[str, bool]] = field(default_factory=list)
    """Paths with wildcards, and whether they are allowed."""
    delay_s: float = 0.0

    @classmethod
    def parse(cls, text: str, *, agent: str) -> Self:
        """The rules for `agent` in a robots.txt; lines that are none are passed over."""
        groups: dict[str, Self] = {}
        named: list[str] = []
        in_rules = True
        for line in text[:LIMIT_CHARS].lstrip("\ufeff").splitlines():
            key, colon, value = line.partition("#")[0].partition(":")
            key, value = key.strip().lower(), value.strip()
            if not colon:
                continue
            if key == "user-agent":
                if in_rules:
                    named = []
                in_rules = False
                named.append(value.lower())
                groups.setdefault(value.lower(), cls())
                continue
            in_rules = True
            for name in named:
                groups[name]._add(key, value)
        ours = [name for name in groups if name != "*" and name and agent.lower().startswith(name)]
        return groups[max(ours, key=len)] if ours else groups.get("*", cls())

    def _add(self, key: str, value: str) -> None:
        if key in {"allow", "disallow"} and value:
            self.rules.append((value, key == "allow"))
        elif key == "crawl-delay" and re.fullmatch(r"\d{1,4}(\.\d{1,3})?", value):
            self.delay_s = float(value)

    def allows(self, url: str) -> bool:
        """Whether the address may be fetched; robots.txt itself always may."""
        parts = urlsplit(url)
        path = unquote(parts.path or "/") + (f"?{unquote(parts.query)}" if parts.query else "")
        matching = [(len(rule), is_allowed) for rule, is_allowed in self.rules if _matches(unquote(rule), path)]
        return path == "/robots.txt" or max(matching, default=(0, True))[1]


def _matches(rule: str, path: str) -> bool:
    """Without a regular expression, which a rule of many stars could keep busy for ever."""
    to_the_end = rule.endswith("$")
    first, *others = rule.removesuffix("$").split("*")
    if not path.startswith(first):
        return False
    at = len(first)
    if not others:
        return not to_the_end or at == len(path)
    for piece in others[:-1]:
        found = path.find(piece, at)
        if found < 0:
            return False
        at = found + len(piece)
    last = others[-1]
    if to_the_end:
        return path.endswith(last) and len(path) - len(last) >= at
    return path.find(last, at) >= 0
