"""What a collection holds and what searches of it must find, worked out by looking at every row."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from retrieval_svc.filters import Filter
from retrieval_svc.values import Metric
from tests.retrieval_svc.shards.test_filtering import matches


@dataclass(frozen=True, kw_only=True)
class Row:
    """A chunk as it was stored last."""

    id: str
    document_id: str
    text: str
    metadata: dict[str, Any]
    principals: frozenset[str]
    vector: np.ndarray


@dataclass(kw_only=True)
class Reference:
    """One collection. Rows by their ids."""

    metric: Metric
    rows: dict[str, Row] = field(default_factory=dict)

    def delete(self, ids: Iterable[str]) -> int:
        return sum(self.rows.pop(chunk_id, None) is not None for chunk_id in ids)

    def of_documents(self, document_ids: Iterable[str]) -> list[str]:
        wanted = set(document_ids)
        return [row.id for row in self.rows.values() if row.document_id in wanted]

    def visible(self, principals: frozenset[str], condition: Filter | None = None) -> list[Row]:
        """The rows that a caller may see and that match."""
        return [
            row
            for row in self.rows.values()
            if (not row.principals or row.principals & principals) and (condition is None or matches(row.metadata, condition))
        ]

    def scores(self, rows: list[Row], query: np.ndarray) -> dict[str, float]:
        """The nearness of each row, in double precision."""
        if not rows:
            return {}
        vectors = np.stack([row.vector for row in rows]).astype(np.float64)
        wide = query.astype(np.float64)
        if self.metric is Metric.L2:
            nearness = -((vectors - wide) ** 2).sum(axis=1)
        else:
            nearness = vectors @ wide
            if self.metric is Metric.COSINE:
                nearness /= np.linalg.norm(vectors, axis=1) * np.linalg.norm(wide)
        return dict(zip((row.id for row in rows), nearness.tolist(), strict=True))
