"""What several layers of a shard found for the same queries, made into one ranking each."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from retrieval_svc.light import light
from retrieval_svc.shards.exact import Best, Rows, Scores
from retrieval_svc.shards.layers import Layer
from retrieval_svc.values import Ranked, Sequences

NOTHING: Final = Ranked(scores=np.empty(0, np.float32), sequences=np.empty(0, np.int64))


@light
class LayerBest:
    """The best rows of one layer: arrays of shape (queries, k), where every query has the same k."""

    layer: Layer
    scores: Scores
    rows: Rows
    sequences: Sequences


def layer_best(layer: Layer, best: Best) -> LayerBest:
    """With the rows' sequence numbers."""
    scores, rows = best
    return LayerBest(layer=layer, scores=scores, rows=rows, sequences=layer.source.sequences[rows])


def ranked(parts: Sequence[LayerBest], limit: int, query_count: int, *, with_chunks: bool) -> list[Ranked]:
    """The best `limit` of all layers for each query: higher scores first, then lower sequence numbers."""
    parts = [part for part in parts if part.scores.shape[1]]
    if not parts:
        return [NOTHING] * query_count
    if len(parts) == 1:
        only = parts[0]
        return _rankings(only.scores, only.sequences, _chunks([only], only.rows, None) if with_chunks else None)
    scores = np.concatenate([part.scores for part in parts], 1)
    sequences = np.concatenate([part.sequences for part in parts], 1)
    order = np.lexsort((sequences, -scores), axis=-1)[:, :limit]
    scores, sequences = np.take_along_axis(scores, order, 1), np.take_along_axis(sequences, order, 1)
    if not with_chunks:
        return _rankings(scores, sequences, None)
    rows = np.take_along_axis(np.concatenate([part.rows for part in parts], 1), order, 1)
    origin = np.repeat(np.arange(len(parts)), [part.scores.shape[1] for part in parts])
    return _rankings(scores, sequences, _chunks(parts, rows, origin[order]))


def _rankings(scores: Scores, sequences: Sequences, chunks: list[bytes] | None) -> list[Ranked]:
    if chunks is None:
        return [Ranked(scores=score, sequences=sequence) for score, sequence in zip(scores, sequences, strict=True)]
    width = scores.shape[1]
    return [
        Ranked(scores=scores[at], sequences=sequences[at], chunks=tuple(chunks[at * width : (at + 1) * width]))
        for at in range(len(scores))
    ]


def _chunks(parts: Sequence[LayerBest], rows: Rows, origins: Rows | None) -> list[bytes]:
    """The payloads of all hits of all queries, one after another."""
    if origins is None:
        return parts[0].layer.source.payloads(rows.ravel())
    flat_rows, flat_origins = rows.ravel(), origins.ravel()
    chunks = np.empty(len(flat_rows), object)
    for at, part in enumerate(parts):
        here = np.flatnonzero(flat_origins == at)
        if len(here):
            chunks[here] = part.layer.source.payloads(flat_rows[here])
    return chunks.tolist()
