"""The client's end of a link."""

import asyncio
import math
import socket
from collections import deque
from collections.abc import AsyncIterator, Mapping
from typing import Final

import httptools
from google.rpc import status_pb2

from penstock.errors import DeadlineExceeded, MalformedRequest, PenstockError, Unavailable
from penstock.gathering import Gathering
from penstock.link import frames
from penstock.wire import from_status

CONNECT_S: Final = 2.0
_DEAD_AFTER_S: Final = 20
"""Time for which a peer may leave what was sent unacknowledged before its connection counts as dead."""
_LOST: Final = "the connection was lost"


class LinkRefused(Exception):
    """The other side takes no links, or cannot be reached."""


async def connect(host: str, port: int, *, message_bytes_max: int) -> "Link":
    """A link. Raises LinkRefused."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(CONNECT_S):
            _, link = await loop.create_connection(lambda: Link(message_bytes_max), host, port)
            await link.upgraded(f"{host}:{port}")
    except (OSError, TimeoutError) as error:
        raise LinkRefused(str(error)) from error
    return link


class Link(asyncio.Protocol):
    """One connection, on which any number of calls are under way at once. Made by `connect`."""

    def __init__(self, message_bytes_max: int) -> None:
        self._reader = frames.FrameReader(message_bytes_max + frames.HEAD_BYTES_MAX)
        self._calls: dict[int, _Answer | LinkStream] = {}
        self._last = 0
        self._loop = asyncio.get_running_loop()
        self._upgrade: _Upgrade | None = _Upgrade(self._loop.create_future())
        self._gone: asyncio.Future[None] = self._loop.create_future()
        self._emptied: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._due = math.inf
        self.usable = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = Gathering(transport)
        _bound_silence(transport.get_extra_info("socket"))

    def connection_lost(self, exc: Exception | None) -> None:
        self.usable = False
        if self._timer is not None:
            self._timer.cancel()
        if self._upgrade is not None:
            self._upgrade.refuse(str(exc or _LOST))
        error = Unavailable(_LOST)
        for call in list(self._calls.values()):
            call.fail(error)
        self._calls.clear()
        if not self._gone.done():
            self._gone.set_result(None)

    def data_received(self, data: bytes) -> None:
        if self._upgrade is not None:
            data = self._upgrade.feed(data)
            if not self._upgrade.granted:
                return
            self._upgrade, self.usable = None, True
        try:
            for number, kind, payload in self._reader.feed(data):
                self._take(number, kind, payload)
        except MalformedRequest:
            self._transport.close()

    async def upgraded(self, host: str) -> None:
        """Asks for the link and waits for it. Raises LinkRefused."""
        assert self._upgrade is not None  # noqa: S101  # Called once, by `connect`.
        wanted = f"host: {host}\r\nconnection: upgrade\r\nupgrade: {frames.PROTOCOL}"
        self._transport.write(f"GET /link HTTP/1.1\r\n{wanted}\r\n\r\n".encode())
        try:
            await self._upgrade.done
        except BaseException:
            self._transport.close()
            raise

    async def gone(self) -> None:
        """Waits until it takes no more calls."""
        await asyncio.shield(self._gone)

    async def unary(self, method: str, message: bytes, metadata: Mapping[str, str], seconds: float) -> bytes:
        """The answer's message. Raises PenstockError: what the service said, DeadlineExceeded, Unavailable."""
        answer = _Answer(self._loop)
        number = self._begin(answer, method, message, metadata, seconds)
        try:
            return await answer.future
        finally:
            self.leave(number)

    def stream(self, method: str, message: bytes, metadata: Mapping[str, str], seconds: float) -> "LinkStream":
        """The messages of a stream; whoever reads it cancels it at the end. Raises as `unary`, while it is read."""
        stream = LinkStream(self)
        number = self._begin(stream, method, message, metadata, seconds)
        stream.number = number
        return stream

    def read(self, number: int, count: int) -> None:
        """Some messages of a stream have been read."""
        self._send(frames.frame(number, frames.READ, frames.number_payload(count)))

    def leave(self, number: int) -> None:
        """Nobody waits for a call any more, whether it has ended or not."""
        if self._forget(number) is not None:
            self._send(frames.frame(number, frames.CANCEL))

    async def close(self, grace_s: float | None = None) -> None:
        """Ends it once the calls that are under way have ended, or after `grace_s` (None: at once), and those with it."""
        self.usable = False
        if grace_s and self._calls:
            self._emptied = self._loop.create_future()
            await asyncio.wait((self._emptied,), timeout=grace_s)
        self._transport.close()

    def _begin(
        self, call: "_Answer | LinkStream", method: str, message: bytes, metadata: Mapping[str, str], seconds: float
    ) -> int:
        if not self.usable:
            raise Unavailable(_LOST)
        self._last = number = (self._last + 1) % 2**32
        self._calls[number] = call
        call.until = self._loop.time() + seconds
        if call.until < self._due:
            self._look_at(call.until)
        self._transport.write(frames.call_frame(number, method, seconds, metadata, message))
        return number

    def _look_at(self, moment: float) -> None:
        """One timer for the deadlines of all calls: they are looked at when the nearest of them is reached."""
        if self._timer is not None:
            self._timer.cancel()
        self._due, self._timer = moment, self._loop.call_at(moment, self._end_late_calls)

    def _end_late_calls(self) -> None:
        now, self._due, self._timer = self._loop.time(), math.inf, None
        for number in [number for number, call in self._calls.items() if call.until <= now]:
            self._calls[number].fail(DeadlineExceeded("the service did not answer in time"))
            self.leave(number)
        if self._calls:
            self._look_at(min(call.until for call in self._calls.values()))

    def _forget(self, number: int) -> "_Answer | LinkStream | None":
        call = self._calls.pop(number, None)
        if self._emptied is not None and not self._calls and not self._emptied.done():
            self._emptied.set_result(None)
        return call

    def _send(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)

    def _take(self, number: int, kind: int, payload: bytes) -> None:
        if kind == frames.LEAVING:
            self.usable = False
            if not self._gone.done():
                self._gone.set_result(None)
            return
        call = self._calls.get(number) if kind == frames.MESSAGE else self._forget(number)
        if call is None:  # It was left, which the server did not know yet.
            return
        if kind in {frames.MESSAGE, frames.ANSWER}:
            call.message(payload)
        elif kind == frames.END:
            call.end()
        else:
            call.fail(_told(payload))


class _Answer:
    """What a unary call waits for."""

    __slots__ = ("future", "until")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.until = math.inf
        self.future: asyncio.Future[bytes] = loop.create_future()

    def message(self, payload: bytes) -> None:
        if not self.future.done():
            self.future.set_result(payload)

    def end(self) -> None:
        self.fail(Unavailable("the call ended without an answer"))

    def fail(self, error: PenstockError) -> None:
        if not self.future.done():
            self.future.set_exception(error)


class LinkStream(AsyncIterator[bytes]):
    """The messages of one stream."""

    __slots__ = ("_ended", "_error", "_link", "_messages", "_unsaid", "_waiter", "number", "until")

    def __init__(self, link: Link) -> None:
        self.number = 0
        self.until = math.inf
        self._link = link
        self._messages: deque[bytes] = deque()
        self._ended = False
        self._error: PenstockError | None = None
        self._unsaid = 0
        self._waiter: asyncio.Future[None] | None = None

    async def __anext__(self) -> bytes:
        while not self._messages:
            if self._error is not None:
                raise self._error
            if self._ended:
                raise StopAsyncIteration
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        self._unsaid += 1
        if self._unsaid >= frames.READ_EVERY and not self._ended:
            self._link.read(self.number, self._unsaid)
            self._unsaid = 0
        return self._messages.popleft()

    def cancel(self) -> None:
        """Stops it, if it has not ended."""
        if not self._ended:
            self._ended = True
            self._link.leave(self.number)

    def message(self, payload: bytes) -> None:
        self._messages.append(payload)
        self._wake()

    def end(self) -> None:
        self._ended = True
        self._wake()

    def fail(self, error: PenstockError) -> None:
        if self._ended:
            return
        self._error = error
        self.end()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class _Upgrade:
    """Reads the HTTP answer to the wish for a link. The methods that begin with on_ are httptools' callbacks."""

    def __init__(self, done: "asyncio.Future[None]") -> None:
        self.done = done
        self.granted = False
        self._parser = httptools.HttpResponseParser(self)

    def feed(self, data: bytes) -> bytes:
        """Reads on; what comes after the answer."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self.granted = not self.done.done()
            if self.granted:
                self.done.set_result(None)
            return data[upgrade.args[0] :]
        except httptools.HttpParserError as error:
            self.refuse(str(error))
        return b""

    def on_headers_complete(self) -> None:
        if (status := self._parser.get_status_code()) != 101:
            self.refuse(f"HTTP {status}")

    def refuse(self, why: str) -> None:
        if not self.done.done():
            self.done.set_exception(LinkRefused(why))


def _told(payload: bytes) -> PenstockError:
    return from_status(status_pb2.Status.FromString(payload))


def _bound_silence(connection: socket.socket | None) -> None:
    """A peer whose machine is gone says nothing; the kernel is told after how long that is enough."""
    if connection is None or connection.family not in {socket.AF_INET, socket.AF_INET6}:
        return
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000 * _DEAD_AFTER_S)
        for option, value in ((socket.TCP_KEEPIDLE, 10), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 3)):
            connection.setsockopt(socket.IPPROTO_TCP, option, value)
