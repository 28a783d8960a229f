"""A time-out for each wait of a stream, with one timer for all of them.

`asyncio.timeout` would set a timer up and take it down for every token of every stream. Knows nothing of what is
waited for.
"""

import asyncio
from collections.abc import Awaitable
from types import TracebackType
from typing import Any, Self, TypeVar

T = TypeVar("T")


class StreamTimeout:
    """`with StreamTimeout(10) as timeout:` lets each `await timeout.wait(...)` within take up to ten seconds.

    For one task, which may do anything else between two waits, for as long as it likes.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[Any] | None = None
        """The one that waits at the moment."""
        self._waits_since_s = 0.0
        self._is_over = False

    def __enter__(self) -> Self:
        self._timer = self._loop.call_later(self._seconds, self._look)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._timer.cancel()

    async def wait(self, awaited: Awaitable[T]) -> T:
        """The result of `awaited`. Cancels it and raises TimeoutError when it takes too long."""
        self._waits_since_s, self._task = self._loop.time(), asyncio.current_task()
        try:
            return await awaited
        except asyncio.CancelledError:
            # Whoever else wants this task to end must not be taken for the timer.
            if self._is_over and self._task is not None and self._task.uncancel() == 0:
                raise TimeoutError from None
            raise
        finally:
            self._task = None

    def _look(self) -> None:
        waits_since_s = self._loop.time() if self._task is None else self._waits_since_s
        ends_at_s = waits_since_s + self._seconds
        if self._task is not None and self._loop.time() >= ends_at_s:
            self._is_over = True
            self._task.cancel()
        else:
            self._timer = self._loop.call_at(ends_at_s, self._look)
