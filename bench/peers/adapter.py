"""What a peer's worker asks of its adapter."""

from collections.abc import Sequence
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from bench.closed_loop import Caller

Matrix = npt.NDArray[np.float32]

TOP_K: Final = 10
HNSW_M: Final = 32
HNSW_EF_CONSTRUCTION: Final = 80


class Adapter(Caller, Protocol):
    """One peer. A payload is a query's vector as little-endian float32; each answer must carry the hits' texts."""

    async def fill(self, vectors: Matrix, texts: Sequence[str]) -> None:
        """Stores all rows, with the row's number as id, and builds the index. Called once, before anything else."""
        ...

    async def set_ef(self, ef: int) -> None:
        """Candidates that a search looks at from now on."""
        ...

    async def nearest(self, query: Matrix) -> list[tuple[int, str]]:
        """Row and text of the TOP_K hits."""
        ...

    def server_pid(self) -> int:
        """The process whose CPU time, with that of its children, is the server's."""
        ...


def rows_of(query: bytes) -> Any:
    """A payload as a vector."""
    return np.frombuffer(query, dtype="<f4")
