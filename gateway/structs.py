"""google.protobuf.Struct to plain values and back: by hand, since the library's own way takes several times as long."""

from collections.abc import Mapping
from typing import Any

from google.protobuf import struct_pb2


def from_struct(struct: struct_pb2.Struct) -> dict[str, Any]:
    """A Struct as a dict. Whole numbers are ints; protobuf itself reads none that is nested deeper than 100 messages."""
    return {name: _from_value(value) for name, value in struct.fields.items()}


def to_struct(values: Mapping[str, Any]) -> struct_pb2.Struct:
    """JSON values as a Struct."""
    struct = struct_pb2.Struct()
    for name, value in values.items():
        _set(struct.fields[name], value)
    return struct


def _from_value(value: struct_pb2.Value) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return from_struct(value.struct_value)
    if kind == "list_value":
        return [_from_value(item) for item in value.list_value.values]
    if kind == "number_value":
        return _number(value.number_value)
    return None if kind in {None, "null_value"} else getattr(value, kind)


def _number(number: float) -> float:
    """A Struct has doubles alone; 3 that was sent as 3 is to read as 3 in a prompt. Beyond 2**53 a double is no exact count."""
    return int(number) if number.is_integer() and abs(number) <= 2**53 else number


def _set(message: struct_pb2.Value, value: Any) -> None:
    if isinstance(value, str):
        message.string_value = value
    elif isinstance(value, bool):
        message.bool_value = value
    elif isinstance(value, int | float):
        message.number_value = value
    elif value is None:
        message.null_value = struct_pb2.NULL_VALUE
    elif isinstance(value, Mapping):
        message.struct_value.SetInParent()
        for name, item in value.items():
            _set(message.struct_value.fields[name], item)
    else:
        message.list_value.SetInParent()
        for item in value:
            _set(message.list_value.values.add(), item)
