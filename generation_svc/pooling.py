"""The core over a pooling model: texts into vectors, a query and documents into scores. A call takes one slot."""

from collections.abc import Iterator, Sequence
from typing import Final

from generation_svc import features
from generation_svc.admission import Admission
from generation_svc.core import Core
from generation_svc.engine import Embeddings, Feature, ModelInfo, PoolingEngine, Scores
from penstock.errors import EmptyText, InvalidArgument, Violation

TEXTS_MAX: Final = 256


class Pooling(Core):
    """Embeds and scores with one engine. Raises PenstockError only, and asyncio's CancelledError."""

    def __init__(self, *, engine: PoolingEngine, admission: Admission) -> None:
        super().__init__(engine, admission)
        self._engine = engine

    async def embed(self, model: ModelInfo, texts: Sequence[str], tenant: str) -> Embeddings:
        self._check(model, Feature.EMBED, "texts", texts)
        async with self.admission.slot(tenant=tenant):
            return await self._engine.embed(texts)

    async def rerank(self, model: ModelInfo, query: str, documents: Sequence[str], tenant: str) -> Scores:
        self._check(model, Feature.RERANK, "documents", documents)
        if not query.strip():
            raise EmptyText("there is nothing to compare documents with; give a query", metadata={"field": "query"})
        async with self.admission.slot(tenant=tenant):
            return await self._engine.score(query, documents)

    def _check(self, model: ModelInfo, feature: Feature, field: str, texts: Sequence[str]) -> None:
        if feature not in model.features:
            raise features.unsupported(model, feature)
        faults = tuple(_faults(field, texts))
        if faults:
            raise InvalidArgument("; ".join(map(str, faults)), metadata={"field": faults[0].field}, violations=faults)
        self.check_alive()


def _faults(field: str, texts: Sequence[str]) -> Iterator[Violation]:
    if not 1 <= len(texts) <= TEXTS_MAX:
        yield Violation(field=field, message=f"has {len(texts)} texts, must have 1 to {TEXTS_MAX}")
        return
    for index, text in enumerate(texts):
        if not text.strip():
            yield Violation(field=f"{field}[{index}]", message="is empty")
