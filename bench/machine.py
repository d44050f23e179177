"""The machine that measured, in words: numbers without it say nothing."""

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Final

import psutil

import penstock
from bench.meter import MIB

_LIBRARIES: Final = ("grpcio", "protobuf", "uvloop", "uvicorn", "httptools", "faiss-cpu", "torch", "openvino-genai")


def describe() -> dict[str, str]:
    """What to write above the tables."""
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    return {
        "cores": f"{os.cpu_count()} ({_processor()})",
        "memory": f"{psutil.virtual_memory().total / MIB / 1024:.0f} GiB",
        "system": f"Linux {platform.release().partition('-')[0]}, Python {platform.python_version()}",
        "penstock": penstock.__version__,
        "libraries": ", ".join(f"{name} {version(name)}" for name in _LIBRARIES),
        "load before the run": f"{load} (1, 5, 15 minutes)",
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
