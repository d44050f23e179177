"""The search part's reference: the same vectors in the same kind of index, searched by a loop in this process."""

import base64
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from itertools import cycle
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from bench.corpus import DIMENSION, clustered_blocks, clustered_vectors

Tasks = Mapping[str, Any]


class FaissReference:
    """An index over vectors of length 1, whose inner product is the cosine that the service computes: exact, or a graph."""

    def __init__(self) -> None:
        faiss.omp_set_num_threads(1)
        self._index: Any = faiss.IndexFlatIP(1)

    async def build(self, *, count: int) -> None:
        """Indexes the first `count` vectors of the bench's corpus."""
        vectors = clustered_vectors(count)
        self._index = faiss.IndexFlatIP(vectors.shape[1])
        self._index.add(vectors)

    async def build_hnsw(self, *, count: int, m: int, ef_construction: int, file: str) -> None:
        """Indexes them in a graph, or reads the graph from a file where one was kept before."""
        if Path(file).exists():  # noqa: ASYNC240  # Nothing else runs here.
            self._index = faiss.read_index(file)
            return
        index = faiss.IndexHNSWFlat(DIMENSION, m, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = ef_construction
        for block in clustered_blocks(count):
            index.add(block)
        faiss.write_index(index, file)
        self._index = index

    async def set_ef(self, *, ef: int) -> None:
        """Candidates that a search of a graph looks at."""
        self._index.hnsw.efSearch = ef

    async def nearest(self, *, queries: list[str], top_k: int) -> list[list[int]]:
        """The rows nearest to each query, which is base64 of little-endian float32."""
        _, rows = self._index.search(_matrix(queries), top_k)
        return [[int(row) for row in nearest] for nearest in rows]

    async def search(self, *, queries: list[str], top_k: int, batch: int, seconds: float) -> dict[str, float]:
        """Searches over and over, `batch` queries a call. Microseconds a query: CPU time and wall time."""
        matrix = _matrix(queries)
        batches = cycle([matrix[at : at + batch] for at in range(0, len(matrix) - batch + 1, batch)])
        self._index.search(next(batches), top_k)
        count, began, cpu_began = 0, time.perf_counter(), time.process_time()
        while time.perf_counter() - began < seconds:
            self._index.search(next(batches), top_k)
            count += batch
        wall_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu_began
        return {"cpu_us": 1e6 * cpu_s / count, "wall_us": 1e6 * wall_s / count}


def _matrix(queries: list[str]) -> Any:
    return np.stack([np.frombuffer(base64.b64decode(query), dtype="<f4") for query in queries])


@asynccontextmanager
async def serving() -> AsyncIterator[Tasks]:
    """The tasks of this role."""
    reference = FaissReference()
    yield {
        "build": reference.build,
        "build_hnsw": reference.build_hnsw,
        "set_ef": reference.set_ef,
        "nearest": reference.nearest,
        "search": reference.search,
    }
