"""The bulk process of the retrieval service: what to do goes in as a line of JSON, what comes of it comes out as lines."""

import asyncio
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final

import orjson

from penstock.errors import PenstockError, Unavailable, Violation, by_reason

MODULE: Final = "retrieval_svc.bulk"
_LINE_BYTES_MAX: Final = 16 * 2**20
_LEAVE_S: Final = 30.0


async def run_bulk(
    request: Mapping[str, Any], environment: Mapping[str, str], on_progress: Callable[[dict[str, Any]], None] | None = None
) -> Any:
    """Has one request done and gives its result. Raises what the process tells of, and Unavailable when it dies."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", MODULE,
        env=os.environ | dict(environment),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=_LINE_BYTES_MAX,
        start_new_session=True,  # Ctrl-C reaches us alone, and we stop it in order.
    )  # fmt: skip
    try:
        return await _conversed(process, request, on_progress or (lambda _: None))
    finally:
        await _ended(process)


async def _conversed(
    process: asyncio.subprocess.Process, request: Mapping[str, Any], on_progress: Callable[[dict[str, Any]], None]
) -> Any:
    stdin, stdout = process.stdin, process.stdout
    if stdin is None or stdout is None:
        raise Unavailable("the bulk process has no pipes")
    stdin.write(orjson.dumps(request) + b"\n")
    await stdin.drain()
    async for line in stdout:
        told = orjson.loads(line)
        if "progress" in told:
            on_progress(told["progress"])
        elif "result" in told:
            return told["result"]
        elif "error" in told:
            raise _error(told["error"])
    message = (
        f"the bulk process ended with {await process.wait()}; what it had recorded stays, so run the same command again. "
        "Is there too little memory? Try fewer --workers"
    )
    raise Unavailable(message)


def _error(told: Mapping[str, Any]) -> PenstockError:
    cls = by_reason().get(told["reason"], PenstockError)
    return cls(told["message"], metadata=told["metadata"], violations=[Violation(**each) for each in told["violations"]])


async def _ended(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), _LEAVE_S)
    except TimeoutError:
        process.kill()
        await process.wait()
