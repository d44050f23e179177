"""What every served call goes through, over gRPC and HTTP alike: tracing, the error boundary, admission, the deadline.

Each wraps a handler once, when it is mounted (see dispatcher.Interceptor). The published OpenTelemetry instrumentation for
grpc.aio loses the span of a cancelled stream and reports OK for a handler's error; hence our own.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, contextmanager
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry import propagate, trace
from opentelemetry.trace import SpanKind, Status, StatusCode

from penstock import semconv
from penstock.deadline import set_deadline
from penstock.dispatcher import CallContext, StreamHandler, UnaryHandler
from penstock.errors import Cancelled, Code, DeadlineExceeded, Internal, Overloaded, PenstockError

log = logging.getLogger("penstock.calls")

# The RPC conventions' list of what is the server's failure, not the caller's.
_SERVER_FAULTS = {Code.UNKNOWN, Code.DEADLINE_EXCEEDED, Code.UNIMPLEMENTED, Code.INTERNAL, Code.UNAVAILABLE, Code.DATA_LOSS}


class Tracing:
    """One SERVER span per call, a child of the caller's. It ends with the call's real outcome, a client that left included."""

    def __init__(self, tracer: trace.Tracer) -> None:
        self._tracer = tracer

    def unary(self, method: str, handler: UnaryHandler) -> UnaryHandler:
        async def traced(request: Any, context: CallContext) -> Any:
            with self._span(method, context):
                return await handler(request, context)

        return traced

    def stream(self, method: str, handler: StreamHandler) -> StreamHandler:
        async def traced(request: Any, context: CallContext) -> AsyncIterator[Any]:
            with self._span(method, context) as span:
                count = 0
                try:
                    async with aclosing(handler(request, context)) as messages:  # type: ignore[type-var]
                        async for message in messages:
                            if count == 0:
                                span.add_event("first_message")
                            count += 1
                            yield message
                finally:
                    span.set_attribute(semconv.PENSTOCK_MESSAGE_COUNT, count)

        return traced

    @contextmanager
    def _span(self, method: str, context: CallContext) -> Iterator[trace.Span]:
        parent = propagate.extract(context.metadata())
        name = method.lstrip("/")
        attributes = {semconv.RPC_SYSTEM_NAME: "grpc", semconv.RPC_METHOD: name}
        span = self._tracer.start_span(name, context=parent, kind=SpanKind.SERVER, attributes=attributes)
        token = otel_context.attach(trace.set_span_in_context(span, parent))
        try:
            yield span
        except PenstockError as error:
            end_with(span, error, is_fault=error.code in _SERVER_FAULTS)
            raise
        except (asyncio.CancelledError, GeneratorExit):
            end_with(span, Cancelled("the caller left"), is_fault=False)
            raise
        except BaseException as error:
            span.record_exception(error)
            end_with(span, Internal("internal error"), is_fault=True)
            raise
        else:
            span.set_attribute(semconv.RPC_RESPONSE_STATUS_CODE, "OK")
        finally:
            otel_context.detach(token)
            span.end()


class ErrorBoundary:
    """Turns whatever is not ours into Internal: the caller gets a fixed message, the log gets everything."""

    def unary(self, method: str, handler: UnaryHandler) -> UnaryHandler:
        async def bounded(request: Any, context: CallContext) -> Any:
            with self._boundary(method):
                if isinstance(request, PenstockError):
                    raise request
                return await handler(request, context)

        return bounded

    def stream(self, method: str, handler: StreamHandler) -> StreamHandler:
        async def bounded(request: Any, context: CallContext) -> AsyncIterator[Any]:
            with self._boundary(method):
                if isinstance(request, PenstockError):
                    raise request
                async with aclosing(handler(request, context)) as messages:  # type: ignore[type-var]
                    async for message in messages:
                        yield message

        return bounded

    @contextmanager
    def _boundary(self, method: str) -> Iterator[None]:
        try:
            yield
        except PenstockError as error:
            if isinstance(error, Internal):
                log.exception("%s failed: %s", method, error.message)
            elif error.code in _SERVER_FAULTS:
                log.warning("%s failed: %s: %s %s", method, error.reason, error.message, error.metadata)
            raise
        except Exception as error:
            log.exception("%s failed", method)
            raise Internal("internal error") from error


class Admission:
    """At most `concurrency_max` calls in flight in the whole process; the next is refused at once, not queued."""

    def __init__(self, concurrency_max: int, retry_after_s: float = 1.0) -> None:
        self._concurrency_max = concurrency_max
        self._retry_after_s = retry_after_s
        self.in_flight = 0

    def unary(self, method: str, handler: UnaryHandler) -> UnaryHandler:  # noqa: ARG002  # The port's signature.
        async def admitted(request: Any, context: CallContext) -> Any:
            with self._place():
                return await handler(request, context)

        return admitted

    def stream(self, method: str, handler: StreamHandler) -> StreamHandler:  # noqa: ARG002  # The port's signature.
        async def admitted(request: Any, context: CallContext) -> AsyncIterator[Any]:
            with self._place():
                async with aclosing(handler(request, context)) as messages:  # type: ignore[type-var]
                    async for message in messages:
                        yield message

        return admitted

    @contextmanager
    def _place(self) -> Iterator[None]:
        if self.in_flight >= self._concurrency_max:
            raise Overloaded(
                f"{self._concurrency_max} calls are in flight, which is this service's limit; try again later",
                metadata={"concurrency_max": str(self._concurrency_max)},
                retry_after_s=self._retry_after_s,
            )
        self.in_flight += 1
        try:
            yield
        finally:
            self.in_flight -= 1


class Deadline:
    """Ends a call whose time is up: the caller's deadline, or the service's own."""

    def unary(self, method: str, handler: UnaryHandler) -> UnaryHandler:
        async def bounded(request: Any, context: CallContext) -> Any:
            set_deadline(seconds := context.time_remaining())
            scope = asyncio.timeout(seconds)
            try:
                async with scope:
                    return await handler(request, context)
            except TimeoutError as error:
                raise _time_up(method, seconds, scope, error) from None

        return bounded

    def stream(self, method: str, handler: StreamHandler) -> StreamHandler:
        async def bounded(request: Any, context: CallContext) -> AsyncIterator[Any]:
            set_deadline(seconds := context.time_remaining())
            until = asyncio.get_running_loop().time() + seconds
            async with aclosing(handler(request, context)) as messages:  # type: ignore[type-var]
                while True:
                    # Around each message, not around the whole: the time-out must never hit the reader's own code.
                    scope = asyncio.timeout_at(until)
                    try:
                        async with scope:
                            message = await anext(messages, None)
                    except TimeoutError as error:
                        raise _time_up(method, seconds, scope, error) from None
                    if message is None:
                        return
                    yield message

        return bounded


def end_with(span: trace.Span, error: PenstockError, *, is_fault: bool) -> None:
    """Writes an error on a span: its status, its reason, and ERROR where it is a fault of the span's side."""
    span.set_attribute(semconv.RPC_RESPONSE_STATUS_CODE, error.code.grpc_name)
    span.set_attribute(semconv.PENSTOCK_REASON, error.reason)
    if is_fault:
        span.set_attribute(semconv.ERROR_TYPE, error.reason)
        span.set_status(Status(StatusCode.ERROR, "" if isinstance(error, Internal) else error.message))


def _time_up(method: str, seconds: float, scope: asyncio.Timeout, error: TimeoutError) -> Exception:
    if not scope.expired():
        return error  # Something inside ran out of a time of its own: not the caller's deadline.
    return DeadlineExceeded(f"{method.rpartition('/')[2]} did not finish within its {seconds:.3g} s")
