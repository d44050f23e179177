"""Runs that nobody waits for: webhooks, and workflows in the background.

Jobs live in the process that took them. So many run at once, so many wait, and of those that have ended so many are kept for so
long; when the gateway leaves, the rest are cancelled.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final
from uuid import uuid4

from penstock.errors import Overloaded, PenstockError

log = logging.getLogger("penstock.gateway")

FRAMES_MAX: Final = 4096
"""Of a longer run's events the first so many are kept."""


class Status(StrEnum):
    """LangFlow's words for where a job is."""

    QUEUED = "queued"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"

    @property
    def is_final(self) -> bool:
        """Whether nothing more happens."""
        return self not in (Status.QUEUED, Status.IN_PROGRESS)


@dataclass(slots=True, kw_only=True)
class Job:
    """One run in the background. `owner` is the tenant whose it is; `frames` are its events, numbered from 1."""

    owner: str
    flow_id: str
    shown_flow_id: str
    session: str
    key: str = ""
    id: str = field(default_factory=lambda: str(uuid4()))
    created: datetime = field(default_factory=lambda: datetime.now(UTC))
    status: Status = Status.QUEUED
    frames: list[bytes] = field(default_factory=list)
    result: bytes = b""
    error: str = ""
    expires_at: float = 0.0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def add(self, frame: bytes) -> None:
        """Keeps an event and wakes who waits for it."""
        if len(self.frames) < FRAMES_MAX:
            self.frames.append(frame)
            self.wake()

    def wake(self) -> None:
        """Tells those who watch that something has changed."""
        self.changed.set()
        self.changed = asyncio.Event()

    @property
    def size(self) -> int:
        """Bytes that are kept of it, about."""
        return sum(map(len, self.frames)) + len(self.result) + len(self.error) + 1024


Work = Callable[[Job], Awaitable[None]]


class Jobs:
    """The jobs of this process. Made by `working`."""

    def __init__(
        self,
        *,
        running_max: int = 16,
        waiting_max: int = 256,
        kept_max: int = 1000,
        bytes_max: int = 64 * 2**20,
        expiry_s: float = 3600.0,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._turns = asyncio.Semaphore(running_max)
        self._most = running_max + waiting_max
        self._kept_max = kept_max
        self._bytes_max = bytes_max
        self._expiry_s = expiry_s
        self._now = now
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._ended: OrderedDict[str, Job] = OrderedDict()  # Those that ended first stand first.
        self._alive: dict[str, Job] = {}
        self._ended_bytes = 0

    def start(self, job: Job, work: Work, *, keep: bool = True) -> None:
        """Runs `work` when it is its turn. Raises Overloaded. Its result is kept unless nobody will ask for it."""
        if len(self._tasks) >= self._most:
            raise Overloaded(
                f"{len(self._tasks)} runs are in the background, which is this gateway's limit; try again later",
                retry_after_s=1.0,
            )
        self._forget()
        self._alive[job.id] = job
        task = asyncio.create_task(self._run(job, work), name=f"job {job.id}")
        self._tasks[job.id] = task
        task.add_done_callback(lambda _: self._end(job, keep=keep))

    def get(self, job_id: str, owner: str) -> Job | None:
        """A job of this owner, as long as it is kept."""
        self._forget()
        job = self._alive.get(job_id) or self._ended.get(job_id)
        return job if job is not None and job.owner == owner else None

    def flow_of(self, job_id: str) -> str | None:
        """The flow of a job, whoever's it is."""
        job = self._alive.get(job_id) or self._ended.get(job_id)
        return job.flow_id if job is not None else None

    def with_key(self, key: str, owner: str) -> Job | None:
        """The job that this owner started with this idempotency key."""
        self._forget()
        every = (*self._alive.values(), *self._ended.values())
        return next((job for job in every if key and (job.key, job.owner) == (key, owner)), None)

    async def stop(self, job: Job) -> bool:
        """Cancels a job and waits until it has ended; whether it had not."""
        task = self._tasks.get(job.id)
        if task is None:
            return False
        task.cancel()
        await asyncio.wait([task])
        return True

    async def close(self) -> None:
        """Cancels all that has not ended."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            log.warning("%d runs in the background are cancelled", len(tasks))
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, job: Job, work: Work) -> None:
        try:
            async with self._turns:
                job.status = Status.IN_PROGRESS
                await work(job)
        except asyncio.CancelledError:
            job.status = Status.CANCELLED
            raise
        except PenstockError as error:
            job.status, job.error = Status.FAILED, error.message
            log.warning("the job %s of flow %r failed: %s: %s", job.id, job.flow_id, error.reason, error.message)
        except Exception:
            job.status, job.error = Status.FAILED, "internal error"
            log.exception("the job %s of flow %r failed", job.id, job.flow_id)
        else:
            if not job.status.is_final:
                job.status = Status.COMPLETED

    def _end(self, job: Job, *, keep: bool) -> None:
        del self._tasks[job.id], self._alive[job.id]
        if not job.status.is_final:  # Cancelled before its first step.
            job.status = Status.CANCELLED
        job.expires_at = self._now() + self._expiry_s
        if keep:
            self._ended[job.id] = job
            self._ended_bytes += job.size
        job.wake()
        self._forget()

    def _forget(self) -> None:
        now = self._now()
        while self._ended:
            job = next(iter(self._ended.values()))
            if job.expires_at > now and len(self._ended) <= self._kept_max and self._ended_bytes <= self._bytes_max:
                return
            del self._ended[job.id]
            self._ended_bytes -= job.size


@asynccontextmanager
async def working(jobs: Jobs) -> AsyncIterator[Jobs]:
    """Cancels what has not ended when the block is left."""
    try:
        yield jobs
    finally:
        await jobs.close()
