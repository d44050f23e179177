"""A thread of its own for a blocking library, fed by bounded queues.

The thread takes what waits and never waits for more: under load jobs are merged into batches as large as the backlog, those of
one turn of the event loop at least, and a single job pays for no timer. All that the library does happens on this one thread,
in order, so the library need not be safe for concurrent use.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Generic, TypeVar

from penstock.errors import NotReady, Overloaded

Job = TypeVar("Job")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """A queue of a worker: how many of its jobs make one batch at most, and how many may wait."""

    batch_max: int
    waiting_max: int


@dataclass(frozen=True, slots=True)
class _Ticket(Generic[Job, Result]):
    job: Job
    future: asyncio.Future[Result]


class Worker(Generic[Job, Result]):
    """Runs `work` on batches of jobs, each batch from one lane, the lanes in turn.

    `work` takes at least one job and returns an outcome for each, in order: a result, or an exception for the job's caller.
    When it raises, every caller of the batch gets the exception.
    """

    def __init__(self, *, name: str, work: Callable[[list[Job]], Sequence[Result | Exception]], lanes: Sequence[Lane]) -> None:
        self._name = name
        self._work = work
        self._lanes = tuple(lanes)
        self._queues: tuple[deque[_Ticket[Job, Result]], ...] = tuple(deque() for _ in lanes)
        # Rung after tickets were put, at least once; False is the last and ends the thread.
        self._bell: SimpleQueue[bool] = SimpleQueue()
        self._will_ring = False
        self._turn = 0
        self._batch_s = 0.0
        self._loop = asyncio.get_running_loop()
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()

    async def run(self, job: Job, *, lane: int = 0, always: bool = False) -> Result:
        """The job's result. A job whose caller is cancelled before its turn is not begun.

        Raises Overloaded when the lane is full, unless the job must `always` be taken (its number is bounded elsewhere).
        """
        if self._closed:
            message = f"the {self._name} thread has ended; this process is leaving"
            raise NotReady(message, retry_after_s=1.0)
        queue = self._queues[lane]
        if len(queue) >= self._lanes[lane].waiting_max and not always:
            raise self._overloaded(lane)
        ticket: _Ticket[Job, Result] = _Ticket(job, self._loop.create_future())
        queue.append(ticket)
        if not self._will_ring:
            # When the loop's turn ends, so that all who ask in it go together: a busy loop fed the thread one by one otherwise.
            self._will_ring = True
            self._loop.call_soon(self._ring)
        return await ticket.future

    async def close(self) -> None:
        """Ends the thread when it has done what waits."""
        self._closed = True
        self._bell.put(False)
        await asyncio.to_thread(self._thread.join)

    def _overloaded(self, lane: int) -> Overloaded:
        waiting = len(self._queues[lane])
        turns = waiting / self._lanes[lane].batch_max
        return Overloaded(
            f"{waiting} requests wait for {self._name} already",
            metadata={"queue": self._name, "limit": str(self._lanes[lane].waiting_max)},
            retry_after_s=round(max(0.05, self._batch_s * turns), 3),
        )

    def _ring(self) -> None:
        self._will_ring = False
        self._bell.put(True)

    def _serve(self) -> None:
        goes_on = True
        while goes_on:
            goes_on = self._bell.get()
            while batch := self._take():
                live = [ticket for ticket in batch if not ticket.future.cancelled()]
                if live:
                    outcomes = self._outcomes([ticket.job for ticket in live])
                    self._loop.call_soon_threadsafe(_deliver, live, outcomes)

    def _take(self) -> list[_Ticket[Job, Result]]:
        """The next batch; empty when nothing waits."""
        for offset in range(len(self._lanes)):
            index = (self._turn + offset) % len(self._lanes)
            queue = self._queues[index]
            if queue:
                self._turn = index + 1
                return [queue.popleft() for _ in range(min(len(queue), self._lanes[index].batch_max))]
        return []

    def _outcomes(self, jobs: list[Job]) -> Sequence[Result | Exception]:
        began = time.perf_counter()
        try:
            return self._work(jobs)
        except Exception as error:  # noqa: BLE001  # Whatever it is belongs to the callers, and the thread goes on.
            return [error] * len(jobs)
        finally:
            self._batch_s = time.perf_counter() - began


def _deliver(tickets: Sequence[_Ticket[Job, Result]], outcomes: Sequence[Result | Exception]) -> None:
    for ticket, outcome in zip(tickets, outcomes, strict=True):
        if ticket.future.done():
            continue
        if isinstance(outcome, Exception):
            ticket.future.set_exception(outcome)
        else:
            ticket.future.set_result(outcome)
