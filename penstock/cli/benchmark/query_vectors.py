"""Vectors to search with: from a file, or drawn from what a collection holds."""

import importlib
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from penstock.clients import RetrievalClient
from penstock.corpora.records import VECTOR_FIELDS
from penstock.errors import InvalidArgument

Matrix = npt.NDArray[np.float32]

LISTED_MAX: Final = 20_000
"""Chunks whose ids are read to draw from: those with the first ids, which is at random where ids say nothing."""
MOVED: Final = 0.1
"""How far a drawn vector is moved, by its own length: a query that is stored itself would be found too easily."""
_PAGE: Final = 1000


def read_vectors(path: Path, *, dimension: int) -> Matrix:
    """The rows of a .npy, .fvecs or .parquet file. Raises InvalidArgument where they are not vectors of that dimension."""
    readers = {".npy": _read_npy, ".fvecs": _read_fvecs, ".parquet": _read_parquet}
    if path.suffix not in readers:
        raise InvalidArgument(f"{path}: queries are read from {', '.join(readers)}")
    try:
        matrix = np.ascontiguousarray(readers[path.suffix](path), dtype="<f4")
    except (OSError, ValueError) as error:
        raise InvalidArgument(f"{path} cannot be read as vectors: {error}") from error
    if matrix.ndim != 2 or not len(matrix) or matrix.shape[1] != dimension:
        raise InvalidArgument(
            f"{path} has the shape {matrix.shape}; rows of the collection's {dimension} components are needed"
        )
    return matrix


async def draw_vectors(client: RetrievalClient, collection: str, count: int, *, seed: int = 0) -> Matrix:
    """As many vectors near those of chunks of a collection. Raises InvalidArgument where it is empty."""
    ids: list[str] = []
    async for chunk in client.list_chunks(collection, page_size=_PAGE):
        ids.append(chunk.id)
        if len(ids) == LISTED_MAX:
            break
    if not ids:
        raise InvalidArgument(f"{collection} is empty: there is nothing to search")
    drawn = random.Random(seed).choices(ids, k=count)  # noqa: S311  # Nothing is secret here.
    return moved(await _vectors_of(client, collection, drawn), seed=seed)


def moved(vectors: Matrix, *, seed: int) -> Matrix:
    """Each a step of MOVED times its length away, in a direction of its own."""
    steps = np.random.default_rng(seed).standard_normal(vectors.shape)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True) / np.linalg.norm(steps, axis=1, keepdims=True)
    return np.asarray(vectors + MOVED * lengths * steps, dtype="<f4")


async def _vectors_of(client: RetrievalClient, collection: str, ids: Sequence[str]) -> Matrix:
    found: dict[str, bytes] = {}
    distinct = sorted(set(ids))
    for at in range(0, len(distinct), _PAGE):
        chunks = await client.batch_get_chunks(collection, distinct[at : at + _PAGE], fields=("vector",))
        found |= {chunk.id: bytes(chunk.vector) for chunk in chunks if isinstance(chunk.vector, bytes)}
    return np.stack([np.frombuffer(found[each], dtype="<f4") for each in ids if each in found])


def _read_npy(path: Path) -> Any:
    return np.load(path, allow_pickle=False)


def _read_fvecs(path: Path) -> Any:
    """A row: its dimension as int32, then so many float32 (http://corpus-texmex.irisa.fr)."""
    raw = np.fromfile(path, dtype="<i4")
    if not len(raw) or len(raw) % (raw[0] + 1):
        message = "its rows have no common length"
        raise ValueError(message)
    return raw.reshape(-1, raw[0] + 1)[:, 1:].view("<f4")


def _read_parquet(path: Path) -> Any:
    try:
        parquet: Any = importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise InvalidArgument(f"{path}: reading Parquet needs pyarrow; install it (pip install pyarrow)") from error
    table = parquet.read_table(path)
    column = next((name for name in VECTOR_FIELDS if name in table.column_names), None)
    if column is None:
        message = f"it has no column {' or '.join(VECTOR_FIELDS)}"
        raise ValueError(message)
    return np.asarray(table.column(column).to_pylist(), dtype="<f4")
