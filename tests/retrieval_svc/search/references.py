"""What searches should find, worked out the long way."""

import numpy as np

from retrieval_svc.search.calls import Fusion, FusionMethod
from tests.retrieval_svc.search.fakes import Bench, query_vector

VECTOR = query_vector()
RAW = VECTOR.astype("<f4").tobytes()


def dense_ids(on: Bench, vector: np.ndarray = VECTOR) -> list[str]:
    return [each.chunk.id for _, each in on.gatherer.dense(vector)]


def document_ids(on: Bench) -> set[str]:
    return {each.chunk.document_id for each in on.gatherer.rows}


def fusion_reference(on: Bench, text: str, vector: np.ndarray, fusion: Fusion, candidates: int) -> list[str]:
    dense = {each.chunk.id: float(np.float32(score)) for score, each in on.gatherer.dense(vector)[:candidates]}
    lexical = {each.chunk.id: score for score, each in on.gatherer.lexical(text)[:candidates]}

    def part(side: dict[str, float], key: str) -> float:
        if key not in side:
            return 0.0
        if fusion.method is FusionMethod.RECIPROCAL_RANK:
            return 1 / (fusion.rrf_k + 1 + list(side).index(key))
        low, high = min(side.values()), max(side.values())
        return (side[key] - low) / (high - low) if high > low else 1.0

    weight = fusion.dense_weight
    scores = {key: weight * part(dense, key) + (1 - weight) * part(lexical, key) for key in dense | lexical}
    return sorted(scores, key=lambda key: -scores[key])
