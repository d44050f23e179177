"""A peer's server as a process that ends with its worker."""

import asyncio
import ctypes
import os
import signal
import socket
import time
from collections.abc import Sequence


async def running(command: Sequence[str], **environment: str) -> asyncio.subprocess.Process:
    """A process whose output goes to the worker's log."""
    return await asyncio.create_subprocess_exec(
        *command, env=os.environ | environment, stdin=asyncio.subprocess.DEVNULL, preexec_fn=_die_with_parent
    )


async def until_open(port: int, process: asyncio.subprocess.Process, *, timeout_s: float) -> None:
    """Until something listens there. Raises RuntimeError when the process has ended, TimeoutError when it takes too long."""
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        if process.returncode is not None:
            raise RuntimeError(f"the server ended with {process.returncode}; see its log")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        await asyncio.sleep(0.1)
    raise TimeoutError(f"nothing listens on port {port} after {timeout_s:.0f} s")


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _die_with_parent() -> None:
    """Linux's PR_SET_PDEATHSIG: however the worker ends, its server is not left behind."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
