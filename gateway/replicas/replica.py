"""One replica: what it is asked through, what it works on, and whether it can be asked at all."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Final, Protocol

from gateway.backends import Embedder, Generator, Reranker
from gateway.replicas.prefixes import PrefixTable
from penstock.probation import Probation

SILENT_AFTER: Final = 3
"""Reports in a row that did not come in time, after which a replica counts as gone: a stopped process refuses nothing."""
FREE_SHARE: Final = 8
"""A replica with less than an eighth of its slots taken is not loaded: an engine's batch has room, and moving costs a cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaLimits:
    """How replicas are chosen and tried.

    A replica may have `load_factor` times the average load before its prompts go elsewhere. A call is tried `tries_max` times.
    One that fails is put aside for `aside_min_s`, and twice as long each time that it fails again. Loads are asked for every
    `report_interval_s` and names resolved every `resolve_interval_s`; a replica that goes has `close_grace_s` for its calls.
    """

    load_factor: float = 1.25
    tries_max: int = 3
    aside_min_s: float = 0.5
    aside_max_s: float = 30.0
    report_interval_s: float = 1.0
    resolve_interval_s: float = 5.0
    retry_delay_min_s: float = 0.05
    retry_delay_max_s: float = 0.5
    close_grace_s: float = 240.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedLoad:
    """What a replica says of itself: requests in its engine and before it, and how many each may be."""

    running: int
    waiting: int
    running_max: int
    waiting_max: int


class ReplicaNode(Generator, Embedder, Reranker, Protocol):
    """One replica of the generation service, whichever kind of model it has."""

    async def load(self) -> ReportedLoad:
        """What it works on. Raises what calls raise, DeadlineExceeded within a second."""
        ...

    def readiness(self) -> AsyncGenerator[bool, None]:
        """Whether it can be asked, now and at each change: connected, and neither loading nor draining."""
        ...

    async def close(self, grace_s: float | None = None) -> None:
        """Ends it once the calls in flight have ended, or are cancelled after `grace_s`."""
        ...


class Replica:
    """A replica and how it is doing."""

    def __init__(self, address: str, node: ReplicaNode) -> None:
        self.address = address
        self.seed = address.encode()
        self.node = node
        self.ready = False
        self.outstanding = 0
        self.call_count = 0
        self.others = 0
        """Requests that it has of others than this process, at its last report."""
        self.report: ReportedLoad | None = None
        self.probation = Probation()
        self.prefixes = PrefixTable()
        self._silences = 0

    @property
    def load(self) -> int:
        """Requests that it has. Its own report is as old as it is; what this process sent it since is counted."""
        return self.outstanding + self.others

    @property
    def free_max(self) -> int:
        """Load up to which it is not loaded, whatever the others have."""
        return 0 if self.report is None else self.report.running_max // FREE_SHARE

    @property
    def is_full(self) -> bool:
        """Whether it would refuse another request."""
        report = self.report
        return report is not None and self.load >= report.running_max + report.waiting_max

    @property
    def has_room(self) -> bool:
        """Whether it has said that it has a free slot."""
        return self.report is not None and self.load < self.report.running_max

    def can_be_asked(self, now: float) -> bool:
        """Whether it is ready, answers, and is not put aside."""
        return self.ready and self._silences < SILENT_AFTER and not self.is_aside(now)

    def is_aside(self, now: float) -> bool:
        """Whether it failed and is left alone."""
        return self.probation.is_aside(now, is_busy=self.outstanding > 0)

    def called(self) -> None:
        """A call goes out to it."""
        self.outstanding += 1
        self.call_count += 1

    def ended(self) -> None:
        """A call to it is over, however it ended."""
        self.outstanding -= 1

    def reported(self, report: ReportedLoad | None) -> None:
        """It has said what it works on, or that it does not say."""
        self._silences = 0
        self.report = report
        self.others = 0 if report is None else max(0, report.running + report.waiting - self.outstanding)

    def was_silent(self) -> None:
        """A report did not come in time."""
        self._silences += 1

    def refused(self) -> None:
        """It had no room, whatever it said last: it counts as full until its next report."""
        if self.report is not None:
            self.others = max(self.others, self.report.running_max + self.report.waiting_max - self.outstanding)
