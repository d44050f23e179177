"""HTTP's way into the dispatcher: uvicorn over the transcoder, on the event loop that gRPC runs on."""

import asyncio
import math
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final, Protocol, cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

import penstock
from penstock.dispatcher import Dispatcher
from penstock.errors import FailedPrecondition
from penstock.gathering import Gathering
from penstock.link.frames import PROTOCOL
from penstock.link.server import LinkServer
from penstock.settings import ServiceSettings
from penstock.transcoding import Page, Transcoder
from penstock.transcoding.exchange import WHEN_LEFT

_SWITCHING: Final = f"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: {PROTOCOL}\r\n\r\n".encode()
HEAD_BYTES_MAX: Final = 64 * 1024
"""Longest request line and headers of one request. What comes with their beginning or end in one read is not counted."""


class Served(Protocol):
    """What the front needs to know of its service."""

    @property
    def name(self) -> str: ...

    @property
    def rpc_services(self) -> tuple[str, ...]: ...


def listen(address: str, *, shared: bool = False) -> socket.socket:
    """A listening socket at "host:port", which `shared` is reserved for several workers.

    Raises FailedPrecondition when the address is taken or is none.
    """
    host, _, port = address.rpartition(":")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host.strip("[]"), int(port)), family=family, reuse_port=shared)
    except (OSError, ValueError) as error:
        message = f"cannot listen for HTTP on {address!r}: {error}; choose another http_address"
        raise FailedPrecondition(message) from error


class HttpFront:
    """The HTTP server of one service."""

    def __init__(
        self,
        listening: socket.socket,
        service: Served,
        settings: ServiceSettings,
        dispatcher: Dispatcher,
        metrics_page: Page | None = None,
    ) -> None:
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
                    metrics_page=metrics_page,
                    title=f"Penstock {service.name}",
                    version=penstock.__version__,
                ),
                http=_protocol(dispatcher, settings),
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,  # Nothing asks for the client's address.
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


def _protocol(dispatcher: Dispatcher, settings: ServiceSettings) -> type[HttpToolsProtocol]:
    """What serves a connection, as uvicorn wants it: a class that it makes instances of."""

    class Protocol(_Connection):
        def link(self) -> LinkServer:
            return LinkServer(
                dispatcher,
                message_bytes_max=settings.message_bytes_max,
                deadline_s=settings.deadline_s,
                closed=self.connections.discard,
            )

    return Protocol


class _Connection(HttpToolsProtocol):
    """uvicorn's protocol, which itself would keep the head of a request however long it grows, and knows no links."""

    _in_head = False
    _head_bytes = 0
    _idle_since = math.inf
    _idle_watch: asyncio.TimerHandle | None = None
    _leavers: set[Callable[[], None]]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # As uvicorn has it.
        self._leavers = set()
        super().connection_made(cast("asyncio.Transport", Gathering(transport)))

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._idle_watch is not None:
            self._idle_watch.cancel()
        for leave in tuple(self._leavers):
            leave()

    def link(self) -> LinkServer:
        """What serves the connection once it has become a link."""
        raise NotImplementedError

    def on_message_begin(self) -> None:
        self._in_head, self._head_bytes = True, 0
        super().on_message_begin()
        scope: Any = self.scope
        scope[WHEN_LEFT] = self._leavers  # Our own word to the transcoder; ASGI's types know no other words than their own.

    def on_headers_complete(self) -> None:
        self._in_head = False
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        """As uvicorn's, but for the timer of an idle connection: it is one that runs on, and not one for each request."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
            return
        self._idle_since = self.loop.time()
        if self._idle_watch is None:
            self._idle_watch = self.loop.call_later(self.timeout_keep_alive, self._watch_idle)

    def _watch_idle(self) -> None:
        self._idle_watch = None
        left_s = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left_s <= 0:
            self.timeout_keep_alive_handler()
        elif left_s < math.inf:
            self._idle_watch = self.loop.call_later(left_s, self._watch_idle)

    def data_received(self, data: bytes) -> None:
        self._idle_since = math.inf
        goes_on = self._in_head
        super().data_received(data)
        if goes_on and self._in_head and not self.transport.is_closing():
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES_MAX:
                self.send_400_response(f"the request line and headers are over {HEAD_BYTES_MAX} bytes")

    def _should_upgrade(self) -> bool:
        return self._get_upgrade() == PROTOCOL.encode()

    def handle_websocket_upgrade(self) -> None:
        """Uvicorn's name for what follows an upgrade, which is a link's here."""
        link: Any = self.link()  # uvicorn asks of its connections that they shut down, which a link does.
        self.connections.discard(self)
        self.connections.add(link)
        if self._idle_watch is not None:
            self._idle_watch.cancel()
        self.transport.write(_SWITCHING)
        link.connection_made(self.transport)
        self.transport.set_protocol(link)


class _Server(uvicorn.Server):
    """uvicorn's server without its signal handlers: the process has its own."""

    @contextmanager
    def capture_signals(self) -> Iterator[Any]:
        yield
