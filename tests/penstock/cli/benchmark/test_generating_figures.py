"""Percentiles and throughput of answers whose moments are known."""

import random

import pytest

from penstock.cli.benchmark.generating_calls import CUT_SHORT, Exchange
from penstock.cli.benchmark.generating_figures import token_percentile
from tests.penstock.cli.benchmark.virtual_service import VirtualService, exchange, observed, refusal


async def test_the_first_token_and_the_end_are_counted_from_the_sending() -> None:
    answers = [exchange(at, [(at + first / 1000, 1), (at + 2.0, 1)]) for at, first in ((0, 100), (1, 200), (2, 600))]
    figures = await observed(answers, starts=0, until=10)
    assert figures.ttft_ms["p50"] == pytest.approx(200)
    assert figures.ttft_ms["p95"] == pytest.approx(560)
    assert figures.latency_ms["p50"] == pytest.approx(2000)
    assert figures.latency_mean_s == pytest.approx(2.0)
    assert figures.answers == 3


async def test_the_time_between_deltas_is_shared_by_the_tokens_of_the_second_and_counted_for_each() -> None:
    """90 tokens that took 5 ms each, in deltas of nine; 10 that took 50 ms each."""
    moments, at = [(1.0, 1)], 1.0
    for _ in range(10):
        moments += [(at + 0.045, 9), (at + 0.095, 1)]
        at += 0.095
    figures = await observed([exchange(0.0, moments)], starts=0, until=10)
    assert figures.itl_ms["p50"] == pytest.approx(5, abs=0.02)
    assert figures.itl_ms["p95"] == pytest.approx(50, abs=0.02)


async def test_percentiles_are_those_of_the_numbers_that_went_in() -> None:
    source = random.Random(5)
    firsts = [source.expovariate(10) for _ in range(1001)]
    answers = [exchange(at, [(at + first, 1)]) for at, first in enumerate(firsts)]
    figures = await observed(answers, starts=0, until=2000)
    inorder = sorted(firsts)
    assert figures.ttft_ms == pytest.approx({"p50": 1e3 * inorder[500], "p95": 1e3 * inorder[950], "p99": 1e3 * inorder[990]})


async def test_throughput_is_what_came_within_the_window_of_whichever_request() -> None:
    before = exchange(-5.0, [(-4.0, 3), (2.0, 4)], input_tokens=100)  # Its first token came before the window.
    within = exchange(1.0, [(3.0, 1), (4.0, 5)], input_tokens=200)
    after = exchange(9.0, [(9.5, 2), (12.0, 7)], input_tokens=300)
    figures = await observed([before, within, after], starts=0, until=10)
    assert figures.output_tokens_per_s == pytest.approx((4 + 1 + 5 + 2) / 10)
    assert figures.input_tokens_per_s == pytest.approx((200 + 300) / 10)
    assert figures.requests_per_s == pytest.approx(2 / 10), "the last ended after it"
    assert figures.asked_per_s == pytest.approx(2 / 10)
    assert figures.answers == 2, "those that were sent in it"


async def test_requests_under_way_are_counted_by_the_time_that_they_were() -> None:
    answers = [exchange(-1.0, [(4.0, 1)]), exchange(5.0, [(11.0, 1)]), exchange(8.0, [(20.0, 1)])]
    figures = await observed(answers, starts=0, until=10)
    assert figures.in_flight == pytest.approx((4 + 5 + 2) / 10)
    assert figures.fell_behind == 2 - 1


async def test_refusals_are_not_errors_and_have_times_of_their_own() -> None:
    broken = Exchange(sent=2.0, ended=2.5, fault="UNAVAILABLE", said="draining")
    short = Exchange(sent=3.0, ended=3.5, fault=CUT_SHORT, said="no last event")
    figures = await observed([refusal(0.0, 0.003), refusal(1.0, 1.005), broken, short], starts=0, until=10)
    assert (figures.refused, figures.answers, figures.requests_per_s) == (2, 0, 0)
    assert figures.refused_ms["p50"] == pytest.approx(4)
    assert figures.faults == {"UNAVAILABLE": 1, CUT_SHORT: 1}
    assert figures.said["UNAVAILABLE"] == "draining"
    assert (figures.lost, figures.lost_share) == (4, 1.0)


async def test_the_services_own_times_stand_beside_the_clients() -> None:
    figures = await observed([exchange(0.0, [(0.5, 1), (1.5, 10)], queued_s=0.2)], starts=0, until=10)
    assert figures.service_ms["queued"]["p50"] == pytest.approx(200)
    assert figures.service_ms["first token"]["p50"] == pytest.approx(500)
    assert figures.service_ms["per token"]["p50"] == pytest.approx(100)
    assert figures.queued_mean_s == pytest.approx(0.2)
    assert figures.cached_share == pytest.approx(0.5)


async def test_where_nothing_was_answered_everything_is_nought() -> None:
    figures = await observed([], starts=0, until=10)
    assert figures.ttft_ms == figures.itl_ms == figures.latency_ms == {"p50": 0, "p95": 0, "p99": 0}
    assert (figures.answers, figures.in_flight, figures.lost_share, figures.service_ms) == (0, 0, 0, {})


@pytest.mark.parametrize(
    ("gaps", "percent", "expected"),
    [
        ({}, 95, 0.0),
        ({700: 1}, 50, 7.0),
        ({100: 95, 200: 5}, 95, 1.0),
        ({100: 94, 200: 6}, 95, 2.0),
        ({100: 1, 300: 3}, 25, 1.0),
    ],
)
def test_a_tokens_percentile_is_the_least_gap_that_so_many_do_not_exceed(
    gaps: dict[int, int], percent: float, expected: float
) -> None:
    assert token_percentile(gaps, percent) == expected


async def test_littles_law_holds_of_what_is_measured() -> None:
    figures = await VirtualService().trial(7.0, 1, seconds=600)
    assert figures.in_flight == pytest.approx(figures.asked_per_s * figures.latency_mean_s, rel=0.02)
