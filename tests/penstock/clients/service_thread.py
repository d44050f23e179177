"""Servicers in a thread of their own, for tests that call them from where no event loop is theirs, as LangChain's do."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import Any

from opentelemetry.trace import NoOpTracer

from penstock.dispatcher import Dispatcher
from penstock.grpc_front import grpc_server
from penstock.health import Health
from penstock.interceptors import Admission, Deadline, ErrorBoundary, Tracing
from penstock.settings import ServiceSettings

START_S = 30


@asynccontextmanager
async def served(service: str, mount: Callable[[Dispatcher], object]) -> AsyncIterator[str]:
    """The address of a service whose servicer `mount` mounts."""
    dispatcher = Dispatcher((service,), (Tracing(NoOpTracer()), ErrorBoundary(), Admission(100), Deadline()))
    healthy = Health((service,))
    healthy.serve()
    server = grpc_server(ServiceSettings(), dispatcher, healthy)
    mount(dispatcher)
    port = server.add_insecure_port("127.0.0.1:0")
    dispatcher.ready = True
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


@contextmanager
def in_a_thread(serving: AbstractAsyncContextManager[str]) -> Iterator[str]:
    """What `serving` gives, while it is open on an event loop in a thread of its own."""
    ready, told = threading.Event(), dict[str, Any]()

    async def live() -> None:
        told["loop"], told["stop"] = asyncio.get_running_loop(), asyncio.Event()
        async with serving as address:
            told["address"] = address
            ready.set()
            await told["stop"].wait()

    thread = threading.Thread(target=lambda: asyncio.run(live()), daemon=True)
    thread.start()
    assert ready.wait(START_S), "the service did not start"
    try:
        yield told["address"]
    finally:
        told["loop"].call_soon_threadsafe(told["stop"].set)
        thread.join(START_S)
