"""Files of vectors, good and bad, and vectors near those that are stored."""

import struct
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from penstock.cli.benchmark.query_vectors import MOVED, moved, read_vectors
from penstock.errors import InvalidArgument

ROWS = np.arange(12, dtype=np.float32).reshape(3, 4)


def written(folder: Path, suffix: str) -> Path:
    path = folder / f"queries{suffix}"
    if suffix == ".npy":
        np.save(path, ROWS.astype(np.float64))
    elif suffix == ".fvecs":
        path.write_bytes(b"".join(struct.pack("<i4f", 4, *row) for row in ROWS))
    else:
        parquet.write_table(pyarrow.table({"id": ["a", "b", "c"], "embedding": ROWS.tolist()}), path)
    return path


@pytest.mark.parametrize("suffix", [".npy", ".fvecs", ".parquet"])
def test_the_rows_of_a_file_are_read(tmp_path: Path, suffix: str) -> None:
    found = read_vectors(written(tmp_path, suffix), dimension=4)
    assert np.array_equal(found, ROWS)
    assert found.dtype == np.dtype("<f4")


@pytest.mark.parametrize("suffix", [".npy", ".fvecs", ".parquet"])
def test_another_dimension_is_refused(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(InvalidArgument, match=r"shape \(3, 4\); rows of the collection's 5"):
        read_vectors(written(tmp_path, suffix), dimension=5)


@pytest.mark.parametrize(("name", "content"), [("q.npy", b"nothing"), ("q.fvecs", b"\x04\0\0\0\0\0\0\0"), ("q.fvecs", b"")])
def test_a_broken_file_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidArgument, match=name):
        read_vectors(tmp_path / name, dimension=4)


def test_a_table_without_vectors_and_another_kind_of_file_are_refused(tmp_path: Path) -> None:
    parquet.write_table(pyarrow.table({"id": ["a"]}), tmp_path / "q.parquet")
    with pytest.raises(InvalidArgument, match="no column vector or embedding"):
        read_vectors(tmp_path / "q.parquet", dimension=4)
    with pytest.raises(InvalidArgument, match=r"\.npy, \.fvecs, \.parquet"):
        read_vectors(tmp_path / "q.csv", dimension=4)


def test_moved_vectors_are_near_the_stored_ones_but_none_of_them() -> None:
    vectors = np.random.default_rng(0).standard_normal((50, 16)).astype(np.float32)
    steps = moved(vectors, seed=1) - vectors
    assert np.allclose(np.linalg.norm(steps, axis=1), MOVED * np.linalg.norm(vectors, axis=1), rtol=1e-4)
    assert not np.array_equal(moved(vectors, seed=1), moved(vectors, seed=2))
