import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from retrieval_svc.shards.index import FlatIndex
from retrieval_svc.values import Metric

DIMENSION = 4
# Few values, so that there are ties and duplicates; never all zero, which cosine refuses at the door.
COMPONENTS = st.integers(-3, 3).map(float)
VECTORS = st.lists(COMPONENTS, min_size=DIMENSION, max_size=DIMENSION).filter(any)
METRICS = st.sampled_from(list(Metric))


def exact_scores(stored: np.ndarray, query: np.ndarray, metric: Metric) -> np.ndarray:
    scores = stored.astype(np.float64) @ query.astype(np.float64)
    if metric is Metric.COSINE:
        scores /= np.linalg.norm(stored, axis=1) * np.linalg.norm(query)
    return scores


@given(
    vectors=st.lists(VECTORS, min_size=1, max_size=40),
    queries=st.lists(VECTORS, min_size=1, max_size=30),
    top_k=st.integers(1, 50),
    metric=METRICS,
)
def test_search_agrees_with_numpy(vectors: list, queries: list, top_k: int, metric: Metric) -> None:
    index = FlatIndex(DIMENSION, metric)
    stored = np.array(vectors, dtype=np.float32)
    index.add(np.arange(100, 100 + len(stored), dtype=np.int64), stored)
    for query, found in zip(queries, index.search(np.array(queries, dtype=np.float32), top_k), strict=True):
        expected = exact_scores(stored, np.array(query), metric)
        count = min(top_k, len(stored))
        np.testing.assert_allclose(found.scores, np.sort(expected)[::-1][:count], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(expected[found.sequences - 100], found.scores, rtol=1e-5, atol=1e-5)
        assert len(set(found.sequences.tolist())) == count


def test_ties_go_to_the_lower_sequence_number() -> None:
    index = FlatIndex(2, Metric.INNER_PRODUCT)
    index.add(np.array([5, 6, 9], dtype=np.int64), np.array([[1, 0], [2, 0], [1, 0]], dtype=np.float32))
    [found] = index.search(np.array([[1, 0]], dtype=np.float32), 3)
    assert found.sequences.tolist() == [6, 5, 9]


def test_an_empty_index_finds_nothing() -> None:
    [found] = FlatIndex(2, Metric.COSINE).search(np.array([[1, 0]], dtype=np.float32), 10)
    assert len(found.sequences) == 0


def test_cosine_of_vectors_at_the_ends_of_float32_is_right() -> None:
    index = FlatIndex(2, Metric.COSINE)
    index.add(np.array([1, 2], dtype=np.int64), np.array([[1e-40, 0], [0, 1e17]], dtype=np.float32))
    [found] = index.search(np.array([[1e-30, 0]], dtype=np.float32), 2)
    np.testing.assert_allclose(found.scores, [1.0, 0.0], atol=1e-6)


class IndexAgainstDict(RuleBasedStateMachine):
    """Adds, replacements and removals in any order, against a dict of vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.index = FlatIndex(DIMENSION, Metric.INNER_PRODUCT)
        self.model: dict[int, list[float]] = {}
        self.last = 0

    @rule(vectors=st.lists(VECTORS, min_size=1, max_size=5), replaced=st.lists(st.integers(1, 40), max_size=5))
    def write(self, vectors: list[list[float]], replaced: list[int]) -> None:
        self.index.remove(np.array(sorted(set(replaced)), dtype=np.int64))
        for sequence in replaced:
            self.model.pop(sequence, None)
        sequences = np.arange(self.last + 1, self.last + 1 + len(vectors), dtype=np.int64)
        self.index.add(sequences, np.array(vectors, dtype=np.float32))
        self.model |= dict(zip(sequences.tolist(), vectors, strict=True))
        self.last += len(vectors)

    @rule(query=VECTORS, top_k=st.integers(1, 60))
    def search(self, query: list[float], top_k: int) -> None:
        [found] = self.index.search(np.array([query], dtype=np.float32), top_k)
        exact = {sequence: float(np.dot(vector, query)) for sequence, vector in self.model.items()}
        best = sorted(exact.values(), reverse=True)[:top_k]
        assert found.scores.tolist() == best
        assert [exact[sequence] for sequence in found.sequences.tolist()] == best

    @invariant()
    def holds_as_many(self) -> None:
        assert len(self.index) == len(self.model)


TestIndexAgainstDict = IndexAgainstDict.TestCase
TestIndexAgainstDict.settings = settings(max_examples=40, stateful_step_count=30)
