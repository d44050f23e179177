import pytest
from pydantic import ValidationError

from gateway.nodes.operations import Operation
from penstock.errors import FailedPrecondition, MessageTooLarge
from tests.gateway.nodes.operations.operated import operation, result

PEOPLE = [{"name": "Ada", "born": 1815, "tags": ["x"]}, {"name": "Alan", "born": 1912.0, "tags": []}]


@pytest.mark.parametrize(
    ("made", "given", "expected"),
    [
        (operation("parse_json"), '{"a": [1, null]}', {"a": [1, None]}),
        (operation("parse_json", default={}), "{not", {}),
        (operation("get", path=["a", 1]), {"a": [0, "x"]}, "x"),
        (operation("get", path=[0]), ("a", "b"), "a"),
        (operation("get", path=["b"], default=7), {"a": 1}, 7),
        (operation("get", path=["0"], default="no"), ["x"], "no"),
        (operation("to_text"), "as it is", "as it is"),
        (operation("to_text"), {"a": True}, '{"a":true}'),
        (operation("format", template="{name}, {born} {tags}"), PEOPLE[0], 'Ada, 1815 ["x"]'),
        (operation("format", template="- {name} ({born})"), PEOPLE, "- Ada (1815)\n- Alan (1912)"),
        (operation("format", template="{name}", separator=" & "), PEOPLE, "Ada & Alan"),
        (operation("format", template='{"n": "{{ name }}"}', syntax="double-brace"), PEOPLE[0], '{"n": "Ada"}'),
        (operation("format", template="{name}{{{died}}}", default="?"), PEOPLE[0], "Ada{?}"),
        (operation("format", template="{name}"), {"name": "{name}{born}", "born": 1}, "{name}{born}"),
        (operation("format", template="no keys"), {}, "no keys"),
        (operation("format", template="{name}"), [], ""),
    ],
)
def test_an_operation_on_json_does_what_its_name_says(made: Operation, given: object, expected: object) -> None:
    assert result(made, given) == expected


@pytest.mark.parametrize(
    ("made", "given", "says"),
    [
        (operation("parse_json"), "{not", "the text is not JSON"),
        (operation("parse_json"), "[" * 5000, "the text is not JSON"),
        (operation("parse_json"), "[" * 33 + "]" * 33, "nested more than 32 deep"),
        (operation("parse_json"), " " * (2**20 + 1), "at most 1048576"),
        (operation("get", path=["a", "b"]), {"a": 1}, "the value has nothing at 'b'"),
        (operation("format", template="{died}"), PEOPLE[0], "the object has no key 'died'"),
    ],
)
def test_what_cannot_be_done_is_an_error_unless_there_is_a_default(made: Operation, given: object, says: str) -> None:
    with pytest.raises(FailedPrecondition, match="and the node has no default") as caught:
        result(made, given)
    assert says in caught.value.message


def test_format_takes_objects_alone_and_few_enough_of_them() -> None:
    made = operation("format", template="{name}")
    for value in ("text", ["text"], [[]], None, 3):
        with pytest.raises(FailedPrecondition, match="takes a JSON object, or an array of objects"):
            result(made, value)
    with pytest.raises(FailedPrecondition, match="10001 items; at most 10000"):
        result(made, [{"name": ""}] * 10_001)
    with pytest.raises(MessageTooLarge):
        result(made, [{"name": "x" * 1000}] * 10_000)


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({"template": "{name"}, "a lone {"),
        ({"template": "{name.first}"}, "a lone {"),
        ({"template": "{{name", "syntax": "double-brace"}, "begins no variable"),
        ({"template": ""}, "at least 1 character"),
    ],
)
def test_a_format_whose_template_is_none_is_told(params: dict[str, str], says: str) -> None:
    with pytest.raises(ValidationError) as caught:
        operation("format", **params)
    assert [error["loc"] for error in caught.value.errors()] == [("template",)]
    assert says in str(caught.value)
