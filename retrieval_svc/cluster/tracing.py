"""Spans of a fan-out: one a search, with one child for each slot that was asked. Nothing is made where nobody records."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.trace import Span, Status, StatusCode, Tracer

from penstock.errors import PenstockError

SLOT: Final = "penstock.cluster.slot"
SHARDS: Final = "penstock.cluster.shards"
SLOT_COUNT: Final = "penstock.cluster.slot_count"
QUERY_COUNT: Final = "penstock.query.count"
MISSING_SHARDS: Final = "penstock.cluster.missing_shards"


@contextmanager
def fan_out_span(tracer: Tracer, *, slot_count: int, query_count: int) -> Iterator[Span]:
    """Around everything that one search asks of shards."""
    current = trace.get_current_span()
    if not current.is_recording():
        yield current
        return
    attributes = {SLOT_COUNT: slot_count, QUERY_COUNT: query_count}
    with tracer.start_as_current_span("fan-out", attributes=attributes) as span:
        yield span


def shard_call_span(tracer: Tracer, parent: Span, *, slot: int, shards: Sequence[int], query_count: int) -> Span:
    """Of what is asked of one slot. Where nobody records it is the parent itself, which still says whose work this is."""
    if not parent.is_recording():
        return parent
    return tracer.start_span("shard call", attributes={SLOT: slot, SHARDS: list(shards), QUERY_COUNT: query_count})


def end_when_answered(span: Span, answer: asyncio.Future[Any]) -> None:
    """Ends a shard call's span with its outcome."""
    if span.is_recording():
        answer.add_done_callback(lambda done: _end(span, done))


def _end(span: Span, answer: asyncio.Future[Any]) -> None:
    error = None if answer.cancelled() else answer.exception()
    if error is not None:
        span.set_status(Status(StatusCode.ERROR, error.message if isinstance(error, PenstockError) else type(error).__name__))
    span.end()
