"""Beginning the span of a served call, and those within it, at next to no cost where nobody records it.

A call that is neither recorded here nor sampled by its caller needs no span: it needs a trace id to be logged, answered and
passed on. The SDK's way to that (extract, sample, start) costs 8 to 18 microseconds a call, this one 3, and less where nobody
ever wants to know the id.
"""

import random
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Final

from opentelemetry import baggage, propagate, trace
from opentelemetry.context import Context
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind
from opentelemetry.util.types import AttributeValue

_UNSAMPLED: Final = re.compile("00-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-00")
"""W3C's traceparent header of a caller that does not record."""
_W3C: Final = frozenset({"traceparent", "tracestate", "baggage"})


def inner_span(
    tracer: trace.Tracer, name: str, attributes: Mapping[str, AttributeValue] | None = None
) -> AbstractContextManager[trace.Span]:
    """A span around a part of a call, current while that runs.

    Where the call is not recorded its parts would not be either: then it is the call's own span, which takes whatever is said
    to it and keeps nothing. A span that the SDK makes and drops costs 20 to 60 microseconds.
    """
    current = unrecorded()
    return tracer.start_as_current_span(name, attributes=attributes) if current is None else nullcontext(current)


def unrecorded() -> trace.Span | None:
    """The current span, where it is one of a call that nobody records; a span below it would be made to be thrown away."""
    current = trace.get_current_span()
    if isinstance(current, _Unasked):
        return current
    return None if current.is_recording() or not current.get_span_context().is_valid else current


def carried(span: trace.Span) -> dict[str, str]:
    """The headers by which a trace goes on inside `span`, in another process.

    Those of W3C's trace context are written here where nothing else is to be carried; OpenTelemetry's own way takes ten times
    as long.
    """
    told = span.get_span_context()
    if told.trace_state or baggage.get_all() or not _is_w3c(propagate.get_global_textmap()):
        headers: dict[str, str] = {}
        propagate.inject(headers, context=trace.set_span_in_context(span))
        return headers
    return {"traceparent": f"00-{told.trace_id:032x}-{told.span_id:016x}-{told.trace_flags:02x}"} if told.is_valid else {}


@lru_cache(maxsize=4)
def _is_w3c(propagator: TextMapPropagator) -> bool:
    return propagator.fields <= _W3C


class Spans:
    """Begins the spans of a tracer. Without `records_unasked` what the caller has not sampled is not recorded."""

    def __init__(self, tracer: trace.Tracer, *, records_unasked: bool) -> None:
        self._tracer = tracer
        self._records_unasked = records_unasked
        self._headers = frozenset(propagate.get_global_textmap().fields)

    def begin(
        self, name: str, metadata: Mapping[str, str], *, kind: SpanKind, attributes: Mapping[str, str]
    ) -> tuple[trace.Span, Context | None]:
        """The span of a call that came with `metadata`, and the context that it is to be set in; None: the current one."""
        if not self._records_unasked:
            unrecorded = self._unrecorded(metadata)
            if unrecorded is not None:
                return unrecorded, None
        parent = propagate.extract(metadata)
        return self._tracer.start_span(name, context=parent, kind=kind, attributes=attributes), parent

    def _unrecorded(self, metadata: Mapping[str, str]) -> NonRecordingSpan | None:
        """A span that nobody records. None where the caller sampled, or sent more than a plain traceparent."""
        carried = self._headers & metadata.keys()
        if not carried:
            return _Unasked()
        if carried == {"traceparent"} and (parent := _UNSAMPLED.fullmatch(metadata["traceparent"])):
            return NonRecordingSpan(_context(int(parent[1], 16)))
        return None


class _Unasked(NonRecordingSpan):
    """The span of a call that came without a trace: its ids are made when something is logged, or called, under it."""

    def __init__(self) -> None:
        self._made: SpanContext | None = None

    def __repr__(self) -> str:
        return f"_Unasked({self._made!r})"

    def get_span_context(self) -> SpanContext:
        if self._made is None:
            self._made = _context(random.getrandbits(128) or 1)
        return self._made


def _context(trace_id: int) -> SpanContext:
    return SpanContext(trace_id, random.getrandbits(64) or 1, is_remote=False)
