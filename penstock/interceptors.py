"""What every served call goes through, over gRPC and HTTP alike: tracing, the error boundary, admission, the deadline.

Each stands around the call of a servicer (see dispatcher.Interceptor). The published OpenTelemetry instrumentation for grpc.aio
loses the span of a cancelled stream and reports OK for a handler's error; hence our own.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from contextvars import Token
from types import TracebackType
from typing import Any, Self

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import SpanKind, Status, StatusCode

from penstock import semconv
from penstock.deadline import set_deadline
from penstock.dispatcher import Around, CallContext, Interceptor, StreamHandler
from penstock.errors import Cancelled, Code, DeadlineExceeded, Internal, Overloaded, PenstockError
from penstock.tracing import Spans

log = logging.getLogger("penstock.calls")

# The RPC conventions' list of what is the server's failure, not the caller's.
_SERVER_FAULTS = {Code.UNKNOWN, Code.DEADLINE_EXCEEDED, Code.UNIMPLEMENTED, Code.INTERNAL, Code.UNAVAILABLE, Code.DATA_LOSS}


class Tracing(Interceptor):
    """One SERVER span per call, a child of the caller's. It ends with the call's real outcome, a client that left included.

    Without `records_unasked` only calls whose caller sampled them are recorded; the others have a trace id and no more.
    """

    def __init__(self, tracer: trace.Tracer, *, records_unasked: bool = True) -> None:
        self._spans = Spans(tracer, records_unasked=records_unasked)

    def around(self, method: str, *, streams: bool) -> Around:  # noqa: ARG002  # The port's signature.
        name = method.lstrip("/")
        attributes = {semconv.RPC_SYSTEM_NAME: "grpc", semconv.RPC_METHOD: name}

        def traced(context: CallContext) -> _Traced:
            span, parent = self._spans.begin(name, context.metadata(), kind=SpanKind.SERVER, attributes=attributes)
            return _Traced(span, parent)

        return traced

    def messages(self, method: str, handler: StreamHandler) -> StreamHandler:  # noqa: ARG002  # The port's signature.
        def messages(request: Any, context: CallContext) -> AsyncIterator[Any]:
            span = trace.get_current_span()
            return counted(request, context, span) if span.is_recording() else handler(request, context)

        async def counted(request: Any, context: CallContext, span: trace.Span) -> AsyncIterator[Any]:
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

        return messages


class _Traced:
    """A span that is current while the call runs and knows afterwards how it ended."""

    __slots__ = ("_parent", "_span", "_token")

    def __init__(self, span: trace.Span, parent: Context | None) -> None:
        self._span = span
        self._parent = parent

    def __enter__(self) -> None:
        self._token: Token[Context] = otel_context.attach(trace.set_span_in_context(self._span, self._parent))

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None) -> None:
        if self._span.is_recording():
            _tell_outcome(self._span, error)
            self._span.end()
        otel_context.detach(self._token)


def _tell_outcome(span: trace.Span, error: BaseException | None) -> None:
    if error is None:
        span.set_attribute(semconv.RPC_RESPONSE_STATUS_CODE, "OK")
        return
    known = outcome(error)
    if isinstance(known, Internal) and known is not error:
        span.record_exception(error)
    end_with(span, known, is_fault=known.code in _SERVER_FAULTS)


def outcome(error: BaseException) -> PenstockError:
    """What an exception that ends a call is to its caller."""
    if isinstance(error, PenstockError):
        return error
    if isinstance(error, asyncio.CancelledError | GeneratorExit):
        return Cancelled("the caller left")
    return Internal("internal error")


class ErrorBoundary(Interceptor):
    """Turns whatever is not ours into Internal: the caller gets a fixed message, the log gets everything."""

    def around(self, method: str, *, streams: bool) -> Around:  # noqa: ARG002  # The port's signature.
        boundary = _Boundary(method)  # It keeps nothing of a call: one serves them all.
        return lambda _: boundary


class _Boundary:
    __slots__ = ("_method",)

    def __init__(self, method: str) -> None:
        self._method = method

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None) -> None:
        if isinstance(error, Internal):
            log.error("%s failed: %s", self._method, error.message, exc_info=error)
        elif isinstance(error, PenstockError):
            if error.code in _SERVER_FAULTS:
                log.warning("%s failed: %s: %s %s", self._method, error.reason, error.message, error.metadata)
        elif isinstance(error, Exception):
            log.error("%s failed", self._method, exc_info=error)
            raise Internal("internal error") from error


class Admission(Interceptor):
    """At most `concurrency_max` calls in flight in the whole process; the next is refused at once, not queued."""

    def __init__(self, concurrency_max: int, retry_after_s: float = 1.0) -> None:
        self._concurrency_max = concurrency_max
        self._retry_after_s = retry_after_s
        self.in_flight = 0

    def around(self, method: str, *, streams: bool) -> Around:  # noqa: ARG002  # The port's signature.
        return lambda _: self

    def __enter__(self) -> Self:
        if self.in_flight >= self._concurrency_max:
            raise Overloaded(
                f"{self._concurrency_max} calls are in flight, which is this service's limit; try again later",
                metadata={"concurrency_max": str(self._concurrency_max)},
                retry_after_s=self._retry_after_s,
            )
        self.in_flight += 1
        return self

    def __exit__(self, *_: object) -> None:
        self.in_flight -= 1


class Deadline(Interceptor):
    """Ends a call whose time is up: the caller's deadline, or the service's own."""

    def around(self, method: str, *, streams: bool) -> Around:
        if streams:
            return lambda _: None  # The time-out must never hit the reader's own code; see `messages`.
        name = method.rpartition("/")[2]

        def bounded(context: CallContext) -> _TimeLimit:
            set_deadline(seconds := context.time_remaining())
            return _TimeLimit(name, seconds, time.monotonic() + seconds)

        return bounded

    def messages(self, method: str, handler: StreamHandler) -> StreamHandler:
        name = method.rpartition("/")[2]

        async def bounded(request: Any, context: CallContext) -> AsyncIterator[Any]:
            set_deadline(seconds := context.time_remaining())
            until = time.monotonic() + seconds
            async with aclosing(handler(request, context)) as messages:  # type: ignore[type-var]
                limit = _StreamLimit(name, seconds, until)
                try:
                    while True:
                        with limit:
                            message = await anext(messages, None)
                        if message is None:
                            return
                        yield message
                finally:
                    limit.close()

        return bounded


class _TimeLimit:
    """asyncio.timeout without its coroutines, and with our error: cancels the block and raises DeadlineExceeded."""

    __slots__ = ("_cancelling", "_expired", "_name", "_seconds", "_task", "_timer", "_until")

    def __init__(self, name: str, seconds: float, until: float) -> None:
        self._name, self._seconds, self._until = name, seconds, until
        self._expired = False

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  # Both transports serve each call in a task.
        self._task = task
        self._cancelling = task.cancelling()
        left_s = max(0.0, self._until - time.monotonic())
        self._timer = asyncio.get_running_loop().call_later(left_s, self._expire)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._timer.cancel()
        self._tell(kind, error)

    def _tell(self, kind: type[BaseException] | None, error: BaseException | None) -> None:
        # Cancelled by others as well: then it is their cancellation that goes on.
        if self._expired and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise self._error() from error

    def _error(self) -> DeadlineExceeded:
        return DeadlineExceeded(f"{self._name} did not finish within its {self._seconds:.3g} s")

    def _expire(self) -> None:
        self._expired = True
        self._task.cancel()


class _StreamLimit(_TimeLimit):
    """The same for a stream: entered for each of its messages, with one timer for them all."""

    __slots__ = ("_is_over", "_is_waiting")

    def __init__(self, name: str, seconds: float, until: float) -> None:
        super().__init__(name, seconds, until)
        self._is_over = self._is_waiting = False
        self._timer = asyncio.get_running_loop().call_later(max(0.0, until - time.monotonic()), self._expire)

    def __enter__(self) -> None:
        if self._is_over:
            raise self._error()
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  # As above.
        self._task, self._cancelling, self._is_waiting = task, task.cancelling(), True

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._is_waiting = False
        self._tell(kind, error)

    def close(self) -> None:
        """No message is waited for any more."""
        self._timer.cancel()

    def _expire(self) -> None:
        self._is_over = True
        if self._is_waiting:  # Else it is the reader's own code that runs, which must not be hit.
            super()._expire()


def end_with(span: trace.Span, error: PenstockError, *, is_fault: bool) -> None:
    """Writes an error on a span: its status, its reason, and ERROR where it is a fault of the span's side."""
    span.set_attribute(semconv.RPC_RESPONSE_STATUS_CODE, error.code.grpc_name)
    span.set_attribute(semconv.PENSTOCK_REASON, error.reason)
    if is_fault:
        span.set_attribute(semconv.ERROR_TYPE, error.reason)
        span.set_status(Status(StatusCode.ERROR, "" if isinstance(error, Internal) else error.message))
