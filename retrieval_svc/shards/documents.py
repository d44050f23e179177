"""Which rows of a segment are of a document.

    documents.u64        the hashes of the ids of the rows' documents, ascending
    document_rows.i32    the row of each

12 bytes a row whatever the ids are, and a document is found by bisection. Nobody meets two ids of one hash (2^-64 for a pair)
but who looks for them; whoever asks for a document sees in its chunks whether they are.
"""

from collections.abc import Iterable
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from retrieval_svc.shards.exact import Rows
from retrieval_svc.shards.payloads import mapped

HASHES: Final = "documents.u64"
ROWS: Final = "document_rows.i32"

Hashes = NDArray[np.uint64]
"""One hash a row."""


class Documents:
    """The rows of a segment by their documents, in memory or mapped. A row without one is of the document with an empty id."""

    def __init__(self, hashes: Hashes, rows: NDArray[np.int32]) -> None:
        self._hashes = hashes
        self._rows = rows

    @classmethod
    def of(cls, by_row: Hashes) -> Self:
        """Of rows that have these hashes, in their order."""
        rows = np.argsort(by_row, kind="stable").astype(np.int32)
        return cls(by_row[rows], rows)

    @classmethod
    def open(cls, folder: Path) -> Self | None:
        """What was saved, mapped; None in a folder from before there was such a thing."""
        if not (folder / HASHES).exists():
            return None
        return cls(mapped(folder / HASHES, np.uint64), mapped(folder / ROWS, np.int32))

    def save(self, folder: Path) -> None:
        """Writes two files into an existing folder."""
        self._hashes.tofile(folder / HASHES)
        self._rows.tofile(folder / ROWS)

    def rows_of(self, document_id: str) -> Rows:
        """The rows of a document, ascending."""
        wanted = np.uint64(_hash(document_id))
        first, end = np.searchsorted(self._hashes, wanted), np.searchsorted(self._hashes, wanted, side="right")
        return self._rows[first:end].astype(np.int64)

    def by_row(self) -> Hashes:
        """The hashes in the order of rows."""
        hashes = np.empty_like(self._hashes)
        hashes[self._rows] = self._hashes
        return hashes


def hashes_of(document_ids: Iterable[str]) -> Hashes:
    """The hashes of the documents of rows."""
    return np.fromiter(map(_hash, document_ids), np.uint64)


@lru_cache(maxsize=1024)  # A document's chunks come one after another.
def _hash(document_id: str) -> int:
    return int.from_bytes(blake2b(document_id.encode(), digest_size=8).digest(), "little")
