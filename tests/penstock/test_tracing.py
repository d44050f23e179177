"""What a served call's span is when nobody records it, and when somebody does."""

from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind

from penstock.tracing import Spans, inner_span

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def begun(metadata: dict[str, str], *, records_unasked: bool = False) -> Any:
    tracer = TracerProvider(sampler=ParentBased(root=ALWAYS_OFF)).get_tracer("test")
    span, _ = Spans(tracer, records_unasked=records_unasked).begin("a", metadata, kind=SpanKind.SERVER, attributes={})
    return span


def test_a_call_that_nobody_records_has_a_trace_of_its_own() -> None:
    first, second = begun({}), begun({})
    assert first.get_span_context().is_valid
    assert first.get_span_context().trace_id != second.get_span_context().trace_id
    assert not first.is_recording()


def test_the_trace_of_a_caller_that_does_not_record_goes_on() -> None:
    context = begun({"traceparent": f"00-{TRACE}-{PARENT}-00"}).get_span_context()
    assert f"{context.trace_id:032x}" == TRACE
    assert f"{context.span_id:016x}" != PARENT
    assert not context.trace_flags.sampled


def test_a_caller_that_records_is_recorded() -> None:
    span = begun({"traceparent": f"00-{TRACE}-{PARENT}-01"})
    assert span.is_recording()
    assert f"{span.parent.span_id:016x}" == PARENT


def test_what_comes_beside_the_trace_is_kept() -> None:
    span = begun({"traceparent": f"00-{TRACE}-{PARENT}-00", "tracestate": "vendor=1"})
    assert span.get_span_context().trace_state == {"vendor": "1"}


@pytest.mark.parametrize("header", ["", "nonsense", f"00-{'0' * 32}-{PARENT}-00", f"00-{TRACE}-{'0' * 16}-00", f"{'9' * 2000}"])
def test_a_header_that_is_no_trace_begins_a_new_one(header: str) -> None:
    span = begun({"traceparent": header})
    assert span.get_span_context().is_valid
    assert f"{span.get_span_context().trace_id:032x}" not in {TRACE, "0" * 32}


def test_the_parts_of_a_recorded_call_are_spans_below_it() -> None:
    tracer = TracerProvider().get_tracer("test")
    with tracer.start_as_current_span("call") as call, inner_span(tracer, "part", {"size": 3}) as part:
        assert trace.get_current_span() is part
        told: Any = part
    assert (told.name, told.parent, dict(told.attributes)) == ("part", call.get_span_context(), {"size": 3})
    assert told.end_time is not None


def test_the_parts_of_a_call_that_nobody_records_are_the_call_itself() -> None:
    tracer = TracerProvider().get_tracer("test")
    call = NonRecordingSpan(SpanContext(trace_id=1, span_id=2, is_remote=False))
    with trace.use_span(call), inner_span(tracer, "part") as part:
        assert part is trace.get_current_span() is call


def test_work_that_belongs_to_no_call_begins_a_trace() -> None:
    tracer = TracerProvider().get_tracer("test")
    with inner_span(tracer, "work") as work:
        assert work.is_recording()
