"""JSON objects as google.protobuf.Struct and back. A Struct's numbers are doubles: whole ones come back as int."""

from collections.abc import Mapping
from typing import Any

from google.protobuf import json_format
from google.protobuf.struct_pb2 import Struct

from penstock.errors import InvalidArgument


def to_struct(values: Mapping[str, Any], what: str) -> Struct:
    """Raises InvalidArgument, speaking of `what`, where a value is not JSON: bytes, an object, a key that is no text.

    NaN and infinities pass: the services refuse them, since other clients can send them too.
    """
    try:
        return json_format.ParseDict(dict(values), Struct())
    except (json_format.ParseError, TypeError, ValueError, OverflowError) as error:
        raise InvalidArgument(f"{what} must be what JSON can say: {error}") from error


def from_struct(struct: Struct) -> dict[str, Any]:
    """The JSON object."""
    return json_format.MessageToDict(struct)
