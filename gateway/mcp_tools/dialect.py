"""The route /mcp of the gateway."""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, MutableMapping
from contextlib import asynccontextmanager
from importlib import import_module
from typing import Any, Final

from penstock.errors import MethodNotAllowed, PenstockError, PermissionDenied
from penstock.flow.v1 import flow_pb2
from penstock.transcoding.dialect import DialectCall, DialectRoute
from penstock.transcoding.exchange import Exchange

PATH: Final = "/mcp"
_SERVER: Final = "gateway.mcp_tools.server"
_ASKING_WHETHER: Final = "/penstock.flow.v1.FlowService/GetFlowSchema"
"""A method that costs nothing and needs the right that tools need: who may not call it is told so by HTTP."""


class McpDialect:
    """A Dialect (penstock.transcoding.dialect). `origins` are those whose web pages may call; other pages are refused, so that
    none can reach a gateway beside its reader's browser. Programs that are no pages name no origin.
    """

    def __init__(self, origins: Collection[str], message_bytes_max: int) -> None:
        self._origins = frozenset(origins)
        self._message_bytes_max = message_bytes_max
        self._starting = asyncio.Lock()
        self._running: asyncio.Task[None] | None = None
        self._manager: Any = None
        self._route = DialectRoute(handler=self._handle, fail=_fail)

    def find(self, http_method: str, path: str) -> DialectRoute | None:  # noqa: ARG002  # It refuses other verbs itself.
        return self._route if path == PATH else None

    def describe(self) -> Mapping[str, Any]:
        return {}

    async def aclose(self) -> None:
        """Ends the server, if it was ever asked for."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)

    async def _handle(self, call: DialectCall) -> None:
        if call.exchange.http_method != "POST":
            raise MethodNotAllowed(f"{PATH} takes POST", metadata={"allow": "POST"})
        origin = call.headers.get("origin")
        if origin is not None and origin not in self._origins:
            raise PermissionDenied(
                f"pages of {origin[:200]!r} may not call tools here; PENSTOCK_GATEWAY_MCP_ORIGINS names those that may"
            )
        await call.unary(_ASKING_WHETHER, flow_pb2.GetFlowSchemaRequest())
        manager = self._manager or await self._started()
        scope = {**call.exchange.scope, "penstock.call": call}
        await manager.handle_request(scope, _body_once(call.body), call.exchange.emit)

    async def _started(self) -> Any:
        async with self._starting:
            if self._manager is None:
                started = asyncio.get_running_loop().create_future()
                self._running = asyncio.create_task(self._run(started))
                await started
        return self._manager

    async def _run(self, started: asyncio.Future[None]) -> None:
        """A task of its own: what is entered by one request must not be left by another."""
        try:
            server = await asyncio.to_thread(import_module, _SERVER)
            async with server.serving(self._message_bytes_max) as manager:
                self._manager = manager
                started.set_result(None)
                await asyncio.Event().wait()
        except BaseException as error:
            if not started.done():
                started.set_exception(error)
            raise


@asynccontextmanager
async def mcp_dialect(origins: Collection[str], message_bytes_max: int) -> AsyncIterator[McpDialect]:
    """The dialect, whose server ends with the block."""
    dialect = McpDialect(origins, message_bytes_max)
    try:
        yield dialect
    finally:
        await dialect.aclose()


async def _fail(exchange: Exchange, error: PenstockError) -> None:
    await exchange.fail(error)


def _body_once(body: bytes) -> Any:
    """ASGI's receive for a body that has been read. That the client leaves is seen outside, where it cancels the whole."""
    given = False

    async def receive() -> MutableMapping[str, Any]:
        nonlocal given
        if given:
            await asyncio.Event().wait()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive
