"""A corpus into a sink: batches by count and bytes, a few of them on their way, the journal behind them.

Read only as fast as it is stored. Batches may end in any order; the journal goes on in theirs, so that everything before what
it says is stored.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, TextIO

from penstock.cli.journal import Journal
from penstock.cli.sink import Outcome, Sink
from penstock.corpora import BadRecord, Corpus, CorpusRecord
from penstock.errors import PenstockError, Violation

IN_FLIGHT: Final = 4
"""Batches at a time: enough that the service's embedding batches fill up, few enough that its queue stays short."""
BATCH_BYTES_MAX: Final = 4 * 2**20
ERRORS_SHOWN: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Documents that are sent together, what was bad between them, and for each file the number that they reach to."""

    records: tuple[CorpusRecord, ...]
    bad: tuple[BadRecord, ...]
    ends: Mapping[str, int]


@dataclass(slots=True, kw_only=True)
class ErrorList:
    """What was not stored and why: the first in memory, all of them in a file where they are more."""

    path: Path
    count: int = 0
    first: list[Violation] = field(default_factory=list)
    _file: TextIO | None = None

    def add(self, place: str, message: str) -> None:
        self.count += 1
        if len(self.first) < ERRORS_SHOWN:
            self.first.append(Violation(field=place, message=message))
            return
        if self._file is None:
            self._file = self.path.open("w", encoding="utf-8")
            self._file.writelines(f"{each}\n" for each in self.first)
        self._file.write(f"{place}: {message}\n")

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


class Upload:
    """One ingestion. `total` grows with every batch that is stored."""

    def __init__(self, corpus: Corpus, sink: Sink, journal: Journal, errors: ErrorList, *, batch_max: int) -> None:
        self._sink = sink
        self._journal = journal
        self._errors = errors
        self._parts = batches(corpus, batch_max)
        self._reading: asyncio.Future[Batch | None] | None = None
        self._places = asyncio.Semaphore(IN_FLIGHT)
        self._under_way: deque[tuple[asyncio.Task[bool], Mapping[str, int]]] = deque()
        self._failure: PenstockError | None = None
        self.total = Outcome()

    async def run(self, on_progress: Callable[[], None]) -> None:
        """Sends everything. Whatever ends it, the journal says how far it came."""
        try:
            while self._failure is None and (batch := await self._next()) is not None:
                await self._places.acquire()
                self._under_way.append((asyncio.create_task(self._send(batch)), batch.ends))
                self._note()
                on_progress()
            await asyncio.gather(*(task for task, _ in self._under_way))
        finally:
            await self._stop()
            on_progress()
        if self._failure is not None:
            raise self._failure

    async def _next(self) -> Batch | None:
        """The next batch, read in a thread. It is not broken off: nobody else may touch the corpus before it has ended."""
        self._reading = asyncio.ensure_future(asyncio.to_thread(next, self._parts, None))
        return await asyncio.shield(self._reading)

    async def _send(self, batch: Batch) -> bool:
        """Whether the batch is stored, as far as it can be."""
        try:
            outcome = await self._sink.store(batch.records) if batch.records else Outcome()
        except PenstockError as error:
            self._failure = self._failure or error
            return False
        finally:
            self._places.release()
        for bad in batch.bad:
            self._errors.add(bad.place, bad.message)
        for at, message in outcome.errors:
            self._errors.add(batch.records[at].place, message)
        self.total += replace(outcome, errors=())
        return True

    def _note(self) -> None:
        """Tells the journal of the batches that have ended, up to the first that has not."""
        while self._under_way and _stored(self._under_way[0][0]):
            self._journal.advance(self._under_way.popleft()[1])

    async def _stop(self) -> None:
        for task, _ in self._under_way:
            task.cancel()
        await asyncio.gather(*(task for task, _ in self._under_way), return_exceptions=True)
        if self._reading is not None:
            await asyncio.wait({self._reading})
        self._note()
        self._journal.save()
        self._errors.close()


def _stored(task: "asyncio.Task[bool]") -> bool:
    return task.done() and not task.cancelled() and task.exception() is None and task.result()


def batches(corpus: Corpus, count_max: int) -> Iterator[Batch]:
    """The corpus in batches of at most so many documents, bad ones included, and about BATCH_BYTES_MAX bytes."""
    part: list[CorpusRecord | BadRecord] = []
    size = 0
    for found in corpus:
        part.append(found)
        size += found.size_bytes if isinstance(found, CorpusRecord) else 0
        if len(part) >= count_max or size >= BATCH_BYTES_MAX:
            yield _batch(part)
            part, size = [], 0
    if part:
        yield _batch(part)


def _batch(part: Sequence[CorpusRecord | BadRecord]) -> Batch:
    return Batch(
        records=tuple(each for each in part if isinstance(each, CorpusRecord)),
        bad=tuple(each for each in part if isinstance(each, BadRecord)),
        ends={each.file: each.number for each in part},
    )
