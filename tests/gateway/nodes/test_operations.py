from typing import Any

import pytest

from gateway.execution import Run
from gateway.nodes.operations import OPERATIONS, Operation
from gateway.nodes.template import Template
from gateway.values import ACCEPTED_BY, TEXT_CHARS_MAX, PortType, as_text
from penstock.errors import FailedPrecondition, MessageTooLarge
from tests.gateway.fakes import World, document, node, passage


def operation(name: str, **params: Any) -> Operation:
    return OPERATIONS[name].model_validate({"operation": name, **params})


@pytest.mark.parametrize(
    ("made", "given", "expected"),
    [
        (operation("upper"), "straße", "STRASSE"),
        (operation("lower"), "ÄB", "äb"),
        (operation("strip"), " \n a b\t", "a b"),
        (operation("replace", old=".", new="!"), "a.b.c", "a!b!c"),
        (operation("truncate_chars", max_chars=2), "abc", "ab"),
        (operation("split"), "a\nb\n", ("a", "b", "")),
        (operation("split", separator=", ", max_items=2), "a, b, c", ("a", "b, c")),
        (operation("split", max_items=1), "a\nb", ("a\nb",)),
        (operation("join", separator="-"), ("a", "b"), "a-b"),
        (operation("join"), (), ""),
        (operation("select", index=-1), ("a", "b"), "b"),
        (operation("select", index=2, default="?"), ("a", "b"), "?"),
        (operation("select", index=-3, default=""), ("a", "b"), ""),
        (operation("first_documents", count=1), (passage(1), passage(2)), (passage(1),)),
        (operation("format_documents"), (passage(1, "x"), passage(2, "y")), "[1] x\n\n[2] y"),
        (
            operation("format_documents", template="{chunk_id}:{document_id}:{score}", separator=";"),
            (passage(1),),
            "c1:d1:1.0000",
        ),
        (operation("format_documents"), (), ""),
        (operation("parse_json"), '{"a": [1, null]}', {"a": [1, None]}),
        (operation("parse_json", default={}), "{not", {}),
        (operation("get", path=["a", 1]), {"a": [0, "x"]}, "x"),
        (operation("get", path=[0]), ("a", "b"), "a"),
        (operation("get", path=["b"], default=7), {"a": 1}, 7),
        (operation("get", path=["0"], default="no"), ["x"], "no"),
        (operation("to_text"), "as it is", "as it is"),
        (operation("to_text"), {"a": True}, '{"a":true}'),
    ],
)
def test_an_operation_does_what_its_name_says(made: Operation, given: object, expected: object) -> None:
    assert made.apply(given) == expected


@pytest.mark.parametrize(
    ("made", "given", "says"),
    [
        (operation("select", index=5), ("a",), "the list has 1 items, none at 5"),
        (operation("parse_json"), "{not", "the text is not JSON"),
        (operation("parse_json"), "[" * 5000, "the text is not JSON"),
        (operation("parse_json"), "[" * 33 + "]" * 33, "nested more than 32 deep"),
        (operation("parse_json"), " " * (2**20 + 1), "at most 1048576"),
        (operation("get", path=["a", "b"]), {"a": 1}, "the value has nothing at 'b'"),
    ],
)
def test_what_cannot_be_done_is_an_error_unless_there_is_a_default(made: Operation, given: object, says: str) -> None:
    with pytest.raises(FailedPrecondition, match="and the node has no default") as caught:
        made.apply(given)
    assert says in caught.value.message


def test_every_operation_says_its_name_and_its_types() -> None:
    for name, model in OPERATIONS.items():
        assert model.model_json_schema()["properties"]["operation"]["const"] == name
        assert isinstance(model.accepts, PortType)
        assert isinstance(model.gives, PortType)


async def test_texts_that_multiply_are_stopped_before_they_are_made(world: World) -> None:
    doubling = [node(f"n{index}", "prompt", template="{a}{a}{a}{a}") for index in range(40)]
    edges = ["q > n0.a", *(f"n{index} > n{index + 1}.a" for index in range(39)), "n39 > out"]
    compiled = world.compile(document(node("q", "input"), *doubling, node("out", "output"), edges=edges))
    with pytest.raises(MessageTooLarge, match=f"more than the {TEXT_CHARS_MAX}") as caught:
        await compiled.run({"q": "x"})
    assert caught.value.metadata["node"] == "n11"  # The first whose 4 to the 12th is over 4 Mi.


def test_a_replacement_that_multiplies_is_stopped_before_it_is_made() -> None:
    with pytest.raises(MessageTooLarge):
        operation("replace", old="a", new="b" * 65_536).apply("a" * 10**6)


@pytest.mark.parametrize(
    ("template", "variables", "rendered"),
    [
        ("plain", (), "plain"),
        ("{a}", ("a",), "<a>"),
        ("{a}{b}{a}", ("a", "b"), "<a><b><a>"),
        ('{{"x": {a}}}', ("a",), '{"x": <a>}'),
        ("{{{a}}}", ("a",), "{<a>}"),
        ("}}{{", (), "}{"),
    ],
)
def test_templates_render_variables_and_keep_doubled_braces(template: str, variables: tuple[str, ...], rendered: str) -> None:
    parsed = Template(template)
    assert parsed.variables == variables
    assert parsed.render({name: f"<{name}>" for name in variables}) == rendered


def test_what_a_value_says_is_never_taken_for_a_template() -> None:
    assert Template("{a} {b}").render({"a": "{b}", "b": "{a}"}) == "{b} {a}"


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
