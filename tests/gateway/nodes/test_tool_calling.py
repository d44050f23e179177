"""What a model's answer is taken to say, whole and while it comes."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.execution import Tool
from gateway.nodes.tool_calling import Malformed, Use, action_schema, instructions, read_action
from penstock.tool_actions import AnswerText

SEARCH = Tool(
    name="search", description="Finds passages.", parameters={"type": "object", "properties": {"q": {"type": "string"}}}
)
ADD = Tool(name="add", description="Adds.", parameters={})
TOOLS = (SEARCH, ADD)


def use(tool: str, **arguments: Any) -> Use:
    return Use(tool=tool, arguments=arguments)


@pytest.mark.parametrize(
    ("text", "action"),
    [
        ('{"tool": "search", "arguments": {"q": "x"}}', use("search", q="x")),
        ('  {"tool":"add","arguments":{}}\n', use("add")),
        ('{"tool": "add"}', use("add")),
        ('```json\n{"tool": "search", "arguments": {"q": "x"}}\n```', use("search", q="x")),
        ('I will look. {"tool": "search", "arguments": {"q": "{x}"}} Then I will say.', use("search", q="{x}")),
        ('<tool_call>\n{"name": "search", "arguments": {"q": "x"}}\n</tool_call>', use("search", q="x")),
        ('{"name": "search", "parameters": {"q": "x"}}', use("search", q="x")),
        ('{"function": {"name": "search", "arguments": "{\\"q\\": \\"x\\"}"}}', use("search", q="x")),
        ('<think>{"tool": "add"} or so</think>{"tool": "search", "arguments": {"q": "x"}}', use("search", q="x")),
        ('the set {a} first; {"tool": "search", "arguments": {"q": "x"}}', use("search", q="x")),
        ('{"answer": "Denver"}', "Denver"),
        ('```json\n{"answer": "a\\n\\"b\\" \\u00e9 \\ud83d\\ude00"}\n```', 'a\n"b" é 😀'),
        ('{"answer": "in two\nlines"}', "in two\nlines"),
        ('{"answer": ""}', ""),
        ('{"answer": "cut sho', "cut sho"),
        ('{"answer": "cut in an escape \\u00', "cut in an escape "),
        ('{"answer": "half \\ud83d of one"}', "half \ufffd of one"),
        ('{"answer": 42}', "42"),
        ('{"reason": "I know", "answer": "Denver"}', "Denver"),
        ("It is Denver.", "It is Denver."),
        ("<think>hm</think> It is Denver.", "It is Denver."),
    ],
)
def test_what_an_answer_says_to_do(text: str, action: Use | str) -> None:
    assert read_action(text, TOOLS) == action


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "it is empty"),
        ("<think>I am still thinking</think>", "it is empty"),
        ('{"tool": "serach", "arguments": {}}', 'no tool "serach"; the tools are search, add'),
        ('{"tool": ["search"], "arguments": {}}', "no tool"),
        ('{"tool": "search", "arguments": {"q": "x"', "no complete JSON object"),
        ('{"tool": "search", "arguments": [1]}', "arguments are no JSON object"),
        ('{"tool": "search", "arguments": "not json"}', "arguments are no JSON object"),
        ('{"arguments": {}}', "no tool null"),
        ('{"tool": "search", "arguments": {"q": NaN}}', "no complete JSON object"),
        ('{"tool": "search", "arguments": {"q": "\\ud83d"}}', "no complete JSON object"),
        ('{"a":' * 5000, "no complete JSON object"),
        ('{"tool": "search", "arguments": ' + '{"a":' * 40 + "1" + "}" * 41, "no complete JSON object|no tool"),
    ],
)
def test_what_says_nothing_is_told_in_words_for_the_model(text: str, problem: str) -> None:
    with pytest.raises(Malformed, match=problem):
        read_action(text, TOOLS)


@given(st.text())
def test_any_text_is_an_action_or_malformed(text: str) -> None:
    for said in (text, '{"tool": "search", "arguments": ' + text, '{"answer": "' + text):
        try:
            action = read_action(said, TOOLS)
        except Malformed:
            continue
        assert isinstance(action, Use | str)


@given(st.text(), st.data())
def test_an_answer_that_comes_in_pieces_is_the_same_answer(text: str, data: st.DataObject) -> None:
    said = json.dumps({"answer": text}, ensure_ascii=data.draw(st.booleans()))
    told, reader = "", AnswerText()
    while said:
        size = data.draw(st.integers(min_value=1, max_value=len(said)))
        told += reader.add(said[:size])
        said = said[size:]
    assert told == text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def test_the_schema_has_a_form_for_each_tool_and_one_for_the_answer() -> None:
    forms = json.loads(action_schema(TOOLS))["anyOf"]
    assert [form["required"] for form in forms] == [["tool", "arguments"], ["tool", "arguments"], ["answer"]]
    assert forms[0]["properties"]["tool"] == {"const": "search"}
    assert forms[0]["properties"]["arguments"] == {"type": "object", "properties": {"q": {"type": "string"}}}
    assert forms[1]["properties"]["arguments"] == {"type": "object"}


def test_definitions_of_a_tools_schema_stand_where_references_find_them() -> None:
    place = {"$defs": {"Place": {"type": "string"}}, "properties": {"at": {"$ref": "#/$defs/Place"}}}
    other = {"$defs": {"Place": {"type": "number"}}, "properties": {"at": {"$ref": "#/$defs/Place"}}}
    tools = [Tool(name=name, description="", parameters=each) for name, each in (("a", place), ("b", place), ("c", other))]
    schema = json.loads(action_schema(tools))
    assert schema["$defs"] == place["$defs"]
    assert "$defs" not in schema["anyOf"][1]["properties"]["arguments"]
    assert "$defs" in schema["anyOf"][2]["properties"]["arguments"]


def test_the_model_is_told_of_every_tool_and_how_to_say_what_it_wants() -> None:
    told = instructions(TOOLS)
    assert "- search: Finds passages. Arguments: {" in told
    assert "- add: Adds." in told
    assert '{"answer": "TEXT"}' in told
