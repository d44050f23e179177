"""The service as a real process."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import grpc
from opentelemetry.sdk.trace import TracerProvider

from penstock.channel import open_channel
from penstock.retrieval.v1.retrieval_pb2_grpc import RetrievalServiceStub

READY_S = 90


@dataclass(frozen=True, kw_only=True)
class Running:
    """A process that is ready, and a stub that talks to it."""

    process: asyncio.subprocess.Process
    channel: grpc.aio.Channel
    stub: RetrievalServiceStub
    http: str
    log: "asyncio.Task[str]"

    async def kill(self) -> None:
        """Ends it as a crash would: no handler runs."""
        self.process.send_signal(signal.SIGKILL)
        await self.process.wait()

    async def killed_log(self) -> str:
        """Ends it, and gives what it had logged."""
        await self.kill()
        return await self.log

    async def drain(self) -> int:
        """Asks it to leave; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return await self.process.wait()


def environment(folder: Path, settings: Mapping[str, str]) -> dict[str, str]:
    """What the service is started with: its data in `folder`, no model, and the settings."""
    outside = {name: value for name, value in os.environ.items() if not name.startswith(("PENSTOCK_", "OTEL_"))}
    own = {"data_dir": str(folder / "data"), "address_file": str(folder / "addresses.json"), "embedding_model": ""}
    return outside | {f"PENSTOCK_RETRIEVAL_{name.upper()}": value for name, value in (own | dict(settings)).items()}


async def start(folder: Path, **settings: str) -> asyncio.subprocess.Process:
    """Starts the service on a data folder, as its users do. Without a model it is up in a second or two."""
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "retrieval_svc", env=environment(folder, settings), stderr=asyncio.subprocess.PIPE
    )


@contextlib.asynccontextmanager
async def running(folder: Path, **settings: str) -> AsyncIterator[Running]:
    """A service that is ready. It is killed on the way out if it still runs."""
    addresses = folder / "addresses.json"
    await asyncio.to_thread(addresses.unlink, missing_ok=True)
    process = await start(folder, **settings)
    drained = asyncio.create_task(_read_all(process))
    try:
        async with asyncio.timeout(READY_S):
            while not await asyncio.to_thread(addresses.exists):
                assert process.returncode is None, await drained
                await asyncio.sleep(0.05)
        bound = json.loads(await asyncio.to_thread(addresses.read_text))
        channel = open_channel(bound["grpc"], tracer_provider=TracerProvider(), message_bytes_max=64 * 2**20)
        yield Running(process=process, channel=channel, stub=RetrievalServiceStub(channel), http=bound["http"], log=drained)
        await channel.close()
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await drained


async def _read_all(process: asyncio.subprocess.Process) -> str:
    """Reads the log, so that the process never waits for a full pipe."""
    assert process.stderr is not None
    return (await process.stderr.read()).decode()
