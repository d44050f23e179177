"""A closed loop of callers: each sends its next request when its last has been answered. Times them, and meters the servers."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from itertools import cycle
from statistics import quantiles
from typing import Any, Final, Protocol

from bench.meter import Meter, Reading

_PAUSE_AFTER_FAULT_S: Final = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What came back. `fault` is empty when all went well; `first_at` is when the first event of a stream came, else 0.

    `engine_first_s` is how long the engine itself took to its first token, where the answer says so.
    """

    fault: str = ""
    first_at: float = 0.0
    events: int = 0
    output_tokens: int = 0
    engine_first_s: float = 0.0


class Caller(Protocol):
    """One way of asking. Slots are asked one request at a time each."""

    def opened(self, slots: int) -> AbstractAsyncContextManager[None]:
        """Connections for that many slots."""
        ...

    async def call(self, slot: int, payload: bytes) -> Reply:
        """Sends a request and reads the whole answer. A failure is a Reply with a fault."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How to ask. With `seconds` 0 every payload is sent once, without a warm-up; else they are sent over and over."""

    in_flight: int
    payloads: Sequence[bytes]
    seconds: float = 0.0
    warmup_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One measured window. Times to the first event are 0 where there are none; `cpu_s` is by group of processes.

    `added` is the time to the first event beyond what the engine took by its own account.
    """

    requests: int
    errors: int
    faults: Mapping[str, int]
    seconds: float
    p50_ms: float
    p99_ms: float
    first_p50_ms: float
    first_p99_ms: float
    events: int
    output_tokens: int
    cpu_s: Mapping[str, float]
    other_cores: float
    added_p50_ms: float = 0.0
    added_p99_ms: float = 0.0

    @property
    def rate(self) -> float:
        """Requests a second that were answered well."""
        return self.requests / self.seconds

    def cpu_ms(self, *groups: str) -> float:
        """CPU milliseconds a request of these groups together."""
        return 1000 * sum(self.cpu_s[group] for group in groups) / max(1, self.requests)


async def drive(caller: Caller, load: Load, meter: Meter) -> Sample:
    """Runs a load and measures it."""
    async with caller.opened(load.in_flight):
        return await _Loop(caller, load, meter).run()


@asynccontextmanager
async def nothing_to_open(slots: int) -> AsyncIterator[None]:  # noqa: ARG001  # Caller's signature.
    """For callers without connections."""
    yield


def percentile(values: Sequence[float], percent: int) -> float:
    """A percentile, inclusive; 0 of nothing."""
    if len(values) < 2:
        return sum(values)
    return quantiles(values, n=100, method="inclusive")[percent - 1]


class _Loop:
    def __init__(self, caller: Caller, load: Load, meter: Meter) -> None:
        self._caller = caller
        self._load = load
        self._meter = meter
        self._payloads: Iterator[bytes] = cycle(load.payloads) if load.seconds else iter(load.payloads)
        self._begun: Reading | None = None
        self._stopped = False
        self._answered: list[tuple[float, float, Reply]] = []
        self._faults: Counter[str] = Counter()

    async def run(self) -> Sample:
        slots = [asyncio.create_task(self._slot(number)) for number in range(self._load.in_flight)]
        if self._load.seconds:
            await asyncio.sleep(self._load.warmup_s)
            self._begun = self._meter.read()
            await asyncio.sleep(self._load.seconds)
            sample = self._sample()
            self._stopped = True
            await asyncio.gather(*slots)
        else:
            self._begun = self._meter.read()
            await asyncio.gather(*slots)
            sample = self._sample()
        return sample

    async def _slot(self, number: int) -> None:
        # Callers that began together would stay together, and wait for each other's bursts.
        await asyncio.sleep(self._load.warmup_s * number / self._load.in_flight)
        while not self._stopped:
            payload = next(self._payloads, None)
            if payload is None:
                return
            began = time.perf_counter()
            reply = await self._caller.call(number, payload)
            if self._begun is not None and not self._stopped:
                self._note(began, reply)
            if reply.fault:
                await asyncio.sleep(_PAUSE_AFTER_FAULT_S)

    def _note(self, began: float, reply: Reply) -> None:
        if reply.fault:
            self._faults[reply.fault] += 1
        else:
            self._answered.append((began, time.perf_counter(), reply))

    def _sample(self) -> Sample:
        assert self._begun is not None  # For the type: the window has begun before it ends.
        used = self._meter.read().since(self._begun)
        took = [1000 * (ended - began) for began, ended, _ in self._answered]
        first = [1000 * (reply.first_at - began) for began, _, reply in self._answered if reply.first_at]
        added = [
            1000 * (reply.first_at - began - reply.engine_first_s) for began, _, reply in self._answered if reply.engine_first_s
        ]
        return Sample(
            requests=len(took),
            errors=self._faults.total(),
            faults=dict(self._faults),
            seconds=used.at,
            p50_ms=percentile(took, 50),
            p99_ms=percentile(took, 99),
            first_p50_ms=percentile(first, 50),
            first_p99_ms=percentile(first, 99),
            events=sum(reply.events for _, _, reply in self._answered),
            output_tokens=sum(reply.output_tokens for _, _, reply in self._answered),
            cpu_s=used.cpu_s,
            other_cores=used.other_cores(),
            added_p50_ms=percentile(added, 50),
            added_p99_ms=percentile(added, 99),
        )


def sample_from(fields: Mapping[str, Any]) -> Sample:
    """A sample that came from another process as JSON."""
    return Sample(**fields)
