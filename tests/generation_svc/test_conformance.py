"""What every engine does alike, asked of each over gRPC as its callers ask."""

import asyncio
import time
from contextlib import aclosing

import pytest

from penstock.clients import GenerationClient
from penstock.clients.generation import Delta, Finished, Message, Sampling
from penstock.errors import EmptyText, InvalidArgument, ModelNotFound, Overloaded, PromptTooLong

QUESTION = (Message(role="user", content="What is the capital of France?"),)
LONG = (Message(role="user", content="Tell me a very long story about a river, a dam and a turbine."),)
GREEDY = Sampling(temperature=0.0, max_tokens=32)


async def whole(client: GenerationClient, messages=QUESTION, **sampling) -> str:
    given = {"temperature": 0.0, "max_tokens": 32, **sampling}
    return (await client.generate(messages, sampling=Sampling(**given))).text


async def test_it_answers_sensibly_and_counts_its_tokens(client: GenerationClient) -> None:
    answer = await client.generate(QUESTION, sampling=GREEDY)
    assert "Paris" in answer.text
    assert (answer.finish_reason, answer.model) == ("stop", "smollm2-135m-instruct")
    assert answer.usage.input_tokens == 37
    assert 5 <= answer.usage.output_tokens <= 32


async def test_a_streamed_answer_is_the_whole_answer_in_pieces(client: GenerationClient) -> None:
    events = [event async for event in client.stream(QUESTION, sampling=GREEDY)]
    *deltas, finished = events
    assert isinstance(finished, Finished)
    assert "".join(delta.text for delta in deltas) == await whole(client)
    assert len(deltas) > 1
    assert finished.usage.input_tokens == 37
    assert finished.finish_reason == "stop"


async def test_an_answer_that_reaches_its_bound_says_so(client: GenerationClient) -> None:
    answer = await client.generate(LONG, sampling=Sampling(max_tokens=5, temperature=0.0))
    assert (answer.finish_reason, answer.usage.output_tokens) == ("length", 5)


async def test_a_stop_text_ends_the_answer_before_itself_and_is_named(client: GenerationClient) -> None:
    sampling = Sampling(temperature=0.0, max_tokens=32, stop=("Paris", "London"))
    answer = await client.generate(QUESTION, sampling=sampling)
    assert "capital of France" in answer.text
    assert "Par" not in answer.text
    assert (answer.finish_reason, answer.matched_stop) == ("stop", "Paris")
    streamed = [event async for event in client.stream(QUESTION, sampling=sampling)]
    assert "".join(event.text for event in streamed if isinstance(event, Delta)) == answer.text


async def test_a_raw_prompt_is_continued(client: GenerationClient) -> None:
    answer = await client.generate(prompt="The capital of France is", sampling=Sampling(temperature=0.0, max_tokens=4))
    assert "Paris" in answer.text
    assert answer.usage.input_tokens == 5


async def test_a_seed_makes_sampling_repeatable_and_without_one_it_is_not(client: GenerationClient) -> None:
    seeded = [await whole(client, LONG, temperature=1.5, seed=7) for _ in range(2)]
    assert seeded[0] == seeded[1]
    free = {await whole(client, LONG, temperature=1.5) for _ in range(3)}
    assert len(free) > 1


async def test_a_prompt_over_the_window_is_refused_with_both_numbers(client: GenerationClient) -> None:
    with pytest.raises(PromptTooLong) as refused:
        await client.generate((Message(role="user", content="river " * 2000),))
    assert refused.value.metadata["context_window"] == "1024"
    assert int(refused.value.metadata["prompt_tokens"]) > 1024
    assert "Paris" in await whole(client)


async def test_an_answer_that_cannot_fit_beside_any_prompt_is_refused(client: GenerationClient) -> None:
    with pytest.raises(PromptTooLong) as refused:
        await client.generate(QUESTION, sampling=Sampling(max_tokens=1024))
    assert refused.value.metadata["context_window"] == "1024"


async def test_a_caller_that_leaves_mid_stream_frees_the_only_slot_at_once(client: GenerationClient) -> None:
    began = time.monotonic()
    await client.generate(LONG, sampling=Sampling(max_tokens=16, temperature=0.0))
    per_token_s = (time.monotonic() - began) / 16
    async with aclosing(client.stream(LONG, sampling=Sampling(max_tokens=900, temperature=0.8))) as answer:
        await anext(answer)
    began = time.monotonic()
    assert "Paris" in await whole(client)
    # Had the answer that nobody reads gone on, its some 900 tokens would have come first.
    assert time.monotonic() - began < per_token_s * 400 + 1


async def test_one_runs_one_waits_and_the_next_is_refused_at_once(client: GenerationClient) -> None:
    async with aclosing(client.stream(LONG, sampling=Sampling(max_tokens=900, temperature=0.8))) as first:
        await anext(first)
        waiting = asyncio.create_task(whole(client))
        await asyncio.sleep(0.3)
        began = time.monotonic()
        with pytest.raises(Overloaded) as refused:
            await whole(client)
        assert time.monotonic() - began < 2
        assert refused.value.retry_after_s is not None
    assert "Paris" in await waiting


@pytest.mark.parametrize(
    "bad",
    [Sampling(temperature=-1.0), Sampling(max_tokens=0), Sampling(top_p=7.0), Sampling(stop=("x",) * 1000), Sampling(seed=-5)],
    ids=["temperature", "max_tokens", "top_p", "stop", "seed"],
)
async def test_absurd_sampling_is_refused_and_the_next_request_is_served(client: GenerationClient, bad: Sampling) -> None:
    with pytest.raises(InvalidArgument):
        await client.generate(QUESTION, sampling=bad)
    with pytest.raises(InvalidArgument):
        [event async for event in client.stream(QUESTION, sampling=bad)]


async def test_extreme_but_valid_sampling_is_answered(client: GenerationClient) -> None:
    for extreme in (
        Sampling(max_tokens=3, temperature=2.0, top_k=2**31 - 1, top_p=0.0001, seed=2**62),
        Sampling(max_tokens=3, presence_penalty=-2.0, frequency_penalty=2.0, temperature=0.0),
    ):
        assert (await client.generate(QUESTION, sampling=extreme)).usage.output_tokens >= 1


async def test_an_unknown_model_and_an_empty_text_are_refused(client: GenerationClient) -> None:
    with pytest.raises(ModelNotFound, match="smollm2-135m-instruct"):
        await client.generate(QUESTION, model="gpt-9")
    with pytest.raises(EmptyText):
        await client.generate(prompt="  ")


async def test_text_in_many_scripts_survives_the_way_there_and_back(client: GenerationClient) -> None:
    stream = client.stream(prompt="😀😀😀 你好 héllo " * 4, sampling=Sampling(temperature=0.0, max_tokens=24))
    text = "".join([event.text async for event in stream if isinstance(event, Delta)])
    assert "\ufffd" not in text


async def test_the_model_says_what_it_is(client: GenerationClient) -> None:
    (model,) = await client.models()
    assert (model.name, model.context_window) == ("smollm2-135m-instruct", 1024)
    assert model.engine in {"openvino", "vllm", "openai"}
    assert (model.engine, model.precision) in {("openvino", "gguf-q4_1"), ("vllm", "int8-w8a8"), ("openai", "")}
