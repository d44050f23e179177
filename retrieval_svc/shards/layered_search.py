"""What queries find in the layers of a shard, by their vectors."""

from collections.abc import Sequence

import numpy as np

from retrieval_svc.shards.exact import Best
from retrieval_svc.shards.index import Effort
from retrieval_svc.shards.known_fields import KnownFields
from retrieval_svc.shards.layers import Layer
from retrieval_svc.shards.metrics import prepared
from retrieval_svc.shards.ranking import NOTHING, LayerBest, layer_best, ranked
from retrieval_svc.values import CollectionSpec, Matrix, Metric, Ranked, ShardQuery, UnmetCondition

Found = tuple[Ranked, tuple[UnmetCondition, ...]]
"""What one query found, and the conditions of its filter that no row of the shard could meet, now or ever before."""


def search_layers(
    layers: Sequence[Layer], spec: CollectionSpec, known: KnownFields, queries: Sequence[ShardQuery]
) -> list[Found]:
    """What each query finds. Those with equal parameters go through each layer in one call of FAISS's.

    A query without a vector finds nothing.
    """
    if len(queries) == 1 and queries[0].vector is not None:
        return _search_alike(layers, spec, known, queries, queries[0].vector[None])
    found: list[Found] = [(NOTHING, ())] * len(queries)
    groups: dict[object, list[int]] = {}
    for at, query in enumerate(queries):
        if query.vector is not None:
            groups.setdefault(_parameters(query), []).append(at)
    for places in groups.values():
        alike = [queries[at] for at in places]
        vectors = np.stack([query.vector for query in alike if query.vector is not None])
        for at, one in zip(places, _search_alike(layers, spec, known, alike, vectors), strict=True):
            found[at] = one
    return found


def _search_alike(
    layers: Sequence[Layer], spec: CollectionSpec, known: KnownFields, queries: Sequence[ShardQuery], vectors: Matrix
) -> list[Found]:
    """What queries with equal parameters find, by their vectors in the same order."""
    query = queries[0]
    vectors, _ = prepared(vectors, spec.metric)
    best: list[LayerBest] = []
    unmet: list[tuple[UnmetCondition, ...]] = []
    for layer in layers:
        (scores, rows), unmet_here = _best(layer, spec, query, vectors)
        unmet.append(unmet_here)
        if spec.metric is Metric.COSINE:
            np.clip(scores, -1.0, 1.0, out=scores)  # Rounding takes it a hair beyond.
        best.append(layer_best(layer, (scores, rows)))
    rankings = ranked(best, query.limit, len(queries), with_chunks=query.with_chunks)
    unmet_by_all = known.unmet(query.filter, unmet)
    return [(ranking, unmet_by_all) for ranking in rankings]


def _best(layer: Layer, spec: CollectionSpec, query: ShardQuery, vectors: Matrix) -> tuple[Best, tuple[UnmetCondition, ...]]:
    """The best rows of one layer, and the conditions that none of its rows could meet."""
    if query.document_id:
        rows, unmet = layer.rows_of(query.document_id, query.filter, query.visibility)
        return layer.source.search_rows(vectors, query.limit, rows), unmet
    selection, unmet = layer.selection(query.filter, query.visibility)
    return layer.source.search(vectors, query.limit, _effort(query, spec), selection), unmet


def _effort(query: ShardQuery, spec: CollectionSpec) -> Effort:
    return Effort(
        ef_search=query.ef_search or spec.index.hnsw_ef_search,
        nprobe=query.nprobe or spec.index.ivf_nprobe,
        rescore_factor=spec.index.rescore_factor,
        exact=query.exact,
    )


def _parameters(query: ShardQuery) -> object:
    """What queries share that can be searched together."""
    return (
        query.limit, query.filter, query.visibility, query.document_id, query.ef_search, query.nprobe, query.exact,
        query.with_chunks,
    )  # fmt: skip
