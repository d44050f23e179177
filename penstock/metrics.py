"""Metrics of a process, and where they can be read: on a page for Prometheus, and over OTLP where the environment says so."""

import os
import threading
from collections.abc import Callable, Iterable
from typing import Final

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import AlwaysOffExemplarFilter, MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader
from opentelemetry.sdk.resources import Resource
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder

from penstock.errors import FailedPrecondition
from penstock.histograms import Histograms, reading

Exposition = Callable[[str], tuple[bytes, str]]
"""Gives the page of metrics that an Accept header asks for, and its content type."""

CALL_SECONDS: Final = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
)  # fmt: skip
"""Bounds of the histograms of calls: the conventions', and below and above them for searches and for answers of models."""


def meter_provider(
    resource: Resource, *, page: bool, traces: bool, histograms: Histograms
) -> tuple[MeterProvider, Exposition | None]:
    """The process's instruments, exported over OTLP where the environment says so, and their page where one is asked for.

    `histograms` are read together with them. Raises FailedPrecondition for a protocol that is not built in.
    """
    registry = CollectorRegistry(auto_describe=False)
    ProcessCollector(registry=registry)
    readers = list(_otlp(histograms))
    if page:
        readers.append(reading(PrometheusMetricReader, histograms)(registry=registry, scope_info_enabled=False))
    # An exemplar points from a measurement to its trace: without traces it costs and gives nothing.
    exemplars = None if traces or "OTEL_METRICS_EXEMPLAR_FILTER" in os.environ else AlwaysOffExemplarFilter()
    provider = MeterProvider(metric_readers=readers, resource=resource, exemplar_filter=exemplars, shutdown_on_exit=False)
    return provider, _exposition(registry) if page else None


def _exposition(registry: CollectorRegistry) -> Exposition:
    one_at_a_time = threading.Lock()  # The reader's collector is not made for two.

    def page(accept: str) -> tuple[bytes, str]:
        encode, content_type = choose_encoder(accept)
        with one_at_a_time:
            return encode(registry), content_type

    return page


def _otlp(histograms: Histograms) -> Iterable[MetricReader]:
    endpoint = os.environ.get("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT") or os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    if not endpoint or "otlp" not in os.environ.get("OTEL_METRICS_EXPORTER", "otlp").split(","):
        return
    protocol = os.environ.get("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL") or os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    if protocol != "grpc":
        message = f"OTEL_EXPORTER_OTLP_PROTOCOL={protocol} is not built in; use grpc (port 4317 of a collector)"
        raise FailedPrecondition(message)
    # Imported here: a process that exports nothing need not pay for the exporter's start.
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter  # noqa: PLC0415
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader  # noqa: PLC0415

    yield reading(PeriodicExportingMetricReader, histograms)(OTLPMetricExporter())
