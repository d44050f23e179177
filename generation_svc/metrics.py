"""What the service measures of its answers, beside what the runtime measures of every call.

Names that begin with gen_ai are OpenTelemetry's for a model's server, the others ours. An autoscaler goes by
penstock.generation.requests (state waiting, and running beside the limit) or by penstock.generation.queue.duration; see
deploy/generation.md.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final

from opentelemetry.metrics import CallbackOptions, Meter, Observation

from generation_svc.admission import Admission
from generation_svc.engine import Load, ModelHost, ModelInfo
from generation_svc.watch import Watch
from penstock import semconv
from penstock.errors import PenstockError
from penstock.histograms import Histograms, Series
from penstock.metrics import CALL_SECONDS

TOKEN_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.015, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5)
TOKEN_COUNTS: Final = tuple(float(4**power) for power in range(11))

_Told = Iterable[Observation]


class GenerationMetrics:
    """Counts and times of answers, and the state of the queue and of the engine."""

    def __init__(self, meter: Meter, histograms: Histograms) -> None:
        self._meter = meter
        self._queue = histograms.create(
            "penstock.generation.queue.duration", unit="s", description="Waiting for the engine.", bounds=CALL_SECONDS
        )
        self._first = histograms.create(
            "gen_ai.server.time_to_first_token", unit="s", description="Arrival to first token.", bounds=CALL_SECONDS
        )
        self._between = histograms.create(
            "gen_ai.server.time_per_output_token", unit="s", description="Mean time between tokens.", bounds=TOKEN_SECONDS
        )
        self._whole = histograms.create(
            "gen_ai.server.request.duration", unit="s", description="Arrival to last token.", bounds=CALL_SECONDS
        )
        self._tokens = histograms.create(
            "penstock.generation.tokens", unit="{token}", description="Tokens of a request.", bounds=TOKEN_COUNTS
        )
        self._refused = self._counted(
            "refused", "{request}", "Requests that failed before their first token.", semconv.ERROR_TYPE
        )
        self._ended = self._counted("answers", "{answer}", "Answers that began, by how they ended.", "end")
        self._of_model: dict[str, _OfModel] = {}

    def watch(self, admission: Admission, engine: ModelHost) -> None:
        """Begins to tell the state of the queue and of the engine."""
        self._observe("requests", "{request}", "Slots that are taken, and requests that wait for one.", _requests(admission))
        self._observe("requests.limit", "{request}", "Slots that there are, and places to wait.", _limits(admission))
        for name, unit, description, value in _GAUGES:
            self._observe(name, unit, description, _loaded(engine, value))
        for name, unit, description, value in _COUNTERS:
            self._meter.create_observable_counter(
                f"penstock.generation.{name}", [_loaded(engine, value)], unit=unit, description=description
            )

    def ended(self, model: ModelInfo, watch: Watch, error: BaseException | None) -> None:
        """An answer has ended, or never began."""
        series = self._of_model.get(model.name)
        if series is None:
            series = self._of_model[model.name] = _OfModel(self, model.name)
        if watch.scheduled_ns:
            series.queue.record(watch.seconds_to(watch.scheduled_ns))
        if not watch.first_ns:
            if error is not None:
                self._refused[_reason(error)] += 1
            return
        series.note(watch)
        self._ended[_reason(error) if watch.finished is None else watch.finished.finish_reason.value] += 1

    def _counted(self, name: str, unit: str, description: str, by: str) -> Counter[str]:
        """What is added to with every answer and read when somebody looks; the SDK's own counter costs 8 microseconds."""
        counts: Counter[str] = Counter()

        def told(_: CallbackOptions) -> _Told:
            return [Observation(count, {by: value}) for value, count in dict(counts).items()]

        self._meter.create_observable_counter(f"penstock.generation.{name}", [told], unit=unit, description=description)
        return counts

    def _observe(self, name: str, unit: str, description: str, told: Callable[[CallbackOptions], _Told]) -> None:
        self._meter.create_observable_gauge(f"penstock.generation.{name}", [told], unit=unit, description=description)


class _OfModel:
    """The series of one model, made once."""

    __slots__ = ("_between", "_cached", "_first", "_input", "_output", "_whole", "queue")

    def __init__(self, metrics: GenerationMetrics, model: str) -> None:
        told = {semconv.GEN_AI_REQUEST_MODEL: model}
        self.queue: Series = metrics._queue.series_of(told)  # noqa: SLF001  # Its own part.
        self._first: Series = metrics._first.series_of(told)  # noqa: SLF001
        self._between: Series = metrics._between.series_of(told)  # noqa: SLF001
        self._whole: Series = metrics._whole.series_of(told)  # noqa: SLF001
        self._input, self._cached, self._output = (
            metrics._tokens.series_of({**told, "type": kind})  # noqa: SLF001
            for kind in ("input", "cached", "output")
        )

    def note(self, watch: Watch) -> None:
        if watch.first_ns < watch.last_ns or watch.token_count < 2:  # Else an engine gave all at once, and knows no first one.
            self._first.record(watch.seconds_to(watch.first_ns))
        self._output.record(watch.token_count)
        if (between := watch.seconds_per_token) is not None:
            self._between.record(between)
        if watch.finished is not None:
            self._whole.record(watch.seconds_to(watch.last_ns))
            self._input.record(watch.finished.usage.input_tokens)
            self._cached.record(watch.finished.usage.cached_tokens)


def _reason(error: BaseException | None) -> str:
    if isinstance(error, PenstockError):
        return error.reason
    return "INTERNAL" if isinstance(error, Exception) else "CANCELLED"


def _requests(admission: Admission) -> Callable[[CallbackOptions], _Told]:
    return lambda _: (
        Observation(admission.running, {"state": "running"}),
        Observation(admission.waiting, {"state": "waiting"}),
    )


def _limits(admission: Admission) -> Callable[[CallbackOptions], _Told]:
    return lambda _: (
        Observation(admission.running_max, {"state": "running"}),
        Observation(admission.waiting_max, {"state": "waiting"}),
    )


_Value = Callable[[Load], float | None]

_GAUGES: Final[tuple[tuple[str, str, str, _Value], ...]] = (
    ("engine.running", "{request}", "Requests that the engine computes.", lambda load: load.running),
    ("engine.waiting", "{request}", "Requests that the engine itself holds back.", lambda load: load.waiting),
    ("kv_cache.used", "1", "Share of the memory for keys and values in use.", lambda load: load.cache_used),
)
_COUNTERS: Final[tuple[tuple[str, str, str, _Value], ...]] = (
    ("prefix_cache.queried", "{token}", "Tokens looked up in the prefix cache.", lambda load: load.prefix_queried_tokens),
    ("prefix_cache.hit", "{token}", "Tokens found in it.", lambda load: load.prefix_hit_tokens),
    ("preemptions", "{request}", "Requests put back for lack of memory.", lambda load: load.preemptions),
)


def _loaded(engine: ModelHost, value: _Value) -> Callable[[CallbackOptions], _Told]:
    def told(_: CallbackOptions) -> _Told:
        found = value(engine.load())
        return () if found is None else (Observation(found),)

    return told
