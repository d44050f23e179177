import asyncio
import json
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest
from opentelemetry.metrics import NoOpMeter
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from generation_svc.admission import Admission
from generation_svc.coalescing import Coalescing
from generation_svc.engine import Feature, Finished, FinishReason, GenerationRequest, LogprobOptions
from generation_svc.generation import Generation
from generation_svc.metrics import GenerationMetrics
from penstock.errors import (
    AdapterNotFound,
    BackendUnavailable,
    EngineFailed,
    InvalidArgument,
    ModelNotFound,
    Overloaded,
    UnsupportedFeature,
)
from penstock.histograms import Histograms
from tests.generation_svc.fakes import MODEL, FakeEngine, ask, collect


class Service:
    """The core over a fake engine, with its spans at hand."""

    def __init__(
        self, engine: FakeEngine, *, running_max: int = 2, waiting_max: int = 0, capture_content: bool = False
    ) -> None:
        self.engine = engine
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.admission = Admission(running_max=running_max, waiting_max=waiting_max)
        self.core = Generation(
            engine=engine,
            admission=self.admission,
            coalescing=Coalescing(tokens_max=8, delay_max_s=0.01),
            tracer=provider.get_tracer("test"),
            metrics=GenerationMetrics(NoOpMeter("test"), Histograms()),
            capture_content=capture_content,
        )

    def span(self, name: str) -> ReadableSpan:
        (found,) = [span for span in self._exporter.get_finished_spans() if span.name == name]
        return found

    def span_names(self) -> list[str]:
        return sorted(span.name for span in self._exporter.get_finished_spans())

    def attributes(self) -> dict[str, Any]:
        return dict(self.span("chat small").attributes or {})


async def test_a_whole_answer_is_the_engines_text_and_its_end() -> None:
    service = Service(FakeEngine())
    answer = await service.core.whole(MODEL, ask())
    assert str(answer.texts[0]) == "A pipe."
    assert answer.finished.finish_reason is FinishReason.STOP
    assert answer.finished.usage.output_tokens == 3
    assert service.engine.requests[0].streamed is False


async def test_a_streamed_answer_is_the_same_text_in_deltas() -> None:
    service = Service(FakeEngine(pause_s=0.002))
    deltas, finished = await collect(service.core.stream(MODEL, ask()))
    assert "".join(delta.text for delta in deltas) == "A pipe."
    assert deltas[0].text == "A "
    assert finished.usage.input_tokens == 5
    assert service.engine.requests[0].streamed is True


async def test_the_span_says_what_was_asked_and_what_came_of_it() -> None:
    service = Service(FakeEngine(pause_s=0.002))
    await collect(service.core.stream(MODEL, ask(temperature=0.5, top_k=4, max_tokens=9, stop=("x",))))
    attributes = service.attributes()
    assert attributes.pop("gen_ai.response.time_to_first_chunk") > 0.001
    assert attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "fake",
        "gen_ai.request.model": "small",
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.top_k": 4,
        "gen_ai.request.max_tokens": 9,
        "gen_ai.request.stop_sequences": ("x",),
        "gen_ai.response.model": "small",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 5,
        "gen_ai.usage.output_tokens": 3,
        "gen_ai.usage.cache_read.input_tokens": 2,
    }


async def test_queue_prefill_and_decode_follow_one_another_under_the_answers_span() -> None:
    service = Service(FakeEngine(pause_s=0.002))
    await collect(service.core.stream(MODEL, ask()))
    parent = service.span("chat small")
    queue, prefill, decode = (service.span(name) for name in ("queue", "prefill", "decode"))
    assert {child.parent.span_id for child in (queue, prefill, decode)} == {parent.context.span_id}
    assert parent.start_time <= queue.start_time + 1_000_000
    assert queue.end_time == prefill.start_time
    assert prefill.end_time == decode.start_time
    assert prefill.end_time < decode.end_time <= parent.end_time


@pytest.mark.parametrize("capture", [False, True])
async def test_text_stands_in_the_span_only_when_that_is_switched_on(capture: bool) -> None:
    service = Service(FakeEngine(), capture_content=capture)
    await service.core.whole(MODEL, ask("secret question"))
    attributes = service.attributes()
    if not capture:
        assert "secret" not in str(attributes)
        assert "pipe" not in str(attributes)
        return
    turn = {"role": "user", "parts": [{"type": "text", "content": "secret question"}]}
    assert json.loads(attributes["gen_ai.input.messages"]) == [turn]
    assert json.loads(attributes["gen_ai.output.messages"])[0]["parts"] == [{"type": "text", "content": "A pipe."}]


async def test_a_raw_prompt_is_a_text_completion() -> None:
    service = Service(FakeEngine())
    await service.core.whole(MODEL, GenerationRequest(prompt="Once"))
    assert "text_completion small" in service.span_names()


async def test_a_caller_that_leaves_frees_the_engine_and_the_slot_and_the_span_says_so() -> None:
    service = Service(FakeEngine(endless=True), running_max=1)
    async with aclosing(service.core.stream(MODEL, ask())) as answer:
        await anext(answer)
        assert (service.engine.running, service.admission.running) == (1, 1)
    assert (service.engine.running, service.admission.running) == (0, 0)
    assert service.attributes()["penstock.error.reason"] == "CANCELLED"
    assert service.span_names() == ["chat small", "decode", "prefill", "queue"]
    assert service.span("chat small").status.is_ok or service.span("chat small").status.is_unset


async def test_a_cancelled_whole_answer_frees_the_engine_and_the_slot() -> None:
    service = Service(FakeEngine(endless=True), running_max=1)
    waiting = asyncio.create_task(service.core.whole(MODEL, ask()))
    await asyncio.sleep(0.01)
    assert service.engine.running == 1
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert (service.engine.running, service.admission.running) == (0, 0)


async def test_an_engines_error_reaches_the_caller_frees_the_slot_and_stands_in_the_span() -> None:
    service = Service(FakeEngine(error=BackendUnavailable("gone")), running_max=1)
    with pytest.raises(BackendUnavailable, match="gone"):
        await collect(service.core.stream(MODEL, ask()))
    assert service.admission.running == 0
    assert service.attributes()["error.type"] == "BACKEND_UNAVAILABLE"
    assert not service.span("chat small").status.is_ok


async def test_when_engine_and_queue_are_full_the_next_is_refused_without_reaching_the_engine() -> None:
    service = Service(FakeEngine(endless=True), running_max=1, waiting_max=0)
    async with aclosing(service.core.stream(MODEL, ask())) as answer:
        await anext(answer)
        with pytest.raises(Overloaded):
            await service.core.whole(MODEL, ask())
    assert len(service.engine.requests) == 1


async def test_a_dead_engine_is_asked_nothing() -> None:
    service = Service(FakeEngine(healthy=False))
    with pytest.raises(EngineFailed):
        await service.core.whole(MODEL, ask())
    assert service.engine.requests == []


async def test_what_is_invalid_never_reaches_the_engine() -> None:
    service = Service(FakeEngine())
    with pytest.raises(InvalidArgument):
        await collect(service.core.stream(MODEL, ask(temperature=-1.0)))
    assert service.engine.requests == []


async def test_several_answers_take_a_slot_each_and_are_told_apart() -> None:
    service = Service(FakeEngine(pause_s=0.002), running_max=3)
    seen: list[int] = []
    async with aclosing(service.core.stream(MODEL, ask(n=3, seed=7, logprobs=LogprobOptions()))) as answer:
        async for part in answer:
            seen.append(service.admission.running)
            finished = part
    assert seen[0] == 3
    assert [request.sampling.seed for request in service.engine.requests] == [7, 8, 9]
    assert isinstance(finished, Finished)
    assert len(finished.alternatives) == 2
    assert (finished.usage.input_tokens, finished.usage.output_tokens) == (5, 9)
    whole = await service.core.whole(MODEL, ask(n=3, logprobs=LogprobOptions()))
    assert [str(text) for text in whole.texts] == ["A pipe."] * 3
    assert [len(text.logprobs) for text in whole.texts] == [3, 3, 3]
    assert service.admission.running == 0


async def test_when_one_of_several_answers_fails_all_end() -> None:
    service = Service(FakeEngine(error=BackendUnavailable("gone")), running_max=3)
    with pytest.raises(BackendUnavailable):
        await service.core.whole(MODEL, ask(n=3))
    assert (service.engine.running, service.admission.running) == (0, 0)


async def test_a_caller_that_leaves_frees_all_slots_of_several_answers() -> None:
    service = Service(FakeEngine(endless=True), running_max=4)
    async with aclosing(service.core.stream(MODEL, ask(n=4))) as answer:
        await anext(answer)
        assert (service.engine.running, service.admission.running) == (4, 4)
    assert (service.engine.running, service.admission.running) == (0, 0)


async def test_what_the_engine_lacks_is_refused_by_name() -> None:
    model = replace(MODEL, features=frozenset({Feature.TOP_K}))
    service = Service(FakeEngine(model=model))
    asked = ask(min_p=0.1, top_k=5, logprobs=LogprobOptions(top=2), cache_salt="x")
    with pytest.raises(UnsupportedFeature) as refused:
        await service.core.whole(model, asked)
    assert refused.value.metadata["features"] == "min_p, logprobs, logprobs.top, cache_salt"
    assert service.engine.requests == []


async def test_an_adapter_that_is_not_there_is_told_with_those_that_are() -> None:
    service = Service(FakeEngine())
    with pytest.raises(AdapterNotFound, match="legal, support"):
        await service.core.whole(MODEL, ask(adapter="poems"))
    await service.core.whole(MODEL, ask(adapter="legal"))
    assert service.engine.requests[0].adapter == "legal"


async def test_tenants_and_salts_get_prefix_caches_of_their_own() -> None:
    service = Service(FakeEngine())
    for tenant, salt in (("", ""), ("a", ""), ("b", ""), ("a", "x"), ("a", "x")):
        await service.core.whole(MODEL, ask(tenant=tenant, cache_salt=salt))
    salts = [request.cache_salt for request in service.engine.requests]
    assert salts[0] == ""
    assert salts[3] == salts[4]
    assert len(set(salts)) == 4


async def test_an_answer_tells_how_long_it_took() -> None:
    service = Service(FakeEngine(pause_s=0.002))
    answer = await service.core.whole(MODEL, ask())
    timings = answer.finished.timings
    assert timings is not None
    assert timings.arrived_ns <= timings.scheduled_ns < timings.first_token_ns < timings.last_token_ns


async def test_the_engine_gets_the_trace_to_pass_on() -> None:
    service = Service(FakeEngine())
    await service.core.whole(MODEL, ask())
    trace_id = f"{service.span('chat small').context.trace_id:032x}"
    assert trace_id in service.engine.requests[0].trace_headers["traceparent"]


def test_the_default_model_is_the_first_and_others_go_by_name() -> None:
    core = Service(FakeEngine()).core
    assert core.find_model("models/default") == MODEL
    assert core.find_model("models/small") == MODEL


def test_an_unknown_model_is_refused_with_what_there_is() -> None:
    with pytest.raises(ModelNotFound) as refused:
        Service(FakeEngine()).core.find_model("models/large")
    assert "models/small" in refused.value.message


@pytest.mark.parametrize("name", ["", "small", "models/", "models/a/b", "model/small"])
def test_what_is_no_model_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidArgument, match='must be "models/"'):
        Service(FakeEngine()).core.find_model(name)
