"""How Redis is reached: short time-outs, nothing sent twice in silence, and a name that shows no password.

It must not know what is stored there.
"""

from typing import Any

import redis

from rag.errors import StateUnavailable
from rag.setting_parsers import shown_address

CONNECT_TIMEOUT_S = 0.25
"""To open a connection. A Redis beside the server takes a millisecond; who waits longer waits for one that is gone."""

FAILURES = (redis.RedisError, OSError, TimeoutError)
"""Everything that a call to Redis may raise."""

SILENCE = (redis.ConnectionError, redis.TimeoutError, OSError, TimeoutError)
"""Those of them that a visitor had to wait for; the others are answers, and come at once."""


def connection_options(answer_timeout_s: float) -> dict[str, Any]:
    """Options for a connection; what stands in the URL's query wins over them.

    No retries: an append whose answer got lost may have been done, and twice is worse than not at all.
    """
    return {
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        "socket_timeout": answer_timeout_s,
        "protocol": 2,  # saves a round trip of each new connection; nothing here needs RESP3
    }


def unavailable(url: str, error: BaseException) -> StateUnavailable:
    """The house's error for one of `FAILURES`."""
    return StateUnavailable(
        f"{shown_address(url)}: {type(error).__name__}: {error}; check REDIS_URL and that Redis runs"
    )


def probe(url: str) -> str:
    """The version of the Redis that answers there. Blocks for half a second at most. Raises StateUnavailable."""
    try:
        with redis.Redis.from_url(url, **connection_options(CONNECT_TIMEOUT_S)) as client:
            return str(client.info("server")["redis_version"])
    except FAILURES as error:
        raise unavailable(url, error) from error
