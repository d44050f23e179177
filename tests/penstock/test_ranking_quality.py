"""Measures against values worked out by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.ranking_quality import bootstrapped_mean, mean_over_queries, ndcg, recall, reciprocal_rank

GRADES = {"a": 3, "b": 2, "c": 1, "d": 0, "e": -1}


def test_ndcg_of_graded_judgements_is_the_sum_worked_out_by_hand() -> None:
    # Gains 0, 3, 1 at ranks 1, 2, 3 against 3, 2, 1.
    found = 3 / math.log2(3) + 1 / math.log2(4)
    best = 3 + 2 / math.log2(3) + 1 / math.log2(4)
    assert ndcg(["x", "a", "c"], GRADES, 10) == pytest.approx(found / best)
    assert ndcg(["x", "a", "c"], GRADES, 10) == pytest.approx(0.50250, abs=1e-5)


def test_ndcg_counts_only_to_its_depth_in_the_ranking_and_in_the_ideal() -> None:
    assert ndcg(["b", "a", "c"], GRADES, 1) == pytest.approx(2 / 3)
    assert ndcg(["x", "a"], GRADES, 1) == 0.0


def test_a_judgement_below_zero_counts_as_none() -> None:
    assert ndcg(["e", "a"], GRADES, 10) == ndcg(["x", "a"], GRADES, 10)


@given(st.dictionaries(st.text(min_size=1, max_size=3), st.integers(-1, 4), max_size=20), st.integers(1, 25))
def test_the_ideal_ranking_has_ndcg_one_and_no_other_has_more(grades: dict[str, int], depth: int) -> None:
    ideal = sorted(grades, key=lambda each: -grades[each])
    expected = 1.0 if any(grade > 0 for grade in grades.values()) else 0.0
    assert ndcg(ideal, grades, depth) == pytest.approx(expected)
    assert ndcg(ideal[::-1], grades, depth) <= ndcg(ideal, grades, depth) + 1e-12


def test_recall_is_the_share_of_the_relevant_that_was_found() -> None:
    assert recall(["a", "x", "c", "b"], GRADES, 3) == pytest.approx(2 / 3)
    assert recall(["d", "e"], GRADES, 10) == 0.0
    assert recall(["a"], {"a": 0}, 10) == 0.0


def test_the_reciprocal_rank_is_of_the_first_relevant_within_the_depth() -> None:
    assert reciprocal_rank(["x", "d", "c", "a"], GRADES, 10) == pytest.approx(1 / 3)
    assert reciprocal_rank(["x", "d", "c", "a"], GRADES, 2) == 0.0


def test_queries_without_a_ranking_count_as_zero_and_those_without_relevant_documents_not_at_all() -> None:
    judgements = {"q1": {"a": 1}, "q2": {"b": 1}, "q3": {"c": 0}}
    mean = mean_over_queries(recall, {"q1": ["a"], "q3": ["c"]}, judgements, 10)
    assert (mean.value, mean.query_count) == (0.5, 2)


def test_the_interval_is_that_of_the_normal_law_for_many_values_and_the_same_for_the_same_seed() -> None:
    values = np.random.default_rng(5).normal(0.6, 0.2, size=400).tolist()
    mean = bootstrapped_mean(values, seed=3)
    half = 1.96 * float(np.std(values)) / math.sqrt(400)
    assert (mean.low, mean.high) == pytest.approx((mean.value - half, mean.value + half), abs=half / 8)
    assert bootstrapped_mean(values, seed=3) == mean
    assert bootstrapped_mean(values, seed=4) != mean


def test_equal_values_leave_no_doubt() -> None:
    mean = bootstrapped_mean([0.25] * 7)
    assert (mean.value, mean.low, mean.high) == (0.25, 0.25, 0.25)


def test_a_wider_confidence_gives_a_wider_interval() -> None:
    values = [0.0, 1.0, 1.0, 0.5, 0.2]
    narrow, wide = bootstrapped_mean(values, confidence=0.5), bootstrapped_mean(values, confidence=0.99)
    assert wide.low < narrow.low < narrow.high < wide.high


def test_of_no_queries_there_is_no_mean() -> None:
    with pytest.raises(ValueError, match="nothing is relevant to any query"):
        bootstrapped_mean([])
