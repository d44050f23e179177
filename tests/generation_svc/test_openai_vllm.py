"""The openai engine before a real vLLM server: every feature that it declares is asked for, and its effect looked for."""

import asyncio
import json
import math
import re
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import pytest
import pytest_asyncio

from generation_svc.engine import Feature, FinishReason, GenerationRequest, LogprobOptions, Sampling, StructuredOutput
from generation_svc.openai_dialect import VLLM
from generation_svc.openai_engine import OpenAiEngine
from generation_svc.settings import GenerationSettings
from penstock.errors import AdapterNotFound, InvalidArgument
from tests.generation_svc import processes
from tests.generation_svc.fakes import ask, collect

pytestmark = [pytest.mark.vllm, pytest.mark.slow, pytest.mark.e2e, pytest.mark.timeout(1500)]

QUESTION = "What is the capital of France?"
ADAPTER = """
import json, sys, torch
from pathlib import Path
from safetensors.torch import save_file
folder, model = Path(sys.argv[1]), json.loads((Path(sys.argv[2]) / "config.json").read_text())
torch.manual_seed(1)
width, rank = model["hidden_size"], 4
weights = {}
for layer in range(model["num_hidden_layers"]):
    name = f"base_model.model.model.layers.{layer}.self_attn.q_proj.lora_"
    weights[name + "A.weight"], weights[name + "B.weight"] = torch.randn(rank, width), torch.randn(width, rank)
save_file(weights, folder / "adapter_model.safetensors")
config = {"peft_type": "LORA", "r": rank, "lora_alpha": 8, "target_modules": ["q_proj"], "bias": "none"}
(folder / "adapter_config.json").write_text(json.dumps(config))
"""


@pytest.fixture(scope="module")
def base_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder, model = tmp_path_factory.mktemp("server"), processes.checkpoint("bf16")
    adapter = tmp_path_factory.mktemp("adapter")
    subprocess.run([processes.vllm_python(), "-c", ADAPTER, adapter, model], check=True)
    more = (
        "--scheduling-policy", "priority",
        "--enable-lora", "--max-lora-rank", 8, "--lora-modules", f"noisy={adapter}",
    )  # fmt: skip
    with processes.vllm_server(folder, model, "upstream", *more) as url:
        yield url


@pytest_asyncio.fixture
async def engine(base_url: str) -> AsyncIterator[OpenAiEngine]:
    settings = GenerationSettings(engine="openai", model="upstream", openai_base_url=base_url, openai_priorities=True)
    started = await OpenAiEngine.start(settings)
    yield started
    await started.close()


def greedy(text: str = QUESTION, **more) -> GenerationRequest:
    return ask(text, temperature=0.0, **{"max_tokens": 16, **more})


def raw(text: str = "The capital of France is", **sampling) -> GenerationRequest:
    return GenerationRequest(prompt=text, sampling=Sampling(temperature=0.0, **{"max_tokens": 4, **sampling}))


async def answer(engine: OpenAiEngine, request: GenerationRequest):
    """The text, the tokens' logprobs and the end, which are the same streamed and whole."""
    streamed, whole = [await collect(engine.generate(replace(request, streamed=how))) for how in (True, False)]
    texts = ["".join(delta.text for delta in deltas) for deltas, _ in (streamed, whole)]
    tokens = [[token for delta in deltas for token in delta.logprobs] for deltas, _ in (streamed, whole)]
    assert texts[0] == texts[1]
    assert [(token.token, token.token_id) for token in tokens[0]] == [(token.token, token.token_id) for token in tokens[1]]
    for deltas, finished in (streamed, whole):
        assert sum(delta.token_count for delta in deltas) == finished.usage.output_tokens > 0
        assert finished.timings.scheduled_ns <= finished.timings.first_token_ns <= finished.timings.last_token_ns
    assert streamed[1].finish_reason is whole[1].finish_reason
    assert streamed[1].matched_stop == whole[1].matched_stop
    return texts[0], tokens[0], streamed[1]


async def text_of(engine: OpenAiEngine, request: GenerationRequest) -> str:
    return (await answer(engine, request))[0]


def held(form: Feature, value: str = "", choices: tuple[str, ...] = ()) -> GenerationRequest:
    return replace(greedy(max_tokens=60), structured_output=StructuredOutput(kind=form, value=value, choices=choices))


async def test_the_server_describes_itself_and_everything_of_the_dialect_is_declared(engine: OpenAiEngine) -> None:
    (model,) = engine.models()
    assert model.context_window == 1024
    assert model.features == {*VLLM.needs, Feature.ADAPTER}
    assert model.adapters == ("noisy",)


async def test_plain_answers_are_alike_streamed_and_whole(engine: OpenAiEngine) -> None:
    text, tokens, finished = await answer(engine, greedy())
    assert "Paris" in text
    assert not tokens
    assert finished.finish_reason is FinishReason.STOP
    assert "Paris" in await text_of(engine, raw())


@pytest.mark.parametrize("request_", [greedy(), raw()], ids=["chat", "raw"])
async def test_logprobs_are_of_the_chosen_and_of_the_likeliest_tokens(
    engine: OpenAiEngine, request_: GenerationRequest
) -> None:
    _, tokens, finished = await answer(engine, replace(request_, logprobs=LogprobOptions(top=3)))
    assert len(tokens) == finished.usage.output_tokens
    for token in tokens:
        assert len(token.top) == 3
        assert token.top[0].token == token.token, "a greedy choice is the likeliest"
        assert [other.logprob for other in token.top] == sorted((other.logprob for other in token.top), reverse=True)
        assert math.exp(token.logprob) <= 1
    _, alone, _ = await answer(engine, replace(request_, logprobs=LogprobOptions()))
    assert [token.token for token in alone] == [token.token for token in tokens]
    assert all(not token.top for token in alone)


async def test_the_likeliest_are_given_where_the_chosen_token_is_none_of_them(engine: OpenAiEngine) -> None:
    wild = ask(QUESTION, temperature=2.0, seed=3, max_tokens=24)
    _, tokens, _ = await answer(engine, replace(wild, logprobs=LogprobOptions(top=2)))
    assert all(len(token.top) == 2 for token in tokens)
    assert any(token.token not in {other.token for other in token.top} for token in tokens)
    assert all(token.logprob <= token.top[0].logprob for token in tokens)


@pytest.mark.parametrize("request_", [greedy("Say yes or no.", max_tokens=3), raw(max_tokens=3)], ids=["chat", "raw"])
async def test_named_tokens_have_their_logprobs_in_every_place(engine: OpenAiEngine, request_: GenerationRequest) -> None:
    names = (" Paris", " London", "Yes", " no")
    _, tokens, _ = await answer(engine, replace(request_, logprobs=LogprobOptions(tokens=names)))
    _, likeliest, _ = await answer(engine, replace(request_, logprobs=LogprobOptions(top=19)))
    assert len(tokens) == len(likeliest)
    for token, place in zip(tokens, likeliest, strict=True):
        assert {other.token for other in token.top} == set(names)
        assert token.token_id >= 0
        assert token.token == place.token
        known = {other.token: other.logprob for other in place.top}
        for other in token.top:
            assert other.logprob == pytest.approx(known.get(other.token, other.logprob), abs=0.05)
            assert other.logprob <= place.top[0].logprob + 0.05
            if other.token_id == token.token_id:
                assert other.logprob == token.logprob
    if not request_.messages:
        assert any(token.token == " Paris" == token.top[0].token for token in tokens)


async def test_a_named_text_that_is_not_one_token_is_refused(engine: OpenAiEngine) -> None:
    with pytest.raises(InvalidArgument, match="tokens of the model"):
        await collect(engine.generate(replace(greedy(), logprobs=LogprobOptions(tokens=("not one token",)))))


async def test_a_regex_a_choice_a_grammar_and_a_schema_hold_the_answer(engine: OpenAiEngine) -> None:
    assert re.fullmatch(r"[0-9]{3}-[a-c]{2}", await text_of(engine, held(Feature.REGEX, r"[0-9]{3}-[a-c]{2}")))
    assert await text_of(engine, held(Feature.CHOICE, choices=("Madrid", "Lisbon"))) in {"Madrid", "Lisbon"}
    assert await text_of(engine, held(Feature.GRAMMAR, 'root ::= "maybe" | "never"')) in {"maybe", "never"}
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 9}},
        "required": ["n"],
        "additionalProperties": False,
    }
    assert set(json.loads(await text_of(engine, held(Feature.JSON_SCHEMA, json.dumps(schema))))) == {"n"}
    assert (await text_of(engine, held(Feature.JSON_OBJECT))).lstrip().startswith("{")


@pytest.mark.parametrize(
    ("form", "value"), [(Feature.REGEX, "(["), (Feature.GRAMMAR, "root ::= ("), (Feature.JSON_SCHEMA, '{"type": 7}')]
)
async def test_a_form_that_the_server_refuses_is_an_error_and_the_next_request_is_served(
    engine: OpenAiEngine, form: Feature, value: str
) -> None:
    with pytest.raises(InvalidArgument):
        await collect(engine.generate(held(form, value)))
    assert "Paris" in await text_of(engine, greedy())


async def test_min_tokens_keeps_the_answer_from_ending(engine: OpenAiEngine) -> None:
    _, _, short = await answer(engine, greedy(max_tokens=40))
    _, _, longer = await answer(engine, greedy(max_tokens=40, min_tokens=30))
    assert short.usage.output_tokens < 30 <= longer.usage.output_tokens


async def test_a_stop_text_is_named_and_stays_only_if_it_is_asked_for(engine: OpenAiEngine) -> None:
    without, _, finished = await answer(engine, greedy(stop=("France",)))
    within, _, again = await answer(engine, greedy(stop=("France",), include_stop=True))
    assert within == without + "France"
    assert finished.matched_stop == again.matched_stop == "France"
    assert finished.finish_reason is FinishReason.STOP


async def test_top_k_min_p_and_penalties_have_their_effect(engine: OpenAiEngine) -> None:
    greedily = await text_of(engine, greedy())
    for narrow in ({"top_k": 1}, {"min_p": 1.0}, {"top_p": 1e-6}):
        assert await text_of(engine, ask(QUESTION, temperature=2.0, max_tokens=16, **narrow)) == greedily
    for penalty, (least, most) in {
        "presence_penalty": (-2.0, 2.0),
        "frequency_penalty": (-2.0, 2.0),
        "repetition_penalty": (0.1, 2.0),
    }.items():
        texts = {await text_of(engine, raw("The river is", max_tokens=24, **{penalty: value})) for value in (least, most)}
        assert len(texts) == 2, penalty


async def test_a_seed_makes_sampling_repeatable(engine: OpenAiEngine) -> None:
    assert await text_of(engine, ask(QUESTION, temperature=1.5, seed=7, max_tokens=16))


async def test_what_is_in_the_prefix_cache_is_found_under_the_same_salt_alone(engine: OpenAiEngine) -> None:
    prompt = greedy("river dam turbine " * 40, max_tokens=1)

    async def cached_tokens(salt: str) -> int:
        _, finished = await collect(engine.generate(replace(prompt, cache_salt=salt)))
        return finished.usage.cached_tokens

    assert await cached_tokens("a/@\\" * 60) == 0
    assert await cached_tokens("a/@\\" * 60) > 100
    assert await cached_tokens("b") == 0
    assert await cached_tokens("b") > 100


async def test_an_adapter_answers_otherwise_and_one_that_is_gone_is_named(engine: OpenAiEngine) -> None:
    assert await text_of(engine, replace(greedy(), adapter="noisy")) != await text_of(engine, greedy())
    with pytest.raises(AdapterNotFound, match="gone"):
        await collect(engine.generate(replace(greedy(), adapter="gone")))


async def test_the_larger_priority_goes_first(engine: OpenAiEngine) -> None:
    """The server works on one request at a time; three wait, of which the last is the most urgent."""
    done: list[int] = []

    async def one(priority: int, tokens: int) -> None:
        async for _ in engine.generate(replace(greedy(max_tokens=tokens, min_tokens=tokens), priority=priority)):
            pass
        done.append(priority)

    running = [asyncio.create_task(one(50, 64))]
    await asyncio.sleep(0.5)
    for priority in (-3, 0, 9):
        running.append(asyncio.create_task(one(priority, 8)))
        await asyncio.sleep(0.1)
    await asyncio.gather(*running)
    assert done == [50, 9, 0, -3]
