"""The highest rate of random arrivals at which a service keeps what was promised: doubling, bisection, confirmation.

One window says little: random arrivals are kind in one and not in the next. So a rate counts as broken when two windows broke
the promise, or one did by far, and as found when two of at most three kept it. Each has arrivals of its own, and the number of
windows has a bound.
"""

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from penstock.cli.benchmark.generating_figures import Figures

LOST_SHARE_MAX: Final = 0.01
"""Requests that may be refused or fail. More is a broken promise, however fast the others are."""
WINDOWS_NEEDED: Final = 2
"""Windows that settle it either way: the better of three."""
BROKEN_BY_FAR: Final = 2.0
"""A p95 of so many times its limit in the first window needs no second."""
RESOLUTION: Final = 1.1
"""Bisection ends when the broken rate is at most so many times the kept one."""
STEP_BACK: Final = 0.9

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
                faults.append(f"{name} {values['p95']:,.0f} ms")
        if figures.lost_share > LOST_SHARE_MAX:
            faults.append(f"{figures.lost_share:.0%} lost")
        if fell_behind(figures):
            faults.append(f"{figures.fell_behind} more under way at the end")
        return tuple(faults)

    def is_broken_by_far(self, figures: Figures) -> bool:
        """Whether chance can't be the reason."""
        limits = ((figures.ttft_ms, self.ttft_p95_ms), (figures.itl_ms, self.itl_p95_ms))
        return any(limit is not None and values["p95"] > BROKEN_BY_FAR * limit for values, limit in limits)

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

    `broken` is the lowest rate that breaks it, None where none was seen to. `is_confirmed`: the windows needed kept it.
    """

    rate: float | None
    broken: float | None
    is_confirmed: bool
    tried: tuple[Tried, ...]

    @property
    def windows(self) -> tuple[Tried, ...]:
        """Those of the rate."""
        return tuple(each for each in self.tried if each.figures.setting == self.rate)


async def highest_rate(trial: Trial, promise: Promise, *, first: float, trials_max: int, least: float = 0.0) -> Found:
    """Searches from `first` on, up or down to `least`, in at most `trials_max` windows."""
    search = _Search(trial=trial, promise=promise, trials_max=trials_max, least=least)
    await search.bracket(first)
    await search.confirm()
    return search.found()


@dataclass(slots=True, kw_only=True)
class _Search:
    """Where the search stands: the highest rate that was kept, and the lowest that was broken."""

    trial: Trial
    promise: Promise
    trials_max: int
    least: float
    kept: float | None = None
    broken: float | None = None
    tried: list[Tried] = field(default_factory=list)

    async def bracket(self, first: float) -> None:
        """Doubles or halves until the rate lies between two, then bisects. Leaves windows for confirming what there is."""
        rate = max(first, self.least)
        while self._left > WINDOWS_NEEDED and not self._is_narrow() and rate != self.broken:
            await self._settle(rate, kept_needed=1)
            rate = max(self.least, _next_rate(self.kept, self.broken) or rate)

    async def confirm(self) -> None:
        """Steps back from what was kept by chance."""
        while self.kept is not None and self._left and self._count(self.kept, broken=False) < WINDOWS_NEEDED:
            await self._settle(self.kept, kept_needed=WINDOWS_NEEDED)

    def found(self) -> Found:
        is_confirmed = self.kept is not None and self._count(self.kept, broken=False) >= WINDOWS_NEEDED
        rate = self.kept if is_confirmed else self._best_so_far()
        return Found(rate=rate, broken=self.broken, is_confirmed=is_confirmed, tried=tuple(self.tried))

    async def _settle(self, rate: float, *, kept_needed: int) -> None:
        """Tries a rate until so many windows kept it, or it is broken, or there are no more."""
        while self._left:
            figures = await self.trial(rate, len(self.tried))
            self.tried.append(Tried(figures=figures, broken=self.promise.broken(figures)))
            kept, broken = self._count(rate, broken=False), self._count(rate, broken=True)
            if broken >= WINDOWS_NEEDED or (not kept and self.promise.is_broken_by_far(figures)):
                self.broken, self.kept = rate, STEP_BACK * rate if self.kept == rate else self.kept
                return
            if kept >= kept_needed:
                self.kept = rate
                return

    def _count(self, rate: float, *, broken: bool) -> int:
        return sum(each.figures.setting == rate and bool(each.broken) is broken for each in self.tried)

    @property
    def _left(self) -> int:
        return self.trials_max - len(self.tried)

    def _is_narrow(self) -> bool:
        return self.kept is not None and self.broken is not None and self.broken <= RESOLUTION * self.kept

    def _best_so_far(self) -> float | None:
        """Where windows ran out: the highest rate that more windows kept than broke."""
        rates = {each.figures.setting for each in self.tried}
        return max((rate for rate in rates if self._count(rate, broken=False) > self._count(rate, broken=True)), default=None)


def _next_rate(kept: float | None, broken: float | None) -> float | None:
    """None where nothing is settled yet."""
    if broken is None:
        return None if kept is None else 2 * kept
    return broken / 2 if kept is None else math.sqrt(kept * broken)
