"""Pages of a search are slices of one ranking."""

import pytest

from penstock.errors import InvalidArgument
from retrieval_svc.search.calls import Diversity, Fusion, Grouping, SearchCall, SearchMode, SearchResult
from retrieval_svc.values import Visibility
from tests.retrieval_svc.search.fakes import Bench, bench, chunk_ids, embedded, many_rows, query_vector
from tests.retrieval_svc.search.references import RAW, VECTOR, dense_ids, document_ids, fusion_reference


async def pages(on: Bench, call: SearchCall, calls_max: int = 100) -> list[SearchResult]:
    found = [await on.run(call)]
    while found[-1].next_page_token:
        assert len(found) < calls_max
        call = SearchCall(**{name: getattr(call, name) for name in call.__slots__} | {"page_token": found[-1].next_page_token})
        found.append(await on.run(call))
    return found


CALLS = {
    "dense": SearchCall(vector=RAW, top_k=7),
    "lexical": SearchCall(text="canal lock", mode=SearchMode.LEXICAL, top_k=7),
    "hybrid": SearchCall(text="canal lock", mode=SearchMode.HYBRID, top_k=7),
    "diverse": SearchCall(vector=RAW, top_k=7, diversity=Diversity(candidates=30)),
    "grouped": SearchCall(vector=RAW, top_k=3, grouping=Grouping(hits_per_document_max=2)),
    "threshold": SearchCall(vector=RAW, top_k=7, score_min=0.0),
}


@pytest.mark.parametrize("name", CALLS)
async def test_pages_together_are_one_ranking_with_each_hit_once(name: str) -> None:
    on = bench(many_rows(90, documents=11))
    found = await pages(on, CALLS[name])
    ids = [each for result in found for each in chunk_ids(result)]
    assert len(ids) == len(set(ids))
    assert len(found) > 2
    match name:
        case "dense":
            assert ids == dense_ids(on)
        case "lexical":
            assert ids == [each.chunk.id for _, each in on.gatherer.lexical("canal lock")]
        case "hybrid":
            assert ids == fusion_reference(on, "canal lock", embedded("canal lock"), Fusion(), 100)
        case "diverse":
            assert sorted(ids) == sorted(dense_ids(on)[:30])
        case "grouped":
            assert {name_.chunk.document_id for name_ in on.gatherer.rows if name_.chunk.id in ids} == document_ids(on)
        case "threshold":
            assert ids == [each.chunk.id for score, each in on.gatherer.dense(VECTOR) if score >= 0.0]


async def test_the_last_page_has_no_token_even_when_it_is_full() -> None:
    on = bench(many_rows(21))
    assert [len(result.chunks) for result in await pages(on, SearchCall(vector=RAW, top_k=7))] == [7, 7, 7]


async def test_all_pages_together_have_no_more_hits_than_the_limit_of_top_k() -> None:
    on = bench(many_rows(50), top_k_max=25)
    assert [len(result.chunks) for result in await pages(on, SearchCall(vector=RAW, top_k=10))] == [10, 10, 5]


async def test_a_token_of_another_search_is_refused() -> None:
    on = bench(many_rows(50))
    token = (await on.run(SearchCall(vector=RAW, top_k=5))).next_page_token
    for call in (
        SearchCall(vector=query_vector(3).tobytes(), top_k=5, page_token=token),
        SearchCall(vector=RAW, top_k=6, page_token=token),
        SearchCall(vector=RAW, top_k=5, exact=True, page_token=token),
        SearchCall(vector=RAW, top_k=5, visibility=Visibility(principals=frozenset()), page_token=token),
        SearchCall(vector=RAW, top_k=5, page_token="garbage"),
    ):
        with pytest.raises(InvalidArgument) as refused:
            await on.run(call)
        assert refused.value.metadata == {"field": "page_token"}
    waiting = SearchCall(vector=RAW, top_k=5, page_token=token, at_least={0: 1}, allow_partial=True, fields=("text",))
    assert len((await on.run(waiting)).chunks) == 5
