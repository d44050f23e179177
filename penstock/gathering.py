"""Writes of one turn of the event loop as one: a call of the system costs more than most of what stands between two of them."""

import asyncio
from typing import Any, Final

_BYTES_MAX: Final = 64 * 1024


class Gathering:
    """A transport that keeps what is written until the event loop turns, at most _BYTES_MAX. All else is the transport's own.

    So the head and the body of an answer, the events that came in one read, and the answers of several calls that share a
    connection leave together, no later than they would have been sent anyway.
    """

    __slots__ = ("_loop", "_parts", "_size", "_transport")

    def __init__(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport
        self._loop = asyncio.get_running_loop()
        self._parts: list[bytes] = []
        self._size = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Sends it before the loop waits again."""
        if not self._parts:
            self._loop.call_soon(self._flush)
        self._parts.append(data)
        self._size += len(data)
        if self._size >= _BYTES_MAX:
            self._flush()

    def close(self) -> None:
        """Closes the transport once everything is sent."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._parts:
            data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
            self._parts.clear()
            self._size = 0
            self._transport.write(data)
