"""A NUL in any text of any request is told by its field or stored as it is, in SQLite and in PostgreSQL, which takes none."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct, Value

from penstock.errors import InvalidArgument, NotFound, PenstockError
from penstock.paging import page_token
from penstock.retrieval.v1 import retrieval_pb2 as pb
from retrieval_svc.catalog import Wanted
from tests.retrieval_svc.fakes import Core, WordEmbedder, running_core
from tests.retrieval_svc.postgres import database_url, postgres, postgres_url, sqlite_url
from tests.retrieval_svc.test_bad_input import TEXTS, Context, method

__all__ = ["database_url", "postgres", "postgres_url", "sqlite_url"]

NUL = "a\0b"


@pytest.fixture
async def core(tmp_path: Path, database_url: str) -> AsyncIterator[Core]:
    async with running_core(tmp_path, embedder=WordEmbedder(), database_url=database_url) as running:
        await running.catalog.create(Wanted(id="texts"))
        yield running
        assert running.stopped == []


def struct(**values: Any) -> Struct:
    made = Struct()
    made.update(values)
    return made


CHUNK = pb.Chunk(id="c", document_id="d", text="some words", metadata=struct(key="value"), allowed_principals=["user:ann"])
DOCUMENT = pb.Document(
    id="d", text="some words", metadata=struct(key="value"), content_type="text/plain", allowed_principals=["user:ann"]
)
FILTER = pb.Filter(
    all_of=pb.Filters(
        filters=[
            pb.Filter(exists=pb.Exists(field="key")),
            pb.Filter(none_of=pb.Filters(filters=[pb.Filter(equals=pb.Equals(field="key", value=Value(string_value="x")))])),
        ]
    )
)
SEARCH = pb.SearchRequest(
    collection=TEXTS,
    text="words",
    mode=pb.SEARCH_MODE_HYBRID,
    filter=FILTER,
    fields=["text"],
    page_token="token",
    consistency_token="token",
    reranking=pb.Reranking(model="model"),
)
REQUESTS: tuple[Any, ...] = (
    pb.CreateCollectionRequest(
        collection_id="new",
        collection=pb.Collection(embedding_model="words", lexical=pb.LexicalConfig(enabled=True, language="en")),
    ),
    pb.CreateCollectionRequest(
        collection_id="new", collection=pb.Collection(dimension=3, lexical=pb.LexicalConfig(enabled=False, language="en"))
    ),
    pb.GetCollectionRequest(name=TEXTS),
    pb.ListCollectionsRequest(page_token="token"),
    pb.DeleteCollectionRequest(name=TEXTS),
    pb.IngestDocumentsRequest(collection=TEXTS, documents=[DOCUMENT]),
    pb.UpsertChunksRequest(collection=TEXTS, chunks=[CHUNK]),
    pb.DeleteChunksRequest(collection=TEXTS, chunk_ids=["c"]),
    pb.DeleteChunksRequest(collection=TEXTS, document_ids=["d"]),
    pb.DeleteChunksRequest(collection=TEXTS, filter=FILTER),
    pb.BatchGetChunksRequest(collection=TEXTS, chunk_ids=["c"], fields=["text"]),
    pb.ListChunksRequest(collection=TEXTS, page_token="token"),
    SEARCH,
    pb.SearchBatchRequest(collection=TEXTS, requests=[pb.SearchRequest(text="words", filter=FILTER)]),
    pb.EmbedRequest(model="words", texts=["some words"]),
    pb.ListModelsRequest(page_token="token"),
    pb.GetCollectionStatusRequest(name=TEXTS),
    pb.CompactCollectionRequest(name=TEXTS),
)


def with_nul(request: Any) -> Iterator[tuple[str, Any]]:
    """The request again and again, each time with a NUL in another of its texts, and which one."""
    for path in list(_texts(request)):
        copy = type(request)()
        copy.CopyFrom(request)
        holder: Any = copy
        for step in path[:-1]:
            holder = getattr(holder, step) if isinstance(step, str) else holder[step]
        last = path[-1]
        if isinstance(last, str):
            setattr(holder, last, NUL)
        else:
            holder[last] = NUL
        yield ".".join(map(str, path)), copy


def _texts(message: Message) -> Iterator[tuple[str | int, ...]]:
    for field, value in message.ListFields():
        if isinstance(value, Struct):  # Its parts are made anew with every access: a key and a value each stand for all.
            continue
        items = enumerate(value) if field.is_repeated else [(None, value)]
        for at, item in items:
            here: tuple[str | int, ...] = (field.name,) if at is None else (field.name, at)
            if isinstance(item, str):
                yield here
            elif isinstance(item, Message):
                yield from ((*here, *rest) for rest in _texts(item))


async def test_a_nul_in_any_text_of_any_request_is_a_fault_of_the_request(core: Core) -> None:
    for number, request in enumerate(REQUESTS):
        for place, faulty in with_nul(request):
            where = f"{type(request).__name__} {number}: {place}"
            try:
                await method(core, faulty)(faulty, Context())
            except (InvalidArgument, NotFound):
                continue
            except PenstockError as error:
                pytest.fail(f"{where}: {error.reason}: {error.message}")
            # Filters and content types stay out of the database: metadata may hold a NUL, and so may what is looked for in it.
            assert "filter" in place or "content_type" in place, where


@pytest.mark.parametrize("ids", [["c", NUL], [""], ["x" * 513]], ids=["NUL", "empty", "too long"])
async def test_ids_that_no_chunk_can_have_are_told_when_chunks_are_read(core: Core, ids: list[str]) -> None:
    request = pb.BatchGetChunksRequest(collection=TEXTS, chunk_ids=ids)
    with pytest.raises(InvalidArgument) as refused:
        await core.servicer.BatchGetChunks(request, Context())
    assert refused.value.metadata["field"] == f"chunk_ids[{len(ids) - 1}]"


async def test_a_page_token_with_a_nul_is_none_that_a_list_gave_out(core: Core) -> None:
    token = page_token(f"{TEXTS}/chunks", NUL)
    with pytest.raises(InvalidArgument, match="page_token"):
        await core.servicer.ListChunks(pb.ListChunksRequest(collection=TEXTS, page_token=token), Context())


async def test_a_nul_in_metadata_is_stored_and_found(core: Core) -> None:
    chunk, document = pb.Chunk(), pb.Document()
    chunk.CopyFrom(CHUNK)
    document.CopyFrom(DOCUMENT)
    document.id = "e"
    for each in (chunk, document):
        each.ClearField("allowed_principals")
        each.metadata.update({NUL: NUL, "inner": {"list": [NUL]}})
    service, context = core.servicer, Context()
    await service.UpsertChunks(pb.UpsertChunksRequest(collection=TEXTS, chunks=[chunk]), context)
    await service.IngestDocuments(pb.IngestDocumentsRequest(collection=TEXTS, documents=[document]), context)
    read = await service.BatchGetChunks(pb.BatchGetChunksRequest(collection=TEXTS, chunk_ids=["c", "e#0"]), context)
    assert [each.metadata for each in read.chunks] == [chunk.metadata, document.metadata]
    wanted = pb.Filter(equals=pb.Equals(field=NUL, value=Value(string_value=NUL)))
    found = (await service.Search(pb.SearchRequest(collection=TEXTS, text="words", filter=wanted), context)).message()
    assert {hit.chunk.id for hit in found.hits} == {"c", "e#0"}
