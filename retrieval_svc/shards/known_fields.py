"""The metadata fields that a shard has had, those of rows that are gone among them.

A filter that no row could meet is refused, because it is nearly always a mistake. Whether it is one must not depend on which
rows are left: a deletion by a filter that is tried again would be refused for having succeeded. So fields outlive their rows:
they are noted when rows go from where their metadata is, and stand in every checkpoint.
"""

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from retrieval_svc.filters import Filter, Range
from retrieval_svc.shards.columns import Column, Key, Kind
from retrieval_svc.shards.filtering import matching, unmet_everywhere
from retrieval_svc.shards.string_table import Codes
from retrieval_svc.values import EVERYTHING, UnmetCondition

FIELDS_MAX: Final = 10_000
"""Further ones are forgotten with their rows: where keys are data themselves, checkpoints would never cease to grow."""

_NO_VALUES: Final = Column(rows=np.empty(0, np.int32), values=np.empty(0, np.float64), single=True)


class KnownFields:
    """Columns without rows (a ColumnSource): nothing is found in them, but they tell what could have been."""

    def __init__(self, keys: Iterable[Key] = ()) -> None:
        self._keys: set[Key] = set()
        self.note(keys)

    @property
    def keys(self) -> list[Key]:
        """All fields with the kinds of their values, in an order that only depends on them."""
        return sorted(self._keys, key=lambda key: (key[1], key[0].value))

    def note(self, keys: Iterable[Key]) -> None:
        """Takes in fields of rows that go."""
        for key in keys:
            if len(self._keys) == FIELDS_MAX:
                return
            if key[0] is not Kind.ACCESS:
                self._keys.add(key)

    def unmet(self, condition: Filter | None, parts: Sequence[Sequence[UnmetCondition]]) -> tuple[UnmetCondition, ...]:
        """The conditions that are unmet in all parts that have rows, and that no row which is gone could have met either."""
        everywhere = unmet_everywhere(parts)
        if condition is None or (parts and not everywhere):
            return everywhere
        return unmet_everywhere([*parts, matching(self, 0, condition, EVERYTHING)[1]])

    def column(self, kind: Kind, field: str) -> Column | None:
        """As ColumnSource has it."""
        return _NO_VALUES if (kind, field) in self._keys else None

    def codes_of(self, texts: Iterable[str]) -> list[int]:  # noqa: ARG002  # No row has a string.
        """As ColumnSource has it."""
        return []

    def within(self, codes: Codes, bounds: Range) -> NDArray[np.bool_]:  # noqa: ARG002
        """As ColumnSource has it."""
        return np.ones(len(codes), np.bool_)
