"""Calls of tools as JSON in an answer."""

import json
import random
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from generation_svc import form_schema
from penstock.tool_actions import (
    Action,
    ActionCall,
    ActionTool,
    AnswerText,
    action_schema,
    instructions,
    read_action,
    written_action,
)

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "boss": {"$ref": "#"}, "home": {"$ref": "#/$defs/place"}},
    "required": ["name"],
    "$defs": {"place": {"type": "object", "properties": {"near": {"$ref": "#/$defs/place"}}, "additionalProperties": False}},
}
TOOLS = (
    ActionTool(name="hire", description="Hires somebody.", parameters=PERSON),
    ActionTool(name="clock", description="", parameters={"type": "object", "properties": {}}),
)


@pytest.mark.parametrize("must_call", [False, True])
@pytest.mark.parametrize("tools", [TOOLS, TOOLS[:1], TOOLS[1:]])
def test_the_schema_is_one_that_engines_take(tools: tuple[ActionTool, ...], must_call: bool) -> None:
    schema = action_schema(tools, must_call=must_call)
    assert list(form_schema.faults(json.dumps(schema), "schema")) == []
    jsonschema.Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize(
    ("said", "is_valid"),
    [
        ({"calls": [{"tool": "hire", "arguments": {"name": "Ann", "boss": {"name": "Bo"}, "home": {"near": {}}}}]}, True),
        ({"calls": [{"tool": "clock", "arguments": {}}] * 8}, True),
        ({"answer": "hi"}, True),
        ({"calls": [{"tool": "hire", "arguments": {"boss": {"name": "Bo"}}}]}, False),
        ({"calls": [{"tool": "hire", "arguments": {"name": "Ann", "home": {"near": {"far": 1}}}}]}, False),
        ({"calls": [{"tool": "fire", "arguments": {}}]}, False),
        ({"calls": []}, False),
        ({"calls": [{"tool": "clock", "arguments": {}}] * 9}, False),
        ({"answer": "hi", "calls": []}, False),
    ],
)
def test_it_takes_calls_of_the_tools_and_texts(said: Any, is_valid: bool) -> None:
    assert jsonschema.Draft202012Validator(action_schema(TOOLS)).is_valid(said) is is_valid


def test_a_tool_must_be_called_where_that_is_asked() -> None:
    validator = jsonschema.Draft202012Validator(action_schema(TOOLS, must_call=True, calls_max=1))
    assert validator.is_valid({"calls": [{"tool": "clock", "arguments": {}}]})
    assert not validator.is_valid({"answer": "hi"})
    assert not validator.is_valid({"calls": [{"tool": "clock", "arguments": {}}] * 2})


def test_the_model_is_told_of_every_tool() -> None:
    told = instructions(TOOLS)
    assert all(text in told for text in ("hire: Hires somebody.", "clock: ", '"answer"', '"calls"'))
    assert '"answer"' not in instructions(TOOLS, must_call=True)


@given(st.text(), st.lists(st.tuples(st.text(), st.dictionaries(st.text(), st.integers() | st.text(), max_size=3)), max_size=3))
def test_what_is_written_is_read_again(text: str, calls: list[tuple[str, dict[str, Any]]]) -> None:
    action = (
        Action(calls=tuple(ActionCall(tool=tool, arguments=given) for tool, given in calls)) if calls else Action(text=text)
    )
    big = any(isinstance(value, int) and abs(value) >= 2**63 for _, given in calls for value in given.values())
    if not big:
        assert read_action(written_action(action)) == action


@given(st.text())
def test_any_text_reads_as_something(text: str) -> None:
    assert isinstance(read_action(text), Action)


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ("no JSON", "no JSON"),
        ("7", "7"),
        ('{"answer": "half of i', "half of i"),
        ('{"calls": [{"tool": "a", "argum', '{"calls": [{"tool": "a", "argum'),
        ('{"calls": [{"tool": 1, "arguments": {}}]}', '{"calls": [{"tool": 1, "arguments": {}}]}'),
        ('{"answer": 1}', '{"answer": 1}'),
    ],
)
def test_what_is_no_whole_action_is_said_as_it_is(said: str, text: str) -> None:
    assert read_action(said) == Action(text=text)


@given(st.text(), st.booleans(), st.integers())
def test_the_text_of_an_answer_comes_as_it_is_made(text: str, ascii_only: bool, seed: int) -> None:
    written = json.dumps({"answer": text}, ensure_ascii=ascii_only)
    cuts = random.Random(seed)
    reading, heard, at = AnswerText(), [], 0
    while at < len(written):
        size = cuts.randint(1, 4)
        heard.append(reading.add(written[at : at + size]))
        at += size
    assert "".join(heard) == text
    assert reading.add('more"') == ""


def test_calls_have_no_text() -> None:
    reading = AnswerText()
    assert "".join(reading.add(each) for each in '{"calls": [{"tool": "answer", "arguments": {"answer": "x"}}]}') == ""
