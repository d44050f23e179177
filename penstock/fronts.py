"""Both of a service's fronts, gRPC and HTTP: opened together, drained together."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc

from penstock.dispatcher import Dispatcher
from penstock.errors import FailedPrecondition
from penstock.grpc_front import grpc_server
from penstock.health import Health
from penstock.http_front import HttpFront, Served, listen
from penstock.settings import ServiceSettings
from penstock.transcoding import Page


class Fronts:
    """Not open yet. `shared`: on ports that worker processes of one parent share."""

    def __init__(self, service: Served, settings: ServiceSettings, dispatcher: Dispatcher, *, shared: bool) -> None:
        self._service = service
        self._settings = settings
        self._dispatcher = dispatcher
        self._shared = shared
        self._health = Health(service.rpc_services)
        self._server: grpc.aio.Server | None = None
        self._http: HttpFront | None = None
        self.grpc_address = self.http_address = ""

    @asynccontextmanager
    async def open(self, metrics_page: Page | None) -> AsyncIterator[None]:
        """Listens while the block runs. Raises FailedPrecondition when an address is taken."""
        settings = self._settings
        self._server = grpc_server(
            settings,
            self._dispatcher,
            self._health,
            shared=self._shared,
            link_port=lambda: self.http_address.rpartition(":")[2],
        )
        self.grpc_address = _bind(self._server, settings.grpc_address)
        await self._server.start()
        try:
            if not settings.http_address:
                yield
                return
            listening = listen(settings.http_address, shared=self._shared)
            self._http = HttpFront(listening, self._service, settings, self._dispatcher, metrics_page)
            self.http_address = self._http.address
            async with self._http.serving():
                yield
        finally:
            await self._server.stop(None)

    def _link_port(self) -> str:
        return self.http_address.rpartition(":")[2]

    def serve(self) -> None:
        """Ready from now on."""
        self._dispatcher.ready = True
        self._health.serve()

    async def drain(self) -> None:
        """Takes no new calls and waits for those in flight, at most the grace."""
        self._dispatcher.ready = False
        self._health.leave()
        assert self._server is not None  # noqa: S101  # Only what is open is drained.
        await asyncio.gather(self._server.stop(self._settings.drain_grace_s), *([self._http.drain()] if self._http else []))


def _bind(server: grpc.aio.Server, address: str) -> str:
    try:
        port = server.add_insecure_port(address)
    except RuntimeError as error:
        message = f"cannot listen for gRPC on {address}: is another process there? Choose another grpc_address"
        raise FailedPrecondition(message) from error
    return f"{address.rpartition(':')[0]}:{port}"
