"""The turns of a conversation as OpenAI's two APIs write them."""

from collections.abc import Iterator
from typing import Any, Final

from gateway.execution import ChatMessage
from gateway.faults import quoted
from gateway.openai_api.asking import called
from gateway.openai_api.fields import Fields, an_object, refused

PARTS_MAX: Final = 256
CALLS_MAX: Final = 128
_ROLES: Final = {
    "system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool", "function": "tool",
}  # fmt: skip
_TEXT_PARTS: Final = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}
_PASSED_OVER: Final = frozenset({"reasoning"})
"""Items of a response that a client sends back and no flow has use for."""


def chat_message(value: Any, place: str) -> ChatMessage:
    """A message of a chat completion."""
    message = Fields(an_object(value, place), f"{place}.")
    role = _role(message)
    content = text_of(message.values.get("content"), f"{place}.content")
    if role == "assistant" and (calls := message.items("tool_calls", CALLS_MAX)):
        made = (_call(call, f"{place}.tool_calls[{at}]") for at, call in enumerate(calls))
        return ChatMessage(role=role, content="\n".join(([content] if content else []) + list(made)))
    return ChatMessage(role=role, content=content)


def items(values: list[Any], place: str) -> Iterator[ChatMessage]:
    """The turns that the input of a response lists."""
    for at, value in enumerate(values):
        item = Fields(an_object(value, f"{place}[{at}]"), f"{place}[{at}].")
        kind = item.text("type") or "message"
        if kind == "message":
            yield ChatMessage(role=_role(item), content=text_of(item.values.get("content"), item.param("content")))
        elif kind == "function_call":
            arguments = called(item.text("name", required=True), item.text("arguments"))
            yield ChatMessage(role="assistant", content=arguments)
        elif kind == "function_call_output":
            yield ChatMessage(role="tool", content=text_of(item.values.get("output"), item.param("output")))
        elif kind not in _PASSED_OVER:
            raise refused(item.param("type"), f"is message, function_call or function_call_output; not {kind[:40]!r}")


def text_of(content: Any, place: str) -> str:
    """The text of a message, which is one text or parts of it."""
    if isinstance(content, str):
        return content
    if content is None:
        return ""
    if not isinstance(content, list) or len(content) > PARTS_MAX:
        raise refused(place, f"must be a text, or a list of at most {PARTS_MAX} parts; found {quoted(content)}")
    return "".join(_part(part, f"{place}[{at}]") for at, part in enumerate(content))


def _part(value: Any, place: str) -> str:
    part = Fields(an_object(value, place), f"{place}.")
    kind = part.text("type", required=True)
    if kind not in _TEXT_PARTS:
        raise refused(part.param("type"), f"flows take text alone; not {kind[:40]!r}")
    return part.text(_TEXT_PARTS[kind])


def _role(message: Fields) -> str:
    role = message.text("role", required=True)
    if role not in _ROLES:
        raise refused(message.param("role"), f"is one of {', '.join(_ROLES)}; not {role[:40]!r}")
    return _ROLES[role]


def _call(value: Any, place: str) -> str:
    function = Fields(an_object(value, place), f"{place}.").part("function")
    return called(function.text("name", required=True), function.text("arguments"))
