"""Bounded admission in front of an engine: so many run, so many wait in order, the next is refused at once.

An engine's own queue is unbounded and counts work that nobody waits for any more; this one does neither.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from penstock.errors import Overloaded

HELD_S_AT_FIRST: Final = 1.0
RETRY_AFTER_S_MIN: Final = 0.1
RETRY_AFTER_S_MAX: Final = 60.0
_HELD_S_WEIGHT: Final = 0.1
"""Weight of the newest request in the moving average of how long a slot is held."""


class Admission:
    """At most `running_max` requests in the engine and `waiting_max` in the queue, first in, first out."""

    def __init__(self, *, running_max: int, waiting_max: int) -> None:
        self._running_max = running_max
        self._waiting_max = waiting_max
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._held_s = HELD_S_AT_FIRST
        self.running = 0

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._waiting)

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Holds one of the running slots. It is free again however the block ends.

        Raises Overloaded, without waiting, when the queue is full; `retry_after_s` is when its end should have moved up.
        """
        await self._enter()
        since = time.monotonic()
        try:
            yield
        finally:
            self._held_s += _HELD_S_WEIGHT * (time.monotonic() - since - self._held_s)
            self._leave()

    async def _enter(self) -> None:
        if self.running < self._running_max:
            self.running += 1
            return
        if len(self._waiting) >= self._waiting_max:
            raise self._overloaded()
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._leave()  # The slot was handed over in the moment in which the caller left.
            else:
                self._waiting.remove(turn)
            raise

    def _leave(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)  # The slot passes on: `running` stays as it is, so nobody can slip in between.
                return
        self.running -= 1

    def _overloaded(self) -> Overloaded:
        wait_s = self._held_s * (len(self._waiting) + 1) / self._running_max
        return Overloaded(
            f"{self._running_max} requests run and {self._waiting_max} wait, which is the limit; try again later",
            metadata={"running_max": str(self._running_max), "waiting_max": str(self._waiting_max)},
            retry_after_s=round(min(max(wait_s, RETRY_AFTER_S_MIN), RETRY_AFTER_S_MAX), 1),
        )
