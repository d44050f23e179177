import json
import math

import pytest
from google.protobuf import json_format
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.transcoding.reading import DEPTH_MAX, Readers
from penstock.transcoding.rendering import Renderers, dump

FUZZ = settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])

floats32 = st.floats(width=32)
struct_json = st.recursive(
    st.none()
    | st.booleans()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
books = st.fixed_dictionaries({}, optional={"name": st.text(), "title": st.text(), "pages": st.integers(-(2**63), 2**63 - 1)})
some = st.fixed_dictionaries(
    {},
    optional={
        "text": st.text(),
        "data": st.binary(),
        "flag": st.booleans(),
        "large": st.integers(-(2**63), 2**63 - 1),
        "unsigned_large": st.integers(0, 2**64 - 1),
        "single": floats32,
        "precise": st.floats(),
        "colour": st.integers(0, 5),
        "maybe": st.integers(-5, 5),
        "texts": st.lists(st.text(), max_size=3),
        "colours": st.lists(st.integers(0, 3), max_size=3),
        "books": st.lists(books, max_size=3),
        "counts": st.dictionaries(st.text(), st.integers(-5, 5), max_size=3),
        "shelf": st.dictionaries(st.integers(-5, 5), books, max_size=3),
        "answers": st.dictionaries(st.booleans(), st.text(), max_size=2),
        "book": books,
        "number": st.integers(-5, 5),
        "struct": st.dictionaries(st.text(), struct_json, max_size=3),
        "time": st.fixed_dictionaries({"seconds": st.integers(0, 2**33), "nanos": st.integers(0, 999_999_999)}),
        "duration": st.fixed_dictionaries({"seconds": st.integers(0, 2**33), "nanos": st.integers(0, 999_999_999)}),
        "wrapped_large": st.fixed_dictionaries({"value": st.integers(-(2**63), 2**63 - 1)}),
        "wrapped_single": st.fixed_dictionaries({"value": floats32}),
    },
)


@pytest.fixture(scope="module")
def everything(library_message):
    return library_message("Everything")


def rendered(message):
    return json.loads(dump(Renderers().of(message.DESCRIPTOR)(message)))


@FUZZ
@given(fields=some)
def test_a_message_is_rendered_as_protobuf_renders_it(everything, fields):
    message = everything(**fields)
    theirs = json_format.MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    assert rendered(message) == json.loads(json.dumps(theirs))


@FUZZ
@given(fields=some)
def test_what_is_rendered_is_read_back_as_the_same_message(everything, fields):
    message = everything(**fields)
    again = everything(**Readers().of(everything.DESCRIPTOR).read(rendered(message), DEPTH_MAX))
    # Rendered again, because there are many NaNs and JSON has one.
    assert rendered(again) == rendered(message)


@FUZZ
@given(value=floats32.filter(math.isfinite))
def test_a_float32_is_written_as_the_shortest_decimal_that_means_it(everything, value):
    message = everything(single=value)
    written = dump(Renderers().of(message.DESCRIPTOR)(message)["single"])
    assert everything(single=float(written)) == message
    assert len(written) <= len(dump(message.single))


def test_fields_without_presence_are_always_there_and_others_when_set(everything, library_message):
    book = library_message("Book")()
    assert rendered(book) == {"name": "", "title": "", "pages": "0"}
    bare = rendered(everything())
    assert (bare["texts"], bare["counts"], bare["colour"]) == ([], {}, "COLOUR_UNSPECIFIED")
    assert not {"maybe", "book", "name", "number", "chosen", "struct", "time", "wrapped_text", "any"} & set(bare)
    assert rendered(everything(maybe=0, number=0))["maybe"] == 0
    assert rendered(everything(maybe=0, number=0))["number"] == 0


def test_whole_numbers_in_a_struct_come_back_as_they_were_written(everything):
    message = everything()
    message.struct.update({"n": 3, "x": 0.5, "huge": 1e300})
    assert dump(Renderers().of(message.DESCRIPTOR)(message)["struct"]["n"]) == b"3"
    assert rendered(message)["struct"] == {"n": 3, "x": 0.5, "huge": 1e300}


def test_not_a_number_in_a_struct_is_refused(everything):
    message = everything()
    message.struct.update({"n": math.nan})
    with pytest.raises(ValueError, match="cannot hold nan"):
        rendered(message)


def test_an_any_of_a_type_that_is_not_known_is_passed_on_as_bytes(everything):
    message = everything(any={"type_url": "type.googleapis.com/of.Nobody", "value": b"\x01"})
    assert rendered(message)["any"] == {"@type": "type.googleapis.com/of.Nobody", "value": "AQ=="}


def test_an_any_of_a_known_type_is_rendered_with_its_type(everything):
    message = everything(any={"type_url": "type.googleapis.com/google.protobuf.Duration", "value": b"\x08\x05"})
    assert rendered(message)["any"] == {"@type": "type.googleapis.com/google.protobuf.Duration", "value": "5s"}
