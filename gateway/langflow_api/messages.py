"""LangFlow's messages and results as JSON, out of pieces that are made once: what changes from run to run is put between them.

An answer holds the same text six times, so that rendering it anew would cost more than the run of a small flow.
"""

import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from gateway.langflow_api.face import Face, output_name
from gateway.origin import Component, Gives, Source

_MARK: Final = "\ue000"
_SLOT: Final = re.compile(f'"{_MARK}([a-z_]+){_MARK}"')
SLOTS: Final = frozenset({"session", "text", "timestamp", "run", "id", "usage", "state", "icon"})
Values = Mapping[str, bytes]
"""A JSON text for each of the SLOTS."""


class Template:
    """A JSON value with slots. `spaced`: with blanks after commas and colons, as Python writes it and LangFlow streams it."""

    __slots__ = ("_pieces", "_slots")

    def __init__(self, value: Any, *, spaced: bool = False) -> None:
        separators = (", ", ": ") if spaced else (",", ":")
        text = json.dumps(value, separators=separators, ensure_ascii=False)
        pieces = _SLOT.split(text)
        # Every second piece is a slot's name. One that is none stood in the value and goes back.
        self._pieces = [
            f'"{_MARK}{piece}{_MARK}"'.encode() if index % 2 and piece not in SLOTS else piece.encode()
            for index, piece in enumerate(pieces)
        ]
        self._slots = [(index, piece) for index, piece in enumerate(pieces) if index % 2 and piece in SLOTS]

    def render(self, values: Values) -> bytes:
        """The JSON text."""
        pieces = self._pieces.copy()
        for index, name in self._slots:
            pieces[index] = values[name]
        return b"".join(pieces)


def slot(name: str) -> str:
    """Stands in a template's value for what a run puts there."""
    return f"{_MARK}{name}{_MARK}"


def template(face: Face, kind: str, component: Component) -> Template:
    """The template of a component's "result" or "spaced_result", or of its message: as an "event", as an "anonymous_event"
    that does not tell what feeds the component, or as a "row". It is made when it is first asked for.
    """
    key = kind, component.id
    made: Template | None = face.made.get(key)
    if made is None:
        value = _BUILDERS[kind](face, component)
        made = face.made[key] = Template(value, spaced=kind in _SPACED)
    return made


def is_chat(component: Component) -> bool:
    """Whether the component says something in the chat, and so makes a message of it."""
    return component.role in ("chat_input", "chat_output")


def sender(component: Component) -> tuple[str, str]:
    """Who says it: LangFlow's word for the side, and the name."""
    if component.role == "chat_input":
        return "User", component.sender_name or "User"
    return "Machine", component.sender_name or "AI"


def message(face: Face, component: Component) -> dict[str, Any]:
    """LangFlow's Message as it is written out."""
    side, name = sender(component)
    return _written({
        "timestamp": slot("timestamp"), "sender": side, "sender_name": name, "session_id": slot("session"), "context_id": "",
        "text": slot("text"), "files": [], "error": False, "edit": False, "properties": _properties(_source(component)),
        "category": "message", "content_blocks": [], "session_metadata": {"graph_run_id": slot("run")}, "id": slot("id"),
        "flow_id": face.id, "run_id": slot("run"), "duration": None,
    })  # fmt: skip


def _unsaid(face: Face) -> dict[str, Any]:
    """The Message of a text output: it is nobody's, and stands in no chat."""
    return _written({
        "timestamp": slot("timestamp"), "sender": None, "sender_name": None, "session_id": "", "context_id": "",
        "text": slot("text"), "files": [], "error": False, "edit": False, "properties": _properties(None),
        "category": "message", "content_blocks": [], "session_metadata": None, "flow_id": face.id, "run_id": None,
        "duration": None,
    })  # fmt: skip


def _written(data: dict[str, Any]) -> dict[str, Any]:
    """LangFlow writes a Message's fields twice."""
    outside = (
        "sender", "sender_name", "files", "session_id", "context_id", "run_id", "timestamp", "flow_id", "error", "edit",
        "properties", "category", "content_blocks", "duration", "session_metadata", "text",
    )  # fmt: skip
    return {"text_key": "text", "data": data, "default_value": ""} | {key: data[key] for key in outside}


def _event(face: Face, component: Component) -> dict[str, Any]:
    return message(face, component) | {"id": slot("id")}


def _anonymous_event(face: Face, component: Component) -> dict[str, Any]:
    return _event(face, component.model_copy(update={"source": None}))


def _row(face: Face, component: Component) -> dict[str, Any]:
    side, name = sender(component)
    return {
        "id": slot("id"), "flow_id": face.id, "timestamp": slot("timestamp"), "sender": side, "sender_name": name,
        "session_id": slot("session"), "context_id": "", "text": slot("text"), "files": "[]", "edit": False, "duration": None,
        "properties": _properties(_source(component)), "category": "message", "content_blocks": [],
        "session_metadata": {"graph_run_id": slot("run")},
    }  # fmt: skip


def _result(face: Face, component: Component) -> dict[str, Any]:
    side, name = sender(component)
    said: dict[str, Any] = {
        "message": slot("text"), "sender": side, "sender_name": name, "session_id": slot("session"), "stream_url": None,
        "component_id": component.id, "files": [], "type": "text",
    }  # fmt: skip
    result: dict[str, Any] = {"timedelta": None, "duration": None, "component_display_name": component.display_name}
    result |= {"component_id": component.id, "used_frozen_result": False, "token_usage": None}
    if not is_chat(component):
        output = output_name(component)
        whole = {output: _unsaid(face)} if component.role == "text_output" else {}
        shown = {"repr": slot("text"), "raw": slot("text"), "type": "text"}
        outputs: dict[str, Any] = {output: {"message": slot("text"), "type": "text"}}
        outputs |= {each.name: {"message": "", "type": "unknown"} for each in component.outputs[1:] if _is_model(each)}
        return {
            "results": whole,
            "artifacts": {output: shown},
            "outputs": outputs,
            "logs": {output: []},
            "messages": [said | {"session_id": ""}] if whole else [],
        } | result
    return {
        "results": {"message": message(face, component)},
        "artifacts": artifacts(component),
        "outputs": {"message": {"message": slot("text"), "type": "text"}},
        "logs": {"message": []},
        "messages": [said],
    } | result


def artifacts(component: Component) -> dict[str, Any]:
    """What a chat component shows of itself."""
    side, name = sender(component)
    return {"message": slot("text"), "sender": side, "sender_name": name, "files": [], "type": "object"}


def _is_model(output: Gives) -> bool:
    """Whether the output gives the model itself, of which LangFlow tells that it can't tell anything."""
    return "LanguageModel" in output.types


def _source(component: Component) -> Source | None:
    return component.source if component.role != "chat_input" else None


def _properties(fed: Source | None) -> dict[str, Any]:
    source = {"id": fed and fed.id, "display_name": fed and fed.display_name, "source": fed and fed.type}
    return {
        "text_color": None, "background_color": None, "edited": False, "source": source, "icon": slot("icon"),
        "allow_markdown": False, "positive_feedback": None, "state": slot("state"), "targets": [], "usage": slot("usage"),
        "build_duration": None,
    }  # fmt: skip


_BUILDERS: Final = {"result": _result, "spaced_result": _result, "event": _event, "row": _row} | {
    "anonymous_event": _anonymous_event
}
_SPACED: Final = frozenset({"spaced_result", "event", "anonymous_event"})

COMPLETE: Final = b'"complete"'
PARTIAL: Final = b'"partial"'
NO_USAGE: Final = b"null"


def now() -> str:
    """The time as LangFlow's messages have it."""
    return f"{datetime.now(UTC).isoformat(' ', 'microseconds')[:26]} UTC"


def text_json(text: str) -> bytes:
    """A text as JSON. What is no Unicode text, such as half of a surrogate pair, is replaced."""
    try:
        return orjson.dumps(text)
    except TypeError:
        return orjson.dumps(text.encode("utf-8", "replace").decode())


def joined(parts: Sequence[bytes], *, spaced: bool = False) -> bytes:
    """A JSON array of JSON texts."""
    return b"[" + (b", " if spaced else b",").join(parts) + b"]"
