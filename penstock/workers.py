"""A service's parent process: starts its workers, which share its ports, keeps them running, and leaves when they have.

    parent ── reserves both ports, starts N times its own command line
      ├─ worker 0 ─ assembles ─ "ready" ─┐
      └─ worker 1 ─ assembles ─ "ready" ─┴─ all ready: all listen, the parent announces them

A worker listens only once it can answer, so the kernel gives no connection to one that is loading or that has died. One that
dies is started again; one that dies before all were ready is a start that failed. The parent's death, kill -9 included, makes
the workers drain and leave.
"""

import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from penstock.address_file import announce
from penstock.ports import reserved
from penstock.seat import WorkerSeat
from penstock.settings import ServiceSettings

log = logging.getLogger("penstock.workers")

_POLL_S: Final = 0.02
_BACKOFF_S: Final = (0.1, 0.5, 2.0, 10.0, 30.0)
_STEADY_S: Final = 60.0
"""A worker that lived this long has not died of what killed the one before it."""


async def supervise(name: str, settings: ServiceSettings, prefix: str) -> int:
    """Runs `settings.workers` workers of this process's own command line until they have left. Returns the exit code.

    `prefix` is that of the settings' variables. Raises FailedPrecondition when a port is taken.
    """
    with ExitStack() as held:
        grpc = held.enter_context(reserved(settings.grpc_address, "gRPC"))
        http = held.enter_context(reserved(settings.http_address, "HTTP")) if settings.http_address else ""
        folder = Path(held.enter_context(TemporaryDirectory(prefix=f"penstock-{name}-")))
        environment = {
            f"{prefix}GRPC_ADDRESS": grpc,
            f"{prefix}HTTP_ADDRESS": http,
            f"{prefix}PARENT_PID": str(os.getpid()),
        }
        seats = [WorkerSeat(index=index, count=settings.workers, folder=folder) for index in range(settings.workers)]
        inherited = {name: value for name, value in os.environ.items() if name != f"{prefix}ADDRESS_FILE"}
        crew = _Crew(seats, inherited | environment, reloads=settings.api_keys_file is not None)
        with crew.on_signals():
            return await crew.run(lambda: announce(name, settings.address_file, grpc, http))


class _Crew:
    """The workers, and why they are to leave."""

    def __init__(self, seats: list[WorkerSeat], environment: Mapping[str, str], *, reloads: bool) -> None:
        self._seats = seats
        self._environment = dict(environment)
        self._processes: dict[int, asyncio.subprocess.Process] = {}
        self._reloads = reloads
        self._all_ready = False
        self._leaving = asyncio.Event()
        self._exit_code = 0

    async def run(self, on_ready: Callable[[], None]) -> int:
        async with asyncio.TaskGroup() as group:
            kept = [group.create_task(self._keep(seat)) for seat in self._seats]
            waiting = group.create_task(self._wait_for_all(on_ready))
            await asyncio.wait(kept)
            waiting.cancel()
        return self._exit_code

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._leave, f"{number.name} received", 0)
        if self._reloads:
            loop.add_signal_handler(signal.SIGHUP, self._send, signal.SIGHUP)
        yield

    def _leave(self, reason: str, exit_code: int) -> None:
        log.info("the workers leave: %s", reason)
        self._exit_code = self._exit_code or exit_code
        self._leaving.set()
        self._send(signal.SIGTERM)

    def _send(self, number: signal.Signals) -> None:
        for process in self._processes.values():
            if process.returncode is None:
                process.send_signal(number)

    async def _wait_for_all(self, on_ready: Callable[[], None]) -> None:
        while not all(seat.ready_file.exists() for seat in self._seats):  # noqa: ASYNC110  # Made by other processes.
            await asyncio.sleep(_POLL_S)
        self._all_ready = True
        self._seats[0].serve_file.touch()
        on_ready()

    async def _keep(self, seat: WorkerSeat) -> None:
        """Runs the worker of a seat, again and again, until all are to leave."""
        deaths = 0
        while not self._leaving.is_set():
            began = time.monotonic()
            code = await self._run_one(seat)
            if self._leaving.is_set():
                self._exit_code = self._exit_code or (0 if code == -signal.SIGTERM else abs(code))
            elif not self._all_ready:
                self._leave(f"worker {seat.index} ended with {code} before it was ready", abs(code) or 1)
            else:
                deaths = 0 if time.monotonic() - began > _STEADY_S else deaths
                pause_s = _BACKOFF_S[min(deaths, len(_BACKOFF_S) - 1)]
                deaths += 1
                log.warning("worker %d ended with %d; it is started again in %.1f s", seat.index, code, pause_s)
                await self._pause(pause_s)

    async def _run_one(self, seat: WorkerSeat) -> int:
        process = await asyncio.create_subprocess_exec(
            sys.executable, *sys.orig_argv[1:], env=self._environment | seat.environment
        )
        self._processes[seat.index] = process
        if self._leaving.is_set():
            process.send_signal(signal.SIGTERM)
        return await process.wait()

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._leaving.wait()
        except TimeoutError:
            pass
