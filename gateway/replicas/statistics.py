"""What is counted of the choice of replicas."""

from collections import Counter
from collections.abc import Iterable
from enum import Enum

from opentelemetry.metrics import CallbackOptions, Meter, Observation


class Choice(Enum):
    """Why a replica was chosen."""

    ONLY = "only"
    """There was no other."""
    PREFIX = "prefix"
    """It has been sent the same beginning before."""
    HASH = "hash"
    """The beginning is new, and its key's first choice is this replica."""
    LOAD = "load"
    """The prompt has nothing to share, and this replica has least to do."""
    SPILL = "spill"
    """The first choice had more than its share to do."""
    RETRY = "retry"
    """Another one had failed."""


class Statistics:
    """Counts of a process. Added to on the hot path, read when somebody looks."""

    def __init__(self, meter: Meter) -> None:
        self._chosen: Counter[Choice] = Counter()
        self._failed: Counter[str] = Counter()
        meter.create_observable_counter(
            "penstock.gateway.generation.choices",
            [self._observe_chosen],
            description="Calls to replicas by why they were chosen",
        )
        meter.create_observable_counter(
            "penstock.gateway.generation.failures",
            [self._observe_failed],
            description="Calls to replicas that failed, by reason",
        )

    def chosen(self, why: Choice) -> None:
        """A replica was chosen."""
        self._chosen[why] += 1

    def failed(self, reason: str) -> None:
        """A call to a replica failed. The caller may not have seen it."""
        self._failed[reason] += 1

    def _observe_chosen(self, _: CallbackOptions) -> Iterable[Observation]:
        for why, count in dict(self._chosen).items():
            yield Observation(count, {"by": why.value})

    def _observe_failed(self, _: CallbackOptions) -> Iterable[Observation]:
        for reason, count in dict(self._failed).items():
            yield Observation(count, {"reason": reason})
