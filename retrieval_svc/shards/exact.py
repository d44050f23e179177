"""Exact search by matrix products, which beats comparing row by row as soon as a few queries go together."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from retrieval_svc.values import Matrix

Rows = NDArray[np.int64]
"""Numbers of rows within one segment or head, from 0."""
Scores = NDArray[np.float32]
Best = tuple[Scores, Rows]
"""For each query the best rows: scores and row numbers of shape (queries, k), best first, ties by row."""

BLOCK_ROWS: Final = 8192
"""Rows a product takes at a time: 12 MB of vectors at dimension 384, and little of scores."""

_COPIED_ROWS: Final = 4096
"""The same of vectors that have to be copied first: in fewer, larger copies the time went into pages of fresh memory."""


def best_by_product(vectors: Matrix, queries: Matrix, k: int, rows: Rows | None = None) -> Best:
    """The k rows of the greatest inner product, among `rows` (ascending) where given. There must be k at least."""
    count = len(vectors) if rows is None else len(rows)
    scores = np.empty((len(queries), 0), np.float32)
    places = np.empty((len(queries), 0), np.int64)
    step = BLOCK_ROWS if vectors.flags.aligned or rows is not None else _COPIED_ROWS
    for start in range(0, count, step):
        block = slice(start, start + step)
        numbers = np.arange(start, min(start + step, count)) if rows is None else rows[block]
        products = queries @ (_aligned(vectors[block]) if rows is None else vectors[numbers]).T
        part, at = _best(products, k)
        scores, places = merged(np.concatenate([scores, part], 1), np.concatenate([places, numbers[at]], 1), k)
    return scores, places


def _aligned(vectors: Matrix) -> Matrix:
    """The vectors where a product can take them: in a mapped file they begin at an odd address."""
    return vectors if vectors.flags.aligned else vectors.copy()


def merged(scores: Scores, rows: Rows, k: int) -> Best:
    """The first k of candidates in any order: higher scores first, then lower rows."""
    order = np.lexsort((rows, -scores), axis=-1)[:, :k]
    return np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)


def ordered(scores: Scores, rows: Rows) -> Best:
    """The same with ties by row. Most answers have no ties, and then nothing moves."""
    if scores.shape[1] < 2 or not (scores[:, 1:] >= scores[:, :-1]).any():
        return scores, rows
    return merged(scores, rows, scores.shape[1])


def _best(products: Scores, k: int) -> tuple[Scores, Rows]:
    """Candidates for the best k of each query: of those that tie at the end, the lower rows."""
    if products.shape[1] <= k:
        return products, np.broadcast_to(np.arange(products.shape[1]), products.shape)
    least = np.partition(products, products.shape[1] - k, axis=1)[:, -k]
    places = np.empty((len(products), k), np.int64)
    for query, (row, bound) in enumerate(zip(products, least, strict=True)):
        at = np.flatnonzero(row >= bound)
        if len(at) > k:
            at = np.sort(at[np.argsort(-row[at], kind="stable")[:k]])
        places[query] = at
    return np.take_along_axis(products, places, 1), places
