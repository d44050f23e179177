"""The replicas of a slot: which one to ask next, and which ones to leave alone for a while."""

import logging
import math
import time
from collections.abc import Callable, Collection
from typing import Final, Protocol

from penstock.errors import DeadlineExceeded, PenstockError, Unavailable
from penstock.probation import Probation
from retrieval_svc.cluster.limits import ClusterLimits
from retrieval_svc.cluster.shard_node import ShardNode
from retrieval_svc.cluster.statistics import Event, Statistics

log = logging.getLogger(__name__)

_SMOOTHING: Final = 0.3
"""Share of a new latency in the average."""
_FORGET_S: Final = 1.0
"""Time in which an average falls by half while nobody asks: one bad moment must not keep a replica out for good."""
_LATENCY_MIN_S: Final = 0.001
"""Below this replicas count as equally fast, and so does one that was never asked."""
_LOSSES_MAX: Final = 3
"""Hedges lost in a row after which a replica counts as failed: a stopped process is slow for ever, and never refuses."""


class ConnectedNode(ShardNode, Protocol):
    """A node that is reached over a connection."""

    async def close(self, grace_s: float | None = None) -> None:
        """Closes it once the calls in flight have ended, or are cancelled after `grace_s`."""
        ...


Connect = Callable[[str], ConnectedNode]
"""Makes a node of an address, "ip:port". Does not wait for the connection."""


class Replica:
    """A replica and how it has been doing. Times are of time.monotonic()."""

    def __init__(self, address: str, node: ConnectedNode) -> None:
        self.address = address
        self.node = node
        self.outstanding = 0
        self.call_count = 0
        self.probation = Probation()
        self._losses = 0
        self._latency_s = 0.0
        self._measured_at = 0.0

    def load(self, now: float) -> tuple[int, int, int]:
        """Orders replicas by calls in flight, then by latency (equal within a factor of 2), then by calls so far.

        Calls in flight come first, because a slow replica has more of them by itself, and they are never out of date.
        """
        forgotten = self._latency_s * math.exp2((self._measured_at - now) / _FORGET_S)
        return self.outstanding, int(math.log2(max(_LATENCY_MIN_S, forgotten) / _LATENCY_MIN_S)), self.call_count

    def is_aside(self, now: float) -> bool:
        """Whether it is to be left alone; while it is on probation, one call at a time is let through."""
        return self.probation.is_aside(now, is_busy=self.outstanding > 0)

    def is_on_probation(self, now: float) -> bool:
        """Whether its time aside is over and nobody has tried it yet."""
        return self.probation.is_due(now) and not self.is_aside(now)

    def called(self) -> None:
        """A call goes out to it."""
        self.outstanding += 1
        self.call_count += 1

    def ended(self, _: object) -> None:
        """A call to it is over, however it ended."""
        self.outstanding -= 1

    def succeeded(self, seconds: float) -> None:
        """It answered: whatever was held against it is forgotten."""
        self.observe(seconds)
        self._losses = 0
        self.probation.end()

    def observe(self, seconds: float) -> None:
        """Takes a latency into the average, or how long nothing came."""
        self._measured_at = time.monotonic()
        self._latency_s += _SMOOTHING * (seconds - self._latency_s) if self._latency_s else seconds

    def lost(self) -> bool:
        """Another replica was faster. Whether that has happened so often in a row that it counts as a failure."""
        self._losses += 1
        return self._losses >= _LOSSES_MAX


class Replicas:
    """The replicas of one slot, other than this node."""

    def __init__(self, connect: Connect, *, limits: ClusterLimits, statistics: Statistics) -> None:
        self._connect = connect
        self._limits = limits
        self._statistics = statistics
        self._by_address: dict[str, Replica] = {}

    def __len__(self) -> int:
        return len(self._by_address)

    def update(self, addresses: Collection[str]) -> list[ConnectedNode]:
        """Takes on new replicas and forgets those that are gone, which the caller closes."""
        gone = [self._by_address.pop(address).node for address in set(self._by_address) - set(addresses)]
        for address in sorted(set(addresses) - set(self._by_address)):
            self._by_address[address] = Replica(address, self._connect(address))
        return gone

    def pick(self, tried: Collection[Replica]) -> Replica | None:
        """The one to ask next: the least loaded, or one on probation; one put aside only where nothing else is left."""
        now = time.monotonic()
        left = [replica for replica in self._by_address.values() if replica not in tried]
        if not left:
            return None
        if not tried:  # What is on probation is tried where there is time for another one to help out.
            for replica in left:
                if replica.is_on_probation(now):
                    return replica
        usable = [replica for replica in left if not replica.is_aside(now)]
        if not usable:
            return min(left, key=lambda replica: replica.probation.aside_until)
        return min(usable, key=lambda replica: replica.load(now))

    def failed(self, replica: Replica, error: PenstockError, began: float, *, waits: bool) -> None:
        """Judges a failure of a call.

        Time that ran out says something of the replica only where it had all of a call's time, and no position to wait for
        (`waits`): callers with short deadlines, or made-up positions, must not talk replicas out of service.
        """
        had_time = time.monotonic() - began >= 0.9 * self._limits.call_timeout_s
        if isinstance(error, Unavailable) or (isinstance(error, DeadlineExceeded) and had_time and not waits):
            self._put_aside(replica, began, error.message)

    def lost(self, replica: Replica, began: float) -> None:
        """Another replica's answer came first, although it was asked later."""
        replica.observe(time.monotonic() - began)
        if replica.lost():
            self._put_aside(replica, began, "others answered first again and again")

    def _put_aside(self, replica: Replica, began: float, reason: str) -> None:
        limits = self._limits
        if replica.probation.put_aside(began, at_least_s=limits.aside_min_s, at_most_s=limits.aside_max_s):
            seconds = replica.probation.aside_until - time.monotonic()
            log.warning("replica %s is put aside for %.1f s: %s", replica.address, seconds, reason)
            self._statistics.happened(Event.EJECTION)
