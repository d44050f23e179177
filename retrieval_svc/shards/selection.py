"""Some of a layer's rows, in the forms that searches take them in."""

from collections import OrderedDict
from collections.abc import Hashable
from functools import cached_property
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from retrieval_svc.shards.exact import Rows


class Selection:
    """The rows that a mask is true for. The other forms are made when they are first needed."""

    def __init__(self, mask: NDArray[np.bool_]) -> None:
        self.mask = mask
        self.count = int(np.count_nonzero(mask))
        self.native: Any = None
        """What index.py makes of it for FAISS, once."""

    @cached_property
    def rows(self) -> Rows:
        """Their numbers, ascending."""
        return np.flatnonzero(self.mask)

    @cached_property
    def bits(self) -> NDArray[np.uint8]:
        """One bit a row, the lowest first."""
        return np.packbits(self.mask, bitorder="little")

    @property
    def size_bytes(self) -> int:
        """What it takes in memory once all forms are made."""
        return len(self.mask) + len(self.mask) // 8 + 8 * self.count


class Sized(Protocol):
    """What says how much memory it takes."""

    @property
    def size_bytes(self) -> int:
        """Bytes."""
        ...


Kept = TypeVar("Kept", bound=Sized)


class RecentlyUsed(Generic[Kept]):
    """The values that were used last, as many as fit into `bytes_max`. For one thread at a time."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._values: OrderedDict[Hashable, Kept] = OrderedDict()

    def get(self, key: Hashable) -> Kept | None:
        """The value of a key, None where it has none."""
        value = self._values.get(key)
        if value is not None:
            self._values.move_to_end(key)
        return value

    def put(self, key: Hashable, value: Kept) -> None:
        """Keeps a value, and lets go of those that were not used for longest."""
        before: Any = self._values.pop(key, None)
        self._bytes += value.size_bytes - (before.size_bytes if before is not None else 0)
        self._values[key] = value
        while self._bytes > self._bytes_max and len(self._values) > 1:
            self._bytes -= self._values.popitem(last=False)[1].size_bytes

    def __len__(self) -> int:
        return len(self._values)
