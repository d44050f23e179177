"""What callers may get wrong, through the servicer: every fault has its reason and its place, and the service goes on."""

import struct
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Value

from penstock.errors import InvalidArgument, PenstockError, UnreadableDocument
from penstock.retrieval.v1 import retrieval_pb2 as pb
from tests.retrieval_svc.fakes import Core
from tests.retrieval_svc.ingest.pdfs import pdf

TEXTS = "collections/texts"
VECTORS = "collections/vectors"


class Context:
    def metadata(self) -> dict[str, str]:
        return {}

    def time_remaining(self) -> float:
        return 60.0


def floats(*components: float) -> bytes:
    return struct.pack(f"<{len(components)}f", *components)


def search(collection: str = TEXTS, **fields: Any) -> pb.SearchRequest:
    return pb.SearchRequest(collection=collection, **fields)


def ingest(*documents: pb.Document, collection: str = TEXTS) -> pb.IngestDocumentsRequest:
    return pb.IngestDocumentsRequest(collection=collection, documents=documents)


def upsert(*chunks: pb.Chunk, collection: str = VECTORS) -> pb.UpsertChunksRequest:
    return pb.UpsertChunksRequest(collection=collection, chunks=chunks)


def chunk(chunk_id: str = "c", text: str = "t", **fields: Any) -> pb.Chunk:
    return pb.Chunk(id=chunk_id, text=text, **{"vector": floats(1, 0, 0), **fields})


def document(document_id: str = "d", text: str = "some words") -> pb.Document:
    return pb.Document(id=document_id, text=text)


def number(value: float) -> Value:
    return Value(number_value=value)


def string(value: str) -> Value:
    return Value(string_value=value)


def nested(levels: int) -> pb.Filter:
    """Negations of negations."""
    inner = pb.Filter(exists=pb.Exists(field="year"))
    for _ in range(levels):
        inner = pb.Filter(none_of=pb.Filters(filters=[inner]))
    return inner


EXISTS = pb.Filter(exists=pb.Exists(field="year"))
BOMB = pdf([], streams=[zlib.compress(b" " * 2**29, 9)])
LARGE = ParseDict({"key": "x" * 70_000}, pb.Document().metadata)

FAULTS: dict[str, tuple[Any, str, dict[str, str]]] = {
    "unknown collection": (search("collections/none", text="a"), "COLLECTION_NOT_FOUND", {"collection": "none"}),
    "no resource name": (search("texts", text="a"), "INVALID_ARGUMENT", {"field": "collection"}),
    "empty text": (search(text=""), "EMPTY_TEXT", {}),
    "white space": (search(text=" \n\t "), "EMPTY_TEXT", {}),
    "neither text nor vector": (search(), "INVALID_ARGUMENT", {"field": "text"}),
    "text too long": (search(text="word " * 300), "INVALID_ARGUMENT", {"field": "text", "limit": "1000"}),
    "top_k of 0": (search(text="a", top_k=0), "TOP_K_OUT_OF_RANGE", {"limit": "1000"}),
    "top_k below 0": (search(text="a", top_k=-5), "TOP_K_OUT_OF_RANGE", {"limit": "1000"}),
    "top_k of a million": (search(text="a", top_k=1_000_000), "TOP_K_OUT_OF_RANGE", {"limit": "1000"}),
    "text on a collection of vectors": (search(VECTORS, text="a"), "FAILED_PRECONDITION", {"collection": "vectors"}),
    "vector too short": (
        search(VECTORS, vector=floats(1, 2)), "DIMENSION_MISMATCH", {"expected_bytes": "12", "dimension": "3"},
    ),
    "vector of odd bytes": (
        search(VECTORS, vector=b"12345"), "DIMENSION_MISMATCH", {"expected_bytes": "12", "dimension": "3"},
    ),
    "empty vector": (search(VECTORS, vector=b""), "DIMENSION_MISMATCH", {"expected_bytes": "12", "dimension": "3"}),
    "not a number": (search(VECTORS, vector=floats(1, float("nan"), 0)), "INVALID_ARGUMENT", {"field": "vector"}),
    "infinity": (search(VECTORS, vector=floats(1, float("-inf"), 0)), "INVALID_ARGUMENT", {"field": "vector"}),
    "vector too long": (search(VECTORS, vector=floats(3e38, 3e38, 0)), "INVALID_ARGUMENT", {"field": "vector"}),
    "zero vector under cosine": (search(vector=floats(*[0.0] * 64)), "INVALID_ARGUMENT", {"field": "vector"}),
    "words without a text": (
        search(VECTORS, vector=floats(1, 0, 0), mode=pb.SEARCH_MODE_LEXICAL), "INVALID_ARGUMENT", {"field": "text"},
    ),
    "a mode of another time": (search(text="a", mode=99), "INVALID_ARGUMENT", {"field": "mode"}),
    "a part that chunks have not": (search(text="a", fields=["id", "colour"]), "INVALID_ARGUMENT", {"field": "fields[1]"}),
    "a token that no write gave out": (
        search(text="a", consistency_token="garbage"), "INVALID_ARGUMENT", {"field": "consistency_token"},
    ),
    "a page of another search": (search(text="a", page_token="garbage"), "INVALID_ARGUMENT", {"field": "page_token"}),
    "a filter that says nothing": (search(text="a", filter=pb.Filter()), "INVALID_ARGUMENT", {"field": "filter"}),
    "a filter nested too deep": (
        search(text="a", filter=nested(40)),
        "INVALID_ARGUMENT", {"field": "filter" + ".none_of.filters[0]" * 32, "limit": "32"},
    ),
    "a filter of 1,000 conditions": (
        search(text="a", filter=pb.Filter(all_of=pb.Filters(filters=[EXISTS] * 1000))),
        "INVALID_ARGUMENT", {"field": "filter.all_of.filters[255]", "limit": "256"},
    ),
    "bounds of two types": (
        search(text="a", filter=pb.Filter(range=pb.Range(field="year", gte=number(1990), lt=string("x")))),
        "INVALID_ARGUMENT", {"field": "filter.range.lt"},
    ),
    "one fault of a batch": (
        pb.SearchBatchRequest(collection=TEXTS, requests=[search(text="a"), search(text="a", top_k=0)]),
        "TOP_K_OUT_OF_RANGE", {"limit": "1000"},
    ),
    "a batch of nothing": (pb.SearchBatchRequest(collection=TEXTS), "INVALID_ARGUMENT", {"field": "requests"}),
    "nothing to embed": (pb.EmbedRequest(), "INVALID_ARGUMENT", {"field": "texts"}),
    "no ids to read": (pb.BatchGetChunksRequest(collection=TEXTS), "INVALID_ARGUMENT", {"field": "chunk_ids", "limit": "1000"}),
    "no documents": (ingest(), "INVALID_ARGUMENT", {"field": "documents", "limit": "1000"}),
    "too many documents": (
        ingest(*(document(f"d{number}") for number in range(1001))),
        "INVALID_ARGUMENT", {"field": "documents", "limit": "1000"},
    ),
    "document twice": (
        ingest(document("a"), document("b"), document("a")), "INVALID_ARGUMENT", {"field": "documents[2].id"},
    ),
    "document without id": (ingest(document("")), "INVALID_ARGUMENT", {"field": "documents[0].id"}),
    "id with control characters": (ingest(document("a\nb")), "INVALID_ARGUMENT", {"field": "documents[0].id"}),
    "id too long": (ingest(document("ä" * 129)), "INVALID_ARGUMENT", {"field": "documents[0].id", "limit": "256"}),
    "document without text": (ingest(document(), document("e", "  ")), "EMPTY_TEXT", {}),
    "document with NUL": (ingest(document(text="a\0b")), "INVALID_ARGUMENT", {"field": "documents[0].text"}),
    "document too long": (
        ingest(document(text="word " * 30_000)), "INVALID_ARGUMENT", {"field": "documents[0].text", "limit": "100000"},
    ),
    "metadata too large": (
        ingest(pb.Document(id="d", text="t", metadata=LARGE)),
        "INVALID_ARGUMENT", {"field": "documents[0].metadata", "limit": "65536"},
    ),
    "no chunks": (upsert(), "INVALID_ARGUMENT", {"field": "chunks", "limit": "10000"}),
    "chunk twice": (upsert(chunk("a"), chunk("a")), "INVALID_ARGUMENT", {"field": "chunks[1].id"}),
    "chunk without text": (upsert(chunk(text="")), "EMPTY_TEXT", {}),
    "chunk without vector": (upsert(chunk(vector=b"")), "FAILED_PRECONDITION", {"collection": "vectors"}),
    "chunk of another dimension": (
        upsert(chunk("a"), chunk("b", vector=floats(1))),
        "DIMENSION_MISMATCH", {"expected_bytes": "12", "dimension": "3"},
    ),
    "chunk that is not a number": (
        upsert(chunk("a"), chunk("b", vector=floats(0, float("nan"), 1))),
        "INVALID_ARGUMENT", {"field": "chunks[1].vector"},
    ),
    "zero vector stored under cosine": (
        upsert(chunk("a"), chunk("b", vector=floats(0, 0, 0))), "INVALID_ARGUMENT", {"field": "chunks[1].vector"},
    ),
    "a principal without a name": (
        upsert(chunk(allowed_principals=["user:ann", ""])),
        "INVALID_ARGUMENT", {"field": "chunks[0].allowed_principals[1]"},
    ),
    "nothing to delete": (
        pb.DeleteChunksRequest(collection=TEXTS), "INVALID_ARGUMENT", {"field": "chunk_ids"},
    ),
    "page too large": (
        pb.ListChunksRequest(collection=TEXTS, page_size=1001), "INVALID_ARGUMENT", {"field": "page_size", "limit": "1000"},
    ),
    "page below 0": (pb.ListCollectionsRequest(page_size=-1), "INVALID_ARGUMENT", {"field": "page_size", "limit": "1000"}),
    "garbage as page token": (
        pb.ListChunksRequest(collection=TEXTS, page_token="garbage"), "INVALID_ARGUMENT", {"field": "page_token"},
    ),
    "bad collection id": (pb.CreateCollectionRequest(collection_id="No!"), "INVALID_ARGUMENT", {"field": "collection_id"}),
    "collection twice": (pb.CreateCollectionRequest(collection_id="texts"), "ALREADY_EXISTS", {"collection": "texts"}),
    "dimension below 0": (
        pb.CreateCollectionRequest(collection_id="a", collection=pb.Collection(dimension=-1)),
        "INVALID_ARGUMENT", {"field": "collection.dimension"},
    ),
    "too many shards": (
        pb.CreateCollectionRequest(collection_id="a", collection=pb.Collection(dimension=3, shard_count=1025)),
        "INVALID_ARGUMENT", {"field": "collection.shard_count"},
    ),
    "a graph without edges": (
        pb.CreateCollectionRequest(
            collection_id="a", collection=pb.Collection(dimension=3, index=pb.IndexConfig(hnsw_m=0))
        ),
        "INVALID_ARGUMENT", {"field": "collection.index.hnsw_m", "limit": "128"},
    ),
    "a language of nowhere": (
        pb.CreateCollectionRequest(
            collection_id="a", collection=pb.Collection(dimension=3, lexical=pb.LexicalConfig(enabled=True, language="xx"))
        ),
        "INVALID_ARGUMENT", {"field": "collection.lexical.language"},
    ),
    "snapshots without a store": (pb.CreateSnapshotRequest(collection=TEXTS), "FAILED_PRECONDITION", {}),
    "unknown model": (
        pb.CreateCollectionRequest(collection_id="a", collection=pb.Collection(embedding_model="e5")),
        "MODEL_NOT_FOUND", {"model": "e5", "loaded": "words"},
    ),
    "unknown collection to delete": (
        pb.DeleteCollectionRequest(name="collections/none"), "COLLECTION_NOT_FOUND", {"collection": "none"},
    ),
}  # fmt: skip


def method(core: Core, request: Any) -> Callable[..., Any]:
    return getattr(core.servicer, type(request).__name__.removesuffix("Request"))


@pytest.mark.parametrize("fault", FAULTS)
async def test_every_fault_has_its_reason_and_its_place(core: Core, fault: str) -> None:
    request, reason, metadata = FAULTS[fault]
    with pytest.raises(PenstockError) as refused:
        await method(core, request)(request, Context())
    assert (refused.value.reason, refused.value.metadata) == (reason, metadata)
    assert core.stopped == []


async def test_a_write_with_one_fault_stores_nothing_of_itself(core: Core) -> None:
    request = upsert(chunk("good"), chunk("bad", vector=floats(1)))
    with pytest.raises(PenstockError):
        await core.servicer.UpsertChunks(request, Context())
    answer = await core.servicer.ListChunks(pb.ListChunksRequest(collection=VECTORS), Context())
    assert list(answer.chunks) == []


async def test_a_filter_on_a_field_that_no_chunk_has_is_told_from_one_that_finds_nothing(core: Core) -> None:
    service, context = core.servicer, Context()
    sent = chunk()
    sent.metadata.update({"year": 1999})
    await service.UpsertChunks(upsert(sent), context)

    async def find(filter_: pb.Filter) -> pb.SearchResponse:
        return (await service.Search(search(VECTORS, vector=floats(1, 0, 0), filter=filter_), context)).message()

    assert len((await find(pb.Filter(equals=pb.Equals(field="year", value=number(1999))))).hits) == 1
    assert len((await find(pb.Filter(equals=pb.Equals(field="year", value=number(2000))))).hits) == 0
    assert len((await find(pb.Filter(none_of=pb.Filters(filters=[EXISTS])))).hits) == 0
    with pytest.raises(InvalidArgument, match="no chunk has the metadata field 'yaer'") as refused:
        await find(pb.Filter(equals=pb.Equals(field="yaer", value=number(1999))))
    assert refused.value.metadata == {"field": "yaer"}
    with pytest.raises(InvalidArgument, match="'year' with a string, but in the chunks it is a number"):
        await find(pb.Filter(equals=pb.Equals(field="year", value=string("1999"))))
    with pytest.raises(InvalidArgument, match="'year'"):
        await service.DeleteChunks(
            pb.DeleteChunksRequest(collection=VECTORS, filter=pb.Filter(equals=pb.Equals(field="year", value=string("x")))),
            context,
        )
    assert len((await find(EXISTS)).hits) == 1


@pytest.mark.parametrize("content", [b"%PDF-1.7 and nothing else", BOMB], ids=["broken", "a zip bomb"])
async def test_a_file_that_cannot_be_read_costs_one_clear_error(core: Core, content: bytes) -> None:
    service, context = core.servicer, Context()
    file = pb.Document(id="file", content=content, content_type="application/pdf")
    with pytest.raises(UnreadableDocument, match="document 'file' cannot be read") as refused:
        await service.IngestDocuments(ingest(document(), file), context)
    assert len(refused.value.message) < 500
    assert (await service.IngestDocuments(ingest(document()), context)).chunk_count == 1


async def test_the_servicer_answers_with_what_the_contract_says(core: Core) -> None:
    service, context = core.servicer, Context()
    created = await service.CreateCollection(
        pb.CreateCollectionRequest(collection_id="new", collection=pb.Collection(dimension=3, metric=pb.METRIC_INNER_PRODUCT)),
        context,
    )
    made = created.collection
    assert (made.name, made.dimension, made.metric) == ("collections/new", 3, pb.METRIC_INNER_PRODUCT)
    assert (made.shard_count, made.lexical) == (1, pb.LexicalConfig(enabled=True, language="en"))
    assert (made.index.kind, made.index_kind_in_use) == (pb.INDEX_KIND_AUTO, pb.INDEX_KIND_FLAT)
    stored = await service.UpsertChunks(upsert(chunk("a", document_id="d"), chunk("b"), collection="collections/new"), context)
    assert stored.chunk_count == 2
    got = await service.GetCollection(pb.GetCollectionRequest(name="collections/new"), context)
    assert got.collection.chunk_count == 2
    found = (await service.Search(search("collections/new", vector=floats(2, 0, 0), top_k=1), context)).message()
    assert [(hit.chunk.id, hit.chunk.vector, hit.score) for hit in found.hits] == [("a", b"", 2.0)]
    deleted = await service.DeleteChunks(pb.DeleteChunksRequest(collection="collections/new", document_ids=["d"]), context)
    assert deleted.deleted_count == 1
    ingested = await service.IngestDocuments(ingest(document()), context)
    assert (ingested.document_count, ingested.chunk_count) == (1, 1)
    await service.DeleteCollection(pb.DeleteCollectionRequest(name="collections/new"), context)
    left = await service.ListCollections(pb.ListCollectionsRequest(page_size=1), context)
    assert [collection.name for collection in left.collections] == [TEXTS]
    rest = await service.ListCollections(pb.ListCollectionsRequest(page_token=left.next_page_token), context)
    assert [collection.name for collection in rest.collections] == [VECTORS]
