"""Readers of scalar values: what proto3 JSON allows in a field, as what the field's setter takes.

A reader takes (value, depth) and raises Fault. Numbers may come as JSON numbers or as strings, which is how proto3 JSON carries
64 bits; bytes are base64 of either alphabet, padded or not.
"""

import base64
import binascii
import re
from collections.abc import Callable
from typing import Any, Final

import orjson
from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor

from penstock.annotations.v1 import annotations_pb2
from penstock.transcoding.faults import Fault, nearest

Read = Callable[[Any, int], Any]
"""Turns a JSON value into a field's value. The second argument is how many levels of messages may still open below it."""

_FLOAT32_MAX: Final = 3.4028235e38
"""The largest float32 in its shortest decimal, which as a double is a little above it and is rounded to it."""

_WHOLE = re.compile(r"-?[0-9]{1,20}")
_NUMBER = re.compile(r"-?[0-9]{1,400}(\.[0-9]{1,400})?([eE][+-]?[0-9]{1,4})?")
_NOT_FINITE = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}
_TO_STANDARD = str.maketrans("-_", "+/")


def scalar_reader(field: FieldDescriptor) -> Read:
    """The reader of one value of a field that is no message."""
    if field.enum_type is not None:
        return _enum_reader(field.enum_type)
    return _read_json_text if is_json_text(field) else _READERS[field.type]


def is_json_text(field: FieldDescriptor) -> bool:
    """Whether the field is a string whose text is a JSON document."""
    marked: bool = field.GetOptions().Extensions[annotations_pb2.json_text]  # type: ignore[index]  # protoc's stubs leave it untyped.
    return field.type == FieldDescriptor.TYPE_STRING and marked


def text_reader(field: FieldDescriptor) -> Read:
    """The reader of the same field's value when it comes as text, out of a path or a query."""
    read = scalar_reader(field)
    if field.type == FieldDescriptor.TYPE_BOOL:
        return _read_bool_text
    if field.enum_type is not None:
        return lambda text, depth: read(int(text) if _WHOLE.fullmatch(text) else text, depth)
    return read


def _read_string(value: Any, _depth: int) -> str:
    if type(value) is not str:
        raise Fault("must be a string")
    return value


def _read_json_text(value: Any, _depth: int) -> str:
    """A JSON document: text as it is, or an object or array, which becomes compact text."""
    if type(value) is str:
        return value
    if type(value) not in (dict, list):
        raise Fault("must be a JSON object, or a string that holds one")
    try:
        return orjson.dumps(value).decode()
    except TypeError as error:  # Nested deeper than orjson goes.
        raise Fault("is nested too deeply") from error


def _read_bytes(value: Any, _depth: int) -> bytes:
    if type(value) is not str:
        raise Fault("must be a string of base64")
    try:
        padding = "=" * (-len(value) % 4)
        return base64.b64decode(value.translate(_TO_STANDARD) + padding, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Fault("is not base64") from error


def _read_bool(value: Any, _depth: int) -> bool:
    if type(value) is not bool:
        raise Fault("must be true or false")
    return value


def _read_bool_text(value: Any, _depth: int) -> bool:
    if value not in ("true", "false"):
        raise Fault("must be true or false")
    return bool(value == "true")


def _whole_reader(low: int, high: int) -> Read:
    def read(value: Any, _depth: int) -> int:
        written_otherwise = _WHOLE.fullmatch(value) if type(value) is str else type(value) is float and value.is_integer()
        number = int(value) if written_otherwise else value
        if type(number) is not int:
            raise Fault("must be a whole number")
        if not low <= number <= high:
            raise Fault(f"must be from {low} to {high}")
        return number

    return read


def _float_reader(highest: float) -> Read:
    def read(value: Any, _depth: int) -> float:
        if type(value) is str:
            if value in _NOT_FINITE:
                return _NOT_FINITE[value]
            if not _NUMBER.fullmatch(value):
                raise Fault("must be a number")
            value = float(value)
        elif type(value) not in (int, float):
            raise Fault("must be a number")
        if not -highest <= value <= highest:
            raise Fault(f"must be from {-highest:g} to {highest:g}")
        return float(value)

    return read


def _enum_reader(enum: EnumDescriptor) -> Read:
    numbers = {name: value.number for name, value in enum.values_by_name.items()}
    read_number = _whole_reader(-(2**31), 2**31 - 1)

    def read(value: Any, depth: int) -> int:
        if type(value) is str:
            if value not in numbers:
                raise Fault(f"must be one of {', '.join(numbers)}", suggestion=nearest(value, numbers))
            return numbers[value]
        return int(read_number(value, depth))

    return read


_INT32, _UINT32 = _whole_reader(-(2**31), 2**31 - 1), _whole_reader(0, 2**32 - 1)
_INT64, _UINT64 = _whole_reader(-(2**63), 2**63 - 1), _whole_reader(0, 2**64 - 1)

_READERS: Final[dict[int, Read]] = {
    FieldDescriptor.TYPE_STRING: _read_string,
    FieldDescriptor.TYPE_BYTES: _read_bytes,
    FieldDescriptor.TYPE_BOOL: _read_bool,
    FieldDescriptor.TYPE_FLOAT: _float_reader(_FLOAT32_MAX),
    FieldDescriptor.TYPE_DOUBLE: _float_reader(1.7976931348623157e308),
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
