from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_svc.shards.index import AnnIndex, Effort, FlatVectors, VectorWriter, build
from retrieval_svc.shards.kinds import FLAT_ROWS_MAX, HNSW_ROWS_MAX, IVF_ROWS_MIN, kind_for, lists_for, pq_bytes_for
from retrieval_svc.shards.metrics import as_given, prepared
from retrieval_svc.shards.selection import Selection
from retrieval_svc.values import IndexConfig, IndexKind, Metric
from tests.retrieval_svc.shards.rows import clustered, exact_scores, recall

DIMENSION = 4
# Few values, so that there are ties and duplicates; never all zero, which cosine refuses at the door.
COMPONENTS = st.integers(-3, 3).map(float)
VECTORS = st.lists(COMPONENTS, min_size=DIMENSION, max_size=DIMENSION).filter(any)
METRICS = st.sampled_from(list(Metric))
EFFORT = Effort(ef_search=64, nprobe=16, rescore_factor=10)


def flat(vectors: np.ndarray, metric: Metric) -> FlatVectors:
    index = FlatVectors.empty(vectors.shape[1], metric)
    index.add(prepared(vectors, metric)[0])
    return index


def write_vectors(path: Path, vectors: np.ndarray, metric: Metric) -> FlatVectors:
    with path.open("wb") as file:
        writer = VectorWriter(file, vectors.shape[1], metric)
        for block in np.array_split(prepared(vectors, metric)[0], 3):
            writer.add(block)
        writer.finish()
    return FlatVectors.open(path)


@given(
    vectors=st.lists(VECTORS, min_size=1, max_size=40),
    queries=st.lists(VECTORS, min_size=1, max_size=30),
    k=st.integers(1, 50),
    metric=METRICS,
    data=st.data(),
)
def test_exact_search_agrees_with_numpy_ties_by_row(
    vectors: list, queries: list, k: int, metric: Metric, data: st.DataObject
) -> None:
    rows = np.array(sorted(data.draw(st.sets(st.integers(0, len(vectors) - 1), min_size=1))))
    wanted = data.draw(st.sampled_from([None, rows]))
    index = flat(np.array(vectors, np.float32), metric)
    scores, found = index.search(prepared(np.array(queries, np.float32), metric)[0], k, wanted)
    among = np.arange(len(vectors)) if wanted is None else wanted
    assert found.shape == (len(queries), min(k, len(among)))
    for query, score, row in zip(queries, scores, found, strict=True):
        expected = exact_scores(np.array(vectors)[among], np.array(query), metric)
        np.testing.assert_allclose(score, np.sort(expected)[::-1][: len(score)], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(exact_scores(np.array(vectors)[row], np.array(query), metric), score, rtol=1e-5, atol=1e-5)
        assert set(row.tolist()) <= set(among.tolist())
        assert all(a < b for a, b, x, y in zip(row, row[1:], score, score[1:], strict=False) if x == y)
        assert len(set(row.tolist())) == len(row)


@pytest.mark.parametrize("query_count", [1, 5, 40])
def test_of_rows_that_tie_for_the_last_place_the_first_are_taken(query_count: int) -> None:
    index = flat(np.ones((20_000, 2), np.float32), Metric.INNER_PRODUCT)
    _, rows = index.search(np.ones((query_count, 2), np.float32), 3)
    assert rows.tolist() == [[0, 1, 2]] * query_count


def test_an_empty_index_finds_nothing() -> None:
    scores, rows = FlatVectors.empty(2, Metric.COSINE).search(np.array([[1, 0]], np.float32), 10)
    assert scores.shape == rows.shape == (1, 0)


def test_cosine_of_vectors_at_the_ends_of_float32_is_right() -> None:
    index = flat(np.array([[1e-40, 0], [0, 1e17]], np.float32), Metric.COSINE)
    scores, rows = index.search(prepared(np.array([[1e-30, 0]], np.float32), Metric.COSINE)[0], 2)
    assert rows.tolist() == [[0, 1]]
    np.testing.assert_allclose(scores, [[1.0, 0.0]], atol=1e-6)


def test_vectors_of_length_one_stay_as_they_are_and_others_come_back_up_to_rounding() -> None:
    vectors = clustered(200, 32)
    units = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    compared, lengths = prepared(units, Metric.COSINE)
    assert np.array_equal(as_given(compared, lengths), units)
    compared, lengths = prepared(vectors, Metric.COSINE)
    np.testing.assert_allclose(np.linalg.norm(compared, axis=1), 1.0, rtol=1e-6)
    np.testing.assert_allclose(as_given(compared, lengths), vectors, rtol=3e-7)


@pytest.mark.parametrize("query_count", [1, 40])
def test_a_long_vector_is_at_distance_zero_from_itself(query_count: int) -> None:
    vectors = np.full((100, 64), 1e6, np.float32) + np.arange(100, dtype=np.float32)[:, None]
    scores, rows = flat(vectors, Metric.L2).search(vectors[:query_count], 1)
    assert rows[:, 0].tolist() == list(range(query_count))
    assert scores[:, 0].tolist() == [0.0] * query_count


@pytest.mark.parametrize("metric", list(Metric))
def test_vectors_written_in_blocks_are_mapped_as_they_were(tmp_path: Path, metric: Metric) -> None:
    vectors = clustered(1000, 16)
    mapped = write_vectors(tmp_path / "vectors", vectors, metric)
    assert np.array_equal(mapped.view(), prepared(vectors, metric)[0])


@pytest.mark.parametrize("kind", [IndexKind.HNSW, IndexKind.IVF_SQ8, IndexKind.IVF_PQ])
@pytest.mark.parametrize("metric", list(Metric))
def test_every_index_finds_nearly_what_is_nearest_with_exact_scores(tmp_path: Path, kind: IndexKind, metric: Metric) -> None:
    vectors = clustered(12_000, 16)
    flat_vectors = write_vectors(tmp_path / "vectors", vectors, metric)
    build(kind, flat_vectors, IndexConfig(hnsw_m=16, pq_bytes=4), tmp_path / "index")
    index = AnnIndex.open(tmp_path / "index", flat_vectors, kind)
    queries = clustered(30, 16, seed=1) if metric is Metric.INNER_PRODUCT else vectors[:30] + 0.05
    # Where long vectors win, the best rows lie in more lists than the query's nearest.
    scores, rows = index.search(prepared(queries, metric)[0], 10, Effort(ef_search=64, nprobe=64, rescore_factor=10))
    expected = [exact_scores(vectors, query, metric) for query in queries]
    assert np.mean([recall(row.tolist(), exact, 10) for row, exact in zip(rows, expected, strict=True)]) > 0.95
    np.testing.assert_allclose(scores, [exact[row] for row, exact in zip(rows, expected, strict=True)], rtol=1e-4, atol=1e-4)
    assert (np.diff(scores, axis=1) <= 0).all()


@pytest.mark.parametrize("kind", [IndexKind.HNSW, IndexKind.IVF_SQ8])
@pytest.mark.parametrize("k", [1, 100, 11_999, 50_000])
def test_no_filler_row_comes_back_for_any_k(tmp_path: Path, kind: IndexKind, k: int) -> None:
    vectors = write_vectors(tmp_path / "vectors", clustered(12_000, 4), Metric.L2)
    build(kind, vectors, IndexConfig(hnsw_m=4, hnsw_ef_construction=8), tmp_path / "index")
    index = AnnIndex.open(tmp_path / "index", vectors, kind)
    _, rows = index.search(vectors.view()[:3].copy(), k, Effort(ef_search=8, nprobe=1, rescore_factor=1))
    assert rows.shape == (3, min(k, 12_000))
    assert (rows >= 0).all()


def test_a_graph_whose_selected_rows_lie_far_from_the_query_still_finds_them_all(tmp_path: Path) -> None:
    near, far = np.random.default_rng(0).normal(size=(2, 6000, 8)).astype(np.float32)
    vectors = write_vectors(tmp_path / "vectors", np.concatenate([near, far + 100]), Metric.L2)
    build(IndexKind.HNSW, vectors, IndexConfig(hnsw_m=8), tmp_path / "index")
    index = AnnIndex.open(tmp_path / "index", vectors, IndexKind.HNSW)
    mask = np.arange(12_000) >= 6000
    _, rows = index.search(near[:5], 10, EFFORT, Selection(mask))
    assert rows.shape == (5, 10)
    assert (rows >= 6000).all()


def test_a_graph_that_was_added_to_finds_old_and_new_rows(tmp_path: Path) -> None:
    vectors = clustered(6000, 16)
    first = write_vectors(tmp_path / "first", vectors[:4000], Metric.L2)
    build(IndexKind.HNSW, first, IndexConfig(), tmp_path / "base")
    both = write_vectors(tmp_path / "both", vectors, Metric.L2)
    build(IndexKind.HNSW, both, IndexConfig(), tmp_path / "index", base=tmp_path / "base")
    _, rows = AnnIndex.open(tmp_path / "index", both, IndexKind.HNSW).search(vectors, 1, EFFORT)
    assert np.mean(rows[:, 0] == np.arange(6000)) > 0.99


@settings(max_examples=30)
@given(row_count=st.integers(1, 5_000_000), lists=st.none() | st.integers(1, 65_536))
def test_an_inverted_file_never_has_more_lists_than_can_be_trained(row_count: int, lists: int | None) -> None:
    count = lists_for(IndexConfig(ivf_lists=lists), row_count)
    assert 1 <= count <= max(1, row_count // 39)
    assert lists is None or count <= lists


@given(dimension=st.integers(1, 4096), wanted=st.none() | st.integers(1, 4096))
def test_the_bytes_of_a_quantised_vector_divide_the_dimension(dimension: int, wanted: int | None) -> None:
    count = pq_bytes_for(IndexConfig(pq_bytes=wanted), dimension)
    assert dimension % count == 0
    assert wanted is None or count <= wanted


@pytest.mark.parametrize(
    ("kind", "row_count", "built"),
    [
        (IndexKind.AUTO, FLAT_ROWS_MAX - 1, IndexKind.FLAT),
        (IndexKind.AUTO, FLAT_ROWS_MAX, IndexKind.HNSW),
        (IndexKind.AUTO, HNSW_ROWS_MAX, IndexKind.HNSW),
        (IndexKind.AUTO, HNSW_ROWS_MAX + 1, IndexKind.IVF_SQ8),
        (IndexKind.FLAT, 10**7, IndexKind.FLAT),
        (IndexKind.HNSW, 1, IndexKind.HNSW),
        (IndexKind.IVF_PQ, IVF_ROWS_MIN - 1, IndexKind.FLAT),
        (IndexKind.IVF_PQ, IVF_ROWS_MIN, IndexKind.IVF_PQ),
    ],
)
def test_the_kind_that_is_built(kind: IndexKind, row_count: int, built: IndexKind) -> None:
    assert kind_for(IndexConfig(kind=kind), row_count) is built


def test_a_search_leaves_the_parameters_of_the_index_alone(tmp_path: Path) -> None:
    vectors = write_vectors(tmp_path / "vectors", clustered(2000, 8), Metric.L2)
    build(IndexKind.HNSW, vectors, IndexConfig(), tmp_path / "index")
    index = AnnIndex.open(tmp_path / "index", vectors, IndexKind.HNSW)
    before = index._index.hnsw.efSearch
    index.search(vectors.view()[:2].copy(), 5, Effort(ef_search=500, nprobe=1, rescore_factor=1))
    assert index._index.hnsw.efSearch == before


@pytest.mark.parametrize("kind", [IndexKind.HNSW, IndexKind.IVF_SQ8])
def test_files_are_unmapped_when_an_index_is_let_go(tmp_path: Path, kind: IndexKind) -> None:
    sample = clustered(2000, seed=3)
    vectors = write_vectors(tmp_path / "vectors", sample, Metric.COSINE)
    build(kind, vectors, IndexConfig(ivf_lists=8), tmp_path / "index")
    index = AnnIndex.open(tmp_path / "index", vectors, kind)
    index.search(prepared(sample[:3], Metric.COSINE)[0], 1, EFFORT)
    mapped = Path("/proc/self/maps")
    assert str(tmp_path) in mapped.read_text()
    del index, vectors
    assert str(tmp_path) not in mapped.read_text()
