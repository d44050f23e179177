"""Maximal marginal relevance: Carbonell and Goldstein, "The Use of MMR, Diversity-Based Reranking" (SIGIR 1998).

The next hit is the candidate d with the greatest  w * relevance(d) - (1 - w) * max over the chosen c of similarity(d, c).
"""

from collections.abc import Callable

import numpy as np

from retrieval_svc.search.candidates import Places, Scores
from retrieval_svc.values import Matrix, Metric

Similarity = Callable[[int], Scores]
"""The similarity of every candidate to the one at a place."""


def most_marginally_relevant(relevance: Scores, similarity: Similarity, relevance_weight: float, count: int) -> Places:
    """The places of the candidates in the order of choice, `count` of them or as many as there are.

    The first is the most relevant one, whatever the weight: nothing is chosen yet that it could be like. Equals go by place.
    """
    count = min(count, len(relevance))
    chosen = np.empty(count, dtype=np.intp)
    gain = relevance_weight * relevance
    nearest = np.full(len(relevance), -np.inf)
    left = np.ones(len(relevance), dtype=bool)
    best = int(np.argmax(relevance)) if count else 0
    for turn in range(count):
        chosen[turn] = best
        left[best] = False
        np.maximum(nearest, similarity(best), out=nearest)
        best = int(np.argmax(np.where(left, gain - (1.0 - relevance_weight) * nearest, -np.inf)))
    return chosen


def similarity_in(metric: Metric, vectors: Matrix) -> Similarity:
    """How alike candidates are in a metric: the cosine, the inner product, or (L2) minus the squared distance.

    All three are what the metric also says of query and candidate, so relevance and similarity are of one kind. A vector of
    length 0 has cosine 0 with every other.
    """
    wide = vectors.astype(np.float64)
    squared = np.einsum("ij,ij->i", wide, wide)
    if metric is Metric.L2:
        return lambda at: 2.0 * (wide @ wide[at]) - squared - squared[at]
    if metric is Metric.COSINE:
        lengths = np.sqrt(squared)
        wide = wide / np.where(lengths > 0.0, lengths, 1.0)[:, None]
    return lambda at: np.asarray(wide @ wide[at])
