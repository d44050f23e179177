"""A stream of server-sent events whose head goes with the first event, so that what fails before it is an ordinary error.

Where nothing is said for a while a comment is sent, which keeps what stands between from cutting the connection.
"""

import asyncio
from types import TracebackType
from typing import Final, Self

from penstock.transcoding.dialect import DialectCall
from penstock.transcoding.exchange import ClientLeft

HEARTBEAT_S: Final = 15.0
_HEARTBEAT: Final = b": heartbeat\n\n"


class EventStream:
    """The answer of one call. `async with` it; the heartbeat ends with the block."""

    def __init__(self, call: DialectCall, heartbeat_s: float = HEARTBEAT_S) -> None:
        self._call = call
        self._heartbeat_s = heartbeat_s
        self._loop = asyncio.get_running_loop()
        self._starting = asyncio.Lock()  # The heartbeat may begin it too, and the head goes out once.
        self._timer: asyncio.TimerHandle | None = None
        self._beating: asyncio.Task[None] | None = None
        self._written_at = self._loop.time()
        self.started = False

    async def __aenter__(self) -> Self:
        self._timer = self._loop.call_later(self._heartbeat_s, self._beat)
        return self

    async def __aexit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._beating is not None:
            self._beating.cancel()

    async def write(self, events: bytes) -> None:
        """Sends events. Raises ClientLeft."""
        if not self.started:
            async with self._starting:
                if not self.started:
                    await self._call.start_stream()
                    self.started = True
        self._written_at = self._loop.time()
        await self._call.write(events)

    def _beat(self) -> None:
        idle_s = self._loop.time() - self._written_at
        if idle_s >= self._heartbeat_s and (self._beating is None or self._beating.done()):
            idle_s = 0.0
            self._beating = self._loop.create_task(self._send_heartbeat())
        self._timer = self._loop.call_later(self._heartbeat_s - idle_s, self._beat)

    async def _send_heartbeat(self) -> None:
        try:
            await self.write(_HEARTBEAT)
        except ClientLeft:
            return  # Whoever waits for the client's leaving ends the stream.
