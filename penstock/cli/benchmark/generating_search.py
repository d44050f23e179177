"""The highest rate of random arrivals at which a service keeps what was promised: doubling, bisection, confirmation.

The number of windows has a bound. A window that breaks the promise by bad luck lowers what is found: the error is on the safe
side. One that keeps it by good luck is what the confirming windows are for, which have other arrivals at the same rate.
"""

import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from penstock.cli.benchmark.generating_figures import Figures

LOST_SHARE_MAX: Final = 0.01
"""Requests that may be refused or fail. More is a broken promise, however fast the others are."""
CONFIRMATIONS: Final = 2
RESOLUTION: Final = 1.1
"""Bisection ends when the broken rate is at most so many times the kept one."""
STEP_BACK: Final = 0.9
TRIALS_MAX: Final = 100

Trial = Callable[[float, int], Awaitable[Figures]]
"""Measures a window at a rate; the number is the window's own, for arrivals of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """What to keep, in ms; None: not asked for."""

    ttft_p95_ms: float | None = None
    itl_p95_ms: float | None = None

    def broken(self, figures: Figures) -> tuple[str, ...]:
        """In which ways a window breaks it; none where it is kept."""
        faults = []
        if not figures.answers:
            faults.append("no answer")
        for name, values, limit in (
            ("TTFT", figures.ttft_ms, self.ttft_p95_ms),
            ("ITL", figures.itl_ms, self.itl_p95_ms),
        ):
            if limit is not None and values["p95"] > limit:
                faults.append(f"p95 {name} {values['p95']:,.0f} ms")
        if figures.lost_share > LOST_SHARE_MAX:
            faults.append(f"{figures.lost_share:.0%} lost")
        if fell_behind(figures):
            faults.append(f"{figures.fell_behind} more under way at the end")
        return tuple(faults)

    def __str__(self) -> str:
        limits = (("TTFT", self.ttft_p95_ms), ("inter-token time", self.itl_p95_ms))
        return " and ".join(f"p95 {name} within {limit:g} ms" for name, limit in limits if limit is not None)


def fell_behind(figures: Figures) -> bool:
    """Whether requests piled up, which a short window's times may not show yet.

    By more than a tenth of what was asked, and more than chance moves a number under way that has a Poisson distribution: the
    difference of two such numbers has a deviation of sqrt(2 * in_flight).
    """
    if not figures.is_rate:
        return False
    chance = 3 * math.sqrt(2 * max(1.0, figures.in_flight))
    return figures.fell_behind > max(0.1 * figures.asked_per_s * figures.seconds, chance)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """A window of the search, and how it broke the promise, if it did."""

    figures: Figures
    broken: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The rate, None where no rate keeps the promise; every window that was tried, in its order.

    `is_highest`: a higher rate was seen to break it. `is_confirmed`: all the confirming windows kept it.
    """

    rate: float | None
    is_highest: bool
    is_confirmed: bool
    tried: tuple[Tried, ...]

    @property
    def windows(self) -> tuple[Figures, ...]:
        """Those of the rate."""
        return tuple(each.figures for each in self.tried if each.figures.setting == self.rate)


async def highest_rate(trial: Trial, promise: Promise, *, first: float, trials_max: int) -> Found:
    """Searches from `first` on, up or down, in at most `trials_max` windows."""
    search = _Search(trial=trial, promise=promise, trials_max=trials_max)
    await search.bracket(first)
    await search.confirm()
    return search.found()


@dataclass(slots=True, kw_only=True)
class _Search:
    """Where the search stands: the highest rate that was kept, and the lowest that was broken."""

    trial: Trial
    promise: Promise
    trials_max: int
    kept: float | None = None
    broken: float | None = None
    is_confirmed: bool = False
    tried: list[Tried] = field(default_factory=list)

    async def bracket(self, first: float) -> None:
        rate = first
        # The last windows are kept for confirming what there is.
        while len(self.tried) < max(1, self.trials_max - CONFIRMATIONS) and not self._is_narrow():
            if await self._keeps(rate):
                self.kept = rate
            else:
                self.broken = rate
            rate = _next_rate(self.kept, self.broken)

    async def confirm(self) -> None:
        while self.kept is not None and not self.is_confirmed and len(self.tried) < self.trials_max:
            windows = sum(each.figures.setting == self.kept for each in self.tried)
            if not await self._keeps(self.kept):
                self.broken, self.kept = self.kept, STEP_BACK * self.kept
            else:
                self.is_confirmed = windows == CONFIRMATIONS

    async def _keeps(self, rate: float) -> bool:
        figures = await self.trial(rate, len(self.tried))
        self.tried.append(Tried(figures=figures, broken=self.promise.broken(figures)))
        return not self.tried[-1].broken

    def _is_narrow(self) -> bool:
        return self.kept is not None and self.broken is not None and self.broken <= RESOLUTION * self.kept

    def found(self) -> Found:
        rate = self.kept if self.is_confirmed else _highest_kept(self.tried)
        return Found(rate=rate, is_highest=self.broken is not None, is_confirmed=self.is_confirmed, tried=tuple(self.tried))


def _next_rate(kept: float | None, broken: float | None) -> float:
    if broken is None:
        return 2 * (kept or 0.0)
    return math.sqrt(kept * broken) if kept else broken / 2


def _highest_kept(tried: Sequence[Tried]) -> float | None:
    """The highest rate below every one that broke the promise, where windows ran out before it was confirmed."""
    lowest_broken = min((each.figures.setting for each in tried if each.broken), default=math.inf)
    return max((rate for each in tried if (rate := each.figures.setting) < lowest_broken), default=None)
