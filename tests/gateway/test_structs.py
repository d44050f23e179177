"""Structs to plain values and back."""

import json

import pytest
from google.protobuf import json_format, struct_pb2

from gateway.structs import from_struct, to_struct

VALUES = {"text": "x", "none": None, "yes": True, "list": [1, 2.5, [], {}], "object": {"n": -3, "big": 2.0**60, "half": 0.5}}


def test_values_go_there_and_back() -> None:
    struct = to_struct(VALUES)
    assert from_struct(struct) == VALUES
    assert json_format.MessageToDict(struct) == VALUES


@pytest.mark.parametrize(
    ("number", "text"), [(3, "3"), (-3.0, "-3"), (2.5, "2.5"), (2.0**53, "9007199254740992"), (1e300, "1e+300")]
)
def test_whole_numbers_read_as_they_were_sent(number: float, text: str) -> None:
    struct = struct_pb2.Struct()
    struct.update({"n": number})
    assert json.dumps(from_struct(struct)["n"]) == text
