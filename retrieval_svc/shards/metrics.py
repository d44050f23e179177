"""Vectors as they are compared, and back as they were given."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from retrieval_svc.values import Matrix, Metric

Lengths = NDArray[np.float32]
"""For each row the length of its vector as it was given."""

_UNIT_TOLERANCE: Final = 5e-7
"""A vector whose length is 1 within float32's rounding stays as it is, to the bit."""


def prepared(vectors: Matrix, metric: Metric) -> tuple[Matrix, Lengths | None]:
    """The vectors to compare, C-contiguous. For cosine they are brought to length 1, and their lengths come along.

    In double precision, in which no float32 vector's length under- or overflows.
    """
    if metric is not Metric.COSINE:
        return np.ascontiguousarray(vectors, dtype=np.float32), None
    wide = vectors.astype(np.float64)
    lengths = np.sqrt(np.einsum("ij,ij->i", wide, wide))
    lengths[np.abs(lengths - 1.0) < _UNIT_TOLERANCE] = 1.0
    if (lengths == 1.0).all():
        return np.ascontiguousarray(vectors, dtype=np.float32), lengths.astype(np.float32)
    wide /= np.where(lengths == 0.0, 1.0, lengths)[:, None]
    return wide.astype(np.float32), lengths.astype(np.float32)


def as_given(vectors: Matrix, lengths: Lengths | None) -> Matrix:
    """The vectors as they came; under cosine those that were not of length 1 up to rounding in the last place."""
    if lengths is None:
        return vectors
    return (vectors.astype(np.float64) * lengths[:, None]).astype(np.float32)
