"""Matching over columns, against a plain walk over each row's metadata."""

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval_svc.filters import AllOf, AnyOf, Exists, Filter, NoneOf, OneOf, Range, parsed_time
from retrieval_svc.shards.columns import LEVELS_MAX, ColumnBuilder, Columns, ColumnSource
from retrieval_svc.shards.filtering import matching, unmet_everywhere
from retrieval_svc.values import EVERYTHING, UnmetCondition, Visibility

Row = tuple[dict[str, Any], tuple[str, ...]]
"""A row's metadata and its access list."""

KEYS: Final = ("a", "b", "c.d", "é")
TIMES: Final = ("2026-01-01", "2026-01-01T00:00:00Z", "2026-01-01T01:00:00+01:00", "2025-12-31T23:59:59.999999Z", "2026-01-02")


def built(*rows: Any) -> ColumnBuilder:
    builder = ColumnBuilder()
    for at, metadata in enumerate(rows):
        builder.add(at, json.dumps(metadata) if metadata else "", ())
    return builder


def rows_of(columns: ColumnSource, count: int, condition: Filter | None, visibility: Visibility = EVERYTHING) -> list[int]:
    mask, _ = matching(columns, count, condition, visibility)
    found: list[int] = list(range(count)) if mask is None else np.flatnonzero(mask).tolist()
    return found


def leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, list):
        for item in value:
            yield from leaves(item)
    else:
        yield value


def values_at(metadata: Any, field: str) -> Iterator[Any]:
    """All values of a field, objects among them, by trying every way to cut the field's name into keys."""
    for item in leaves(metadata):
        if isinstance(item, dict):
            for key, value in item.items():
                if key == field:
                    yield from [*leaves(value)] or [{}]
                elif field.startswith(f"{key}."):
                    yield from values_at(value, field[len(key) + 1 :])


def in_order(value: Any, bound: Any) -> tuple[Any, Any] | None:
    """Value and bound as things of one type; None when they are not."""
    if isinstance(bound, datetime):
        return (parsed, bound) if isinstance(value, str) and (parsed := parsed_time(value)) else None
    if isinstance(bound, str):
        return (value, bound) if isinstance(value, str) else None
    return (float(value), bound) if isinstance(value, int | float) and not isinstance(value, bool) else None


def same(value: Any, wanted: Any) -> bool:
    if isinstance(value, bool) or isinstance(wanted, bool):
        return value is wanted
    return not isinstance(value, dict) and value is not None and value == wanted


def lies_in(value: Any, condition: Range) -> bool:
    signs = {"gt": condition.gt, "gte": condition.gte, "lt": condition.lt, "lte": condition.lte}
    for sign, bound in signs.items():
        pair = in_order(value, bound) if bound is not None else (0, 0)
        if pair is None:
            return False
        here, there = pair
        met = {"gt": here > there, "gte": here >= there, "lt": here < there, "lte": here <= there}
        if bound is not None and not met[sign]:
            return False
    return True


def matches(metadata: dict[str, Any], condition: Filter) -> bool:
    match condition:
        case OneOf():
            return any(same(value, wanted) for value in values_at(metadata, condition.field) for wanted in condition.values)
        case Range():
            return any(lies_in(value, condition) for value in values_at(metadata, condition.field))
        case Exists():
            return any(value is not None for value in values_at(metadata, condition.field)) or has_list(
                metadata, condition.field
            )
        case AllOf():
            return all(matches(metadata, inner) for inner in condition.filters)
        case AnyOf():
            return any(matches(metadata, inner) for inner in condition.filters)
        case NoneOf():
            return not any(matches(metadata, inner) for inner in condition.filters)


def has_list(metadata: Any, field: str) -> bool:
    """Whether the field is there as a list; even one of nulls is something other than null."""
    for item in leaves(metadata):
        if isinstance(item, dict):
            for key, value in item.items():
                if (key == field and isinstance(value, list)) or (
                    field.startswith(f"{key}.") and has_list(value, field[len(key) + 1 :])
                ):
                    return True
    return False


numbers = st.integers(-3, 3) | st.floats(-3, 3) | st.just(2**60)
texts = st.sampled_from((*TIMES, "", "x", "y", "ü", "\U0001f600", "\uffff", "2026"))
scalars = st.none() | st.booleans() | numbers | texts
json_values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(("a", "d")), inner, max_size=2),
    max_leaves=4,
)
metadata_of_rows = st.dictionaries(st.sampled_from((*KEYS, "c")), json_values, max_size=3)
principals = st.sets(st.sampled_from(("ann", "bob", "x")), max_size=2)
rows = st.lists(st.tuples(metadata_of_rows, principals.map(lambda those: tuple(sorted(those)))), max_size=8)
fields = st.sampled_from((*KEYS, "a.a", "a.d", "c", "nothing"))


@st.composite
def ranges(draw: st.DrawFn) -> Range:
    floats = st.floats(-3, 3)
    bounds = draw(st.sampled_from((floats, st.sampled_from(("", "x", "ü", "zz")), st.sampled_from(TIMES).map(parsed_time))))
    names = draw(st.sets(st.sampled_from(("gt", "gte", "lt", "lte")), min_size=1))
    chosen: dict[str, Any] = {name: draw(bounds) for name in sorted(names)}
    return Range(field=draw(fields), **chosen)


wanted_values = st.lists(
    st.booleans() | st.integers(-3, 3).map(float) | st.just(float(2**60)) | texts, min_size=1, max_size=3
).map(tuple)
conditions = st.recursive(
    st.builds(OneOf, field=fields, values=wanted_values) | ranges() | st.builds(Exists, field=fields),
    lambda inner: st.one_of(
        [st.builds(kind, filters=st.lists(inner, max_size=3).map(tuple)) for kind in (AllOf, AnyOf, NoneOf)]
    ),
    max_leaves=5,
)
visibilities = st.builds(Visibility, principals=st.none() | principals.map(frozenset))


def filled(those: list[Row]) -> ColumnBuilder:
    builder = ColumnBuilder()
    for at, (metadata, allowed) in enumerate(those):
        builder.add(at, json.dumps(metadata) if metadata else "", allowed)
    return builder


def expected(those: list[Row], condition: Filter | None, visibility: Visibility) -> list[int]:
    who = visibility.principals
    return [
        at
        for at, (metadata, allowed) in enumerate(those)
        if (condition is None or matches(metadata, condition)) and (who is None or not allowed or who & set(allowed))
    ]


@given(rows, st.none() | conditions, visibilities)
def test_columns_match_what_a_walk_over_each_row_matches(
    those: list[Row], condition: Filter | None, visibility: Visibility
) -> None:
    builder = filled(those)
    found = expected(those, condition, visibility)
    assert rows_of(builder, len(those), condition, visibility) == found
    columns = builder.build()
    assert rows_of(columns, len(those), condition, visibility) == found
    assert matching(builder, len(those), condition, visibility)[1] == matching(columns, len(those), condition, visibility)[1]


@given(st.lists(rows, max_size=3), st.data(), conditions, visibilities)
def test_saved_and_merged_columns_match_the_rows_that_were_kept(
    parts: list[list[Row]], data: st.DataObject, condition: Filter, visibility: Visibility
) -> None:
    kept = [[at for at in range(len(part)) if data.draw(st.booleans())] for part in parts]
    together = [part[at] for part, places in zip(parts, kept, strict=True) for at in places]
    with TemporaryDirectory() as folder:
        opened = []
        for number, part in enumerate(parts):
            place = Path(folder, str(number))
            place.mkdir()
            filled(part).build().save(place)
            opened.append(Columns.open(place))
        merged = Columns.merged([(columns, np.array(places, np.int64)) for columns, places in zip(opened, kept, strict=True)])
        merged.save(Path(folder))
        for columns in (merged, Columns.open(Path(folder))):
            found, unmet = matching(columns, len(together), condition, visibility)
            assert (np.flatnonzero(found).tolist() if found is not None else list(range(len(together)))) == expected(
                together, condition, visibility
            )
            assert set(unmet) == set(matching(filled(together), len(together), condition, visibility)[1])


def test_rows_are_matched_right_after_they_were_added() -> None:
    builder = built({"a": "x"})
    for row in range(1, 50):
        builder.add(row, json.dumps({"a": f"v{row}", "n": row}), ())
        assert rows_of(builder, row + 1, OneOf(field="a", values=(f"v{row}",))) == [row]
        assert rows_of(builder, row + 1, Range(field="n", gte=float(row))) == [row]
        assert rows_of(builder, row + 1, Range(field="a", gte="x")) == [0]


def test_nothing_to_ask_gives_all_rows_without_a_mask() -> None:
    assert matching(built({"a": 1}), 1, None, Visibility(principals=frozenset())) == (None, ())


def test_a_dot_in_a_key_is_the_dot_of_a_path() -> None:
    columns = built({"a.b": 1}, {"a": {"b": 1}}, {"a": [{"b": 2}, {"b": 1}]}, {"a": 1})
    assert rows_of(columns, 4, OneOf(field="a.b", values=(1.0,))) == [0, 1, 2]


def test_numbers_beyond_2_to_the_53_are_compared_as_floats() -> None:
    assert rows_of(built({"a": 2**53 + 1}), 1, OneOf(field="a", values=(float(2**53),))) == [0]


def test_rows_without_a_field_match_its_negation() -> None:
    columns = built({"a": "x"}, {}, {"a": None}, {"a": "y"})
    assert rows_of(columns, 4, NoneOf(filters=(OneOf(field="a", values=("x",)),))) == [1, 2, 3]


@pytest.mark.parametrize(
    ("condition", "wanted", "present"),
    [
        (OneOf(field="nope", values=("x",)), "string", set()),
        (OneOf(field="n", values=("x", True)), "bool or string", {"number"}),
        (Range(field="n", gt="x"), "string", {"number"}),
        (Range(field="s", gt=1.0), "number", {"string"}),
        (Range(field="s", gt=parsed_time("2026-01-01")), "time", {"string"}),
        (Range(field="t", gt=1.0), "number", {"string", "time"}),
        (OneOf(field="o", values=("x",)), "string", {"object"}),
        (OneOf(field="empty", values=("x",)), "string", {"object"}),
    ],
)
@pytest.mark.parametrize("negated", [False, True])
def test_a_condition_that_no_row_could_meet_is_reported(
    condition: Filter, wanted: str, present: set[str], negated: bool
) -> None:
    columns = built({"n": 1, "s": "x", "t": "2026-01-01", "o": {"k": 1}, "empty": []}, {})
    asked = NoneOf(filters=(condition,)) if negated else condition
    mask, unmet = matching(columns, 2, asked, EVERYTHING)
    assert mask is not None
    assert mask.tolist() == [negated, negated]
    assert [(entry.wanted, entry.present) for entry in unmet] == [(wanted, frozenset(present))]


@pytest.mark.parametrize(
    "condition",
    [
        Exists(field="nope"),
        OneOf(field="n", values=("x", 1.0)),
        OneOf(field="s", values=("other",)),
        Range(field="n", gt=1e9),
        AllOf(filters=()),
    ],
)
def test_a_condition_that_a_row_could_meet_is_not_reported(condition: Filter) -> None:
    assert matching(built({"n": 1, "s": "x"}), 1, condition, EVERYTHING)[1] == ()


def test_access_lists_are_no_metadata() -> None:
    builder = ColumnBuilder()
    builder.add(0, json.dumps({"": "ann", "\0principals": "ann"}), ("bob",))
    builder.add(1, "", ())
    nobody = Visibility(principals=frozenset({"ann"}))
    assert rows_of(builder.build(), 2, None, nobody) == [1]
    assert rows_of(builder.build(), 2, OneOf(field="\0principals", values=("bob",))) == []
    assert matching(builder, 2, None, nobody)[1] == ()


def test_metadata_deeper_than_the_columns_go_is_left_out() -> None:
    columns = ColumnBuilder()
    columns.add(0, '{"b": ' + '{"a": ' * 1000 + "1" + "}" * 1000 + ', "l": ' + "[" * 1000 + "1" + "]" * 1000 + "}", ())
    assert rows_of(columns, 1, Exists(field="b" + ".a" * (LEVELS_MAX - 1))) == [0]
    assert rows_of(columns, 1, Exists(field="b" + ".a" * LEVELS_MAX)) == []
    assert rows_of(columns, 1, OneOf(field="l", values=(1.0,))) == [0]


def test_a_condition_counts_as_unmet_when_it_is_so_in_all_parts() -> None:
    here = UnmetCondition(field="a", wanted="number")
    there = UnmetCondition(field="a", wanted="number", present=frozenset({"string"}))
    assert unmet_everywhere([(here,), (there,)]) == (there,)
    assert unmet_everywhere([(here,), ()]) == ()
    assert unmet_everywhere([]) == ()
