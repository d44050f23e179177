"""One call to a slot: the first answer of its replicas wins.

A replica that fails is followed by the next at once; one that takes long gets company after the hedge delay (grpcio ignores
gRPC's own hedgingPolicy). Every replica is asked at most once, at most two at a time, and the loser is cancelled.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Final, Generic, TypeVar

from penstock.errors import (
    Cancelled,
    DeadlineExceeded,
    Internal,
    Overloaded,
    PenstockError,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
)
from retrieval_svc.cluster.limits import ClusterLimits
from retrieval_svc.cluster.replicas import Replica, Replicas
from retrieval_svc.cluster.shard_node import ShardNode
from retrieval_svc.cluster.statistics import Event, Statistics

T = TypeVar("T")
Ask = Callable[[ShardNode], Coroutine[Any, Any, T]]

_RETRYABLE: Final = (Unavailable, DeadlineExceeded, Overloaded, Internal, Cancelled, Unauthenticated, PermissionDenied)
"""The last two are between nodes, and nothing that the caller could do anything about."""
_TOLD_AS_THEY_ARE: Final = (Overloaded, DeadlineExceeded, Internal)
_OVERLOADS_MAX: Final = 2
"""Replicas that may say so before it is believed of the slot: asking all of them would feed the storm."""
_LATENCIES_KEPT: Final = 128
_LATENCIES_BETWEEN: Final = 16
"""Calls after which the percentile is taken anew."""


class Pace:
    """When to hedge, and how often: the 95th percentile of the slot's last latencies, and a share of its calls."""

    def __init__(self, limits: ClusterLimits) -> None:
        self._limits = limits
        self._latencies: deque[float] = deque(maxlen=_LATENCIES_KEPT)
        self._count = 0
        self._tokens = float(limits.hedge_burst)
        self.delay_s = limits.hedge_delay_max_s

    def called(self) -> None:
        """Every call earns a share of a hedge."""
        self._tokens = min(self._limits.hedge_burst, self._tokens + self._limits.hedge_share_max)

    @property
    def may_hedge(self) -> bool:
        """Whether there is a hedge to spend."""
        return self._tokens >= 1

    def hedged(self) -> None:
        """One was spent."""
        self._tokens -= 1

    def observe(self, seconds: float) -> None:
        """A call was answered after so long."""
        self._latencies.append(seconds)
        self._count += 1
        if self._count % _LATENCIES_BETWEEN == 0:
            late = sorted(self._latencies)[int(0.95 * (len(self._latencies) - 1))]
            self.delay_s = min(self._limits.hedge_delay_max_s, max(self._limits.hedge_delay_min_s, late))


class Race(Generic[T]):
    """A call in progress. `waits` says that it demands positions, so that its time says little about the replica."""

    def __init__(self, replicas: Replicas, pace: Pace, statistics: Statistics, ask: Ask[T], *, waits: bool) -> None:
        self._replicas = replicas
        self._pace = pace
        self._statistics = statistics
        self._ask = ask
        self._waits = waits
        self._began: dict[Replica, float] = {}
        self._running: dict[asyncio.Task[T], Replica] = {}
        self._failures: list[tuple[Replica, PenstockError]] = []

    async def run(self) -> T:
        """The first answer. Raises Overloaded, DeadlineExceeded or Unavailable when there is none, and others at once."""
        self._pace.called()
        try:
            if not self._start_next():
                raise Unavailable("no replica is known")
            while True:
                winner = await self._next_answer()
                if winner is not None:
                    return winner.result()
        finally:
            await self._cancel_rest()

    async def _next_answer(self) -> asyncio.Task[T] | None:
        may_hedge = len(self._running) == 1 and len(self._began) < len(self._replicas) and self._pace.may_hedge
        delay_s = self._pace.delay_s if may_hedge else None
        done, _ = await asyncio.wait(self._running, timeout=delay_s, return_when=asyncio.FIRST_COMPLETED)
        # One that was put aside may be back by now, and where nothing else is left it is worth a hedge.
        if not done and self._start_next():
            self._pace.hedged()
            self._statistics.happened(Event.HEDGE)
        for task in done:
            if self._settle(task):
                return task
        return None

    def _start_next(self) -> bool:
        replica = self._replicas.pick(self._began)
        if replica is None:
            return False
        self._began[replica] = time.monotonic()
        task = asyncio.get_running_loop().create_task(self._ask(replica.node))
        self._running[task] = replica
        replica.called()
        task.add_done_callback(replica.ended)  # And not in the task, which may be cancelled before it begins.
        return True

    def _settle(self, task: asyncio.Task[T]) -> bool:
        """Whether the call is answered. Otherwise the next replica is on its way, or there is an error."""
        replica = self._running.pop(task)
        try:
            task.result()
        except _RETRYABLE as error:
            self._failures.append((replica, error))
            self._replicas.failed(replica, error, self._began[replica], waits=self._waits)
            self._retry()
            return False
        self._won(replica)
        return True

    def _won(self, replica: Replica) -> None:
        seconds = time.monotonic() - self._began[replica]
        replica.succeeded(seconds)
        if not self._waits:
            self._pace.observe(seconds)
        for slower in self._running.values():
            if self._began[slower] < self._began[replica]:
                self._statistics.happened(Event.HEDGE_WON)
                self._replicas.lost(slower, self._began[slower])

    def _retry(self) -> None:
        if self._running:
            return  # A hedge is under way already.
        overloads = sum(isinstance(error, Overloaded) for _, error in self._failures)
        if overloads < _OVERLOADS_MAX and self._start_next():
            self._statistics.happened(Event.RETRY)
        else:
            raise self._failure()

    def _failure(self) -> PenstockError:
        """The failures as one: itself where all are of one kind that says more than "unavailable"."""
        last = self._failures[-1][1]
        if isinstance(last, _TOLD_AS_THEY_ARE) and len({type(error) for _, error in self._failures}) == 1:
            return last
        told = "; ".join(f"{replica.address}: {error.message}" for replica, error in self._failures)
        return Unavailable(told, retry_after_s=1.0)

    async def _cancel_rest(self) -> None:
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
