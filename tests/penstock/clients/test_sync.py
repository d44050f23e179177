"""The retrieval client for code without an event loop."""

import asyncio
import inspect
import subprocess
import sys
from typing import Any

import pytest

from penstock.clients import Chunk, Document, RetrievalClient, RetrievalClientSync, Written
from penstock.errors import CollectionNotFound


@pytest.fixture
def client(services: Any) -> RetrievalClientSync:
    return RetrievalClientSync(services.target)


def test_it_has_every_method_of_the_async_client_with_the_same_arguments() -> None:
    def methods(of: type) -> dict[str, list[str]]:
        found = inspect.getmembers(of, inspect.isfunction)
        return {name: list(inspect.signature(each).parameters) for name, each in found if not name.startswith("_")}

    asynchronous = methods(RetrievalClient)
    asynchronous["close"] = asynchronous.pop("aclose")
    assert methods(RetrievalClientSync) == asynchronous


async def test_code_without_a_loop_stores_lists_and_searches(services: Any, client: RetrievalClientSync) -> None:
    def work() -> list[Any]:
        with client:
            client.create_collection("wiki", dimension=2)
            client.ingest("wiki", [Document(id="d", text="t")])
            client.ingest_stream("wiki", [Document(id="s", text="t")])
            written = client.upsert_chunks("wiki", [Chunk(id="c", text="t")])
            listed = [chunk.id for chunk in client.list_chunks("wiki", page_size=1)]
            hits = client.search("wiki", "t", top_k=1, mode="lexical")
            pages = len(list(client.search_pages("wiki", "t")))
            batch = client.search_batch("wiki", ["a", {"query": "b"}])
            return [written, listed, len(hits), pages, [found[0].chunk_id for found in batch]]

    assert await asyncio.to_thread(work) == [Written(chunk_count=1), ["c", "d#0"], 1, 2, ["a", "b"]]


async def test_it_raises_what_the_service_raises(services: Any, client: RetrievalClientSync) -> None:
    with pytest.raises(CollectionNotFound):
        await asyncio.to_thread(client.get_collection, "none")
    with pytest.raises(TypeError, match="no option 'topk'; did you mean 'top_k'"):
        await asyncio.to_thread(client.search, "none", "t", topk=3)
    await asyncio.to_thread(client.close)


async def test_several_threads_share_one_client(services: Any, client: RetrievalClientSync) -> None:
    await asyncio.to_thread(client.create_collection, "wiki", dimension=2)
    answers = await asyncio.gather(*(asyncio.to_thread(client.search, "wiki", "t") for _ in range(8)))
    assert len(answers) == 8
    await asyncio.to_thread(client.close)


def test_the_retriever_can_be_had_from_the_clients_and_says_what_it_needs() -> None:
    def run(*lines: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, timeout=60, check=False)

    there = run("from penstock.clients import Retriever", "print(Retriever.__name__)")
    assert there.stdout.strip() == "PenstockRetriever", there.stderr
    missing = run("import sys", "sys.modules['langchain_core'] = None", "from penstock.clients import Retriever")
    assert "pip install 'penstock[langchain]'" in missing.stderr
    unknown = run("import penstock.clients", "penstock.clients.Retreiver")
    assert "has no attribute 'Retreiver'" in unknown.stderr
