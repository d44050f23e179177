"""How good rankings are: nDCG, recall and reciprocal rank at a depth, and how sure their means are.

A ranking is ids, best first, each once. Judgements are the graded relevances of what may be found for a query; what is not
judged has 0, and so does what is judged below it. The formulas are those of trec_eval, by which BEIR's figures are made
(https://github.com/usnistgov/trec_eval, m_ndcg_cut.c, m_recall.c, m_recip_rank.c).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

Judgements = Mapping[str, int]
"""Id to relevance."""
Measure = Callable[[Sequence[str], Judgements, int], float]

_RESAMPLES: Final = 2000


def ndcg(ranking: Sequence[str], judgements: Judgements, depth: int) -> float:
    """Normalised discounted cumulative gain of the first `depth`: sum of relevance / log2(rank + 1), over the greatest one.

    Jarvelin and Kekalainen, "Cumulated gain-based evaluation of IR techniques" (ACM TOIS 2002), with the relevance itself as
    gain, as trec_eval has it, and not 2^relevance - 1. 0 where nothing is relevant.
    """
    ideal = sorted((grade for grade in judgements.values() if grade > 0), reverse=True)
    best = _discounted(ideal[:depth])
    return _discounted([max(judgements.get(each, 0), 0) for each in ranking[:depth]]) / best if best else 0.0


def recall(ranking: Sequence[str], judgements: Judgements, depth: int) -> float:
    """The share of what is relevant that is among the first `depth`. 0 where nothing is relevant."""
    relevant = {each for each, grade in judgements.items() if grade > 0}
    return len(relevant.intersection(ranking[:depth])) / len(relevant) if relevant else 0.0


def reciprocal_rank(ranking: Sequence[str], judgements: Judgements, depth: int) -> float:
    """1 / the rank of the first that is relevant among the first `depth`; 0 where there is none. Its mean is the MRR."""
    for rank, each in enumerate(ranking[:depth], start=1):
        if judgements.get(each, 0) > 0:
            return 1.0 / rank
    return 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Mean:
    """The mean of a measure over queries, and the interval in which it lies with the confidence that was asked for."""

    value: float
    low: float
    high: float
    query_count: int


def mean_over_queries(
    measure: Measure, rankings: Mapping[str, Sequence[str]], judgements: Mapping[str, Judgements], depth: int, *, seed: int = 0
) -> Mean:
    """The mean of a measure over all queries for which something is relevant. A query without a ranking counts as 0."""
    judged = [query for query, grades in judgements.items() if any(grade > 0 for grade in grades.values())]
    return bootstrapped_mean([measure(rankings.get(query, ()), judgements[query], depth) for query in judged], seed=seed)


def bootstrapped_mean(values: Sequence[float], *, confidence: float = 0.95, seed: int = 0) -> Mean:
    """The mean and its percentile bootstrap interval: Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), 13.3.

    The same values and seed give the same interval. Raises ValueError where there is nothing to take the mean of.
    """
    if not values:
        message = "nothing is relevant to any query, so there is nothing to measure"
        raise ValueError(message)
    sample = np.asarray(values, dtype=np.float64)
    random = np.random.default_rng(seed)
    # A resample at a time: all at once would take memory of 2000 times the queries.
    means = [sample[random.integers(len(sample), size=len(sample))].mean() for _ in range(_RESAMPLES)]
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Mean(value=float(sample.mean()), low=float(low), high=float(high), query_count=len(sample))


def _discounted(gains: Sequence[int]) -> float:
    return sum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains, start=1))
