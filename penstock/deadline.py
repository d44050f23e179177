"""The deadline of the call that is being served, so that every call made on its behalf gets what is left of it."""

import time
from contextvars import ContextVar

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
