"""What nodes say to one another, as messages and as values. Columns are little-endian bytes, read without a copy."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock.errors import MalformedRequest
from penstock.retrieval.v1 import shard_pb2 as pb
from retrieval_svc.filter_messages import filter_from, filter_message
from retrieval_svc.values import (
    EVERYTHING,
    FetchedRows,
    MatchedRows,
    Matrix,
    Ranked,
    Sequences,
    ShardAnswer,
    ShardFound,
    ShardQuery,
    UnmetCondition,
    Visibility,
)

_FLOAT32: Final[np.dtype[np.float32]] = np.dtype("<f4")
_INT64: Final[np.dtype[np.int64]] = np.dtype("<i8")


def search_request_to(uid: int, shards: Mapping[int, int], queries: Sequence[ShardQuery]) -> pb.SearchShardsRequest:
    """A search of some of a node's shards."""
    return pb.SearchShardsRequest(
        collection_uid=uid,
        shards=[pb.ShardPosition(shard=shard, sequence=at_least) for shard, at_least in shards.items()],
        queries=[_query_to(query) for query in queries],
    )


def positions_from(shards: Sequence[pb.ShardPosition]) -> dict[int, int]:
    """For each shard the position that it must have reached."""
    return {each.shard: each.sequence for each in shards}


def query_from(message: pb.ShardQuery) -> ShardQuery:
    """A query as the shards take it."""
    return ShardQuery(
        vector=floats_from(message.vector) if message.vector else None,
        text=message.text,
        limit=message.limit,
        filter=filter_from(message.filter) if message.HasField("filter") else None,
        visibility=visibility_from(message.principals, sees_everything=message.sees_everything),
        document_id=message.document_id,
        ef_search=message.ef_search or None,
        nprobe=message.nprobe or None,
        exact=message.exact,
        with_chunks=message.with_chunks,
    )


def search_response_to(answers: Sequence[ShardAnswer]) -> pb.SearchShardsResponse:
    """What a node's shards found."""
    return pb.SearchShardsResponse(
        answers=[
            pb.ShardAnswer(shard=answer.shard, found=[_found_to(found) for found in answer.found], row_count=answer.row_count)
            for answer in answers
        ]
    )


def answers_from(message: pb.SearchShardsResponse) -> list[ShardAnswer]:
    """The same, as values."""
    return [
        ShardAnswer(shard=each.shard, found=tuple(map(_found_from, each.found)), row_count=each.row_count)
        for each in message.answers
    ]


def fetch_request_to(uid: int, shard: int, at_least: int, sequences: Sequences, *, with_vectors: bool) -> pb.FetchRowsRequest:
    """A read of rows by their numbers."""
    position = pb.ShardPosition(shard=shard, sequence=at_least)
    return pb.FetchRowsRequest(
        collection_uid=uid, shard=position, sequences=_bytes(sequences, _INT64), with_vectors=with_vectors
    )


def fetched_to(rows: FetchedRows) -> pb.FetchRowsResponse:
    """Rows that were read."""
    vectors = b"" if rows.vectors is None else _bytes(rows.vectors, _FLOAT32)
    return pb.FetchRowsResponse(sequences=_bytes(rows.sequences, _INT64), chunks=rows.chunks, vectors=vectors)


def fetched_from(message: pb.FetchRowsResponse, *, with_vectors: bool) -> FetchedRows:
    """The same, as values."""
    sequences = sequences_from(message.sequences)
    vectors: Matrix | None = None
    if with_vectors:
        vectors = floats_from(message.vectors)
        vectors = vectors.reshape(len(sequences), -1 if len(sequences) else 0)
    return FetchedRows(sequences=sequences, chunks=tuple(message.chunks), vectors=vectors)


def matched_to(rows: MatchedRows) -> pb.MatchRowsResponse:
    """Rows that match."""
    unmet = map(_unmet_to, rows.unmet)
    return pb.MatchRowsResponse(sequences=_bytes(rows.sequences, _INT64), unmet=unmet, row_count=rows.row_count)


def matched_from(message: pb.MatchRowsResponse) -> MatchedRows:
    """The same, as values."""
    unmet = tuple(map(_unmet_from, message.unmet))
    return MatchedRows(sequences=sequences_from(message.sequences), unmet=unmet, row_count=message.row_count)


def visibility_from(principals: Sequence[str], *, sees_everything: bool) -> Visibility:
    """Whose eyes a call has."""
    return EVERYTHING if sees_everything else Visibility(principals=frozenset(principals))


def sequences_from(data: bytes) -> Sequences:
    """A column of sequence numbers. Raises MalformedRequest for bytes that are not whole numbers."""
    _check_whole(data, _INT64.itemsize)
    return np.frombuffer(data, dtype=_INT64)


def floats_from(data: bytes) -> NDArray[np.float32]:
    """A column of scores or components. Raises MalformedRequest for bytes that are not whole numbers."""
    _check_whole(data, _FLOAT32.itemsize)
    return np.frombuffer(data, dtype=_FLOAT32)


def _query_to(query: ShardQuery) -> pb.ShardQuery:
    principals = query.visibility.principals
    return pb.ShardQuery(
        vector=None if query.vector is None else _bytes(query.vector, _FLOAT32),
        text=query.text,
        limit=query.limit,
        filter=None if query.filter is None else filter_message(query.filter),
        principals=principals,
        sees_everything=principals is None,
        document_id=query.document_id,
        ef_search=query.ef_search,
        nprobe=query.nprobe,
        exact=query.exact,
        with_chunks=query.with_chunks,
    )


def _found_to(found: ShardFound) -> pb.ShardFound:
    return pb.ShardFound(
        dense=None if found.dense is None else _ranked_to(found.dense),
        lexical=None if found.lexical is None else _ranked_to(found.lexical),
        unmet=map(_unmet_to, found.unmet),
    )


def _found_from(message: pb.ShardFound) -> ShardFound:
    return ShardFound(
        dense=_ranked_from(message.dense) if message.HasField("dense") else None,
        lexical=_ranked_from(message.lexical) if message.HasField("lexical") else None,
        unmet=tuple(map(_unmet_from, message.unmet)),
    )


def _ranked_to(ranked: Ranked) -> pb.RankedRows:
    return pb.RankedRows(
        scores=_bytes(ranked.scores, _FLOAT32), sequences=_bytes(ranked.sequences, _INT64), chunks=ranked.chunks
    )


def _ranked_from(message: pb.RankedRows) -> Ranked:
    scores, sequences = floats_from(message.scores), sequences_from(message.sequences)
    return Ranked(scores=scores, sequences=sequences, chunks=message.chunks)  # Read when they are picked: most are not.


def _unmet_to(unmet: UnmetCondition) -> pb.UnmetCondition:
    return pb.UnmetCondition(field=unmet.field, wanted=unmet.wanted, present=sorted(unmet.present))


def _unmet_from(message: pb.UnmetCondition) -> UnmetCondition:
    return UnmetCondition(field=message.field, wanted=message.wanted, present=frozenset(message.present))


def _bytes(column: NDArray[Any], dtype: np.dtype[Any]) -> bytes:
    return column.astype(dtype, copy=False).tobytes()


def _check_whole(data: bytes, item_bytes: int) -> None:
    if len(data) % item_bytes:
        message = f"a column of {len(data)} bytes does not hold numbers of {item_bytes} bytes; do the nodes' versions differ?"
        raise MalformedRequest(message)
