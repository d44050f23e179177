"""The LangChain components, over a real server and channel, from async code and from threads without an event loop."""

import asyncio
import copy
import pickle
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, ChatMessage, HumanMessage, SystemMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnablePassthrough
from pydantic import ValidationError

from penstock.clients import Document as PenstockDocument
from penstock.clients import RetrievalClient
from penstock.clients.filters import equals
from penstock.clients.langchain import PenstockChatModel, PenstockFlow, PenstockRetriever
from penstock.errors import BackendUnavailable, CollectionNotFound, FlowNotFound, InvalidArgument, ModelNotFound, Overloaded
from penstock.flow.v1 import flow_pb2
from penstock.generation.v1 import generation_pb2
from penstock.retrieval.v1 import retrieval_pb2

USAGE = {"input_tokens": 7, "output_tokens": 2, "total_tokens": 9, "input_token_details": {"cache_read": 3}}


@pytest.fixture
async def model(services: Any) -> AsyncIterator[PenstockChatModel]:
    async with PenstockChatModel(target=services.target) as opened:
        yield opened
        await asyncio.to_thread(opened.close)


@pytest.fixture
async def retriever(services: Any) -> AsyncIterator[PenstockRetriever]:
    async with RetrievalClient(services.target) as client:
        await client.create_collection("wiki")
        documents = [PenstockDocument(id=f"d{n}", text=f"passage {n}", metadata={"page": n}) for n in range(4)]
        await client.ingest("wiki", documents)
    async with PenstockRetriever(target=services.target, collection="wiki", top_k=3) as opened:
        yield opened
        await asyncio.to_thread(opened.close)


@pytest.fixture
async def flow(services: Any) -> AsyncIterator[PenstockFlow]:
    services.runs.stream = lambda: run_events("a ", "tower")
    async with PenstockFlow(target=services.target, flow="rag") as opened:
        yield opened
        await asyncio.to_thread(opened.close)


async def run_events(*texts: str) -> AsyncIterator[flow_pb2.StreamFlowResponse]:
    yield flow_pb2.StreamFlowResponse(token={"node_id": "rewrite", "text": "?"})
    for text in texts:
        yield flow_pb2.StreamFlowResponse(token={"node_id": "write", "text": text})
    outputs = {"answer": "".join(texts), "count": len(texts)}
    yield flow_pb2.StreamFlowResponse(done=flow_pb2.RunFlowResponse(outputs=outputs))


class Listener(BaseCallbackHandler):
    """Notes what sync callbacks are told."""

    def __init__(self) -> None:
        self.tokens: list[str] = []
        self.ended: list[Any] = []
        self.failed: list[BaseException] = []

    def on_llm_new_token(self, token: str, **_: Any) -> None:
        self.tokens.append(token)

    def on_llm_end(self, response: Any, **_: Any) -> None:
        self.ended.append(response)

    def on_llm_error(self, error: BaseException, **_: Any) -> None:
        self.failed.append(error)


class AsyncListener(AsyncCallbackHandler):
    """Notes the documents that async callbacks are told of."""

    def __init__(self) -> None:
        self.documents: list[Document] = []

    async def on_retriever_end(self, documents: Any, **_: Any) -> None:
        self.documents = documents


async def test_an_answer_carries_usage_model_and_finish_reason(model: PenstockChatModel) -> None:
    answer = await model.ainvoke("say it")
    assert answer.content == "SAY IT "
    assert answer.usage_metadata == USAGE
    assert answer.response_metadata == {"finish_reason": "stop", "model_name": "small", "model_provider": "penstock"}


async def test_a_sync_answer_is_the_same_from_a_thread_without_a_loop(model: PenstockChatModel) -> None:
    answer, from_async = await asyncio.to_thread(model.invoke, "say it"), await model.ainvoke("say it")
    assert (answer.content, answer.usage_metadata) == (from_async.content, from_async.usage_metadata)
    assert answer.response_metadata == from_async.response_metadata


async def test_streams_add_up_to_the_answer_in_both_ways(model: PenstockChatModel) -> None:
    chunks = [chunk async for chunk in model.astream("say it")]
    assert [chunk.content for chunk in chunks] == ["SAY ", "IT ", ""]
    whole = chunks[0] + chunks[1] + chunks[2]
    assert whole.usage_metadata == USAGE
    assert whole.response_metadata == {"finish_reason": "stop", "model_name": "small", "model_provider": "penstock"}
    sync_chunks = await asyncio.to_thread(lambda: list(model.stream("say it")))
    assert [chunk.content for chunk in sync_chunks] == ["SAY ", "IT ", ""]


async def test_a_prompt_piped_into_the_model_is_a_chain(services: Any, model: PenstockChatModel) -> None:
    prompt = ChatPromptTemplate.from_messages([("system", "be {manner}"), ("human", "{question}")])
    chain = prompt | model | StrOutputParser()
    asked = {"manner": "brief", "question": "say it"}
    assert await chain.ainvoke(asked) == "SAY IT "
    assert [text async for text in chain.astream(asked) if text] == ["SAY ", "IT "]
    assert await asyncio.to_thread(chain.invoke, asked) == "SAY IT "
    assert await asyncio.to_thread(chain.batch, [asked] * 4) == ["SAY IT "] * 4
    turns = services.generation.requests[0].messages
    assert [(turn.role, turn.content) for turn in turns] == [
        (generation_pb2.ROLE_SYSTEM, "be brief"),
        (generation_pb2.ROLE_USER, "say it"),
    ]


async def test_sampling_and_stop_come_from_the_model_and_a_call_may_change_them(services: Any) -> None:
    async with PenstockChatModel(target=services.target, model="small", temperature=0.5, max_tokens=9, stop=["#"]) as model:
        await model.ainvoke("say it")
        answer = await model.bind(temperature=0.0, seed=1, model="default").ainvoke("say it", stop=["!"])
    own, changed = services.generation.requests
    assert (own.model, own.sampling.temperature, own.sampling.max_tokens, list(own.sampling.stop)) == (
        "models/small",
        0.5,
        9,
        ["#"],
    )
    assert not own.sampling.HasField("seed")
    assert (changed.model, changed.sampling.temperature, changed.sampling.seed) == ("models/default", 0.0, 1)
    assert list(changed.sampling.stop) == ["!"]
    assert answer.response_metadata["finish_reason"] == "length"
    assert answer.response_metadata["matched_stop"] == "!"


async def test_roles_are_translated_and_text_blocks_joined(services: Any, model: PenstockChatModel) -> None:
    blocks = [{"type": "text", "text": "say "}, "it"]
    await model.ainvoke([SystemMessage("s"), AIMessage("a"), ChatMessage(role="user", content="u"), HumanMessage(blocks)])
    turns = services.generation.requests[0].messages
    assert [turn.role for turn in turns] == [
        generation_pb2.ROLE_SYSTEM,
        generation_pb2.ROLE_ASSISTANT,
        generation_pb2.ROLE_USER,
        generation_pb2.ROLE_USER,
    ]
    assert turns[-1].content == "say it"


@pytest.mark.parametrize(
    ("asked", "options"),
    [
        (ChatMessage(role="clown", content="t"), {}),
        (HumanMessage([{"type": "image_url", "image_url": {"url": "x"}}]), {}),
        (HumanMessage("say it"), {"functions": []}),
        (HumanMessage("say it"), {"temprature": 0}),
    ],
)
async def test_what_the_service_does_not_do_is_refused_and_not_dropped(
    services: Any, model: PenstockChatModel, asked: Any, options: dict[str, Any]
) -> None:
    with pytest.raises(InvalidArgument, match=r"generation\.v1"):
        await model.ainvoke([asked], **options)
    assert services.generation.requests == []


@pytest.mark.parametrize(
    "make",
    [
        lambda: PenstockChatModel(temprature=0),
        lambda: PenstockRetriever(collection="wiki", topk=3),
        lambda: PenstockFlow(flow="rag", outputs="answer"),
    ],
)
def test_a_misspelt_field_is_an_error(make: Callable[[], Any]) -> None:
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        make()


def test_a_deadline_may_be_given_under_either_name() -> None:
    assert PenstockChatModel(timeout=2).timeout_s == PenstockChatModel(timeout_s=2).timeout_s == 2


async def test_callbacks_hear_of_tokens_ends_and_errors(services: Any, model: PenstockChatModel) -> None:
    heard = Listener()
    config = {"callbacks": [heard]}
    await asyncio.to_thread(lambda: list(model.stream("say it", config=config)))
    assert heard.tokens == ["SAY ", "IT ", ""]
    assert heard.ended[0].generations[0][0].message.usage_metadata == USAGE
    with pytest.raises(ModelNotFound):
        await model.ainvoke("say it", config=config, model="none")
    assert isinstance(heard.failed[0], ModelNotFound)


async def test_a_streaming_model_tells_callbacks_of_tokens_while_it_is_invoked(services: Any) -> None:
    heard = Listener()
    async with PenstockChatModel(target=services.target, streaming=True) as model:
        assert (await model.ainvoke("say it", config={"callbacks": [heard]})).content == "SAY IT "
    assert heard.tokens == ["SAY ", "IT ", ""]


async def test_leaving_an_async_stream_stops_the_models_work(services: Any, model: PenstockChatModel) -> None:
    services.generation.endless = True
    async for _ in model.astream("say it"):
        break
    await asyncio.wait_for(services.generation.closed.wait(), 5)


async def test_leaving_a_sync_stream_stops_the_models_work(services: Any, model: PenstockChatModel) -> None:
    services.generation.endless = True
    assert (await asyncio.to_thread(lambda: next(model.stream("say it")))).content == "SAY "
    await asyncio.wait_for(services.generation.closed.wait(), 5)


async def test_a_retriever_returns_documents_with_ids_scores_and_metadata(retriever: PenstockRetriever) -> None:
    heard = AsyncListener()
    documents = await retriever.ainvoke("passage", config={"callbacks": [heard]})
    assert documents[0] == Document(
        id="d0#0", page_content="passage 0", metadata={"page": 0, "document_id": "d0", "score": 0.5}
    )
    assert len(documents) == 3
    assert heard.documents == documents
    assert await asyncio.to_thread(retriever.invoke, "passage") == documents


async def test_a_call_may_ask_a_retriever_for_another_number(services: Any, retriever: PenstockRetriever) -> None:
    assert len(await retriever.ainvoke("passage", top_k=1)) == 1
    assert len(await asyncio.to_thread(lambda: retriever.invoke("passage", top_k=2))) == 2


async def test_a_retriever_raises_what_the_service_raises(services: Any, retriever: PenstockRetriever) -> None:
    async with PenstockRetriever(target=services.target, collection="none") as other:
        with pytest.raises(CollectionNotFound):
            await other.ainvoke("passage")
    with pytest.raises(BackendUnavailable):
        await asyncio.to_thread(PenstockRetriever(target="127.0.0.1:1", collection="wiki", timeout=5).invoke, "passage")


async def test_retriever_prompt_and_model_chain_to_an_answer(retriever: PenstockRetriever, model: PenstockChatModel) -> None:
    prompt = ChatPromptTemplate.from_template("{question} {context}")
    texts = retriever | (lambda documents: documents[0].page_content)
    chain = {"context": texts, "question": RunnablePassthrough()} | prompt | model | StrOutputParser()
    assert await chain.ainvoke("what?") == "WHAT? PASSAGE 0 "
    assert await asyncio.to_thread(chain.invoke, "what?") == "WHAT? PASSAGE 0 "


async def test_a_flow_returns_its_outputs_or_the_one_that_is_named(services: Any, flow: PenstockFlow) -> None:
    named = flow.model_copy(update={"output": "answer"})
    assert await flow.ainvoke({"question": "what?"}) == {"answer": "a tower", "count": 2}
    assert await asyncio.to_thread(named.invoke, {"question": "what?"}) == "a tower"
    assert services.runs.requests[0].inputs["question"] == "what?"
    with pytest.raises(InvalidArgument, match="no output 'other'; it has answer, count"):
        await flow.model_copy(update={"output": "other"}).ainvoke({})


async def test_a_flow_streams_the_text_of_all_nodes_or_of_one(flow: PenstockFlow) -> None:
    of_one = flow.model_copy(update={"node_id": "write"})
    assert [text async for text in flow.astream({})] == ["?", "a ", "tower"]
    assert [text async for text in of_one.astream({})] == ["a ", "tower"]
    assert await asyncio.to_thread(lambda: list(of_one.stream({}))) == ["a ", "tower"]
    silent = flow.model_copy(update={"node_id": "nobody", "output": "count"})
    assert [value async for value in silent.astream({})] == [2]
    chain = of_one | StrOutputParser()
    assert [text async for text in chain.astream({})] == ["a ", "tower"]


async def test_a_flow_raises_what_the_gateway_raises(services: Any, flow: PenstockFlow) -> None:
    async def fail_midway() -> AsyncIterator[flow_pb2.StreamFlowResponse]:
        yield flow_pb2.StreamFlowResponse(token={"node_id": "write", "text": "a"})
        raise Overloaded("full")

    async def fail_at_once() -> AsyncIterator[flow_pb2.StreamFlowResponse]:
        raise FlowNotFound("no flow 'rag'")
        yield

    services.runs.stream = fail_midway
    with pytest.raises(Overloaded, match="full"):
        await asyncio.to_thread(lambda: list(flow.stream({})))
    services.runs.stream = fail_at_once
    with pytest.raises(FlowNotFound):
        await flow.ainvoke({})


async def test_one_component_serves_several_event_loops_one_after_the_other(model: PenstockChatModel) -> None:
    def in_a_loop_of_its_own() -> str:
        return str(asyncio.run(model.ainvoke("say it")).content)

    answers = [await asyncio.to_thread(in_a_loop_of_its_own) for _ in range(3)]
    assert answers == ["SAY IT "] * 3


async def test_a_closed_component_opens_again(model: PenstockChatModel) -> None:
    for _ in range(2):
        assert (await model.ainvoke("say it")).content == "SAY IT "
        await model.aclose()


async def test_copies_and_pickles_connect_for_themselves(retriever: PenstockRetriever) -> None:
    expected = await retriever.ainvoke("passage")
    for twin in (copy.deepcopy(retriever), pickle.loads(pickle.dumps(retriever))):
        async with twin:
            assert await twin.ainvoke("passage") == expected


async def test_the_servers_span_is_a_child_of_the_sync_callers(services: Any, model: PenstockChatModel) -> None:
    def ask() -> int:
        with services.provider.get_tracer("test").start_as_current_span("asking") as span:
            model.invoke("say it")
            return span.get_span_context().trace_id

    trace_id = await asyncio.to_thread(ask)
    served = [span for span in services.spans.get_finished_spans() if span.name.endswith("/Generate")]
    assert [span.context.trace_id for span in served] == [trace_id]


def run_python(*lines: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, timeout=60, check=False)


async def test_a_sync_program_that_closes_nothing_exits_cleanly(services: Any) -> None:
    program = (
        "from penstock.clients.langchain import PenstockChatModel",
        f"model = PenstockChatModel(target={services.target!r})",
        "print(model.invoke('say it').content, next(model.stream('say it')).content)",
    )
    done = await asyncio.to_thread(run_python, *program)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "SAY IT  SAY", "")


def test_without_langchain_core_the_import_says_what_to_install() -> None:
    done = run_python("import sys", "sys.modules['langchain_core'] = None", "import penstock.clients.langchain")
    assert "ImportError: penstock.clients.langchain needs langchain-core" in done.stderr
    assert "pip install 'penstock[langchain]'" in done.stderr


def test_the_clients_themselves_import_neither_langchain_nor_the_telemetry_sdk() -> None:
    done = run_python(
        "import sys, penstock.clients",
        "print([name for name in ('langchain_core', 'opentelemetry.sdk', 'pydantic') if name in sys.modules])",
    )
    assert done.stdout.strip() == "[]", done.stderr


async def test_a_retriever_searches_as_it_is_told_and_says_on_whose_behalf(services: Any, retriever: PenstockRetriever) -> None:
    told = {"mode": "hybrid", "filter": equals("lang", "en")}
    other = PenstockRetriever(target=services.target, collection="wiki", options=told, api_key="psk_x", principals={"user:ann"})
    async with other:
        await other.ainvoke("passage", top_k=2)
    asked = services.retrieval.requests[-1]
    assert (asked.mode, asked.filter.equals.field, asked.top_k) == (retrieval_pb2.SEARCH_MODE_HYBRID, "lang", 2)
    assert services.retrieval.seen[-1].principals == {"user:ann"}
    assert "psk_x" not in repr(other)


async def test_a_call_may_say_other_options_and_a_misspelt_one_is_told(services: Any, retriever: PenstockRetriever) -> None:
    await retriever.ainvoke("passage", mode="lexical", top_k=None)
    asked = services.retrieval.requests[-1]
    assert (asked.mode, asked.top_k) == (retrieval_pb2.SEARCH_MODE_LEXICAL, retriever.top_k)
    with pytest.raises(TypeError, match="no option 'topk'; did you mean 'top_k'"):
        await retriever.ainvoke("passage", topk=3)
    with pytest.raises(TypeError, match="no option 'topk'; did you mean 'top_k'"):
        await asyncio.to_thread(lambda: retriever.invoke("passage", topk=3))
    with pytest.raises(TypeError, match="no option 'moed'; did you mean 'mode'"):
        PenstockRetriever(target=services.target, collection="wiki", options={"moed": "hybrid"})
    with pytest.raises(InvalidArgument, match="mode is 'dense', 'lexical' or 'hybrid'; not 'denze'"):
        PenstockRetriever(target=services.target, collection="wiki", options={"mode": "denze"})
