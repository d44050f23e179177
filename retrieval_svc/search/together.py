"""Ordinary searches that wait go through the service as one.

What came in one turn of the event loop, or while the last ones were under way, is checked, searched and answered together.
There is no timer. A search alone costs what it always did; of many, each costs a fraction, for nearly all that Python does for
a search is done once for all of them, or again at once while it is in the processor's caches.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final

from penstock.deadline import remaining_s, set_deadline
from penstock.errors import DeadlineExceeded, Overloaded, PenstockError, Unavailable
from retrieval_svc.light import light
from retrieval_svc.search.calls import SearchCall, SearchResult
from retrieval_svc.turns import Turns
from retrieval_svc.values import Collection

AnswerAll = Callable[[Collection, Sequence[SearchCall]], Awaitable[list[SearchResult]]]
"""Carries out searches of one collection, all of them or none."""

_OPEN_MAX: Final = 1
"""Two were measured at 15 % more CPU a search: the groups are half as large."""
_HELD_UP_MAX_S: Final = 0.2
"""A group that takes longer, because another node does not answer, holds up nobody any more."""
_NOBODYS_FAULT: Final = (Unavailable, Overloaded, DeadlineExceeded)
_NO_DEADLINE_S: Final = 3600.0


@light
class _Ticket:
    call: SearchCall
    answer: "asyncio.Future[SearchResult]"
    left_s: float


class Together:
    """Hands searches of a collection on in groups of at most `group_max`; `waiting_max` of all collections may wait."""

    def __init__(self, answer_all: AnswerAll, *, group_max: int, waiting_max: int) -> None:
        self._answer_all = answer_all
        self._group_max = group_max
        self._waiting_max = waiting_max
        self._waiting: dict[int, deque[_Ticket]] = {}
        self._waiting_count = 0
        self._turns = Turns(open_max=_OPEN_MAX, turn_max_s=_HELD_UP_MAX_S)

    async def search(self, collection: Collection, call: SearchCall) -> SearchResult:
        """The answer of one search, whose caller's span is not recorded. Raises Overloaded where too many wait."""
        if self._waiting_count >= self._waiting_max:
            message = f"{self._waiting_count} searches wait already, which is this node's limit; try again later"
            raise Overloaded(message, metadata={"limit": str(self._waiting_max)}, retry_after_s=1.0)
        answer: asyncio.Future[SearchResult] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.get(collection.uid)
        if waiting is None:
            waiting = self._waiting[collection.uid] = deque()
            self._turns.want(collection.uid, partial(self._begin, collection))
        waiting.append(_Ticket(call=call, answer=answer, left_s=remaining_s(_NO_DEADLINE_S)))
        self._waiting_count += 1
        return await answer

    def _begin(self, collection: Collection) -> "asyncio.Task[None] | None":
        """Starts the next group, in the context of whoever asked for it; None where all of its callers have left."""
        waiting = self._waiting[collection.uid]
        taken = [waiting.popleft() for _ in range(min(len(waiting), self._group_max))]
        self._waiting_count -= len(taken)
        if waiting:
            self._turns.want(collection.uid, partial(self._begin, collection))
        else:
            del self._waiting[collection.uid]
        tickets = [ticket for ticket in taken if not ticket.answer.done()]
        return asyncio.get_running_loop().create_task(self._answer(collection, tickets)) if tickets else None

    async def _answer(self, collection: Collection, tickets: Sequence[_Ticket]) -> None:
        set_deadline(max(ticket.left_s for ticket in tickets))
        try:
            results = await self._answer_all(collection, [ticket.call for ticket in tickets])
        except _NOBODYS_FAULT as error:
            _fail(tickets, error)
        except PenstockError as error:
            await self._answer_apart(collection, tickets, error)
        except BaseException as error:
            _fail(tickets, error)
            if not isinstance(error, Exception):
                raise
        else:
            for ticket, result in zip(tickets, results, strict=True):
                if not ticket.answer.done():
                    ticket.answer.set_result(result)

    async def _answer_apart(self, collection: Collection, tickets: Sequence[_Ticket], error: PenstockError) -> None:
        """The group was refused for what is in it: whose fault it is shows when each goes alone."""
        if len(tickets) == 1:
            _fail(tickets, error)
            return
        for ticket in tickets:
            if not ticket.answer.done():
                await self._answer(collection, [ticket])


def _fail(tickets: Sequence[_Ticket], error: BaseException) -> None:
    for ticket in tickets:
        if not ticket.answer.done():
            ticket.answer.set_exception(error)
