"""`penstock eval retrieval` against a real gRPC server whose rankings are known, and once against the service itself."""

import asyncio
import io
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from rich.console import Console

from penstock.cli.evaluation.evaluating import EvaluationOptions, evaluate_retrieval, means_of
from penstock.cli.evaluation.judged_corpus import JudgedCorpus
from penstock.retrieval.v1 import retrieval_pb2 as pb
from penstock.retrieval.v1 import retrieval_pb2_grpc

ROOT = Path(__file__).parents[4]


class Service(retrieval_pb2_grpc.RetrievalServiceServicer):
    """Finds documents by the words they share with the query; its dense search turns that order round."""

    def __init__(self) -> None:
        self.collections: dict[str, dict[str, str]] = {}
        self.ingested = 0
        self.asked: list[pb.SearchRequest] = []
        self.target = ""

    async def CreateCollection(self, request: Any, context: Any) -> pb.CreateCollectionResponse:
        if request.collection_id in self.collections:
            await context.abort(grpc.StatusCode.ALREADY_EXISTS, "it exists")
        self.collections[request.collection_id] = {}
        return pb.CreateCollectionResponse()

    async def GetCollection(self, request: Any, context: Any) -> pb.GetCollectionResponse:
        stored = self.collections[request.name.removeprefix("collections/")]
        return pb.GetCollectionResponse(collection=pb.Collection(chunk_count=len(stored), embedding_fingerprint="words/1"))

    async def DeleteCollection(self, request: Any, context: Any) -> pb.DeleteCollectionResponse:
        del self.collections[request.name.removeprefix("collections/")]
        return pb.DeleteCollectionResponse()

    async def UpsertChunks(self, request: Any, context: Any) -> pb.UpsertChunksResponse:
        self.collections[request.collection.removeprefix("collections/")] |= {each.id: each.text for each in request.chunks}
        return pb.UpsertChunksResponse(chunk_count=len(request.chunks))

    async def IngestDocuments(self, request: Any, context: Any) -> pb.IngestDocumentsResponse:
        self.ingested += len(request.documents)
        self.collections[request.collection.removeprefix("collections/")] |= {each.id: each.text for each in request.documents}
        return pb.IngestDocumentsResponse(document_count=len(request.documents))

    async def SearchBatch(self, request: Any, context: Any) -> pb.SearchBatchResponse:
        self.asked += request.requests
        stored = self.collections[request.collection.removeprefix("collections/")]
        return pb.SearchBatchResponse(responses=[self._found(stored, each) for each in request.requests])

    def _found(self, stored: dict[str, str], request: pb.SearchRequest) -> pb.SearchResponse:
        words = set(request.text.lower().split())
        ranked = sorted(stored, key=lambda each: (-len(words & set(stored[each].lower().split())), each))
        if request.mode == pb.SEARCH_MODE_DENSE:
            ranked.reverse()
        return pb.SearchResponse(hits=[pb.Hit(chunk=pb.Chunk(id=each, document_id=each)) for each in ranked])


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    servicer, server = Service(), grpc.aio.server()
    retrieval_pb2_grpc.add_RetrievalServiceServicer_to_server(servicer, server)
    servicer.target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    yield servicer
    await server.stop(None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "corpus.jsonl").write_text(
        '{"_id": "tower", "title": "The tower", "text": "of Paris"}\n{"_id": "bridge", "title": "", "text": "a bridge"}\n'
        '{"_id": "nothing", "title": "", "text": ""}\n'
    )
    (tmp_path / "queries.jsonl").write_text('{"_id": "1", "text": "which tower"}\n{"_id": "2", "text": "which bridge"}\n')
    (tmp_path / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n1\ttower\t1\n2\tbridge\t1\n")
    return tmp_path


async def evaluated(service: Any, folder: Path, capsys: Any, **options: Any) -> Any:
    await evaluate_retrieval(
        EvaluationOptions(folder=folder, target=service.target, as_json=True, **options), Console(file=io.StringIO())
    )
    return json.loads(capsys.readouterr().out)


async def test_every_way_of_searching_is_measured_and_nothing_stays_behind(service: Any, folder: Path, capsys: Any) -> None:
    numbers = await evaluated(service, folder, capsys)
    assert numbers["searches"]["lexical"]["MRR@10"]["value"] == 1.0
    assert numbers["searches"]["dense"]["MRR@10"]["value"] == 0.5, "it has the right one second"
    assert numbers["searches"]["dense"]["recall@10"] == {"value": 1.0, "low": 1.0, "high": 1.0, "query_count": 2}
    assert list(numbers["searches"]) == ["dense", "lexical", "hybrid, convex", "hybrid, RRF"]
    methods = [each.fusion.method for each in service.asked if each.mode == pb.SEARCH_MODE_HYBRID]
    assert methods == [pb.FUSION_METHOD_CONVEX] * 2 + [pb.FUSION_METHOD_RECIPROCAL_RANK] * 2
    assert (numbers["documents"], numbers["documents_left_out"], numbers["chunks"]) == (2, ["nothing"], 2)
    assert service.collections == {}
    assert service.ingested == 0


async def test_a_named_collection_stays_and_is_taken_as_it_is_the_next_time(service: Any, folder: Path, capsys: Any) -> None:
    await evaluated(service, folder, capsys, collection="kept", split=True)
    assert service.collections == {"kept": {"tower": "The tower of Paris", "bridge": "a bridge"}}
    assert service.ingested == 2, "it was split by the service"
    service.collections["kept"].pop("tower")
    numbers = await evaluated(service, folder, capsys, collection="kept", ways=("lexical",))
    assert numbers["searches"]["lexical"]["recall@10"]["value"] == 0.5
    assert set(service.collections) == {"kept"}


async def test_a_collection_of_its_own_is_kept_where_asked(service: Any, folder: Path, capsys: Any) -> None:
    await evaluated(service, folder, capsys, keep=True, ways=("dense",))
    (name,) = service.collections
    assert name.startswith("eval-")


async def test_the_table_has_each_mean_with_its_interval(service: Any, folder: Path, capsys: Any) -> None:
    await evaluate_retrieval(EvaluationOptions(folder=folder, target=service.target), Console(file=io.StringIO()))
    said = " ".join(capsys.readouterr().out.split())
    assert "2 documents, 1 empty ones left out, 2 queries" in said
    assert "1.000-1.000" in said
    assert "words/1" in said


def test_a_document_with_the_querys_own_id_counts_for_nothing_where_asked() -> None:
    corpus = JudgedCorpus(name="c", documents={"1": "x", "2": "y"}, queries={"1": "x"}, judgements={"1": {"2": 1}})
    means = [means_of({"1": ["1", "2"]}, corpus, ignore_identical_ids=ignored)["MRR@10"].value for ignored in (False, True)]
    assert means == [0.5, 1.0]


@pytest.mark.e2e
@pytest.mark.model
@pytest.mark.slow
async def test_the_command_starts_a_service_for_itself(tmp_path: Path) -> None:
    source = ROOT / "examples/corpus/squad_xquad_en"
    for name, count in (("corpus.jsonl", 10), ("questions.jsonl", 30)):
        kept = (source / name).read_text().splitlines()[:count]
        (tmp_path / name).write_text("\n".join(kept))
    command = [Path(sys.executable).parent / "penstock", "eval", "retrieval", tmp_path, "--json"]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
    said, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    numbers = json.loads(said)
    assert numbers["chunks"] == 10
    for way in ("dense", "lexical", "hybrid, convex", "hybrid, RRF"):
        assert numbers["searches"][way]["nDCG@10"]["value"] > 0.7
