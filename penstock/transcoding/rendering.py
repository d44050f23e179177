"""Messages into JSON, by renderers that are compiled once per message type.

The JSON is proto3's, with fields under their proto names. Fields without presence are always there, also when they hold their
default (an empty list is `[]`, a zero is `0`), so that a reader need not know the defaults; fields with presence, members of a
oneof among them, are there when they are set. 64-bit integers are strings, bytes are base64, enums are their names.
"""

import base64
import math
import struct
from collections.abc import Callable
from typing import Any, Final

import orjson
from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import DecodeError

from penstock.transcoding.reading import map_entry
from penstock.transcoding.wellknown import ANY, LIST_VALUE, STRUCT, TEXTUAL, VALUE, WRAPPERS

Render = Callable[[Any], Any]
"""Turns a field's value into what orjson writes."""

_SAFE_INTEGER: Final = 2.0**53
_FLOAT32: Final = struct.Struct("f")
_STRING_LIKE: Final = frozenset({FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT64})


class MessageRenderer:
    """Renders one message type, its fields in their order in the proto.

    `fields` are (name, renderer, whether it has presence); `oneofs` the renderers of each oneof's members.
    """

    def __init__(self) -> None:
        self.fields: list[tuple[str, Render | None, bool]] = []
        self.oneofs: list[tuple[str, dict[str, Render | None]]] = []

    def __call__(self, message: Any) -> dict[str, Any]:
        rendered: dict[str, Any] = {}
        for name, render, has_presence in self.fields:
            if has_presence and not message.HasField(name):
                continue
            value = getattr(message, name)
            rendered[name] = render(value) if render else value
        for oneof, members in self.oneofs:
            name = message.WhichOneof(oneof)
            if name:
                render, value = members[name], getattr(message, name)
                rendered[name] = render(value) if render else value
        return rendered


class Renderers:
    """The renderers of message types, each built once."""

    def __init__(self) -> None:
        self._renderers: dict[str, Render] = {}

    def of(self, message: Descriptor) -> Render:
        """The renderer of a message type. It raises ValueError for what JSON cannot hold, such as NaN in a Struct."""
        known = self._renderers.get(message.full_name)
        if known is not None:
            return known
        wellknown = _wellknown(message)
        if wellknown:
            self._renderers[message.full_name] = wellknown
            return wellknown
        # Known before its fields are, because a message may hold itself.
        renderer = self._renderers[message.full_name] = MessageRenderer()
        for field in message.fields:
            self._add(renderer, field)
        return renderer

    def field(self, field: FieldDescriptor) -> Render | None:
        """The renderer of a field's whole value, list or map; None where it is JSON already."""
        entry = map_entry(field)
        if entry:
            return self._map(*entry)
        one = self._one(field)
        if not field.is_repeated:
            return one
        return (lambda values: [one(value) for value in values]) if one else list

    def _add(self, renderer: MessageRenderer, field: FieldDescriptor) -> None:
        render = self.field(field)
        oneof = field.containing_oneof
        if oneof and len(oneof.fields) > 1:
            if not renderer.oneofs or renderer.oneofs[-1][0] != oneof.name:
                renderer.oneofs.append((oneof.name, {}))
            renderer.oneofs[-1][1][field.name] = render
        else:
            renderer.fields.append((field.name, render, field.has_presence))

    def _map(self, key: FieldDescriptor, value: FieldDescriptor) -> Render:
        render = self._one(value) or (lambda value: value)
        name = _bool_key if key.cpp_type == FieldDescriptor.CPPTYPE_BOOL else str
        return lambda entries: {name(key): render(entries[key]) for key in entries}

    def _one(self, field: FieldDescriptor) -> Render | None:
        if field.message_type is not None:
            return self.of(field.message_type)
        return _scalar(field)


def dump(rendered: Any) -> bytes:
    """JSON in one line."""
    return orjson.dumps(rendered)


def _scalar(field: FieldDescriptor) -> Render | None:
    if field.enum_type is not None:
        return _enum_renderer(field.enum_type)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return _render_bytes
    if field.cpp_type in _STRING_LIKE:
        return str
    if field.cpp_type == FieldDescriptor.CPPTYPE_FLOAT:
        return _render_float32
    if field.cpp_type == FieldDescriptor.CPPTYPE_DOUBLE:
        return _render_double
    return None


def _wellknown(message: Descriptor) -> Render | None:
    name = message.full_name
    if name in TEXTUAL:
        return lambda value: value.ToJsonString()
    if name in WRAPPERS:
        render = _scalar(message.fields_by_name["value"])
        return lambda wrapper: render(wrapper.value) if render else wrapper.value
    return {STRUCT: _render_struct, VALUE: _render_value, LIST_VALUE: _render_list, ANY: _render_any}.get(name)


def _render_struct(value: Any) -> dict[str, Any]:
    return {name: _render_value(item) for name, item in value.fields.items()}


def _render_list(value: Any) -> list[Any]:
    return [_render_value(item) for item in value.values]


def _render_value(value: Any) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "number_value":
        return _render_struct_number(value.number_value)
    if kind == "struct_value":
        return _render_struct(value.struct_value)
    if kind == "list_value":
        return _render_list(value.list_value)
    return None if kind in ("null_value", None) else getattr(value, kind)


def _render_struct_number(number: float) -> float | int:
    """Whole numbers without a fraction, as they were written; JSON has one type for both."""
    if not math.isfinite(number):
        raise ValueError(f"a google.protobuf.Value cannot hold {number} in JSON")
    return int(number) if number.is_integer() and abs(number) < _SAFE_INTEGER else number


def _render_any(value: Any) -> dict[str, Any]:
    try:
        rendered: dict[str, Any] = json_format.MessageToDict(value, preserving_proto_field_name=True)
    except (TypeError, DecodeError):  # A type that this process does not know, or bytes that are not of it.
        return {"@type": value.type_url, "value": _render_bytes(value.value)}
    return rendered


def _enum_renderer(enum: EnumDescriptor) -> Render:
    names = {number: value.name for number, value in enum.values_by_number.items()}
    return lambda number: names.get(number, number)


def _render_bytes(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")


def _render_double(value: float) -> float | str:
    return value if math.isfinite(value) else _not_finite(value)


def _render_float32(value: float) -> float | str:
    """The shortest decimal that is this float32; as a double it would have nine digits of noise."""
    if not math.isfinite(value):
        return _not_finite(value)
    for digits in (6, 7, 8):
        short = float(f"{value:.{digits}g}")
        try:
            if _FLOAT32.unpack(_FLOAT32.pack(short))[0] == value:
                return short
        except OverflowError:  # The largest float32, rounded up.
            continue
    return value


def _not_finite(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


def _bool_key(key: bool) -> str:
    return "true" if key else "false"
