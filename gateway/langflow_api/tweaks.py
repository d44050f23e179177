"""Tweaks: what a caller sets of components' fields for one run, as inputs and overrides of our flow.

LangFlow passes over components and fields that it does not know, and so does this, along with fields that mean nothing here.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.flow_model import FlowInput
from gateway.langflow_api.face import Face
from gateway.langflow_api.wording import TWICE_CHAT, TWICE_TEXT, refused, refused_tweaks
from gateway.origin import Component
from gateway.values import PortType, as_text


@dataclass(slots=True)
class Settings:
    """What becomes of tweaks: values of the flow's inputs, and {node: {parameter: value}}."""

    inputs: dict[str, Any] = field(default_factory=dict)
    overrides: dict[str, dict[str, Any]] = field(default_factory=dict)


def check_twice(tweaks: Mapping[str, Any], input_value: str | None, input_type: str | None) -> None:
    """Raises Refused where an input's value is given both ways. LangFlow tells inputs by what their keys look like."""
    if input_value is None:
        return
    for key, value in tweaks.items():
        if not isinstance(value, dict) or value.get("input_value") is None:
            continue
        if "ChatInput" in key or "Chat Input" in key:
            if input_type == "chat":
                raise refused(400, TWICE_CHAT)
        elif ("TextInput" in key or "Text Input" in key) and input_type == "text":
            raise refused(400, TWICE_TEXT)


def settings(face: Face, tweaks: Mapping[str, Any], variables: Mapping[str, str]) -> Settings:
    """What tweaks and global variables of one request set. Raises Refused: all is looked at before anything is set."""
    made = Settings()
    if variables:
        for component in face.components:
            for name, variable in component.variables.items():
                if variable.upper() in variables:
                    _set(face, component, name, variables[variable.upper()], made)
    if tweaks:
        pending = list(_addressed(face, tweaks))
        kept = {name for component, values in pending for name in values if face.is_protected(component, name)}
        if kept:
            raise refused_tweaks(sorted(kept))
        for component, values in pending:
            for name, written in values.items():
                _tweak(face, component, name, _value(written, variables), made)
    if made.overrides and not face.is_open:
        fields = sorted({name for values in made.overrides.values() for name in values})
        raise refused_tweaks(fields, 'This flow does not accept tweaks: its "overrides" is not "all".')
    return made


def _addressed(face: Face, tweaks: Mapping[str, Any]) -> Iterable[tuple[Component, Mapping[str, Any]]]:
    """The components that tweaks are for, each with those that it has a field for; those for all come last."""
    for_all = {name: value for name, value in tweaks.items() if not isinstance(value, dict)}
    for key, value in tweaks.items():
        if isinstance(value, dict) and key in face.by_name:
            yield face.by_name[key], value
    if for_all:
        for component in face.components:
            yield component, for_all


class _Absent:
    """A tweak that sets something of the field, and not its value."""


_ABSENT = _Absent()


def _value(written: Any, variables: Mapping[str, str]) -> Any:
    """The value of a tweak: itself, or what {"value": ..., "load_from_db": ...} says. Raises Refused."""
    if not isinstance(written, dict):
        return written
    if "value" not in written:
        return written if "load_from_db" not in written else _ABSENT
    value = written["value"]
    if not written.get("load_from_db"):
        return value
    name = str(value)
    if name.upper() not in variables:
        # A caller names no variable of the server's: it would read every secret of it one by one.
        raise refused(400, f"{name[:80]} variable not found.")
    return variables[name.upper()]


def _tweak(face: Face, component: Component, name: str, value: Any, made: Settings) -> None:
    if value is not _ABSENT and name in component.fields:
        _set(face, component, name, value, made)


def _set(face: Face, component: Component, name: str, value: Any, made: Settings) -> None:
    place = component.fields.get(name, "")
    if place.startswith("input:"):
        declared = face.inputs.get(place.removeprefix("input:"))
        if declared is not None:
            made.inputs[declared.name] = _given(declared, value)
        return
    node_id, dot, param = place.partition(".")
    if dot and node_id in face.nodes:
        made.overrides.setdefault(node_id, {})[param] = face.lax(node_id, param, value)


def _given(declared: FlowInput, value: Any) -> Any:
    """A text input takes whatever can be written; the others what they are."""
    if declared.type is not PortType.TEXT or isinstance(value, str):
        return value
    return "" if value is None else as_text(value)
