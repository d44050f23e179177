"""`penstock bench retrieval` against a real gRPC server that finds less with a smaller ef."""

import asyncio
import io
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from rich.console import Console

from penstock.cli.benchmark.searching import BenchOptions, bench_retrieval, share
from penstock.clients import Hit
from penstock.errors import InvalidArgument
from penstock.retrieval.v1 import retrieval_pb2 as pb
from penstock.retrieval.v1 import retrieval_pb2_grpc

DIMENSION = 8


class Service(retrieval_pb2_grpc.RetrievalServiceServicer):
    """Holds 20 vectors and compares a query with the first `ef_search` of them; with an ef of 13 it is overloaded."""

    def __init__(self) -> None:
        self.vectors = np.random.default_rng(0).standard_normal((20, DIMENSION)).astype(np.float32)
        self.asked: list[pb.SearchRequest] = []
        self.count = 20
        self.target = ""

    async def GetCollection(self, request: Any, context: Any) -> pb.GetCollectionResponse:
        return pb.GetCollectionResponse(
            collection=pb.Collection(name=request.name, dimension=DIMENSION, chunk_count=self.count, shard_count=1)
        )

    async def ListChunks(self, request: Any, context: Any) -> pb.ListChunksResponse:
        return pb.ListChunksResponse(chunks=[pb.Chunk(id=f"c{row}") for row in range(self.count)])

    async def BatchGetChunks(self, request: Any, context: Any) -> pb.BatchGetChunksResponse:
        assert list(request.fields) == ["vector"]
        rows = [int(each.removeprefix("c")) for each in request.chunk_ids]
        return pb.BatchGetChunksResponse(chunks=[pb.Chunk(id=f"c{row}", vector=self.vectors[row].tobytes()) for row in rows])

    async def Search(self, request: Any, context: Any) -> pb.SearchResponse:
        self.asked.append(request)
        if request.ef_search == 13:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many")
        return self._found(request)

    async def SearchBatch(self, request: Any, context: Any) -> pb.SearchBatchResponse:
        return pb.SearchBatchResponse(responses=[self._found(each) for each in request.requests])

    def _found(self, request: pb.SearchRequest) -> pb.SearchResponse:
        scores = self.vectors @ np.frombuffer(request.vector, dtype="<f4")
        rows = np.argsort(-scores)
        seen = rows if request.exact or not request.ef_search else rows[rows < request.ef_search]
        hits = [pb.Hit(chunk=pb.Chunk(id=f"c{row}"), score=scores[row]) for row in seen[: request.top_k]]
        return pb.SearchResponse(hits=hits)


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    servicer, server = Service(), grpc.aio.server()
    retrieval_pb2_grpc.add_RetrievalServiceServicer_to_server(servicer, server)
    servicer.target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    yield servicer
    await server.stop(None)


def options(service: Service, **more: Any) -> BenchOptions:
    defaults: dict[str, Any] = {"draw": 30, "seconds": 0.1, "warmup_s": 0.02, "rounds": 2, "in_flight": 2, "top_k": 5}
    return BenchOptions(collection="p", target=service.target, **defaults | more)


async def benched(asked: BenchOptions) -> str:
    console = Console(file=io.StringIO(), width=120)
    await bench_retrieval(asked, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


async def test_every_setting_has_its_recall_and_its_speed(service: Service, tmp_path: Path) -> None:
    said = await benched(options(service, settings=(5, 10, 20), json_file=tmp_path / "n.json", plot_file=tmp_path / "p.png"))
    numbers = json.loads((tmp_path / "n.json").read_bytes())
    few, more, everything = numbers["results"]
    assert [each["ef_search"] for each in numbers["results"]] == [5, 10, 20]
    assert few["recall"] < more["recall"] < everything["recall"] == 1.0
    assert everything["queries_per_second"] > 0
    assert everything["latency_ms"]["p50"] <= everything["latency_ms"]["p99.9"]
    assert len(everything["rounds"]) == 2
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    assert "recall@5" in said
    assert {request.ef_search for request in service.asked} == {5, 10, 20}
    assert {request.collection for request in service.asked} == {"collections/p"}


async def test_without_settings_the_collections_own_is_used_and_an_open_loop_takes_its_rate(service: Service) -> None:
    said = await benched(options(service, rate=100.0))
    assert "100 a second, open loop" in said
    assert not any(request.HasField("ef_search") for request in service.asked)


async def test_what_is_refused_is_counted_as_an_error(service: Service, tmp_path: Path) -> None:
    await benched(options(service, settings=(13,), json_file=tmp_path / "n.json"))
    (result,) = json.loads((tmp_path / "n.json").read_bytes())["results"]
    assert result["queries_per_second"] == 0
    assert result["rounds"][0]["faults"]["RESOURCE_EXHAUSTED"] > 0


async def test_queries_of_a_file_are_asked(service: Service, tmp_path: Path) -> None:
    queries = service.vectors[:3]
    np.save(tmp_path / "q.npy", queries)
    await benched(options(service, queries=tmp_path / "q.npy"))
    assert {request.vector for request in service.asked} <= {query.tobytes() for query in queries}


async def test_an_empty_collection_is_refused(service: Service) -> None:
    service.count = 0
    with pytest.raises(InvalidArgument, match="there is nothing to search"):
        await benched(options(service))


def hit(identity: str, score: float) -> Hit:
    return Hit(chunk_id=identity, document_id="", text="", metadata={}, score=score)


def test_a_hit_that_is_as_near_as_the_last_exact_one_is_as_good() -> None:
    exact = [hit("a", 3.0), hit("b", 2.0)]
    assert share(exact, [hit("a", 3.0), hit("c", 2.0)]) == 1.0
    assert share(exact, [hit("a", 3.0), hit("c", 1.9)]) == 0.5
    assert share(exact, []) == 0.0
    assert share([], []) == 1.0


async def test_a_plot_of_an_unknown_kind_is_refused_before_anything_is_measured(service: Service) -> None:
    with pytest.raises(InvalidArgument, match=r"written to \.png, \.svg, \.pdf"):
        await benched(options(service, plot_file=Path("plot.jpeg2000")))
    assert service.asked == []


@pytest.mark.parametrize(("listed", "said"), [("16,x", "not a list of whole numbers"), ("0", "a number below 1")])
async def test_the_command_refuses_values_that_are_no_numbers(listed: str, said: str) -> None:
    command = [Path(sys.executable).parent / "penstock", "bench", "retrieval", "p", "--ef", listed]
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    _, errors = await process.communicate()
    assert process.returncode == 1
    assert said in errors.decode()
