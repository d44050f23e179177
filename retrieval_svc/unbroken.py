"""Work that a caller who leaves must not break off half-way."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def unbroken(work: Coroutine[Any, Any, T]) -> T:
    """Runs `work` to its end even when the caller is cancelled, and only then lets the cancellation through.

    So a write is in the record and in the index or in neither, and locks held around it are held until it is done.
    """
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is None:
        return task.result()
    if not task.cancelled():
        task.exception()  # Looked at, for nobody is left to hear of it.
    raise cancelled
