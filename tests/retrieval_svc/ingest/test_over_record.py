"""Writes over the real record: what it keeps is what the content hashes rely on."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from retrieval_svc.ingest.splitting import Splitting
from retrieval_svc.ingest.streaming import Item, StreamLimits
from retrieval_svc.ingest.writing import Ingest
from retrieval_svc.record.store import SqlStore, open_store
from retrieval_svc.values import Chunk, Document
from tests.retrieval_svc.ingest.fakes import TEXTS, Core

LONG = " ".join(f"Sentence {number} speaks of topic{number} only." for number in range(12))


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqlStore]:
    async with open_store(f"sqlite+aiosqlite:///{tmp_path / 'record.db'}") as opened:
        yield opened


@pytest.fixture
async def core(store: SqlStore) -> Core:
    core = Core()
    core.collections.open[TEXTS] = await store.create_collection(core.collections.open[TEXTS].spec)
    return core


@pytest.fixture
def ingest(core: Core, store: SqlStore) -> Ingest:
    return core.over(store, stream=StreamLimits(batch_documents_max=7))  # type: ignore[arg-type]  # Another record.


async def chunk_ids(core: Core, store: SqlStore) -> list[str]:
    return [chunk.id for chunk in await store.chunks_after(core.collections.open[TEXTS].uid, "", 1000)]


async def test_what_was_stored_is_left_alone_until_one_of_its_chunks_is_touched(
    core: Core, store: SqlStore, ingest: Ingest
) -> None:
    document = Document(id="d", text=LONG, metadata_json='{"a":1}', allowed_principals=("user:ann",))
    first = await ingest.ingest_documents(TEXTS, [document], Splitting())
    again = await ingest.ingest_documents(TEXTS, [document], Splitting())
    assert (again.document_count, again.unchanged_count, again.positions) == (0, 1, first.positions)
    await ingest.delete_chunks(TEXTS, ["d#1"], [])
    assert (await ingest.ingest_documents(TEXTS, [document], Splitting())).document_count == 1
    await ingest.upsert_chunks(TEXTS, [Chunk(id="d#0", document_id="d", text="Put in by hand.")])
    assert (await ingest.ingest_documents(TEXTS, [document], Splitting())).document_count == 1
    await ingest.delete_chunks(TEXTS, [], ["d"])
    assert await chunk_ids(core, store) == []
    assert (await ingest.ingest_documents(TEXTS, [document], Splitting())).chunk_count == first.chunk_count


async def test_a_document_that_became_shorter_leaves_no_chunk_behind(core: Core, store: SqlStore, ingest: Ingest) -> None:
    await ingest.ingest_documents(TEXTS, [Document(id="d", text=LONG), Document(id="e", text="Another.")], Splitting())
    await ingest.ingest_documents(TEXTS, [Document(id="d", text="Short.")], Splitting())
    assert await chunk_ids(core, store) == ["d#0", "e#0"]


async def test_streams_at_the_same_time_store_every_document_once(core: Core, store: SqlStore, ingest: Ingest) -> None:
    async def messages() -> AsyncIterator[Sequence[Item]]:
        for first in range(0, 100, 10):
            yield [Document(id=f"d{number}", text=f"Text {number}.") for number in range(first, first + 10)]

    streams = await asyncio.gather(*(ingest.ingest_stream(TEXTS, messages(), Splitting()) for _ in range(3)))
    assert all(each.error_count == 0 for each in streams)
    assert all(each.written.document_count + each.written.unchanged_count == 100 for each in streams)
    assert sorted(await chunk_ids(core, store)) == sorted(f"d{number}#0" for number in range(100))
