"""One HTTP request and its answer, on ASGI's receive and send: bounded reading, one start, errors as JSON."""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from types import TracebackType
from typing import Any, Final
from urllib.parse import quote, quote_from_bytes

from google.protobuf import json_format

from penstock.errors import (
    INTERNAL_MESSAGE,
    Cancelled,
    DeadlineExceeded,
    Internal,
    MalformedRequest,
    MessageTooLarge,
    MethodNotAllowed,
    PenstockError,
    Unauthenticated,
)
from penstock.transcoding.context import HttpContext, read_headers
from penstock.transcoding.rendering import dump
from penstock.wire import to_status

Scope = MutableMapping[str, Any]
Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]
Headers = Sequence[tuple[bytes, bytes]]

_log = logging.getLogger("penstock.transcoding")

WHEN_LEFT: Final = "penstock.when_left"
"""Where in the scope a server that can do it keeps what is to be called when the client leaves."""

_PATH_SAFE: Final = "/:@!$&'()*+,;=~"
_JSON: Final = b"application/json"
# What `curl -d` says of any body. A browser says it too, for another site's form, but then it names that site as the origin.
_CURLS_OWN: Final = "application/x-www-form-urlencoded"
_SNIFFED: Final = (b"x-content-type-options", b"nosniff")


class ClientLeft(Exception):
    """Nobody is there to answer."""


class Exchange:
    """The request's parts that transcoding needs, and the one answer to it."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._receive, self._send = receive, send
        self.scope = scope
        self.http_method: str = scope["method"]
        self.path = _encoded_path(scope)
        self.query: bytes = scope.get("query_string", b"")
        self.headers = read_headers(scope["headers"])
        self.when_left: set[Callable[[], None]] | None = scope.get(WHEN_LEFT)
        self.started = False

    @property
    def wants_body(self) -> bool:
        """Whether the answer's body is sent: HEAD takes the head alone."""
        return self.http_method != "HEAD"

    async def read_body(self, bytes_max: int, context: HttpContext) -> bytes:
        """The whole body. Raises MessageTooLarge, before reading where the length is declared; DeadlineExceeded; ClientLeft."""
        declared = self.headers.get("content-length", "0")
        if declared.isdecimal() and (len(declared) > 18 or int(declared) > bytes_max):
            raise _too_large(bytes_max)
        event = await self._receive()
        if event["type"] == "http.request" and not event.get("more_body"):
            body: bytes = event.get("body", b"")
            if len(body) > bytes_max:
                raise _too_large(bytes_max)
            return body
        try:
            async with asyncio.timeout(context.time_remaining()):
                return await self._read_rest(event, bytes_max)
        except TimeoutError as error:
            raise DeadlineExceeded("the body did not come within the call's time") from error

    def check_json(self) -> None:
        """Raises MalformedRequest when the headers say that the body is not plain JSON."""
        kind = self.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
        is_curl = kind == _CURLS_OWN and "origin" not in self.headers
        if kind != "application/json" and not kind.endswith("+json") and not is_curl:
            raise MalformedRequest(f"the body must be JSON: send it with content-type application/json, not {kind[:100]!r}")
        encoding = self.headers.get("content-encoding", "identity")
        if encoding != "identity":
            raise MalformedRequest(f"content-encoding {encoding[:40]!r} is not understood; send the body as it is")

    async def answer(self, status: int, body: bytes, headers: Headers = (), *, content_type: bytes = _JSON) -> None:
        """The whole answer, JSON unless something else is said. Raises ClientLeft."""
        own = ((b"content-type", content_type), _SNIFFED, (b"content-length", str(len(body)).encode()))
        await self.start(status, (*own, *headers))
        await self.write(body, more=False)

    async def start(self, status: int, headers: Headers) -> None:
        """Sends the head. Raises ClientLeft."""
        await self.emit({"type": "http.response.start", "status": status, "headers": list(headers)})

    async def write(self, body: bytes, *, more: bool) -> None:
        """Sends a piece of the body, and waits while the client is slow to take it. Raises ClientLeft."""
        await self.emit({"type": "http.response.body", "body": body if self.wants_body else b"", "more_body": more})

    async def fail(self, error: PenstockError) -> None:
        """Answers with an error, unless the answer has begun. Raises ClientLeft."""
        if self.started:
            _log.error("%s %s failed after its answer had begun: %s", self.http_method, self.path[:200], error.message)
            return
        await self.answer(error.code.http_status, dump(error_body(error)), _error_headers(error))

    async def left(self) -> None:
        """Returns when the client has left. To be called after the body is read."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def _read_rest(self, event: Event, bytes_max: int) -> bytes:
        chunks: list[bytes] = []
        size = 0
        while True:
            if event["type"] == "http.disconnect":
                raise ClientLeft
            chunk = event.get("body", b"")
            size += len(chunk)
            if size > bytes_max:
                raise _too_large(bytes_max)
            chunks.append(chunk)
            if not event.get("more_body"):
                return b"".join(chunks)
            event = await self._receive()

    async def emit(self, event: Event) -> None:
        """ASGI's send, for an ASGI app that answers in this one's place. Raises ClientLeft."""
        self.started = True
        try:
            await self._send(event)
        except OSError as error:  # What ASGI says of a client that has left.
            raise ClientLeft from error


def error_body(error: PenstockError) -> dict[str, Any]:
    """{"error": {"code", "status", "message", "details"}}: the HTTP status, gRPC's name, google.rpc details."""
    status = to_status(error)
    details = [json_format.MessageToDict(detail, preserving_proto_field_name=True) for detail in status.details]
    return {
        "error": {
            "code": error.code.http_status,
            "status": error.code.grpc_name,
            "message": status.message,
            "details": details,
        }
    }


def unexpected(error: Exception, doing: str) -> Internal:
    """What the caller sees of an exception that is not ours. The log has the whole of it."""
    _log.error("%s failed", doing, exc_info=error)
    return Internal(INTERNAL_MESSAGE)


class inner_cancellation:  # noqa: N801  # Used as a function; contextlib's way costs three times as much.
    """Makes an error of a cancellation that came from inside the service, and not from who cancelled this task."""

    __slots__ = ()

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if kind is not asyncio.CancelledError:
            return
        task = asyncio.current_task()
        if task is not None and not task.cancelling():
            raise Cancelled("the call was cancelled inside the service") from None


def _error_headers(error: PenstockError) -> list[tuple[bytes, bytes]]:
    headers = []
    if error.retry_after_s is not None:
        headers.append((b"retry-after", str(max(1, math.ceil(error.retry_after_s))).encode()))
    if isinstance(error, MethodNotAllowed) and "allow" in error.metadata:
        headers.append((b"allow", error.metadata["allow"].encode()))
    if isinstance(error, Unauthenticated):
        headers.append((b"www-authenticate", b"Bearer"))
    return headers


def _encoded_path(scope: Scope) -> str:
    """The path as it came over the wire, percent-encoded; a server that leaves it out has decoded it already."""
    raw: bytes = scope.get("raw_path") or quote(scope["path"], safe=_PATH_SAFE).encode()
    return raw.decode("ascii") if raw.isascii() else quote_from_bytes(raw, safe=f"{_PATH_SAFE}%")


def _too_large(bytes_max: int) -> MessageTooLarge:
    return MessageTooLarge(f"the body is over the limit of {bytes_max} bytes", metadata={"limit_bytes": str(bytes_max)})
