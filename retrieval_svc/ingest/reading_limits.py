"""What the reading process may take, and how it says that it cannot read something."""

from dataclasses import dataclass


class UnreadableError(Exception):
    """No text can be had out of a file. The message says why and what to do; the service makes an error of ours of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadingLimits:
    """Bounds of reading one file. `memory_bytes` bounds the address space of the process that reads, Python's own included."""

    timeout_s: float
    memory_bytes: int
    text_bytes_max: int
