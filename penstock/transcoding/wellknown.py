"""Readers of google.protobuf's well-known types, whose JSON is not that of a message.

Struct is read here, because it carries every run's inputs; the rare ones go through protobuf's own parser.
"""

from collections.abc import Mapping
from typing import Any, Final

import orjson
from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor
from google.protobuf.message_factory import GetMessageClass

from penstock.transcoding.faults import Fault
from penstock.transcoding.scalars import Read, scalar_reader, text_reader

STRUCT: Final = "google.protobuf.Struct"
VALUE: Final = "google.protobuf.Value"
LIST_VALUE: Final = "google.protobuf.ListValue"
ANY: Final = "google.protobuf.Any"
STATUS: Final = "google.rpc.Status"

TEXTUAL: Final[Mapping[str, str]] = {
    "google.protobuf.Timestamp": "a time such as 2026-01-31T12:00:00Z",
    "google.protobuf.Duration": "a duration in seconds such as 1.5s",
    "google.protobuf.FieldMask": "names of fields with commas between them",
}
"""Types whose JSON is a string, and what a caller should write."""

WRAPPERS: Final = frozenset(
    f"google.protobuf.{kind}Value"
    for kind in ("Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes")
)

# A level of a Struct is three messages: the Struct, the entry of its map, the Value. A list's is two.
_LEVELS_PER_OBJECT: Final = 3
_LEVELS_PER_LIST: Final = 2


def wellknown_reader(message: Descriptor) -> Read | None:
    """The reader of a well-known type's JSON; None when the message is an ordinary one."""
    name = message.full_name
    if name == STRUCT:
        return _struct_reader(message)
    if name in WRAPPERS:
        return _wrapper_reader(message, scalar_reader(message.fields_by_name["value"]))
    if name in TEXTUAL:
        return _textual_reader(message)
    if name in (VALUE, LIST_VALUE, ANY):
        return _foreign_reader(message)
    return None


def wellknown_text_reader(message: Descriptor) -> Read | None:
    """The reader of the same type out of a query; None when it cannot be given there."""
    read = wellknown_reader(message)
    if read is None or message.full_name == ANY:
        return None
    if message.full_name in WRAPPERS:
        return _wrapper_reader(message, text_reader(message.fields_by_name["value"]))
    if message.full_name in TEXTUAL:
        return read
    return _json_reader(read)


def _struct_reader(message: Descriptor) -> Read:
    cls: Any = GetMessageClass(message)

    def read(value: Any, depth: int) -> Any:
        if type(value) is not dict:
            raise Fault("must be a JSON object")
        _check_depth(value, depth)
        struct = cls()
        struct.update(value)
        return struct

    return read


def _wrapper_reader(message: Descriptor, read_value: Read) -> Read:
    cls: Any = GetMessageClass(message)
    return lambda value, depth: cls(value=read_value(value, depth))


def _textual_reader(message: Descriptor) -> Read:
    cls: Any = GetMessageClass(message)
    wanted = TEXTUAL[message.full_name]

    def read(value: Any, _depth: int) -> Any:
        instance = cls()
        try:
            instance.FromJsonString(value)
        except (ValueError, TypeError, AttributeError, OverflowError) as error:
            raise Fault(f"must be {wanted}") from error
        return instance

    return read


def _foreign_reader(message: Descriptor) -> Read:
    cls: Any = GetMessageClass(message)

    def read(value: Any, depth: int) -> Any:
        _check_depth(value, depth)
        try:
            return json_format.ParseDict(value, cls())
        except (json_format.ParseError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise Fault(f"is not a {message.full_name}: {str(error)[:200]}") from error

    return read


def _json_reader(read: Read) -> Read:
    def read_json(text: Any, depth: int) -> Any:
        try:
            value = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            raise Fault(f"must be JSON: {error}") from error
        return read(value, depth)

    return read_json


def _check_depth(value: Any, depth: int) -> None:
    """Refuses what, as a message, would be nested deeper than protobuf parses."""
    if depth < 0:
        raise Fault("is nested too deeply")
    if type(value) is dict:
        for item in value.values():
            if type(item) in (dict, list):
                _check_depth(item, depth - _LEVELS_PER_OBJECT)
    elif type(value) is list:
        for item in value:
            if type(item) in (dict, list):
                _check_depth(item, depth - _LEVELS_PER_LIST)
