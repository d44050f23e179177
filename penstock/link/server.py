"""The server's end of a link: frames into calls of the dispatcher, beside gRPC and HTTP."""

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import aclosing
from typing import Any, Final

from google.protobuf.message import DecodeError

from penstock.dispatcher import Dispatcher, Method, Request
from penstock.errors import Cancelled, MalformedRequest, MessageTooLarge, Overloaded, PenstockError, RouteNotFound
from penstock.link import frames
from penstock.wire import to_status

IDLE_MAX_S: Final = 300.0
"""After so long without a frame a link without calls is closed; its client makes another when it needs one."""


class LinkContext:
    """The dispatcher's CallContext of a call that came over a link."""

    __slots__ = ("_deadline", "_metadata")

    def __init__(self, metadata: Mapping[str, str], seconds: float) -> None:
        self._metadata = metadata
        self._deadline = time.monotonic() + seconds

    def metadata(self) -> Mapping[str, str]:
        """What the caller told, names in lower case."""
        return self._metadata

    def time_remaining(self) -> float:
        """Seconds until the caller's deadline, at most the service's own."""
        return max(0.0, self._deadline - time.monotonic())


class _Call:
    """One that is served: its task, and how many messages of its stream have gone out unread."""

    __slots__ = ("room", "task", "unread")

    def __init__(self) -> None:
        self.task: asyncio.Task[None] | None = None
        self.unread = 0
        self.room: asyncio.Future[None] | None = None

    def read(self, count: int) -> None:
        """The client has read some."""
        self.unread -= count
        if self.room is not None and not self.room.done() and self.unread < frames.WINDOW:
            self.room.set_result(None)


class LinkServer(asyncio.Protocol):
    """One connection. `deadline_s` is the most that a call may take; `closed` is told when the connection is gone."""

    def __init__(
        self, dispatcher: Dispatcher, *, message_bytes_max: int, deadline_s: float, closed: Callable[["LinkServer"], None]
    ) -> None:
        self._dispatcher = dispatcher
        self._message_bytes_max = message_bytes_max
        self._deadline_s = deadline_s
        self._closed = closed
        self._reader = frames.FrameReader(message_bytes_max + frames.HEAD_BYTES_MAX)
        self._calls: dict[int, _Call] = {}
        self._leaving = False
        self._writable = asyncio.Event()
        self._writable.set()
        self._heard_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Not called by the loop: the connection was made in HTTP, whose protocol hands it over."""
        self._transport: Any = transport
        self._watch_idle()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio's signature.
        self._idle.cancel()
        self._writable.set()
        for call in self._calls.values():
            if call.task is not None:
                call.task.cancel()
        self._closed(self)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        self._heard_at = time.monotonic()
        try:
            for number, kind, payload in self._reader.feed(data):
                if kind == frames.CALL:
                    self._begin(number, payload)
                elif (call := self._calls.get(number)) is None:
                    continue  # It has just ended.
                elif kind == frames.READ:
                    call.read(frames.read_number(payload))
                elif kind == frames.CANCEL and call.task is not None:
                    call.task.cancel()
        except MalformedRequest:
            self._transport.close()  # What follows cannot be understood either.

    def shutdown(self) -> None:
        """Takes no new calls, and closes when those that have begun have ended. uvicorn calls it at the end."""
        if not self._leaving:
            self._leaving = True
            self._transport.write(frames.frame(0, frames.LEAVING))
        self._close_if_done()

    def _begin(self, number: int, payload: bytes) -> None:
        if len(self._calls) >= frames.CALLS_MAX or number in self._calls:
            self._fail(number, Overloaded(f"{frames.CALLS_MAX} calls are in flight on one link", retry_after_s=1.0))
            return
        method, seconds, metadata, message = frames.read_call(payload)
        mounted = self._dispatcher.find(method)
        if mounted is not None and mounted.takes_stream:
            mounted = None
        request = self._request(method, mounted, message)
        context = LinkContext(metadata, min(max(0.0, seconds), self._deadline_s))
        call = self._calls[number] = _Call()
        streams = mounted is not None and mounted.streams
        work = (
            self._stream(number, call, method, request, context) if streams else self._unary(number, method, request, context)
        )
        call.task = asyncio.get_running_loop().create_task(work)

    def _request(self, method: str, mounted: Method | None, message: bytes) -> Request:
        if mounted is None:
            return RouteNotFound(f"no method {method[:200]!r} can be called over a link")
        if len(message) > self._message_bytes_max:
            return MessageTooLarge(f"the request has {len(message)} bytes, the limit is {self._message_bytes_max}")
        try:
            return mounted.parse(message)
        except DecodeError:
            return MalformedRequest("the bytes are not the message that this method takes; check the proto version")

    async def _unary(self, number: int, method: str, request: Request, context: LinkContext) -> None:
        try:
            if isinstance(request, RouteNotFound):
                raise request
            answer = await self._dispatcher.unary(method, request, context)
            mounted = self._dispatcher.find(method)
            assert mounted is not None  # noqa: S101  # It has just answered.
            self._send(number, frames.ANSWER, mounted.serialise(answer))
        except PenstockError as error:
            self._fail(number, error)
        except asyncio.CancelledError:
            self._fail(number, Cancelled("the call was cancelled inside the service"))
        finally:
            self._ended(number)

    async def _stream(self, number: int, call: _Call, method: str, request: Request, context: LinkContext) -> None:
        mounted = self._dispatcher.find(method)
        assert mounted is not None  # noqa: S101  # The caller has looked.
        serialise = mounted.serialise
        try:
            async with aclosing(self._dispatcher.stream(method, request, context)) as messages:  # type: ignore[type-var]
                async for message in messages:
                    if call.unread >= frames.WINDOW or not self._writable.is_set():
                        await self._room(call)
                    call.unread += 1
                    self._send(number, frames.MESSAGE, serialise(message))
            self._send(number, frames.END)
        except PenstockError as error:
            self._fail(number, error)
        except asyncio.CancelledError:
            self._fail(number, Cancelled("the call was cancelled inside the service"))
        finally:
            self._ended(number)

    async def _room(self, call: _Call) -> None:
        """Waits until the client has read on, and the connection takes more."""
        while call.unread >= frames.WINDOW:
            call.room = asyncio.get_running_loop().create_future()
            await call.room
        await self._writable.wait()

    def _fail(self, number: int, error: PenstockError) -> None:
        self._send(number, frames.FAILURE, to_status(error).SerializeToString())

    def _send(self, number: int, kind: int, payload: bytes = b"") -> None:
        if not self._transport.is_closing():
            self._transport.write(frames.frame(number, kind, payload))

    def _ended(self, number: int) -> None:
        del self._calls[number]
        self._close_if_done()

    def _close_if_done(self) -> None:
        if self._leaving and not self._calls:
            self._transport.close()

    def _watch_idle(self) -> None:
        if self._heard_at and not self._calls and time.monotonic() - self._heard_at >= IDLE_MAX_S:
            self._transport.close()
            return
        self._heard_at = self._heard_at or time.monotonic()
        self._idle = asyncio.get_running_loop().call_later(IDLE_MAX_S / 2, self._watch_idle)
