from dataclasses import replace

import pytest
from pydantic import ValidationError

from gateway.nodes.operations import Operation
from gateway.values import Document, PortType
from tests.gateway.fakes import World, document, node, passage
from tests.gateway.nodes.operations.operated import operation, result


def found(*ids: str, **scores: float) -> tuple[Document, ...]:
    """Passages by their chunks' ids, such as "a2" of the document "a"."""
    return tuple(
        Document(chunk_id=each, document_id=each[0], text=f"text {each}", score=scores.get(each, 1 / rank))
        for rank, each in enumerate((*ids, *scores), start=1)
    )


def told(passages: tuple[Document, ...]) -> list[tuple[str, float]]:
    return [(each.chunk_id, round(each.score, 6)) for each in passages]


@pytest.mark.parametrize(
    ("made", "given", "expected"),
    [
        (operation("first_documents", count=1), (passage(1), passage(2)), (passage(1),)),
        (operation("format_documents"), (passage(1, "x"), passage(2, "y")), "[1] x\n\n[2] y"),
        (
            operation("format_documents", template="{chunk_id}:{document_id}:{score}", separator=";"),
            (passage(1),),
            "c1:d1:1.0000",
        ),
        (operation("format_documents"), (), ""),
    ],
)
def test_an_operation_on_passages_does_what_its_name_says(made: Operation, given: object, expected: object) -> None:
    assert result(made, given) == expected


@pytest.mark.parametrize(
    ("by", "kept"), [("chunk_id", ["a1", "a2", "b1"]), ("document_id", ["a1", "b1"]), ("text", ["a1", "a2", "b1"])]
)
def test_dedupe_keeps_the_first_of_the_same(by: str, kept: list[str]) -> None:
    made = operation("dedupe", by=by)
    assert [each.chunk_id for each in result(made, found("a1", "a2", "a1", "b1", "a2"))] == kept


def test_dedupe_takes_passages_without_ids_by_their_texts() -> None:
    nameless = [replace(each, chunk_id="") for each in found("a1", "a2", "a1")]
    posing = replace(found("b1")[0], chunk_id="text a1")
    assert [each.text for each in result(operation("dedupe"), (*nameless, posing))] == ["text a1", "text a2", "text b1"]


def test_dedupe_of_a_list_keeps_the_first_of_the_same_texts() -> None:
    made = operation("dedupe", type="list")
    assert result(made, ("b", "a", "b", "A")) == ("b", "a", "A")
    assert made.output_type() is PortType.LIST
    assert PortType.DOCUMENTS not in made.input_ports()[0].accepts


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({}, [("b", 1 / 62 + 1 / 61), ("a", 1 / 61), ("c", 1 / 62)]),
        ({"rank_constant": 1, "weights": [3]}, [("a", 1.5), ("b", 1 + 1 / 2), ("c", 1 / 3)]),
        ({"count": 1}, [("b", 1 / 62 + 1 / 61)]),
        ({"method": "max"}, [("b", 0.9), ("a", 0.8), ("c", 0.1)]),
        ({"method": "max", "weights": [1.0, 0.5]}, [("a", 0.8), ("b", 0.45), ("c", 0.05)]),
        ({"method": "concat"}, [("a", 0.8), ("b", 0.3), ("c", 0.1)]),
        ({"method": "concat", "count": 2, "weights": [9]}, [("a", 0.8), ("b", 0.3)]),
    ],
)
def test_merge_orders_by_its_method(params: dict[str, object], expected: list[tuple[str, float]]) -> None:
    one, other = found(a=0.8, b=0.3), found(b=0.9, c=0.1)
    exact = [(name, round(score, 6)) for name, score in expected]
    assert told(result(operation("merge", inputs=["one", "other"], **params), one=one, other=other)) == exact
    assert told(result(operation("merge", **params), (one, other))) == exact


@pytest.mark.parametrize("method", ["rrf", "max"])
def test_merge_leaves_equals_in_the_order_in_which_they_stand(method: str) -> None:
    lists = (found(c=1, a=1), found(b=1, d=1))
    order = ["c", "b", "a", "d"] if method == "rrf" else ["c", "a", "b", "d"]
    assert [each.chunk_id for each in result(operation("merge", method=method), lists)] == order


def test_merge_counts_a_passage_once_in_each_list() -> None:
    repeated = found("a", "a", "b")
    assert told(result(operation("merge", rank_constant=1), (repeated,))) == [("a", 0.5), ("b", round(1 / 3, 6))]
    assert result(operation("merge"), ()) == ()


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({"inputs": ["a", "a"]}, "the same name"),
        ({"inputs": ["a"], "weights": [1, 2]}, "2 weights for 1 inputs"),
        ({"weights": [0]}, "greater than 0"),
        ({"inputs": ["a b"]}, "match pattern"),
        ({"inputs": [f"i{number}" for number in range(17)]}, "at most 16"),
        ({"method": "best"}, "'rrf', 'max' or 'concat'"),
    ],
)
def test_a_merge_that_cannot_be_is_told(params: dict[str, object], says: str) -> None:
    with pytest.raises(ValidationError) as caught:
        operation("merge", **params)
    assert says in str(caught.value)


async def test_a_merge_takes_what_the_branches_that_ran_have_found(world: World) -> None:
    flow = document(
        node("q", "input"), node("docs", "retrieve", collection="squad", top_k=1),
        node("route", "switch", cases=[{"name": "more", "when": 'value.contains("?")'}]),
        node("more", "retrieve", collection="squad", top_k=2),
        node("all", "transform", operation="merge", inputs=["docs", "more"], method="max"), node("out", "output"),
        edges=["q > docs", "q > route.value", "route.more > more", "docs > all.docs", "more > all.more", "all > out"],
    )  # fmt: skip
    compiled = world.compile(flow)
    for question, count in [("who", 1), ("who?", 2)]:
        outputs = (await compiled.run({"q": question})).outputs
        assert [each["chunk_id"] for each in outputs["out"]] == ["c1", "c2"][:count]
