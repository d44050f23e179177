from pathlib import Path

import pytest

from gateway.execution import Run
from gateway.nodes.operations import OPERATIONS
from gateway.values import ACCEPTED_BY, TEXT_CHARS_MAX, PortType, as_text
from penstock.errors import MessageTooLarge
from tests.gateway.fakes import World, document, node, passage


def test_every_operation_says_its_name_and_its_types() -> None:
    for name, model in OPERATIONS.items():
        assert model.model_json_schema()["properties"]["operation"]["const"] == name
        assert model.__doc__
        assert all(
            each.get("description") for key, each in model.model_json_schema()["properties"].items() if key != "operation"
        )


@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_every_operation_has_a_test_of_its_own(name: str) -> None:
    tests = "".join(path.read_text() for path in (Path(__file__).parent / "operations").glob("test_*.py"))
    assert f'"{name}"' in tests


async def test_texts_that_multiply_are_stopped_before_they_are_made(world: World) -> None:
    doubling = [node(f"n{index}", "prompt", template="{a}{a}{a}{a}") for index in range(40)]
    edges = ["q > n0.a", *(f"n{index} > n{index + 1}.a" for index in range(39)), "n39 > out"]
    compiled = world.compile(document(node("q", "input"), *doubling, node("out", "output"), edges=edges))
    with pytest.raises(MessageTooLarge, match=f"more than the {TEXT_CHARS_MAX}") as caught:
        await compiled.run({"q": "x"})
    assert caught.value.metadata["node"] == "n11"  # The first whose 4 to the 12th is over 4 Mi.


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("x", "x"),
        (3.0, "3"),
        (3, "3"),
        (0.5, "0.5"),
        (1e300, "1e+300"),
        (True, "true"),
        (None, "null"),
        (("a", "b"), "a\nb"),
        ((), ""),
        ({"b": 1, "a": [None]}, '{"b":1,"a":[null]}'),
        ((passage(1, "x"), passage(2, "y")), "[1] x\n\n[2] y"),
    ],
)
def test_every_value_reads_as_text(value: object, text: str) -> None:
    assert as_text(value) == text


def test_json_takes_whatever_is_json_and_text_takes_only_text() -> None:
    assert PortType.DOCUMENTS not in ACCEPTED_BY[PortType.JSON]
    assert ACCEPTED_BY[PortType.TEXT] == {PortType.TEXT}
    assert all(kind in ACCEPTED_BY[kind] for kind in PortType)


async def test_an_output_returns_passages_lists_and_json_as_json(world: World) -> None:
    flow = document(
        node("q", "input"), node("docs", "retrieve", collection="squad", top_k=1),
        node("words", "transform", operation="split", separator=" "),
        node("found", "output"), node("list", "output"),
        edges=["q > docs", "docs > found", "q > words", "words > list"],
    )  # fmt: skip
    result = await world.compile(flow).run({"q": "a b"})
    passages = [{"chunk_id": "c1", "document_id": "d1", "text": "passage 1", "score": 1.0, "metadata": {"n": 1}}]
    assert result.outputs == {"found": passages, "list": ["a", "b"]}


def test_a_run_begins_with_nothing_but_its_inputs() -> None:
    run = Run({"a": 1})
    assert (run.inputs, run.outputs, run.sources, run.meter.input_tokens, run.emit) == ({"a": 1}, {}, {}, 0, None)
