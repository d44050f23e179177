"""Fusion against the formulas written out row by row."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval_svc.search.calls import Fusion, FusionMethod
from retrieval_svc.search.candidates import Candidates, dense_candidates, lexical_candidates
from retrieval_svc.search.fusion import fused, min_max
from retrieval_svc.search.gathering import GatheredRows

Side = dict[tuple[int, int], float]
"""(shard, sequence) to score, best first."""

ROWS = st.tuples(st.integers(0, 1023), st.integers(0, 2**40))
SCORES = st.floats(-100, 100, width=32)
METHODS = st.sampled_from(FusionMethod)


def sides(scores: dict[tuple[int, int], float]) -> Side:
    return dict(sorted(scores.items(), key=lambda item: -item[1]))


SIDES = st.dictionaries(ROWS, SCORES, max_size=12).map(sides)


def rows(side: Side) -> GatheredRows:
    return GatheredRows(
        scores=np.array(list(side.values()), dtype=np.float32),
        shards=np.array([shard for shard, _ in side], dtype=np.int32),
        sequences=np.array([sequence for _, sequence in side], dtype=np.int64),
    )


def fuse(dense: Side, lexical: Side, fusion: Fusion) -> Candidates:
    return fused(dense_candidates(rows(dense)), lexical_candidates(rows(lexical)), fusion)


def scores_of(ranked: Candidates) -> dict[tuple[int, int], float]:
    keys = zip(ranked.shards.tolist(), ranked.sequences.tolist(), strict=True)
    return dict(zip(keys, ranked.scores.tolist(), strict=True))


def reference(dense: Side, lexical: Side, fusion: Fusion) -> dict[tuple[int, int], float]:
    def part(side: Side, key: tuple[int, int]) -> float:
        if key not in side:
            return 0.0
        if fusion.method is FusionMethod.RECIPROCAL_RANK:
            return 1 / (fusion.rrf_k + 1 + list(side).index(key))
        low, high = min(side.values()), max(side.values())
        return 1.0 if low == high else (side[key] - low) / (high - low)

    weight = fusion.dense_weight
    return {key: weight * part(dense, key) + (1 - weight) * part(lexical, key) for key in {**dense, **lexical}}


@given(dense=SIDES, lexical=SIDES, method=METHODS, weight=st.floats(0, 1), k=st.integers(1, 1000))
def test_scores_are_those_of_the_formula_and_the_best_comes_first(
    dense: Side, lexical: Side, method: FusionMethod, weight: float, k: int
) -> None:
    fusion = Fusion(method=method, dense_weight=weight, rrf_k=k)
    ranked = fuse(dense, lexical, fusion)
    assert scores_of(ranked) == pytest.approx(reference(dense, lexical, fusion), abs=1e-9)
    assert ranked.scores.tolist() == sorted(ranked.scores.tolist(), reverse=True)


@given(shared=SIDES, method=METHODS)
def test_each_side_keeps_its_own_scores_beside_the_fused_one(shared: Side, method: FusionMethod) -> None:
    half = dict(list(shared.items())[::2])
    ranked = fuse(shared, half, Fusion(method=method))
    for place, key in enumerate(zip(ranked.shards.tolist(), ranked.sequences.tolist(), strict=True)):
        assert ranked.dense_scores[place] == shared[key]
        assert np.isnan(ranked.lexical_scores[place]) if key not in half else ranked.lexical_scores[place] == half[key]


@pytest.mark.parametrize("method", FusionMethod)
def test_a_side_that_found_nothing_leaves_the_order_to_the_other(method: FusionMethod) -> None:
    found = sides({(0, number): float(number % 5) for number in range(10)})
    nothing: Side = {}
    assert list(scores_of(fuse(found, nothing, Fusion(method=method)))) == list(found)
    assert list(scores_of(fuse(nothing, found, Fusion(method=method)))) == list(found)
    assert len(fuse(nothing, nothing, Fusion(method=method))) == 0


def test_a_single_candidate_counts_as_fully_found() -> None:
    assert scores_of(fuse({(0, 1): -3.0}, {}, Fusion())) == {(0, 1): 0.5}
    assert scores_of(fuse({(0, 1): -3.0}, {(0, 1): 9.0}, Fusion())) == {(0, 1): 1.0}


def test_where_all_scores_of_a_side_are_equal_each_candidate_of_it_counts_as_fully_found() -> None:
    ranked = fuse({(0, 1): 0.7, (0, 2): 0.7}, {(0, 2): 5.0, (1, 2): 1.0}, Fusion(dense_weight=0.25))
    assert scores_of(ranked) == pytest.approx({(0, 2): 1.0, (0, 1): 0.25, (1, 2): 0.0})


def test_equal_scores_stay_in_the_order_dense_before_lexical() -> None:
    ranked = fuse({(0, 1): 2.0}, {(0, 2): 3.0}, Fusion())
    assert list(scores_of(ranked)) == [(0, 1), (0, 2)]


def test_the_same_number_on_another_shard_is_another_row() -> None:
    ranked = fuse({(0, 5): 2.0}, {(1, 5): 3.0}, Fusion())
    assert len(ranked) == 2


def test_reciprocal_ranks_are_cormacks_with_equal_weights() -> None:
    ranked = fuse({(0, 1): 9.0, (0, 2): 8.0}, {(0, 2): 7.0}, Fusion(method=FusionMethod.RECIPROCAL_RANK, rrf_k=60))
    assert list(scores_of(ranked)) == [(0, 2), (0, 1)]
    assert scores_of(ranked)[0, 2] == pytest.approx(0.5 * (1 / 62 + 1 / 61))


def test_normalised_scores_span_zero_to_one_and_what_is_missing_stays_missing() -> None:
    assert min_max(np.array([4.0, np.nan, 2.0, 3.0])).tolist() == pytest.approx([1.0, np.nan, 0.0, 0.5], nan_ok=True)
