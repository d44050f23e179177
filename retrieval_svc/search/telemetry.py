"""The span of a search, or of a batch of them."""

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager

from opentelemetry.trace import Span, Tracer

from penstock import semconv
from penstock.tracing import inner_span
from retrieval_svc.search.calls import SearchCall, SearchResult
from retrieval_svc.search.chunk_parts import ChunkParts


def started(tracer: Tracer, collection_id: str) -> AbstractContextManager[Span]:
    """The span, begun."""
    return inner_span(tracer, f"retrieval {collection_id}")


def describe_calls(span: Span, collection_id: str, calls: Sequence[SearchCall]) -> None:
    """What is searched for."""
    span.set_attribute(semconv.GEN_AI_OPERATION_NAME, "retrieval")
    span.set_attribute(semconv.GEN_AI_DATA_SOURCE_ID, collection_id)
    if len(calls) == 1:
        span.set_attribute(semconv.GEN_AI_REQUEST_TOP_K, calls[0].top_k)
        span.set_attribute(semconv.PENSTOCK_SEARCH_MODE, calls[0].mode.value)
    else:
        span.set_attribute(semconv.PENSTOCK_BATCH_SIZE, len(calls))


def describe_results(span: Span, results: Sequence[SearchResult]) -> None:
    """How much was found."""
    span.set_attribute(semconv.PENSTOCK_HIT_COUNT, sum(len(result.chunks) for result in results))
    missing = {shard for result in results for shard in result.missing_shards}
    if missing:
        span.set_attribute(semconv.PENSTOCK_MISSING_SHARDS, sorted(missing))


def capture(span: Span, call: SearchCall, result: SearchResult, codec: ChunkParts) -> None:
    """The texts of a search and of its hits, which stand in spans only when that is switched on. Batches would be too long."""
    if call.text:
        span.set_attribute(semconv.GEN_AI_RETRIEVAL_QUERY_TEXT, call.text)
    chunks = map(codec.decode, result.chunks)
    documents = [
        {"id": chunk.id, "score": score, "content": chunk.text}
        for chunk, score in zip(chunks, result.scores.tolist(), strict=True)
    ]
    span.set_attribute(semconv.GEN_AI_RETRIEVAL_DOCUMENTS, json.dumps(documents, ensure_ascii=False))
