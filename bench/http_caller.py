"""HTTP/1.1 over kept-alive connections, as cheap as Python allows: the client must not be what is measured."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Final, cast

import httptools

from bench.closed_loop import Reply


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """How to read a body: what stands once in every event that carries text, and where the count of output tokens is.

    An answer in which `expected` does not stand is no good.
    """

    event: bytes
    output_tokens: re.Pattern[bytes]
    expected: bytes = b""


DIALECTS: Final[Mapping[str, Dialect]] = {
    "penstock": Dialect(event=b"event: token", output_tokens=re.compile(rb'"output_tokens":\s*(\d+)')),
    "completions": Dialect(event=b'"text"', output_tokens=re.compile(rb'"completion_tokens":\s*(\d+)')),
    "openai": Dialect(event=b'"delta"', output_tokens=re.compile(rb'"completion_tokens":\s*(\d+)')),
    "langflow": Dialect(event=b'"event": "token"', output_tokens=re.compile(rb'"output_tokens":\s*(\d+)')),
}


class HttpCaller:
    """Sends JSON to one path, a connection for each slot."""

    def __init__(
        self,
        *,
        target: str,
        path: str,
        dialect: str,
        verb: str = "POST",
        headers: Mapping[str, str] | None = None,
        expected: str = "",
    ) -> None:
        host, _, port = target.rpartition(":")
        self._address = (host, int(port))
        more = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
        head = f"{verb} {path} HTTP/1.1\r\nhost: {target}\r\n{more}content-type: application/json\r\n"
        self._head = f"{head}content-length: %d\r\n\r\n".encode()
        self._dialect = replace(DIALECTS[dialect], expected=expected.encode())
        self._connections: list[_Connection] = []

    @asynccontextmanager
    async def opened(self, slots: int) -> AsyncIterator[None]:
        self._connections = [await self._connect() for _ in range(slots)]
        try:
            yield
        finally:
            for connection in self._connections:
                connection.close()

    async def call(self, slot: int, payload: bytes) -> Reply:
        try:
            if self._connections[slot].closed:
                self._connections[slot] = await self._connect()
            return await self._connections[slot].exchange(self._head % len(payload) + payload)
        except OSError as error:
            return Reply(fault=type(error).__name__)

    async def body(self, slot: int, payload: bytes) -> bytes:
        """Sends a request and gives the answer's body. Raises OSError where it is no good."""
        reply = await self.call(slot, payload)
        if reply.fault:
            raise OSError(reply.fault)
        return self._connections[slot].body

    async def _connect(self) -> "_Connection":
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(lambda: _Connection(self._dialect), *self._address)
        return connection


class _Connection(asyncio.Protocol):
    """One request at a time. The methods that begin with on_ are httptools' callbacks."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[Reply] | None = None
        self._body = bytearray()
        self._first_at = 0.0

    @property
    def closed(self) -> bool:
        return self._transport is None

    @property
    def body(self) -> bytes:
        """Of the last answer."""
        return bytes(self._body)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but its bases.

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionResetError("the server closed the connection"))
        self._transport = None

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self._body += body
        if not self._first_at and self._dialect.event in self._body:
            self._first_at = time.perf_counter()

    def on_message_complete(self) -> None:
        assert self._answer is not None
        status, body = self._parser.get_status_code(), bytes(self._body)
        counted = self._dialect.output_tokens.findall(body)
        reply = Reply(
            fault=_fault(status, body, self._dialect.expected),
            first_at=self._first_at,
            events=body.count(self._dialect.event),
            output_tokens=int(counted[-1]) if counted else 0,
        )
        if not self._answer.done():
            self._answer.set_result(reply)

    async def exchange(self, request: bytes) -> Reply:
        """Raises OSError when the connection is gone."""
        if self._transport is None:
            raise ConnectionResetError("the server closed the connection")
        self._body.clear()
        self._first_at = 0.0
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


def _fault(status: int, body: bytes, expected: bytes) -> str:
    if status != 200:
        return f"HTTP {status}"
    if b"event: error" in body:
        return "an error event"
    return "" if expected in body else "not the answer"
