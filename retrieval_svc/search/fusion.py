"""One ranking of two: by reciprocal ranks, or by a convex combination of normalised scores.

Reciprocal rank fusion: Cormack, Clarke, Buettcher, "Reciprocal Rank Fusion outperforms Condorcet and individual Rank Learning
Methods" (SIGIR 2009), here with a weight for each side. Convex combination: Bruch, Gai, Ingber, "An Analysis of Fusion
Functions for Hybrid Retrieval" (ACM TOIS 2023), with min-max normalisation over the candidates of each side.

What the papers leave open: a row that one side has not found gets nothing from that side: no reciprocal rank, and the side's
minimum, which is 0 after normalisation. Where all candidates of a side have one score, or there is only one, there is nothing
to normalise by; having been found at all then counts as 1. A side that found nothing leaves the order to the other. Equal
scores stay in the order dense before lexical, each side in its own.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from retrieval_svc.search.calls import Fusion, FusionMethod, SearchCall, SearchMode
from retrieval_svc.search.candidates import Candidates, Places, Scores, dense_candidates, lexical_candidates, unknown
from retrieval_svc.search.gathering import NO_ROWS, Gathered


def one_ranking(call: SearchCall, gathered: Gathered) -> Candidates:
    """One ranking of what the sides found, as the search's mode has it."""
    dense, lexical = gathered.dense or NO_ROWS, gathered.lexical or NO_ROWS
    match call.mode:
        case SearchMode.DENSE:
            return dense_candidates(dense)
        case SearchMode.LEXICAL:
            return lexical_candidates(lexical)
        case SearchMode.HYBRID:
            return fused(dense_candidates(dense), lexical_candidates(lexical), call.fusion or Fusion())


def fused(dense: Candidates, lexical: Candidates, fusion: Fusion) -> Candidates:
    """The rows of both sides, each once, best first."""
    union = _union(dense, lexical)
    weights = (fusion.dense_weight, 1.0 - fusion.dense_weight)
    sides = (union.dense_scores, union.lexical_scores)
    if fusion.method is FusionMethod.RECIPROCAL_RANK:
        # Each side's rows come in its own order here, so the ranks can be counted off.
        parts = [
            weight * reciprocal_ranks(ranks, fusion.rrf_k)
            for weight, ranks in zip(weights, _ranks(union, lexical), strict=True)
        ]
    else:
        parts = [weight * np.nan_to_num(min_max(scores), nan=0.0) for weight, scores in zip(weights, sides, strict=True)]
    return union.scored(parts[0] + parts[1])


def beyond(candidates: Candidates, found: Candidates) -> Candidates:
    """What was found, by a later look, beyond the candidates that fused scores are over.

    Neither side has it among those, so it has nothing of either: it stands behind them with 0, in the order of its own fusion.
    """
    rest = found.without(candidates)
    return replace(rest, scores=np.zeros(len(rest)))


def reciprocal_ranks(ranks: Scores, k: int) -> Scores:
    """1 / (k + rank), ranks from 1; 0 for a row without a rank, whose rank is infinite."""
    return 1.0 / (k + ranks)


def min_max(scores: Scores) -> Scores:
    """Scores brought to [0, 1]; all 1 where they are all equal. NaN, a score that is not there, stays NaN."""
    there: Scores = scores[~np.isnan(scores)]
    if not len(there):
        return scores
    low, high = there.min(), there.max()
    if low == high:
        return np.where(np.isnan(scores), np.nan, 1.0)
    normalised: Scores = (scores - low) / (high - low)
    return normalised


def _union(dense: Candidates, lexical: Candidates) -> Candidates:
    """The dense side's rows, then those that only the lexical side has."""
    in_lexical = _places(dense.keys, lexical.keys)
    both = in_lexical >= 0
    lexical_of_dense = unknown(len(dense))
    lexical_of_dense[both] = lexical.scores[in_lexical[both]]
    alone = np.ones(len(lexical), dtype=bool)
    alone[in_lexical[both]] = False
    rest = lexical.take(np.flatnonzero(alone))
    return replace(
        dense,
        scores=np.concatenate([dense.scores, rest.scores]),
        shards=np.concatenate([dense.shards, rest.shards]),
        sequences=np.concatenate([dense.sequences, rest.sequences]),
        dense_scores=np.concatenate([dense.scores, unknown(len(rest))]),
        lexical_scores=np.concatenate([lexical_of_dense, rest.scores]),
        chunks=np.concatenate([dense.chunks, rest.chunks]),
    )


def _ranks(union: Candidates, lexical: Candidates) -> tuple[Scores, Scores]:
    """Each row's rank on each side, infinite where the side has not found it."""
    dense_count = int(np.count_nonzero(~np.isnan(union.dense_scores)))
    dense = np.full(len(union), np.inf)
    dense[:dense_count] = np.arange(1, dense_count + 1)
    places = _places(union.keys, lexical.keys)
    return dense, np.where(places >= 0, places + 1.0, np.inf)


def _places(keys: NDArray[np.int64], among: NDArray[np.int64]) -> Places:
    """For each key its place among others; -1: it is not there."""
    if not len(among):
        return np.full(len(keys), -1, dtype=np.intp)
    order = np.argsort(among)
    at = order[np.minimum(np.searchsorted(among, keys, sorter=order), len(among) - 1)]
    return np.where(among[at] == keys, at, -1)
