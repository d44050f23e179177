from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Final

import pytest
from google.protobuf import json_format
from google.protobuf.message import DecodeError

from penstock.errors import InvalidArgument
from penstock.retrieval.v1 import retrieval_pb2 as pb
from penstock.transcoding.faults import Fault
from penstock.transcoding.reading import DEPTH_MAX, Readers
from retrieval_svc.filter_messages import CONDITIONS_MAX, LEVELS_MAX, VALUES_MAX, filter_from, filter_message
from retrieval_svc.filters import AllOf, AnyOf, Exists, NoneOf, OneOf, Range, parsed_time

EXISTS: Final = {"exists": {"field": "a"}}
SEARCH: Final[Any] = pb.SearchRequest.DESCRIPTOR


def message(condition: dict[str, Any]) -> pb.Filter:
    return json_format.ParseDict(condition, pb.Filter())


def nested(levels: int) -> dict[str, Any]:
    condition: dict[str, Any] = EXISTS
    for _ in range(levels - 1):
        condition = {"all_of": {"filters": [condition]}}
    return condition


def fault_of(condition: dict[str, Any]) -> InvalidArgument:
    with pytest.raises(InvalidArgument) as raised:
        filter_from(message(condition))
    return raised.value


def test_every_kind_of_condition_is_read() -> None:
    condition = {
        "all_of": {
            "filters": [
                {"equals": {"field": "a", "value": 1}},
                {"one_of": {"field": "b", "values": ["x", 2.5, True]}},
                {"any_of": {"filters": [{"exists": {"field": "c.d"}}]}},
                {"none_of": {"filters": [{"range": {"field": "e", "gt": 1, "lte": 2}}]}},
            ]
        }
    }
    assert filter_from(message(condition)) == AllOf(
        filters=(
            OneOf(field="a", values=(1.0,)),
            OneOf(field="b", values=("x", 2.5, True)),
            AnyOf(filters=(Exists(field="c.d"),)),
            NoneOf(filters=(Range(field="e", gt=1.0, lte=2.0),)),
        )
    )


def test_bounds_in_rfc_3339_are_times_and_other_strings_are_strings() -> None:
    condition = {"range": {"field": "t", "gte": "2026-11-22", "lt": "2026-11-22T10:00:00.5+02:00"}}
    moment = datetime(2026, 11, 22, 10, 0, 0, 500_000, timezone(timedelta(hours=2)))
    assert filter_from(message(condition)) == Range(field="t", gte=datetime(2026, 11, 22, tzinfo=UTC), lt=moment)
    assert filter_from(message({"range": {"field": "t", "gte": "2026"}})) == Range(field="t", gte="2026")


@pytest.mark.parametrize(
    "text", ["2026-02-30", "2026-1-1", "20260101", "2026-01-01T10:00:00", "2026-01-01T25:00:00Z", "٢٠٢٦-01-01"]
)
def test_what_is_nearly_a_time_is_none(text: str) -> None:
    assert parsed_time(text) is None


@pytest.mark.parametrize("text", ["2026-01-01T10:00:00z", "2026-01-01t10:00:00Z", "2026-01-01 11:00:00+01:00"])
def test_a_time_may_be_written_in_all_ways_of_rfc_3339(text: str) -> None:
    assert parsed_time(text) == datetime(2026, 1, 1, 10, tzinfo=UTC)


def test_a_filter_survives_the_way_to_another_node() -> None:
    condition = AllOf(
        filters=(
            OneOf(field="a", values=("x", 1.5, False)),
            Range(field="t", gt=parsed_time("2026-01-01T01:02:03.000004+05:30")),
            Range(field="s", gte="a", lt="b"),
            AnyOf(filters=(Range(field="n", lte=-2.0), Exists(field="e"))),
            NoneOf(filters=()),
        )
    )
    assert filter_from(pb.Filter.FromString(filter_message(condition).SerializeToString())) == condition


def test_filters_that_differ_only_in_type_are_different_keys() -> None:
    assert OneOf(field="a", values=(1.0,)) != OneOf(field="a", values=(True,))
    assert AllOf(filters=(OneOf(field="a", values=(0.0,)),)) != AllOf(filters=(OneOf(field="a", values=(False,)),))
    assert len({OneOf(field="a", values=(True,)), OneOf(field="a", values=(True,))}) == 1


@pytest.mark.parametrize(
    ("condition", "place", "words"),
    [
        ({}, "filter", "says nothing"),
        ({"equals": {"field": "", "value": 1}}, "filter.equals.field", "empty"),
        ({"exists": {}}, "filter.exists.field", "empty"),
        ({"equals": {"field": "a"}}, "filter.equals.value", "missing"),
        ({"equals": {"field": "a", "value": None}}, "filter.equals.value", "null"),
        ({"equals": {"field": "a", "value": [1]}}, "filter.equals.value", "list"),
        ({"equals": {"field": "a", "value": {}}}, "filter.equals.value", "object"),
        ({"equals": {"field": "a", "value": "é" * 33_000}}, "filter.equals.value", "65536"),
        ({"one_of": {"field": "a", "values": []}}, "filter.one_of.values", "1 to 10000"),
        ({"one_of": {"field": "a", "values": [1, None]}}, "filter.one_of.values[1]", "null"),
        ({"range": {"field": "a"}}, "filter.range", "no bound"),
        ({"range": {"field": "a", "gt": True}}, "filter.range.gt", "bool"),
        ({"range": {"field": "a", "gte": 1, "lt": "2"}}, "filter.range.lt", "string"),
        ({"range": {"field": "a", "gt": "b", "lte": "2026-01-01"}}, "filter.range.lte", "time"),
        (
            {"all_of": {"filters": [EXISTS, {"any_of": {"filters": [{}]}}]}},
            "filter.all_of.filters[1].any_of.filters[0]",
            "nothing",
        ),
        (
            {"all_of": {"filters": [EXISTS, {"range": {"field": "b", "gte": {}}}]}},
            "filter.all_of.filters[1].range.gte",
            "object",
        ),
    ],
)
def test_what_is_wrong_is_named_with_its_place(condition: dict[str, Any], place: str, words: str) -> None:
    error = fault_of(condition)
    assert (error.metadata["field"], error.violations[0].field) == (place, place)
    assert words in error.message
    assert place in error.message


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_a_number_is_finite(number: float) -> None:
    wrong = pb.Filter(range=pb.Range(field="a", gt={"number_value": number}))
    with pytest.raises(InvalidArgument, match="finite"):
        filter_from(wrong)


@pytest.mark.parametrize(
    ("condition", "place"),
    [
        (lambda excess: {"one_of": {"field": "a", "values": [1] * (VALUES_MAX + excess)}}, "filter.one_of.values"),
        (lambda excess: {"any_of": {"filters": [EXISTS] * (CONDITIONS_MAX - 1 + excess)}}, "filter.any_of.filters[255]"),
        (lambda excess: nested(LEVELS_MAX + excess), "filter" + ".all_of.filters[0]" * LEVELS_MAX),
    ],
)
def test_the_most_is_read_and_one_more_is_refused(condition: Callable[[int], dict[str, Any]], place: str) -> None:
    filter_from(message(condition(0)))
    assert fault_of(condition(1)).metadata["field"] == place


@pytest.mark.parametrize("levels", [33, 49])
def test_a_filter_that_protobuf_just_takes_is_nested_too_deeply_for_us(levels: int) -> None:
    reader = Readers().of(SEARCH)
    request = pb.SearchRequest(**reader.read({"filter": nested(levels)}, DEPTH_MAX))
    with pytest.raises(InvalidArgument, match="nested too deeply"):
        filter_from(request.filter)


@pytest.mark.parametrize("levels", [60, 1000, 100_000])
def test_json_that_protobuf_would_not_take_is_nested_too_deeply(levels: int) -> None:
    reader = Readers().of(SEARCH)
    with pytest.raises(Fault, match="nested too deeply"):
        reader.read({"filter": nested(levels)}, DEPTH_MAX)


@pytest.mark.parametrize("levels", [1000, 100_000])
def test_bytes_nested_a_thousand_deep_are_refused_by_protobuf_itself(levels: int) -> None:
    inner = pb.Filter(exists=pb.Exists(field="a")).SerializeToString()
    for _ in range(levels):
        inner = _field(5, _field(1, inner))
    with pytest.raises(DecodeError):
        pb.SearchRequest.FromString(_field(6, inner))


def _field(number: int, content: bytes) -> bytes:
    """A length-delimited field as it stands in a message."""
    length, rest = bytearray(), len(content)
    while rest > 127:
        length.append(rest & 127 | 128)
        rest >>= 7
    return bytes([number << 3 | 2, *length, rest]) + content
