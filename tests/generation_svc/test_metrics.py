import asyncio
from contextlib import aclosing

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.trace import NoOpTracer

from generation_svc.admission import Admission
from generation_svc.coalescing import Coalescing
from generation_svc.engine import Finished, FinishReason, Load, Timings
from generation_svc.generation import Generation
from generation_svc.metrics import GenerationMetrics
from generation_svc.watch import Watch
from penstock.errors import InvalidArgument, Overloaded
from penstock.histograms import Histograms, reading
from tests.generation_svc.fakes import MODEL, FakeEngine, ask, collect


class Measured:
    """The core over a fake engine, and what it has measured."""

    def __init__(self, engine: FakeEngine) -> None:
        histograms = Histograms()
        self.reader = reading(InMemoryMetricReader, histograms)()
        meter = MeterProvider(metric_readers=[self.reader]).get_meter("test")
        admission = Admission(running_max=1, waiting_max=0)
        metrics = GenerationMetrics(meter, histograms)
        metrics.watch(admission, engine)
        rule = Coalescing(tokens_max=8, delay_max_s=0.01)
        self.core = Generation(engine=engine, admission=admission, coalescing=rule, tracer=NoOpTracer(), metrics=metrics)

    def points(self, name: str) -> dict[tuple[str, ...], float]:
        """What a metric says by its attributes' values: a number, of a histogram how many were recorded."""
        found = {}
        data = self.reader.get_metrics_data()
        for resource in data.resource_metrics if data is not None else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    if metric.name == name:
                        for point in metric.data.data_points:
                            value = point.count if hasattr(point, "count") else point.value
                            found[tuple(str(each) for each in point.attributes.values())] = value
        return found


async def test_an_answer_is_timed_and_its_tokens_are_counted() -> None:
    measured = Measured(FakeEngine(pause_s=0.002))
    await collect(measured.core.stream(MODEL, ask()))
    for name in (
        "penstock.generation.queue.duration",
        "gen_ai.server.time_to_first_token",
        "gen_ai.server.time_per_output_token",
        "gen_ai.server.request.duration",
    ):
        assert measured.points(name) == {("small",): 1}, name
    assert measured.points("penstock.generation.tokens") == {
        ("small", "input"): 1, ("small", "cached"): 1, ("small", "output"): 1,
    }  # fmt: skip
    assert measured.points("penstock.generation.answers") == {("stop",): 1}


async def test_refusals_are_counted_by_their_reason() -> None:
    measured = Measured(FakeEngine(endless=True))
    async with aclosing(measured.core.stream(MODEL, ask())) as answer:
        await anext(answer)
        for _ in range(2):
            with pytest.raises(Overloaded):
                await measured.core.whole(MODEL, ask())
        with pytest.raises(InvalidArgument):
            await measured.core.whole(MODEL, ask(temperature=9.0))
        assert measured.points("penstock.generation.requests") == {("running",): 1, ("waiting",): 0}
    assert measured.points("penstock.generation.refused") == {("OVERLOADED",): 2, ("INVALID_ARGUMENT",): 1}
    assert measured.points("penstock.generation.answers") == {("CANCELLED",): 1}
    assert measured.points("penstock.generation.requests") == {("running",): 0, ("waiting",): 0}
    assert measured.points("penstock.generation.requests.limit") == {("running",): 1, ("waiting",): 0}


async def test_what_the_engine_says_of_its_caches_is_told_and_what_it_does_not_say_is_not() -> None:
    engine = FakeEngine()
    measured = Measured(engine)
    assert measured.points("penstock.generation.kv_cache.used") == {}
    engine.load = lambda: Load(  # type: ignore[method-assign]
        running=3, waiting=1, cache_used=0.5, prefix_queried_tokens=100, prefix_hit_tokens=60, preemptions=2
    )
    assert measured.points("penstock.generation.kv_cache.used") == {(): 0.5}
    assert measured.points("penstock.generation.engine.running") == {(): 3}
    assert measured.points("penstock.generation.prefix_cache.queried") == {(): 100}
    assert measured.points("penstock.generation.prefix_cache.hit") == {(): 60}
    assert measured.points("penstock.generation.preemptions") == {(): 2}
    await asyncio.sleep(0)


def test_the_engines_own_moments_are_believed_more_than_what_was_seen_here() -> None:
    watch = Watch(arrived_ns=1_000)
    watch.admitted()
    times = Timings(scheduled_ns=2_000, first_token_ns=3_000, last_token_ns=11_000)
    watch.token_count = 5
    watch.saw(Finished(finish_reason=FinishReason.STOP, timings=times))
    assert (watch.scheduled_ns, watch.first_ns, watch.last_ns) == (2_000, 3_000, 11_000)
    assert watch.seconds_to(watch.first_ns) == pytest.approx(2e-6)
    assert watch.seconds_per_token == pytest.approx(2e-6)


def test_one_token_has_no_time_between_tokens() -> None:
    watch = Watch()
    watch.saw(Finished(finish_reason=FinishReason.STOP))
    assert watch.seconds_per_token is None
