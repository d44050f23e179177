"""From the highest rate that one replica keeps to the settings of each and to their number.

Little's law holds for whatever comes and goes: requests in flight = rate x latency. So a rate that was kept says how many a
replica has in flight, and a number of users how many there are in all. J. D. C. Little, "A Proof for the Queuing Formula:
L = lambda W", Operations Research 9 (3), 1961.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final

from penstock.cli.benchmark.generating_figures import Figures
from penstock.cli.benchmark.generating_search import Promise

HEADROOM: Final = 1.3
ONE_IN_A_HUNDRED: Final = 2.33
"""Standard deviations that a normal variable exceeds once in a hundred times."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What is expected: users of whom each asks, reads for `think_s` and asks again, or requests a second; both may be None.

    `headroom`: each replica gets 1 / headroom of what it was seen to keep.
    """

    users: int | None = None
    rate: float | None = None
    think_s: float = 0.0
    headroom: float = HEADROOM


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizing:
    """What to set. Numbers of requests; those of a replica, but for `replicas`, which is None where no demand was given.

    `slots` is what `running_max` would be without a bound of the service that was measured.
    """

    rate: float
    latency_s: float
    in_flight: float
    busy_slots: float
    slots: int
    running_max: int
    waiting_max: int
    scale_out_at: float
    demand_rate: float | None
    replicas: int | None


def sized(windows: Sequence[Figures], promise: Promise, demand: Demand, running_max: int = 0) -> Sizing:
    """From the windows of the rate that was found, by what was really asked in them.

    `running_max` is what the measured service has, 0 where it is not known.
    """
    rate = fmean(each.asked_per_s for each in windows)
    in_flight = fmean(each.in_flight for each in windows)
    latency_s = fmean(each.latency_mean_s for each in windows)
    busy = max(0.0, in_flight - rate * fmean(each.queued_mean_s for each in windows))
    slots = max(1, math.ceil(busy + ONE_IN_A_HUNDRED * math.sqrt(busy)))
    demand_rate = demand.rate if demand.users is None else demand.users / (latency_s + demand.think_s)
    return Sizing(
        rate=rate,
        latency_s=latency_s,
        in_flight=in_flight,
        busy_slots=busy,
        slots=slots,
        running_max=min(slots, running_max) if running_max else slots,
        waiting_max=max(1, int(rate * _patience_s(windows, promise, latency_s))),
        scale_out_at=in_flight / demand.headroom,
        demand_rate=demand_rate,
        replicas=None if demand_rate is None else max(1, math.ceil(demand.headroom * demand_rate / rate)),
    )


def _patience_s(windows: Sequence[Figures], promise: Promise, latency_s: float) -> float:
    """How long a request may wait for a slot: what the promise leaves of it, or else as long as an answer takes."""
    if promise.ttft_p95_ms is None:
        return latency_s
    return max(0.0, promise.ttft_p95_ms - fmean(each.ttft_ms["p50"] for each in windows)) / 1000


def explained(sizing: Sizing, promise: Promise, demand: Demand) -> tuple[tuple[str, str], ...]:
    """Each setting, and the formula that it comes from with its numbers."""
    bound = f", at most the {sizing.running_max} that were measured" if sizing.running_max < sizing.slots else ""
    slots = f"{sizing.busy_slots:.1f} busy slots + {ONE_IN_A_HUNDRED} x sqrt({sizing.busy_slots:.1f}){bound}"
    rate, latency = f"{sizing.rate:.3g}/s", f"{sizing.latency_s:.3g} s"
    by_law = f"measured; by Little's law rate x latency = {rate} x {latency} = {sizing.rate * sizing.latency_s:.1f}"
    waits = f"{rate} x {latency}: as many as come while one is answered"
    if promise.ttft_p95_ms is not None:
        waits = f"{rate} x what the p50 leaves of {promise.ttft_p95_ms:g} ms: who would wait longer is better refused at once"
    return (
        (f"in flight {sizing.in_flight:.1f}", by_law),
        (f"PENSTOCK_GENERATION_RUNNING_MAX={sizing.running_max}", f"{slots}: more come together once in a hundred times"),
        (f"PENSTOCK_GENERATION_WAITING_MAX={sizing.waiting_max}", waits),
        (
            f"scale out at {sizing.scale_out_at:.1f}",
            f"running and waiting penstock.generation.requests, each: {sizing.in_flight:.1f} / {demand.headroom:g} headroom",
        ),
        *_replicas(sizing, demand),
    )


def _replicas(sizing: Sizing, demand: Demand) -> tuple[tuple[str, str], ...]:
    if sizing.replicas is None or sizing.demand_rate is None:
        return ()
    formula = f"{sizing.demand_rate:.3g}/s x {demand.headroom:g} headroom / {sizing.rate:.3g}/s, rounded up"
    if demand.users is not None:
        cycle = f"({sizing.latency_s:.3g} s + {demand.think_s:g} s to think)" if demand.think_s else f"{sizing.latency_s:.3g} s"
        formula += f"; {demand.users} users / {cycle} = {sizing.demand_rate:.3g}/s"
    return ((f"replicas {sizing.replicas}", f"{formula}. One more for each that may be away at once"),)
