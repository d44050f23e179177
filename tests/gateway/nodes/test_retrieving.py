"""retrieve, rerank and embed: what they ask for, and what they give of it."""

from typing import Any

import pytest

from gateway.backends import Diversity, Fusion, Reranking, SearchRequest
from gateway.overriding import overridden
from gateway.validation import examine
from penstock.errors import BudgetExceeded, FailedPrecondition, PermissionDenied
from tests.gateway.fakes import World, document, node, passage


def searching(*inputs: str, **params: Any) -> str:
    """A search whose inputs a run gives: "name" a text, "name:type" another type."""
    declared = [each.partition(":")[::2] for each in inputs or ("query",)]
    return document(
        *(node(name, "input", type=kind or "text") for name, kind in declared),
        node("docs", "retrieve", collection="squad", **params),
        node("found", "output"),
        edges=[*(f"{name} > docs.{name}" for name, _ in declared), "docs > found"],
    )


def faults(flow: str) -> list[str]:
    return [str(fault) for fault in examine(flow)[1]]


async def test_everything_that_a_search_can_be_asked_for_reaches_it(world: World) -> None:
    flow = searching(
        top_k=7, mode="hybrid", fusion={"method": "reciprocal_rank", "rrf_k": 9, "dense_weight": 0.25, "candidates": 50},
        score_min=0.5, diversity={"relevance_weight": 0.75, "candidates": 20}, hits_per_document_max=2,
        rerank={"model": "cross", "candidates": 30}, ef_search=100, nprobe=8, exact=True, fields=["text", "metadata.title"],
        filter={"exists": {"field": "lang"}},
    )  # fmt: skip
    await world.compile(flow).run({"query": "Where?"})
    assert world.retriever.searches == [
        SearchRequest(
            collection="squad", text="Where?", top_k=7, mode="hybrid", filter={"exists": {"field": "lang"}}, score_min=0.5,
            fusion=Fusion(method="reciprocal_rank", rrf_k=9, dense_weight=0.25, candidates=50),
            diversity=Diversity(relevance_weight=0.75, candidates=20), hits_per_document_max=2,
            reranking=Reranking(model="cross", candidates=30), ef_search=100, nprobe=8, exact=True,
            fields=("text", "metadata.title"),
        )
    ]  # fmt: skip


async def test_a_plain_search_says_nothing_but_what_it_must(world: World) -> None:
    await world.compile(searching()).run({"query": "Where?"})
    assert world.retriever.searches == [SearchRequest(collection="squad", text="Where?", top_k=4)]


async def test_a_search_can_be_by_a_vector_or_by_both(world: World) -> None:
    await world.compile(searching("vector:json", search_by="vector")).run({"vector": [1, 0.5]})
    both = searching("query", "vector:json", search_by="both", mode="hybrid")
    await world.compile(both).run({"query": "Where?", "vector": [2]})
    by_vector, by_both = world.retriever.searches
    assert (by_vector.text, by_vector.vector) == (None, (1.0, 0.5))
    assert (by_both.text, by_both.vector) == ("Where?", (2.0,))


@pytest.mark.parametrize("vector", ["text", [], [1, "a"], [True], {"x": 1}, [[1.0]]])
async def test_what_is_no_vector_ends_the_run(world: World, vector: Any) -> None:
    with pytest.raises(FailedPrecondition, match="a vector must"):
        await world.compile(searching("vector:json", search_by="vector")).run({"vector": vector})


FILTER = {
    "all_of": [
        {"equals": {"field": "lang", "value": {"input": "lang"}}},
        {"one_of": {"field": "tag", "values": {"input": "tags"}}},
        {"range": {"field": "year", "gte": {"input": "since"}, "lt": 2030}},
        {"none_of": [{"exists": {"field": "hidden"}}, {"equals": {"field": "lang", "value": {"input": "lang"}}}]},
    ]
}


async def test_values_of_a_filter_can_come_from_other_nodes_and_are_never_conditions(world: World) -> None:
    compiled = world.compile(searching("query", "lang", "tags:json", "since:number", filter=FILTER))
    await compiled.run({"query": "Where?", "lang": "en", "tags": ["a", 1, True], "since": 2020})
    assert world.retriever.searches[0].filter == {
        "all_of": [
            {"equals": {"field": "lang", "value": "en"}},
            {"one_of": {"field": "tag", "values": ["a", 1, True]}},
            {"range": {"field": "year", "gte": 2020, "lt": 2030}},
            {"none_of": [{"exists": {"field": "hidden"}}, {"equals": {"field": "lang", "value": "en"}}]},
        ]
    }
    for wrong in ({"any_of": []}, [], [["a"]], None, [None]):
        with pytest.raises(FailedPrecondition, match="from its input 'tags'"):
            await compiled.run({"query": "Where?", "lang": "en", "tags": wrong, "since": 2020})


@pytest.mark.parametrize(
    ("params", "told"),
    [
        ({"fusion": {}}, "a dense search has nothing to fuse"),
        ({"mode": "lexical", "search_by": "both"}, "a lexical search takes no vector"),
        ({"mode": "hybrid", "search_by": "vector"}, "needs a text"),
        ({"rerank": {}, "search_by": "vector"}, "needs a text"),
        ({"search_by": "both"}, "both only in a hybrid"),
        ({"mode": "dens"}, "params.mode"),
        ({"filter": {}}, "give exactly one of equals"),
        ({"filter": {"equals": {"field": "a", "value": 1}, "exists": {"field": "a"}}}, "found equals, exists"),
        ({"filter": {"equals": {"field": "a", "value": None}}}, "params.filter.equals.value"),
        ({"filter": {"range": {"field": "a"}}}, "at least one of gt"),
        ({"filter": {"one_of": {"field": "a", "values": []}}}, "params.filter.one_of.values"),
        ({"filter": {"all_of": [{"exists": {"field": ""}}]}}, "params.filter.all_of.0.exists.field"),
        ({"filter": {"all_of": [{"any_of": [{"exists": {"field": "a"}}] * 20}] * 13}}, "274 conditions; at most 256"),
        ({"filter": {"equals": {"field": "a", "value": {"input": "query"}}}}, "the name of another input"),
        ({"filter": {"equals": {"field": "a", "value": {"input": "a b"}}}}, "params.filter.equals.value"),
        ({"fields": ["vector"]}, "params.fields.0"),
        ({"score_min": "high"}, "params.score_min"),
        ({"hits_per_document_max": 0}, "params.hits_per_document_max"),
    ],
)
def test_what_the_service_would_refuse_is_a_fault_of_the_flow(params: dict[str, Any], told: str) -> None:
    assert any(told in fault for fault in faults(searching(**params))), faults(searching(**params))


async def test_no_caller_lifts_a_filter(world: World) -> None:
    flow = searching(filter={"exists": {"field": "public"}}).replace('{"nodes"', '{"overrides": "all", "nodes"', 1)
    compiled = world.compile(flow)
    assert overridden(compiled.flow, {"docs": {"top_k": 9}})
    with pytest.raises(PermissionDenied, match="'filter' of node 'docs'"):
        overridden(compiled.flow, {"docs": {"filter": {"exists": {"field": "text"}}}})


def reranking(**params: Any) -> str:
    return document(
        node("query", "input"), node("docs", "retrieve", collection="squad", top_k=1000), node("best", "rerank", **params),
        node("found", "output"), edges=["query > docs", "query > best.query", "docs > best", "best > found"],
    )  # fmt: skip


async def test_passages_stand_in_the_rerankers_order_with_its_scores(world: World) -> None:
    world.retriever.documents = (passage(1, "aa"), passage(2, "aaaa"), passage(3, "a"), passage(4, "bbbb"))
    result = await world.compile(reranking(model="cross", top_k=3, score_min=2)).run({"query": "Where?"})
    assert [(each["chunk_id"], each["score"]) for each in result.outputs["found"]] == [("c2", 4.0), ("c4", 4.0), ("c1", 2.0)]
    assert world.pooling.reranked == [("cross", "Where?", ("aa", "aaaa", "a", "bbbb"))]
    assert (result.spent.model_calls, result.spent.input_tokens) == (1, 8)
    assert result.outputs["found"][0]["metadata"] == {"n": 2}


async def test_many_passages_are_reranked_in_batches_and_none_are_not_asked_about(world: World) -> None:
    world.retriever.documents = tuple(passage(number, "a" * number) for number in range(1, 601))
    result = await world.compile(reranking()).run({"query": "Where?"})
    assert [each["chunk_id"] for each in result.outputs["found"]] == [f"c{number}" for number in range(600, 0, -1)]
    assert [len(texts) for _, _, texts in world.pooling.reranked] == [256, 256, 88]
    world.retriever.documents = ()
    assert (await world.compile(reranking()).run({"query": "Where?"})).outputs["found"] == []
    assert len(world.pooling.reranked) == 3


async def test_a_text_is_embedded_by_the_service_that_the_node_names(world: World) -> None:
    flow = document(
        node("text", "input"), node("one", "embed", purpose="document", model="mini"),
        node("other", "embed", service="generation"), node("a", "output"), node("b", "output"),
        edges=["text > one", "text > other", "one > a", "other > b"],
    )  # fmt: skip
    result = await world.compile(flow).run({"text": "four"})
    assert result.outputs == {"a": [4.0, 0.5], "b": [4.0, 0.25]}
    assert world.retriever.embedded == [("mini", ("four",), "document")]
    assert world.pooling.embedded == [("default", ("four",))]
    assert (result.spent.model_calls, result.spent.input_tokens) == (2, 2)


async def test_several_texts_are_embedded_in_batches_on_the_runs_budget(world: World) -> None:
    flow = document(
        node("text", "input"), node("lines", "transform", operation="split", max_items=2000),
        node("made", "embed", several=True), node("out", "output"),
        edges=["text > lines", "lines > made", "made > out"],
    )  # fmt: skip
    result = await world.compile(flow).run({"text": "\n".join("x" * (each % 7 + 1) for each in range(300))})
    assert [vector[0] for vector in result.outputs["out"]] == [each % 7 + 1 for each in range(300)]
    assert [len(texts) for _, texts, _ in world.retriever.embedded] == [256, 44]
    with pytest.raises(FailedPrecondition, match="1025 texts to embed; at most 1024"):
        await world.compile(flow).run({"text": "\n".join("x" * 1025)})
    tight = flow.replace('{"nodes"', '{"budget": {"model_calls": 1}, "nodes"', 1)
    with pytest.raises(BudgetExceeded):
        await world.compile(tight).run({"text": "\n".join("x" * 300)})


async def test_a_vector_that_was_made_can_be_searched_for(world: World) -> None:
    flow = document(
        node("guess", "input"), node("made", "embed", purpose="document"),
        node("docs", "retrieve", collection="squad", search_by="vector"), node("found", "output"),
        edges=["guess > made", "made > docs", "docs > found"],
    )  # fmt: skip
    await world.compile(flow).run({"guess": "It was in Denver."})
    assert world.retriever.searches[0].vector == (17.0, 0.5)
