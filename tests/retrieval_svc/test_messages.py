import pytest
from google.protobuf.json_format import MessageToDict, ParseDict

from penstock.errors import InvalidArgument
from penstock.retrieval.v1 import retrieval_pb2 as pb
from retrieval_svc.chunk_messages import ChunkCodec, chunk_from, chunk_message, stored_message
from retrieval_svc.messages import collection_message, wanted_from
from retrieval_svc.search_messages import call_from
from retrieval_svc.values import EVERYTHING, Collection, CollectionSpec, IndexKind, Metric, ShardStatus, StoredChunk

METADATA = {"title": "Füße", "page": 3, "ratio": 0.25, "tags": ["a", None, True], "inner": {"deep": {"er": []}}, "big": 1e300}


def stored(metadata_json: str = "") -> StoredChunk:
    return StoredChunk(
        sequence=1, id="c", document_id="d", text="text", metadata_json=metadata_json, allowed_principals=("user:ann",)
    )


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


def test_a_chunk_is_kept_with_everything_but_its_access_list() -> None:
    chunk = stored('{"title":"T"}')
    back = ChunkCodec().decode(ChunkCodec().encode(chunk), sequence=1)
    assert (back.id, back.document_id, back.text, back.metadata_json) == ("c", "d", "text", '{"title":"T"}')
    assert back.allowed_principals == ()
    assert list(stored_message(chunk, ["allowed_principals"]).allowed_principals) == ["user:ann"]
    assert list(stored_message(chunk, ["text"]).allowed_principals) == []
    assert list(stored_message(chunk).allowed_principals) == ["user:ann"], "what is read, changed and stored again keeps it"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ([], {"id": "c", "documentId": "d", "text": "text", "metadata": {"a": 1.0, "b": {"x": 2.0}}}),
        (["id"], {"id": "c"}),
        (["text"], {"id": "c", "text": "text"}),
        (["document_id", "metadata.a"], {"id": "c", "documentId": "d", "metadata": {"a": 1.0}}),
        (["metadata"], {"id": "c", "metadata": {"a": 1.0, "b": {"x": 2.0}}}),
    ],
)
def test_only_the_parts_that_were_asked_for_are_sent(fields: list[str], expected: dict[str, object]) -> None:
    encoded = ChunkCodec().encode(stored('{"a":1,"b":{"x":2}}'))
    assert MessageToDict(pb.Chunk.FromString(ChunkCodec().select(encoded, fields))) == expected


def test_top_k_is_ten_unless_it_is_given_even_as_zero() -> None:
    assert call_from(pb.SearchRequest(text="a"), 1, EVERYTHING).top_k == 10
    assert call_from(pb.SearchRequest(text="a", top_k=0), 1, EVERYTHING).top_k == 0


def test_metrics_default_to_cosine_and_unknown_numbers_are_refused() -> None:
    def metric_of(number: int) -> Metric:
        return wanted_from(pb.CreateCollectionRequest(collection=pb.Collection(metric=number))).metric  # type: ignore[arg-type]

    assert metric_of(pb.METRIC_UNSPECIFIED) is metric_of(pb.METRIC_COSINE) is Metric.COSINE
    with pytest.raises(InvalidArgument) as refused:
        metric_of(99)
    assert refused.value.metadata == {"field": "collection.metric"}


def test_words_are_indexed_in_english_unless_it_is_said_otherwise() -> None:
    def lexical_of(**fields: pb.LexicalConfig) -> tuple[bool, str]:
        lexical = wanted_from(pb.CreateCollectionRequest(collection=pb.Collection(**fields))).lexical
        return lexical.enabled, lexical.language

    assert lexical_of() == (True, "en")
    assert lexical_of(lexical=pb.LexicalConfig(enabled=True, language="de")) == (True, "de")
    assert lexical_of(lexical=pb.LexicalConfig(enabled=False)) == (False, "en")


def test_the_kind_in_use_is_that_of_the_largest_shard() -> None:
    spec = CollectionSpec(id="c", embedding_model="", embedding_fingerprint="", dimension=2, metric=Metric.L2, shard_count=2)
    collection = Collection(uid=1, spec=spec, chunk_count=7)
    statuses = [status(0, 5, IndexKind.FLAT), status(1, 50, IndexKind.HNSW)]
    assert collection_message(collection, statuses).index_kind_in_use == pb.INDEX_KIND_HNSW
    assert collection_message(collection).index_kind_in_use == pb.INDEX_KIND_UNSPECIFIED


def status(shard: int, row_count: int, kind: IndexKind) -> ShardStatus:
    return ShardStatus(
        shard=shard,
        position=1,
        record_position=1,
        row_count=row_count,
        deleted_row_count=0,
        head_row_count=0,
        segment_count=1,
        index_kind=kind,
        size_bytes=1,
    )
