"""Which rows match a filter, as a mask over them, computed column by column."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from retrieval_svc.filters import AllOf, AnyOf, Bound, Exists, Filter, NoneOf, OneOf, Range, Scalar
from retrieval_svc.shards.columns import Column, ColumnSource, Kind, compared, microseconds
from retrieval_svc.values import UnmetCondition, Visibility

Mask = NDArray[np.bool_]
"""One bool a row."""

_OF_METADATA: Final = (Kind.STRING, Kind.NUMBER, Kind.BOOL, Kind.TIME, Kind.OTHER)


def matching(
    columns: ColumnSource, row_count: int, condition: Filter | None, visibility: Visibility
) -> tuple[Mask | None, tuple[UnmetCondition, ...]]:
    """The rows that match and may be seen, None for all of them; and the conditions that no row could meet.

    A condition is unmet when its field is in no row, or only with other types. One under a negation counts as well: a misspelt
    field is a mistake there too. `exists` and access lists never are.
    """
    matched = _Matching(columns, row_count)
    mask = None if condition is None else matched.mask(condition)
    visible = matched.visible(visibility)
    if mask is not None and visible is not None:
        mask &= visible
    return visible if mask is None else mask, tuple(matched.unmet)


def unmet_everywhere(parts: Iterable[Sequence[UnmetCondition]]) -> tuple[UnmetCondition, ...]:
    """The conditions that are unmet in all parts of a shard that have rows, with the types that are present in any."""
    met: dict[tuple[str, str], UnmetCondition] | None = None
    for part in parts:
        here = {(unmet.field, unmet.wanted): unmet for unmet in part}
        met = here if met is None else {key: _both(met[key], here[key]) for key in met if key in here}
    return tuple((met or {}).values())


def _both(one: UnmetCondition, other: UnmetCondition) -> UnmetCondition:
    return UnmetCondition(field=one.field, wanted=one.wanted, present=one.present | other.present)


class _Matching:
    """One evaluation. Every condition is looked at, because every unmet one is to be reported."""

    def __init__(self, columns: ColumnSource, row_count: int) -> None:
        self._columns = columns
        self._row_count = row_count
        self.unmet: list[UnmetCondition] = []

    def mask(self, condition: Filter) -> Mask:
        """The rows that match, in an array of their own."""
        match condition:
            case OneOf():
                return self._one_of(condition)
            case Range():
                return self._range(condition)
            case Exists():
                return self._exists(condition.field)
            case AllOf():
                return self._folded(np.logical_and, condition.filters, start=True)
            case AnyOf():
                return self._folded(np.logical_or, condition.filters, start=False)
            case NoneOf():
                return ~self._folded(np.logical_or, condition.filters, start=False)

    def visible(self, visibility: Visibility) -> Mask | None:
        """The rows without an access list and those whose list has one of the principals; None: all."""
        access = self._columns.column(Kind.ACCESS, "")
        if visibility.principals is None or access is None:
            return None
        mask = np.ones(self._row_count, np.bool_)
        mask[access.rows] = False
        mask[access.rows[_any_of(access.values, self._columns.codes_of(visibility.principals))]] = True
        return mask

    def _folded(self, fold: np.ufunc, filters: Sequence[Filter], *, start: bool) -> Mask:
        mask = np.full(self._row_count, start)
        for condition in filters:
            fold(mask, self.mask(condition), out=mask)
        return mask

    def _exists(self, field: str) -> Mask:
        mask = np.zeros(self._row_count, np.bool_)
        for kind in _OF_METADATA:
            if column := self._columns.column(kind, field):
                mask[column.rows] = True
        return mask

    def _one_of(self, condition: OneOf) -> Mask:
        wanted = _by_kind(condition.values)
        columns = self._present(condition.field, tuple(wanted))
        mask = np.zeros(self._row_count, np.bool_)
        for kind, column in columns.items():
            values = self._columns.codes_of(wanted[kind]) if kind is Kind.STRING else wanted[kind]
            mask |= self._spread(column, _any_of(column.values, values))
        return mask

    def _range(self, condition: Range) -> Mask:
        kind = _kind_of_bounds(condition)
        column = self._present(condition.field, (kind,)).get(kind)
        if column is None:
            return np.zeros(self._row_count, np.bool_)
        if kind is Kind.STRING:
            return self._spread(column, self._columns.within(column.values, condition))
        return self._spread(column, compared(column.values, _in_microseconds(condition)))

    def _present(self, field: str, kinds: Sequence[Kind]) -> dict[Kind, Column]:
        """The columns of the kinds that are there. When none is, the condition is unmet."""
        columns = {kind: column for kind in kinds if (column := self._columns.column(kind, field))}
        if not columns:
            present = frozenset(kind.value for kind in _OF_METADATA if self._columns.column(kind, field))
            wanted = " or ".join(sorted(kind.value for kind in kinds))
            self.unmet.append(UnmetCondition(field=field, wanted=wanted, present=present))
        return columns

    def _spread(self, column: Column, met: Mask) -> Mask:
        """From a mask over a column's values to one over rows."""
        if column.single and len(column.rows) == self._row_count:
            return met  # Every row has one value, in the order of rows.
        mask = np.zeros(self._row_count, np.bool_)
        mask[column.rows[met]] = True
        return mask


def _by_kind(values: Iterable[Scalar]) -> dict[Kind, list[Any]]:
    wanted: dict[Kind, list[Any]] = {}
    for value in values:
        kind = Kind.STRING if isinstance(value, str) else Kind.BOOL if isinstance(value, bool) else Kind.NUMBER
        wanted.setdefault(kind, []).append(value)
    return wanted


def _any_of(values: NDArray[Any], wanted: Sequence[Any]) -> Mask:
    if len(wanted) == 1:
        mask: Mask = values == wanted[0]
        return mask
    return np.isin(values, np.array(wanted, values.dtype))


def _bounds(condition: Range) -> list[Bound]:
    return [bound for bound in (condition.gt, condition.gte, condition.lt, condition.lte) if bound is not None]


def _kind_of_bounds(condition: Range) -> Kind:
    bound = _bounds(condition)[0]
    return Kind.TIME if isinstance(bound, datetime) else Kind.STRING if isinstance(bound, str) else Kind.NUMBER


def _in_microseconds(condition: Range) -> Range:
    """The same range with times as columns have them."""
    gt, gte, lt, lte = (_comparable(bound) for bound in (condition.gt, condition.gte, condition.lt, condition.lte))
    return Range(field=condition.field, gt=gt, gte=gte, lt=lt, lte=lte)


def _comparable(bound: Bound | None) -> Bound | None:
    return microseconds(bound) if isinstance(bound, datetime) else bound
