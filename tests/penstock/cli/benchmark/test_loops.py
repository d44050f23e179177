"""Schedules and counting; never how long something took."""

import asyncio
import itertools
import time

import pytest

from penstock.cli.benchmark.loops import Window, arrivals, closed_loop, open_loop, percentile


def test_arrivals_come_at_the_rate_and_at_exponential_distances() -> None:
    moments = list(arrivals(100.0, 100.0, seed=1))
    assert len(moments) == pytest.approx(10_000, rel=0.05)
    assert moments == sorted(moments)
    assert moments[-1] < 100
    gaps = [after - before for before, after in itertools.pairwise(moments)]
    mean = sum(gaps) / len(gaps)
    deviation = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5
    assert deviation == pytest.approx(mean, rel=0.1), "as an exponential distribution has it, and a regular beat has not"


def test_arrivals_are_those_of_their_seed() -> None:
    assert list(arrivals(10, 5, seed=1)) == list(arrivals(10, 5, seed=1)) != list(arrivals(10, 5, seed=2))


async def test_a_closed_loop_never_has_more_under_way_than_it_was_told() -> None:
    under_way = most = 0

    async def call(_: int) -> str:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.001)
        under_way -= 1
        return ""

    measured = await closed_loop(call, in_flight=3, window=Window(seconds=0.1, warmup_s=0.02))
    assert most == 3
    assert len(measured.took_ms) > 3
    assert measured.rate == pytest.approx(len(measured.took_ms) / 0.1)
    assert measured.faults == {}


async def test_an_open_loop_asks_on_though_nobody_answers_and_counts_from_the_moment_that_was_drawn() -> None:
    under_way = most = 0
    freed = asyncio.Event()

    async def call(number: int) -> str:
        nonlocal under_way, most
        if number == 0:
            time.sleep(0.15)  # noqa: ASYNC251  # The client itself hangs, and the following are sent late.
        under_way += 1
        most = max(most, under_way)
        if most >= 20:
            freed.set()
        await freed.wait()
        under_way -= 1
        return ""

    async with asyncio.timeout(20):
        measured = await open_loop(call, rate=100, window=Window(seconds=0.4, warmup_s=0.0), seed=3)
    sent = len(list(arrivals(100, 0.4, seed=3)))
    assert len(measured.took_ms) == sent
    assert most >= 20
    assert max(measured.took_ms) > 100, "what the client's own pause delayed is in it"


async def test_faults_are_counted_by_name_and_are_no_answers() -> None:
    async def call(number: int) -> str:
        await asyncio.sleep(0.001)
        return "UNAVAILABLE" if number % 2 else ""

    measured = await closed_loop(call, in_flight=2, window=Window(seconds=0.1, warmup_s=0.0))
    assert measured.faults["UNAVAILABLE"] > 0
    assert len(measured.took_ms) > 0
    everything = await open_loop(lambda _: _failing(), rate=200, window=Window(seconds=0.1, warmup_s=0.05))
    assert everything.took_ms == []
    warm = sum(moment < 0.05 for moment in arrivals(200, 0.15, seed=0))
    assert everything.faults == {"INTERNAL": len(list(arrivals(200, 0.15, seed=0))) - warm}, "the warm-up is not counted"


class Heard:
    """What a loop tells its observer."""

    def __init__(self) -> None:
        self.window = (0.0, 0.0)
        self.calls: dict[int, tuple[float, bool]] = {}

    def begins(self, starts: float, until: float) -> None:
        self.window = (starts, until)

    def ended(self, number: int, *, counted_from: float, is_counted: bool) -> None:
        self.calls[number] = (counted_from, is_counted)


async def test_an_observer_hears_of_every_call_and_whether_it_counts() -> None:
    closed, opened, window = Heard(), Heard(), Window(seconds=0.2, warmup_s=0.1)
    measured = await closed_loop(lambda _: asyncio.sleep(0.001, ""), in_flight=2, window=window, observer=closed)
    assert sum(counts for _, counts in closed.calls.values()) == len(measured.took_ms) < len(closed.calls)
    starts, until = closed.window
    assert until - starts == pytest.approx(0.2)

    await open_loop(lambda _: asyncio.sleep(0.001, ""), rate=200, window=window, seed=4, observer=opened)
    starts, until = opened.window
    for number, after in enumerate(arrivals(200, 0.3, seed=4)):
        assert opened.calls[number] == (pytest.approx(starts - 0.1 + after), after >= 0.1), "from the moment that was drawn"


async def _failing() -> str:
    return "INTERNAL"


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [([], 99.9, 0), ([3.0], 50, 3.0), ([1.0, 2.0, 3.0], 50, 2.0), (list(range(1001)), 99.9, 999), (list(range(1001)), 90, 900)],
)
def test_percentiles_go_to_thousandths(values: list[float], percent: float, expected: float) -> None:
    assert percentile(values, percent) == pytest.approx(expected)
