"""Calls of tools as JSON in a model's answer: a way for every model whose answer can be held to a JSON Schema.

    {"calls": [{"tool": "weather", "arguments": {"city": "Oslo"}}]}   or   {"answer": "It is 3 degrees in Oslo."}

The model is told of its tools in words, its answer is held to the schema, and read back here.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

CALLS_MAX: Final = 8
_ANSWER: Final = re.compile(r'\s*(?:```(?:json)?\s*)?\{\s*"answer"\s*:\s*"')
_SAFE: Final = re.compile(
    r"""(?: [^"\\]
      | \\ ["\\/bfnrt]
      | \\u (?![dD][89abAB]) [0-9a-fA-F]{4}
      | \\u [dD][89abAB][0-9a-fA-F]{2} (?: \\u[0-9a-fA-F]{4} | (?= [^\\] | \\[^u] ) )
    )*""",
    re.VERBOSE,
)
"""Of a JSON text what can be decoded already: whole escapes, and both halves of one that has two."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionTool:
    """A function that a model may ask for. `parameters` is the JSON Schema of its arguments, an object's."""

    name: str
    description: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionCall:
    """A call that a model asks for."""

    tool: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """What an answer comes to: calls, or a text."""

    text: str = ""
    calls: tuple[ActionCall, ...] = ()


def instructions(tools: Sequence[ActionTool], *, must_call: bool = False) -> str:
    """What the model is told of its tools."""
    listed = "\n".join(f"- {each.name}: {each.description or 'no description'}\n  {_schema_text(each)}" for each in tools)
    answering = "" if must_call else '\nWhen you need no tool, answer with {"answer": "what you say to the user"}.'
    return (
        f"You can call these tools; after each stands the JSON Schema of its arguments:\n{listed}\n"
        f'To call some, answer with {{"calls": [{{"tool": "its name", "arguments": {{...}}}}]}}.{answering}'
    )


def action_schema(tools: Sequence[ActionTool], *, must_call: bool = False, calls_max: int = CALLS_MAX) -> dict[str, Any]:
    """The JSON Schema that the answer is held to. `must_call`: it may not be a text."""
    definitions: dict[str, Any] = {}
    calls = [_call_schema(tool, number, definitions) for number, tool in enumerate(tools)]
    item = calls[0] if len(calls) == 1 else {"anyOf": calls}
    calling = _object({"calls": {"type": "array", "items": item, "minItems": 1, "maxItems": calls_max}})
    schema = calling if must_call else {"anyOf": [calling, _object({"answer": {"type": "string"}})]}
    return {**schema, "$defs": definitions} if definitions else schema


def read_action(text: str) -> Action:
    """What an answer comes to; a text that is no action, as of an answer that was cut, is said as it is."""
    try:
        said = orjson.loads(text)
    except orjson.JSONDecodeError:
        return Action(text=AnswerText().add(text) or text)
    if not isinstance(said, dict):
        return Action(text=text)
    calls = said.get("calls")
    if isinstance(calls, list) and all(map(_is_call, calls)):
        return Action(calls=tuple(ActionCall(tool=each["tool"], arguments=each["arguments"]) for each in calls))
    answer = said.get("answer")
    return Action(text=answer if isinstance(answer, str) else text)


def written_action(action: Action) -> str:
    """An action as a model writes it: how an earlier turn stands in the conversation."""
    if not action.calls:
        return orjson.dumps({"answer": action.text}).decode()
    return orjson.dumps({"calls": [{"tool": each.tool, "arguments": dict(each.arguments)} for each in action.calls]}).decode()


class AnswerText:
    """The text of {"answer": "..."} while it comes. Nothing where it is something else, such as calls."""

    __slots__ = ("_at", "_text", "began")

    def __init__(self) -> None:
        self._text = ""
        self._at = 0
        self.began = False

    def add(self, piece: str) -> str:
        """More of the JSON; the text that it adds. Half a character, written as an escape, is U+FFFD."""
        self._text += piece
        if not self.began:
            beginning = _ANSWER.match(self._text)
            if beginning is None:
                return ""
            self.began, self._at = True, beginning.end()
        safe = _SAFE.match(self._text, self._at)
        assert safe is not None  # noqa: S101  # It matches nothing, at the least.
        self._at = safe.end()
        text = str(json.loads(f'"{safe[0]}"', strict=False))
        return text if text.isascii() else text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _schema_text(tool: ActionTool) -> str:
    return orjson.dumps(dict(tool.parameters)).decode()


def _is_call(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("tool"), str) and isinstance(value.get("arguments"), dict)


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _call_schema(tool: ActionTool, number: int, definitions: dict[str, Any]) -> dict[str, Any]:
    parameters: Any = {"type": "object", **tool.parameters}
    if b'"$ref"' in orjson.dumps(parameters):
        # References lead from the root, which is another one here: what they lead into is kept beside.
        name = f"tool{number}"
        definitions[name] = _moved(parameters, f"#/$defs/{name}")
        parameters = {"$ref": f"#/$defs/{name}"}
    return _object({"tool": {"const": tool.name}, "arguments": parameters})


def _moved(value: Any, root: str) -> Any:
    if isinstance(value, list):
        return [_moved(each, root) for each in value]
    if isinstance(value, dict):
        return {
            key: f"{root}{each[1:]}" if key == "$ref" and isinstance(each, str) and each.startswith("#") else _moved(each, root)
            for key, each in value.items()
        }
    return value
