"""HTTP's way into the dispatcher: uvicorn over the transcoder, on the event loop that gRPC runs on."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Protocol

import uvicorn

import penstock
from penstock.dispatcher import Dispatcher
from penstock.errors import FailedPrecondition
from penstock.settings import ServiceSettings
from penstock.transcoding import Transcoder


class Served(Protocol):
    """What the front needs to know of its service."""

    @property
    def name(self) -> str: ...

    @property
    def rpc_services(self) -> tuple[str, ...]: ...


def listen(address: str) -> socket.socket:
    """A listening socket at "host:port". Raises FailedPrecondition when the address is taken or is none."""
    host, _, port = address.rpartition(":")
    try:
        return socket.create_server((host.strip("[]"), int(port)), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, ValueError) as error:
        message = f"cannot listen for HTTP on {address!r}: {error}; choose another http_address"
        raise FailedPrecondition(message) from error


class HttpFront:
    """The HTTP server of one service."""

    def __init__(self, listening: socket.socket, service: Served, settings: ServiceSettings, dispatcher: Dispatcher) -> None:
        self._socket = listening
        host, port = listening.getsockname()[:2]
        self.address = f"{host}:{port}"
        self._server = _Server(
            uvicorn.Config(
                Transcoder(
                    service.rpc_services,
                    dispatcher,
                    message_bytes_max=settings.message_bytes_max,
                    deadline_s=settings.deadline_s,
                    ready=lambda: dispatcher.ready,
                    title=f"Penstock {service.name}",
                    version=penstock.__version__,
                ),
                http="httptools",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=int(settings.drain_grace_s),
            )
        )

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Serves while the block runs."""
        self._task = asyncio.create_task(self._server.serve(sockets=[self._socket]))
        try:
            yield
        finally:
            self._server.should_exit = self._server.force_exit = True
            await self._task

    async def drain(self) -> None:
        """Takes no new connections and waits for what is in flight, at most the grace."""
        self._server.should_exit = True
        await asyncio.shield(self._task)


class _Server(uvicorn.Server):
    """uvicorn's server without its signal handlers: the process has its own."""

    @contextmanager
    def capture_signals(self) -> Iterator[Any]:
        yield
