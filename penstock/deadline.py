"""The deadline of the call that is being served, so that every call made on its behalf gets what is left of it."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

_SHARE_WAITED: Final = 0.8

_deadline: ContextVar[float] = ContextVar("penstock_deadline")


def set_deadline(seconds: float) -> None:
    """Gives the current task, and every task it starts, `seconds` from now."""
    _deadline.set(time.monotonic() + seconds)


def remaining_s(limit_s: float) -> float:
    """Seconds that an outgoing call may take: what is left of the current call's deadline, at most `limit_s`, at least 1 ms.

    Outside of a call it is `limit_s`.
    """
    deadline = _deadline.get(None)
    if deadline is None:
        return limit_s
    return max(0.001, min(limit_s, deadline - time.monotonic()))


def patience_s(limit_s: float) -> float:
    """Seconds to wait for something that may not come: at most `limit_s`, and less than is left of the deadline.

    Whoever is called then still has time to say what did not come; else its caller only knows that nobody answered.
    """
    return min(limit_s, _SHARE_WAITED * remaining_s(math.inf))


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Gives what is done in the block `seconds`, or what is left of the deadline where that is less."""
    before = _deadline.set(time.monotonic() + remaining_s(seconds))
    try:
        yield
    finally:
        _deadline.reset(before)
