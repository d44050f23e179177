"""HTTP/1.1 to one host over connections that are kept alive, at a fifth of what a general client takes for an answer.

    Connections.request -> Response.read, read, ... b""        leaving an answer before its end closes its connection

What it does not do, because no endpoint of this API needs it: redirects, cookies, proxies, compression.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import httptools

_KEEPALIVE_S: Final = 60.0
_BUFFERED_MAX: Final = 256 * 1024
"""Bytes of an answer that wait to be read, beyond which the endpoint is not listened to."""
_HEAD_BYTES_MAX: Final = 256 * 1024
_LOST: Final = "the connection was closed"


class CannotConnect(Exception):
    """There is no connection to be had: refused, unknown, or not in time."""


class BrokenOff(Exception):
    """The connection was lost, or said what is not HTTP, before the answer was whole."""


class SlowAnswer(TimeoutError):
    """Nothing came for too long, or the answer took too long as a whole."""


class Connections:
    """At most `connections_max` at once; whoever would need one more waits for it."""

    def __init__(self, *, host: str, port: int, tls: bool, connections_max: int, connect_timeout_s: float) -> None:
        self._host, self._port = host, port
        self._tls = ssl.create_default_context() if tls else None
        self._connect_timeout_s = connect_timeout_s
        self._free = connections_max
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._idle: list[_Connection] = []
        self._busy: set[_Connection] = set()
        self.closed = False

    @asynccontextmanager
    async def request(self, head: bytes, body: bytes, *, total_s: float, silence_max_s: float) -> AsyncIterator["Response"]:
        """The answer to a request, its head read. Raises CannotConnect, BrokenOff, SlowAnswer, RuntimeError once closed."""
        loop = asyncio.get_running_loop()
        until = loop.time() + total_s
        await self._turn(until)
        connection: _Connection | None = None
        try:
            connection = self._kept() or await self._connect(until)
            self._busy.add(connection)
            yield await connection.ask(head, body, until, silence_max_s)
        finally:
            if connection is not None:
                self._busy.discard(connection)
                if connection.done() and not self.closed:
                    self._idle.append(connection)
                else:
                    connection.close()
            self._next()

    async def close(self) -> None:
        """Closes every connection; answers that are under way break off."""
        self.closed = True
        for connection in (*self._idle, *self._busy):
            connection.close()
        self._idle.clear()
        await asyncio.sleep(0)  # So that they are closed when this returns.

    async def _turn(self, until: float) -> None:
        if self.closed:
            raise RuntimeError(_LOST)
        if self._free:
            self._free -= 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            async with asyncio.timeout_at(until):
                await turn
        except TimeoutError as error:
            raise SlowAnswer("no connection was free in time") from error
        finally:
            if not turn.done() or turn.cancelled():
                self._waiting.remove(turn)

    def _next(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1

    def _kept(self) -> "_Connection | None":
        """One that is open still, the last used first: the others may then grow old and close."""
        now = asyncio.get_running_loop().time()
        while self._idle and now - self._idle[0].used_at > _KEEPALIVE_S:
            self._idle.pop(0).close()
        while self._idle:
            connection = self._idle.pop()
            if connection.open:
                return connection
        return None

    async def _connect(self, until: float) -> "_Connection":
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout_at(min(until, loop.time() + self._connect_timeout_s)):
                _, connection = await loop.create_connection(_Connection, self._host, self._port, ssl=self._tls)
        except TimeoutError as error:
            raise CannotConnect("it did not take the connection in time") from error
        except OSError as error:
            raise CannotConnect(str(error)) from error
        return connection


class Response:
    """An answer whose head has come. Header names are in lower case."""

    __slots__ = ("_connection", "headers", "status")

    def __init__(self, connection: "_Connection", status: int, headers: Mapping[str, str]) -> None:
        self._connection = connection
        self.status = status
        self.headers = headers

    async def read(self) -> bytes:
        """What has come of the body, waiting for some; nothing at its end. Raises BrokenOff, SlowAnswer."""
        return await self._connection.read()


class _Connection(asyncio.Protocol):
    """One request at a time. The methods that begin with on_ are httptools' callbacks."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._parts: list[bytes] = []
        self._size = 0
        self._head_bytes = 0
        self._paused = False
        self._headers: dict[str, str] = {}
        self._head: asyncio.Future[Response] | None = None
        self._reader: asyncio.Future[None] | None = None
        self._failure: Exception | None = None
        self._ended = self._keep_alive = False
        self._timer: asyncio.TimerHandle | None = None
        self._heard_at = self._until = self._silence_max_s = 0.0
        self.open = False
        self.used_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport
        self._parser = httptools.HttpResponseParser(self)
        self.open = True

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False
        if not self._ended:
            self._fail(BrokenOff(str(exc or _LOST)))

    def eof_received(self) -> None:
        """An answer without a length ends with its connection."""
        if not self._ended and self._head is not None and self._head.done() and self._ends_with_connection():
            self._end(keep_alive=False)

    def data_received(self, data: bytes) -> None:
        self._heard_at = self._loop.time()
        if self._ended or self._head is None:  # It says something unasked.
            self.close()
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(BrokenOff(f"not HTTP: {error}"))
        if self._head is not None and not self._head.done():
            self._head_bytes += len(data)
            if self._head_bytes > _HEAD_BYTES_MAX:
                self._fail(BrokenOff("the head of the answer is too long"))

    async def ask(self, head: bytes, body: bytes, until: float, silence_max_s: float) -> Response:
        self._parts.clear()
        self._headers = {}
        self._size = self._head_bytes = 0
        self._ended = False
        self._until, self._silence_max_s, self._heard_at = until, silence_max_s, self._loop.time()
        self._head = self._loop.create_future()
        self._transport.write(head + body)
        self._watch()
        return await self._head

    async def read(self) -> bytes:
        while not self._parts:
            if self._failure is not None:
                raise self._failure
            if self._ended:
                return b""
            self._reader = self._loop.create_future()
            await self._reader
        found = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts.clear()
        self._size = 0
        if self._paused:
            self._paused = False
            self._transport.resume_reading()
        return found

    def done(self) -> bool:
        """Ends the exchange; whether the connection can be used again."""
        self.used_at = self._loop.time()
        return self._ended and self._keep_alive and self.open and self._failure is None and not self._parts

    def close(self) -> None:
        self.open = False
        if self._timer is not None:
            self._timer.cancel()
        self._transport.close()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status >= 200 and self._head is not None and not self._head.done():  # Else 100 Continue or such.
            self._head.set_result(Response(self, status, self._headers))

    def on_body(self, body: bytes) -> None:
        self._parts.append(body)
        self._size += len(body)
        if self._size > _BUFFERED_MAX and not self._paused:
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def on_message_complete(self) -> None:
        if self._head is not None and self._head.done():
            self._end(keep_alive=self._parser.should_keep_alive())
        else:
            self._headers = {}

    def _ends_with_connection(self) -> bool:
        return "content-length" not in self._headers and "transfer-encoding" not in self._headers

    def _end(self, *, keep_alive: bool) -> None:
        self._ended, self._keep_alive = True, keep_alive
        self._wake()

    def _fail(self, error: Exception) -> None:
        if self._failure is None:
            self._failure = error
        if self._head is not None and not self._head.done():
            self._head.set_exception(error)
        self._wake()
        self.close()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def _watch(self) -> None:
        """One timer for both bounds and for all answers, looked at when one might be reached, and left to run between them."""
        due, now = self._due(), self._loop.time()
        if self._timer is None or self._timer.when() > due:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_later(max(0.0, due - now), self._look)

    def _look(self) -> None:
        self._timer = None
        due = self._due()
        if self._ended:
            return
        if due > self._loop.time():
            self._watch()
        else:
            self._fail(SlowAnswer("it took too long" if due >= self._until else "it was silent for too long"))

    def _due(self) -> float:
        heard_at = self._loop.time() if self._paused else self._heard_at
        return min(self._until, heard_at + self._silence_max_s)
