"""gRPC's way into the dispatcher: the server's options, bytes to messages, errors to statuses."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from typing import Any, Final

import grpc
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.message import DecodeError, Message
from google.rpc import status_pb2
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from grpc_status import rpc_status

from penstock.dispatcher import Dispatcher, Request
from penstock.errors import MalformedRequest, MessageTooLarge, PenstockError
from penstock.health import Health
from penstock.link.frames import FIND
from penstock.settings import ServiceSettings
from penstock.wire import to_status

_ABANDONED_KNOWN_AFTER_S: Final = 0.03
"""From the apparent end of a client's stream to its cancellation, if it was one: measured 2 ms, 6 at most with 300 at once."""


def grpc_server(
    settings: ServiceSettings,
    dispatcher: Dispatcher,
    healthy: Health,
    *,
    shared: bool = False,
    link_port: Callable[[], str] = str,
) -> grpc.aio.Server:
    """A grpc.aio server over the dispatcher, with health and reflection. Not yet bound or started.

    `shared`: its port is reserved for it and other workers (see ports). `link_port` is where links are taken; empty: nowhere.
    """
    age_ms = int(settings.connection_age_max_s * 1000)
    server = grpc.aio.server(
        handlers=[
            GrpcFront(
                dispatcher,
                message_bytes_max=settings.message_bytes_max,
                deadline_s=settings.deadline_s,
                link_port=link_port,
            )
        ],
        options=[
            # Requests over message_bytes_max are refused by GrpcFront with a reason; gRPC's own limit, which has none, stands
            # above it so that memory stays bounded.
            ("grpc.max_receive_message_length", 4 * settings.message_bytes_max),
            ("grpc.max_connection_age_ms", age_ms),
            # A stream may live as long as its deadline; a shorter grace would cut it.
            ("grpc.max_connection_age_grace_ms", int(settings.deadline_s * 1000)),
            ("grpc.keepalive_time_ms", 60_000),
            ("grpc.keepalive_timeout_ms", 20_000),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.max_ping_strikes", 0),
            ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
            # Two strangers on one port would share its calls in silence.
            ("grpc.so_reuseport", int(shared)),
        ],
    )
    health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
    reflection.enable_server_reflection([*dispatcher.services, health.SERVICE_NAME, reflection.SERVICE_NAME], server)
    return server


class GrpcFront(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # Not generic at run time.
    """Serves whatever is, or will be, mounted on the dispatcher."""

    def __init__(
        self, dispatcher: Dispatcher, *, message_bytes_max: int, deadline_s: float, link_port: Callable[[], str] = str
    ) -> None:
        self._dispatcher = dispatcher
        self._message_bytes_max = message_bytes_max
        self._deadline_s = deadline_s
        self._handlers: dict[str, Any] = {FIND: _finding(link_port)}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """The handler of a method, or None for one that is not ours: gRPC then answers UNIMPLEMENTED."""
        method = handler_call_details.method
        handler = self._handlers.get(method)
        if handler is None and self._dispatcher.serves(method):
            handler = self._build(method)
        return handler

    def _build(self, method: str) -> Any:
        mounted = self._dispatcher.find(method)
        if mounted is None and self._dispatcher.ready:
            return None
        if mounted is None:  # Still loading: the dispatcher refuses it as NOT_READY.
            return grpc.unary_unary_rpc_method_handler(self._unary(method))
        parse = _guarded(mounted.parse, self._message_bytes_max)
        if mounted.takes_stream:
            handler = grpc.stream_unary_rpc_method_handler(self._taking(method), parse, mounted.serialise)
        elif mounted.streams:
            handler = grpc.unary_stream_rpc_method_handler(self._stream(method), parse, mounted.serialise)
        else:
            handler = grpc.unary_unary_rpc_method_handler(self._unary(method), parse, mounted.serialise)
        self._handlers[method] = handler
        return handler

    def _unary(self, method: str) -> Any:
        async def serve(request: Request, context: Any) -> Any:
            try:
                return await self._dispatcher.unary(method, request, GrpcContext(context, self._deadline_s))
            except PenstockError as error:
                await _abort(context, error)

        return serve

    def _taking(self, method: str) -> Any:
        unary = self._unary(method)

        async def serve(requests: AsyncIterator[Request], context: Any) -> Any:
            async with aclosing(_readable(requests)) as messages:  # type: ignore[type-var]
                return await unary(messages, context)

        return serve

    def _stream(self, method: str) -> Any:
        in_band = _error_message_of(method)

        # A coroutine that writes, not an async generator: grpc.aio does not close a generator whose client has left.
        async def serve(request: Request, context: Any) -> None:
            begun = False
            try:
                async with aclosing(
                    self._dispatcher.stream(method, request, GrpcContext(context, self._deadline_s))
                ) as messages:  # type: ignore[type-var]
                    async for message in messages:
                        await context.write(message)
                        begun = True
            except PenstockError as error:
                if begun and in_band is not None:
                    await context.write(in_band(to_status(error)))
                await _abort(context, error)

        return serve


class GrpcContext:
    """The dispatcher's CallContext over grpc.aio's."""

    __slots__ = ("_context", "_deadline_s", "_metadata")

    def __init__(self, context: Any, deadline_s: float) -> None:
        self._context = context
        self._deadline_s = deadline_s
        self._metadata: Mapping[str, str] | None = None

    def metadata(self) -> Mapping[str, str]:
        """Text metadata; binary entries are left out."""
        if self._metadata is None:  # grpc makes it anew each time.
            pairs = self._context.invocation_metadata() or ()
            self._metadata = {key: value for key, value in pairs if isinstance(value, str)}
        return self._metadata

    def time_remaining(self) -> float:
        """Seconds until the caller's deadline, at most the service's own."""
        remaining = self._context.time_remaining()
        return self._deadline_s if remaining is None else max(0.0, min(remaining, self._deadline_s))


def _finding(link_port: Callable[[], str]) -> Any:
    """The handler that says where links are taken (penstock/link)."""

    async def find(_: bytes, __: Any) -> bytes:
        return link_port().encode()

    return grpc.unary_unary_rpc_method_handler(find)


async def _readable(requests: AsyncIterator[Request]) -> AsyncIterator[Message]:
    """The messages of a client's stream, each read when it is asked for, so that gRPC holds back a client that is too fast.

    Raises what is wrong with a message in its place. A stream that its client gave up looks as if it had ended until gRPC tells
    of the cancellation, which it does right after; so whoever sees the end of the messages knows that they are all.
    """
    async for request in requests:
        if isinstance(request, PenstockError):
            raise request
        yield request  # type: ignore[misc]  # The error is out.
    await asyncio.sleep(_ABANDONED_KNOWN_AFTER_S)


def _guarded(parse: Callable[[bytes], Message], bytes_max: int) -> Callable[[bytes], Request]:
    """A deserialiser that gives an error in the request's place, since gRPC would answer a raised one without a reason."""

    def parse_or_refuse(data: bytes) -> Request:
        if len(data) > bytes_max:
            return MessageTooLarge(
                f"the request has {len(data)} bytes, the limit is {bytes_max}; send it in parts",
                metadata={"bytes": str(len(data)), "bytes_max": str(bytes_max)},
            )
        try:
            return parse(data)
        except DecodeError as error:
            if "MaxDepth" in str(error):  # Protobuf tells it apart in no other way.
                return MalformedRequest("the request is nested too deeply: protobuf takes 100 levels")
            return MalformedRequest("the bytes are not the message that this method takes; check the proto version")

    return parse_or_refuse


async def _abort(context: Any, error: PenstockError) -> None:
    if context.done():
        raise asyncio.CancelledError  # The client has left: there is nobody to tell.
    await context.abort_with_status(rpc_status.to_status(to_status(error)))


def _error_message_of(method: str) -> Callable[[status_pb2.Status], Message] | None:
    """Builds the stream's own message around an error, where its type has a field for one."""
    service, _, name = method.strip("/").rpartition("/")
    descriptor = descriptor_pool.Default().FindServiceByName(service).methods_by_name[name].output_type
    field = descriptor.fields_by_name.get("error")
    if field is None or field.message_type is None or field.message_type.full_name != "google.rpc.Status":
        return None
    message_class = message_factory.GetMessageClass(descriptor)
    return lambda status: message_class(error=status)
