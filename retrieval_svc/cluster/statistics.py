"""What a coordinator counts about its calls to other nodes."""

from enum import Enum
from typing import Protocol


class Event(Enum):
    """Something that is worth counting."""

    HEDGE = "hedge"
    """A call that took long was sent to a second replica as well."""
    HEDGE_WON = "hedge_won"
    """The second replica answered first."""
    RETRY = "retry"
    """A call that failed was sent to another replica."""
    EJECTION = "ejection"
    """A replica was put aside."""
    PARTIAL = "partial"
    """A query was answered without some of its shards."""


class Statistics(Protocol):
    """Where the counts go. Called on the hot path, so it must be cheap; never raises."""

    def happened(self, event: Event, count: int = 1) -> None:
        """Counts an event."""
        ...

    def batch_sent(self, size: int) -> None:
        """A call to another node went out with `size` queries of one or more searches."""
        ...

    def fanned_out(self, seconds: float) -> None:
        """A search had its answers of all shards after so long."""
        ...


class NoStatistics:
    """Counts nothing."""

    def happened(self, event: Event, count: int = 1) -> None:
        """Does nothing."""

    def batch_sent(self, size: int) -> None:
        """Does nothing."""

    def fanned_out(self, seconds: float) -> None:
        """Does nothing."""
