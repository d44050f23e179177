"""How far one request has got, and when: what its span, the metrics and the answer itself tell of its time."""

import time
from dataclasses import dataclass, field

from generation_svc.engine import Delta, Finished, Timings


@dataclass(slots=True)
class Watch:
    """Tell it of every step. Moments are Unix time in nanoseconds, 0 for what has not happened."""

    arrived_ns: int = field(default_factory=time.time_ns)
    admitted_ns: int = 0
    scheduled_ns: int = 0
    first_ns: int = 0
    last_ns: int = 0
    token_count: int = 0
    finished: Finished | None = None

    def admitted(self) -> None:
        """The engine gets the request. An engine with a queue of its own says at the end when it really began."""
        self.admitted_ns = self.scheduled_ns = time.time_ns()

    def saw(self, part: Delta | Finished) -> None:
        """A part of the answer has come."""
        if isinstance(part, Finished):
            self._finish(part)
            return
        self.token_count += part.token_count
        if not self.first_ns:
            self.first_ns = time.time_ns()

    def timings(self) -> Timings:
        """All of them, for the answer."""
        return Timings(
            arrived_ns=self.arrived_ns,
            admitted_ns=self.admitted_ns,
            scheduled_ns=self.scheduled_ns,
            first_token_ns=self.first_ns,
            last_token_ns=self.last_ns,
        )

    def seconds_to(self, moment_ns: int) -> float:
        """From the arrival to a moment. Clocks of two processes may differ by a little; no time is negative."""
        return max(0, moment_ns - self.arrived_ns) / 1e9

    @property
    def seconds_per_token(self) -> float | None:
        """The mean time between tokens after the first, None of fewer than two."""
        if self.token_count < 2 or self.last_ns <= self.first_ns:
            return None
        return (self.last_ns - self.first_ns) / 1e9 / (self.token_count - 1)

    def _finish(self, finished: Finished) -> None:
        self.finished = finished
        self.last_ns = time.time_ns()
        self.token_count = max(self.token_count, finished.usage.output_tokens)
        if (engine := finished.timings) is not None:
            self.scheduled_ns = engine.scheduled_ns or self.scheduled_ns
            self.first_ns = engine.first_token_ns or self.first_ns
            self.last_ns = engine.last_token_ns or self.last_ns
