"""Hits grouped by document."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from retrieval_svc.search.candidates import Places


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Groups:
    """Candidates by document, the documents in the order of their best candidate: `places[i]` are those of document i."""

    places: tuple[tuple[int, ...], ...]

    def __len__(self) -> int:
        return len(self.places)

    def between(self, first: int, end: int) -> Places:
        """The candidates of the documents from `first` to before `end`, each document's together."""
        return np.array([place for group in self.places[first:end] for place in group], dtype=np.intp)


def grouped(document_ids: Sequence[str], hits_per_document_max: int) -> Groups:
    """Candidates, best first, by their documents. A chunk without a document is a document of its own."""
    groups: dict[str | int, list[int]] = {}
    for place, document_id in enumerate(document_ids):
        group = groups.setdefault(document_id or place, [])
        if len(group) < hits_per_document_max:
            group.append(place)
    return Groups(places=tuple(map(tuple, groups.values())))
