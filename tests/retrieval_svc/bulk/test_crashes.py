"""Builds that are killed (SIGKILL) in each of their phases, and gone on with."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from retrieval_svc.chunk_messages import ChunkCodec
from retrieval_svc.record.store import open_store
from retrieval_svc.shards.checkpoint import newest
from retrieval_svc.shards.shard_index import ShardIndex
from retrieval_svc.values import ShardQuery
from tests.retrieval_svc.bulk.fakes import DIMENSION, vector_of, with_vectors, write_lines
from tests.retrieval_svc.bulk.processes import BulkProcess, progress_of

pytestmark = pytest.mark.slow

ROWS = 12_000
"""Three parts."""
SHARDS = 3


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "rows.jsonl", [*with_vectors(5000), "{", *with_vectors(ROWS - 5000, first=5000)])


def job(corpus: Path) -> dict[str, Any]:
    return {"paths": [str(corpus)], "collection": "docs", "dimension": DIMENSION, "shard_count": SHARDS, "workers": 2}


async def assert_whole(folder: Path, database_url: str) -> None:
    """Every row is there once, under the numbers that an undisturbed build gives it, and is found."""
    async with open_store(database_url) as store:
        [collection] = await store.collections()
        assert (collection.chunk_count, await store.builds.all()) == (ROWS, [])
        order: list[str] = []
        for shard, end in (await store.positions(collection.uid)).items():
            rows = [chunk async for part in store.rows(collection.uid, shard, end) for chunk in part.chunks]
            assert [chunk.sequence for chunk in rows] == list(range(1, end + 1))
            numbers = [int(chunk.id[1:]) for chunk in rows]
            assert numbers == sorted(numbers)
            order += [chunk.id for chunk in rows]
            home = folder / "data" / "shards" / str(collection.uid) / str(shard)
            assert newest(home, thorough=True) is not None
            index = ShardIndex.open(home, spec=collection.spec, shard=shard, codec=ChunkCodec())
            assert (index.position, index.row_count) == (end, end)
            query = np.asarray(vector_of(f"row {numbers[5]}"))
            [(found, _)] = index.search([ShardQuery(vector=query, limit=1, with_chunks=True)])
            assert ChunkCodec().decode(found.chunks[0]).id == rows[5].id
        assert sorted(order) == sorted(f"c{at}" for at in range(ROWS))


def after_the_first_part(line: dict[str, Any]) -> bool:
    return progress_of(line, "rows") is not None


def before_the_first_shard(line: dict[str, Any]) -> bool:
    return progress_of(line, "shards") is not None


def after_the_first_shard(line: dict[str, Any]) -> bool:
    told = progress_of(line, "shards")
    return told is not None and 0 < told["done"] < ROWS


@pytest.mark.parametrize("kill_at", [after_the_first_part, before_the_first_shard, after_the_first_shard])
async def test_a_build_that_was_killed_goes_on_to_the_same_end(
    tmp_path: Path, corpus: Path, database_url: str, kill_at: Any
) -> None:
    process = BulkProcess(tmp_path, database_url=database_url)
    await process.run(kill_at=kill_at, **job(corpus))
    assert process.left == []
    async with open_store(database_url) as store:
        assert await store.collections() == []
        assert len(await store.builds.all()) == 1
    process.told.clear()
    last = await process.run(**job(corpus))
    assert last["result"]["chunk_count"] == ROWS
    assert last["result"]["error_count"] == 1
    first = next(line["progress"] for line in process.told if "progress" in line)
    assert first["resumed"]
    await assert_whole(tmp_path, database_url)


async def test_a_shard_that_was_finished_before_the_crash_is_not_built_again(
    tmp_path: Path, corpus: Path, sqlite_url: str
) -> None:
    process = BulkProcess(tmp_path, database_url=sqlite_url)
    await process.run(kill_at=after_the_first_shard, **job(corpus))
    finished = {path: path.stat().st_mtime_ns for path in (tmp_path / "data" / "shards").rglob("manifest-*.json")}
    assert finished
    assert "result" in await process.run(**job(corpus))
    assert {path: path.stat().st_mtime_ns for path in finished} == finished


async def test_a_build_that_was_killed_right_after_it_was_published_is_there(
    tmp_path: Path, corpus: Path, database_url: str
) -> None:
    process = BulkProcess(tmp_path, database_url=database_url)
    await process.run(kill_at=lambda line: progress_of(line, "published") is not None, **job(corpus))
    await assert_whole(tmp_path, database_url)
    last = await process.run(**job(corpus))
    assert last["error"]["reason"] == "ALREADY_EXISTS"


async def test_rows_of_a_replaced_collection_go_at_the_next_start_when_the_build_was_killed_before(
    tmp_path: Path, corpus: Path, database_url: str
) -> None:
    process = BulkProcess(tmp_path, database_url=database_url)
    small = write_lines(tmp_path / "small.jsonl", with_vectors(3))
    await process.run(**job(small))
    await process.run(kill_at=lambda line: progress_of(line, "published") is not None, **job(corpus), replace=True)
    await assert_whole(tmp_path, database_url)


async def test_a_worker_that_is_killed_costs_nothing(tmp_path: Path, corpus: Path, sqlite_url: str) -> None:
    process = BulkProcess(tmp_path, database_url=sqlite_url)
    killed: list[int] = []

    async def kill_workers() -> None:
        while len(killed) < 2:
            for child in psutil.Process().children(recursive=True):
                try:
                    if "spawn_main" in " ".join(child.cmdline()) and child.pid not in killed and len(killed) < 2:
                        child.kill()
                        killed.append(child.pid)
                except psutil.NoSuchProcess:
                    continue
            await asyncio.sleep(0.05)

    killing = asyncio.create_task(kill_workers())
    last = await process.run(**job(corpus))
    killing.cancel()
    assert last["result"]["chunk_count"] == ROWS
    assert killed
    await assert_whole(tmp_path, sqlite_url)


async def test_two_builds_of_one_collection_on_one_folder_do_not_run_together(
    tmp_path: Path, corpus: Path, sqlite_url: str
) -> None:
    process = BulkProcess(tmp_path, database_url=sqlite_url)
    outcomes = await asyncio.gather(*(process.run(**job(corpus)) for _ in range(2)))
    assert sorted(next(iter(outcome)) for outcome in outcomes) == ["error", "result"]
    [error] = [outcome["error"] for outcome in outcomes if "error" in outcome]
    assert "in use by process" in error["message"]
    await assert_whole(tmp_path, sqlite_url)
