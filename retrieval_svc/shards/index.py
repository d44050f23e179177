"""FAISS. The only module that imports it.

Every segment keeps its vectors in one file, a flat index of FAISS's, and what speeds its search up in another beside it: the
graph of an HNSW index without its storage, or an inverted file. The graph searches in the mapped flat file, so vectors are
stored once, and are there for exact scans and for re-scoring. Files are opened by IO_FLAG_MMAP_IFC: nothing is read before it
is needed, and processes share the pages.

Scores are higher for nearer in every metric: L2 is minus the squared distance. Rows are numbered from 0.

Threads: searches of one index may run at the same time on several threads, as long as nothing is added to it; FAISS crashes
otherwise. Parameters of a search go with the call and never into the index. OpenMP's number of threads belongs to the thread
that calls (`use_threads`).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, Self

import faiss as untyped_faiss
import numpy as np

from retrieval_svc.shards.exact import BLOCK_ROWS, Best, Rows, Scores, best_by_product, merged, ordered
from retrieval_svc.shards.kinds import lists_for, pq_bytes_for
from retrieval_svc.shards.large_pages import ask_for_large_pages
from retrieval_svc.shards.selection import Selection
from retrieval_svc.values import IndexConfig, IndexKind, Matrix, Metric, Vector

faiss: Any = untyped_faiss  # Its own types leave out most of what is used here.

PRODUCT_QUERIES_MIN: Final = 4
"""From so many queries on a matrix product is faster than FAISS's scan (8,000 x 384, 32 queries: 2.7 against 5.5 ms)."""
EXACT_SHARE_MAX: Final = 0.3
"""When fewer rows are selected, they are scanned: a graph's recall falls with the share (10 %: 0.77, 1 %: 0.28)."""
EFFORT_MAX: Final = 10_000
"""Candidates of a graph, beyond which a scan is cheaper."""
TRAINING_ROWS_PER_LIST: Final = 64
TRAINING_ROWS_MIN: Final = 40_000
"""What the codebooks of product quantisation, of 256 entries each, are trained with at least."""
RESCORED_MIN: Final = 100

_L2_QUERIES_MAX: Final = 16
"""From 20 queries on FAISS takes |x|^2 - 2xy + |y|^2, which of large vectors leaves rounding errors instead of distances."""
_COUNT_AT: Final = 8
"""Place of the number of rows in the file of a flat index."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How hard an approximate search tries: candidates of a graph, lists of an inverted file, candidates a hit to re-score."""

    ef_search: int
    nprobe: int
    rescore_factor: int
    exact: bool = False


def use_threads(count: int) -> None:
    """OpenMP's number of threads for FAISS's work of the calling thread."""
    faiss.omp_set_num_threads(count)


class FlatVectors:
    """Vectors, and exact search over them: in memory and growing, or in a mapped file."""

    def __init__(self, index: Any, path: Path | None = None) -> None:
        self._index = index
        self._path = path
        self._by_product = index.metric_type == faiss.METRIC_INNER_PRODUCT

    @classmethod
    def empty(cls, dimension: int, metric: Metric) -> Self:
        """None yet, in memory."""
        return cls(faiss.IndexFlat(dimension, _faiss_metric(metric)))

    @classmethod
    def open(cls, path: Path) -> Self:
        """What a VectorWriter wrote, mapped."""
        return cls(_read(path, faiss.IO_FLAG_MMAP_IFC), path)

    @property
    def index(self) -> Any:
        """The index of FAISS's."""
        return self._index

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def add(self, vectors: Matrix) -> None:
        """Takes in prepared vectors; they get the next row numbers."""
        self._index.add(vectors)

    def view(self) -> Matrix:
        """All vectors, not copied. Valid until the next `add`, and as long as this object lives."""
        components: Matrix = faiss.rev_swig_ptr(self._index.get_xb(), len(self) * self._index.d)
        return components.reshape(len(self), self._index.d)

    def read(self, start: int, stop: int) -> Matrix:
        """A copy of a range of rows. Of a file it is read and not mapped: pages that a pass touches once are not held on to."""
        if self._path is None:
            return self.view()[start:stop].copy()
        dimension, count = self._index.d, min(stop, len(self)) - start
        offset = len(_header(dimension, self._index.metric_type)) + 4 * dimension * start
        return np.fromfile(self._path, np.float32, count * dimension, offset=offset).reshape(count, dimension)

    def search(self, queries: Matrix, k: int, rows: Rows | None = None) -> Best:
        """The best k, or all there are, among `rows` (ascending) where given."""
        k = min(k, len(self) if rows is None else len(rows))
        if k == 0:
            return _nothing(len(queries))
        if self._by_product and len(queries) >= PRODUCT_QUERIES_MIN:
            return best_by_product(self.view(), queries, k, rows)
        count = len(self) if rows is None else len(rows)
        scores, found = self._compared(queries, min(k + 1, count), rows)
        if count > k:
            # Of rows that tie for the last place FAISS keeps any, so those queries are done once more.
            for at in np.flatnonzero(scores[:, k - 1] == scores[:, k]).tolist():
                scores[at, :k], found[at, :k] = self._in_order(queries[at], k, np.arange(count) if rows is None else rows)
        return ordered(scores[:, :k], found[:, :k])

    def _compared(self, queries: Matrix, k: int, rows: Rows | None) -> Best:
        parameters = None if rows is None else faiss.SearchParameters(sel=faiss.IDSelectorArray(rows))
        step = len(queries) if self._by_product else _L2_QUERIES_MAX
        parts = [self._index.search(queries[at : at + step], k, params=parameters) for at in range(0, len(queries), step)]
        scores, found = (np.concatenate(part) if len(parts) > 1 else part[0] for part in zip(*parts, strict=True))
        return scores if self._by_product else -scores, found

    def _in_order(self, query: Vector, k: int, rows: Rows) -> tuple[Scores, Rows]:
        scores = np.concatenate([self.scores(query, rows[at : at + BLOCK_ROWS]) for at in range(0, len(rows), BLOCK_ROWS)])
        first = np.argsort(-scores, kind="stable")[:k]
        return scores[first], rows[first]

    def scores(self, query: Vector, rows: Rows) -> Scores:
        """Exact scores of some rows for one query."""
        candidates = self.view()[rows]
        if not self._by_product:
            candidates -= query
            query = -candidates
        products: Scores = np.einsum("ij,ij->i" if query.ndim > 1 else "ij,j->i", candidates, query)
        return products


class VectorWriter:
    """Writes the file of a flat index block by block, so that it need not fit in memory."""

    def __init__(self, file: BinaryIO, dimension: int, metric: Metric) -> None:
        self._file = file
        self._dimension = dimension
        self._rows = 0
        self._header = _header(dimension, _faiss_metric(metric))
        file.write(self._header.data)

    def add(self, vectors: Matrix) -> None:
        """Appends prepared vectors."""
        self._file.write(np.ascontiguousarray(vectors, dtype=np.float32).data)
        self._rows += len(vectors)

    def finish(self) -> None:
        """Sets the counts, which stand before the vectors: rows, and components at the header's end."""
        self._header[_COUNT_AT : _COUNT_AT + 8] = _int64_bytes(self._rows)
        self._header[-8:] = _int64_bytes(self._rows * self._dimension)
        self._file.seek(0)
        self._file.write(self._header.data)


class AnnIndex:
    """A graph or an inverted file over the vectors of one segment."""

    def __init__(self, index: Any, vectors: FlatVectors, kind: IndexKind) -> None:
        self._index = index
        self._vectors = vectors
        self._kind = kind

    @classmethod
    def open(cls, path: Path, vectors: FlatVectors, kind: IndexKind) -> Self:
        """An index that was built over these vectors, mapped."""
        if kind is not IndexKind.HNSW:
            return cls(_read(path, faiss.IO_FLAG_MMAP_IFC), vectors, kind)
        index = _read(path, faiss.IO_FLAG_MMAP_IFC | faiss.IO_FLAG_SKIP_STORAGE)
        index.own_fields = False
        index.storage = vectors.index
        vectors.index.this.acquire()  # SWIG takes it for given away, and would never unmap its file.
        return cls(index, vectors, kind)

    def search(self, queries: Matrix, k: int, effort: Effort, selection: Selection | None = None) -> Best:
        """The best k among the selected rows, or all of them where they are fewer.

        A search that the index would do badly is done exactly: few selected rows, or nearly all of them wanted. So is one that
        the index left short of k, as a graph may when the selected rows lie far from the query.
        """
        total = len(self._vectors)
        selected = total if selection is None else selection.count
        k = min(k, selected)
        share = selected / total
        wanted = max(effort.ef_search, k) / share if share else 0.0
        if k == 0:
            return _nothing(len(queries))
        if effort.exact or share < EXACT_SHARE_MAX or k > EXACT_SHARE_MAX * selected or wanted > EFFORT_MAX:
            return self._vectors.search(queries, k, None if selection is None else selection.rows)
        scores, rows = self._approximate(queries, k, effort, share, selection)
        short = np.flatnonzero(rows[:, -1] < 0)
        if len(short):
            exact = self._vectors.search(queries[short], k, None if selection is None else selection.rows)
            scores[short], rows[short] = exact
        return scores, rows

    def _approximate(self, queries: Matrix, k: int, effort: Effort, share: float, selection: Selection | None) -> Best:
        selector = None if selection is None else _selector(selection)
        if self._kind is IndexKind.HNSW:
            ef = round(max(effort.ef_search, k) / share)
            parameters = faiss.SearchParametersHNSW(efSearch=ef, sel=selector)
            return self._ordered(*self._index.search(queries, k, params=parameters))
        nprobe = min(round(effort.nprobe / share), self._index.nlist)
        parameters = faiss.SearchParametersIVF(nprobe=nprobe, sel=selector)
        fetched = min(len(self._vectors), max(k * effort.rescore_factor, RESCORED_MIN))
        _, candidates = self._index.search(queries, fetched, params=parameters)
        return self._rescored(queries, candidates, k)

    def _ordered(self, scores: Scores, rows: Rows) -> Best:
        return ordered(scores if self._index.metric_type == faiss.METRIC_INNER_PRODUCT else -scores, rows)

    def _rescored(self, queries: Matrix, candidates: Rows, k: int) -> Best:
        scores = np.full(candidates.shape, -np.inf, np.float32)
        for query, found, into in zip(queries, candidates, scores, strict=True):
            there = found >= 0
            into[there] = self._vectors.scores(query, found[there])
        return merged(scores, candidates, k)


def build(kind: IndexKind, vectors: FlatVectors, config: IndexConfig, path: Path, *, base: Path | None = None) -> None:
    """Builds an index over vectors and saves it. `base`: an HNSW graph over the first of them, which is added to.

    HNSW holds the vectors and the graph in memory, 1.2 times the vectors; an inverted file its codes and a sample.
    """
    if kind is IndexKind.HNSW:
        faiss.write_index(_hnsw(vectors, config, base), str(path), faiss.IO_FLAG_SKIP_STORAGE)
    else:
        faiss.write_index(_inverted_file(kind, vectors, config), str(path))


def _hnsw(vectors: FlatVectors, config: IndexConfig, base: Path | None) -> Any:
    index, storage = _empty_graph(vectors, config) if base is None else _read_graph(base, vectors)
    for start in range(storage.ntotal, index.ntotal, BLOCK_ROWS):
        storage.add(vectors.read(start, min(start + BLOCK_ROWS, index.ntotal)))
    for start in range(index.ntotal, len(vectors), BLOCK_ROWS):
        index.add(vectors.read(start, start + BLOCK_ROWS))
    return index


def _empty_graph(vectors: FlatVectors, config: IndexConfig) -> tuple[Any, Any]:
    index = faiss.IndexHNSWFlat(vectors.index.d, config.hnsw_m, vectors.index.metric_type)
    index.hnsw.efConstruction = config.hnsw_ef_construction
    _reserve(index.hnsw.neighbors, len(vectors) * (2 * config.hnsw_m + 2))
    storage = faiss.downcast_index(index.storage)
    _reserve(storage.codes, len(vectors) * storage.code_size)
    return index, storage


def _read_graph(path: Path, vectors: FlatVectors) -> tuple[Any, Any]:
    index = _read(path, faiss.IO_FLAG_SKIP_STORAGE)
    storage = faiss.IndexFlat(vectors.index.d, vectors.index.metric_type)
    _reserve(storage.codes, len(vectors) * storage.code_size)
    storage.this.disown()
    index.storage = storage
    index.own_fields = True
    return index, storage


def _reserve(buffer: Any, size: int) -> None:
    """Growing in steps would double the buffer, and hold the old and the new one at the same time."""
    buffer.resize(size)
    buffer.resize(0)


def _inverted_file(kind: IndexKind, vectors: FlatVectors, config: IndexConfig) -> Any:
    dimension, metric = vectors.index.d, vectors.index.metric_type
    lists = lists_for(config, len(vectors))
    quantizer = faiss.IndexFlat(dimension, metric)
    if kind is IndexKind.IVF_PQ:
        index = faiss.IndexIVFPQ(quantizer, dimension, lists, pq_bytes_for(config, dimension), 8, metric)
    else:
        index = faiss.IndexIVFScalarQuantizer(quantizer, dimension, lists, faiss.ScalarQuantizer.QT_8bit, metric)
    index.cp.spherical = metric == faiss.METRIC_INNER_PRODUCT  # As FAISS's own factory has it.
    index.train(_sample(vectors, max(lists * TRAINING_ROWS_PER_LIST, TRAINING_ROWS_MIN)))
    for start in range(0, len(vectors), BLOCK_ROWS):
        index.add(vectors.read(start, start + BLOCK_ROWS))
    return index


def _sample(vectors: FlatVectors, wanted: int) -> Matrix:
    """Evenly spread rows: the same at every build."""
    rows = np.linspace(0, len(vectors) - 1, min(len(vectors), wanted)).astype(np.int64)
    sample = np.empty((len(rows), vectors.index.d), np.float32)
    for start in range(0, len(vectors), BLOCK_ROWS):
        first, last = np.searchsorted(rows, [start, start + BLOCK_ROWS])
        sample[first:last] = vectors.read(start, start + BLOCK_ROWS)[rows[first:last] - start]
    return sample


def _header(dimension: int, metric: int) -> Any:
    """What stands before the vectors in the file of a flat index, counts of an empty one in it."""
    return faiss.serialize_index(faiss.IndexFlat(dimension, metric))


def _selector(selection: Selection) -> Any:
    if selection.native is None:
        selection.native = faiss.IDSelectorBitmap(selection.bits)
    return selection.native


def _read(path: Path, flags: int) -> Any:
    index = faiss.read_index(str(path), flags)
    if flags & faiss.IO_FLAG_MMAP_IFC:
        ask_for_large_pages(path)
    return index


def _faiss_metric(metric: Metric) -> int:
    return int(faiss.METRIC_L2 if metric is Metric.L2 else faiss.METRIC_INNER_PRODUCT)


def _int64_bytes(number: int) -> Any:
    return np.frombuffer(np.int64(number).tobytes(), np.uint8)


def _nothing(query_count: int) -> Best:
    return np.empty((query_count, 0), np.float32), np.empty((query_count, 0), np.int64)
