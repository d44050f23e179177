"""Searches while rows are replaced and collections deleted."""

import pytest

from penstock.errors import CollectionNotFound, Unavailable
from retrieval_svc.search.calls import Diversity, Grouping, SearchCall, SearchMode
from tests.retrieval_svc.search.fakes import bench, chunk_ids, many_rows
from tests.retrieval_svc.search.references import RAW, VECTOR, dense_ids


async def test_a_hit_that_is_gone_is_searched_for_again_and_never_returned() -> None:
    on = bench(many_rows(30))
    call = SearchCall(vector=RAW, top_k=5, fields=("vector",))
    on.gatherer.gone = {on.gatherer.dense(VECTOR)[2][1].sequence}
    on.gatherer.gone_reads = 1
    assert await on.ids(call) == dense_ids(on)[:5]
    assert len(on.gatherer.gathers) == 2


@pytest.mark.parametrize(
    "call",
    [
        SearchCall(vector=RAW, top_k=5, fields=("vector",)),
        SearchCall(vector=RAW, top_k=5, diversity=Diversity(candidates=5)),
        SearchCall(text="canal", mode=SearchMode.LEXICAL, top_k=5, grouping=Grouping()),
    ],
)
async def test_searching_again_ends_when_the_hit_never_comes_back(call: SearchCall) -> None:
    on = bench(many_rows(30))
    rows = on.gatherer.dense(VECTOR) if call.vector else on.gatherer.lexical("canal")
    on.gatherer.gone = {each.sequence for _, each in rows[1:]}
    result = await on.run(call)
    assert chunk_ids(result) == [rows[0][1].chunk.id]
    assert sum(len(queries) for queries, _, _ in on.gatherer.gathers) == 3


async def test_what_is_gone_and_not_missed_costs_no_second_search() -> None:
    on = bench(many_rows(30))
    on.gatherer.gone = {on.gatherer.dense(VECTOR)[19][1].sequence}
    result = await on.run(SearchCall(vector=RAW, top_k=5, diversity=Diversity(candidates=20)))
    assert (len(result.chunks), len(on.gatherer.gathers)) == (5, 1)


async def test_only_the_search_that_lacks_hits_begins_again() -> None:
    on = bench(many_rows(30))
    on.gatherer.gone, on.gatherer.gone_reads = {on.gatherer.dense(VECTOR)[0][1].sequence}, 1
    calls = [
        SearchCall(vector=RAW, top_k=2),
        SearchCall(vector=RAW, top_k=3, fields=("vector",)),
        SearchCall(vector=(-VECTOR).tobytes(), top_k=4, fields=("vector",)),
    ]
    results = await on.search.search_many(on.collection, calls)
    assert [chunk_ids(result) for result in results] == [dense_ids(on)[:2], dense_ids(on)[:3], dense_ids(on, -VECTOR)[:4]]
    assert [len(queries) for queries, _, _ in on.gatherer.gathers] == [3, 1]


@pytest.mark.parametrize("error", [None, Unavailable("the shard is closed")])
async def test_a_collection_that_is_deleted_while_it_is_searched_is_not_found(error: Unavailable | None) -> None:
    on = bench(many_rows(10))
    on.gatherer.on_gather = lambda: setattr(on.collections, "open", False)
    on.gatherer.error = error
    with pytest.raises(CollectionNotFound, match="deleted while"):
        await on.run(SearchCall(vector=RAW))


async def test_a_search_that_fails_in_a_collection_that_is_there_fails_as_itself() -> None:
    on = bench(many_rows(10))
    on.gatherer.error = Unavailable("shard 1 cannot be reached")
    with pytest.raises(Unavailable, match="shard 1"):
        await on.run(SearchCall(vector=RAW))
