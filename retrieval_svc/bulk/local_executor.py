"""Steps in processes of this machine.

Each worker has a pipe. It is given two items at a time, so that it has the next when it is done with one; results that come
out of order wait for those before them, and nothing new is begun while too many wait. A worker that dies (of its memory, of a
library's fault, of a kill) is replaced, and what it had is done again.
"""

import logging
import multiprocessing
import os
import signal
import threading
import traceback
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from queue import SimpleQueue
from typing import Any, Final

from penstock.errors import PenstockError
from retrieval_svc.bulk.executing import Item, Result, Step, StepFailed

_log = logging.getLogger(__name__)

TRIES_MAX: Final = 3
"""How many workers an item may cost."""
_AHEAD: Final = 2
"""Items that a worker has at a time."""
_WINDOW: Final = 4
"""Items a worker that may be under way or wait for those before them."""
_LEAVE_S: Final = 5.0
_NICENESS: Final = 5
"""A service on the same machine goes first."""


class LocalExecutor:
    """Implements the Executor port with `workers` processes."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._pool: _Pool | None = None

    def map(self, step: Step[Item, Result], items: Iterable[Item]) -> Generator[Result, None, None]:
        """As the port has it."""
        self._pool = pool = _Pool(step, iter(items), self._workers)
        try:
            yield from pool.results()
        finally:
            pool.close()

    def stop(self) -> None:
        """As the port has it."""
        if self._pool is not None:
            self._pool.stop()

    def close(self) -> None:
        """As the port has it: its processes have ended with their results."""


@dataclass(slots=True, eq=False)
class _Worker:
    """A process, our end of its pipe, and the numbers of the items that it has."""

    process: BaseProcess
    pipe: Connection
    held: list[int] = field(default_factory=list)


@dataclass(slots=True)
class _Task:
    item: Any
    tries: int = 0


class _Pool:
    """The workers of one step, and where its items are."""

    def __init__(self, step: Step[Any, Any], items: Iterator[Any], workers: int) -> None:
        self._step = step
        self._items = items
        self._count = workers
        self._workers: list[_Worker] = []
        self._tasks: dict[int, _Task] = {}
        self._again: deque[int] = deque()
        self._results: dict[int, Any] = {}
        self._taken = 0
        self._ended = False
        self._stopped = False

    def results(self) -> Iterator[Any]:
        number = 0
        while True:
            self._hand_out()
            if number in self._results:
                yield self._results.pop(number)
                number += 1
            elif self._tasks:
                self._collect()
            else:
                return

    def stop(self) -> None:
        """From any thread. Whoever collects hears of the workers' ends."""
        self._stopped = True
        for worker in list(self._workers):
            worker.process.terminate()

    def close(self) -> None:
        for worker in self._workers:
            worker.pipe.close()
            worker.process.terminate()
        for worker in self._workers:
            worker.process.join(_LEAVE_S)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
            worker.process.close()
        self._workers.clear()

    def _hand_out(self) -> None:
        """Gives items to those that have room, beginning with who has least."""
        while (worker := self._roomiest()) is not None and (number := self._next()) is not None:
            worker.held.append(number)
            try:
                worker.pipe.send((number, self._tasks[number].item))
            except (BrokenPipeError, ConnectionResetError):
                self._replace(worker)

    def _roomiest(self) -> _Worker | None:
        if len(self._workers) < self._count and all(worker.held for worker in self._workers) and self._next_exists():
            self._workers.append(_started(self._step))
        worker = min(self._workers, key=lambda each: len(each.held), default=None)
        return worker if worker is not None and len(worker.held) < _AHEAD else None

    def _next_exists(self) -> bool:
        number = self._next()
        if number is not None:
            self._again.appendleft(number)
        return number is not None

    def _next(self) -> int | None:
        """An item to do; None: there is none, or too many are under way."""
        if self._again:
            return self._again.popleft()
        if self._ended or len(self._tasks) + len(self._results) >= _WINDOW * self._count:
            return None
        try:
            item = next(self._items)
        except StopIteration:
            self._ended = True
            return None
        number, self._taken = self._taken, self._taken + 1
        self._tasks[number] = _Task(item)
        return number

    def _collect(self) -> None:
        """Waits for results, or for a worker's end."""
        by_pipe = {worker.pipe: worker for worker in self._workers if worker.held}
        for pipe in wait(list(by_pipe)):
            worker = by_pipe[pipe]  # type: ignore[index]  # These are pipes, whatever else one can wait for.
            try:
                number, result = worker.pipe.recv()
            except (EOFError, ConnectionResetError):
                self._replace(worker)
                continue
            if isinstance(result, BaseException):
                raise result
            worker.held.remove(number)
            del self._tasks[number]
            self._results[number] = result

    def _replace(self, worker: _Worker) -> None:
        worker.process.join()
        if self._stopped:
            raise StepFailed("stopped")
        _log.warning("a worker ended with %s; what it had is done again", worker.process.exitcode)
        # What it worked on is its first; what waited behind that is not to blame.
        task = self._tasks[worker.held[0]]
        task.tries += 1
        if task.tries >= TRIES_MAX:
            message = (
                f"{task.tries} workers ended with {worker.process.exitcode} over the same part; is there too little memory? "
                "Try fewer --workers, or more --shards"
            )
            raise StepFailed(message)
        self._again.extendleft(reversed(worker.held))
        worker.pipe.close()
        worker.process.close()
        self._workers.remove(worker)


def _started(step: Step[Any, Any]) -> _Worker:
    # Spawned: a fork would take over this process's threads' locks.
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, step), daemon=True)
    process.start()
    theirs.close()  # So that its end is heard of when it dies.
    return _Worker(process, ours)


def _serve(pipe: Connection, step: Step[Any, Any]) -> None:
    """The work of a worker, until its parent closes the pipe or is gone."""
    os.nice(_NICENESS)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # A terminal's Ctrl-C goes to the whole group; the parent ends this process.
    given: SimpleQueue[tuple[int, Any] | None] = SimpleQueue()
    threading.Thread(target=_take, args=(pipe, given), name="taking", daemon=True).start()
    number = -1
    try:
        with step.open() as work:
            while (task := given.get()) is not None:
                number, item = task
                pipe.send((number, work(item)))
    except (BrokenPipeError, ConnectionResetError):
        return
    except PenstockError as error:
        pipe.send((number, error))
    except Exception:  # noqa: BLE001  # The parent tells of it.
        pipe.send((number, StepFailed(traceback.format_exc())))


def _take(pipe: Connection, given: "SimpleQueue[tuple[int, Any] | None]") -> None:
    """Takes what is given at once: a parent that sends an item and a worker that sends a result would wait for each other."""
    try:
        while True:
            given.put(pipe.recv())
    except (EOFError, OSError):
        given.put(None)
