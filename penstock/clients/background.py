"""An event loop of our own in a thread, on which sync code runs the async clients: one way to make a call, not two."""

import asyncio
import atexit
import threading
from collections.abc import AsyncGenerator, Coroutine, Iterator
from concurrent.futures import Future
from typing import Any, Final, TypeVar

T = TypeVar("T")

_END: Final = object()


class BackgroundLoop:
    """Starts its daemon thread with the first call. May be called from any thread but its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """The coroutine's result, in the caller's context variables. Ctrl-C and the like cancel it."""
        future: Future[T] = asyncio.run_coroutine_threadsafe(coroutine, self._running())
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def iterate(self, items: AsyncGenerator[T, None]) -> Iterator[T]:
        """The generator's items, one at a time. Whoever leaves this early closes the generator."""
        try:
            while (item := self.run(_next(items))) is not _END:
                yield item
        except GeneratorExit:
            # Not waited for: it may be the garbage collector that closes this, in the loop's own thread.
            asyncio.run_coroutine_threadsafe(_close(items), self._running())
            raise

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                thread = threading.Thread(target=self._loop.run_forever, name="penstock-clients", daemon=True)
                thread.start()
                # A daemon thread that still runs while the interpreter is taken down may crash it.
                atexit.register(_stop, self._loop, thread)
            return self._loop


async def _next(items: AsyncGenerator[T, None]) -> Any:
    return await anext(items, _END)


async def _close(items: AsyncGenerator[Any, None]) -> None:
    await items.aclose()


def _stop(loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
    loop.call_soon_threadsafe(loop.stop)
    thread.join(timeout=5.0)


BACKGROUND: Final = BackgroundLoop()
"""The process's one."""
