"""Streams of documents: backpressure, errors of single documents, failures of the whole."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import CollectionNotFound, EmptyText, InvalidArgument, Unavailable
from retrieval_svc.ingest.splitting import Splitting
from retrieval_svc.ingest.streaming import ERRORS_TOLD_MAX, Item, Refused, StreamLimits, batches
from retrieval_svc.values import Document
from tests.retrieval_svc.ingest.fakes import TEXTS, Core
from tests.retrieval_svc.ingest.pdfs import pdf

SMALL = StreamLimits(batch_documents_max=4, batch_bytes_max=10_000, batches_max=2)


async def messages(*parts: Sequence[Item]) -> AsyncIterator[Sequence[Item]]:
    for part in parts:
        yield part


def texts(first: int, last: int) -> list[Document]:
    return [Document(id=f"d{number}", text=f"Text {number}.") for number in range(first, last)]


async def test_all_documents_of_all_messages_are_stored_in_batches() -> None:
    core = Core(stream=SMALL)
    streamed = await core.ingest.ingest_stream(TEXTS, messages(texts(0, 3), [], texts(3, 10)), Splitting())
    assert (streamed.written.document_count, streamed.written.chunk_count, streamed.error_count) == (10, 10, 0)
    assert [len(batch.documents) for batch in core.record.batches] == [4, 4, 2]
    assert streamed.written.positions == core.shards.applied
    again = await core.ingest.ingest_stream(TEXTS, messages(texts(0, 11)), Splitting())
    assert (again.written.document_count, again.written.unchanged_count) == (1, 10)


async def test_a_document_that_cannot_be_stored_is_told_and_the_others_go_on() -> None:
    core = Core(stream=SMALL)
    bad: list[Item] = [
        Document(id="empty", text=" "),
        Document(id="broken", text="", content=b"no pdf", content_type="application/pdf"),
        Refused(document_id="nan", error=InvalidArgument("not a number")),
        Document(id="long", text="x" * 20_001),
    ]
    good = Document(id="p", text="", content=pdf(["A page."]), content_type="application/pdf")
    streamed = await core.ingest.ingest_stream(TEXTS, messages(texts(0, 2), [*bad, good]), Splitting())
    await core.extractor.close()
    assert set(core.record.texts()) == {"d0#0", "d1#0", "p#0"}
    assert [(error.index, error.document_id, error.error.reason) for error in streamed.errors] == [
        (2, "empty", "EMPTY_TEXT"),
        (3, "broken", "UNREADABLE_DOCUMENT"),
        (4, "nan", "INVALID_ARGUMENT"),
        (5, "long", "INVALID_ARGUMENT"),
    ]
    assert (streamed.written.document_count, streamed.error_count) == (3, 4)


async def test_only_the_first_errors_are_told_and_all_are_counted() -> None:
    core = Core()
    bad = [Document(id=f"e{number}", text=" ") for number in range(2500)]
    streamed = await core.ingest.ingest_stream(TEXTS, messages(bad[:700], bad[700:]), Splitting())
    assert streamed.error_count == 2500
    assert [error.index for error in streamed.errors] == list(range(ERRORS_TOLD_MAX))
    assert isinstance(streamed.errors[0].error, EmptyText)


async def test_the_stream_is_read_only_as_fast_as_it_is_stored() -> None:
    core, read = Core(stream=SMALL), 0

    async def endless() -> AsyncIterator[Sequence[Item]]:
        nonlocal read
        for number in range(100):
            read += 1
            yield [Document(id=f"d{number}", text=f"Text {number}.")]

    core.words.gate.clear()
    call = asyncio.create_task(core.ingest.ingest_stream(TEXTS, endless(), Splitting()))
    await asyncio.sleep(0.1)
    assert read <= SMALL.batch_documents_max * (SMALL.batches_max + 1) + 1
    core.words.gate.set()
    assert (await call).written.document_count == read == 100


async def test_an_id_that_comes_again_replaces_what_came_before_it() -> None:
    core = Core(stream=StreamLimits(batch_documents_max=2, batches_max=4))
    versions = [Document(id="same", text=f"Version {number}.") for number in range(9)]
    streamed = await core.ingest.ingest_stream(TEXTS, messages([*versions, Document(id="other", text="Other.")]), Splitting())
    assert core.record.texts() == {"same#0": "Version 8.", "other#0": "Other."}
    assert streamed.written.document_count == 10


async def test_a_failure_of_the_record_ends_the_call_and_tells_what_is_stored() -> None:
    core = Core(stream=SMALL)
    core.record.failures = [None, None, Unavailable("no database")]
    with pytest.raises(Unavailable, match="no database") as caught:
        await core.ingest.ingest_stream(TEXTS, messages([Document(id="e", text=" ")], texts(0, 30)), Splitting())
    stored = len(core.record.texts())
    assert stored >= 7
    assert caught.value.metadata["stored_document_count"] == str(stored)
    assert caught.value.metadata["error_count"] == "1"


async def test_a_collection_that_is_gone_fails_the_call_before_anything_is_read() -> None:
    with pytest.raises(CollectionNotFound):
        await Core().ingest.ingest_stream("collections/none", messages(texts(0, 1)), Splitting())


async def test_a_caller_who_leaves_ends_what_is_on_its_way() -> None:
    core = Core(stream=SMALL)
    core.words.gate.clear()
    before = len(asyncio.all_tasks())
    call = asyncio.create_task(core.ingest.ingest_stream(TEXTS, messages(texts(0, 50)), Splitting()))
    await asyncio.sleep(0.05)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert len(asyncio.all_tasks()) == before
    assert core.record.batches == []


async def test_a_stream_that_breaks_off_keeps_nothing_on_its_way() -> None:
    core = Core(stream=SMALL)

    async def breaking() -> AsyncIterator[Sequence[Item]]:
        yield texts(0, 5)
        raise Unavailable("the caller is gone")

    with pytest.raises(Unavailable):
        await core.ingest.ingest_stream(TEXTS, breaking(), Splitting())
    assert len(asyncio.all_tasks()) == 1


@given(
    sizes=st.lists(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 40)), max_size=12), max_size=8),
    count=st.integers(1, 5),
    size=st.integers(1, 60),
)
def test_batches_keep_their_bounds_and_the_order(sizes: list[list[tuple[int, int]]], count: int, size: int) -> None:
    parts = [[Document(id=f"d{number}", text="x" * length) for number, length in part] for part in sizes]
    limits = StreamLimits(batch_documents_max=count, batch_bytes_max=size)

    async def collected() -> list[Sequence[tuple[int, Item]]]:
        return [batch async for batch in batches(messages(*parts), limits)]

    made = asyncio.run(collected())
    flat = [document for part in parts for document in part]
    assert [item for batch in made for _, item in batch] == flat
    assert [index for batch in made for index, _ in batch] == list(range(len(flat)))
    for batch in made:
        documents = [item for _, item in batch if isinstance(item, Document)]
        assert len({document.id for document in documents}) == len(documents) <= count
        assert len(documents) == 1 or sum(len(document.text) for document in documents) <= size
