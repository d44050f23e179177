"""JSON Schemas of messages and enums as the transcoder reads and writes them, for the components of an OpenAPI document."""

from collections.abc import Collection, Mapping
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from penstock.transcoding.comments import comment
from penstock.transcoding.reading import map_entry
from penstock.transcoding.scalars import is_json_text
from penstock.transcoding.wellknown import ANY, LIST_VALUE, STRUCT, VALUE, WRAPPERS

Json = dict[str, Any]

_INT64: Final[Json] = {"type": "string", "format": "int64", "pattern": "^-?[0-9]+$"}
_UINT64: Final[Json] = {"type": "string", "format": "uint64", "pattern": "^[0-9]+$"}
_INT32: Final[Json] = {"type": "integer", "format": "int32"}
_UINT32: Final[Json] = {"type": "integer", "format": "uint32", "minimum": 0}

_SCALARS: Final[Mapping[int, Json]] = {
    FieldDescriptor.TYPE_STRING: {"type": "string"},
    FieldDescriptor.TYPE_BYTES: {"type": "string", "contentEncoding": "base64"},
    FieldDescriptor.TYPE_BOOL: {"type": "boolean"},
    FieldDescriptor.TYPE_FLOAT: {"type": "number", "format": "float"},
    FieldDescriptor.TYPE_DOUBLE: {"type": "number", "format": "double"},
    FieldDescriptor.TYPE_INT32: _INT32,
    FieldDescriptor.TYPE_SINT32: _INT32,
    FieldDescriptor.TYPE_SFIXED32: _INT32,
    FieldDescriptor.TYPE_UINT32: _UINT32,
    FieldDescriptor.TYPE_FIXED32: _UINT32,
    FieldDescriptor.TYPE_INT64: _INT64,
    FieldDescriptor.TYPE_SINT64: _INT64,
    FieldDescriptor.TYPE_SFIXED64: _INT64,
    FieldDescriptor.TYPE_UINT64: _UINT64,
    FieldDescriptor.TYPE_FIXED64: _UINT64,
}

_WELLKNOWN: Final[Mapping[str, Json]] = {
    STRUCT: {"type": "object", "additionalProperties": True},
    VALUE: {},
    LIST_VALUE: {"type": "array", "items": {}},
    ANY: {"type": "object", "properties": {"@type": {"type": "string"}}, "additionalProperties": True},
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Duration": {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]{1,9})?s$"},
    "google.protobuf.FieldMask": {"type": "string"},
}


class Schemas:
    """Schemas by full names. What is asked for, and all that it reaches, become components."""

    def __init__(self) -> None:
        self._components: dict[str, Json] = {}

    def components(self) -> dict[str, Json]:
        """Every component so far, in the order of the names."""
        return dict(sorted(self._components.items()))

    def message(self, message: Descriptor) -> Json:
        """A reference to a message's component, or the schema of a well-known type."""
        if message.full_name in _WELLKNOWN:
            return dict(_WELLKNOWN[message.full_name])
        if message.full_name in WRAPPERS:
            return self._one(message.fields_by_name["value"])
        if message.full_name not in self._components:
            # Known before its fields are, because a message may hold itself.
            component = self._components[message.full_name] = {}
            component.update(self.message_without(message, ()))
        return _reference(message.full_name)

    def message_without(self, message: Descriptor, left_out: Collection[str]) -> Json:
        """The schema of a message without some of its fields."""
        properties = {field.name: self.field(field) for field in message.fields if field.name not in left_out}
        schema: Json = {"type": "object", "properties": properties}
        return _described(schema, message.full_name)

    def field(self, field: FieldDescriptor) -> Json:
        """The schema of a field's value, with its comment."""
        entry = map_entry(field)
        schema: Json
        if entry:
            schema = {"type": "object", "additionalProperties": self._one(entry[1])}
        elif field.is_repeated:
            schema = {"type": "array", "items": self._one(field)}
        else:
            schema = self._one(field)
        return _described(schema, field.full_name)

    def _one(self, field: FieldDescriptor) -> Json:
        if field.message_type is not None:
            return self.message(field.message_type)
        if field.enum_type is not None:
            return self._enum(field.enum_type)
        if is_json_text(field):
            return {"oneOf": [{"type": "string", "contentMediaType": "application/json"}, {"type": "object"}]}
        return dict(_SCALARS[field.type])

    def _enum(self, enum: EnumDescriptor) -> Json:
        if enum.full_name not in self._components:
            meanings = [f"- `{value.name}`: {comment(f'{enum.full_name}.{value.name}')}" for value in enum.values]
            text = "\n".join((comment(enum.full_name), *meanings))
            self._components[enum.full_name] = {
                "type": "string",
                "enum": [value.name for value in enum.values],
                "description": text,
            }
        return _reference(enum.full_name)


def _reference(full_name: str) -> Json:
    return {"$ref": f"#/components/schemas/{full_name}"}


def _described(schema: Json, full_name: str) -> Json:
    text = comment(full_name)
    return {**schema, "description": text} if text else schema
