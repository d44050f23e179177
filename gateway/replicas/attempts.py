"""The tries of one call, each on another replica.

An answer that has not begun can be had from any replica, since generating changes nothing. So a call that fails with
UNAVAILABLE before its first token goes to another one, within its deadline. One that is refused for overload goes once to a
replica that has said that it has room; otherwise the refusal is passed on, its retry hint with it: asking everybody would feed
the storm. What fails after the first token is told.
"""

import asyncio
import random
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final

from gateway.replicas.pool import Replicas
from gateway.replicas.prefixes import Prefix
from gateway.replicas.replica import Replica, ReplicaNode
from penstock.deadline import remaining_s
from penstock.errors import BackendUnavailable, Cancelled, EngineFailed, Overloaded, PenstockError, Unavailable

_RETRYABLE: Final = (Unavailable, Cancelled)
"""The second is a replica's that cut its calls at the end of its drain; a caller that leaves is asyncio's CancelledError."""
_BACKOFF: Final = 3
_ENGINES_MAX: Final = 2
"""Engines that may die under one call before it is told: it may be the call that kills them."""


class Attempts:
    """An async context manager that is entered once a try, until one is left without a retryable error.

    while True:
        async with attempts as node:
            return await node.generate(request)
    """

    def __init__(self, replicas: Replicas, prefix: Callable[[], Prefix]) -> None:
        self._replicas = replicas
        self._prefix_of_prompt = prefix
        self._prefix: Prefix | None = None
        self._tried: set[Replica] = set()
        self._next: Replica | None = None
        self._count = 0
        self._engines_failed = 0
        self._overloaded = False
        self._answered = False

    def answered(self) -> None:
        """The caller has seen some of the answer: from now on failures are told."""
        self._answered = True

    async def __aenter__(self) -> ReplicaNode:
        if self._count == 0:
            self._next = self._replicas.only() or self._pick()
        if self._next is None:
            raise BackendUnavailable("the generation service cannot be reached: no replica of it is known", retry_after_s=1.0)
        self._current = self._next
        self._tried.add(self._current)
        self._count += 1
        self._began = time.monotonic()
        self._current.called()
        return self._current.node

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self._current.ended()
        if error is None:
            self._current.probation.end()
            return False
        if not isinstance(error, PenstockError):
            return False
        self._replicas.failed(self._current, error, self._began)
        self._next = None if self._answered else await self._after(error)
        return self._next is not None

    async def _after(self, error: PenstockError) -> Replica | None:
        if isinstance(error, Overloaded):
            was_overloaded, self._overloaded = self._overloaded, True
            return None if was_overloaded else self._replicas.with_room(self._tried)
        self._engines_failed += isinstance(error, EngineFailed)
        limits = self._replicas.limits
        if not isinstance(error, _RETRYABLE) or self._count >= limits.tries_max or self._engines_failed >= _ENGINES_MAX:
            return None
        return self._pick() or await self._again()

    async def _again(self) -> Replica | None:
        """Every replica has failed: waits a little, and begins anew with all of them."""
        limits = self._replicas.limits
        delay_s = min(limits.retry_delay_max_s, limits.retry_delay_min_s * _BACKOFF ** (self._count - 1))
        delay_s *= random.uniform(0.8, 1.2)  # noqa: S311  # So that callers do not come back together.
        if remaining_s(2 * delay_s) <= delay_s:
            return None
        await asyncio.sleep(delay_s)
        self._tried.clear()
        return self._pick()

    def _pick(self) -> Replica | None:
        if self._prefix is None:
            self._prefix = self._prefix_of_prompt()
        return self._replicas.pick(self._prefix, self._tried)
