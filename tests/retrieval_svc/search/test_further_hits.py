"""Documents of a grouped search have their best hits, wherever those stand among all chunks."""

import asyncio
from dataclasses import replace

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_svc.filters import Exists
from retrieval_svc.search.calls import Diversity, Fusion, Grouping, SearchCall, SearchMode, SearchResult
from retrieval_svc.search.further_hits import FURTHER_HITS_MAX
from retrieval_svc.values import ShardQuery, Visibility
from tests.retrieval_svc.search.fakes import Bench, FakeGatherer, bench, chunk_ids, embedded, many_rows, row
from tests.retrieval_svc.search.references import RAW, VECTOR, dense_ids, fusion_reference
from tests.retrieval_svc.search.test_pages import pages
from tests.retrieval_svc.search.test_ranking import grouping_reference

TEXT = "canal lock"


def documents_of(result: SearchResult) -> list[str]:
    return [orjson.loads(chunk)["document_id"] for chunk in result.chunks]


def asked_documents(on: Bench) -> list[list[str]]:
    """For each call of the shards the documents that it was about."""
    return [[query.document_id for query in queries] for queries, _, _ in on.gatherer.gathers]


@settings(max_examples=40, deadline=None)
@given(
    mode=st.sampled_from((SearchMode.DENSE, SearchMode.LEXICAL)), documents=st.integers(1, 9), top_k=st.integers(1, 4),
    hits_max=st.sampled_from((2, 7, 30, 100)), seed=st.integers(0, 1000),
)  # fmt: skip
def test_pages_have_the_best_hits_of_the_best_documents(
    mode: SearchMode, documents: int, top_k: int, hits_max: int, seed: int
) -> None:
    on = bench(many_rows(500, documents=documents, seed=seed))
    call = SearchCall(mode=mode, top_k=top_k, grouping=Grouping(hits_per_document_max=hits_max))
    call = replace(call, vector=RAW) if mode is SearchMode.DENSE else replace(call, text=TEXT)
    found = asyncio.run(pages(on, call))
    ranked = dense_ids(on) if mode is SearchMode.DENSE else [each.chunk.id for _, each in on.gatherer.lexical(TEXT)]
    ids = [each for result in found for each in chunk_ids(result)]
    assert ids == grouping_reference(on, documents, hits_max, ranked)
    assert [len(set(documents_of(result))) for result in found[:-1]] == [top_k] * (len(found) - 1)


@settings(max_examples=30, deadline=None)
@given(documents=st.integers(1, 6), hits_max=st.sampled_from((2, 40, 100)), seed=st.integers(0, 1000), fusion=st.booleans())
def test_what_neither_side_has_among_its_candidates_stands_behind_with_nothing(
    documents: int, hits_max: int, seed: int, fusion: bool
) -> None:
    on = bench(many_rows(500, documents=documents, seed=seed))
    fused = Fusion(candidates=30) if fusion else Fusion()
    grouping = Grouping(hits_per_document_max=hits_max)
    call = SearchCall(text=TEXT, mode=SearchMode.HYBRID, top_k=3, fusion=fused if fusion else None, grouping=grouping)
    ranked = fusion_reference(on, TEXT, embedded(TEXT), fused, fused.candidates or 100)
    of_document = {each.chunk.id: each.chunk.document_id for each in on.gatherer.rows}
    sizes = {document: list(of_document.values()).count(document) for document in of_document.values()}
    found = asyncio.run(pages(on, call))
    assert len({document for result in found for document in documents_of(result)}) == sum(map(len_of_page, found))
    for result in found:
        for document in dict.fromkeys(documents_of(result)):
            hits = [at for at, each in enumerate(documents_of(result)) if each == document]
            assert hits == list(range(hits[0], hits[0] + min(hits_max, sizes[document])))
            candidates = [name for name in ranked if of_document[name] == document][:hits_max]
            ids = [chunk_ids(result)[at] for at in hits]
            assert ids[: len(candidates)] == candidates
            assert result.scores[hits[len(candidates) :]].tolist() == [0.0] * (len(hits) - len(candidates))
            assert len(set(ids)) == len(ids)


def len_of_page(result: SearchResult) -> int:
    return len(set(documents_of(result)))


async def test_only_documents_that_are_short_of_hits_are_asked_for_and_with_the_same_restrictions() -> None:
    crowd = [row(number, VECTOR + number * 1e-3, document_id="crowd") for number in range(300)]
    near = [row(1000 + number, VECTOR, document_id=f"few{number % 2}") for number in range(4)]
    far = [row(2000 + number, -VECTOR + number, document_id="few0") for number in range(4)]
    alone = [row(3000, VECTOR + 5e-4)]
    on = bench(crowd + near + far + alone)
    eyes = Visibility(principals=frozenset({"user:ann"}))
    call = SearchCall(
        vector=RAW, top_k=3, filter=Exists(field="a"), visibility=eyes, at_least={0: 3}, allow_partial=True,
        grouping=Grouping(hits_per_document_max=5),
    )  # fmt: skip
    assert documents_of(await on.run(call)) == ["crowd"] * 5 + ["few0"] * 5 + ["few1"] * 2
    assert asked_documents(on) == [[""], ["few0", "few1"]]
    [query, _], at_least, partial = on.gatherer.gathers[-1]
    assert (query.filter, query.visibility, query.limit, at_least, partial) == (call.filter, eyes, 5, {0: 3}, True)


@pytest.mark.parametrize(
    "call",
    [
        SearchCall(vector=RAW, top_k=2, grouping=Grouping()),
        SearchCall(vector=RAW, top_k=2, grouping=Grouping(hits_per_document_max=3), diversity=Diversity(candidates=60)),
        SearchCall(text=TEXT, mode=SearchMode.HYBRID, top_k=2, score_min=0.01, grouping=Grouping(hits_per_document_max=100)),
    ],
    ids=["one hit each", "the pool is all that is ranked", "what is further has no score"],
)
async def test_nothing_is_looked_for_where_nothing_can_be(call: SearchCall) -> None:
    on = bench(many_rows(300, documents=4))
    await on.run(call)
    assert asked_documents(on) == [[""]]


async def test_nothing_is_looked_for_when_every_row_was_a_candidate() -> None:
    on = bench(many_rows(40, documents=9))
    await on.run(SearchCall(vector=RAW, top_k=3, grouping=Grouping(hits_per_document_max=20)))
    assert asked_documents(on) == [[""]]


async def test_hits_below_the_threshold_are_left_out_wherever_they_are_found() -> None:
    on = bench(many_rows(900, documents=3))
    call = SearchCall(vector=RAW, top_k=3, grouping=Grouping(hits_per_document_max=100))
    every = await on.run(call)
    least = float(np.sort(every.scores)[20])
    result = await on.run(replace(call, score_min=least))
    kept = [name for name, score in zip(chunk_ids(every), every.scores, strict=True) if score >= np.float32(least)]
    assert chunk_ids(result) == kept
    assert len(asked_documents(on)) == 4


async def test_a_page_of_very_many_hits_looks_for_those_of_its_first_documents() -> None:
    on = bench(many_rows(12_000, documents=250))
    result = await on.run(SearchCall(vector=RAW, top_k=250, grouping=Grouping(hits_per_document_max=100)))
    assert len(asked_documents(on)[-1]) == FURTHER_HITS_MAX // 100
    assert len(set(documents_of(result))) == 250


async def test_a_further_hit_that_is_gone_is_searched_for_again() -> None:
    on = bench(many_rows(600, documents=40))
    call = SearchCall(text=TEXT, mode=SearchMode.LEXICAL, top_k=2, grouping=Grouping(hits_per_document_max=10))
    expected = await on.ids(call)
    assert asked_documents(on)[0] == [""]
    assert len(asked_documents(on)) == 2
    on.gatherer.gone = {each.sequence for each in on.gatherer.rows if each.chunk.id == expected[9]}
    on.gatherer.gone_reads = 3  # The candidates are read, the further hits, and the page once more.
    assert await on.ids(call) == expected
    assert len(asked_documents(on)) == 6


async def test_a_chunk_that_is_replaced_between_the_two_searches_stands_on_the_page_once() -> None:
    on = bench(many_rows(600, documents=40))
    call = SearchCall(vector=RAW, top_k=2, grouping=Grouping(hits_per_document_max=10))
    expected = await on.ids(call)
    old = next(each for each in on.gatherer.rows if each.chunk.id == expected[0])
    new = replace(old, sequence=5000, chunk=replace(old.chunk, sequence=5000, text="anew"))
    on.gatherer.gathers.clear()

    def replacing() -> None:
        if len(on.gatherer.gathers) == 2:
            on.gatherer.rows = [new if each is old else each for each in on.gatherer.rows]

    on.gatherer.on_gather = replacing
    result = await on.run(call)
    assert chunk_ids(result) == expected
    assert orjson.loads(result.chunks[0])["text"] == "anew"


async def test_shards_that_answer_one_of_the_two_searches_are_missing_all_the_same() -> None:
    on = bench(many_rows(600, documents=40))
    on.gatherer.on_gather = lambda: setattr(on.gatherer, "missing_shards", (1,) if len(on.gatherer.gathers) == 2 else ())
    call = SearchCall(vector=RAW, top_k=2, allow_partial=True, grouping=Grouping(hits_per_document_max=10))
    result = await on.run(call)
    assert result.missing_shards == (1,)
    assert len(set(documents_of(result))) == 2


class OldNodes(FakeGatherer):
    """Answer as if they had not been asked for a document: those of a version that does not know that question."""

    def _gathered(self, query: ShardQuery):
        return super()._gathered(replace(query, document_id=""))


async def test_nodes_that_cannot_be_asked_for_a_document_cost_hits_and_bring_none_of_others() -> None:
    on = bench(many_rows(600, documents=40))
    call = SearchCall(vector=RAW, top_k=2, grouping=Grouping(hits_per_document_max=10))
    whole = await on.ids(call)
    on.gatherer._gathered = OldNodes(rows=on.gatherer.rows)._gathered  # type: ignore[method-assign]
    result = await on.run(call)
    assert set(chunk_ids(result)) < set(whole)
    assert len(set(documents_of(result))) == 2
