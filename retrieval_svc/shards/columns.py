"""The metadata of a shard's rows, turned sideways: for each field and type the rows that have it, and their values.

Rows are numbered from 0 within one segment or head. Keys of nested objects are joined by dots; what lies more than LEVELS_MAX
levels deep is in no column. A list gives its row one value an element, and so do lists within it. Null gives nothing.
"""

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import orjson
from numpy.typing import NDArray

from retrieval_svc.filters import Range, parsed_time
from retrieval_svc.shards.string_table import Codes, StringTable, merged_tables

LEVELS_MAX: Final = 32

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


class Kind(Enum):
    """What a column holds."""

    STRING = "string"
    """Codes of strings."""
    NUMBER = "number"
    BOOL = "bool"
    TIME = "time"
    """Microseconds since 1970 of those strings that are RFC 3339; they are among the strings too."""
    OTHER = "object"
    """Zeros: only that the field is there, as an object or as a list without a value of its own."""
    ACCESS = "access"
    """Codes of the principals of the rows' access lists. Not metadata: no field leads there."""


_TYPECODES: Final = {Kind.STRING: "i", Kind.NUMBER: "d", Kind.BOOL: "B", Kind.TIME: "q", Kind.OTHER: "B", Kind.ACCESS: "i"}
_TEXTUAL: Final = (Kind.STRING, Kind.ACCESS)

Key = tuple[Kind, str]
"""A column's kind and its field."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """The values of one field that are of one kind: `values[i]` is of row `rows[i]`, and rows ascend.

    Codes are int32, numbers float64, bools uint8, times int64. `single`: no row has two values.
    """

    rows: NDArray[np.int32]
    values: NDArray[Any]
    single: bool


class ColumnSource(Protocol):
    """Columns that can be matched."""

    def column(self, kind: Kind, field: str) -> Column | None:
        """The values of a field that are of one kind; None when no row has one."""
        ...

    def codes_of(self, texts: Iterable[str]) -> list[int]:
        """The codes of those strings that are there."""
        ...

    def within(self, codes: Codes, bounds: Range) -> NDArray[np.bool_]:
        """Which codes are of strings between bounds that are strings as well."""
        ...


class Columns:
    """The columns of rows that do not change. Safe to read from any thread.

    All columns of a kind stand in one pair of arrays, one after the other. `keys` are "kind:field", ascending; row i of
    `directory` says of key i where its column starts in its kind's arrays, how long it is, and whether it is single.
    """

    def __init__(
        self,
        keys: StringTable,
        directory: NDArray[np.int64],
        entries: Mapping[Kind, tuple[NDArray[np.int32], NDArray[Any]]],
        strings: StringTable,
    ) -> None:
        self._keys = keys
        self._directory = directory
        self._entries = entries
        self._strings = strings

    @classmethod
    def open(cls, folder: Path) -> "Columns":
        """Maps saved columns into memory; nothing is read until it is needed."""
        entries = {kind: (_mapped(folder, f"{kind.value}_rows"), _mapped(folder, f"{kind.value}_values")) for kind in Kind}
        keys, strings = StringTable.open(folder, "keys"), StringTable.open(folder, "strings")
        return cls(keys, _mapped(folder, "directory"), entries, strings)

    @classmethod
    def merged(cls, parts: "Sequence[tuple[Columns, NDArray[np.int64]]]") -> "Columns":
        """The columns of the kept rows of all parts, numbered anew from 0 in their order. Kept rows ascend in each part."""
        pieces: dict[Key, list[Column]] = {}
        offset = 0
        strings, renamed = merged_tables([(columns.strings, columns.used_codes(kept)) for columns, kept in parts])
        for (columns, kept), codes in zip(parts, renamed, strict=True):
            for key, column in columns.items():
                piece = _kept(column, kept, offset, codes if key[0] in _TEXTUAL else None)
                if len(piece.rows):
                    pieces.setdefault(key, []).append(piece)
            offset += len(kept)
        return _assembled({key: _joined(columns) for key, columns in pieces.items()}, strings)

    def save(self, folder: Path) -> None:
        """Writes the columns as files of an existing folder."""
        self._keys.save(folder, "keys")
        self._strings.save(folder, "strings")
        np.save(folder / "directory.npy", self._directory)
        for kind, (rows, values) in self._entries.items():
            np.save(folder / f"{kind.value}_rows.npy", rows)
            np.save(folder / f"{kind.value}_values.npy", values)

    @property
    def strings(self) -> StringTable:
        """What the codes stand for."""
        return self._strings

    def column(self, kind: Kind, field: str) -> Column | None:
        """As ColumnSource has it."""
        place = self._keys.find(_key_text(kind, field))
        return None if place is None else self._at(place, kind)

    def keys(self) -> Iterator[Key]:
        """Of all columns."""
        for text in self._keys:
            kind, _, field = text.partition(":")
            yield Kind(kind), field

    def items(self) -> Iterator[tuple[Key, Column]]:
        """All columns."""
        for place, key in enumerate(self.keys()):
            yield key, self._at(place, key[0])

    def codes_of(self, texts: Iterable[str]) -> list[int]:
        """As ColumnSource has it."""
        return [code for text in texts if (code := self._strings.find(text)) is not None]

    def within(self, codes: Codes, bounds: Range) -> NDArray[np.bool_]:
        """As ColumnSource has it: codes are in the order of their strings."""
        mask = np.ones(len(codes), np.bool_)
        if isinstance(bounds.gt, str):
            mask &= codes >= self._strings.first_from(bounds.gt, beyond_equal=True)
        if isinstance(bounds.gte, str):
            mask &= codes >= self._strings.first_from(bounds.gte)
        if isinstance(bounds.lt, str):
            mask &= codes < self._strings.first_from(bounds.lt)
        if isinstance(bounds.lte, str):
            mask &= codes < self._strings.first_from(bounds.lte, beyond_equal=True)
        return mask

    def used_codes(self, kept: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which strings the kept rows have."""
        used = np.zeros(len(self._strings), np.bool_)
        for kind in _TEXTUAL:
            rows, codes = self._entries[kind]
            used[codes[_places(rows, kept)[1]]] = True
        return used

    def _at(self, place: int, kind: Kind) -> Column:
        start, count, single = self._directory[place].tolist()
        rows, values = self._entries[kind]
        return Column(rows=rows[start : start + count], values=values[start : start + count], single=bool(single))


class ColumnBuilder:
    """The columns of rows that are added one after the other, and can be matched at any time in between.

    Used from one thread. A row without metadata and access list costs nothing.
    """

    def __init__(self) -> None:
        self._growing: dict[Key, tuple[array[Any], array[Any]]] = {}
        self._codes: dict[str, int] = {}
        self._strings: list[str] = []

    def add(self, row: int, metadata_json: str, allowed_principals: tuple[str, ...]) -> None:
        """Takes in a row; rows ascend. `metadata_json` is a JSON object, or empty."""
        for principal in allowed_principals:
            self._append(row, Kind.ACCESS, "", self._code(principal))
        if metadata_json:
            for kind, field, value in _values(orjson.loads(metadata_json)):
                self._append(row, kind, field, self._code(value) if kind is Kind.STRING else value)

    def build(self) -> Columns:
        """The columns as they are now, in a form that does not change."""
        order = sorted(range(len(self._strings)), key=self._strings.__getitem__)
        renamed = np.empty(len(order), np.int32)
        renamed[order] = np.arange(len(order), dtype=np.int32)
        columns = {}
        for kind, field in self._growing:
            column = self._column(kind, field)
            values = renamed[column.values] if kind in _TEXTUAL else column.values
            columns[kind, field] = Column(rows=column.rows, values=values, single=column.single)
        return _assembled(columns, StringTable.of(self._strings[code].encode() for code in order))

    def column(self, kind: Kind, field: str) -> Column | None:
        """As ColumnSource has it."""
        return self._column(kind, field) if (kind, field) in self._growing else None

    def codes_of(self, texts: Iterable[str]) -> list[int]:
        """As ColumnSource has it."""
        return [code for text in texts if (code := self._codes.get(text)) is not None]

    def within(self, codes: Codes, bounds: Range) -> NDArray[np.bool_]:
        """As ColumnSource has it. Codes are in no order here, so each string is looked at."""
        distinct, places = np.unique(codes, return_inverse=True)
        strings = np.array([self._strings[code] for code in distinct.tolist()], object)
        return compared(strings, bounds)[places]

    def _column(self, kind: Kind, field: str) -> Column:
        rows, values = self._growing[kind, field]
        # Copies: an array whose memory is lent out refuses to grow.
        return _column(np.array(rows), np.array(values))

    def _append(self, row: int, kind: Kind, field: str, value: Any) -> None:
        growing = self._growing.get((kind, field))
        if growing is None:
            growing = self._growing[kind, field] = array("i"), array(_TYPECODES[kind])
        growing[0].append(row)
        growing[1].append(value)

    def _code(self, text: str) -> int:
        code = self._codes.get(text)
        if code is None:
            code = self._codes[text] = len(self._strings)
            self._strings.append(text)
        return code


def microseconds(instant: datetime) -> int:
    """A time as columns have it. Whole microseconds, rounded nowhere."""
    return (instant - _EPOCH) // _MICROSECOND


def compared(values: NDArray[Any], bounds: Range) -> NDArray[np.bool_]:
    """Which values lie between bounds that they can be compared with."""
    mask = np.ones(len(values), np.bool_)
    if bounds.gt is not None:
        mask &= values > bounds.gt
    if bounds.gte is not None:
        mask &= values >= bounds.gte
    if bounds.lt is not None:
        mask &= values < bounds.lt
    if bounds.lte is not None:
        mask &= values <= bounds.lte
    return mask


def keys_of(metadata_json: str) -> Iterator[Key]:
    """The columns that a row with this metadata has values in."""
    if metadata_json:
        for kind, field, _ in _values(orjson.loads(metadata_json)):
            yield kind, field


def _values(metadata: dict[str, Any]) -> Iterator[tuple[Kind, str, Any]]:
    """Every value with its field; strings are themselves. Not by recursion, since metadata may be deeper than the stack."""
    left: list[tuple[str, Any, int]] = [(key, value, 1) for key, value in metadata.items()]
    while left:
        field, value, level = left.pop()
        if isinstance(value, str):
            yield Kind.STRING, field, value
            if instant := parsed_time(value):
                yield Kind.TIME, field, microseconds(instant)
        elif isinstance(value, bool):
            yield Kind.BOOL, field, value
        elif isinstance(value, int | float):
            yield Kind.NUMBER, field, float(value)
        elif isinstance(value, dict):
            yield Kind.OTHER, field, 0
            if level < LEVELS_MAX:
                left += [(f"{field}.{key}", item, level + 1) for key, item in value.items()]
        elif isinstance(value, list):
            if not any(isinstance(item, str | int | float) for item in value):
                yield Kind.OTHER, field, 0
            left += [(field, item, level) for item in value]


def _key_text(kind: Kind, field: str) -> str:
    return f"{kind.value}:{field}"


def _mapped(folder: Path, name: str) -> NDArray[Any]:
    values: np.memmap[Any, Any] = np.load(folder / f"{name}.npy", mmap_mode="r")
    return values.view(np.ndarray)


def _column(rows: NDArray[np.int32], values: NDArray[Any]) -> Column:
    return Column(rows=rows, values=values, single=bool((rows[1:] != rows[:-1]).all()))


def _places(rows: NDArray[np.int32], kept: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Where each of `rows` stands in `kept`, and whether it really does."""
    places = np.searchsorted(kept, rows)
    there = places < len(kept)
    there[there] = kept[places[there]] == rows[there]
    return places, there


def _kept(column: Column, kept: NDArray[np.int64], offset: int, codes: Codes | None) -> Column:
    places, there = _places(column.rows, kept)
    values = column.values[there]
    return _column((places[there] + offset).astype(np.int32), values if codes is None else codes[values])


def _joined(columns: Sequence[Column]) -> Column:
    rows, values = (np.concatenate(arrays) for arrays in zip(*((c.rows, c.values) for c in columns), strict=True))
    return Column(rows=rows, values=values, single=all(column.single for column in columns))


def _assembled(columns: Mapping[Key, Column], strings: StringTable) -> Columns:
    ordered = sorted(columns, key=lambda key: _key_text(*key))
    directory = np.zeros((len(ordered), 3), np.int64)
    sizes = dict.fromkeys(Kind, 0)
    for place, key in enumerate(ordered):
        count = len(columns[key].rows)
        directory[place] = sizes[key[0]], count, columns[key].single
        sizes[key[0]] += count
    entries = {kind: _stacked(kind, [columns[key] for key in ordered if key[0] is kind]) for kind in Kind}
    keys = StringTable.of(_key_text(*key).encode() for key in ordered)
    return Columns(keys, directory, entries, strings)


def _stacked(kind: Kind, columns: Sequence[Column]) -> tuple[NDArray[np.int32], NDArray[Any]]:
    rows = np.concatenate([np.empty(0, np.int32), *(column.rows for column in columns)])
    return rows, np.concatenate([np.empty(0, np.dtype(_TYPECODES[kind])), *(column.values for column in columns)])
