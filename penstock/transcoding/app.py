"""The HTTP front of a service: an ASGI app that serves its gRPC methods as their google.api.http annotations say.

    Transcoder -> RouteTable.find -> Binder.bind -> dispatcher.unary / .stream -> MessageRenderer / StreamAnswer

It calls the dispatcher directly, in the process and on the event loop that serve gRPC, so both go through the same interceptors
to the same servicers. Beside the methods it answers GET /healthz (the process lives), /readyz (it can serve), /openapi.json
and, where it is given that page, /metrics.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Protocol

from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message

from penstock.encoded import message_of
from penstock.errors import MessageTooLarge, MethodNotAllowed, PenstockError
from penstock.transcoding.binding import Binder
from penstock.transcoding.context import HttpContext, timeout_s
from penstock.transcoding.dialect import Dialect, DialectCall, DialectRoute
from penstock.transcoding.exchange import ClientLeft, Exchange, Receive, Scope, Send, inner_cancellation, unexpected
from penstock.transcoding.openapi import openapi, with_dialects
from penstock.transcoding.reading import Readers
from penstock.transcoding.rendering import Render, Renderers, dump
from penstock.transcoding.routes import Route, RouteTable, read_routes
from penstock.transcoding.streams import StreamAnswer, StreamShape

URL_BYTES_MAX: Final = 16 * 1024
"""Longest path and query together."""


Page = Callable[[str], Awaitable[tuple[bytes, str]]]
"""Gives a page in the form that an Accept header asks for, and its content type."""


class Dispatcher(Protocol):
    """Where calls go: the service's interceptors and servicers. Raises PenstockError, or CancelledError.

    `request` is the error itself where there was no reading a request, so that the failed call is traced like any other.
    """

    @property
    def dialects(self) -> Sequence[Dialect]:
        """Other HTTP APIs of the service, tried before the paths of its protos."""
        ...

    def unary(self, method: str, request: Message | PenstockError, context: HttpContext) -> Awaitable[Any]:
        """Calls a unary method, "/package.Service/Method"."""
        ...

    def stream(self, method: str, request: Message | PenstockError, context: HttpContext) -> AsyncIterator[Any]:
        """Calls a streaming method. The iterator is closed by who iterates it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Endpoint:
    """A route with everything that was compiled for it. `stream` is None for unary methods."""

    method: str
    binder: Binder
    takes_body: bool
    response_body: str
    render: Render | None
    stream: StreamShape | None


class Transcoder:
    """The ASGI app. `services` are full names whose generated modules have been imported.

    Raises UnsupportedRule when a rule cannot be served. `deadline_s` is the time of a call whose caller gave none, and the most
    that one may ask for. `heartbeat_s` is how long a stream may be silent before a comment is sent. `pool` has the services'
    descriptors; None: the pool of generated modules.
    """

    def __init__(
        self,
        services: Sequence[str],
        dispatcher: Dispatcher,
        *,
        message_bytes_max: int,
        ready: Callable[[], bool],
        heartbeat_s: float = 15.0,
        deadline_s: float = 300.0,
        title: str = "Penstock",
        version: str = "0",
        pool: DescriptorPool | None = None,
        metrics_page: Page | None = None,
    ) -> None:
        self._dispatcher = dispatcher
        self._message_bytes_max = message_bytes_max
        self._ready = ready
        self._heartbeat_s = heartbeat_s
        self._deadline_s = deadline_s
        self._describe: Callable[[], Mapping[str, Any]] = lambda: with_dialects(
            openapi(services, title=title, version=version, pool=pool), dispatcher.dialects
        )
        readers, renderers = Readers(), Renderers()
        self._table = RouteTable((route, _compile(route, readers, renderers)) for route in read_routes(services, pool))
        self._metrics_page = metrics_page
        self._pages: dict[str, Callable[[Exchange], Awaitable[None]]] = {
            "/healthz": self._answer_health,
            "/readyz": self._answer_readiness,
            "/openapi.json": self._answer_openapi,
        }
        if metrics_page is not None:
            self._pages["/metrics"] = self._answer_metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one ASGI scope. Nothing but cancellation comes out of it."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})
        else:
            await self._serve(Exchange(scope, receive, send))

    async def _serve(self, exchange: Exchange) -> None:
        try:
            try:
                await self._answer(exchange)
            except ClientLeft:
                raise
            except PenstockError as error:
                await exchange.fail(error)
            except Exception as error:  # noqa: BLE001  # unexpected() logs the whole of it.
                await exchange.fail(unexpected(error, f"{exchange.http_method} {exchange.path[:200]}"))
        except ClientLeft:
            return

    async def _answer(self, exchange: Exchange) -> None:
        route = self._dialect_route(exchange)
        if route is not None:
            await self._answer_in_dialect(exchange, route)
            return
        if len(exchange.path) + len(exchange.query) > URL_BYTES_MAX:
            raise MessageTooLarge(f"the URL is over {URL_BYTES_MAX} bytes", metadata={"limit_bytes": str(URL_BYTES_MAX)})
        page = self._pages.get(exchange.path)
        http_method = "GET" if exchange.http_method == "HEAD" else exchange.http_method
        if page is None:
            endpoint, segments = self._table.find(http_method, exchange.path)
            await self._call(exchange, endpoint, segments)
        elif http_method == "GET":
            await page(exchange)
        else:
            raise MethodNotAllowed(f"{exchange.path} takes GET", metadata={"allow": "GET, HEAD"})

    def _dialect_route(self, exchange: Exchange) -> DialectRoute | None:
        if len(exchange.path) + len(exchange.query) > URL_BYTES_MAX:
            return None
        for dialect in self._dispatcher.dialects:
            route = dialect.find(exchange.http_method, exchange.path)
            if route is not None:
                return route
        return None

    async def _answer_in_dialect(self, exchange: Exchange, route: DialectRoute) -> None:
        try:
            context = HttpContext(exchange.headers, deadline_s=timeout_s(exchange.headers, self._deadline_s))
            body = b"" if route.reads_own_body else await exchange.read_body(self._message_bytes_max, context)
            work = route.handler(DialectCall(exchange, self._dispatcher, context, route.parts, body))
            if route.reads_own_body:
                await work
            else:
                await _while_client_stays(exchange, work)
        except ClientLeft:
            raise
        except PenstockError as error:
            await route.fail(exchange, error)
        except Exception as error:  # noqa: BLE001  # unexpected() logs the whole of it.
            await route.fail(exchange, unexpected(error, f"{exchange.http_method} {exchange.path[:200]}"))

    async def _call(self, exchange: Exchange, endpoint: _Endpoint, segments: Sequence[str]) -> None:
        context = HttpContext(exchange.headers, deadline_s=timeout_s(exchange.headers, self._deadline_s))
        request = await self._read(exchange, endpoint, segments, context)
        if endpoint.stream is None:
            work = self._call_unary(exchange, endpoint, request, context)
        else:
            work = self._call_stream(exchange, endpoint, endpoint.stream, request, context)
        if isinstance(request, PenstockError):
            await work  # At once, and watching for the client's leaving would read what is left of a body too large.
        else:
            await _while_client_stays(exchange, work)

    async def _read(
        self, exchange: Exchange, endpoint: _Endpoint, segments: Sequence[str], context: HttpContext
    ) -> Message | PenstockError:
        """The request's message, or what is wrong with it. Raises ClientLeft."""
        try:
            body = await exchange.read_body(self._message_bytes_max, context)
            if body and endpoint.takes_body:
                exchange.check_json()
            return endpoint.binder.bind(segments, exchange.query, body)
        except PenstockError as error:
            return error

    async def _call_unary(
        self, exchange: Exchange, endpoint: _Endpoint, request: Message | PenstockError, context: HttpContext
    ) -> None:
        with inner_cancellation():
            response = message_of(await self._dispatcher.unary(endpoint.method, request, context))
        value = getattr(response, endpoint.response_body) if endpoint.response_body else response
        await exchange.answer(200, dump(endpoint.render(value) if endpoint.render else value))

    async def _call_stream(
        self,
        exchange: Exchange,
        endpoint: _Endpoint,
        shape: StreamShape,
        request: Message | PenstockError,
        context: HttpContext,
    ) -> None:
        answer = StreamAnswer(exchange, shape, heartbeat_s=self._heartbeat_s)
        if exchange.wants_body:
            await answer.relay(self._dispatcher.stream(endpoint.method, request, context))
        else:
            await answer.end()

    async def _answer_health(self, exchange: Exchange) -> None:
        await exchange.answer(200, b'{"status":"alive"}')

    async def _answer_readiness(self, exchange: Exchange) -> None:
        if self._ready():
            await exchange.answer(200, b'{"status":"ready"}')
        else:
            await exchange.answer(503, b'{"status":"not ready"}', ((b"retry-after", b"1"),))

    async def _answer_metrics(self, exchange: Exchange) -> None:
        assert self._metrics_page is not None  # noqa: S101  # Or there is no such path.
        body, content_type = await self._metrics_page(exchange.headers.get("accept", ""))
        await exchange.answer(200, body, content_type=content_type.encode())

    async def _answer_openapi(self, exchange: Exchange) -> None:
        await exchange.answer(200, self._openapi_json)

    @cached_property
    def _openapi_json(self) -> bytes:
        return dump(self._describe())


def _compile(route: Route, readers: Readers, renderers: Renderers) -> _Endpoint:
    answered = route.rpc.output_type
    cut_to = answered.fields_by_name.get(route.response_body)
    return _Endpoint(
        method=route.method,
        binder=Binder(route, readers),
        takes_body=bool(route.body),
        response_body=route.response_body,
        render=renderers.field(cut_to) if cut_to else renderers.of(answered),
        stream=StreamShape.of(answered, renderers) if route.rpc.server_streaming else None,
    )


async def _while_client_stays(exchange: Exchange, work: Awaitable[None]) -> None:
    """Awaits the coroutine `work`, and cancels it when the client leaves first: then it raises ClientLeft."""
    task = asyncio.current_task()
    if exchange.when_left is None or task is None:
        await _watched(exchange, work)
        return
    left = False

    def leave() -> None:
        nonlocal left
        left = True
        task.cancel()

    exchange.when_left.add(leave)
    try:
        await work
    except asyncio.CancelledError:
        if left and task.cancelling() == 1:
            raise ClientLeft from None
        raise
    finally:
        exchange.when_left.discard(leave)
        if left:
            task.uncancel()


async def _watched(exchange: Exchange, work: Awaitable[None]) -> None:
    """The same where the server tells of a client's leaving in receive() alone.

    The work has a task of its own, so that a client's leaving and the server's own cancellation stay apart.
    """
    task = asyncio.ensure_future(work)
    watch = asyncio.create_task(_cancel_when_left(exchange, task))
    try:
        await task
    except asyncio.CancelledError:
        current = asyncio.current_task()
        if current is not None and current.cancelling():
            raise
        raise ClientLeft from None
    finally:
        watch.cancel()


async def _cancel_when_left(exchange: Exchange, task: asyncio.Task[None]) -> None:
    await exchange.left()
    task.cancel()


async def _live(receive: Receive, send: Send) -> None:
    """ASGI's lifespan: there is nothing to start or to stop."""
    while True:
        event = await receive()
        await send({"type": f"{event['type']}.complete"})
        if event["type"] == "lifespan.shutdown":
            return
