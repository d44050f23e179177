"""The highest rate of a service that is computed, and the sizes that follow from it."""

import math
from dataclasses import replace

import pytest

from penstock.cli.benchmark.generating_figures import Figures
from penstock.cli.benchmark.generating_report import found_said
from penstock.cli.benchmark.generating_search import WINDOWS_NEEDED, Found, Promise, fell_behind, highest_rate
from penstock.cli.benchmark.generating_sizing import Demand, Sizing, explained, sized
from tests.penstock.cli.benchmark.virtual_service import VirtualService, exchange, observed

PROMISE = Promise(ttft_p95_ms=300.0)


async def window(rate: float, *, itl_ms: float = 10.0, ttft_ms: float = 100.0) -> Figures:
    """A window in which every time is the same."""
    answers = [exchange(at, [(at + ttft_ms / 1000, 1), (at + (ttft_ms + itl_ms) / 1000, 1)]) for at in range(10)]
    return await observed(answers, starts=0, until=20, setting=rate)


async def search(service: VirtualService, promise: Promise, first: float = 5.0, trials_max: int = 30) -> Found:
    return await highest_rate(service.trial, promise, first=first, trials_max=trials_max)


@pytest.mark.parametrize("first", [0.5, 5.0, 50.0])
async def test_the_highest_rate_that_keeps_the_promise_is_found_from_wherever_the_search_begins(first: float) -> None:
    found = await search(VirtualService(), PROMISE, first)
    assert found.rate is not None
    assert found.broken is not None
    assert 1 < found.broken / found.rate < 1.12
    assert found.is_confirmed
    long = [await VirtualService().trial(factor * found.rate, 99, seconds=5000) for factor in (0.85, 1.15)]
    assert [bool(PROMISE.broken(each)) for each in long] == [False, True], "over a long time a little less is kept, more is not"
    assert sum(not each.broken for each in found.windows) == WINDOWS_NEEDED
    assert f"in 2 of its {len(found.windows)} windows" in found_said(found, PROMISE)


async def test_the_inter_token_time_is_a_limit_of_its_own() -> None:
    async def trial(rate: float, _: int) -> Figures:
        return await window(rate, itl_ms=10 * rate)

    found = await highest_rate(trial, Promise(itl_p95_ms=50.0), first=1.0, trials_max=30)
    assert found.rate == pytest.approx(5, rel=0.1)
    assert found.rate <= 5


async def test_a_promise_that_no_rate_keeps_ends_within_the_windows_that_there_are() -> None:
    promise = Promise(ttft_p95_ms=10.0)
    found = await search(VirtualService(), promise, trials_max=8)
    assert found.rate is None
    assert len(found.tried) <= 8
    assert "No rate that was tried keeps p95 TTFT within 10 ms. The lowest was" in found_said(found, promise)


async def test_rates_that_a_window_can_not_judge_are_not_tried() -> None:
    promise = Promise(ttft_p95_ms=10.0)
    found = await highest_rate(VirtualService().trial, promise, first=5.0, trials_max=30, least=3.0)
    assert (found.rate, [each.figures.setting for each in found.tried]) == (None, [5.0, 3.0])
    found = await highest_rate(VirtualService().trial, promise, first=1.0, trials_max=30, least=3.0)
    assert (found.rate, [each.figures.setting for each in found.tried]) == (None, [3.0])


async def test_a_service_without_a_limit_is_told_as_one_whose_highest_rate_was_not_reached() -> None:
    async def trial(rate: float, _: int) -> Figures:
        return await window(rate)

    found = await highest_rate(trial, PROMISE, first=1.0, trials_max=7)
    assert (found.rate, found.broken, found.is_confirmed) == (2.0**4, None, True)
    assert len(found.tried) == 6
    assert "higher ones were not tried" in found_said(found, PROMISE)


async def test_a_window_that_broke_it_by_bad_luck_does_not_count() -> None:
    async def trial(rate: float, number: int) -> Figures:
        return await window(rate, ttft_ms=400 if number % 3 == 0 or rate > 6 else 100)

    found = await highest_rate(trial, PROMISE, first=1.0, trials_max=30)
    assert found.rate == pytest.approx(6, rel=0.1)


async def test_a_rate_that_is_broken_by_far_is_tried_once() -> None:
    async def trial(rate: float, _: int) -> Figures:
        return await window(rate, ttft_ms=100 if rate < 3 else 700)

    found = await highest_rate(trial, PROMISE, first=1.0, trials_max=30)
    assert [each.figures.setting for each in found.tried][:4] == [1.0, 2.0, 4.0, pytest.approx(8**0.5)]


async def test_a_window_that_kept_it_by_luck_does_not_count() -> None:
    """Each rate keeps it once; only those below 4 keep it again."""
    seen: set[float] = set()

    async def trial(rate: float, _: int) -> Figures:
        lucky = rate not in seen and rate < 9
        seen.add(rate)
        return await window(rate, ttft_ms=100 if lucky or rate < 4 else 900)

    found = await highest_rate(trial, PROMISE, first=1.0, trials_max=40)
    assert found.rate is not None
    assert found.rate < 4
    assert found.is_confirmed


async def test_where_windows_run_out_the_highest_rate_that_was_never_broken_is_told_as_unconfirmed() -> None:
    async def trial(rate: float, number: int) -> Figures:
        return await window(rate, ttft_ms=900 if number >= 4 else 100)

    found = await highest_rate(trial, PROMISE, first=1.0, trials_max=6)
    assert (found.rate, found.is_confirmed) == (4.0, False), "1, 2, 4 and 8 kept it, then 8 did not"
    assert "before it was confirmed" in found_said(found, PROMISE)


async def test_every_window_has_arrivals_of_its_own() -> None:
    numbers = []

    async def trial(rate: float, number: int) -> Figures:
        numbers.append(number)
        return await window(rate, ttft_ms=100 * rate)

    await highest_rate(trial, PROMISE, first=1.0, trials_max=20)
    assert numbers == list(range(len(numbers)))


async def test_what_is_lost_or_piles_up_breaks_a_promise_that_the_times_keep() -> None:
    good = await window(2.0)
    assert PROMISE.broken(good) == ()
    assert PROMISE.broken(replace(good, refused=1)) == ("9% lost",)
    assert PROMISE.broken(replace(good, answers=0)) == ("no answer",)
    assert PROMISE.broken(replace(good, fell_behind=40)) == ("40 more under way at the end",)
    slow = await window(2.0, ttft_ms=400, itl_ms=70)
    assert Promise(ttft_p95_ms=300, itl_p95_ms=50).broken(slow) == ("TTFT 400 ms", "ITL 70 ms")


async def test_an_overloaded_service_falls_behind_and_a_busy_one_does_not() -> None:
    service = VirtualService(waiting_max=10**6)
    assert fell_behind(await service.trial(13.0, 3, seconds=60))
    assert not any([fell_behind(await service.trial(8.0, number, seconds=60)) for number in range(20)])
    closed = replace(await service.trial(13.0, 3, seconds=60), is_rate=False)
    assert not fell_behind(closed), "a closed loop has as many under way as it was told"


async def sizing(demand: Demand, promise: Promise = PROMISE, running_max: int = 0) -> Sizing:
    """Of a replica that keeps 4 a second, 10 in flight, of whom each waits half a second for its slot."""
    figures = replace(
        await window(4.0),
        asked_per_s=4.0,
        in_flight=10.0,
        latency_mean_s=2.5,
        queued_mean_s=0.5,
        ttft_ms={"p50": 50.0, "p95": 290.0, "p99": 400.0},
    )
    return sized([figures, figures], promise, demand, running_max)


async def test_the_settings_of_a_replica_follow_from_its_highest_rate() -> None:
    size = await sizing(Demand())
    assert size.busy_slots == pytest.approx(10 - 4 * 0.5)
    assert size.running_max == size.slots == math.ceil(8 + 2.33 * math.sqrt(8))
    assert size.waiting_max == 1, "4 a second in the 250 ms that the promise leaves"
    assert size.scale_out_at == pytest.approx(10 / 1.3)
    assert size.replicas is None
    by_latency = await sizing(Demand(), Promise(itl_p95_ms=50))
    assert by_latency.waiting_max == 10, "without a limit for the first token: as many as come while one is answered"


async def test_what_was_measured_with_fewer_slots_says_nothing_of_more() -> None:
    size = await sizing(Demand(), running_max=12)
    assert (size.running_max, size.slots) == (12, 15)
    assert any("at most the 12 that were measured" in formula for _, formula in explained(size, PROMISE, Demand()))


@pytest.mark.parametrize(
    ("demand", "rate", "replicas"),
    [
        (Demand(rate=40.0), 40.0, 13),
        (Demand(rate=0.1), 0.1, 1),
        (Demand(users=100), 40.0, 13),
        (Demand(users=100, headroom=1.0), 40.0, 10),
        (Demand(users=100, think_s=22.5), 4.0, 2),
    ],
)
async def test_the_number_of_replicas_is_what_the_demand_takes_of_the_highest_rate(
    demand: Demand, rate: float, replicas: int
) -> None:
    size = await sizing(demand)
    assert size.demand_rate == pytest.approx(rate)
    assert size.replicas == replicas
    setting, formula = explained(size, PROMISE, demand)[-1]
    assert setting == f"replicas {replicas}"
    assert f"{rate:.3g}/s x {demand.headroom:g} headroom / 4/s, rounded up" in formula
