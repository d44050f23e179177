"""Bulk builds as real processes."""

import asyncio
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson
import psutil

READY_S = 120


class BulkProcess:
    """`python -m retrieval_svc.bulk`, as the command line starts it."""

    def __init__(self, folder: Path, **settings: str) -> None:
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("PENSTOCK_", "OTEL_"))}
        own = {"data_dir": str(folder / "data"), "embedding_model": ""} | settings
        self._environment = clean | {f"PENSTOCK_RETRIEVAL_{name.upper()}": value for name, value in own.items()}
        self.told: list[dict[str, Any]] = []
        self.left: list[psutil.Process] = []
        """Processes that were seen below it and outlived it."""

    async def run(self, *, kill_at: Callable[[dict[str, Any]], bool] | None = None, **build: Any) -> dict[str, Any]:
        """The last line that it wrote. With `kill_at` it is killed (SIGKILL) at the first line for which that is so."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "retrieval_svc.bulk",
            env=self._environment, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(orjson.dumps({"build": build}) + b"\n")
        last: dict[str, Any] = {}
        below: set[psutil.Process] = set()
        try:
            async with asyncio.timeout(READY_S):
                async for line in process.stdout:
                    last = orjson.loads(line)
                    self.told.append(last)
                    with suppress(psutil.NoSuchProcess):
                        below.update(psutil.Process(process.pid).children(recursive=True))
                    if kill_at is not None and kill_at(last):
                        with suppress(ProcessLookupError):  # It may have come to its end meanwhile.
                            process.kill()  # It alone: its workers have to notice by themselves.
        finally:
            if process.returncode is None and not process.stdout.at_eof():
                process.kill()
            await process.wait()
        _, self.left = await asyncio.to_thread(psutil.wait_procs, below, timeout=20)
        return last


def progress_of(line: dict[str, Any], phase: str) -> dict[str, Any] | None:
    """What a line tells of a phase."""
    told: dict[str, Any] | None = line.get("progress")
    return told if told is not None and told["phase"] == phase else None
