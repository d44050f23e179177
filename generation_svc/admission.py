"""Bounded admission in front of an engine: so many slots run, so many requests wait, the next is refused at once.

An engine's own queue is unbounded, knows no tenants, and counts work that nobody waits for any more; this one does neither.

Who is next: of the tenants that wait, the one with the fewest slots running (then the one that was served longest ago); of its
requests, the one with the highest priority, then the oldest. So a tenant that floods the service slows only itself. When the
queue is full, the tenant with the most waiting gives way: its last request is refused in favour of a newcomer whose tenant has
fewer, or of its own newcomer with a higher priority.
"""

import asyncio
import itertools
import time
from bisect import bisect_left, insort
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from penstock.deadline import remaining_s
from penstock.errors import DeadlineTooShort, InvalidArgument, Overloaded

HELD_S_AT_FIRST: Final = 1.0
RETRY_AFTER_S_MIN: Final = 0.1
RETRY_AFTER_S_MAX: Final = 60.0
_HELD_S_WEIGHT: Final = 0.1
"""Weight of the newest request in the moving average of how long a slot is held."""
_HELD_KNOWN_COUNT: Final = 10
"""Requests after which that average is taken for knowledge, by which a deadline can be judged."""


@dataclass(slots=True, eq=False)
class _Waiting:
    """A request that waits. `order` is smaller for who goes first among a tenant's."""

    tenant: str
    slots: int
    order: tuple[int, int]
    turn: asyncio.Future[None]

    def __lt__(self, other: "_Waiting") -> bool:
        return self.order < other.order


@dataclass(slots=True)
class _Tenant:
    """What one tenant has running and waiting, the latter in the order in which it is served."""

    running: int = 0
    served: int = 0
    queue: list[_Waiting] = field(default_factory=list)


class Admission:
    """At most `running_max` slots in the engine and `waiting_max` requests in the queue, shared fairly between tenants."""

    def __init__(self, *, running_max: int, waiting_max: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.running_max = running_max
        self.waiting_max = waiting_max
        self.running = 0
        self.waiting = 0
        self._clock = clock
        self._tenants: dict[str, _Tenant] = {}
        self._numbers = itertools.count(1)
        self._held_s = HELD_S_AT_FIRST
        self._held_count = 0

    @asynccontextmanager
    async def slot(self, *, tenant: str = "", priority: int = 0, slots: int = 1) -> AsyncIterator[None]:
        """Holds `slots` of the running slots. They are free again however the block ends.

        Raises Overloaded, without waiting, when the queue is full, and in the queue when another takes its place;
        DeadlineTooShort when its turn would come after the call's deadline; InvalidArgument for more slots than there are.
        `retry_after_s` is when the queue's end should have moved up.
        """
        if slots > self.running_max:
            message = f"{slots} answers at once need as many slots, but there are {self.running_max}; ask for fewer"
            raise InvalidArgument(message, metadata={"field": "n", "running_max": str(self.running_max)})
        await self._enter(tenant, priority, slots)
        since = self._clock()
        try:
            yield
        finally:
            self._held_s += _HELD_S_WEIGHT * (self._clock() - since - self._held_s)
            self._held_count += 1
            self._leave(tenant, slots)

    async def _enter(self, tenant: str, priority: int, slots: int) -> None:
        if not self.waiting and self.running + slots <= self.running_max:
            self._take(self._tenant(tenant), slots)
            return
        self._check_deadline()
        if self.waiting >= self.waiting_max:
            self._make_room(tenant, priority)
        waiting = _Waiting(
            tenant=tenant,
            slots=slots,
            order=(-priority, next(self._numbers)),
            turn=asyncio.get_running_loop().create_future(),
        )
        insort(self._tenant(tenant).queue, waiting)
        self.waiting += 1
        try:
            await waiting.turn
        except asyncio.CancelledError:
            self._abandon(waiting)
            raise

    def _abandon(self, waiting: _Waiting) -> None:
        """Its caller has left while it waited, or in the very moment in which it was served or refused."""
        if waiting.turn.cancelled():
            self._remove(waiting)
            self._hand_out()  # It may have been the one with many slots for which the others waited.
        elif waiting.turn.exception() is None:
            self._leave(waiting.tenant, waiting.slots)

    def _check_deadline(self) -> None:
        """Refuses at once who could not be served in time, once it is known how long slots are held."""
        wait_s, left_s = self._wait_s(), remaining_s(float("inf"))
        if self._held_count >= _HELD_KNOWN_COUNT and wait_s > left_s:
            raise DeadlineTooShort(
                f"its turn would come in about {wait_s:.1f} s, the deadline is in {left_s:.1f} s; allow more, or come later",
                metadata={"wait_s": f"{wait_s:.3f}", "deadline_s": f"{left_s:.3f}"},
                retry_after_s=_bounded(wait_s - left_s),
            )

    def _make_room(self, tenant: str, priority: int) -> None:
        """Refuses the one that must give way: another's last request, or the newcomer."""
        last = self._gives_way(tenant, priority)
        if last is None:
            raise self._overloaded()
        self._remove(last)
        if not last.turn.done():  # Done: its caller has just left.
            last.turn.set_exception(self._overloaded())

    def _gives_way(self, tenant: str, priority: int) -> _Waiting | None:
        own = self._tenants[tenant].queue if tenant in self._tenants else []
        longest = max((each.queue for each in self._tenants.values()), key=len, default=own)
        if len(longest) > len(own) + 1:
            return longest[-1]
        return own[-1] if own and own[-1].order[0] > -priority else None

    def _remove(self, waiting: _Waiting) -> None:
        """Takes it out of the queue, if it is still there."""
        queue = self._tenants[waiting.tenant].queue if waiting.tenant in self._tenants else []
        at = bisect_left(queue, waiting)
        if queue[at : at + 1] == [waiting]:
            del queue[at]
            self.waiting -= 1
            self._forget(waiting.tenant)

    def _leave(self, name: str, slots: int) -> None:
        self.running -= slots
        self._tenants[name].running -= slots
        self._hand_out()
        self._forget(name)

    def _hand_out(self) -> None:
        """Gives free slots to who is next. One that needs many is waited for: else it would starve behind small ones."""
        while (waiting := self._next()) is not None and self.running + waiting.slots <= self.running_max:
            if not waiting.turn.done():  # Done: its caller has just left.
                self._take(self._tenants[waiting.tenant], waiting.slots)
                waiting.turn.set_result(None)
            self._remove(waiting)

    def _next(self) -> _Waiting | None:
        queued = (tenant for tenant in self._tenants.values() if tenant.queue)
        served_least = min(queued, key=lambda tenant: (tenant.running, tenant.served), default=None)
        return served_least.queue[0] if served_least is not None else None

    def _take(self, tenant: _Tenant, slots: int) -> None:
        self.running += slots
        tenant.running += slots
        tenant.served = next(self._numbers)

    def _tenant(self, name: str) -> _Tenant:
        return self._tenants.setdefault(name, _Tenant())

    def _forget(self, name: str) -> None:
        """Only tenants that have something here are remembered, so that their number is bounded by the slots and the queue."""
        tenant = self._tenants[name]
        if not tenant.running and not tenant.queue:
            del self._tenants[name]

    def _wait_s(self) -> float:
        """How long one that came now would wait, by the number before it and how long slots are held."""
        return self._held_s * (self.waiting + 1) / self.running_max

    def _overloaded(self) -> Overloaded:
        return Overloaded(
            f"{self.running_max} requests run and {self.waiting_max} wait, which is the limit; try again later",
            metadata={"running_max": str(self.running_max), "waiting_max": str(self.waiting_max)},
            retry_after_s=_bounded(self._wait_s()),
        )


def _bounded(seconds: float) -> float:
    return round(min(max(seconds, RETRY_AFTER_S_MIN), RETRY_AFTER_S_MAX), 1)
