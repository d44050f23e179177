"""Rate, errors and duration of the calls: one histogram by method and outcome, with the names of OpenTelemetry's conventions.

What is in flight is counted here and read when somebody looks.
"""

import time
from collections.abc import Iterable
from types import TracebackType

from opentelemetry.metrics import CallbackOptions, Meter, Observation

from penstock import semconv
from penstock.dispatcher import Around, Interceptor
from penstock.errors import PenstockError
from penstock.histograms import Histogram, Histograms, Series
from penstock.interceptors import outcome
from penstock.metrics import CALL_SECONDS


class Metering(Interceptor):
    """Measures every call. `meter` and `histograms` are of the process's Telemetry."""

    def __init__(self, meter: Meter, histograms: Histograms) -> None:
        self._durations = histograms.create(
            "rpc.server.call.duration", unit="s", description="Duration of calls", bounds=CALL_SECONDS
        )
        self._methods: list[_Method] = []
        meter.create_observable_up_down_counter(
            "penstock.rpc.server.active_calls", [self._observe], unit="{call}", description="Calls in flight"
        )

    def around(self, method: str, *, streams: bool) -> Around:  # noqa: ARG002  # The port's signature.
        measured = _Method(method.lstrip("/"), self._durations)
        self._methods.append(measured)
        return lambda _: _Measured(measured)

    def _observe(self, _: CallbackOptions) -> Iterable[Observation]:
        for method in list(self._methods):
            yield Observation(method.in_flight, {semconv.RPC_SYSTEM_NAME: "grpc", semconv.RPC_METHOD: method.name})


class _Method:
    """What the calls of one method share: how many there are, and their series by outcome, made once each."""

    __slots__ = ("_durations", "_series", "in_flight", "name", "succeeded")

    def __init__(self, name: str, durations: Histogram) -> None:
        self.name = name
        self.in_flight = 0
        self._durations = durations
        self.succeeded = self._with("OK", "")
        self._series: dict[type[PenstockError], Series] = {}

    def failed(self, error: BaseException) -> Series:
        known = outcome(error)
        found = self._series.get(type(known))
        if found is None:
            found = self._series[type(known)] = self._with(known.code.grpc_name, known.reason)
        return found

    def _with(self, status: str, reason: str) -> Series:
        told = {semconv.RPC_SYSTEM_NAME: "grpc", semconv.RPC_METHOD: self.name, semconv.RPC_RESPONSE_STATUS_CODE: status}
        return self._durations.series_of({**told, semconv.ERROR_TYPE: reason} if reason else told)


class _Measured:
    __slots__ = ("_began", "_method")

    def __init__(self, method: _Method) -> None:
        self._method = method

    def __enter__(self) -> None:
        self._method.in_flight += 1
        self._began = time.perf_counter()

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None) -> None:
        method = self._method
        method.in_flight -= 1
        series = method.succeeded if error is None else method.failed(error)
        series.record(time.perf_counter() - self._began)
