"""The processes of a run: the services, the fake endpoint, the workers. All end when their block does."""

import asyncio
import base64
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from bench.closed_loop import Sample, sample_from
from bench.meter import family
from penstock.cli.local import LocalStack

_LINE_BYTES_MAX: Final = 64 * 2**20
_LEAVE_S: Final = 15.0
_START_S: Final = 600.0
"""vLLM takes a minute to load a small model, and several where others use the cores too."""


class WorkerFailed(Exception):
    """A worker could not do its task; the message is its traceback."""


class Worker:
    """A running bench.worker of one role."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    async def ask(self, task: str, **params: Any) -> Any:
        """Has one task done. Raises WorkerFailed."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(orjson.dumps({"task": task, "params": params}) + b"\n")
        await stdin.drain()
        line = await stdout.readline()
        answer = orjson.loads(line) if line else {"failure": f"the worker left with {await self._process.wait()}; see its log"}
        if "failure" in answer:
            raise WorkerFailed(answer["failure"])
        return answer["result"]

    async def sample(self, **params: Any) -> Sample:
        """Has a load run."""
        return sample_from(await self.ask("run", **params))


@asynccontextmanager
async def worker(
    role: str, folder: Path, environment: Mapping[str, str] | None = None, *, python: Path | None = None
) -> AsyncIterator[Worker]:
    """A worker of a role: load, faiss, embedder, embedding, engine or vllm; in another environment by its interpreter."""
    async with _process(["bench.worker", role], folder / f"{role}.log", environment or {}, python=python) as process:
        yield Worker(process)


@asynccontextmanager
async def peer_worker(
    adapter: str, options: Mapping[str, Any], folder: Path, *, python: Path | None = None
) -> AsyncIterator[Worker]:
    """A bench.peers.worker, in another environment where its interpreter is given."""
    module = ["bench.peers.worker", adapter, orjson.dumps(options).decode()]
    async with _process(module, folder / f"{adapter}.log", {}, python=python) as process:
        yield Worker(process)


@asynccontextmanager
async def fake_openai(folder: Path, *options: str) -> AsyncIterator[tuple[str, int]]:
    """The instant endpoint: its host:port and its process id."""
    async with _process(["bench.fake_openai", *options], folder / "fake_openai.log", {}) as process:
        assert process.stdout is not None
        address = (await process.stdout.readline()).decode().strip()
        yield address, process.pid


@asynccontextmanager
async def services(folder: Path, names: Sequence[str], environment: Mapping[str, str]) -> AsyncIterator[LocalStack]:
    """Services on free ports, with state of their own below `folder`, and no traces sent anywhere."""
    silent = {"OTEL_TRACES_EXPORTER": "none"} | {f"PENSTOCK_{name.upper()}_LOG_LEVEL": "WARNING" for name in names}
    stack = LocalStack(folder, fixed_ports=False, environment=silent | dict(environment), names=names)
    await stack.start(lambda _: None)
    try:
        yield stack
    finally:
        await stack.stop()


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A server that is ready: its process, and where it listens."""

    pid: int
    address: str


@asynccontextmanager
async def started(
    command: Sequence[str], log: Path, environment: Mapping[str, str], address: Callable[[], str]
) -> AsyncIterator[Running]:
    """A server, once `address` says where it listens; it leaves by SIGTERM. Raises WorkerFailed when it does not come up."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *command, env=os.environ | dict(environment), stdout=output, stderr=output, start_new_session=True
        )
    try:
        async with asyncio.timeout(_START_S):
            while not (found := address()):
                if process.returncode is not None:
                    said = await asyncio.to_thread(log.read_text)
                    raise WorkerFailed(f"{command[2]} left with {process.returncode}:\n{said[-4000:]}")
                await asyncio.sleep(0.2)
        yield Running(pid=process.pid, address=found)
    finally:
        if process.returncode is None:
            process.terminate()
            await _ended(process)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # An engine that was still loading outlives its server.


def pids(stack: LocalStack) -> dict[str, list[int]]:
    """Each service's process and those below it."""
    return {name: family(running.process.pid) for name, running in stack.services.items()}


def load(payloads: Sequence[bytes], *, in_flight: int, seconds: float = 0.0, warmup_s: float = 0.0) -> dict[str, Any]:
    """A closed_loop.Load as JSON."""
    encoded = [base64.b64encode(payload).decode() for payload in payloads]
    return {"in_flight": in_flight, "payloads": encoded, "seconds": seconds, "warmup_s": warmup_s}


@asynccontextmanager
async def _process(
    module: Sequence[str], log: Path, environment: Mapping[str, str], *, python: Path | None = None
) -> AsyncIterator[asyncio.subprocess.Process]:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            str(python or sys.executable),
            "-m",
            *module,
            env=os.environ | dict(environment),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=output,
            limit=_LINE_BYTES_MAX,
        )
    try:
        yield process
    finally:
        await _leave(process)


async def _leave(process: asyncio.subprocess.Process) -> None:
    if process.stdin is not None:
        process.stdin.close()  # The end of its input is a worker's sign to leave.
    await _ended(process)


async def _ended(process: asyncio.subprocess.Process) -> None:
    try:
        await asyncio.wait_for(process.wait(), _LEAVE_S)
    except TimeoutError:
        process.kill()
        await process.wait()
