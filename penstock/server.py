"""The whole of a service's process: settings, telemetry, gRPC and HTTP on one event loop, health, reflection, drain.

    run -> _main -> _serve -> assemble (the service's own) ... ready ... stop -> drain

Health answers from the start and says SERVING only between "assembled" and "asked to leave"; until then every other call is
refused as NOT_READY, which a client may retry on another replica. SIGTERM and SIGINT drain: not ready, no new calls, calls in
flight finish within the grace, then the engine and the stores are closed.
"""

import asyncio
import ctypes
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import uvloop
from pydantic import ValidationError

from penstock.access import Access, Scopes
from penstock.address_file import announce
from penstock.collector import spare_what_is_loaded
from penstock.dispatcher import Dispatcher
from penstock.errors import PenstockError
from penstock.fronts import Fronts
from penstock.interceptors import Admission, Deadline, ErrorBoundary, Tracing
from penstock.keys import Keyring, kept_fresh
from penstock.metering import Metering
from penstock.seat import WorkerSeat
from penstock.settings import ServiceSettings
from penstock.telemetry import Telemetry, configure, configure_logging
from penstock.worker_metrics import metrics_page
from penstock.workers import supervise

log = logging.getLogger("penstock.server")

_PR_SET_PDEATHSIG: Final = 1  # <sys/prctl.h>


@dataclass(frozen=True, slots=True, kw_only=True)
class Assembly:
    """What a service builds itself from. `stop(reason)` asks the process to leave with exit code 1: an engine has died."""

    settings: Any
    dispatcher: Dispatcher
    telemetry: Telemetry
    stop: Callable[[str], None]
    worker: WorkerSeat = field(default_factory=WorkerSeat)
    """Which of the service's worker processes this one is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One of the services: its name, what it serves, and how it is assembled.

    `assemble` builds the adapters, mounts the servicers on the dispatcher and yields; what follows its yield is the closing.
    """

    name: str
    rpc_services: tuple[str, ...]
    settings: type[ServiceSettings]
    assemble: Callable[[Assembly], AbstractAsyncContextManager[None]]
    scopes: Scopes = field(default_factory=dict)
    """What a caller's key needs for each method, by its name; "admin" where nothing is said."""


def run(service: Service) -> None:
    """Runs a service until it is asked to leave. Exits 0 after a drain, 1 when it failed, 2 for bad settings."""
    settings = _settings(service)
    configure_logging(settings.log_level, settings.log_format)
    if settings.parent_pid:
        _leave_with(settings.parent_pid)
    is_parent = settings.workers > 1 and WorkerSeat.of_this_process().folder is None
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.exit(runner.run(_parent(service, settings) if is_parent else _main(service, settings)))


async def _parent(service: Service, settings: ServiceSettings) -> int:
    try:
        return await supervise(service.name, settings, service.settings.model_config.get("env_prefix", ""))
    except PenstockError as error:
        log.error("%s could not start: %s", service.name, error.message)  # noqa: TRY400  # The message says what to do.
        return 1


async def _main(service: Service, settings: ServiceSettings) -> int:
    telemetry = configure(service.name, metrics_page=settings.metrics_page)
    stop = _Stop()
    try:
        async with _serve(service, settings, telemetry, stop):
            await stop.wait()
            log.info("%s leaves: %s", service.name, stop.reason)
    except PenstockError as error:
        log.error("%s could not start: %s", service.name, error.message)  # noqa: TRY400  # The message says what to do.
        return 1
    except asyncio.CancelledError:
        log.warning("%s left without draining: %s", service.name, stop.reason)
        return stop.exit_code
    except Exception:
        log.exception("%s died", service.name)
        return 1
    finally:
        telemetry.shutdown()
    return stop.exit_code


@asynccontextmanager
async def _serve(service: Service, settings: ServiceSettings, telemetry: Telemetry, stop: "_Stop") -> AsyncIterator[None]:
    keyring = Keyring(settings.api_keys_file) if settings.api_keys_file else None
    dispatcher = _dispatcher(service, settings, telemetry, keyring)
    seat = WorkerSeat.of_this_process()
    fronts = Fronts(service, settings, dispatcher, shared=seat.folder is not None)
    async with AsyncExitStack() as opened:
        await opened.enter_async_context(stop.on_signals())
        await opened.enter_async_context(kept_fresh(keyring))
        page = await opened.enter_async_context(metrics_page(telemetry.metrics_page, seat))
        if seat.folder is None:
            await opened.enter_async_context(fronts.open(page))
        assembly = Assembly(
            settings=settings, dispatcher=dispatcher, telemetry=telemetry, stop=stop.because_of_failure, worker=seat
        )
        async with service.assemble(assembly):
            spare_what_is_loaded()
            if seat.folder is not None:  # One of several listens when it can answer: the others answer until then.
                await seat.may_serve()
                await opened.enter_async_context(fronts.open(page))
            stop.can_drain = True
            fronts.serve()
            announce(service.name, settings.address_file, fronts.grpc_address, fronts.http_address)
            yield
            await fronts.drain()


@dataclass(slots=True)
class _Stop:
    """Why and how the process is to leave."""

    reason: str = ""
    exit_code: int = 0
    can_drain: bool = False
    _event: asyncio.Event = field(default_factory=asyncio.Event)

    async def wait(self) -> None:
        await self._event.wait()

    def because_of_failure(self, reason: str) -> None:
        self.exit_code = 1
        self._set(reason)

    @asynccontextmanager
    async def on_signals(self) -> AsyncIterator[None]:
        loop, owner = asyncio.get_running_loop(), asyncio.current_task()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number, owner)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    def _on_signal(self, number: signal.Signals, owner: "asyncio.Task[Any] | None") -> None:
        was_asked = self._event.is_set()
        self._set(f"{signal.Signals(number).name} received")
        if was_asked:
            self.exit_code = 1
        if owner is not None and (was_asked or not self.can_drain):
            owner.cancel()  # Asked twice, or still loading: there is no reason to wait for anything.

    def _set(self, reason: str) -> None:
        self.reason = self.reason or reason
        self._event.set()


def _leave_with(parent_pid: int) -> None:
    """Asks Linux to send SIGTERM to this process when its parent dies; leaves at once when it has died already."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent_pid:
        log.warning("the process %d that started this one has gone", parent_pid)
        sys.exit(0)


def _settings(service: Service) -> ServiceSettings:
    try:
        return service.settings()
    except ValidationError as error:
        prefix = service.settings.model_config.get("env_prefix", "")
        for fault in error.errors():
            name = prefix + "_".join(str(part) for part in fault["loc"]).upper()
            print(f"{name}={fault['input']!r}: {fault['msg']}", file=sys.stderr)  # noqa: T201  # Logging is not set up yet.
        sys.exit(2)


def _dispatcher(service: Service, settings: ServiceSettings, telemetry: Telemetry, keyring: Keyring | None) -> Dispatcher:
    tracing = Tracing(telemetry.tracer("server"), records_unasked=telemetry.records_unasked)
    metering = Metering(telemetry.meter("server"), telemetry.histograms)
    access, admission = Access(keyring, service.scopes), Admission(settings.concurrency_max)
    return Dispatcher(service.rpc_services, (tracing, metering, ErrorBoundary(), access, admission, Deadline()))
