"""Traces, metrics and logs of a process. Standard OTEL_* variables keep their meaning.

Spans and metrics are exported over OTLP/gRPC when OTEL_EXPORTER_OTLP_ENDPOINT (or ..._TRACES_ENDPOINT, ..._METRICS_ENDPOINT) is
set. Without it no span is recorded, but every request still has a trace id, which is propagated and logged; metrics are kept
all the same, for the page that Prometheus reads.
"""

import json
import logging
import os
import socket
import sys
from dataclasses import dataclass, field

from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased

import penstock
from penstock.errors import FailedPrecondition
from penstock.histograms import Histograms
from penstock.metrics import Exposition, meter_provider


@dataclass(frozen=True, slots=True, kw_only=True)
class Telemetry:
    """What a process traces and counts with. `capture_content` says whether prompts, answers and passages may be in spans."""

    tracer_provider: TracerProvider
    capture_content: bool = False
    records_unasked: bool = True
    """Whether calls are recorded whose caller has not sampled them."""
    meter_provider: metrics.MeterProvider = field(default_factory=metrics.NoOpMeterProvider)
    histograms: Histograms = field(default_factory=Histograms)
    """Those that are recorded to at every call; readers get them beside the meters' instruments."""
    metrics_page: Exposition | None = None
    """What Prometheus reads; None: it is off."""

    def tracer(self, name: str) -> trace.Tracer:
        """The tracer of one of our modules."""
        return self.tracer_provider.get_tracer(f"penstock.{name}", penstock.__version__)

    def meter(self, name: str) -> metrics.Meter:
        """The meter of one of our modules. Callbacks of observable instruments run in threads of the readers."""
        return self.meter_provider.get_meter(f"penstock.{name}", penstock.__version__)

    def shutdown(self) -> None:
        """Sends what is still waiting."""
        self.tracer_provider.shutdown()
        if isinstance(self.meter_provider, MeterProvider):
            self.meter_provider.shutdown()


def configure(service: str, *, metrics_page: bool = False) -> Telemetry:
    """The telemetry of the process that is the service `service`, by the OTEL_* variables.

    Raises FailedPrecondition when they ask for a protocol that is not built in.
    """
    capture = os.environ.get("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "false").lower()
    exporter = _exporter_from_environment()
    provider = TracerProvider(resource=_resource(service)) if exporter else _silent_provider(service)
    if exporter:
        provider.add_span_processor(exporter)
    histograms = Histograms()
    meters, page = meter_provider(_resource(service), page=metrics_page, traces=exporter is not None, histograms=histograms)
    return Telemetry(
        tracer_provider=provider,
        capture_content=capture in {"true", "1", "span", "span_only", "span_and_event"},
        records_unasked=exporter is not None,
        meter_provider=meters,
        histograms=histograms,
        metrics_page=page,
    )


def configure_logging(level: str, log_format: str) -> None:
    """Sends every log record to standard error, as JSON lines or as text, with the trace id of the request it belongs to."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for noisy in ("httpx", "httpcore", "uvicorn.access", "sentence_transformers", "transformers"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, logging.getLevelName(level)))


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, severity, logger, message, trace_id, span_id, exception."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S") + f".{int(record.msecs):03d}",
            "severity": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        context = trace.get_current_span().get_span_context()
        if context.is_valid:
            line |= {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


class TextFormatter(logging.Formatter):
    """For people: time, severity, logger, message, and the trace id where there is one."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s", "%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        context = trace.get_current_span().get_span_context()
        line = super().format(record)
        return f"{line} [trace {context.trace_id:032x}]" if context.is_valid else line


def _resource(service: str) -> Resource:
    own = {
        "service.name": service,
        "service.namespace": "penstock",
        "service.version": penstock.__version__,
        "service.instance.id": f"{socket.gethostname()}-{os.getpid()}",
    }
    # Merged last, so that OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES win over what we say of ourselves.
    return Resource.create(own).merge(OTELResourceDetector().detect())


def _silent_provider(service: str) -> TracerProvider:
    return TracerProvider(resource=_resource(service), sampler=ParentBased(root=ALWAYS_OFF))


def _exporter_from_environment() -> SpanProcessor | None:
    endpoint = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    if not endpoint or os.environ.get("OTEL_TRACES_EXPORTER", "otlp") == "none":
        return None
    protocol = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    if protocol != "grpc":
        message = f"OTEL_EXPORTER_OTLP_PROTOCOL={protocol} is not built in; use grpc (port 4317 of a collector)"
        raise FailedPrecondition(message)
    # Imported here: a process that exports nothing need not pay for the exporter's start.
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    return BatchSpanProcessor(OTLPSpanExporter())
