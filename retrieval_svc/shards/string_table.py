"""Many strings in two arrays, which can be memory-mapped: a list of a million Python strings would take ten times the room."""

import heapq
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Codes = NDArray[np.int32]
"""Places of strings in a table."""


class StringTable(Sequence[str]):
    """Distinct strings, ascending. String i is the UTF-8 in `blob` from `offsets[i]` to `offsets[i + 1]`.

    The order is that of code points, which UTF-8 keeps.
    """

    def __init__(self, blob: NDArray[np.uint8], offsets: NDArray[np.int64]) -> None:
        self._blob = blob
        self._offsets = offsets

    @classmethod
    def of(cls, ascending: Iterable[bytes]) -> "StringTable":
        """A table of strings in UTF-8 that come in order, one at a time."""
        blob = bytearray()
        offsets = array("q", [0])
        for text in ascending:
            blob += text
            offsets.append(len(blob))
        return cls(np.frombuffer(blob, np.uint8), np.frombuffer(offsets, np.int64))

    @classmethod
    def open(cls, folder: Path, name: str) -> "StringTable":
        """Maps a saved table into memory."""
        blob = np.load(folder / f"{name}.npy", mmap_mode="r")
        return cls(blob.view(np.ndarray), np.load(folder / f"{name}_offsets.npy", mmap_mode="r").view(np.ndarray))

    def save(self, folder: Path, name: str) -> None:
        """Writes the table as two files."""
        np.save(folder / f"{name}.npy", self._blob)
        np.save(folder / f"{name}_offsets.npy", self._offsets)

    def find(self, text: str) -> int | None:
        """The place of a string; None when it is not there."""
        at = bisect_left(self, text)
        return at if at < len(self) and self[at] == text else None

    def first_from(self, text: str, *, beyond_equal: bool = False) -> int:
        """The place of the first string that is not less, or is greater; the table's length when none is."""
        return bisect_right(self, text) if beyond_equal else bisect_left(self, text)

    def encoded(self, code: int) -> bytes:
        """A string's UTF-8."""
        return self._blob[self._offsets[code] : self._offsets[code + 1]].tobytes()

    def __getitem__(self, code: int) -> str:  # type: ignore[override]  # No slices.
        return self.encoded(code).decode()

    def __len__(self) -> int:
        return len(self._offsets) - 1


def merged_tables(parts: "Sequence[tuple[StringTable, NDArray[np.bool_]]]") -> tuple[StringTable, list[Codes]]:
    """One table of the strings that are used in each part, and for every part the new code of each of its strings.

    Strings pass one at a time. A string that is not used has -1.
    """
    renamed = [np.full(len(table), -1, np.int32) for table, _ in parts]

    def ascending() -> Iterator[bytes]:
        last, place = None, -1
        for text, part, code in heapq.merge(*(_entries(part, *those) for part, those in enumerate(parts))):
            if text != last:
                last, place = text, place + 1
                yield text
            renamed[part][code] = place

    return StringTable.of(ascending()), renamed


def _entries(part: int, table: StringTable, used: NDArray[np.bool_]) -> Iterator[tuple[bytes, int, int]]:
    for code in np.flatnonzero(used).tolist():
        yield table.encoded(code), part, code
