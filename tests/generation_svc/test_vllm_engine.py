"""The vllm engine with a real model on vLLM's CPU build, in its own environment's process. Most of it in one start."""

import asyncio
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from generation_svc.engine import Feature, Finished, FinishReason, GenerationRequest, LogprobOptions, Sampling, StructuredOutput
from penstock.clients import GenerationClient
from penstock.clients.generation import Message
from penstock.clients.generation import Sampling as ClientSampling
from penstock.errors import EngineFailed, InvalidArgument, PenstockError, PromptTooLong
from tests.generation_svc import processes
from tests.generation_svc.adapters import write_adapter
from tests.generation_svc.fakes import ask, collect
from tests.generation_svc.remote_engine import RemoteEngine, remote_engine

pytestmark = [
    pytest.mark.vllm, pytest.mark.slow, pytest.mark.e2e, pytest.mark.timeout(1500), pytest.mark.asyncio(loop_scope="module"),
]  # fmt: skip

SMALL = {"engine": "vllm", "vllm_enforce_eager": True, "vllm_cache_gb": 0.25, "vllm_warm_up": False, "context_window": 1024}
QUESTION = ask("What is the capital of France?", temperature=0.0, max_tokens=48)
STORY = ask("Tell me a very long story about a river.", temperature=0.8, max_tokens=900)
CITY = '{"type": "object", "properties": {"city": {"type": "string", "maxLength": 16}}, "required": ["city"]}'


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RemoteEngine]:
    folder, model = tmp_path_factory.mktemp("vllm"), processes.checkpoint("bf16")
    adapters = json.dumps({"changed": str(write_adapter(folder / "changed", model))})
    given = {**SMALL, "model": model, "running_max": 8, "vllm_adapters": adapters}
    async with remote_engine(processes.vllm_python(), folder / "engine.log", processes.ROOT, **given) as running:
        yield running


async def answered(engine: RemoteEngine, request: GenerationRequest = QUESTION) -> tuple[str, Finished]:
    deltas, finished = await collect(engine.generate(request))
    return "".join(delta.text for delta in deltas), finished


def held_to(kind: Feature, value: str = "", *choices: str) -> GenerationRequest:
    return replace(QUESTION, structured_output=StructuredOutput(kind=kind, value=value, choices=choices))


def asking(**sampling: object) -> GenerationRequest:
    return replace(QUESTION, sampling=replace(QUESTION.sampling, **sampling))


async def until(done, seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not await done():
            await asyncio.sleep(0.02)


async def test_it_declares_all_but_pooling_and_names_its_adapters(engine: RemoteEngine) -> None:
    (model,) = await engine.models()
    assert model.features == frozenset(Feature) - {Feature.EMBED, Feature.RERANK}
    assert (model.adapters, model.context_window, model.precision) == (("changed",), 1024, "bf16")


async def test_streamed_and_whole_answers_are_the_same_and_say_when_they_were_made(engine: RemoteEngine) -> None:
    before = time.time_ns()
    text, finished = await answered(engine)
    assert "Paris" in text
    assert before <= finished.timings.scheduled_ns <= finished.timings.first_token_ns < finished.timings.last_token_ns
    assert finished.timings.last_token_ns <= time.time_ns()
    whole = replace(QUESTION, streamed=False)
    deltas, again = await collect(engine.generate(whole))
    assert ([delta.text for delta in deltas], again.usage.output_tokens) == ([text], finished.usage.output_tokens)


async def test_every_parameter_of_sampling_at_once_is_answered(engine: RemoteEngine) -> None:
    sampling = Sampling(
        max_tokens=6, temperature=0.7, top_p=0.9, top_k=20, min_p=0.05, seed=7, presence_penalty=0.5, frequency_penalty=-0.5,
        repetition_penalty=1.2, min_tokens=3, stop=("###",),
    )  # fmt: skip
    first, second = [await answered(engine, replace(QUESTION, sampling=sampling)) for _ in range(2)]
    assert first[0] == second[0]
    assert first[1].usage.output_tokens >= 3


async def test_repetition_penalty_and_min_tokens_change_the_answer(engine: RemoteEngine) -> None:
    plain, finished = await answered(engine)
    assert (await answered(engine, asking(repetition_penalty=2.0)))[0] != plain
    longer = await answered(engine, asking(min_tokens=finished.usage.output_tokens + 5))
    assert longer[1].usage.output_tokens >= finished.usage.output_tokens + 5


async def test_a_stop_text_is_kept_if_asked_for(engine: RemoteEngine) -> None:
    for include, end in ((False, "France is "), (True, "France is Paris")):
        text, finished = await answered(engine, asking(stop=("Paris",), include_stop=include))
        assert text.endswith(end)
        assert finished.matched_stop == "Paris"


async def test_the_likeliest_tokens_stand_beside_each_token(engine: RemoteEngine) -> None:
    request = replace(QUESTION, logprobs=LogprobOptions(top=3))
    for streamed in (True, False):
        deltas, finished = await collect(engine.generate(replace(request, streamed=streamed)))
        tokens = [token for delta in deltas for token in delta.logprobs]
        assert len(tokens) == finished.usage.output_tokens
        assert "".join(token.token for token in tokens).startswith("The capital of France is Paris")
        assert all(len(token.top) == 3 and token.top[0].token_id == token.token_id for token in tokens), "greedy: the likeliest"
        assert all(token.logprob <= 0 for token in tokens)


async def test_named_tokens_have_their_own_logprobs(engine: RemoteEngine) -> None:
    request = replace(asking(max_tokens=1), logprobs=LogprobOptions(tokens=("The", " Paris", " banana")))
    (delta,), _ = await collect(engine.generate(request))
    (token,) = delta.logprobs
    assert {other.token for other in token.top} == {"The", " Paris", " banana"}
    assert token.top[0].token == token.token == "The"
    with pytest.raises(InvalidArgument, match=r"logprobs.tokens\[0\] is 'Yes No', which is 2 tokens"):
        await answered(engine, replace(QUESTION, logprobs=LogprobOptions(tokens=("Yes No",))))


@pytest.mark.parametrize(
    ("request_", "pattern"),
    [
        (held_to(Feature.CHOICE, "", "Paris", "London"), "Paris|London"),
        (held_to(Feature.REGEX, "[A-Z][a-z]{3,8}!"), "[A-Z][a-z]{3,8}!"),
        (held_to(Feature.GRAMMAR, 'root ::= "yes" | "no"'), "yes|no"),
        (held_to(Feature.JSON_SCHEMA, CITY), r'(?s)\{\s*"city".*\}'),
    ],
    ids=["choice", "regex", "grammar", "json_schema"],
)
async def test_an_answer_has_the_form_that_is_asked_for(
    engine: RemoteEngine, request_: GenerationRequest, pattern: str
) -> None:
    text, finished = await answered(engine, request_)
    assert re.fullmatch(pattern, text)
    assert finished.finish_reason is FinishReason.STOP


BOMB = "root ::= " + " | ".join(f"a{n}" for n in range(500)) + "\n" + "\n".join(
    f'a{n} ::= [a-z]{{1,500}} b{n}\nb{n} ::= ("x" | a{n}){{0,500}}' for n in range(500)
)  # fmt: skip


@pytest.mark.parametrize(
    "request_",
    [
        held_to(Feature.JSON_SCHEMA, "{not json"),
        held_to(Feature.JSON_SCHEMA, "[]"),
        held_to(Feature.JSON_SCHEMA, '{"type": "banana"}'),
        held_to(Feature.JSON_SCHEMA, '{"$ref": "http://127.0.0.1:9/x"}'),
        held_to(Feature.JSON_SCHEMA, "[" * 30_000),
        held_to(Feature.REGEX, "("),
        held_to(Feature.REGEX, "(?<=a)b"),
        held_to(Feature.REGEX, "a\x00b"),
        held_to(Feature.REGEX, "(" + "|".join(f"(.*a.{{{n}}})" for n in range(200)) + "){1,50}[0-9]{9}"),
        held_to(Feature.GRAMMAR, "root ::= nowhere"),
        held_to(Feature.GRAMMAR, BOMB),
    ],
    ids=["json", "list", "type", "remote", "deep", "open", "behind", "nul", "explodes-late", "rule", "explodes-at-once"],
)
async def test_a_form_that_is_none_or_explodes_is_refused_and_the_next_is_served(
    engine: RemoteEngine, request_: GenerationRequest
) -> None:
    with pytest.raises(InvalidArgument, match=f"structured_output.{request_.structured_output.kind}"):
        await answered(engine, request_)
    assert (await answered(engine, held_to(Feature.GRAMMAR, 'root ::= "yes" | "no"')))[0] in {"yes", "no"}


async def test_an_adapter_answers_otherwise_than_the_model_alone(engine: RemoteEngine) -> None:
    plain, _ = await answered(engine)
    changed, _ = await answered(engine, replace(QUESTION, adapter="changed"))
    assert changed != plain
    assert (await answered(engine))[0] == plain


async def test_a_prompts_beginning_is_found_again_but_not_across_salts(engine: RemoteEngine) -> None:
    long = ask("The river flows. " * 80, temperature=0.0, max_tokens=1)
    cached = [
        (await answered(engine, replace(long, cache_salt=salt)))[1].usage.cached_tokens for salt in ("a", "a", "b", "", "", "b")
    ]
    assert [tokens > 0 for tokens in cached] == [False, True, False, False, True, True]
    load = await engine.load()
    assert load.prefix_queried_tokens > load.prefix_hit_tokens >= sum(cached)


async def test_a_prompt_over_the_window_is_refused_with_both_numbers(engine: RemoteEngine) -> None:
    for words in (2_000, 2_000_000):
        with pytest.raises(PromptTooLong) as refused:
            await answered(engine, ask("river " * words))
        assert int(refused.value.metadata["prompt_tokens"]) > 1024
        assert refused.value.metadata["context_window"] == "1024"


@pytest.mark.parametrize(
    "request_",
    [ask("a\ud800"), asking(min_tokens=600, max_tokens=None), replace(QUESTION, logprobs=LogprobOptions(top=1000))],
    ids=["surrogate", "min_tokens", "logprobs"],
)
async def test_what_only_vllm_can_know_to_be_wrong_is_refused(engine: RemoteEngine, request_: GenerationRequest) -> None:
    with pytest.raises(InvalidArgument):
        await answered(engine, request_)


async def test_callers_who_leave_free_their_slots_and_those_who_wait_move_up(engine: RemoteEngine) -> None:
    stories = [asyncio.create_task(answered(engine, STORY)) for _ in range(12)]

    async def full() -> bool:
        load = await engine.load()
        return (load.running, load.waiting) == (8, 4) and load.cache_used > 0

    async def empty() -> bool:
        return (await engine.load()).running == 0

    await until(full, 60)
    for story in stories:
        story.cancel()
    await until(empty)
    assert "Paris" in (await answered(engine))[0]


async def test_the_larger_priority_is_computed_first(engine: RemoteEngine) -> None:
    stories = [asyncio.create_task(answered(engine, replace(STORY, priority=100))) for _ in range(8)]
    await asyncio.sleep(1)
    order: list[int] = []

    async def noted(priority: int) -> None:
        await answered(engine, replace(asking(max_tokens=1), priority=priority))
        order.append(priority)

    waiting = [asyncio.create_task(noted(priority)) for priority in (-5, 0, 5)]
    await asyncio.sleep(1)
    stories[0].cancel()  # One slot, for one after another.
    await asyncio.wait(waiting)
    for story in stories:
        story.cancel()
    assert order == [5, 0, -5]


# The last of this engine: it does not survive.
async def test_a_death_fails_the_streams_and_is_told_at_once(engine: RemoteEngine) -> None:
    stream = engine.generate(STORY)
    async with aclosing(stream) as parts:
        await anext(parts)
        os.kill(core_process(engine.process.pid), signal.SIGKILL)
        with pytest.raises(EngineFailed):
            async for _ in parts:
                pass
    assert "died" in await asyncio.wait_for(asyncio.shield(engine.died), 5)
    assert await engine.health() is False
    with pytest.raises(EngineFailed):
        await answered(engine)


def core_process(parent: int) -> int:
    """The process in which vLLM computes."""
    listed = subprocess.run(["ps", "-o", "pid=,args=", "--ppid", str(parent)], capture_output=True, text=True).stdout
    return next(int(line.split()[0]) for line in listed.splitlines() if "EngineCore" in line)


async def test_a_service_whose_engine_dies_is_not_ready_at_once_and_leaves_with_an_error(tmp_path: Path) -> None:
    given = {**SMALL, "model": processes.checkpoint("bf16")}
    with processes.started(tmp_path, processes.vllm_python(), **given) as service:
        async with GenerationClient(service.grpc) as client:
            question = (Message(role="user", content="Tell me a very long story."),)
            async with aclosing(client.stream(question, sampling=ClientSampling(max_tokens=900))) as events:
                await anext(events)
                os.kill(core_process(service.process.pid), signal.SIGKILL)
                with pytest.raises(EngineFailed):
                    async for _ in events:
                        pass
            with suppress(PenstockError):
                await client.generate(question)
                pytest.fail("a request was answered after the engine's death")
        assert await asyncio.to_thread(service.process.wait, 60) not in {0, None}
