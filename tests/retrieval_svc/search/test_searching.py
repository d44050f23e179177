"""Searches over a fake collection, against plain references."""

import numpy as np
import pytest

from penstock.errors import DimensionMismatch, FailedPrecondition, InvalidArgument, ModelNotFound, Unavailable
from retrieval_svc.search.calls import Diversity, Fusion, FusionMethod, Grouping, Reranking, SearchCall, SearchMode
from retrieval_svc.values import Metric, Visibility
from tests.retrieval_svc.search.fakes import bench, chunk_ids, embedded, many_rows
from tests.retrieval_svc.search.references import RAW, VECTOR, dense_ids, fusion_reference

# Plain searches.


@pytest.mark.parametrize("metric", Metric)
async def test_a_plain_search_gives_the_nearest_chunks_as_the_shards_gave_them(metric: Metric) -> None:
    on = bench(many_rows(50), metric=metric)
    result = await on.run(SearchCall(vector=RAW, top_k=5))
    assert chunk_ids(result) == dense_ids(on)[:5]
    assert result.scores.tolist() == pytest.approx([score for score, _ in on.gatherer.dense(VECTOR)[:5]], rel=1e-5)
    assert (result.dense_scores, result.lexical_scores, result.missing_shards) == (None, None, ())
    assert on.gatherer.fetches == []
    assert on.gatherer.codec.reads == 0


async def test_more_hits_than_there_are_chunks_are_those_that_there_are() -> None:
    on = bench(many_rows(3))
    result = await on.run(SearchCall(vector=RAW, top_k=1000))
    assert (len(result.chunks), len(result.scores), result.next_page_token) == (3, 3, "")


async def test_an_empty_collection_has_no_hits_whatever_is_asked() -> None:
    on = bench([])
    for call in (
        SearchCall(vector=RAW),
        SearchCall(text="canal", mode=SearchMode.LEXICAL),
        SearchCall(text="canal", mode=SearchMode.HYBRID, diversity=Diversity(), grouping=Grouping(), fields=("vector",)),
    ):
        assert chunk_ids(await on.run(call)) == []


async def test_a_text_is_embedded_and_searched_by_its_vector() -> None:
    on = bench(many_rows(30))
    assert await on.ids(SearchCall(text="a barge", top_k=4)) == dense_ids(on, embedded("a barge"))[:4]
    assert on.collections.embeddings.batches == [["a barge"]]


async def test_what_the_shards_are_asked_carries_everything_that_the_call_says() -> None:
    on = bench(many_rows(5))
    seen_by = Visibility(principals=frozenset({"user:ann"}))
    await on.run(
        SearchCall(vector=RAW, ef_search=7, nprobe=8, exact=True, visibility=seen_by, at_least={1: 9}, allow_partial=True)
    )
    [([query], at_least, allow_partial)] = on.gatherer.gathers
    assert (query.ef_search, query.nprobe, query.exact, query.visibility) == (7, 8, True, seen_by)
    assert (at_least, allow_partial) == ({1: 9}, True)


async def test_shards_that_are_missing_are_told() -> None:
    on = bench(many_rows(20))
    on.gatherer.missing_shards = (1,)
    for call in (SearchCall(vector=RAW, allow_partial=True), SearchCall(vector=RAW, allow_partial=True, grouping=Grouping())):
        assert (await on.run(call)).missing_shards == (1,)


# Batches.


async def test_a_batch_embeds_its_texts_in_one_go_and_asks_the_shards_once() -> None:
    on = bench(many_rows(40))
    calls = [
        SearchCall(text="one", top_k=3),
        SearchCall(vector=RAW, top_k=2),
        SearchCall(text="canal lock", mode=SearchMode.LEXICAL),
        SearchCall(text="two", mode=SearchMode.HYBRID, fields=("vector",)),
        SearchCall(text="three weir", mode=SearchMode.HYBRID, top_k=4),
    ]
    results = await on.search.search_many(on.collection, calls)
    assert on.collections.embeddings.batches == [["one", "two", "three weir"]]
    assert [len(queries) for queries, _, _ in on.gatherer.gathers] == [5]
    assert sorted(with_vectors for _, with_vectors in on.gatherer.fetches) == [False, True]
    for call, result in zip(calls, results, strict=True):
        assert chunk_ids(result) == await on.ids(call)


async def test_searches_that_wait_for_other_positions_are_gathered_apart() -> None:
    on = bench(many_rows(40))
    positions: list[dict[int, int]] = [{}, {0: 5}, {}, {0: 5}, {0: 6}]
    calls = [SearchCall(vector=RAW, top_k=number + 1, at_least=at_least) for number, at_least in enumerate(positions)]
    results = await on.search.search_many(on.collection, calls)
    assert [(len(queries), at_least) for queries, at_least, _ in on.gatherer.gathers] == [(2, {}), (2, {0: 5}), (1, {0: 6})]
    assert [len(result.chunks) for result in results] == [1, 2, 3, 4, 5]


async def test_a_fault_in_a_batch_is_told_with_its_place() -> None:
    on = bench(many_rows(4))
    good = SearchCall(vector=RAW)
    for bad, field, error in (
        (SearchCall(vector=RAW[:-4]), "requests[2].vector", DimensionMismatch),
        (SearchCall(text="x", vector=RAW), "requests[2].vector", InvalidArgument),
        (
            SearchCall(vector=RAW, diversity=Diversity(relevance_weight=2)),
            "requests[2].diversity.relevance_weight",
            InvalidArgument,
        ),
        (SearchCall(vector=RAW, page_token="x"), "requests[2].page_token", InvalidArgument),
    ):
        with pytest.raises(error) as refused:
            await on.search.search_many(on.collection, [good, good, bad])
        assert [violation.field for violation in refused.value.violations] == [field]
    assert on.gatherer.gathers == []


@pytest.mark.parametrize("count", [0, 257])
async def test_a_batch_has_bounds(count: int) -> None:
    on = bench(many_rows(4))
    with pytest.raises(InvalidArgument, match="256"):
        await on.search.search_many(on.collection, [SearchCall(vector=RAW)] * count)


async def test_one_failed_search_of_a_batch_fails_it_as_itself() -> None:
    on = bench(many_rows(40))

    async def unreachable(*_: object, **__: object) -> list[None]:
        raise Unavailable("a shard is gone")

    on.gatherer.fetch = unreachable  # type: ignore[method-assign,assignment]
    with pytest.raises(Unavailable, match="a shard is gone"):
        await on.search.search_many(on.collection, [SearchCall(vector=RAW, diversity=Diversity())] * 3)


# Modes.


async def test_a_lexical_search_embeds_nothing_and_ranks_by_words() -> None:
    on = bench(many_rows(60))
    result = await on.run(SearchCall(text="canal lock", mode=SearchMode.LEXICAL, top_k=7))
    expected = on.gatherer.lexical("canal lock")[:7]
    assert chunk_ids(result) == [each.chunk.id for _, each in expected]
    assert result.scores.tolist() == pytest.approx([score for score, _ in expected])
    assert on.collections.embeddings.batches == []
    assert result.lexical_scores is None


@pytest.mark.parametrize("method", FusionMethod)
@pytest.mark.parametrize("candidates", [None, 30])
async def test_a_hybrid_search_fuses_the_candidates_of_both_sides(method: FusionMethod, candidates: int | None) -> None:
    on = bench(many_rows(400))
    fusion = Fusion(method=method, dense_weight=0.3, candidates=candidates)
    result = await on.run(SearchCall(text="canal lock", mode=SearchMode.HYBRID, fusion=fusion, top_k=12))
    assert chunk_ids(result) == fusion_reference(on, "canal lock", embedded("canal lock"), fusion, candidates or 100)[:12]
    [([query], _, _)] = on.gatherer.gathers
    assert (query.limit, query.text) == (candidates or 100, "canal lock")


async def test_a_vector_beside_a_hybrid_text_is_used_in_place_of_the_texts_own() -> None:
    on = bench(many_rows(100))
    result = await on.run(SearchCall(text="canal", vector=RAW, mode=SearchMode.HYBRID, top_k=8))
    assert chunk_ids(result) == fusion_reference(on, "canal", VECTOR, Fusion(), 100)[:8]
    assert on.collections.embeddings.batches == []


async def test_a_hybrid_hit_tells_both_scores_and_nan_for_the_one_it_lacks() -> None:
    on = bench(many_rows(60))
    result = await on.run(SearchCall(text="canal", vector=RAW, mode=SearchMode.HYBRID, top_k=60, fusion=Fusion(candidates=20)))
    dense = {each.chunk.id: score for score, each in on.gatherer.dense(VECTOR)[:20]}
    lexical = {each.chunk.id: score for score, each in on.gatherer.lexical("canal")[:20]}
    assert result.dense_scores is not None
    assert result.lexical_scores is not None
    for name, nearness_, words_ in zip(chunk_ids(result), result.dense_scores, result.lexical_scores, strict=True):
        assert float(nearness_) == pytest.approx(dense.get(name, np.nan), nan_ok=True, rel=1e-5)
        assert float(words_) == pytest.approx(lexical.get(name, np.nan), nan_ok=True)


# What cannot be.


async def test_words_are_refused_where_they_are_not_indexed() -> None:
    on = bench(many_rows(4), lexical=False)
    for mode in (SearchMode.LEXICAL, SearchMode.HYBRID):
        with pytest.raises(FailedPrecondition, match=r"lexical\.enabled"):
            await on.run(SearchCall(text="canal", mode=mode))
    assert len((await on.run(SearchCall(text="canal"))).chunks) == 4


async def test_a_text_is_refused_where_nothing_embeds_but_not_by_its_words() -> None:
    on = bench(many_rows(40), embedding_model="")
    with pytest.raises(FailedPrecondition, match="give a vector"):
        await on.run(SearchCall(text="canal"))
    assert await on.ids(SearchCall(text="canal", mode=SearchMode.LEXICAL, top_k=1))
    assert await on.ids(SearchCall(text="canal", vector=RAW, mode=SearchMode.HYBRID, top_k=1))


async def test_reranking_is_refused_where_no_reranker_is_loaded() -> None:
    on = bench(many_rows(4))
    with pytest.raises(FailedPrecondition, match="no reranker"):
        await on.run(SearchCall(text="canal", reranking=Reranking()))
    with pytest.raises((FailedPrecondition, ModelNotFound)):
        await on.run(SearchCall(text="canal", reranking=Reranking(model="unknown")))
    assert on.gatherer.gathers == []
