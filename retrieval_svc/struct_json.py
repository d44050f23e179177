"""A chunk's metadata between google.protobuf.Struct and the JSON text that the record keeps."""

import math
from typing import Any, Final

import orjson
from google.protobuf import struct_pb2

from penstock.errors import InvalidArgument, Violation

_EXACT_INTEGER_MAX: Final = 2**53


def json_of(metadata: struct_pb2.Struct, field: str) -> str:
    """The JSON object's text, empty for an empty one. Raises InvalidArgument for a number that JSON does not have."""
    return orjson.dumps(_plain_struct(metadata, field)).decode() if metadata.fields else ""


def _plain_struct(struct: struct_pb2.Struct, field: str) -> dict[str, Any]:
    return {key: _plain(value, f"{field}.{key}") for key, value in struct.fields.items()}


def _plain(value: struct_pb2.Value, field: str) -> Any:
    match value.WhichOneof("kind"):
        case "struct_value":
            return _plain_struct(value.struct_value, field)
        case "list_value":
            return [_plain(item, field) for item in value.list_value.values]
        case "number_value":
            return _number(value.number_value, field)
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
        case _:
            return None


def _number(number: float, field: str) -> float | int:
    """Every number of a Struct is a double; those that were whole come back whole."""
    if not math.isfinite(number):
        message = f"{field} is not a finite number, which JSON does not have"
        raise InvalidArgument(message, metadata={"field": field}, violations=[Violation(message=message, field=field)])
    return int(number) if number.is_integer() and abs(number) < _EXACT_INTEGER_MAX else number
