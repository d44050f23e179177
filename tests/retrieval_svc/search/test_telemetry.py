"""What stands in the spans of a search."""

import json

import pytest

from retrieval_svc.search.calls import Diversity, SearchCall, SearchMode
from tests.retrieval_svc.search.fakes import bench, many_rows
from tests.retrieval_svc.search.references import RAW


async def test_the_span_of_a_search_says_what_was_asked_and_how_much_was_found() -> None:
    on = bench(many_rows(20))
    await on.run(SearchCall(vector=RAW, top_k=3))
    assert dict(on.spans()["retrieval texts"].attributes or {}) == {
        "gen_ai.operation.name": "retrieval",
        "gen_ai.data_source.id": "texts",
        "gen_ai.request.top_k": 3,
        "penstock.search.mode": "dense",
        "penstock.hit.count": 3,
    }


async def test_fusion_and_diversity_have_spans_with_their_sizes_below_that_of_the_search() -> None:
    on = bench(many_rows(30))
    await on.run(SearchCall(text="canal", mode=SearchMode.HYBRID, top_k=3, diversity=Diversity(candidates=8)))
    spans = on.spans()
    found = len(on.gatherer.lexical("canal"))
    assert dict(spans["fusion"].attributes or {}) == {
        "penstock.fusion.method": "convex",
        "penstock.dense.count": 30,
        "penstock.lexical.count": found,
        "penstock.candidate.count": 30,
    }
    assert dict(spans["mmr"].attributes or {}) == {"penstock.candidate.count": 8, "penstock.hit.count": 4}
    assert spans["fusion"].parent == spans["mmr"].parent == spans["retrieval texts"].context


async def test_the_span_of_a_batch_says_its_size() -> None:
    on = bench(many_rows(20))
    await on.search.search_many(on.collection, [SearchCall(vector=RAW, top_k=3), SearchCall(vector=RAW, top_k=4)])
    attributes = on.spans()["retrieval texts"].attributes or {}
    assert (attributes["penstock.batch.size"], attributes["penstock.hit.count"]) == (2, 7)


@pytest.mark.parametrize("capture", [True, False])
async def test_texts_stand_in_spans_only_when_that_is_switched_on(capture: bool) -> None:
    on = bench(many_rows(30), capture_content=capture)
    await on.run(SearchCall(text="canal lock", mode=SearchMode.HYBRID, top_k=2))
    everything = json.dumps([dict(span.attributes or {}) for span in on.exporter.get_finished_spans()])
    assert ("canal lock" in everything) is capture
    if capture:
        attributes = on.spans()["retrieval texts"].attributes or {}
        assert attributes["gen_ai.retrieval.query.text"] == "canal lock"
        assert set(json.loads(str(attributes["gen_ai.retrieval.documents"]))[0]) == {"id", "score", "content"}
