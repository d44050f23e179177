import pytest
from pydantic import ValidationError

from gateway.nodes.operations import Operation
from gateway.values import PortType
from penstock.errors import FailedPrecondition
from tests.gateway.nodes.operations.operated import operation, result

SCORED = [{"text": "a", "score": 0.5}, {"text": "b", "score": 2}, {"text": "c", "score": 2.0}]


@pytest.mark.parametrize(
    ("made", "given", "expected"),
    [
        (operation("join", separator="-"), [("a", "b")], "a-b"),
        (operation("join"), [()], ""),
        (operation("select", index=-1), [("a", "b")], "b"),
        (operation("select", index=2, default="?"), [("a", "b")], "?"),
        (operation("select", index=-3, default=""), [("a", "b")], ""),
        (operation("vote"), [("b", "a", "a")], "a"),
        (operation("vote"), [("b", "a", "a", "b")], "b"),
        (operation("vote"), [("Yes.", " no", "NO!", "no", "yes")], " no"),
        (operation("vote"), [("a  b", "(A B)", "c", "c", "a b")], "a  b"),
        (operation("vote"), [("!!", "?", "?")], "?"),
        (operation("vote", normalise=False), [("Yes", "yes", "no", "no")], "no"),
        (operation("vote", default="none"), [()], "none"),
        (operation("argmax"), [("a", "b", "c"), [1, 3.5, 2]], "b"),
        (operation("argmax"), [("a", "b", "c"), [1, 2, 2.0]], "b"),
        (operation("argmax"), [("a",), (-1,)], "a"),
        (operation("argmax", default="none"), [(), []], "none"),
        (operation("argmax", key="score"), [SCORED], SCORED[1]),
        (operation("argmax", key="score", default={}), [[]], {}),
    ],
)
def test_an_operation_on_a_list_does_what_its_name_says(made: Operation, given: list[object], expected: object) -> None:
    assert result(made, *given) == expected


@pytest.mark.parametrize(
    ("made", "given", "says"),
    [
        (operation("select", index=5), [("a",)], "the list has 1 items, none at 5"),
        (operation("vote"), [()], "an empty list has no text"),
        (operation("argmax"), [(), []], "an empty list has no highest score"),
        (operation("argmax"), [("a", "b"), [1]], "a score for each of the 2 items"),
        (operation("argmax"), [("a", "b"), "12"], "a score for each of the 2 items"),
        (operation("argmax"), [("a",), [True]], "scores that are numbers"),
        (operation("argmax"), [("a",), [None]], "scores that are numbers"),
        (operation("argmax", key="score"), [{"score": 1}], "argmax takes a list"),
        (operation("argmax", key="score"), [[{"score": 1}, {"text": "b"}]], "objects that have a 'score'"),
        (operation("argmax", key="score"), [[1]], "objects that have a 'score'"),
    ],
)
def test_what_a_list_does_not_allow_is_an_error(made: Operation, given: list[object], says: str) -> None:
    with pytest.raises(FailedPrecondition) as caught:
        result(made, *given)
    assert says in caught.value.message


def test_the_default_of_argmax_is_of_the_type_that_it_gives() -> None:
    with pytest.raises(ValidationError, match="the default is a text"):
        operation("argmax", default={})


def test_argmax_takes_texts_and_scores_or_objects_alone() -> None:
    plain, keyed = operation("argmax"), operation("argmax", key="score")
    assert [port.name for port in plain.input_ports()] == ["value", "scores"]
    assert [port.name for port in keyed.input_ports()] == ["value"]
    assert (plain.output_type(), keyed.output_type()) == (PortType.TEXT, PortType.JSON)
