import asyncio
import gc
import json

import pytest
from langchain_core.callbacks import AsyncCallbackHandler
from langchain_core.runnables import Runnable, RunnableLambda
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import StatusCode

from gateway.compiler import RunLimits
from gateway.execution import NodeStarted, RunResult, SourcesFound, Token
from gateway.runnable import FlowRunnable
from penstock import semconv
from penstock.errors import (
    BackendUnavailable,
    CollectionNotFound,
    DeadlineExceeded,
    EmptyText,
    FailedPrecondition,
    Internal,
    InvalidInputs,
)
from tests.gateway.fakes import CHAT, ECHO, RAG, TWO_SEARCHES, World, document, node, passage


async def test_a_run_returns_outputs_sources_tokens_and_the_version(world: World) -> None:
    compiled = world.compile(RAG)
    result = await compiled.run({"question": "Where?"})
    assert result.outputs == {"answer": "It was Denver."}
    assert result.sources == (SourcesFound(node_id="docs", documents=(passage(1), passage(2))),)
    assert (result.spent.input_tokens, result.spent.output_tokens) == (3, 2)
    assert result.content_hash == compiled.flow.content_hash
    assert world.retriever.calls == [("squad", "Where?", 2)]
    assert world.generator.requests[0].prompt == "[1] passage 1\n\n[2] passage 2\n\nQ: Where?"


async def test_tokens_of_all_model_calls_are_added_up(world: World) -> None:
    flow = document(
        node("q", "input"), node("a", "generate"), node("b", "generate"), node("o", "output"), edges=["q > a", "a > b", "b > o"]
    )
    result = await world.compile(flow).run({"q": "x"})
    assert (result.spent.input_tokens, result.spent.output_tokens) == (6, 4)


async def test_a_stream_tells_sources_and_tokens_and_ends_with_what_a_run_returns(world: World) -> None:
    compiled = world.compile(RAG)
    events = [event async for event in compiled.events({"question": "Where?"})]
    assert [event.text for event in events if isinstance(event, Token)] == ["It ", "was ", "Denver."]
    assert [event for event in events if isinstance(event, SourcesFound)] == [
        SourcesFound(node_id="docs", documents=(passage(1), passage(2)))
    ]
    assert isinstance(events[-1], RunResult)
    assert events[-1].outputs == (await compiled.run({"question": "Where?"})).outputs


async def test_a_stream_that_fails_tells_what_came_before_and_then_raises(world: World) -> None:
    async def refuse(_: object) -> None:
        raise BackendUnavailable("gone", metadata={"service": "generation"})

    world.generator.before = refuse
    seen = []
    with pytest.raises(BackendUnavailable, match="gone") as caught:
        async for event in world.compile(RAG).events({"question": "x"}):
            seen.append(event)  # What came before the error is the point.
    assert caught.value.metadata == {"service": "generation", "node": "model"}
    assert seen[-1] == NodeStarted(node_id="model", node_type="generate")


async def test_an_answer_that_breaks_off_is_an_error(world: World) -> None:
    world.generator.finishes = False
    with pytest.raises(BackendUnavailable, match="broke off"):
        _ = [event async for event in world.compile(CHAT).events({"question": "x"})]


async def test_a_reader_that_leaves_stops_the_model(world: World) -> None:
    world.generator.texts = ["x"] * 1000
    events = world.compile(CHAT).events({"question": "x"})
    async for event in events:
        if isinstance(event, Token):
            break
    await events.aclose()
    assert world.generator.closed.is_set()
    assert world.generator.taken < 1000


async def test_a_reader_that_is_cancelled_stops_every_branch(world: World) -> None:
    waiting = asyncio.Event()

    async def wait_for_ever(_: str) -> None:
        waiting.set()
        await asyncio.Event().wait()

    world.retriever.before = wait_for_ever

    async def read() -> None:
        async for _ in world.compile(TWO_SEARCHES).events({"question": "x"}):
            pass

    reading = asyncio.create_task(read())
    await waiting.wait()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert world.retriever.cancelled.is_set()


async def test_a_slow_reader_makes_the_model_wait() -> None:
    world = World(limits=RunLimits(events_max=4))
    world.generator.texts = ["x"] * 1000
    events = world.compile(CHAT).events({"question": "x"})
    await anext(events)
    for _ in range(100):
        await asyncio.sleep(0)
    assert world.generator.taken <= 5
    assert len([event async for event in events if isinstance(event, Token)]) == 1000


async def test_a_run_that_takes_too_long_ends_with_the_deadline() -> None:
    world = World(limits=RunLimits(deadline_s=0.01))
    world.generator.before = lambda _: asyncio.Event().wait()
    with pytest.raises(DeadlineExceeded, match=r"the run of flow 'slow' did not finish within 0\.01 s"):
        await world.compile(CHAT).run({"question": "x"}, name="slow")
    assert world.generator.closed.is_set()


async def test_a_time_out_inside_a_node_is_not_taken_for_the_deadline(world: World) -> None:
    async def time_out(_: object) -> None:
        raise TimeoutError

    world.generator.before = time_out
    with pytest.raises(TimeoutError):
        await world.compile(CHAT).run({"question": "x"})


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "the input 'question' is missing; the flow's inputs: question (text)"),
        ({"question": "x", "colour": "red"}, 'the flow has no input "colour"'),
        ({"question": 7.0}, "'question' must be of the type text; found 7.0"),
        ({"question": None}, "'question' must be of the type text; found null"),
        ({"question": ["x"]}, "'question' must be of the type text"),
    ],
)
async def test_inputs_that_the_flow_does_not_take_are_refused(world: World, given: dict[str, object], says: str) -> None:
    with pytest.raises(InvalidInputs) as caught:
        await world.compile(CHAT).run(given)
    assert says in caught.value.message
    assert caught.value.violations


@pytest.mark.parametrize("empty", ["", "  \n\t"])
async def test_a_required_text_with_nothing_in_it_is_refused(world: World, empty: str) -> None:
    with pytest.raises(EmptyText) as caught:
        await world.compile(CHAT).run({"question": empty})
    assert caught.value.metadata == {"input": "question"}


async def test_inputs_of_every_type_have_defaults_and_reach_the_prompt(world: World) -> None:
    flow = document(
        node("t", "input", required=False), node("n", "input", type="number", default=2),
        node("b", "input", type="boolean", default=True),
        node("j", "input", type="json"), node("p", "prompt", template="{t}|{n}|{b}|{j}"), node("o", "output"),
        edges=["t > p", "n > p", "b > p", "j > p", "p > o"],
    )  # fmt: skip
    compiled = world.compile(flow)
    assert (await compiled.run({"j": {"a": [1.0, None]}})).outputs == {"o": '|2|true|{"a":[1.0,null]}'}
    assert (await compiled.run({"t": "x", "n": 2.5, "b": False, "j": "y"})).outputs == {"o": "x|2.5|false|y"}
    with pytest.raises(InvalidInputs, match="must be of the type number"):
        await compiled.run({"j": 1, "n": True})
    with pytest.raises(InvalidInputs, match="must be of the type number"):
        await compiled.run({"j": 1, "n": float("nan")})
    with pytest.raises(InvalidInputs, match="must be of the type json; found"):
        await compiled.run({"j": {"a": [1, float("inf")]}})
    with pytest.raises(InvalidInputs, match="must be of the type json; found nan"):
        await compiled.run({"j": float("nan")})


# LangChain


async def test_a_compiled_flow_is_a_runnable_and_composes(world: World) -> None:
    compiled = FlowRunnable(world.compile(CHAT))
    assert isinstance(compiled, Runnable)
    chain = RunnableLambda(lambda text: {"question": text}) | compiled | RunnableLambda(lambda out: out["answer"].upper())
    assert await chain.ainvoke("Where?") == "IT WAS DENVER."


async def test_its_batches_run_at_the_same_time(world: World) -> None:
    all_three = asyncio.Barrier(3)
    world.generator.before = lambda _: all_three.wait()
    async with asyncio.timeout(5):
        answers = await FlowRunnable(world.compile(CHAT)).abatch([{"question": "a"}, {"question": "b"}, {"question": "c"}])
    assert answers == [{"answer": "It was Denver."}] * 3


async def test_the_chunks_of_its_stream_add_up_to_the_outputs(world: World) -> None:
    flow = document(
        node("q", "input"), node("m", "generate"), node("loud", "transform", operation="upper"),
        node("a", "output"), node("b", "output"),
        edges=["q > m", "m > a", "m > loud", "loud > b"],
    )  # fmt: skip
    chunks = [chunk async for chunk in FlowRunnable(world.compile(flow)).astream({"q": "x"})]
    assert chunks == [{"a": "It "}, {"a": "was "}, {"a": "Denver."}, {"b": "IT WAS DENVER."}]
    total = chunks[0]
    for chunk in chunks[1:]:
        total = total + chunk
    assert total == {"a": "It was Denver.", "b": "IT WAS DENVER."}


async def test_a_chain_streams_through_it(world: World) -> None:
    chain = FlowRunnable(world.compile(CHAT)) | RunnableLambda(lambda out: out["answer"])
    assert [chunk async for chunk in chain.astream({"question": "x"})] == ["It was Denver."]


async def test_its_callbacks_are_called_and_see_its_errors(world: World) -> None:
    class Recorder(AsyncCallbackHandler):
        def __init__(self) -> None:
            self.seen: list[str] = []

        async def on_chain_start(self, *args: object, **kwargs: object) -> None:
            self.seen.append("start")

        async def on_chain_end(self, *args: object, **kwargs: object) -> None:
            self.seen.append("end")

        async def on_chain_error(self, error: BaseException, **kwargs: object) -> None:
            self.seen.append(type(error).__name__)

    recorder = Recorder()
    await FlowRunnable(world.compile(CHAT)).ainvoke({"question": "x"}, {"callbacks": [recorder]})
    with pytest.raises(EmptyText):
        await FlowRunnable(world.compile(CHAT)).ainvoke({"question": ""}, {"callbacks": [recorder]})
    assert recorder.seen == ["start", "end", "start", "EmptyText"]


def test_it_can_be_invoked_where_no_loop_runs(world: World) -> None:
    assert FlowRunnable(world.compile(ECHO)).invoke({"text": "hi"}) == {"answer": "HI"}


async def test_it_refuses_to_block_a_running_loop(world: World) -> None:
    with pytest.raises(FailedPrecondition, match="ainvoke"):
        FlowRunnable(world.compile(ECHO)).invoke({"text": "hi"})


# Spans


class Traced:
    def __init__(self, *, content: bool = False) -> None:
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = provider.get_tracer("test")
        self.world = World(provider, content=content)

    def spans(self) -> dict[str, ReadableSpan]:
        return {span.name: span for span in self.exporter.get_finished_spans()}


async def test_a_run_is_a_span_and_so_is_each_node_below_it() -> None:
    traced = Traced()
    result = await traced.world.compile(RAG).run({"question": "secret"}, name="rag")
    spans = traced.spans()
    root = spans["invoke_workflow rag"]
    assert set(spans) == {"invoke_workflow rag", "node question", "node docs", "node prompt", "node model", "node answer"}
    assert {span.parent.span_id for span in spans.values() if span.parent} == {root.context.span_id}
    assert root.attributes == {
        semconv.GEN_AI_OPERATION_NAME: "invoke_workflow",
        semconv.GEN_AI_WORKFLOW_NAME: "rag",
        semconv.PENSTOCK_FLOW_HASH: result.content_hash,
    }
    assert spans["node docs"].attributes == {semconv.PENSTOCK_NODE_ID: "docs", semconv.PENSTOCK_NODE_TYPE: "retrieve"}
    assert result.trace_id == f"{root.context.trace_id:032x}"
    assert "secret" not in "".join(span.to_json() for span in spans.values())


@pytest.mark.parametrize("flow", [RAG, TWO_SEARCHES])
@pytest.mark.parametrize("streams", [True, False])
async def test_what_a_node_calls_is_called_inside_its_span(flow: str, streams: bool) -> None:
    traced = Traced()
    current: dict[str, str] = {}

    async def note(called: object) -> None:
        await asyncio.sleep(0)
        current[str(called)[:5]] = trace.get_current_span().name  # type: ignore[attr-defined]

    traced.world.retriever.before = note
    before = trace.get_current_span()
    if streams:
        _ = [event async for event in traced.world.compile(flow).events({"question": "x"})]
    else:
        await traced.world.compile(flow).run({"question": "x"})
    expected = {"squad": "node docs"} if flow == RAG else {"left": "node left", "right": "node right"}
    assert current == expected
    assert trace.get_current_span() is before


async def test_content_is_in_the_span_only_when_it_is_switched_on() -> None:
    traced = Traced(content=True)
    await traced.world.compile(RAG).run({"question": "Where?"}, name="rag")
    attributes = traced.spans()["invoke_workflow rag"].attributes
    assert attributes is not None
    assert json.loads(str(attributes[semconv.GEN_AI_INPUT_MESSAGES])) == [
        {"role": "user", "parts": [{"type": "text", "name": "question", "content": "Where?"}]}
    ]
    assert "It was Denver." in str(attributes[semconv.GEN_AI_OUTPUT_MESSAGES])


@pytest.mark.parametrize(
    ("error", "kind", "description"),
    [
        (CollectionNotFound("no collection 'squad'"), "COLLECTION_NOT_FOUND", "no collection 'squad'"),
        (Internal("the inside"), "INTERNAL", ""),
        (ZeroDivisionError("the inside"), "ZeroDivisionError", ""),
    ],
)
async def test_a_failing_node_is_an_error_on_its_span_and_on_the_run(error: Exception, kind: str, description: str) -> None:
    traced = Traced()

    async def fail(_: object) -> None:
        raise error

    traced.world.retriever.before = fail
    with pytest.raises(type(error)):
        await traced.world.compile(RAG).run({"question": "x"}, name="rag")
    for name in ("node docs", "invoke_workflow rag"):
        span = traced.spans()[name]
        assert span.status.status_code is StatusCode.ERROR
        assert (span.attributes or {})[semconv.ERROR_TYPE] == kind
        assert (span.status.description or "") == description
    assert "node prompt" not in traced.spans()


async def test_a_cancelled_stream_ends_all_of_its_spans_and_none_as_an_error() -> None:
    traced = Traced()
    traced.world.generator.texts = ["x"] * 1000
    events = traced.world.compile(RAG).events({"question": "x"}, name="rag")
    async for event in events:
        if isinstance(event, Token):
            break
    await events.aclose()
    spans = traced.spans()
    assert spans["node model"].status.status_code is StatusCode.UNSET
    assert (spans["node model"].attributes or {})[semconv.PENSTOCK_REASON] == "CANCELLED"
    assert "invoke_workflow rag" in spans


class DropAll(Sampler):
    """Samples nothing and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def should_sample(self, parent_context, trace_id, name, *args, **kwargs) -> SamplingResult:
        self.asked.append(name)
        return SamplingResult(Decision.DROP)

    def get_description(self) -> str:
        return "DropAll"


async def test_a_run_that_is_not_sampled_makes_no_node_spans_and_still_has_a_trace_id() -> None:
    sampler = DropAll()
    result = await World(TracerProvider(sampler=sampler)).compile(RAG).run({"question": "x"}, name="rag")
    assert sampler.asked == ["invoke_workflow rag"]
    assert int(result.trace_id, 16)


async def test_a_stream_that_nobody_closes_is_stopped_all_the_same(world: World) -> None:
    world.generator.texts = ["x"] * 1000
    events = world.compile(CHAT).events({"question": "x"})
    await anext(events)
    del events
    gc.collect()
    async with asyncio.timeout(5):
        await world.generator.closed.wait()
