"""The clients of the other services, over real channels: every field of a request, and every field of an answer."""

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from opentelemetry.sdk.trace import TracerProvider

from gateway.backends import (
    Alternative,
    Answer,
    Delta,
    Diversity,
    Finish,
    Form,
    Fusion,
    GenerateRequest,
    LogprobOptions,
    Reranking,
    Sampling,
    Scores,
    SearchRequest,
    TokenLogprob,
    Vectors,
)
from gateway.clients import GrpcGenerator, GrpcRetriever
from gateway.execution import ChatMessage
from gateway.retrieval_messages import filter_message
from penstock.channel import open_channel
from penstock.deadline import within
from penstock.dispatcher import Dispatcher
from penstock.errors import BackendUnavailable, CollectionNotFound, DeadlineExceeded, UnsupportedFeature
from penstock.flow.v1 import flow_pb2
from penstock.generation.v1 import generation_pb2 as g
from penstock.generation.v1 import generation_pb2_grpc
from penstock.grpc_front import grpc_server
from penstock.health import Health
from penstock.interceptors import Admission, Deadline, ErrorBoundary
from penstock.retrieval.v1 import retrieval_pb2 as r
from penstock.retrieval.v1 import retrieval_pb2_grpc
from penstock.settings import ServiceSettings
from retrieval_svc.filter_messages import filter_from
from retrieval_svc.filters import AllOf, AnyOf, Exists, NoneOf, OneOf, Range
from tests.gateway.fakes import document, node
from tests.gateway.serving import serving

SERVICES = ("penstock.retrieval.v1.RetrievalService", "penstock.generation.v1.GenerationService")
LOGPROB = g.TokenLogprob(token=" Yes", logprob=-0.5, token_id=7, top=[g.TokenLogprob(token=" No", logprob=-1.5, token_id=-1)])
TOKEN = TokenLogprob(token=" Yes", logprob=-0.5, token_id=7, top=(TokenLogprob(token=" No", logprob=-1.5, token_id=-1),))


class Answering(retrieval_pb2_grpc.RetrievalServiceServicer, generation_pb2_grpc.GenerationServiceServicer):
    """Both services: keeps what it is asked, answers what a test says."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.answers: dict[str, Any] = {}

    async def _answer(self, method: str, request: Any) -> Any:
        self.asked.append(request)
        answer = self.answers[method]
        if isinstance(answer, Exception):
            raise answer
        if answer == "never":
            await asyncio.Event().wait()
        return answer

    async def Search(self, request: Any, context: Any) -> Any:
        return await self._answer("Search", request)

    async def Embed(self, request: Any, context: Any) -> Any:
        return await self._answer("Embed", request)

    async def Generate(self, request: Any, context: Any) -> Any:
        return await self._answer("Generate", request)

    async def Rerank(self, request: Any, context: Any) -> Any:
        return await self._answer("Rerank", request)

    async def StreamGenerate(self, request: Any, context: Any) -> AsyncIterator[Any]:
        for event in await self._answer("StreamGenerate", request):
            yield event


@asynccontextmanager
async def answering(service: str) -> AsyncIterator[tuple[Answering, str]]:
    servicer, dispatcher, health = (
        Answering(),
        Dispatcher(SERVICES, (ErrorBoundary(), Admission(100), Deadline())),
        Health(SERVICES),
    )
    if service == "retrieval":
        retrieval_pb2_grpc.add_RetrievalServiceServicer_to_server(servicer, dispatcher)
    else:
        generation_pb2_grpc.add_GenerationServiceServicer_to_server(servicer, dispatcher)
    server = grpc_server(ServiceSettings(), dispatcher, health)
    port = server.add_insecure_port("127.0.0.1:0")
    dispatcher.ready = True
    health.serve()
    await server.start()
    try:
        yield servicer, f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


@pytest.fixture
async def retrieval() -> AsyncIterator[tuple[Answering, GrpcRetriever]]:
    async with answering("retrieval") as (servicer, address):
        channel = open_channel(address, tracer_provider=TracerProvider(), message_bytes_max=2**24)
        yield servicer, GrpcRetriever(channel, timeout_s=10)
        await channel.close()


@pytest.fixture
async def generation() -> AsyncIterator[tuple[Answering, GrpcGenerator]]:
    async with answering("generation") as (servicer, address):
        channel = open_channel(address, tracer_provider=TracerProvider(), message_bytes_max=2**24, retries=False)
        client = GrpcGenerator(channel, timeout_s=10)
        yield servicer, client
        await client.close()


EVERYTHING = GenerateRequest(
    model="small",
    prompt="Why?",
    system="Be kind.",
    messages=(ChatMessage(role="user", content="Hi"), ChatMessage(role="assistant", content="Hello."),
              ChatMessage(role="tool", content="42")),
    session="never sent",
    sampling=Sampling(
        max_tokens=9, temperature=0.5, top_p=0.75, top_k=7, seed=3, presence_penalty=1, frequency_penalty=-1, min_p=0.25,
        repetition_penalty=1.5, min_tokens=2, include_stop=False, stop=("\n", "END"),
    ),
    n=2,
    logprobs=LogprobOptions(tokens=(" Yes", " No")),
    form=Form(kind="choice", value=("a", "b")),
    adapter="poet",
    priority=-7,
    cache_salt="team",
)  # fmt: skip
WRITTEN = {
    "model": "models/small",
    "messages": [
        {"role": "ROLE_SYSTEM", "content": "Be kind."},
        {"role": "ROLE_USER", "content": "Hi"},
        {"role": "ROLE_ASSISTANT", "content": "Hello."},
        {"role": "ROLE_USER", "content": "<tool_response>\n42\n</tool_response>"},
        {"role": "ROLE_USER", "content": "Why?"},
    ],
    "sampling": {
        "max_tokens": 9, "temperature": 0.5, "top_p": 0.75, "top_k": 7, "seed": "3", "presence_penalty": 1.0,
        "frequency_penalty": -1.0, "min_p": 0.25, "repetition_penalty": 1.5, "min_tokens": 2, "include_stop": False,
        "stop": ["\n", "END"],
    },
    "n": 2,
    "logprobs": {"tokens": [" Yes", " No"]},
    "structured_output": {"choice": {"texts": ["a", "b"]}},
    "adapter": "poet",
    "priority": -7,
    "cache_salt": "team",
}  # fmt: skip


def as_dict(message: Any) -> dict[str, Any]:
    return json_format.MessageToDict(message, preserving_proto_field_name=True)


async def test_every_field_of_a_request_is_sent_and_every_field_of_an_answer_read(
    generation: tuple[Answering, GrpcGenerator],
) -> None:
    servicer, client = generation
    servicer.answers["Generate"] = g.GenerateResponse(
        text="a", finish_reason="FINISH_REASON_LENGTH", matched_stop="END", model="models/small", logprobs=[LOGPROB],
        usage=g.Usage(input_tokens=5, output_tokens=4, cached_tokens=3),
        alternatives=[
            g.Alternative(index=1, text="b", finish_reason="FINISH_REASON_STOP", matched_stop="\n", logprobs=[LOGPROB])
        ],
    )  # fmt: skip
    answer = await client.generate(EVERYTHING)
    assert as_dict(servicer.asked[0]) == WRITTEN
    other = Alternative(text="b", reason="stop", matched_stop="\n", logprobs=(TOKEN,))
    assert answer == Answer(
        text="a",
        finish=Finish(
            reason="length", input_tokens=5, output_tokens=4, cached_tokens=3, model="small", matched_stop="END",
            alternatives=(other,),
        ),
        logprobs=(TOKEN,),
        alternatives=(other,),
    )  # fmt: skip


async def test_a_stream_says_and_reads_the_same(generation: tuple[Answering, GrpcGenerator]) -> None:
    servicer, client = generation
    event = g.StreamGenerateResponse
    servicer.answers["StreamGenerate"] = [
        event(delta=event.Delta(text="a", logprobs=[LOGPROB])),
        event(delta=event.Delta(text="b", index=1)),
        event(
            done=event.Done(
                finish_reason="FINISH_REASON_STOP", matched_stop="END", model="models/small",
                usage=g.Usage(input_tokens=5, output_tokens=4),
                alternatives=[g.Alternative(index=2, finish_reason="FINISH_REASON_STOP"),
                              g.Alternative(index=1, finish_reason="FINISH_REASON_LENGTH")],
            )
        ),
    ]  # fmt: skip
    parts = [part async for part in client.stream(EVERYTHING)]
    assert as_dict(servicer.asked[0]) == WRITTEN
    assert parts == [
        Delta(text="a", logprobs=(TOKEN,)),
        Delta(text="b", index=1),
        Finish(
            reason="stop", input_tokens=5, output_tokens=4, model="small", matched_stop="END",
            alternatives=(Alternative(text="", reason="length"), Alternative(text="", reason="stop")),
        ),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("form", "written"),
    [
        (Form(kind="json_schema", value='{"type":"object"}'), {"json_schema": '{"type":"object"}'}),
        (Form(kind="json_object"), {"json_object": True}),
        (Form(kind="regex", value="a+"), {"regex": "a+"}),
        (Form(kind="grammar", value='root ::= "a"'), {"grammar": 'root ::= "a"'}),
    ],
)
async def test_every_form_is_sent(generation: tuple[Answering, GrpcGenerator], form: Form, written: dict[str, Any]) -> None:
    servicer, client = generation
    servicer.answers["Generate"] = g.GenerateResponse(text="a")
    await client.generate(GenerateRequest(model="m", prompt="?", form=form, logprobs=LogprobOptions(top=3)))
    assert as_dict(servicer.asked[0])["structured_output"] == written
    assert servicer.asked[0].logprobs == g.LogprobOptions(top=3)


async def test_a_raw_prompt_is_sent_as_it_is_and_what_is_not_said_is_not_sent(
    generation: tuple[Answering, GrpcGenerator],
) -> None:
    servicer, client = generation
    servicer.answers["Generate"] = g.GenerateResponse(text="a")
    await client.generate(GenerateRequest(model="m", prompt="1, 2,", raw=True))
    assert as_dict(servicer.asked[0]) == {"model": "models/m", "prompt": "1, 2,", "sampling": {}}


async def test_a_search_is_sent_with_every_field_and_its_passages_read(retrieval: tuple[Answering, GrpcRetriever]) -> None:
    servicer, client = retrieval
    chunk = r.Chunk(id="c1", document_id="d1", text="Denver")
    chunk.metadata.update({"title": "T", "page": 3})
    servicer.answers["Search"] = r.SearchResponse(hits=[r.Hit(chunk=chunk, score=0.5)])
    (found,) = await client.search(
        SearchRequest(
            collection="squad", text="Where?", vector=(1.0, 0.5), top_k=7, mode="hybrid", score_min=0.25,
            filter={"equals": {"field": "lang", "value": "en"}},
            fusion=Fusion(method="reciprocal_rank", dense_weight=0.75, rrf_k=9, candidates=50),
            diversity=Diversity(relevance_weight=0.5, candidates=20), hits_per_document_max=2,
            reranking=Reranking(model="cross", candidates=30), ef_search=100, nprobe=8, exact=True, fields=("text",),
        )
    )  # fmt: skip
    assert (found.chunk_id, found.text, found.score, found.metadata) == ("c1", "Denver", 0.5, {"title": "T", "page": 3})
    assert servicer.asked[0].vector == struct.pack("<2f", 1.0, 0.5)
    sent = as_dict(servicer.asked[0])
    del sent["vector"]
    assert sent == {
        "collection": "collections/squad", "text": "Where?", "top_k": 7, "mode": "SEARCH_MODE_HYBRID", "score_min": 0.25,
        "filter": {"equals": {"field": "lang", "value": "en"}},
        "fusion": {"method": "FUSION_METHOD_RECIPROCAL_RANK", "dense_weight": 0.75, "rrf_k": 9, "candidates": 50},
        "diversity": {"relevance_weight": 0.5, "candidates": 20}, "grouping": {"hits_per_document_max": 2},
        "reranking": {"model": "cross", "candidates": 30}, "ef_search": 100, "nprobe": 8, "exact": True, "fields": ["text"],
    }  # fmt: skip


async def test_what_a_search_does_not_say_is_not_sent(retrieval: tuple[Answering, GrpcRetriever]) -> None:
    servicer, client = retrieval
    servicer.answers["Search"] = r.SearchResponse()
    await client.search(
        SearchRequest(collection="squad", text="", diversity=Diversity(), reranking=Reranking(), fusion=Fusion())
    )
    await client.search(SearchRequest(collection="squad", vector=(1.0,)))
    assert as_dict(servicer.asked[0]) == {
        "collection": "collections/squad", "text": "", "top_k": 4, "diversity": {}, "reranking": {},
        "fusion": {"method": "FUSION_METHOD_CONVEX"},
    }  # fmt: skip
    assert not servicer.asked[1].HasField("text")


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ({"equals": {"field": "a.b", "value": True}}, OneOf(field="a.b", values=(True,))),
        ({"one_of": {"field": "a", "values": ["x", 2, False]}}, OneOf(field="a", values=("x", 2.0, False))),
        ({"one_of": {"field": "a", "values": "x"}}, OneOf(field="a", values=("x",))),
        ({"range": {"field": "a", "gt": 1, "lte": 2.5}}, Range(field="a", gt=1.0, lte=2.5)),
        ({"range": {"field": "a", "gte": "b", "lt": "c"}}, Range(field="a", gte="b", lt="c")),
        ({"exists": {"field": "a"}}, Exists(field="a")),
        (
            {"all_of": [{"any_of": [{"exists": {"field": "a"}}]}, {"none_of": []}]},
            AllOf(filters=(AnyOf(filters=(Exists(field="a"),)), NoneOf(filters=()))),
        ),
    ],
)
def test_a_filter_is_what_the_retrieval_service_reads_of_it(written: dict[str, Any], read: object) -> None:
    assert filter_from(filter_message(written)) == read


async def test_vectors_and_scores_come_back_in_the_order_of_the_texts(
    retrieval: tuple[Answering, GrpcRetriever], generation: tuple[Answering, GrpcGenerator]
) -> None:
    rows = [struct.pack("<2f", 1.0, 0.5), struct.pack("<2f", -1.0, 0.25)]
    expected = Vectors(vectors=((1.0, 0.5), (-1.0, 0.25)), input_tokens=6)
    servicer, retriever = retrieval
    servicer.answers["Embed"] = r.EmbedResponse(vectors=rows, dimension=2, token_count=6)
    assert await retriever.embed("mini", ("a", "b"), "query") == expected
    assert servicer.asked[0] == r.EmbedRequest(model="mini", texts=["a", "b"], purpose="EMBED_PURPOSE_QUERY")
    servicer, generator = generation
    usage = g.Usage(input_tokens=6)
    servicer.answers["Embed"] = g.EmbedResponse(vectors=[g.EmbedResponse.Vector(values=row) for row in rows], usage=usage)
    assert await generator.embed("mini", ("a", "b")) == expected
    servicer.answers["Rerank"] = g.RerankResponse(scores=[0.5, 2.0], usage=usage)
    assert await generator.rerank("cross", "q", ("a", "b")) == Scores(scores=(0.5, 2.0), input_tokens=6)
    assert servicer.asked[-1] == g.RerankRequest(model="models/cross", query="q", documents=["a", "b"])


async def test_failures_carry_their_service_and_every_call_has_a_deadline(
    retrieval: tuple[Answering, GrpcRetriever], generation: tuple[Answering, GrpcGenerator]
) -> None:
    servicer, retriever = retrieval
    servicer.answers = {"Search": CollectionNotFound("gone"), "Embed": "never"}
    with pytest.raises(CollectionNotFound) as caught:
        await retriever.search(SearchRequest(collection="squad", text="x"))
    assert caught.value.metadata == {"service": "retrieval"}
    with pytest.raises(DeadlineExceeded), within(0.2):
        await retriever.embed("", ("a",), "document")
    servicer, generator = generation
    servicer.answers = {"Rerank": UnsupportedFeature("no rerank"), "Embed": "never"}
    with pytest.raises(UnsupportedFeature) as unsupported:
        await generator.rerank("m", "q", ("a",))
    assert unsupported.value.metadata == {"service": "generation"}
    with pytest.raises(DeadlineExceeded), within(0.2):
        await generator.embed("m", ("a",))


async def test_models_that_rerank_and_embed_are_asked_where_the_settings_say(tmp_path: Path) -> None:
    flow = document(
        node("q", "input"), node("docs", "retrieve", collection="squad"), node("best", "rerank", model="cross"),
        node("made", "embed", service="generation"), node("a", "output"), node("b", "output"),
        edges=["q > docs", "q > best.query", "docs > best", "q > made", "best > a", "made > b"],
    )  # fmt: skip
    async with answering("generation") as (reranker, rerank_at), answering("generation") as (embedder, embed_at):
        reranker.answers["Rerank"] = g.RerankResponse(scores=[0.75])
        embedder.answers["Embed"] = g.EmbedResponse(vectors=[g.EmbedResponse.Vector(values=struct.pack("<1f", 2.0))])
        targets = {"generation_rerank_target": rerank_at, "generation_embed_target": embed_at}
        async with serving(tmp_path, **targets) as stack:
            await stack.flows.CreateFlow(flow_pb2.CreateFlowRequest(flow_id="both", document=flow))
            outputs = as_dict((await stack.run("both", q="Where?")).outputs)
    assert outputs["a"][0]["score"] == 0.75
    assert outputs["b"] == [2.0]
    assert (len(reranker.asked), len(embedder.asked)) == (1, 1)


async def test_a_pooling_model_that_is_away_is_told(tmp_path: Path) -> None:
    flow = document(
        node("q", "input"), node("made", "embed", service="generation"), node("a", "output"), edges=["q > made", "made > a"]
    )
    async with serving(tmp_path, generation_embed_target="127.0.0.1:1") as stack:
        await stack.flows.CreateFlow(flow_pb2.CreateFlowRequest(flow_id="made", document=flow))
        with pytest.raises(BackendUnavailable, match="generation service cannot be reached"):
            await stack.run("made", q="x")
