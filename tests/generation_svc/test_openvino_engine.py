import asyncio
import os
import signal
import threading
import time
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from generation_svc import openvino_forms
from generation_svc.engine import (
    Delta,
    Feature,
    Finished,
    GenerationRequest,
    LogprobOptions,
    StructuredOutput,
    TokenLogprob,
)
from generation_svc.openvino_engine import OpenVinoEngine
from generation_svc.openvino_model import OpenModel
from generation_svc.openvino_wire import Open
from penstock.clients import GenerationClient
from penstock.clients.generation import Message, Sampling
from penstock.errors import EngineFailed, FailedPrecondition, InvalidArgument, PromptTooLong, Unavailable
from penstock.model_files import locate_model
from tests.generation_svc import processes
from tests.generation_svc.fakes import ask, collect

pytestmark = [pytest.mark.model, pytest.mark.asyncio(loop_scope="module")]


def asked(**changed: Any) -> Open:
    given = {
        "model_path": locate_model(processes.GGUF), "device": "CPU", "context_window": 2048, "max_tokens_default": 64,
        "sequences_max": 8, "batched_tokens_max": 256, "cache_gb": 1, "prefix_caching": True, "threads": 0,
    }  # fmt: skip
    return Open(**{**given, **changed})


@asynccontextmanager
async def opened(deaths: list[str] | None = None, **changed: Any):
    died = [] if deaths is None else deaths
    engine = await OpenVinoEngine.start(asked(**changed), served_name="small", on_death=died.append)
    try:
        yield engine
    finally:
        await engine.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine():
    async with opened() as running:
        yield running


def cpu_s(engine: OpenVinoEngine) -> float:
    fields = Path(f"/proc/{engine._process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def test_it_answers_many_at_once_each_its_own(engine: OpenVinoEngine) -> None:
    countries = {"France": "Paris", "Italy": "Rome", "Germany": "Berlin", "Spain": "Madrid"}
    questions = [ask(f"What is the capital of {country}?", temperature=0.0, max_tokens=24) for country in countries]
    answers = await asyncio.gather(*[collect(engine.generate(question)) for question in questions])
    for capital, (deltas, _) in zip(countries.values(), answers, strict=True):
        assert capital in "".join(delta.text for delta in deltas)


async def test_a_repeated_prompt_starts_sooner_by_the_prefix_cache(engine: OpenVinoEngine) -> None:
    document = "The river runs from the mountain to the sea, past mills and dams. " * 60

    async def first_token_s() -> float:
        _, finished = await collect(engine.generate(ask(document, temperature=0.0, max_tokens=2)))
        assert finished.timings is not None
        return (finished.timings.first_token_ns - finished.timings.scheduled_ns) / 1e9

    fresh, repeated = await first_token_s(), await first_token_s()
    assert repeated < fresh / 2


async def test_an_answer_that_nobody_reads_stops_using_the_processor(engine: OpenVinoEngine) -> None:
    async with aclosing(engine.generate(ask("Tell me a long story", temperature=0.8, max_tokens=1900))) as answer:
        for _ in range(3):
            await anext(answer)
    assert engine.load().running == 0
    await asyncio.sleep(0.5)
    before = cpu_s(engine)
    await asyncio.sleep(1.0)
    assert cpu_s(engine) - before < 0.1


async def test_the_event_loop_goes_on_while_a_long_prompt_is_computed(engine: OpenVinoEngine) -> None:
    ticks, stop = 0, False

    async def ticking() -> None:
        nonlocal ticks
        while not stop:
            await asyncio.sleep(0.01)
            ticks += 1

    ticker, began = asyncio.create_task(ticking()), time.monotonic()
    await collect(engine.generate(ask("A sentence that nobody asked before. " * 150, temperature=0.0, max_tokens=1)))
    seconds, stop = time.monotonic() - began, True
    await ticker
    # In one process with the model it would tick once in a step of 100 ms or more.
    assert ticks > seconds * 25


async def test_requests_that_the_engine_refuses_leave_it_well(engine: OpenVinoEngine) -> None:
    for bad in (ask("x" * 3_000_000), ask("word " * 5000), ask(max_tokens=2048)):
        with pytest.raises(PromptTooLong):
            await collect(engine.generate(bad))
    deltas, _ = await collect(engine.generate(ask("What is the capital of France?", temperature=0.0)))
    assert "Paris" in "".join(delta.text for delta in deltas)


async def test_a_prompt_far_over_the_window_is_counted_and_not_cut_in_silence(engine: OpenVinoEngine) -> None:
    with pytest.raises(PromptTooLong) as refused:
        await collect(engine.generate(ask("word " * 20_000)))
    assert 20_000 <= int(refused.value.metadata["prompt_tokens"]) <= 20_100


async def test_the_timings_are_in_order_and_lie_within_the_call(engine: OpenVinoEngine) -> None:
    began = time.time_ns()
    _, finished = await collect(engine.generate(ask(max_tokens=4, temperature=0.0)))
    times = finished.timings
    assert times is not None
    assert began <= times.scheduled_ns <= times.first_token_ns <= times.last_token_ns <= time.time_ns()


async def test_a_whole_answer_comes_in_one_delta(engine: OpenVinoEngine) -> None:
    parts = [part async for part in engine.generate(ask("What is the capital of France?", streamed=False, temperature=0.0))]
    assert [type(part) for part in parts] == [Delta, Finished]


async def test_a_worker_that_is_killed_fails_its_streams_and_says_so_once() -> None:
    deaths: list[str] = []
    async with opened(deaths) as engine:
        answer = engine.generate(ask("Tell me a long story", max_tokens=1900))
        await anext(answer)
        os.kill(engine._process.pid, signal.SIGKILL)
        with pytest.raises(EngineFailed):
            async for _ in answer:
                pass
        assert engine.health() is False
        with pytest.raises(EngineFailed):
            await collect(engine.generate(ask()))
    assert len(deaths) == 1


async def test_a_worker_leaves_when_its_parent_is_gone() -> None:
    async with opened() as engine:
        process = engine._process
        engine._writer.close()
        async with asyncio.timeout(10):
            while process.poll() is None:
                await asyncio.sleep(0.02)
        assert process.returncode == 0


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"model_path": __file__}, "cannot load"),
        ({"context_window": 100_000}, "8192"),
        ({"device": "ABACUS"}, "ABACUS"),
    ],
    ids=["no model", "window too large", "no such device"],
)
async def test_what_cannot_be_loaded_is_an_error_that_says_why(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(FailedPrecondition, match=said):
        async with opened(**changed):
            pass


STORY = (Message(role="user", content="Tell me a very long story about a river."),)


@pytest.mark.e2e
async def test_the_process_leaves_with_an_error_when_its_engine_dies(tmp_path: Path) -> None:
    with processes.started(tmp_path, engine="openvino") as running:
        async with GenerationClient(running.grpc) as client:
            answer = client.stream(STORY, sampling=Sampling(max_tokens=2000))
            await anext(answer)
            (worker,) = running.children()
            os.kill(worker, signal.SIGKILL)
            with pytest.raises(Unavailable):
                async for _ in answer:
                    pass
        assert await asyncio.to_thread(running.process.wait, 30) == 1
        assert "has died" in processes.tail(running.log)


@pytest.mark.e2e
async def test_a_drain_lets_the_running_answer_finish_even_after_ctrl_c_for_the_whole_group(tmp_path: Path) -> None:
    with processes.started(tmp_path, engine="openvino") as running:
        async with GenerationClient(running.grpc) as client:
            answer = client.stream(STORY, sampling=Sampling(max_tokens=200, temperature=0.0))
            await anext(answer)
            os.killpg(running.process.pid, signal.SIGINT)
            *_, finished = [event async for event in answer]
            assert finished.usage.output_tokens == 200 or finished.finish_reason == "stop"
        assert await asyncio.to_thread(running.process.wait, 30) == 0


@pytest.mark.e2e
async def test_no_worker_outlives_a_service_that_was_killed(tmp_path: Path) -> None:
    with processes.started(tmp_path, engine="openvino") as running:
        (worker,) = running.children()
        running.process.kill()
        async with asyncio.timeout(10):
            with suppress(ProcessLookupError):
                while True:
                    os.kill(worker, 0)
                    await asyncio.sleep(0.05)


def formed(
    kind: Feature,
    value: str = "",
    *,
    choices: tuple[str, ...] = (),
    text: str = "What is the capital of France?",
    **sampling: Any,
):
    form = StructuredOutput(kind=kind, value=value, choices=choices)
    return replace(ask(text, **{"temperature": 0.0, "max_tokens": 40, **sampling}), structured_output=form)


async def text_of(engine: OpenVinoEngine, request: GenerationRequest) -> str:
    deltas, _ = await collect(engine.generate(request))
    return "".join(delta.text for delta in deltas)


async def test_a_form_that_openvino_refuses_is_an_error_of_its_request_and_of_no_other(engine: OpenVinoEngine) -> None:
    story = asyncio.create_task(text_of(engine, ask("Tell me a story.", temperature=0.0, max_tokens=60)))
    for kind, value in ((Feature.REGEX, "(a"), (Feature.JSON_SCHEMA, "{"), (Feature.GRAMMAR, "root ::= x")):
        with pytest.raises(InvalidArgument, match="refuses the form"):
            await collect(engine.generate(formed(kind, value)))
    assert await text_of(engine, formed(Feature.CHOICE, choices=("Paris", "Rome"))) == "Paris"
    # Greedy, so that a step gone wrong under it would show.
    assert await story == await text_of(engine, ask("Tell me a story.", temperature=0.0, max_tokens=60))


async def test_other_answers_go_on_while_a_form_compiles(engine: OpenVinoEngine) -> None:
    dear = formed(Feature.REGEX, "([b-y]{1,110} ){1,9}", max_tokens=2)
    compiling = asyncio.create_task(collect(engine.generate(dear)))
    arrived = 0
    async for _ in engine.generate(ask("Tell me a long story", temperature=0.8, max_tokens=1000)):
        if compiling.done():
            break
        arrived += 1
    await compiling
    assert arrived > 3  # Compiled in the pipeline's step, it would have held up the first token.


async def test_answers_with_forms_that_come_at_once_each_get_their_own(engine: OpenVinoEngine) -> None:
    requests = [formed(Feature.CHOICE, choices=(f"word {number}",)) for number in range(12)]
    leaver = asyncio.create_task(collect(engine.generate(formed(Feature.REGEX, "[a-y]{1,300}"))))
    await asyncio.sleep(0.05)
    leaver.cancel()
    assert await asyncio.gather(*[text_of(engine, request) for request in requests]) == [f"word {n}" for n in range(12)]


async def test_more_forms_than_are_kept_are_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = openvino_forms.Compiler
    model = OpenModel(asked())
    done = threading.Event()
    monkeypatch.setattr(openvino_forms, "_KEPT_MAX", 3)
    forms = compiler(model.tokenizer, 49152, done.set)
    for number in range(8):
        done.clear()
        forms.begin(("regex", f"a{number}"))
        assert done.wait(30)
        assert forms.result() == ""
        assert len(forms._compiled) <= 3


@pytest.mark.parametrize("text", ['say "hi"\\n', "tab\tand\x01\x7f", "é😀 ]}", "a|b ::= #"])
async def test_a_choice_of_any_characters_comes_as_it_is(engine: OpenVinoEngine, text: str) -> None:
    assert await text_of(engine, formed(Feature.CHOICE, choices=(text, "zz"), max_tokens=40)) in {text, "zz"}
    assert await text_of(engine, formed(Feature.CHOICE, choices=(text,), max_tokens=40)) == text


async def test_log_probabilities_are_of_the_models_own_distribution(engine: OpenVinoEngine) -> None:
    async def first(**sampling: Any) -> TokenLogprob:
        request = replace(ask("What is the capital of France?", max_tokens=1, **sampling), logprobs=LogprobOptions())
        (delta, *_), _ = await collect(engine.generate(request))
        return delta.logprobs[0]

    greedy = await first(temperature=0.0)
    assert (greedy.token, greedy.token_id) == ("The", 504)
    cold = await first(temperature=0.01, seed=1)
    assert cold.token == "The"
    assert cold.logprob == pytest.approx(greedy.logprob, abs=0.01)  # At this temperature its own probability is all but 1.
    assert greedy.logprob < -0.1


@pytest.mark.parametrize("streamed", [True, False])
async def test_each_token_has_its_log_probability_whatever_becomes_of_its_text(engine: OpenVinoEngine, streamed: bool) -> None:
    request = replace(
        ask("What is the capital of France?", streamed=streamed, temperature=0.0, max_tokens=20, stop=("Paris",)),
        logprobs=LogprobOptions(),
    )
    deltas, finished = await collect(engine.generate(request))
    tokens = [each.token for delta in deltas for each in delta.logprobs]
    assert len(tokens) == finished.usage.output_tokens == sum(delta.token_count for delta in deltas)
    assert "".join(tokens) == "The capital of France is Paris"
    assert "".join(delta.text for delta in deltas) == "The capital of France is "


async def test_the_cache_is_in_use_while_an_answer_runs_and_not_after(engine: OpenVinoEngine) -> None:
    async with aclosing(engine.generate(ask("Tell me a long story", max_tokens=200))) as answer:
        await anext(answer)
        assert engine.load().running == 1
        assert 0 < (engine.load().cache_used or 0) < 0.1
    assert engine.load().cache_used == 0
