"""Methods without rounds: standard RAG, reranking, query rewriting, SKR and Adaptive-RAG."""

import pytest

from gateway.execution import Call
from tests.gateway.methods.scripted import Scripted, passage

GROUNDED = "based on the given document"
ALONE = "based on your own knowledge"


async def test_standard_rag_searches_once_and_answers_from_what_was_found() -> None:
    world = Scripted({GROUNDED: "Ada."})
    result = await world.run("standard-rag", question="Who wrote it?")
    assert world.calls == [("search", "Who wrote it?"), ("model", "Question: Who wrote it?")]
    assert world.model.requests[0].system.endswith("\n\n[1] About one.\n\n[2] About two.")
    assert result.outputs == {"answer": "Ada."}
    assert [each.chunk_id for found in result.sources for each in found.documents] == ["one", "two"]


async def test_standard_rag_that_finds_nothing_still_asks_and_shows_no_passage() -> None:
    world = Scripted({GROUNDED: "I do not know."}, {"": ()})
    result = await world.run("standard-rag", question="Who?")
    assert world.model.requests[0].system.endswith("The following are given documents.\n\n")
    assert (world.order, result.outputs) == ("search model", {"answer": "I do not know."})


async def test_standard_rag_takes_what_a_caller_says_of_sampling() -> None:
    world = Scripted({GROUNDED: "Ada."})
    await world.run("standard-rag", Call(sampling={"max_tokens": 7}), question="Who?")
    assert world.model.requests[0].sampling.max_tokens == 7


async def test_rerank_rag_searches_widely_and_answers_from_the_best() -> None:
    found = [passage(f"p{number}", 1 - number / 100, "good " * (number % 7)) for number in range(25)]
    world = Scripted({GROUNDED: "Ada."}, {"": found})
    result = await world.run("rerank-rag", question="Who?")
    assert world.order == "search rerank model"
    assert world.search.searches[0].top_k == 20
    assert [each["chunk_id"] for each in result.outputs["sources"]] == ["p6", "p13", "p5", "p12", "p19"]
    assert world.model.requests[0].system.count("good") == 6 + 6 + 5 + 5 + 5


async def test_rerank_rag_that_finds_nothing_asks_no_reranker() -> None:
    world = Scripted({GROUNDED: "I do not know."}, {"": ()})
    result = await world.run("rerank-rag", question="Who?")
    assert world.order == "search model"
    assert result.outputs == {"answer": "I do not know.", "sources": []}


async def test_query_rewriting_searches_for_each_query_and_answers_from_all_that_was_found() -> None:
    world = Scripted(
        {"search engine queries": " Vespa maker; Fiat 500 maker ** Question: more", GROUNDED: "Italy."},
        {"Vespa": (passage("vespa"), passage("both")), "Fiat": (passage("both"), passage("fiat"))},
    )
    result = await world.run("query-rewriting", question="Which country?")
    assert world.order == "model search search model"
    assert world.searched == ["Vespa maker", "Fiat 500 maker"]
    assert result.outputs == {"answer": "Italy.", "queries": ["Vespa maker", "Fiat 500 maker"]}
    shown = world.model.requests[1].system.partition("documents.\n\n")[2]
    assert shown == "[1] About both.\n\n[2] About vespa.\n\n[3] About fiat."  # What two queries find is first.


@pytest.mark.parametrize("says", ["", " ; ; **", "\n"])
async def test_query_rewriting_without_a_query_searches_for_the_question(says: str) -> None:
    world = Scripted({"search engine queries": says, GROUNDED: "Italy."})
    await world.run("query-rewriting", question="Which country?")
    assert world.searched == ["Which country?"]


async def test_query_rewriting_searches_at_most_three_times() -> None:
    world = Scripted({"search engine queries": "a; b; c; d; e **", GROUNDED: "x"})
    await world.run("query-rewriting", question="Who?")
    assert world.searched == ["a", "b", "c"]


async def test_the_queries_are_written_whatever_a_caller_says_of_sampling() -> None:
    world = Scripted({"search engine queries": "a **", GROUNDED: "x"})
    await world.run("query-rewriting", Call(sampling={"max_tokens": 1, "stop": ["a"]}), question="Who?")
    assert world.searched == ["a"]


def known(*judgements: str) -> dict[str, list[object]]:
    return {"skr-questions": [passage(f"q{number}", judgement=each) for number, each in enumerate(judgements)]}  # type: ignore[dict-item]


@pytest.mark.parametrize(
    "judgements", [["ir_better", "ir_better", "ir_worse"], ["ir_worse", "ir_better"], ["same", "same"], [], ["what", "is"]]
)
async def test_skr_searches_where_it_helped_or_where_nothing_is_known(judgements: list[str]) -> None:
    world = Scripted({GROUNDED: "found", ALONE: "known"}, known(*judgements))  # type: ignore[arg-type]
    result = await world.run("skr", question="Who?")
    assert world.order == "search search model"
    assert result.outputs == {"answer": "found", "route": "search", "judgements": judgements}


async def test_skr_does_not_search_where_it_harmed_more_often() -> None:
    judgements = ["ir_worse", "same", "ir_worse", "ir_better", "same"]
    world = Scripted({GROUNDED: "found", ALONE: "known"}, known(*judgements))  # type: ignore[arg-type]
    result = await world.run("skr", question="Who?")
    assert world.order == "search model"
    assert world.model.requests[0].system.endswith("any other words.")
    assert result.outputs == {"answer": "known", "route": "alone", "judgements": judgements}


async def test_skr_passes_over_neighbours_without_a_judgement() -> None:
    world = Scripted({GROUNDED: "found"}, {"skr-questions": [passage("q1"), passage("q2", judgement=3)]})
    assert (await world.run("skr", question="Who?")).outputs["judgements"] == ["3"]


CLASSIFY = "How much has to be looked up"


async def test_adaptive_rag_answers_an_easy_question_without_searching() -> None:
    world = Scripted({CLASSIFY: "A", ALONE: "Four."})
    result = await world.run("adaptive-rag", question="2 + 2?")
    assert world.order == "model model"
    form = world.model.requests[0].form
    assert form is not None
    assert (form.kind, form.value) == ("choice", ("A", "B", "C"))
    assert result.outputs == {"answer": "Four.", "route": "none"}


@pytest.mark.parametrize("says", ["B", "D", "", "C, I think", "b"])
async def test_adaptive_rag_searches_once_for_a_simple_question_and_for_a_class_that_it_does_not_know(says: str) -> None:
    world = Scripted({CLASSIFY: says, GROUNDED: "Ada."})
    result = await world.run("adaptive-rag", question="Who?")
    assert world.order == "model search model"
    assert result.outputs == {"answer": "Ada.", "route": "simple"}


async def test_adaptive_rag_reasons_over_a_hard_question_on_the_same_budget() -> None:
    world = Scripted({CLASSIFY: " C", "one thought": "It is so.", GROUNDED: "Ada."})
    result = await world.run("adaptive-rag", question="Who?")
    assert world.order == "model search" + " model search" * 4 + " model model"
    assert (result.spent.model_calls, result.spent.retrievals) == (7, 5)
    assert result.outputs == {"answer": "Ada.", "route": "several", "status": "bounded"}
    assert result.bounded_nodes == ("reasoning/thinking",)
