"""Starts the process that merges segments (compaction.py): its memory, and its hold on Python's lock, go with it."""

import asyncio
import logging
import os
import subprocess
import sys
from pathlib import Path

from penstock.errors import Unavailable

_log = logging.getLogger(__name__)


async def merge_in_child(plan: Path) -> None:
    """Carries out a written plan. Raises Unavailable when that fails. The process ends with this one."""
    process = _started(plan)
    try:
        _, complaint = await asyncio.to_thread(process.communicate)
    finally:
        process.kill()  # Nothing, where it has ended.
        await asyncio.to_thread(process.wait)
    if process.returncode != 0:
        raise Unavailable(f"segments could not be merged: {_reason(complaint)}; they are searched as they are")


def _reason(complaint: bytes) -> str:
    """What the process told in one line for callers; of anything else the log has the whole."""
    told = complaint.decode(errors="replace").strip()
    if told and "\n" not in told:
        return told
    _log.warning("segments could not be merged: %s", told or "the process was killed")
    return "the service's log says why"


def _started(plan: Path) -> subprocess.Popen[bytes]:
    """The process that merges, begun by Popen, which uses vfork.

    The event loop would use fork, and run what libraries want done around one: of children that were so started under load one
    in twenty died of a segmentation fault in gRPC's threads before it was itself (measured), and copying the page tables of a
    large process takes long.
    """
    command = [sys.executable, "-m", "retrieval_svc.shards.compaction", str(plan)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"})  # noqa: S603  # Ours.
