"""The three services as processes on loopback: start, wait until each is ready, stop in order."""

import asyncio
import fcntl
import json
import os
import sys
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from penstock.errors import FailedPrecondition, Unavailable

MODULES: Final = {"gateway": "gateway", "retrieval": "retrieval_svc", "generation": "generation_svc"}
PORTS: Final = {"gateway": (50050, 8080), "retrieval": (50051, 8081), "generation": (50052, 8082)}
READY_TIMEOUT_S: Final = 300.0
LOG_LINES_SHOWN: Final = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A service that is ready: "host:port" of its gRPC and of its HTTP, and its process."""

    name: str
    grpc: str
    http: str
    process: asyncio.subprocess.Process
    log: Path


class LocalStack:
    """Starts services with their state, logs and address files below one folder. One stack a folder at a time.

    `fixed_ports` uses PORTS; otherwise every port is a free one. `environment` is added to the processes' own. `names` are the
    services to start: all of them, unless a measurement or a test needs fewer.
    """

    def __init__(
        self, folder: Path, *, fixed_ports: bool, environment: Mapping[str, str], names: Collection[str] = tuple(MODULES)
    ) -> None:
        self.folder = folder
        self.names = tuple(name for name in MODULES if name in names)
        self._fixed_ports = fixed_ports
        self._environment = dict(environment)
        self._lock: IO[str] | None = None
        self.services: dict[str, Running] = {}

    async def start(self, on_ready: Callable[[Running], None]) -> None:
        """Starts them; the gateway last, because it is told the others' addresses.

        Raises Unavailable naming the service that could not start, with the end of its log.
        """
        for name in ("logs", "run"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self._lock = _locked(self.folder)
        try:
            await self._start_all(on_ready)
        except BaseException:  # Ctrl-C too: nothing that was started may stay behind.
            await self.stop()
            raise

    async def stop(self) -> dict[str, int]:
        """Drains the gateway, then the services behind it. Returns their exit codes."""
        codes: dict[str, int] = {}
        for name in ("gateway", "retrieval", "generation"):
            if name in self.services:
                codes[name] = await _terminate(self.services[name].process)
        if self._lock is not None:
            self._lock.close()
        return codes

    async def died(self) -> Running:
        """Waits until a service ends by itself and says which."""
        waiting = {asyncio.create_task(each.process.wait()): each for each in self.services.values()}
        try:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            return waiting[done.pop()]
        finally:
            for task in waiting:
                task.cancel()

    async def _start_all(self, on_ready: Callable[[Running], None]) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for name in set(self.names) - {"gateway"}:
                    group.create_task(self._start(name, {}, on_ready))
        except* Unavailable as failures:
            raise failures.exceptions[0] from None
        if "gateway" in self.names:
            targets = {f"PENSTOCK_GATEWAY_{name.upper()}_TARGET": each.grpc for name, each in self.services.items()}
            await self._start("gateway", targets, on_ready)

    async def _start(self, name: str, settings: Mapping[str, str], on_ready: Callable[[Running], None]) -> None:
        address_file = self.folder / "run" / f"{name}.json"
        address_file.unlink(missing_ok=True)
        log = self.folder / "logs" / f"{name}.log"
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                MODULES[name],
                env=os.environ | self._defaults(name, address_file) | self._environment | dict(settings),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                # A group of its own: Ctrl-C reaches us alone, and we stop the services in order.
                start_new_session=True,
            )
        try:
            addresses = await _ready(name, process, address_file, log)
        except BaseException:
            await _terminate(process)
            raise
        running = Running(name=name, grpc=addresses["grpc"], http=addresses["http"], process=process, log=log)
        self.services[name] = running
        on_ready(running)

    def _defaults(self, name: str, address_file: Path) -> dict[str, str]:
        prefix = f"PENSTOCK_{name.upper()}_"
        grpc_port, http_port = PORTS[name] if self._fixed_ports else (0, 0)
        own = {
            f"{prefix}GRPC_ADDRESS": os.environ.get(f"{prefix}GRPC_ADDRESS", f"127.0.0.1:{grpc_port}"),
            f"{prefix}HTTP_ADDRESS": os.environ.get(f"{prefix}HTTP_ADDRESS", f"127.0.0.1:{http_port}"),
            f"{prefix}ADDRESS_FILE": str(address_file),
            f"{prefix}DATA_DIR": str(self.folder / name),
            f"{prefix}PARENT_PID": str(os.getpid()),
        }
        return own | {"PYTHONUNBUFFERED": "1"}


def _locked(folder: Path) -> IO[str]:
    """The folder's lock file, locked until it is closed or its process ends. Raises FailedPrecondition when it is taken."""
    file = (folder / "run" / "lock").open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        message = f"another penstock runs on {folder}: stop it, or name another folder with --data-dir"
        raise FailedPrecondition(message) from error
    return file


async def _ready(name: str, process: asyncio.subprocess.Process, address_file: Path, log: Path) -> dict[str, str]:
    until = time.monotonic() + READY_TIMEOUT_S
    while not address_file.exists():
        if process.returncode is not None:
            message = f"{name} ended with {process.returncode} before it was ready. The end of {log}:\n{_tail(log)}"
            raise Unavailable(message)
        if time.monotonic() > until:
            message = f"{name} was not ready within {READY_TIMEOUT_S:.0f} s. The end of {log}:\n{_tail(log)}"
            raise Unavailable(message)
        await asyncio.sleep(0.02)
    addresses: dict[str, str] = json.loads(address_file.read_text())
    return addresses


async def _terminate(process: asyncio.subprocess.Process) -> int:
    if process.returncode is None:
        process.terminate()
    try:
        return await asyncio.wait_for(process.wait(), timeout=60)
    except TimeoutError:
        process.kill()
        return await process.wait()


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-LOG_LINES_SHOWN:])
