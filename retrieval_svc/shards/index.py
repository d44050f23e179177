"""FAISS. The only module that imports it."""

import faiss
import numpy as np

from retrieval_svc.shards.indexing import BuildIndex
from retrieval_svc.values import Matrix, Metric, Neighbours, Sequences


class FlatIndex:
    """Exact search: every query is compared with every vector.

    Cosine is the inner product of vectors brought to length 1, which happens here, on the way in; the record keeps vectors as
    they came. The vectors stand in the order of their ids, since ids ascend and removal keeps the order.
    """

    def __init__(self, dimension: int, metric: Metric) -> None:
        self._metric = metric
        # IndexIDMap, not IDMap2: nothing reads a vector back, and its reverse map would be rebuilt at every removal.
        self._index = faiss.IndexIDMap(faiss.IndexFlatIP(dimension))

    def add(self, sequences: Sequences, vectors: Matrix) -> None:
        """Takes in vectors."""
        self._index.add_with_ids(self._prepared(vectors), sequences)

    def remove(self, sequences: Sequences) -> None:
        """Forgets vectors."""
        self._index.remove_ids(faiss.IDSelectorBatch(sequences))

    def search(self, queries: Matrix, top_k: int) -> list[Neighbours]:
        """The nearest, without the -1 rows with which FAISS fills up."""
        count = min(top_k, len(self))
        if count == 0:
            nothing = Neighbours(scores=np.empty(0, np.float32), sequences=np.empty(0, np.int64))
            return [nothing] * len(queries)
        scores, sequences = self._index.search(self._prepared(queries), count)
        if self._metric is Metric.COSINE:
            np.clip(scores, -1.0, 1.0, out=scores)  # Rounding takes it a hair beyond.
        # FAISS breaks ties by no rule that it promises.
        order = np.lexsort((sequences, -scores), axis=-1)
        scores, sequences = np.take_along_axis(scores, order, 1), np.take_along_axis(sequences, order, 1)
        return [Neighbours(scores=scores[at], sequences=sequences[at]) for at in range(len(queries))]

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def _prepared(self, vectors: Matrix) -> Matrix:
        if self._metric is Metric.COSINE:
            # In double precision, in which no float32 vector's length under- or overflows.
            wide = vectors.astype(np.float64)
            vectors = (wide / np.sqrt(np.einsum("ij,ij->i", wide, wide))[:, None]).astype(np.float32)
        return np.ascontiguousarray(vectors, dtype=np.float32)


def flat_index_builder(threads: int) -> BuildIndex:
    """Builds FlatIndexes whose calls use `threads` threads."""

    def build(dimension: int, metric: Metric) -> FlatIndex:
        # OpenMP's number of threads belongs to the thread that calls, which is the one that builds.
        faiss.omp_set_num_threads(threads)
        return FlatIndex(dimension, metric)

    return build
