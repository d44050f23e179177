"""Two ways of asking a server, and how long its answers take.

A closed loop has so many callers, each asking again when it was answered: a slow server is asked less, and its bad moments are
met by few. An open loop asks at moments that were drawn beforehand, as many strangers do, and an answer's time counts from the
moment that was intended, so that what waited for the client itself is in it ("coordinated omission": Gil Tene, "How NOT to
Measure Latency", 2015).
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import quantiles
from typing import Final, Protocol

Call = Callable[[int], Awaitable[str]]
"""Sends the request of that number and reads the answer. Gives what went wrong, or nothing."""

OUTSTANDING_MAX: Final = 4096
"""Requests of an open loop that may wait for their answers; what is intended beyond it waits, and its time runs on."""
PERCENTS: Final[Mapping[str, float]] = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p99.9": 99.9}
_PAUSE_AFTER_FAULT_S: Final = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """What is measured: `seconds` after a warm-up that is not."""

    seconds: float
    warmup_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One window: how long each good answer took, and what went wrong how often.

    `client_cores` is how many cores this process kept busy; near 1 it may be the client that is slow, and not the server.
    """

    seconds: float
    took_ms: Sequence[float]
    faults: Mapping[str, int]
    client_cores: float

    @property
    def rate(self) -> float:
        """Good answers a second."""
        return len(self.took_ms) / self.seconds


class Observer(Protocol):
    """Told what a loop counts, for a caller that measures more of an answer than how long it took."""

    def begins(self, starts: float, until: float) -> None:
        """The window, in seconds of time.perf_counter."""
        ...

    def ended(self, number: int, *, counted_from: float, is_counted: bool) -> None:
        """The call of that number has ended, and its time counts from that moment if it counts at all."""
        ...


async def closed_loop(call: Call, *, in_flight: int, window: Window, observer: Observer | None = None) -> Measured:
    """Asks with so many callers."""
    tally = _Tally(window, observer)
    numbers = iter(range(10**12))

    async def caller() -> None:
        while time.perf_counter() < tally.until:
            number, began = next(numbers), time.perf_counter()
            fault = await call(number)
            ended = time.perf_counter()
            tally.note(number, began, ended, fault, placed=ended)
            if fault:
                await asyncio.sleep(_PAUSE_AFTER_FAULT_S)

    await asyncio.gather(_cpu_of_window(tally), *(caller() for _ in range(in_flight)))
    return tally.measured()


async def open_loop(call: Call, *, rate: float, window: Window, seed: int = 0, observer: Observer | None = None) -> Measured:
    """Asks `rate` times a second on average."""
    tally = _Tally(window, observer)
    room = asyncio.Semaphore(OUTSTANDING_MAX)

    async def ask(number: int, intended: float) -> None:
        fault = await call(number)
        room.release()
        tally.note(number, intended, time.perf_counter(), fault, placed=intended)

    async with asyncio.TaskGroup() as group:
        group.create_task(_cpu_of_window(tally))
        for number, after in enumerate(arrivals(rate, window.warmup_s + window.seconds, seed)):
            intended = tally.began + after
            if (early := intended - time.perf_counter()) > 0:
                await asyncio.sleep(early)
            await room.acquire()
            group.create_task(ask(number, intended))
    return tally.measured()


def arrivals(rate: float, seconds: float, seed: int) -> Iterator[float]:
    """Moments of a Poisson process from 0 to `seconds`: the times between them are exponential with a mean of 1 / rate."""
    drawn = random.Random(seed)  # noqa: S311  # Nothing is secret here.
    at = drawn.expovariate(rate)
    while at < seconds:
        yield at
        at += drawn.expovariate(rate)


def percentile(values: Sequence[float], percent: float) -> float:
    """A percentile between the values at hand, in thousandths; 0 of nothing."""
    if len(values) < 2:
        return sum(values)
    return quantiles(values, n=1000, method="inclusive")[round(10 * percent) - 1]


@dataclass(slots=True)
class _Tally:
    """What happens in the window: answers that came in it, in an open loop those that were intended in it."""

    window: Window
    observer: Observer | None = None
    began: float = field(default_factory=time.perf_counter)
    cpu_s: float = 0.0
    took_ms: list[float] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        if self.observer is not None:
            self.observer.begins(self.starts, self.until)

    @property
    def starts(self) -> float:
        return self.began + self.window.warmup_s

    @property
    def until(self) -> float:
        return self.starts + self.window.seconds

    def note(self, number: int, began: float, ended: float, fault: str, *, placed: float) -> None:
        """A call that took from `began` to `ended`, and counts if the moment that places it is in the window."""
        is_counted = self.starts <= placed < self.until
        if self.observer is not None:
            self.observer.ended(number, counted_from=began, is_counted=is_counted)
        if not is_counted:
            return
        if fault:
            self.faults[fault] += 1
        else:
            self.took_ms.append(1000 * (ended - began))

    def measured(self) -> Measured:
        seconds = self.window.seconds
        return Measured(seconds=seconds, took_ms=self.took_ms, faults=dict(self.faults), client_cores=self.cpu_s / seconds)


async def _cpu_of_window(tally: _Tally) -> None:
    await asyncio.sleep(max(0.0, tally.starts - time.perf_counter()))
    began = time.process_time()
    await asyncio.sleep(max(0.0, tally.until - time.perf_counter()))
    tally.cpu_s = time.process_time() - began
