"""Server streams over HTTP: server-sent events, or JSON lines where the client asks for them.

    event: token                        {"token": {"node_id": "answer", "text": "Oslo"}}
    data: {"token": {...}}              {"done": {...}}

The event's name is the set field of the message's oneof ("message" where there is none); the data is the whole message in one
line. A stream that ends well ends with `done`: its own last message, or one without content that is put after it. HTTP/1.1
readers cannot see trailers, so a failure after the head has gone is an `error` event, and it is the last. The head goes with
the first message, or with the first heartbeat if that is earlier; a failure before it is an ordinary HTTP error. A heartbeat is
a comment that keeps an idle connection from being cut by what stands between; JSON lines have no comments, hence none there.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import status_pb2

from penstock.errors import PenstockError
from penstock.transcoding.exchange import ClientLeft, Exchange, inner_cancellation, unexpected
from penstock.transcoding.rendering import Render, Renderers, dump
from penstock.transcoding.wellknown import STATUS
from penstock.wire import to_status

DONE: Final = "done"
ERROR: Final = "error"

_HEARTBEAT: Final = b": heartbeat\n\n"
_HEAD: Final = ((b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no"))
SSE: Final = "text/event-stream"
JSON_LINES: Final = "application/x-ndjson"


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamShape:
    """What a stream's messages look like: their oneof and error field, where they have them, and how they are rendered."""

    oneof: str
    error_field: str
    render: Render
    render_status: Render
    message: type[Message]

    @classmethod
    def of(cls, descriptor: Descriptor, renderers: Renderers) -> "StreamShape":
        """The shape of a message type."""
        oneofs = [oneof.name for oneof in descriptor.oneofs if len(oneof.fields) > 1]
        error = descriptor.fields_by_name.get(ERROR)
        has_error = error is not None and error.message_type is not None and error.message_type.full_name == STATUS
        return cls(
            oneof=oneofs[0] if len(oneofs) == 1 else "",
            error_field=ERROR if has_error else "",
            render=renderers.of(descriptor),
            render_status=renderers.of(status_pb2.Status.DESCRIPTOR),
            message=GetMessageClass(descriptor),
        )

    def event(self, message: Any) -> str:
        """The event's name."""
        return (message.WhichOneof(self.oneof) if self.oneof else None) or "message"

    def failure(self, status: status_pb2.Status) -> Any:
        """The rendered in-band form of an error."""
        if self.error_field:
            failure = self.message()
            getattr(failure, self.error_field).MergeFromString(status.SerializeToString())
            return self.render(failure)
        return {ERROR: self.render_status(status)}


class StreamAnswer:
    """The answer to one streaming call."""

    def __init__(self, exchange: Exchange, shape: StreamShape, *, heartbeat_s: float) -> None:
        self._exchange = exchange
        self._shape = shape
        self._heartbeat_s = heartbeat_s
        accepted = exchange.headers.get("accept", "")
        self._lines = JSON_LINES in accepted and SSE not in accepted
        self._writing = asyncio.Lock()  # The heartbeat writes too, and the head must go out once and first.
        self._clock = asyncio.get_running_loop().time
        self._written_at = self._clock()
        self._last_event = ""
        self._begun = False

    async def relay(self, messages: AsyncIterator[Message]) -> None:
        """Sends everything, the end included, and closes `messages` whatever happens.

        Raises PenstockError as long as nothing has been sent; ClientLeft.
        """
        heartbeat = None if self._lines else asyncio.create_task(self._beat())
        try:
            with inner_cancellation():
                async for message in messages:
                    await self._send_message(message)
            await self.end()
        except ClientLeft:
            raise
        except PenstockError as error:
            await self._fail(error)
        except Exception as error:  # noqa: BLE001  # unexpected() logs the whole of it.
            await self._fail(unexpected(error, f"{self._exchange.http_method} {self._exchange.path[:200]}"))
        finally:
            if heartbeat:
                heartbeat.cancel()
            await _close(messages)

    async def end(self) -> None:
        """Ends a stream that has gone well."""
        ending = b""
        if self._last_event not in (DONE, ERROR):
            ending = self._framed(DONE, {DONE: {}} if self._lines else {})
        await self._write(ending, more=False)

    async def _send_message(self, message: Message) -> None:
        event = self._shape.event(message)
        await self._write(self._framed(event, self._shape.render(message)))
        self._last_event = event

    async def _fail(self, error: PenstockError) -> None:
        async with self._writing:
            if not self._exchange.started:
                raise error
        ending = b""
        # The dispatcher may have put the failure into the stream itself; and nothing comes after the end.
        if self._last_event not in (DONE, ERROR):
            ending = self._framed(ERROR, self._shape.failure(to_status(error)))
        await self._write(ending, more=False)

    def _framed(self, event: str, rendered: Any) -> bytes:
        data = dump(rendered)
        return data + b"\n" if self._lines else b"event: %s\ndata: %s\n\n" % (event.encode(), data)

    async def _write(self, data: bytes, *, more: bool = True) -> None:
        if not self._begun:
            async with self._writing:
                if not self._exchange.started:
                    kind = JSON_LINES if self._lines else SSE
                    await self._exchange.start(200, ((b"content-type", kind.encode()), *_HEAD))
                self._begun = True
        await self._exchange.write(data, more=more)
        self._written_at = self._clock()

    async def _beat(self) -> None:
        """Writes a comment whenever nothing has been written for a while."""
        try:
            while True:
                idle_s = self._clock() - self._written_at
                if idle_s < self._heartbeat_s:
                    await asyncio.sleep(self._heartbeat_s - idle_s)
                else:
                    await self._write(_HEARTBEAT)
        except ClientLeft:
            return  # Whoever waits for the client's leaving ends the stream.


async def _close(messages: AsyncIterator[Message]) -> None:
    close = getattr(messages, "aclose", None)
    if close is not None:
        await close()
