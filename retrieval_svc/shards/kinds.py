"""Which kind of index suits how many vectors, and with which parameters."""

import math
from typing import Final

from retrieval_svc.values import IndexConfig, IndexKind

FLAT_ROWS_MAX: Final = 20_000
"""`auto` stays flat below: comparing with all 20,000 vectors of 384 components takes about half a millisecond."""
HNSW_ROWS_MAX: Final = 2_000_000
"""`auto` takes HNSW up to here, which keeps the vectors in memory; above, IVF with SQ8 needs a quarter of that."""
IVF_ROWS_MIN: Final = 10_000
"""An inverted file is trained, and below this many vectors its codebooks would not be worth it: such a segment is flat."""

_POINTS_PER_LIST: Final = 39
"""FAISS's own least number of training vectors a centroid (ClusteringParameters.min_points_per_centroid)."""


def kind_for(config: IndexConfig, row_count: int) -> IndexKind:
    """The kind that a segment of so many rows is built as; never AUTO."""
    match config.kind:
        case IndexKind.AUTO if row_count < FLAT_ROWS_MAX:
            return IndexKind.FLAT
        case IndexKind.AUTO:
            return IndexKind.HNSW if row_count <= HNSW_ROWS_MAX else IndexKind.IVF_SQ8
        case IndexKind.IVF_SQ8 | IndexKind.IVF_PQ if row_count < IVF_ROWS_MIN:
            return IndexKind.FLAT
        case kind:
            return kind


def lists_for(config: IndexConfig, row_count: int) -> int:
    """Number of an inverted file's lists: as configured or 4 times the root, but no more than can be trained."""
    wanted = config.ivf_lists or round(4 * math.sqrt(row_count))
    return max(1, min(wanted, row_count // _POINTS_PER_LIST))


def pq_bytes_for(config: IndexConfig, dimension: int) -> int:
    """Bytes of a product-quantised vector: the greatest divisor of the dimension up to what is wanted, an eighth of it."""
    wanted = max(1, min(config.pq_bytes or dimension // 8, dimension))
    return next(count for count in range(wanted, 0, -1) if dimension % count == 0)
