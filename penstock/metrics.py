"""Metrics of a process: what every call adds to them, and where they can be read.

Rate, errors and duration of the calls are one histogram by method and outcome, with the names of OpenTelemetry's conventions.
It costs 6 microseconds a call; what is in flight is counted here and read when somebody looks.
"""

import os
import threading
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Final

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.metrics import CallbackOptions, Meter, Observation
from opentelemetry.sdk.metrics import AlwaysOffExemplarFilter, MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader
from opentelemetry.sdk.resources import Resource
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder

from penstock import semconv
from penstock.dispatcher import Around, Interceptor
from penstock.errors import FailedPrecondition, PenstockError
from penstock.interceptors import outcome

Exposition = Callable[[str], tuple[bytes, str]]
"""Gives the page of metrics that an Accept header asks for, and its content type."""

CALL_SECONDS: Final = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
)  # fmt: skip
"""Bounds of the histograms of calls: the conventions', and below and above them for searches and for answers of models."""


def meter_provider(resource: Resource, *, page: bool, traces: bool) -> tuple[MeterProvider, Exposition | None]:
    """The process's instruments, exported over OTLP where the environment says so, and their page where one is asked for.

    Raises FailedPrecondition for a protocol that is not built in.
    """
    registry = CollectorRegistry(auto_describe=False)
    ProcessCollector(registry=registry)
    readers = list(_otlp())
    if page:
        readers.append(PrometheusMetricReader(registry=registry, scope_info_enabled=False))
    # An exemplar points from a measurement to its trace: without traces it costs and gives nothing.
    exemplars = None if traces or "OTEL_METRICS_EXEMPLAR_FILTER" in os.environ else AlwaysOffExemplarFilter()
    provider = MeterProvider(metric_readers=readers, resource=resource, exemplar_filter=exemplars, shutdown_on_exit=False)
    return provider, _exposition(registry) if page else None


class Metering(Interceptor):
    """Measures every call. `meter` is one of the process's Telemetry."""

    def __init__(self, meter: Meter) -> None:
        self._durations = meter.create_histogram(
            "rpc.server.call.duration",
            unit="s",
            description="Duration of calls",
            explicit_bucket_boundaries_advisory=CALL_SECONDS,
        )
        self._in_flight: dict[str, int] = {}
        meter.create_observable_up_down_counter(
            "penstock.rpc.server.active_calls", [self._observe], unit="{call}", description="Calls in flight"
        )

    def around(self, method: str, *, streams: bool) -> Around:  # noqa: ARG002  # The port's signature.
        measured = _Method(method.lstrip("/"), self._in_flight, self._durations.record)
        return lambda _: _Measured(measured)

    def _observe(self, _: CallbackOptions) -> Iterable[Observation]:
        for name, count in list(self._in_flight.items()):
            yield Observation(count, {semconv.RPC_SYSTEM_NAME: "grpc", semconv.RPC_METHOD: name})


class _Method:
    """What the calls of one method share: their attributes by outcome, made once each."""

    __slots__ = ("_attributes", "in_flight", "name", "record")

    def __init__(self, name: str, in_flight: dict[str, int], record: Callable[[float, dict[str, str]], None]) -> None:
        self.name = name
        self.in_flight = in_flight
        self.in_flight[name] = 0
        self.record = record
        self._attributes: dict[type[PenstockError] | None, dict[str, str]] = {None: self._with("OK", "")}

    def attributes(self, error: BaseException | None) -> dict[str, str]:
        if error is None:
            return self._attributes[None]
        known = outcome(error)
        found = self._attributes.get(type(known))
        if found is None:
            found = self._attributes[type(known)] = self._with(known.code.grpc_name, known.reason)
        return found

    def _with(self, status: str, reason: str) -> dict[str, str]:
        told = {semconv.RPC_SYSTEM_NAME: "grpc", semconv.RPC_METHOD: self.name, semconv.RPC_RESPONSE_STATUS_CODE: status}
        return {**told, semconv.ERROR_TYPE: reason} if reason else told


class _Measured:
    __slots__ = ("_began", "_method")

    def __init__(self, method: _Method) -> None:
        self._method = method

    def __enter__(self) -> None:
        self._method.in_flight[self._method.name] += 1
        self._began = time.perf_counter()

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None) -> None:
        method = self._method
        method.in_flight[method.name] -= 1
        method.record(time.perf_counter() - self._began, method.attributes(error))


def _exposition(registry: CollectorRegistry) -> Exposition:
    one_at_a_time = threading.Lock()  # The reader's collector is not made for two.

    def page(accept: str) -> tuple[bytes, str]:
        encode, content_type = choose_encoder(accept)
        with one_at_a_time:
            return encode(registry), content_type

    return page


def _otlp() -> Iterable[MetricReader]:
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

    yield PeriodicExportingMetricReader(OTLPMetricExporter())
