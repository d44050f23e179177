"""A receiver of traces over OTLP/gRPC, in memory: what the demo draws its tree from, and what tests assert on."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.trace.v1 import trace_pb2

SPANS_MAX: Final = 50_000
"""The oldest spans beyond this are forgotten."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A span as it was received. Times in nanoseconds since the epoch."""

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    kind: str
    service: str
    start_ns: int
    end_ns: int
    attributes: dict[str, Any]
    failed: bool
    status_message: str
    events: tuple[str, ...]

    @property
    def duration_ms(self) -> float:
        """How long it took."""
        return (self.end_ns - self.start_ns) / 1e6


class OtlpReceiver(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps every span that it is sent."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.address = ""

    async def Export(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802  # Named by OTLP's proto.
        """OTLP's TraceService.Export."""
        for resource_spans in request.resource_spans:
            service = _attributes(resource_spans.resource.attributes).get("service.name", "")
            for scope_spans in resource_spans.scope_spans:
                self.spans.extend(_span(each, str(service)) for each in scope_spans.spans)
        del self.spans[:-SPANS_MAX]
        return trace_service_pb2.ExportTraceServiceResponse()

    def trace(self, trace_id: str) -> list[Span]:
        """The spans of one trace, by their start."""
        return sorted((span for span in self.spans if span.trace_id == trace_id), key=lambda span: span.start_ns)

    async def whole_trace(self, trace_id: str, *, services: Iterable[str], timeout_s: float) -> list[Span]:
        """The spans of one trace, once it has come to rest: every parent but the root's is there, from all of `services`.

        Exporters send in batches, so it waits; after `timeout_s` it returns what there is.
        """
        wanted = set(services)
        for _ in range(int(timeout_s / 0.05)):
            spans = self.trace(trace_id)
            known = {span.span_id for span in spans}
            orphans = [span for span in spans if span.parent_id not in known]
            if wanted <= {span.service for span in spans} and len(orphans) == 1:
                return spans
            await asyncio.sleep(0.05)
        return self.trace(trace_id)


@asynccontextmanager
async def receiving() -> AsyncIterator[OtlpReceiver]:
    """A receiver on a free loopback port; its `address` is "127.0.0.1:port"."""
    receiver, server = OtlpReceiver(), grpc.aio.server()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(receiver, server)  # type: ignore[no-untyped-call]
    receiver.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        yield receiver
    finally:
        await server.stop(None)


def _span(sent: trace_pb2.Span, service: str) -> Span:
    return Span(
        trace_id=sent.trace_id.hex(),
        span_id=sent.span_id.hex(),
        parent_id=sent.parent_span_id.hex(),
        name=sent.name,
        kind=trace_pb2.Span.SpanKind.Name(sent.kind).removeprefix("SPAN_KIND_"),
        service=service,
        start_ns=sent.start_time_unix_nano,
        end_ns=sent.end_time_unix_nano,
        attributes=_attributes(sent.attributes),
        failed=sent.status.code == trace_pb2.Status.STATUS_CODE_ERROR,
        status_message=sent.status.message,
        events=tuple(event.name for event in sent.events),
    )


def _attributes(pairs: Iterable[common_pb2.KeyValue]) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: common_pb2.AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(each) for each in value.array_value.values]
    return getattr(value, kind) if kind else None
