"""Which rows went at which positions of the log, as far as no checkpoint has it yet."""

from typing import Final

import numpy as np

from retrieval_svc.values import Sequences

_PARTS_MAX: Final = 256


class Removals:
    """Removed sequence numbers with the numbers of the entries that removed them, in the order of the latter."""

    def __init__(self) -> None:
        self._removed: list[Sequences] = [np.empty(0, np.int64)]
        self._removed_at: list[Sequences] = [np.empty(0, np.int64)]

    def add(self, removed: Sequences, removed_at: Sequences) -> None:
        """Notes removals; the positions ascend from one call to the next."""
        self._removed.append(removed)
        self._removed_at.append(removed_at)
        if len(self._removed) > _PARTS_MAX:
            self._join()

    def after(self, position: int) -> Sequences:
        """What was removed by entries above a position."""
        self._join()
        first = int(np.searchsorted(self._removed_at[0], position, side="right"))
        return self._removed[0][first:]

    def forget(self, position: int) -> None:
        """Drops what was removed up to and with a position."""
        rest = self.after(position)
        self._removed_at[0] = self._removed_at[0][len(self._removed_at[0]) - len(rest) :]
        self._removed[0] = rest

    def _join(self) -> None:
        self._removed = [np.concatenate(self._removed)]
        self._removed_at = [np.concatenate(self._removed_at)]
