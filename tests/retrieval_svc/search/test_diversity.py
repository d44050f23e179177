"""Maximal marginal relevance against the formula written out."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_svc.search.diversity import most_marginally_relevant, similarity_in
from retrieval_svc.values import Matrix, Metric
from tests.retrieval_svc.search.fakes import nearness


def reference(relevance: list[float], similarity: list[list[float]], weight: float, count: int) -> list[int]:
    chosen: list[int] = []
    while len(chosen) < min(count, len(relevance)):
        left = [place for place in range(len(relevance)) if place not in chosen]
        if not chosen:
            chosen.append(max(left, key=lambda place: relevance[place]))
            continue
        gains = {
            place: weight * relevance[place] - (1 - weight) * max(similarity[place][other] for other in chosen)
            for place in left
        }
        chosen.append(max(left, key=lambda place: gains[place]))
    return chosen


def vectors_of(seed: int, count: int) -> Matrix:
    return np.random.default_rng(seed).standard_normal((count, 8)).astype(np.float32)


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**31),
    size=st.integers(1, 25),
    count=st.integers(1, 30),
    weight=st.floats(0, 1),
    metric=st.sampled_from(Metric),
)
def test_the_choice_is_that_of_the_formula(seed: int, size: int, count: int, weight: float, metric: Metric) -> None:
    vectors, query = vectors_of(seed, size), vectors_of(seed + 1, 1)[0]
    relevance = [nearness(metric, query, vector) for vector in vectors]
    similarity = [[nearness(metric, one, other) for other in vectors] for one in vectors]
    chosen = most_marginally_relevant(np.array(relevance), similarity_in(metric, vectors), weight, count)
    assert chosen.tolist() == reference(relevance, similarity, weight, count)


@pytest.mark.parametrize("metric", Metric)
def test_similarity_is_the_metrics_own(metric: Metric) -> None:
    vectors = vectors_of(3, 6)
    similarity = similarity_in(metric, vectors)
    for at in range(6):
        assert similarity(at).tolist() == pytest.approx([nearness(metric, vectors[at], other) for other in vectors])


def test_only_relevance_leaves_the_order_and_only_newness_avoids_the_copy() -> None:
    vectors = np.array([[1, 0], [1, 0], [0, 1]], dtype=np.float32)
    relevance = np.array([0.9, 0.89, 0.1])
    cosine = similarity_in(Metric.COSINE, vectors)
    assert most_marginally_relevant(relevance, cosine, 1.0, 3).tolist() == [0, 1, 2]
    assert most_marginally_relevant(relevance, cosine, 0.0, 3).tolist() == [0, 2, 1]


def test_of_nothing_nothing_is_chosen() -> None:
    assert most_marginally_relevant(np.empty(0), similarity_in(Metric.L2, np.empty((0, 3), np.float32)), 0.5, 3).tolist() == []


def test_a_zero_vector_is_like_no_other() -> None:
    vectors = np.array([[0, 0], [1, 0]], dtype=np.float32)
    assert similarity_in(Metric.COSINE, vectors)(0).tolist() == [0.0, 0.0]
