"""robots.txt: which addresses of a site may be fetched, and how slowly. Pure; fetches nothing."""

from protego import Protego

LIMIT_CHARS = 500 * 1024


class Robots:
    """The rules of RFC 9309 for one agent."""

    def __init__(self, text: str = "", *, agent: str) -> None:
        self._rules = Protego.parse(text[:LIMIT_CHARS].removeprefix("\ufeff"))
        self._agent = agent
        self.delay_s = self._rules.crawl_delay(agent) or 0.0

    def allows(self, url: str) -> bool:
        return self._rules.can_fetch(url, self._agent)
