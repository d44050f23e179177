"""JSON objects into messages, by readers that are compiled once per message type.

A MessageReader turns a JSON object into keyword arguments of the message's class, which sets them all in C. That is several
times faster than protobuf's json_format, and it names the field at fault. The JSON is proto3's: fields by their proto or their
JSON names, null as if it were not there, 64-bit numbers as strings or numbers, enums by name or number, bytes as base64. Unlike
there, base64 must be valid, and a string field marked json_text may be given as an object.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from penstock.transcoding.faults import Fault, unknown_field
from penstock.transcoding.scalars import Read, scalar_reader, text_reader
from penstock.transcoding.wellknown import VALUE, wellknown_reader

DEPTH_MAX: Final = 100
"""Levels of messages below the outermost: as many as protobuf itself parses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldReader:
    """How one field is read. `message` is there when its value, or each of its values, is an ordinary message."""

    name: str
    descriptor: FieldDescriptor
    read: Read
    message: "MessageReader | None"
    rivals: tuple[str, ...]
    takes_null: bool


class MessageReader:
    """Reads the JSON object of one message type. `fields` has each field under its proto and its JSON name."""

    def __init__(self, descriptor: Descriptor) -> None:
        self.descriptor = descriptor
        self.fields: dict[str, FieldReader] = {}

    def read(self, value: Any, depth: int) -> dict[str, Any]:
        """The keyword arguments of the message that `value` is. Raises Fault."""
        if type(value) is not dict:
            raise Fault(f"must be a JSON object, a {self.descriptor.full_name}")
        if depth < 0:
            raise Fault("is nested too deeply")
        kwargs: dict[str, Any] = {}
        for key, item in value.items():
            field = self.fields.get(key)
            if field is None:
                raise self.unknown(key)
            if item is not None or field.takes_null:
                check_free(field, kwargs)
                try:
                    kwargs[field.name] = field.read(item, depth - 1)
                except Fault as fault:
                    raise fault.inside(key) from None
        return kwargs

    def unknown(self, name: str) -> Fault:
        """The fault of a field that the message does not have."""
        return unknown_field(name, self.descriptor.full_name, (field.name for field in self.fields.values()))


def check_free(field: FieldReader, kwargs: Mapping[str, Any]) -> None:
    """Raises Fault when the field, or another of its oneof, has a value already."""
    if field.name in kwargs:
        raise Fault("is given twice").inside(field.name)
    for rival in field.rivals:
        if rival in kwargs:
            raise Fault(f"excludes {rival!r}, which is given too").inside(field.name)


class Readers:
    """The readers of message types, each built once."""

    def __init__(self) -> None:
        self._readers: dict[str, MessageReader] = {}

    def of(self, message: Descriptor) -> MessageReader:
        """The reader of a message type."""
        reader = self._readers.get(message.full_name)
        if reader is None:
            # Known before its fields are, because a message may hold itself.
            reader = self._readers[message.full_name] = MessageReader(message)
            for field in message.fields:
                reader.fields[field.name] = reader.fields[field.json_name] = self._field(field)
        return reader

    def _field(self, field: FieldDescriptor) -> FieldReader:
        entry = map_entry(field)
        message = None if entry else self._ordinary(field)
        if entry:
            read = self._map(*entry)
        else:
            read = message.read if message else _leaf_reader(field)
            if field.is_repeated:
                read = _list_reader(read, takes_null=_takes_null(field))
        return FieldReader(
            name=field.name,
            descriptor=field,
            read=read,
            message=message,
            rivals=_rivals(field),
            takes_null=_takes_null(field) and not field.is_repeated,
        )

    def _ordinary(self, field: FieldDescriptor) -> MessageReader | None:
        """The reader of the field's message, where it has one whose JSON is its fields."""
        kind = field.message_type
        return self.of(kind) if kind is not None and wellknown_reader(kind) is None else None

    def _map(self, key: FieldDescriptor, value: FieldDescriptor) -> Read:
        inner = self._field(value)
        read_key = text_reader(key)

        def read(items: Any, depth: int) -> dict[Any, Any]:
            if type(items) is not dict:
                raise Fault("must be a JSON object")
            entries = {}
            for name, item in items.items():
                try:
                    if item is None and not inner.takes_null:
                        raise Fault("must not be null")
                    entries[read_key(name, depth)] = inner.read(item, depth - 1)
                except Fault as fault:
                    raise fault.inside(f"[{name[:100]!r}]") from None
            return entries

        return read


def map_entry(field: FieldDescriptor) -> tuple[FieldDescriptor, FieldDescriptor] | None:
    """A map's fields for its key and its value; None when the field is no map."""
    entry = field.message_type
    if entry is None or not entry.GetOptions().map_entry:
        return None
    return entry.fields_by_name["key"], entry.fields_by_name["value"]


def _leaf_reader(field: FieldDescriptor) -> Read:
    """The reader of a scalar or of a well-known type."""
    return (wellknown_reader(field.message_type) if field.message_type else None) or scalar_reader(field)


def _list_reader(read_item: Read, *, takes_null: bool) -> Read:
    def read(items: Any, depth: int) -> list[Any]:
        if type(items) is not list:
            raise Fault("must be a JSON array")
        values = []
        for index, item in enumerate(items):
            try:
                if item is None and not takes_null:
                    raise Fault("must not be null")
                values.append(read_item(item, depth))
            except Fault as fault:
                raise fault.inside(f"[{index}]") from None
        return values

    return read


def _rivals(field: FieldDescriptor) -> tuple[str, ...]:
    """The other fields of the field's oneof. The oneof of one field that `optional` makes has none."""
    oneof = field.containing_oneof
    return tuple(other.name for other in oneof.fields if other.name != field.name) if oneof else ()


def _takes_null(field: FieldDescriptor) -> bool:
    """Elsewhere, null is the same as not given."""
    return field.message_type is not None and field.message_type.full_name == VALUE
