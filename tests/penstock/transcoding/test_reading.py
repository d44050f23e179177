import json

import pytest
from google.protobuf import json_format
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.errors import MalformedRequest, UnknownField
from penstock.transcoding.faults import Fault
from penstock.transcoding.reading import DEPTH_MAX, Readers

FUZZ = settings(
    max_examples=300,
    deadline=None,
    derandomize=True,
    # The classes that the fixtures hand out have no state.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

plain_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
# Values that are near to right for some field.
texts = ["1", "-1", "1.5", "NaN", "Infinity", "AQ==", "AQ", "_-8", "AQ=", "!", "COLOUR_RED", "COLOUR_RAD", "true", "1e3"]
edges = ["18446744073709551615", "18446744073709551616", 2**31, -(2**31), 2**32, 1.0, 3e38, 1e39, [1, 2.5], {}, ["x"], [None]]
times = ["2026-01-31T12:00:00Z", "1.5s", "a.b,c", "10000-"]
objects = [
    {"name": "x"},
    {"title": "x", "pages": "7"},
    {"1": {"name": "x"}},
    {"a": "1"},
    {"true": "x"},
    [{"name": "x"}],
    {"a": None},
]
anys = [{"@type": "type.googleapis.com/google.protobuf.Duration", "value": "1s"}, {"@type": "x"}]
plausible = plain_json | st.sampled_from([*texts, *edges, *times, *objects, *anys])


def read(cls, value):
    return cls(**Readers().of(cls.DESCRIPTOR).read(value, DEPTH_MAX))


@pytest.fixture(scope="module")
def everything(library_message):
    return library_message("Everything")


@pytest.fixture(scope="module")
def field_names(everything):
    return [name for field in everything.DESCRIPTOR.fields for name in (field.name, field.json_name)]


@FUZZ
@given(data=st.data())
def test_what_is_read_is_what_protobuf_reads(everything, field_names, data):
    """One way only: where protobuf is laxer (base64, numbers with spaces), we refuse. It fails on null for repeated Values."""
    value = data.draw(
        st.dictionaries(st.sampled_from(sorted(set(field_names) - {"document", "values"})), plausible, max_size=4)
    )
    try:
        ours = read(everything, json.loads(json.dumps(value)))
    except Fault:
        return
    assert ours == json_format.ParseDict(value, everything()) or "NaN" in json.dumps(value)


@FUZZ
@given(value=st.dictionaries(st.text(max_size=5), plain_json, max_size=4))
def test_a_struct_is_what_protobuf_reads(everything, value):
    assert read(everything, {"struct": value}).struct == json_format.ParseDict({"struct": value}, everything()).struct


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"small": 5.0, "large": "-9223372036854775808", "unsigned_large": 2**64 - 1}, {"small": 5, "large": -(2**63)}),
        ({"wrappedText": "x", "unsignedSmall": "7"}, {"unsigned_small": 7}),
        ({"data": "-_8"}, {"data": b"\xfb\xff"}),
        ({"data": "+/8="}, {"data": b"\xfb\xff"}),
        ({"colour": "COLOUR_BLUE", "colours": [1, "COLOUR_RED", 9]}, {"colour": 2, "colours": [1, 1, 9]}),
        ({"text": None, "nested": None, "texts": None, "counts": None}, {}),
        ({"single": "1.5", "precise": "1e-3"}, {"single": 1.5, "precise": 0.001}),
        ({"document": {"a": [1, "é"], "b": {}}}, {"document": '{"a":[1,"é"],"b":{}}'}),
        ({"document": "any text"}, {"document": "any text"}),
        ({"document": [1]}, {"document": "[1]"}),
        ({"answers": {"true": "yes"}, "shelf": {"-3": {"name": "x"}}}, {"answers": {True: "yes"}}),
        ({"maybe": 0}, {"maybe": 0}),
    ],
)
def test_fields_take_what_proto3_json_allows(everything, value, expected):
    message = read(everything, value)
    for name, wanted in expected.items():
        assert getattr(message, name) == wanted
    assert message.HasField("maybe") == ("maybe" in value)


@pytest.mark.parametrize(
    ("value", "path", "problem"),
    [
        ({"small": "five"}, "small", "whole number"),
        ({"small": True}, "small", "whole number"),
        ({"small": 1.5}, "small", "whole number"),
        ({"small": 2**31}, "small", "from -2147483648 to 2147483647"),
        ({"unsigned_small": -1}, "unsigned_small", "from 0 to"),
        ({"large": "9223372036854775808"}, "large", "from -"),
        ({"single": 1e39}, "single", "from -"),
        ({"precise": "1e999"}, "precise", "from -"),
        ({"precise": "nan"}, "precise", "must be a number"),
        ({"flag": "true"}, "flag", "true or false"),
        ({"flag": 1}, "flag", "true or false"),
        ({"text": 5}, "text", "must be a string"),
        ({"data": "****"}, "data", "not base64"),
        ({"data": "é"}, "data", "not base64"),
        ({"data": [1]}, "data", "base64"),
        ({"texts": "x"}, "texts", "JSON array"),
        ({"texts": ["a", None]}, "texts[1]", "null"),
        ({"books": [{"name": "a"}, {"pages": "x"}]}, "books[1].pages", "whole number"),
        ({"nested": {"nested": {"book": {"title": 1}}}}, "nested.nested.book.title", "must be a string"),
        ({"nested": []}, "nested", "JSON object"),
        ({"counts": {"a": "x"}}, "counts['a']", "whole number"),
        ({"counts": []}, "counts", "JSON object"),
        ({"shelf": {"x": {}}}, "shelf['x']", "whole number"),
        ({"shelf": {"1": {"pages": []}}}, "shelf['1'].pages", "whole number"),
        ({"colour": "COLOUR_BLU"}, "colour", "did you mean 'COLOUR_BLUE'"),
        ({"colour": 1.5}, "colour", "whole number"),
        ({"struct": []}, "struct", "JSON object"),
        ({"time": "yesterday"}, "time", "2026-01-31T12:00:00Z"),
        ({"time": 5}, "time", "2026-01-31T12:00:00Z"),
        ({"duration": "5"}, "duration", "1.5s"),
        ({"wrapped_large": "x"}, "wrapped_large", "whole number"),
        ({"any": {"@type": "nothing"}}, "any", "is not a google.protobuf.Any"),
        ({"name": "x", "number": 5}, "number", "excludes 'name'"),
        ({"maybe_text": "a", "maybeText": "b"}, "maybe_text", "given twice"),
        ({"document": 5}, "document", "JSON object"),
    ],
)
def test_a_wrong_value_is_refused_with_its_place(everything, value, path, problem):
    with pytest.raises(Fault) as caught:
        read(everything, value)
    error = caught.value.to_error("body")
    assert isinstance(error, MalformedRequest)
    assert error.metadata["field"] == path
    assert problem in error.message


@pytest.mark.parametrize(
    ("value", "path", "suggestion"),
    [
        ({"texst": "x"}, "texst", "did you mean 'text'"),
        ({"books": [{"nmae": "x"}]}, "books[0].nmae", "did you mean 'name'"),
        ({"book": {"zzz": 1}}, "book.zzz", "it has name, pages, title"),
        ({"": 1}, "", "it has"),
    ],
)
def test_an_unknown_field_is_named_with_the_nearest_that_exists(everything, value, path, suggestion):
    with pytest.raises(Fault) as caught:
        read(everything, value)
    error = caught.value.to_error("body")
    assert isinstance(error, UnknownField)
    assert error.metadata["field"] == path
    assert suggestion in error.message


def nested(levels, wrap, innermost):
    for _ in range(levels):
        innermost = wrap(innermost)
    return innermost


@pytest.mark.parametrize(
    ("wrap", "innermost", "limit"),
    [
        (lambda inner: {"nested": inner}, {}, 100),
        (lambda inner: {"struct": {"a": inner}}, "x", 1),
        (lambda inner: {"a": inner}, {}, 32),
        (lambda inner: [inner], [], 48),
    ],
    ids=["messages", "one struct", "objects in a struct", "lists in a struct"],
)
def test_what_is_read_can_be_parsed_again_and_deeper_is_refused(everything, wrap, innermost, limit):
    def request(levels):
        value = nested(levels, wrap, innermost)
        return value if "nested" in value or "struct" in value else {"struct": {"top": value}}

    accepted = read(everything, request(limit))
    assert everything.FromString(accepted.SerializeToString()) == accepted
    if limit > 1:
        with pytest.raises(Fault, match="too deeply"):
            read(everything, request(limit + 1))
