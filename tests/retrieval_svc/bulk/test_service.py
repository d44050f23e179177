"""A service that runs while collections are built beside it, over the same record and data folder."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from penstock.retrieval.v1 import retrieval_pb2 as pb
from tests.retrieval_svc import processes
from tests.retrieval_svc.bulk.fakes import DIMENSION, vector_of, with_vectors, write_lines
from tests.retrieval_svc.bulk.processes import BulkProcess

pytestmark = [pytest.mark.slow, pytest.mark.e2e]

ROWS = 3000


async def search(service: processes.Running, text: str, *, top_k: int = 5) -> list[pb.Hit]:
    request = pb.SearchRequest(collection="collections/docs", vector=vector_of(text).astype("<f4").tobytes(), top_k=top_k)
    return list((await service.stub.Search(request, timeout=30)).hits)


def texts(hits: Sequence[pb.Hit]) -> set[str]:
    return {hit.chunk.text.split()[0] for hit in hits}


async def build(process: BulkProcess, path: Path, *, replace: bool = False) -> None:
    last = await process.run(
        paths=[str(path)], collection="docs", dimension=DIMENSION, metric="cosine", shard_count=2, replace=replace
    )
    assert "result" in last, last


async def test_a_running_service_has_what_was_built_beside_it(tmp_path: Path, database_url: str) -> None:
    async with processes.running(tmp_path, database_url=database_url) as service:
        await build(BulkProcess(tmp_path, database_url=database_url), write_lines(tmp_path / "rows.jsonl", with_vectors(ROWS)))
        [hit] = await search(service, "row 7", top_k=1)
        assert hit.chunk.id == "c7"
        words = pb.SearchRequest(collection="collections/docs", text="1234", top_k=3, mode=pb.SEARCH_MODE_LEXICAL)
        assert [hit.chunk.id for hit in (await service.stub.Search(words, timeout=30)).hits] == ["c1234"]
        found = await service.stub.GetCollection(pb.GetCollectionRequest(name="collections/docs"))
        assert found.collection.chunk_count == ROWS
        chunk = pb.Chunk(id="new", text="a new one", vector=vector_of("new").astype("<f4").tobytes())
        await service.stub.UpsertChunks(pb.UpsertChunksRequest(collection="collections/docs", chunks=[chunk]))
        assert (await search(service, "new", top_k=1))[0].chunk.id == "new"
    async with processes.running(tmp_path, database_url=database_url) as service:
        assert (await search(service, "row 7", top_k=1))[0].chunk.id == "c7"


async def test_searches_see_the_old_or_the_new_collection_while_one_is_replaced(tmp_path: Path, database_url: str) -> None:
    process = BulkProcess(tmp_path, database_url=database_url)
    await build(process, write_lines(tmp_path / "old.jsonl", with_vectors(ROWS, word="old")))
    seen: list[set[str]] = []
    async with processes.running(tmp_path, database_url=database_url) as service:
        built = asyncio.create_task(
            build(process, write_lines(tmp_path / "new.jsonl", with_vectors(ROWS, word="new")), replace=True)
        )

        async def read() -> None:
            while not built.done() or {"new"} not in seen[-5:]:
                seen.append(texts(await search(service, "old 5")))

        async with asyncio.timeout(120):
            await asyncio.gather(*(read() for _ in range(4)))
        await built
    assert {"old"} in seen
    assert {"new"} in seen
    assert all(each in ({"old"}, {"new"}) for each in seen)


async def test_a_service_without_files_starts_from_the_snapshots_of_a_build(tmp_path: Path, postgres_url: str) -> None:
    settings = {"database_url": postgres_url, "snapshot_url": str(tmp_path / "snapshots")}
    process = BulkProcess(tmp_path / "builder", **settings)
    await build(process, write_lines(tmp_path / "rows.jsonl", with_vectors(ROWS)))
    assert list((tmp_path / "builder" / "data" / "shards").glob("*/*")) == []
    (tmp_path / "node").mkdir()
    async with processes.running(tmp_path / "node", **settings) as service:
        assert (await search(service, "row 7", top_k=1))[0].chunk.id == "c7"


async def test_a_service_without_files_and_snapshots_makes_them_of_the_rows(tmp_path: Path, postgres_url: str) -> None:
    process = BulkProcess(tmp_path / "builder", database_url=postgres_url)
    await build(process, write_lines(tmp_path / "rows.jsonl", with_vectors(ROWS)))
    (tmp_path / "node").mkdir()
    async with processes.running(tmp_path / "node", database_url=postgres_url) as service:
        assert (await search(service, "row 7", top_k=1))[0].chunk.id == "c7"
