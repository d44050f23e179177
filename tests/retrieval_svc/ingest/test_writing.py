"""Writes over a record and shards in memory."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import numpy as np
import orjson
import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from penstock.errors import (
    CollectionNotFound,
    DeadlineExceeded,
    DimensionMismatch,
    EmptyText,
    FailedPrecondition,
    InvalidArgument,
    Overloaded,
    Unavailable,
    UnreadableDocument,
)
from retrieval_svc.filters import OneOf
from retrieval_svc.ingest.splitting import Splitter, Splitting
from retrieval_svc.ingest.writing import Deleted, Written
from retrieval_svc.values import Chunk, Document, Visibility
from tests.retrieval_svc.ingest.fakes import TEXTS, VECTORS, Core
from tests.retrieval_svc.ingest.pdfs import pdf

AS_SET = Splitting()
LONG = " ".join(f"Sentence {number} speaks of topic{number} only." for number in range(12))


@pytest.fixture
async def core() -> AsyncIterator[Core]:
    running = Core()
    yield running
    await running.extractor.close()


def vector(*components: float) -> bytes:
    return np.array(components, dtype="<f4").tobytes()


def ready(chunk_id: str, text: str = "text", *components: float) -> Chunk:
    return Chunk(id=chunk_id, text=text, vector=vector(*(components or (1, 0, 0))))


async def test_a_document_is_split_embedded_stored_and_seen_before_it_is_acknowledged(core: Core) -> None:
    documents = [
        Document(id="long", text=LONG, metadata_json='{"a":1}', allowed_principals=("user:ann",)),
        Document(id="s", text="Short."),
    ]
    written = await core.ingest.ingest_documents(TEXTS, documents, AS_SET)
    texts = core.record.texts()
    assert (written.document_count, written.chunk_count, written.unchanged_count) == (2, len(texts), 0)
    assert len(texts) > 4
    assert written.positions == core.shards.applied == core.shards.waited_for[-1]
    assert all(len(core.words.token_spans(text)) <= 16 for text in texts.values())
    chunk = core.record.chunk("long#1")
    assert (chunk.document_id, chunk.metadata_json, chunk.allowed_principals) == ("long", '{"a":1}', ("user:ann",))


async def test_a_document_that_comes_again_as_it_was_is_left_alone(core: Core) -> None:
    document = Document(id="d", text=LONG, metadata_json='{"a":1,"b":2}', allowed_principals=("x", "y"))
    first = await core.ingest.ingest_documents(TEXTS, [document], AS_SET)
    same = replace(document, metadata_json='{"b":2,"a":1}', allowed_principals=("y", "x"))
    again = await core.ingest.ingest_documents(TEXTS, [same], AS_SET)
    assert again == Written(unchanged_count=1, positions=first.positions)
    assert len(core.record.batches) == 1
    assert len(core.words.embedded) == first.chunk_count


@pytest.mark.parametrize(
    ("change", "splitting"),
    [
        ({"text": LONG + " More."}, AS_SET),
        ({"metadata_json": '{"a":2}'}, AS_SET),
        ({"allowed_principals": ("user:bob",)}, AS_SET),
        ({"text": "", "content": LONG.encode()}, AS_SET),
        ({"content_type": "text/markdown"}, AS_SET),
        ({}, Splitting(chunk_tokens_max=20)),
        ({}, Splitting(overlap_tokens=0)),
        ({}, Splitting(splitter=Splitter.TOKENS)),
    ],
)
async def test_a_document_whose_chunks_would_be_others_replaces_all_it_had(
    core: Core, change: dict[str, object], splitting: Splitting
) -> None:
    document = Document(id="d", text=LONG, metadata_json='{"a":1}')
    await core.ingest.ingest_documents(TEXTS, [document, Document(id="e", text="Another.")], AS_SET)
    await core.ingest.ingest_documents(TEXTS, [replace(document, **change)], splitting)  # type: ignore[arg-type]
    assert core.record.batches[-1].delete_document_ids == ("d",)
    assert set(core.record.texts()) == {chunk.id for chunk in core.record.batches[-1].chunks} | {"e#0"}


async def test_another_model_makes_a_document_new() -> None:
    first, second = Core(), Core(fingerprint="words/2")
    document = Document(id="d", text="Text.")
    await first.ingest.ingest_documents(TEXTS, [document], AS_SET)
    second.shards = first.shards
    assert (await second.over(first.record).ingest_documents(TEXTS, [document], AS_SET)).document_count == 1


async def test_a_document_of_which_a_chunk_was_deleted_is_stored_again(core: Core) -> None:
    document = Document(id="d", text=LONG)
    await core.ingest.ingest_documents(TEXTS, [document], AS_SET)
    await core.ingest.delete_chunks(TEXTS, ["d#1"], [])
    assert (await core.ingest.ingest_documents(TEXTS, [document], AS_SET)).document_count == 1
    assert "d#1" in core.record.texts()


async def test_one_document_that_cannot_be_read_keeps_all_of_an_ingestion_out(core: Core) -> None:
    broken = Document(id="b", text="", content=b"no pdf", content_type="application/pdf")
    with pytest.raises(UnreadableDocument, match="'b'"):
        await core.ingest.ingest_documents(TEXTS, [Document(id="a", text="Fine."), broken], AS_SET)
    assert core.record.batches == []


@pytest.mark.parametrize(
    ("document", "error", "says"),
    [
        (Document(id="d", text=" "), EmptyText, r"documents\[0\]\.text"),
        (Document(id="d", text="###", content_type="text/markdown"), EmptyText, "nothing in it but marks"),
        (Document(id="d", text="", content=b"<p> ", content_type="text/html"), EmptyText, "document 'd'"),
        (Document(id="d", text="", content=b"a\0b"), InvalidArgument, "NUL"),
        (Document(id="d", text="", content=b"\xff"), UnreadableDocument, "byte 0"),
        (Document(id="d", text="x", content=b"y"), InvalidArgument, "not both"),
        (Document(id="d", text="", content=b"x" * 100_001), InvalidArgument, "at most 100000 are taken; split it"),
        (Document(id="d", text="x" * 20_001), InvalidArgument, "longer than 20000 bytes; split it"),
        (Document(id="d", text="x", content_type="image/png"), InvalidArgument, "content_type is one of"),
        (Document(id="", text="x"), InvalidArgument, r"documents\[0\]\.id"),
        (Document(id="d", text="x", allowed_principals=("",)), InvalidArgument, "allowed_principals"),
    ],
)
async def test_what_a_document_must_be_like(core: Core, document: Document, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        await core.ingest.ingest_documents(TEXTS, [document], AS_SET)
    assert core.record.batches == []


@pytest.mark.parametrize(
    "splitting",
    [Splitting(chunk_tokens_max=15), Splitting(chunk_tokens_max=20, overlap_tokens=11), Splitting(overlap_tokens=-1)],
)
async def test_what_a_splitting_must_be_like(core: Core, splitting: Splitting) -> None:
    with pytest.raises(InvalidArgument, match=r"chunk_tokens_max is at|overlap_tokens is from"):
        await core.ingest.ingest_documents(TEXTS, [Document(id="d", text="x")], splitting)


async def test_chunks_are_no_longer_than_the_models_window(core: Core) -> None:
    await core.ingest.ingest_documents(TEXTS, [Document(id="d", text=LONG)], Splitting(chunk_tokens_max=1000))
    assert 16 < max(len(core.words.token_spans(text)) for text in core.record.texts().values()) <= 32


async def test_title_and_headings_are_metadata_unless_the_caller_has_their_own(core: Core) -> None:
    documents = [
        Document(id="p", text="", content=pdf(["Words."], title="Report"), content_type="application/pdf"),
        Document(id="h", text="<title>T</title><h1>Top</h1>words", content_type="text/html", metadata_json='{"title":"mine"}'),
        Document(id="m", text="# Top\n## Sub\nwords", content_type="text/markdown"),
    ]
    await core.ingest.ingest_documents(TEXTS, documents, AS_SET)
    found = {chunk_id: orjson.loads(core.record.chunk(chunk_id).metadata_json) for chunk_id in core.record.texts()}
    assert found == {"p#0": {"title": "Report"}, "h#0": {"title": "mine"}, "m#0": {"headings": ["Top", "Sub"]}}
    await core.ingest.ingest_documents(TEXTS, documents[1:2], Splitting(splitter=Splitter.MARKDOWN))
    assert orjson.loads(core.record.chunk("h#0").metadata_json) == {"headings": ["Top"], "title": "mine"}


async def test_a_text_that_comes_again_is_embedded_once(core: Core) -> None:
    documents = [Document(id=f"d{number}", text="The same notice.") for number in range(5)]
    await core.ingest.ingest_documents(TEXTS, [*documents, Document(id="e", text="Other.")], AS_SET)
    assert core.words.embedded == ["The same notice.", "Other."]
    assert len(core.record.texts()) == 6
    assert all(np.array_equal(stored, core.words.vector(chunk.text)) for chunk, stored in core.record.rows.values())


async def test_ready_chunks_bring_a_vector_or_have_their_text_embedded(core: Core) -> None:
    own = np.arange(16, dtype="<f4").tobytes()
    chunks = [Chunk(id="mine", text="some words", vector=own), Chunk(id="yours", text="plain words")]
    assert (await core.ingest.upsert_chunks(TEXTS, chunks)).chunk_count == 2
    assert core.words.embedded == ["plain words"]
    stored = {chunk.id: vector for chunk, vector in core.record.rows.values()}
    assert stored["mine"].tobytes() == own
    assert np.array_equal(stored["yours"], core.words.vector("plain words"))


async def test_a_collection_of_the_callers_vectors_takes_no_texts(core: Core) -> None:
    with pytest.raises(FailedPrecondition):
        await core.ingest.ingest_documents(VECTORS, [Document(id="d", text="x")], AS_SET)
    with pytest.raises(DimensionMismatch, match=r"chunks\[1\]"):
        await core.ingest.upsert_chunks(VECTORS, [ready("a"), ready("b", "b", 1.0, 0.0)])
    with pytest.raises(CollectionNotFound):
        await core.ingest.upsert_chunks("collections/none", [ready("a")])


async def test_deleting_by_id_by_document_and_by_filter_removes_what_was_seen(core: Core) -> None:
    chunks = [
        *(ready(f"c{number}", "old") for number in range(9)),
        replace(ready("d", "kept"), document_id="doc"),
        ready("e", "kept"),
    ]
    first = await core.ingest.upsert_chunks(VECTORS, chunks)
    anns = Visibility(principals=frozenset({"user:ann"}))
    deleted = await core.ingest.delete_chunks(VECTORS, ["c0", "no"], ["doc"], OneOf(field="kind", values=("old",)), anns)
    assert deleted.deleted_count == 10
    assert core.record.texts(2) == {"e": "kept"}
    assert core.matcher.asked == [(anns, first.positions)]
    assert deleted.positions == core.shards.applied
    assert await core.ingest.delete_chunks(VECTORS, [], [], OneOf(field="kind", values=("old",))) == Deleted()
    with pytest.raises(InvalidArgument, match="nothing was named"):
        await core.ingest.delete_chunks(VECTORS, [], [])


async def test_too_many_writes_at_once_are_refused_at_once() -> None:
    core = Core(writes_max=3)
    core.shards.gate.clear()
    writes = [asyncio.create_task(core.ingest.upsert_chunks(VECTORS, [ready(f"c{at}")])) for at in range(10)]
    await asyncio.sleep(0.05)
    core.shards.gate.set()
    outcomes = await asyncio.gather(*writes, return_exceptions=True)
    assert sum(isinstance(outcome, Overloaded) for outcome in outcomes) == 7
    assert len(core.record.texts(2)) == 3
    assert (await core.ingest.upsert_chunks(VECTORS, [ready("later")])).chunk_count == 1


async def test_a_write_whose_caller_leaves_is_committed_and_offered_or_neither(core: Core) -> None:
    chunks = [ready(f"c{number}") for number in range(50)]
    for turns in range(8):
        task = asyncio.create_task(core.ingest.upsert_chunks(VECTORS, chunks))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert core.shards.applied == await core.record.positions(2)
    assert core.record.batches


async def test_a_write_that_is_durable_and_not_yet_seen_says_so(core: Core) -> None:
    core.shards.failure = DeadlineExceeded("the shard is behind")
    with pytest.raises(DeadlineExceeded) as caught:
        await core.ingest.upsert_chunks(VECTORS, [ready("a")])
    assert caught.value.metadata == {"durable": "true"}
    assert set(core.record.texts(2)) == {"a"}


async def test_a_deletion_that_fails_half_way_tells_how_far_it_came(core: Core) -> None:
    await core.ingest.upsert_chunks(VECTORS, [ready("a", "old"), ready("b", "kept")])
    core.record.failures = [None, Unavailable("no database")]
    with pytest.raises(Unavailable) as caught:
        await core.ingest.delete_chunks(VECTORS, ["b"], [], OneOf(field="kind", values=("old",)))
    assert caught.value.metadata == {"deleted_count": "1"}
    assert core.record.texts(2) == {"a": "old"}


async def test_a_write_has_a_span_of_its_own(core: Core) -> None:
    exporter = InMemorySpanExporter()
    core.provider.add_span_processor(SimpleSpanProcessor(exporter))
    await core.ingest.ingest_documents(TEXTS, [Document(id="d", text="some words")], AS_SET)
    [span] = exporter.get_finished_spans()
    assert span.attributes is not None
    assert (span.name, span.attributes["penstock.batch.size"]) == ("write texts", 1)
