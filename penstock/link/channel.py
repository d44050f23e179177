"""A channel whose calls go over a link while there is one to its target, and over gRPC else.

The link is found over gRPC, made in the background, and made again when it is lost. Generated stubs take the channel as they
take gRPC's own; what they raise over a link are our errors, which channel.rpc_errors knows as well as gRPC's.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from typing import Any, Final, cast

import grpc
from opentelemetry import context as otel_context
from opentelemetry import trace

from penstock.channel import Outgoing, finish, open_channel
from penstock.link import frames
from penstock.link.client import Link, LinkRefused, LinkStream, connect

_FIND_S: Final = 2.0
_AGAIN_MIN_S: Final = 0.2
_AGAIN_MAX_S: Final = 30.0
_UNRECORDED: Final = trace.NonRecordingSpan(trace.SpanContext(trace_id=1, span_id=1, is_remote=False))
"""The parent of calls that nobody asked for, so that they make no traces."""


def open_linked_channel(
    target: str,
    *,
    tracer_provider: trace.TracerProvider,
    message_bytes_max: int,
    retries: bool = True,
    api_key: str = "",
    principals: Callable[[], Collection[str] | None] | None = None,
    tenant: Callable[[], str] | None = None,
) -> grpc.aio.Channel:
    """As channel.open_channel, to one process of a Penstock service: `target` is "host:port". The caller closes it."""
    channel = open_channel(
        target,
        tracer_provider=tracer_provider,
        message_bytes_max=message_bytes_max,
        retries=retries,
        api_key=api_key,
        principals=principals,
        tenant=tenant,
    )
    outgoing = Outgoing(target, tracer_provider=tracer_provider, api_key=api_key, principals=principals, tenant=tenant)
    linked = _LinkedChannel(channel, _Keeper(channel, target, message_bytes_max), outgoing)
    return cast("grpc.aio.Channel", linked)


class _LinkedChannel:
    """What stubs and their users need of a grpc.aio.Channel."""

    def __init__(self, channel: grpc.aio.Channel, keeper: "_Keeper", outgoing: Outgoing) -> None:
        self._channel = channel
        self._keeper = keeper
        self._outgoing = outgoing
        self.get_state = channel.get_state
        self.wait_for_state_change = channel.wait_for_state_change

    def unary_unary(self, method: str, request_serializer: Any, response_deserializer: Any, **more: Any) -> Callable[..., Any]:
        over_grpc = self._channel.unary_unary(method, request_serializer, response_deserializer, **more)

        def call(request: Any, *, timeout: float) -> Any:  # gRPC's name.
            link = self._keeper.link
            if link is None:
                return over_grpc(request, timeout=timeout)
            return self._unary(link, method, request_serializer(request), response_deserializer, timeout)

        return call

    def unary_stream(self, method: str, request_serializer: Any, response_deserializer: Any, **more: Any) -> Callable[..., Any]:
        over_grpc = self._channel.unary_stream(method, request_serializer, response_deserializer, **more)

        def call(request: Any, *, timeout: float) -> Any:  # gRPC's name.
            link = self._keeper.link
            if link is None:
                return over_grpc(request, timeout=timeout)
            span, metadata = self._outgoing.begin(method)
            return _Stream(link.stream(method, request_serializer(request), metadata, timeout), response_deserializer, span)

        return call

    def stream_unary(self, *args: Any, **more: Any) -> Any:
        return self._channel.stream_unary(*args, **more)

    async def close(self, grace_s: float | None = None) -> None:
        """Closes both once the calls in flight have ended, or after `grace_s`."""
        await asyncio.gather(self._channel.close(grace_s), self._keeper.close(grace_s))

    async def _unary(self, link: Link, method: str, message: bytes, parse: Callable[[bytes], Any], seconds: float) -> Any:
        span, metadata = self._outgoing.begin(method)
        try:
            answer = await link.unary(method, message, metadata, seconds)
        except BaseException as error:
            finish(span, error)
            raise
        finish(span, None)
        return parse(answer)


class _Stream(AsyncIterator[Any]):
    """The messages of a stream, parsed; its span ends when it does."""

    __slots__ = ("_messages", "_parse", "_span")

    def __init__(self, messages: LinkStream, parse: Callable[[bytes], Any], span: trace.Span | None) -> None:
        self._messages = messages
        self._parse = parse
        self._span = span

    async def __anext__(self) -> Any:
        try:
            return self._parse(await self._messages.__anext__())
        except StopAsyncIteration:
            self._finish(None)
            raise
        except BaseException as error:
            self._finish(error)
            raise

    def cancel(self) -> None:
        self._messages.cancel()
        self._finish(asyncio.CancelledError())

    def _finish(self, error: BaseException | None) -> None:
        span, self._span = self._span, None
        finish(span, error)


class _Keeper:
    """Keeps a link to a target, from the first time that one is wanted."""

    def __init__(self, channel: grpc.aio.Channel, target: str, message_bytes_max: int) -> None:
        self._channel = channel
        self._find = channel.unary_unary(frames.FIND, None, None)
        self._host = target.rpartition(":")[0].strip("[]")
        self._message_bytes_max = message_bytes_max
        self._link: Link | None = None
        self._keeping: asyncio.Task[None] | None = None

    @property
    def link(self) -> Link | None:
        """The link, if there is one now."""
        if self._keeping is None:
            self._keeping = asyncio.get_running_loop().create_task(self._keep())
        link = self._link
        return link if link is not None and link.usable else None

    async def close(self, grace_s: float | None) -> None:
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)
        if self._link is not None:
            await self._link.close(grace_s)

    async def _keep(self) -> None:
        otel_context.attach(trace.set_span_in_context(_UNRECORDED))
        again_s = _AGAIN_MIN_S
        while True:
            self._link = await self._made()
            if self._link is not None:
                again_s = _AGAIN_MIN_S
                await self._link.gone()
            await asyncio.sleep(again_s)
            again_s = min(_AGAIN_MAX_S, 2 * again_s)

    async def _made(self) -> Link | None:
        await self._channel.channel_ready()
        try:
            port = int(await self._find(b"", timeout=_FIND_S) or b"0")
            return await connect(self._host, port, message_bytes_max=self._message_bytes_max) if port else None
        except (grpc.aio.AioRpcError, LinkRefused, ValueError):
            return None  # It has no links, or is not there, which the calls over gRPC will say.
