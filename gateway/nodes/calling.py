"""Calls of tools in the text of an answer: how a model is told of tools, and how its calls are found.

The form is the one that Hermes, Qwen and SmolLM models are trained on, which needs nothing of an engine:

    <tool_call>
    {"name": "weather", "arguments": {"city": "Denver"}}
    </tool_call>
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from gateway.execution import Tool, ToolCall
from gateway.values import DEPTH_MAX, is_deeper

OPENING: Final = "<tool_call>"
CLOSING: Final = "</tool_call>"
CALLS_MAX: Final = 64
"""Of one answer; what comes after them stays text."""

_TOLD: Final = """You can call these functions, each given as a JSON object on a line of its own:
<tools>
{tools}
</tools>
To call one, answer with its name and its arguments as a JSON object between these tags, and nothing after them:
<tool_call>
{{"name": <name>, "arguments": <arguments>}}
</tool_call>"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What an answer says beside its calls, and the calls."""

    text: str
    calls: tuple[ToolCall, ...]


def told(tools: Sequence[Tool]) -> str:
    """What is said to a model of the tools that it may call."""
    lines = (
        orjson.dumps(
            {
                "type": "function",
                "function": {"name": each.name, "description": each.description, "parameters": dict(each.parameters)},
            }
        ).decode()
        for each in tools
    )
    return _TOLD.format(tools="\n".join(lines))


def written(name: str, arguments: Any) -> str:
    """A call as the model writes it, for the turns before."""
    call = orjson.dumps({"name": name, "arguments": arguments}).decode()
    return f"{OPENING}\n{call}\n{CLOSING}"


def found(answer: str, tools: Collection[Tool]) -> Found:
    """The calls of `tools` in an answer. What is no call of one of them stays in the text."""
    names = {each.name for each in tools}
    texts: list[str] = []
    calls: list[ToolCall] = []
    for piece, is_call in _pieces(answer):
        call = _call(piece, names) if is_call and len(calls) < CALLS_MAX else None
        if call is None:
            texts.append(f"{OPENING}{piece}" if is_call else piece)
        else:
            calls.append(call)
    text = "".join(texts)
    return Found(text=text.rstrip() if calls else text, calls=tuple(calls))


class Holdback:
    """Lets the text of a stream through up to the first call, and keeps back what may be the beginning of one."""

    __slots__ = ("_held", "_is_open", "passed")

    def __init__(self) -> None:
        self._held = ""
        self._is_open = False
        self.passed = 0
        """Characters that were let through."""

    def let_through(self, text: str) -> str:
        """What of the stream so far can be told now."""
        if self._is_open:
            return ""
        self._held += text
        kept_from = self._kept_from()
        let, self._held = self._held[:kept_from], self._held[kept_from:]
        self.passed += len(let)
        return let

    def _kept_from(self) -> int:
        held = self._held
        opened = held.find(OPENING)
        self._is_open = opened >= 0
        if not self._is_open:
            opened = next((len(held) - n for n in range(len(OPENING) - 1, 0, -1) if held.endswith(OPENING[:n])), len(held))
        return len(held[:opened].rstrip())  # White space before a call is not told.


def _pieces(answer: str) -> Iterator[tuple[str, bool]]:
    """The texts outside of calls and, marked, what follows each opening tag."""
    position = 0
    while (opened := answer.find(OPENING, position)) >= 0:
        yield answer[position:opened], False
        start = opened + len(OPENING)
        closed = answer.find(CLOSING, start)
        position = len(answer) if closed < 0 else closed + len(CLOSING)
        yield answer[start:position], True
    yield answer[position:], False


def _call(piece: str, names: Collection[str]) -> ToolCall | None:
    value = _json(piece.removesuffix(CLOSING))
    if not isinstance(value, dict) or value.get("name") not in names:
        return None
    arguments = value.get("arguments", value.get("parameters", {}))
    if isinstance(arguments, str):
        arguments = _json(arguments)
    if not isinstance(arguments, dict) or is_deeper(arguments, DEPTH_MAX):
        return None
    return ToolCall(name=value["name"], arguments=orjson.dumps(arguments).decode())


def _json(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
