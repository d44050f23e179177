"""Leaving alone a replica that has failed: for a while, for twice as long each time, and then one call finds out."""

import time


class Probation:
    """Whether one replica is left alone. Times are of time.monotonic()."""

    __slots__ = ("_aside_s", "_aside_since", "aside_until")

    def __init__(self) -> None:
        self.aside_until = 0.0
        self._aside_since = 0.0
        self._aside_s = 0.0

    def is_aside(self, now: float, *, is_busy: bool) -> bool:
        """Whether it is to be left alone; while it is on probation, one call at a time is let through (`is_busy`)."""
        return now < self.aside_until or (self._aside_s > 0 and is_busy)

    def is_due(self, now: float) -> bool:
        """Whether its time aside is over and no call to it has succeeded yet."""
        return self._aside_s > 0 and now >= self.aside_until

    def put_aside(self, began: float, *, at_least_s: float, at_most_s: float) -> bool:
        """Leaves it alone from now on; twice as long as the last time. Not again for calls that began before that."""
        if began < self._aside_since:
            return False
        self._aside_since = time.monotonic()
        self._aside_s = min(at_most_s, max(at_least_s, 2 * self._aside_s))
        self.aside_until = self._aside_since + self._aside_s
        return True

    def end(self) -> None:
        """It answered: whatever was held against it is forgotten."""
        self._aside_s = self.aside_until = 0.0
