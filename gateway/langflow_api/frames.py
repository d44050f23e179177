"""The events of /api/v2/workflows: LangFlow's own, and those of AG-UI."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import orjson

from gateway.langflow_api.answers import Telling
from gateway.langflow_api.face import output_name
from gateway.langflow_api.messages import (
    COMPLETE,
    PARTIAL,
    Template,
    artifacts,
    is_chat,
    message,
    sender,
    slot,
    template,
    text_json,
)
from gateway.langflow_api.telling import Begun, Built, Ended, Happening, Said, Token
from gateway.origin import Component

PROTOCOLS: Final = ("agui", "langflow")
_PLAIN: Final = re.compile(r"(?!(?i:true|false|yes|no|on|off|null)$)[A-Za-z][^\x00-\x1f]*")
_SPECIAL: Final = re.compile(r": | #|[:\s]$")


class Frames(Protocol):
    """Makes the events of one run. Each is (whether it is kept for those who come later, its JSON)."""

    def of(self, happening: Happening) -> Iterator[tuple[bool, bytes]]: ...

    def failed(self, message: str) -> Iterator[tuple[bool, bytes]]: ...

    def cancelled(self, reason: str) -> Iterator[tuple[bool, bytes]]: ...


class LangflowFrames:
    """{"event", "data"}, spaced as LangFlow spaces them. Without `graph` nothing is told of components but their messages."""

    def __init__(self, telling: Telling, *, graph: bool = True) -> None:
        self._telling = telling
        self._graph = graph
        self._begun = datetime.now(UTC)

    def of(self, happening: Happening) -> Iterator[tuple[bool, bytes]]:
        match happening:
            case Token(component=component, text=text):
                said = b'{"chunk": %s, "id": "%s"}' % (text_json(text), self._telling.id_of(component).encode())
                yield False, _event("token", said)
            case Said(component=component, text=text, usage=usage, partial=partial):
                values = self._telling.values(component, text, usage=usage, state=PARTIAL if partial else COMPLETE)
                kind = "event" if self._graph else "anonymous_event"
                yield True, _event("add_message", template(self._telling.asked.face, kind, component).render(values))
            case Begun():
                yield from self._opening()
            case Built():
                yield from self._built(happening)
            case Ended():
                seconds = (datetime.now(UTC) - self._begun).total_seconds()
                yield True, _event("end", spaced({"build_duration": seconds}))

    def failed(self, message: str) -> Iterator[tuple[bool, bytes]]:
        yield True, _event("error", spaced({"error": message}))

    def cancelled(self, reason: str) -> Iterator[tuple[bool, bytes]]:
        yield True, _event("cancelled", spaced({"reason": reason}))

    def _opening(self) -> Iterator[tuple[bool, bytes]]:
        face = self._telling.asked.face
        if self._graph:
            order = {"ids": face.first_layer, "to_run": [each.id for each in face.components]}
            yield True, _event("vertices_sorted", spaced(order))
        yield True, _event("build_start", b"{}")

    def _built(self, built: Built) -> Iterator[tuple[bool, bytes]]:
        component = built.component
        is_output = component.id in self._telling.asked.face.output_ids
        if self._graph:
            yield True, _event("end_vertex", _vertex(self._telling, built))
        if is_output:
            yield True, _event("output", spaced(output_entry(component, built.text) | {"component_id": component.id}))


class AguiFrames:
    """AG-UI's events: the run, and the text of each answer."""

    def __init__(self, telling: Telling) -> None:
        self._telling = telling
        self._open: set[str] = set()

    def of(self, happening: Happening) -> Iterator[tuple[bool, bytes]]:
        match happening:
            case Begun():
                yield self._run("RUN_STARTED")
            case Token(component=component, text=text):
                yield from self._opened(component)
                yield False, _agui("TEXT_MESSAGE_CONTENT", messageId=self._telling.id_of(component), delta=text)
            case Said(component=component, text=text, partial=False) if component.role == "chat_output":
                yield from self._said(component, text)
            case Ended():
                yield self._run("RUN_FINISHED")
            case _:
                return

    def failed(self, message: str) -> Iterator[tuple[bool, bytes]]:
        yield from self._closed()
        yield True, _agui("RUN_ERROR", message=message)
        yield self._run("RUN_FINISHED")

    def cancelled(self, reason: str) -> Iterator[tuple[bool, bytes]]:
        yield from self._closed()
        yield True, _agui("CUSTOM", name="langflow.run.cancelled", value={"reason": reason})
        yield self._run("RUN_FINISHED")

    def _said(self, component: Component, text: str) -> Iterator[tuple[bool, bytes]]:
        message_id = self._telling.id_of(component)
        if message_id in self._open:
            self._open.discard(message_id)
            yield True, _agui("TEXT_MESSAGE_END", messageId=message_id)
        elif component.id not in self._telling.streamed and text:
            self._telling.streamed.add(component.id)  # It is said once.
            yield True, _agui("TEXT_MESSAGE_START", messageId=message_id, role="assistant")
            yield True, _agui("TEXT_MESSAGE_CONTENT", messageId=message_id, delta=text)
            yield True, _agui("TEXT_MESSAGE_END", messageId=message_id)

    def _opened(self, component: Component) -> Iterator[tuple[bool, bytes]]:
        message_id = self._telling.id_of(component)
        if message_id not in self._open:
            self._open.add(message_id)
            yield True, _agui("TEXT_MESSAGE_START", messageId=message_id, role="assistant")

    def _closed(self) -> Iterator[tuple[bool, bytes]]:
        for message_id in sorted(self._open):
            yield True, _agui("TEXT_MESSAGE_END", messageId=message_id)
        self._open.clear()

    def _run(self, kind: str) -> tuple[bool, bytes]:
        asked = self._telling.asked
        return True, _agui(kind, threadId=asked.session, runId=asked.run)


def frames_of(protocol: str, telling: Telling, *, graph: bool | None) -> Frames:
    """The events of a protocol, one of PROTOCOLS. `graph` None: what the protocol tells unasked."""
    return AguiFrames(telling) if protocol == "agui" else LangflowFrames(telling, graph=graph is not False)


def output_entry(component: Component, text: str) -> dict[str, object]:
    """An output as the workflows API has it."""
    return {
        "type": "data" if component.role == "data_output" else "message",
        "status": "completed",
        "display_name": component.display_name,
        "content": text,
        "metadata": {"component_type": component.type},
    }


def _vertex(telling: Telling, built: Built) -> bytes:
    """The data of end_vertex."""
    face, component = telling.asked.face, built.component
    after = face.successors.get(component.id, ())
    values = telling.values(component, built.text, usage=built.usage)
    data = _result(face, component, built)
    build = {
        "id": component.id, "inactivated_vertices": [], "next_vertices_ids": after, "top_level_vertices": after, "valid": True,
        "params": _params(component, built.text), "data": data, "timestamp": _instant(),
    }  # fmt: skip
    about = {
        "component_id": component.id, "display_name": component.display_name, "vertex_type": component.type,
        "is_output": component.id in face.output_ids, "is_terminal": not after,
        "output_types": component.outputs[0].types if component.outputs and component.outputs[0].types else ["Message"],
    }  # fmt: skip
    return Template({"build_data": build, "output_meta": about}, spaced=True).render(values)


def _result(face: Any, component: Component, built: Built) -> dict[str, Any]:
    if is_chat(component):
        name, shown = "message", artifacts(component)
        results: dict[str, Any] = {"message": message(face, component)}
    else:
        name, results = output_name(component), {}
        shown = {name: {"repr": slot("text"), "raw": slot("text"), "type": "text"}}
    return {
        "results": results, "outputs": {name: {"message": slot("text"), "type": "text"}}, "logs": {name: []}, "message": shown,
        "artifacts": shown, "timedelta": built.duration_s, "duration": f"{built.duration_s * 1000:.0f} ms",
        "used_frozen_result": False, "token_usage": None,
    }  # fmt: skip


def _params(component: Component, text: str) -> str:
    """What LangFlow shows of a chat component or a text output: YAML."""
    if component.role == "text_output":
        return f"- Text:\n    raw: {_yaml(text)}\n    repr: {_yaml(text)}\n    type: text\n"
    if not is_chat(component):
        return "None"
    side, name = sender(component)
    return f"- Files: []\n  Message: {_yaml(text)}\n  Sender: {side}\n  Sender Name: {_yaml(name)}\n  Type: object\n"


def _yaml(text: str) -> str:
    """A text as YAML: plain where that is no other type or structure, else in quotes."""
    if _PLAIN.fullmatch(text) and not _SPECIAL.search(text):
        return text
    quoted = text.replace("'", "''")
    return f"'{quoted}'" if text.isprintable() else json.dumps(text, ensure_ascii=False)


def _instant() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _event(name: str, data: bytes) -> bytes:
    return b'{"event": "%s", "data": %s}' % (name.encode(), data)


def spaced(value: object) -> bytes:
    """JSON with blanks, as Python writes it."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")


def _agui(kind: str, **fields: object) -> bytes:
    return orjson.dumps({"type": kind, **fields})
