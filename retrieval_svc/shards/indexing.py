"""The thread that owns every index.

An index of FAISS's crashes the process when it is searched while it is added to (measured: in every trial within seconds), so
adds, removals and searches all happen on one thread, in the order in which they were asked for. Searches that wait together go
through the index in one call.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np

from penstock.errors import CollectionNotFound
from retrieval_svc.values import Matrix, Metric, Neighbours, Sequences, Vector
from retrieval_svc.worker import Lane, Worker


class VectorIndex(Protocol):
    """The vectors of one collection, found by nearness. Used from one thread, never two at a time."""

    def add(self, sequences: Sequences, vectors: Matrix) -> None:
        """Takes in vectors under ids it does not have; they ascend from one call to the next."""
        ...

    def remove(self, sequences: Sequences) -> None:
        """Forgets ids. Those that it does not have are ignored."""
        ...

    def search(self, queries: Matrix, top_k: int) -> list[Neighbours]:
        """The top_k nearest of each query, or all there are: higher scores first, then lower ids."""
        ...

    def __len__(self) -> int:
        """Number of vectors."""
        ...


BuildIndex = Callable[[int, Metric], VectorIndex]
"""Makes an empty index of a dimension and a metric; called on the thread that will use it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Search:
    uid: int
    query: Vector
    top_k: int


_Task = Callable[[], None]


class Indexes:
    """One index a collection, by its uid, behind one thread and one bounded queue."""

    def __init__(self, build: BuildIndex, *, batch_max: int, waiting_max: int) -> None:
        self._build = build
        self._indexes: dict[int, VectorIndex] = {}
        lane = Lane(batch_max=batch_max, waiting_max=waiting_max)
        self._worker = Worker[_Search | _Task, Neighbours | None](name="index", work=self._work, lanes=[lane])

    async def create(self, uid: int, dimension: int, metric: Metric) -> None:
        """Starts an empty index."""
        await self._worker.run(partial(self._create, uid, dimension, metric), always=True)

    async def apply(self, uid: int, *, removed: Sequences, stored: Sequences, vectors: Matrix) -> None:
        """Brings a committed write into the index. Searches asked for after this call find it."""
        await self._worker.run(partial(self._apply, uid, removed, stored, vectors), always=True)

    async def search(self, uid: int, query: Vector, top_k: int) -> Neighbours:
        """The nearest of one query. Raises Overloaded when too many wait."""
        found = await self._worker.run(_Search(uid=uid, query=query, top_k=top_k))
        assert found is not None  # noqa: S101  # For the type: only tasks give None.
        return found

    async def drop(self, uid: int) -> None:
        """Forgets a collection's index."""
        await self._worker.run(partial(self._drop, uid), always=True)

    async def close(self) -> None:
        """Ends the thread."""
        await self._worker.close()

    def _create(self, uid: int, dimension: int, metric: Metric) -> None:
        self._indexes[uid] = self._build(dimension, metric)

    def _apply(self, uid: int, removed: Sequences, stored: Sequences, vectors: Matrix) -> None:
        index = self._indexes[uid]
        if len(removed):
            index.remove(removed)
        if len(stored):
            index.add(stored, vectors)

    def _drop(self, uid: int) -> None:
        self._indexes.pop(uid, None)

    def _work(self, jobs: list[_Search | _Task]) -> list[Neighbours | Exception | None]:
        """Does the jobs in order; a run of searches with nothing between them is grouped into calls."""
        outcomes: list[Neighbours | Exception | None] = [None] * len(jobs)
        searches: dict[tuple[int, int], list[int]] = {}
        for at, job in enumerate(jobs):
            if isinstance(job, _Search):
                searches.setdefault((job.uid, job.top_k), []).append(at)
            else:
                self._search_all(searches, jobs, outcomes)
                outcomes[at] = _attempt(job)
        self._search_all(searches, jobs, outcomes)
        return outcomes

    def _search_all(
        self,
        searches: dict[tuple[int, int], list[int]],
        jobs: Sequence[_Search | _Task],
        outcomes: list[Neighbours | Exception | None],
    ) -> None:
        for (uid, top_k), places in searches.items():
            queries = np.stack([job.query for job in (jobs[at] for at in places) if isinstance(job, _Search)])
            for at, outcome in zip(places, self._search(uid, queries, top_k), strict=True):
                outcomes[at] = outcome
        searches.clear()

    def _search(self, uid: int, queries: Matrix, top_k: int) -> Sequence[Neighbours | Exception]:
        index = self._indexes.get(uid)
        if index is None:
            return [CollectionNotFound("the collection was deleted while it was searched")] * len(queries)
        return index.search(queries, top_k)


def _attempt(task: _Task) -> Exception | None:
    try:
        task()
    except Exception as error:  # noqa: BLE001  # It belongs to the task's caller, not to the other jobs of the batch.
        return error
    return None
