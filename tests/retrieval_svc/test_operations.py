"""What operators ask of a node: told clearly when the collection is deleted under it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from penstock.errors import CollectionNotFound
from penstock.retrieval.v1 import retrieval_pb2 as pb
from retrieval_svc.catalog import Wanted
from retrieval_svc.values import Chunk
from tests.retrieval_svc.fakes import Core, WordEmbedder, running_core
from tests.retrieval_svc.test_bad_input import Context, method

TEXTS = "collections/texts"
REQUESTS = [pb.CompactCollectionRequest(name=TEXTS), pb.CreateSnapshotRequest(collection=TEXTS)]


@pytest.fixture
async def core(tmp_path: Path) -> AsyncIterator[Core]:
    """A core with a snapshot store and a collection of two segments and a head."""
    async with running_core(tmp_path, embedder=WordEmbedder(), snapshots=tmp_path / "snapshots") as running:
        await running.catalog.create(Wanted(id="texts"))
        for first in (0, 10, 20):
            if first:
                await asyncio.gather(*map(running.maintenance.checkpoint, running.shards.replicas()))
            chunks = [Chunk(id=f"c{at}", text=f"words {at}") for at in range(first, first + 10)]
            await running.ingest.upsert_chunks(TEXTS, chunks)
        yield running


def asked(core: Core, request: Any) -> "asyncio.Task[Any]":
    return asyncio.create_task(method(core, request)(request, Context()))


async def told_as_deleted(answer: "asyncio.Task[Any]", folder: Path) -> None:
    with pytest.raises(CollectionNotFound, match="the collection 'texts' was deleted or replaced meanwhile") as told:
        await asyncio.wait_for(answer, 60)
    assert told.value.metadata == {"collection": "texts"}
    assert str(folder) not in told.value.message
    assert list((folder / "shards").iterdir()) == [], "nothing was written in place of what was removed"


@pytest.mark.parametrize("request_", REQUESTS, ids=["compaction", "snapshot"])
async def test_work_on_a_collection_that_is_deleted_before_it_begins_says_so(core: Core, request_: Any, tmp_path: Path) -> None:
    [replica] = core.shards.replicas()
    async with core.maintenance._care(replica).files:
        answer = asked(core, request_)
        await asyncio.sleep(0.1)
        await core.catalog.delete(TEXTS)
    await told_as_deleted(answer, tmp_path)
    assert core.stopped == []


async def test_a_compaction_whose_collection_is_deleted_while_it_merges_says_so(core: Core, tmp_path: Path) -> None:
    answer = asked(core, REQUESTS[0])
    while not list(tmp_path.glob("shards/*/*/compactions/*.json")):
        assert not answer.done()
        await asyncio.sleep(0.001)
    await core.catalog.delete(TEXTS)
    await told_as_deleted(answer, tmp_path)


async def test_a_compaction_of_a_collection_that_stays_merges_its_segments(core: Core) -> None:
    answer = await asked(core, REQUESTS[0])
    assert [(shard.segment_count, shard.row_count) for shard in answer.shards] == [(1, 30)]
    answer = await asked(core, REQUESTS[1])
    assert [snapshot.position for snapshot in answer.snapshots] == [30]
