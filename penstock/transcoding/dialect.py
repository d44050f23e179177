"""Another HTTP API in front of the same methods: what a service adds to the paths that come from its protos.

A dialect finds a route for a path; the route's handler reads the request, calls methods of the service through the dispatcher,
so that keys, limits, deadlines and traces are the same on every way in, and writes the answer in its own words.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol
from urllib.parse import parse_qsl

import orjson
from google.protobuf.message import Message

from penstock.encoded import message_of
from penstock.errors import MalformedRequest, PenstockError
from penstock.transcoding.context import HttpContext
from penstock.transcoding.exchange import Exchange, Headers, inner_cancellation
from penstock.transcoding.rendering import dump

EVENT_STREAM: Final = b"text/event-stream; charset=utf-8"
_STREAM_HEAD: Final = ((b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no"))
QUERY_FIELDS_MAX: Final = 100


class Late(Protocol):
    """A request that is made once the call is let in (dispatcher.LateRequest)."""

    @property
    def make(self) -> Callable[[], Awaitable[Message]]: ...


Request = Message | PenstockError | Late


class Methods(Protocol):
    """Where calls go: the service's dispatcher."""

    def unary(self, method: str, request: Any, context: HttpContext) -> Awaitable[Any]: ...

    def stream(self, method: str, request: Any, context: HttpContext) -> AsyncIterator[Any]: ...


class DialectCall:
    """One request of a dialect and its answer. `body` is whole and bounded; it is empty where the route reads its own."""

    __slots__ = ("_methods", "body", "context", "exchange", "parts", "query")

    def __init__(self, exchange: Exchange, methods: Methods, context: HttpContext, parts: tuple[str, ...], body: bytes) -> None:
        self.exchange = exchange
        self.context = context
        self.parts = parts
        self.body = body
        self.query = _query(exchange.query) if exchange.query else {}
        self._methods = methods

    @property
    def headers(self) -> Mapping[str, str]:
        """The request's headers, names in lower case."""
        return self.exchange.headers

    def json(self) -> Any:
        """The body as JSON, None where there is none. Raises MalformedRequest."""
        if not self.body:
            return None
        try:
            return orjson.loads(self.body)
        except orjson.JSONDecodeError as error:
            raise MalformedRequest(f"the body is not JSON: {error}") from error

    async def unary(self, method: str, request: Request) -> Any:
        """Calls a unary method, "/package.Service/Method"; its response message. Raises PenstockError."""
        with inner_cancellation():
            return message_of(await self._methods.unary(method, request, self.context))

    def stream(self, method: str, request: Request) -> AsyncIterator[Any]:
        """Calls a streaming method. The iterator is closed by who iterates it; its messages may be Encoded (message_of)."""
        return self._methods.stream(method, request, self.context)

    async def answer(self, status: int, value: Any, headers: Headers = ()) -> None:
        """The whole answer, as JSON. Raises ClientLeft."""
        await self.exchange.answer(status, dump(value), headers)

    async def start_stream(self, headers: Headers = (), *, content_type: bytes = EVENT_STREAM) -> None:
        """Begins an answer of events; `write` and `end` are to follow. Raises ClientLeft."""
        await self.exchange.start(200, ((b"content-type", content_type), *_STREAM_HEAD, *headers))

    async def write(self, piece: bytes) -> None:
        """Sends a piece of a begun answer. Raises ClientLeft."""
        await self.exchange.write(piece, more=True)

    async def end(self) -> None:
        """Ends a begun answer. Raises ClientLeft."""
        await self.exchange.write(b"", more=False)


def _query(text: bytes) -> dict[str, str]:
    return dict(parse_qsl(text.decode("latin-1"), keep_blank_values=True, max_num_fields=QUERY_FIELDS_MAX))


Handler = Callable[[DialectCall], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class DialectRoute:
    """Where a request of a dialect goes. `parts` are the variable segments of its path; a route that does not read its body for
    itself is given it whole. `fail` words what its handler, or reading the request, raises: (call or exchange, error).
    """

    handler: Handler
    fail: Callable[[Exchange, PenstockError], Awaitable[None]]
    parts: tuple[str, ...] = ()
    reads_own_body: bool = False


class Dialect(Protocol):
    """Another HTTP API of a service."""

    def find(self, http_method: str, path: str) -> DialectRoute | None:
        """The route of a path, percent-decoding left to the dialect; None where it has none."""
        ...

    def describe(self) -> Mapping[str, Any]:
        """What it adds to the OpenAPI document: {"paths": {...}, "components": {"schemas": {...}}}."""
        ...
