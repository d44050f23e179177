import gc

import pytest
from google.protobuf.json_format import MessageToDict, ParseDict

from penstock.errors import InvalidArgument
from penstock.retrieval.v1 import retrieval_pb2 as pb
from retrieval_svc.messages import HitEncoder, chunk_from, chunk_message, metric_from, query_from
from retrieval_svc.values import Hit, Metric, StoredChunk

METADATA = {"title": "Füße", "page": 3, "ratio": 0.25, "tags": ["a", None, True], "inner": {"deep": {"er": []}}, "big": 1e300}


def stored(metadata_json: str = "") -> StoredChunk:
    return StoredChunk(sequence=1, id="c", document_id="d", text="text", metadata_json=metadata_json)


def test_metadata_comes_back_as_it_went_in() -> None:
    sent = ParseDict({"id": "c", "text": "text", "metadata": METADATA}, pb.Chunk())
    chunk = chunk_from(sent, 0)
    assert '"page":3' in chunk.metadata_json
    assert MessageToDict(chunk_message(stored(chunk.metadata_json)))["metadata"] == METADATA


def test_no_metadata_is_none_on_the_way_back() -> None:
    assert chunk_from(pb.Chunk(id="c", text="t"), 0).metadata_json == ""
    assert not chunk_message(stored()).HasField("metadata")


def test_a_number_that_json_does_not_have_is_refused_with_its_place() -> None:
    sent = pb.Chunk(id="c", text="t")
    sent.metadata["outer"] = {"bad": float("nan")}
    with pytest.raises(InvalidArgument) as refused:
        chunk_from(sent, 4)
    assert refused.value.metadata == {"field": "chunks[4].metadata.outer.bad"}


def test_top_k_is_ten_unless_it_is_given_even_as_zero() -> None:
    assert query_from(pb.SearchRequest(text="a")).top_k == 10
    assert query_from(pb.SearchRequest(text="a", top_k=0)).top_k == 0


def test_a_search_for_nothing_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="a text or a vector"):
        query_from(pb.SearchRequest(top_k=3))


def test_metrics_default_to_cosine_and_unknown_numbers_are_refused() -> None:
    assert metric_from(pb.METRIC_UNSPECIFIED) is metric_from(pb.METRIC_COSINE) is Metric.COSINE
    with pytest.raises(InvalidArgument) as refused:
        metric_from(99)
    assert refused.value.metadata == {"field": "collection.metric"}


def test_a_chunks_message_is_kept_as_long_as_the_chunk() -> None:
    encoder = HitEncoder()
    chunk = stored('{"title":"T"}')
    first, second = (encoder.response([Hit(chunk=chunk, score=score)]) for score in (0.5, 0.25))
    assert first.hits[0].chunk == second.hits[0].chunk
    assert (first.hits[0].score, second.hits[0].score) == (0.5, 0.25)
    assert len(encoder._messages) == 1
    del chunk
    gc.collect()
    assert len(encoder._messages) == 0
