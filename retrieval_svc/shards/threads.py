"""The threads on which shards are searched and changed.

An index of FAISS's crashes the process when it is searched while it is added to (measured: in every trial within seconds), so
changes and searches all happen on one thread, in the order in which they were asked for. Searches that wait together go through
a shard in one call.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

from retrieval_svc.values import Ranked, ShardQuery, UnmetCondition
from retrieval_svc.worker import Lane, Worker

T = TypeVar("T")
Found = tuple[Ranked, tuple[UnmetCondition, ...]]
"""What a shard found for one query, and the conditions that none of its rows could meet."""


class Searchable(Protocol):
    """A shard's index, as this thread searches it."""

    def search(self, queries: Sequence[ShardQuery]) -> list[Found]:
        """The best rows of each query, by its vector."""
        ...


@dataclass(frozen=True, slots=True)
class _Search:
    index: Searchable
    queries: Sequence[ShardQuery]


_Task = Callable[[], Any]
_Outcome = Any


class IndexThread:
    """Searches and tasks, in order, behind one bounded queue. `searched` hears how many queries each turn had."""

    def __init__(self, *, batch_max: int, waiting_max: int, searched: Callable[[int], None] | None = None) -> None:
        lane = Lane(batch_max=batch_max, waiting_max=waiting_max)
        self._searched = searched
        self._worker = Worker[_Search | _Task, _Outcome](name="index", work=self._turn, lanes=[lane])

    async def search(self, index: Searchable, queries: Sequence[ShardQuery]) -> list[Found]:
        """What each query finds. Raises Overloaded when too many searches wait."""
        found: list[Found] = await self._worker.run(_Search(index, queries))
        return found

    async def run(self, task: Callable[[], T]) -> T:
        """The task's result. It waits for what was asked for before it, and is never refused."""
        result: T = await self._worker.run(task, always=True)
        return result

    async def close(self) -> None:
        """Ends the thread when it has done what waits."""
        await self._worker.close()

    def _turn(self, jobs: list[_Search | _Task]) -> list[_Outcome]:
        queries = sum(len(job.queries) for job in jobs if isinstance(job, _Search))
        if queries and self._searched is not None:
            self._searched(queries)
        return _work(jobs)


class TaskThread:
    """Tasks in order on a thread of their own, behind one bounded queue."""

    def __init__(self, name: str, *, waiting_max: int) -> None:
        lane = Lane(batch_max=1, waiting_max=waiting_max)
        self._worker = Worker[_Task, _Outcome](name=name, work=lambda tasks: [_attempt(task) for task in tasks], lanes=[lane])

    async def run(self, task: Callable[[], T], *, always: bool = True) -> T:
        """The task's result. Raises Overloaded when too many wait, unless it is `always` taken."""
        result: T = await self._worker.run(task, always=always)
        return result

    async def close(self) -> None:
        """Ends the thread when it has done what waits."""
        await self._worker.close()


def _work(jobs: list[_Search | _Task]) -> list[_Outcome]:
    """Does the jobs in order; searches of one shard with no task between them are one call."""
    outcomes: list[_Outcome] = [None] * len(jobs)
    waiting: dict[int, list[int]] = {}
    for at, job in enumerate(jobs):
        if isinstance(job, _Search):
            waiting.setdefault(id(job.index), []).append(at)
        else:
            _search_all(waiting, jobs, outcomes)
            outcomes[at] = _attempt(job)
    _search_all(waiting, jobs, outcomes)
    return outcomes


def _search_all(waiting: dict[int, list[int]], jobs: Sequence[_Search | _Task], outcomes: list[_Outcome]) -> None:
    for places in waiting.values():
        searches = [job for job in (jobs[at] for at in places) if isinstance(job, _Search)]
        found = _attempt(partial(searches[0].index.search, [query for job in searches for query in job.queries]))
        first = 0
        for at, job in zip(places, searches, strict=True):
            outcomes[at] = found if isinstance(found, Exception) else found[first : first + len(job.queries)]
            first += len(job.queries)
    waiting.clear()


def _attempt(task: _Task) -> _Outcome:
    try:
        return task()
    except Exception as error:  # noqa: BLE001  # It belongs to the task's caller, not to the other jobs of the batch.
        return error
