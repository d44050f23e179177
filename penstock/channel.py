"""Channels to other services: keepalive, round robin over replicas, retries as data, tracing, and errors as ours.

Retries are the service config's: UNAVAILABLE only, with throttling, so that a refusal for overload never feeds a storm. New
replicas are found because servers close old connections (ServiceSettings.connection_age_max_s), which makes DNS be asked again.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Collection
from types import TracebackType
from typing import Any, Final

import grpc
from opentelemetry import trace
from opentelemetry.trace import SpanKind

import penstock
from penstock import semconv
from penstock.errors import BackendUnavailable, Cancelled, Code, Internal, PenstockError, Unavailable
from penstock.identity import PRINCIPALS_HEADER, TENANT_HEADER, write_principals, write_tenant
from penstock.interceptors import end_with
from penstock.tracing import carried, unrecorded
from penstock.wire import from_rpc_error

SERVICE_CONFIG: Final = json.dumps(
    {
        "loadBalancingConfig": [{"round_robin": {}}],
        "methodConfig": [
            {
                "name": [{}],
                "retryPolicy": {
                    "maxAttempts": 3,
                    "initialBackoff": "0.05s",
                    "maxBackoff": "0.5s",
                    "backoffMultiplier": 3,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ],
        "retryThrottling": {"maxTokens": 10, "tokenRatio": 0.1},
        "healthCheckConfig": {"serviceName": ""},
    }
)
SERVICE_CONFIG_WITHOUT_RETRIES: Final = json.dumps(
    {"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": ""}}
)


def open_channel(
    target: str,
    *,
    tracer_provider: trace.TracerProvider,
    message_bytes_max: int,
    retries: bool = True,
    api_key: str = "",
    principals: Callable[[], Collection[str] | None] | None = None,
    tenant: Callable[[], str] | None = None,
) -> grpc.aio.Channel:
    """A channel to `target`, such as "dns:///penstock-retrieval:50051" or "127.0.0.1:50051". The caller closes it.

    `retries`: not for a caller who has another replica to turn to, and must hear of a failure at once. Every call shows
    `api_key`, where there is one, and says that it is made on behalf of `principals()`, and on the account of `tenant()`, where
    those are any.
    """
    outgoing = Outgoing(target, tracer_provider=tracer_provider, api_key=api_key, principals=principals, tenant=tenant)
    kinds = (UnaryTracing, StreamTracing, TakingTracing)
    return grpc.aio.insecure_channel(
        target,
        options=[
            ("grpc.service_config", SERVICE_CONFIG if retries else SERVICE_CONFIG_WITHOUT_RETRIES),
            ("grpc.enable_retries", 1),
            ("grpc.max_receive_message_length", message_bytes_max),
            ("grpc.max_send_message_length", message_bytes_max),
            ("grpc.keepalive_time_ms", 30_000),
            ("grpc.keepalive_timeout_ms", 10_000),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 2_000),
        ],
        interceptors=[kind(outgoing) for kind in kinds],  # type: ignore[misc]  # Stubs' gap.
    )


class rpc_errors:  # noqa: N801  # Used as a function; contextlib's way costs three times as much.
    """Turns a failed call to `service` ("retrieval") into the error that the other side raised, `service` in its metadata.

    UNAVAILABLE without a reason of ours is gRPC's own word, and a link's, for "cannot be reached": BackendUnavailable.
    """

    __slots__ = ("_service",)

    def __init__(self, service: str) -> None:
        self._service = service

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: type[BaseException] | None, failed: BaseException | None, __: TracebackType | None) -> None:
        if isinstance(failed, grpc.aio.AioRpcError):
            raise _told(from_rpc_error(failed), self._service) from failed
        if isinstance(failed, PenstockError):
            raise _told(failed, self._service) from failed.__cause__


def _told(error: PenstockError, service: str) -> PenstockError:
    if type(error) is Unavailable:
        error = BackendUnavailable(f"the {service} service cannot be reached: {error.message}", retry_after_s=1.0)
    return error.located(service=service)


class Outgoing:
    """What goes with every call to a target: its CLIENT span where somebody records it, and its metadata."""

    def __init__(
        self,
        target: str,
        *,
        tracer_provider: trace.TracerProvider,
        api_key: str = "",
        principals: Callable[[], Collection[str] | None] | None = None,
        tenant: Callable[[], str] | None = None,
    ) -> None:
        self._tracer = tracer_provider.get_tracer("penstock.channel", penstock.__version__)
        self._target = target
        self._key = {"authorization": f"Bearer {api_key}"} if api_key else {}
        self._principals = principals
        self._tenant = tenant

    def begin(self, method: str) -> tuple[trace.Span | None, dict[str, str]]:
        """Of a call that is about to be made. The trace goes on inside the span, so that the server's span is its child."""
        current = unrecorded()
        if current is not None:
            return None, {**carried(current), **self._metadata()}
        name = method.lstrip("/")
        attributes = {semconv.RPC_SYSTEM_NAME: "grpc", semconv.RPC_METHOD: name, semconv.SERVER_ADDRESS: self._target}
        span = self._tracer.start_span(name, kind=SpanKind.CLIENT, attributes=attributes)
        return span, {**carried(span), **self._metadata()}

    def _metadata(self) -> dict[str, str]:
        told = self._key
        if self._principals is not None and (principals := self._principals()):
            told = {**told, PRINCIPALS_HEADER: write_principals(principals)}
        if self._tenant is not None and (tenant := self._tenant()):
            told = {**told, TENANT_HEADER: write_tenant(tenant)}
        return told


def finish(span: trace.Span | None, error: BaseException | None) -> None:
    """Ends the span of a call as the call ended."""
    if span is not None:
        _finish(span, None if error is None else _outcome(error))


class _Tracing:
    """One CLIENT span per call."""

    def __init__(self, outgoing: Outgoing) -> None:
        self._outgoing = outgoing
        self._finishing: set[asyncio.Task[None]] = set()

    async def _traced(
        self,
        continuation: Callable[[grpc.aio.ClientCallDetails, Any], Awaitable[Any]],
        details: grpc.aio.ClientCallDetails,
        request: Any,
    ) -> Any:
        method = details.method.decode() if isinstance(details.method, bytes) else details.method
        span, told = self._outgoing.begin(method)
        metadata = grpc.aio.Metadata(*(details.metadata or ()), *told.items())
        details = grpc.aio.ClientCallDetails(
            details.method, details.timeout, metadata, details.credentials, details.wait_for_ready
        )
        if span is None:
            return await continuation(details, request)
        try:
            call = await continuation(details, request)
        except BaseException as error:
            finish(span, error)
            raise
        # The span ends when the call does, however it does: read to its end, failed, cancelled or abandoned.
        call.add_done_callback(lambda done: self._finish_later(span, done))
        return call

    def _finish_later(self, span: trace.Span, call: Any) -> None:
        # The status is known when the callback runs, but can only be read by awaiting it.
        task = asyncio.get_running_loop().create_task(_finish_when_known(span, call))
        self._finishing.add(task)  # The loop itself holds tasks weakly.
        task.add_done_callback(self._finishing.discard)


class UnaryTracing(_Tracing, grpc.aio.UnaryUnaryClientInterceptor):  # type: ignore[type-arg]  # Not generic at run time.
    """For unary calls."""

    async def intercept_unary_unary(
        self, continuation: Any, client_call_details: grpc.aio.ClientCallDetails, request: Any
    ) -> Any:
        return await self._traced(continuation, client_call_details, request)


class StreamTracing(_Tracing, grpc.aio.UnaryStreamClientInterceptor):  # type: ignore[type-arg]  # Likewise.
    """For server streams."""

    async def intercept_unary_stream(
        self, continuation: Any, client_call_details: grpc.aio.ClientCallDetails, request: Any
    ) -> Any:
        return await self._traced(continuation, client_call_details, request)


class TakingTracing(_Tracing, grpc.aio.StreamUnaryClientInterceptor):  # type: ignore[type-arg]  # Likewise.
    """For client streams."""

    async def intercept_stream_unary(
        self, continuation: Any, client_call_details: grpc.aio.ClientCallDetails, request_iterator: Any
    ) -> Any:
        return await self._traced(continuation, client_call_details, request_iterator)


async def _finish_when_known(span: trace.Span, call: Any) -> None:
    code: grpc.StatusCode = await call.code()
    if code is grpc.StatusCode.OK:
        _finish(span, None)
    elif code is grpc.StatusCode.CANCELLED:
        _finish(span, Cancelled("the caller left"))
    else:
        initial, trailing = await call.initial_metadata(), await call.trailing_metadata()
        _finish(span, from_rpc_error(grpc.aio.AioRpcError(code, initial, trailing, await call.details(), None)))


def _outcome(error: BaseException) -> PenstockError:
    if isinstance(error, asyncio.CancelledError):
        return Cancelled("the caller left")
    if isinstance(error, PenstockError):
        return error
    if isinstance(error, grpc.aio.AioRpcError):
        return from_rpc_error(error)
    return Internal(str(error))


def _finish(span: trace.Span, error: PenstockError | None) -> None:
    if error is None:
        span.set_attribute(semconv.RPC_RESPONSE_STATUS_CODE, "OK")
    else:
        # To a client every failure is one, but for its own leaving.
        end_with(span, error, is_fault=error.code is not Code.CANCELLED)
    span.end()
