"""Waiting work of many callers goes out together: whatever waits for the same thing becomes one call.

There is no timer: a call goes out when its turn comes (turns.py), and what comes meanwhile makes the next one. One call a
query and shard was measured at 2.5 times the CPU.
"""

import asyncio
import contextvars
import functools
from collections import deque
from collections.abc import Callable, Coroutine, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from opentelemetry import context as otel_context
from opentelemetry import trace

from penstock import semconv
from penstock.deadline import set_deadline
from penstock.errors import DeadlineExceeded, Overloaded, Unavailable
from retrieval_svc.turns import Turns

Key = TypeVar("Key", bound=Hashable)
Item = TypeVar("Item")
Answer = TypeVar("Answer")


@dataclass(slots=True, kw_only=True, eq=False)
class _Job(Generic[Item, Answer]):
    items: Sequence[Item]
    rows: int
    answer: asyncio.Future[Answer]
    until: float
    """Of the loop's clock."""
    span: trace.Span


@dataclass(slots=True, kw_only=True, eq=False)
class _Lane(Generic[Item, Answer]):
    """What waits for one thing. Lanes do not wait for one another: one may demand a position that takes seconds to come."""

    waiting: deque[_Job[Item, Answer]] = field(default_factory=deque)
    has_asked: bool = False
    """For a turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLimits:
    """Bounds of a call (its items, and the rows that may come back for them), and of the jobs that wait."""

    items_max: int
    rows_max: int
    waiting_max: int


class Batches(Generic[Key, Item, Answer]):
    """Merges jobs of the same key into calls of `send(key, items)`; `part(answer, begin, end)` is one job's share.

    Keys of the same `group` take turns together. A job is never split. `send` runs outside of any caller's context, under the
    latest of their deadlines, and is cancelled when all of them have left.
    """

    def __init__(
        self,
        send: Callable[[Key, Sequence[Item]], Coroutine[Any, Any, Answer]],
        part: Callable[[Answer, int, int], Answer],
        *,
        group: Callable[[Key], Hashable],
        turns: Turns,
        limits: BatchLimits,
    ) -> None:
        self._send = send
        self._part = part
        self._group = group
        self._turns = turns
        self._limits = limits
        self._lanes: dict[Key, _Lane[Item, Answer]] = {}
        self._waiting_count = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def ask(self, key: Key, items: Sequence[Item], *, rows: int, timeout_s: float, span: trace.Span) -> asyncio.Future[Answer]:
        """The answer to come, or Overloaded; cancelling it withdraws the job. `span`: under which the call is made."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Answer] = loop.create_future()
        if self._waiting_count >= self._limits.waiting_max:
            message = f"{self._waiting_count} searches wait for another node, which is the limit; try again later"
            answer.set_exception(Overloaded(message, retry_after_s=1.0))
            return answer
        job = _Job(items=items, rows=rows, answer=answer, until=loop.time() + timeout_s, span=span)
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = _Lane()
        lane.waiting.append(job)
        self._waiting_count += 1
        self._want(key, lane)
        return answer

    async def close(self) -> None:
        """Cancels the calls in flight; whoever waits gets Unavailable."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for lane in self._lanes.values():
            _fail(lane.waiting, Unavailable("the service is leaving"))

    def _want(self, key: Key, lane: _Lane[Item, Answer]) -> None:
        if lane.waiting and not lane.has_asked:
            lane.has_asked = True
            self._turns.want(self._group(key), functools.partial(self._begin, key, lane))

    def _begin(self, key: Key, lane: _Lane[Item, Answer]) -> asyncio.Task[None] | None:
        lane.has_asked = False
        jobs = self._take(lane)
        self._want(key, lane)
        if not lane.waiting:
            self._lanes.pop(key, None)
        return self._start(key, jobs) if jobs else None

    def _take(self, lane: _Lane[Item, Answer]) -> list[_Job[Item, Answer]]:
        """The jobs of the next call: as many as fit, one in any case. Those whose caller has left are dropped."""
        jobs: list[_Job[Item, Answer]] = []
        items = rows = 0
        while lane.waiting:
            job = lane.waiting[0]
            items, rows = items + len(job.items), rows + job.rows
            if jobs and (items > self._limits.items_max or rows > self._limits.rows_max):
                break
            lane.waiting.popleft()
            self._waiting_count -= 1
            if job.answer.done():
                items, rows = items - len(job.items), rows - job.rows
            else:
                jobs.append(job)
        return jobs

    def _start(self, key: Key, jobs: list[_Job[Item, Answer]]) -> asyncio.Task[None]:
        # An empty context: the caller's own has a deadline and a trace, and the call is not only the caller's.
        task = asyncio.get_running_loop().create_task(self._answer(key, jobs), context=contextvars.Context())
        self._tasks.add(task)
        task.add_done_callback(functools.partial(self._ended, jobs))
        for job in jobs:
            job.answer.add_done_callback(functools.partial(_cancel_unwanted, task, jobs))
        return task

    def _ended(self, jobs: Sequence[_Job[Item, Answer]], task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        _fail(jobs, Unavailable("the service is leaving"))  # Those without an answer: the task was cancelled.

    async def _answer(self, key: Key, jobs: Sequence[_Job[Item, Answer]]) -> None:
        set_deadline(max(job.until for job in jobs) - asyncio.get_running_loop().time())
        otel_context.attach(trace.set_span_in_context(jobs[0].span))
        _tell_size(jobs)
        items = jobs[0].items if len(jobs) == 1 else [item for job in jobs for item in job.items]
        try:
            answer = await self._send(key, items)
        except (Unavailable, Overloaded, DeadlineExceeded) as error:
            _fail(jobs, error)
        except Exception as error:  # noqa: BLE001  # Whatever it is, it is the callers' to hear.
            await self._answer_apart(key, jobs, error)
        else:
            self._hand_out(jobs, answer)

    async def _answer_apart(self, key: Key, jobs: Sequence[_Job[Item, Answer]], error: Exception) -> None:
        """A call was refused for what is in it: whose fault it is shows when each goes alone."""
        if len(jobs) == 1:
            _fail(jobs, error)
            return
        for job in jobs:
            if not job.answer.done():
                await self._answer(key, [job])

    def _hand_out(self, jobs: Sequence[_Job[Item, Answer]], answer: Answer) -> None:
        begin = 0
        for job in jobs:
            end = begin + len(job.items)
            if not job.answer.done():
                job.answer.set_result(answer if len(jobs) == 1 else self._part(answer, begin, end))
            begin = end


def _cancel_unwanted(task: asyncio.Task[None], jobs: Sequence[_Job[Any, Any]], answer: asyncio.Future[Any]) -> None:
    if answer.cancelled() and all(job.answer.done() for job in jobs):
        task.cancel()


def _tell_size(jobs: Sequence[_Job[Any, Any]]) -> None:
    size = sum(len(job.items) for job in jobs)
    for job in jobs:
        if job.span.is_recording():
            job.span.set_attribute(semconv.PENSTOCK_BATCH_SIZE, size)


def _fail(jobs: Sequence[_Job[Any, Any]] | deque[_Job[Any, Any]], error: Exception) -> None:
    for job in jobs:
        if not job.answer.done():
            job.answer.set_exception(error)
