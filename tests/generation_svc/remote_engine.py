"""An engine in another environment's process, asked as if it were here: vLLM's has no pytest, and pytest's has no vLLM.

Both sides are in this file. `python -m tests.generation_svc.remote_engine` starts the engine that the settings name, and
answers lines of pickles on its standard input; RemoteEngine is the test's side, an Engine and a PoolingEngine.
"""

import asyncio
import base64
import inspect
import itertools
import os
import pickle
import signal
import sys
import traceback
from collections.abc import Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from generation_svc.__main__ import ENGINES, POOLING_ENGINES
from generation_svc.engine import Answer, Embeddings, GenerationRequest, Load, ModelInfo, Scores
from generation_svc.settings import GenerationSettings
from penstock.errors import PenstockError, by_reason

LINE_BYTES_MAX = 64 * 2**20


def encode(value: object) -> bytes:
    return base64.b64encode(pickle.dumps(value)) + b"\n"


def decode(line: bytes) -> Any:
    return pickle.loads(base64.b64decode(line))


class RemoteEngine:
    """The test's side. `died` is set to the reason when the engine says that it has died."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.died: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._numbers = itertools.count()
        self._inboxes: dict[int, asyncio.Queue[tuple[str, Any]]] = {}
        self._reading = asyncio.create_task(self._read())

    async def generate(self, request: GenerationRequest) -> Answer:
        number, inbox = self._ask("generate", request)
        try:
            while (said := await inbox.get())[0] != "end":
                yield _value(said)
        finally:
            self._ask("cancel", number)

    async def embed(self, texts: Sequence[str]) -> Embeddings:
        return await self._one("embed", texts)

    async def score(self, query: str, documents: Sequence[str]) -> Scores:
        return await self._one("score", query, documents)

    async def models(self) -> tuple[ModelInfo, ...]:
        return await self._one("models")

    async def health(self) -> bool:
        return await self._one("health")

    async def load(self) -> Load:
        return await self._one("load")

    async def close(self) -> None:
        await self._one("close")

    async def _one(self, method: str, *arguments: object) -> Any:
        return _value(await self._ask(method, *arguments)[1].get())

    def _ask(self, method: str, *arguments: object) -> tuple[int, asyncio.Queue[tuple[str, Any]]]:
        number = next(self._numbers)
        self._inboxes[number] = asyncio.Queue()
        self.process.stdin.write(encode((number, method, arguments)))
        return number, self._inboxes[number]

    async def _read(self) -> None:
        while line := await self.process.stdout.readline():
            number, *said = decode(line)
            if number is None:
                self.died.set_result(said[1])
            else:
                self._inboxes[number].put_nowait(said)


def _value(said: Sequence[Any]) -> Any:
    kind, value = said
    if kind == "failed":
        reason, message, metadata = value
        raise by_reason()[reason](message, metadata=metadata)
    if kind == "broken":
        raise AssertionError(value)
    return value


@asynccontextmanager
async def remote_engine(python: Path, log: Path, root: Path, **settings: object):
    """Starts the engine that the settings name, and waits until its model is loaded."""
    given = {f"PENSTOCK_GENERATION_{name.upper()}": str(value) for name, value in settings.items()}
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            python, "-m", "tests.generation_svc.remote_engine",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=output,
            cwd=root, env={**os.environ, "PYTHONPATH": str(root), **given}, limit=LINE_BYTES_MAX, start_new_session=True,
        )  # fmt: skip
    try:
        first = await process.stdout.readline()
        assert first, f"it left with {await process.wait()}:\n{log.read_text(errors='replace')[-4000:]}"
        yield RemoteEngine(process)
    finally:
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), 60)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


class Served:
    """The engine's side."""

    def __init__(self, engine: Any, output: Any) -> None:
        self._engine = engine
        self._output = output
        self._tasks: dict[int, asyncio.Task[None]] = {}

    def take(self, line: bytes) -> None:
        number, method, arguments = decode(line)
        if method == "cancel":
            if (task := self._tasks.get(arguments[0])) is not None:
                task.cancel()
            return
        self._tasks[number] = asyncio.create_task(self._answer(number, method, arguments))
        self._tasks[number].add_done_callback(lambda _: self._tasks.pop(number, None))

    async def _answer(self, number: int, method: str, arguments: tuple[Any, ...]) -> None:
        try:
            if method == "generate":
                async with aclosing(self._engine.generate(*arguments)) as parts:
                    async for part in parts:
                        self.say(number, "value", part)
                self.say(number, "end", None)
            else:
                value = getattr(self._engine, method)(*arguments)
                self.say(number, "value", await value if inspect.isawaitable(value) else value)
        except PenstockError as error:
            self.say(number, "failed", (error.reason, error.message, error.metadata))
        except Exception:  # noqa: BLE001  # The test's side shows whatever it is.
            self.say(number, "broken", traceback.format_exc())

    def say(self, number: int | None, kind: str, value: object) -> None:
        self._output.write(encode((number, kind, value)))
        self._output.flush()


async def serve() -> None:
    # vLLM and its children log to the standard output.
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    settings = GenerationSettings()
    said: list[Served] = []
    engine = await {**ENGINES, **POOLING_ENGINES}[settings.engine](settings, lambda reason: said[0].say(None, "died", reason))
    said.append(Served(engine, output))
    said[0].say(0, "value", "loaded")
    reader = asyncio.StreamReader(limit=LINE_BYTES_MAX)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        said[0].take(line)
    await engine.close()


if __name__ == "__main__":
    asyncio.run(serve())
