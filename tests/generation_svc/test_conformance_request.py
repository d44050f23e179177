"""The whole request, asked of each engine over gRPC: what its model declares it does, the rest it refuses by name."""

import json
import math
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import pytest_asyncio

from penstock.clients import GenerationClient
from penstock.clients.generation import Answer, Delta, Finished, LogprobOptions, Message, Sampling, StructuredOutput
from penstock.errors import AdapterNotFound, InvalidArgument, PromptTooLong, UnsupportedFeature
from tests.generation_svc import processes

QUESTION = (Message(role="user", content="What is the capital of France?"),)
STORY = (Message(role="user", content="Tell me a very long story about a river, a dam and a turbine."),)
SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 12},
        "kind": {"enum": ["town", "city"]},
        "known": {"type": "boolean"},
    },
    "required": ["city", "kind", "known"],
    "additionalProperties": False,
}
EXPRESSION = "[A-Z][a-z]{2,12}, [0-9]{4}"
GRAMMAR = 'root ::= city " is in " ("France" | "Italy")\ncity ::= "Paris" | "Rome"'


def asks(messages: tuple[Message, ...] = QUESTION, *, more: dict[str, Any] | None = None, **sampling: Any) -> dict[str, Any]:
    """The arguments of generate."""
    return {"messages": messages, "sampling": Sampling(**{"temperature": 0.0, "max_tokens": 40, **sampling}), **(more or {})}


def form(**given: Any) -> dict[str, Any]:
    return {"structured_output": StructuredOutput(**given)}


def logprobs(**given: Any) -> dict[str, Any]:
    return {"logprobs": LogprobOptions(**given)}


ASKED: dict[str, dict[str, Any]] = {
    "top_k": asks(STORY, top_k=1, temperature=2.0),
    "min_p": asks(STORY, min_p=1.0, temperature=2.0),
    "repetition_penalty": asks(max_tokens=8, repetition_penalty=2.0),
    "min_tokens": asks(min_tokens=30),
    "include_stop": asks(stop=("Paris",), include_stop=True),
    "logprobs": asks(more=logprobs()),
    "logprobs.top": asks(more=logprobs(top=3)),
    "logprobs.tokens": asks(more=logprobs(tokens=("The", " Paris"))),
    "json_schema": asks(more=form(json_schema=SCHEMA), max_tokens=120),
    "json_object": asks(more=form(json_object=True), max_tokens=200),
    "regex": asks(more=form(regex=EXPRESSION)),
    "choice": asks(more=form(choice=("Lyon", "Paris", 'say "hi"\\n'))),
    "grammar": asks(more=form(grammar=GRAMMAR)),
    "cache_salt": asks(more={"cache_salt": "mine"}),
}
"""What asks for each feature. Adapters have a test of their own: their names are the service's settings."""


@pytest.fixture
def answered(client: GenerationClient) -> Callable[..., Any]:
    """Asks for a feature. None where the engine does not declare it: then it has been refused by its name."""

    async def ask(feature: str, **changed: Any) -> Answer | None:
        (model,) = await client.models()
        if feature in model.features:
            return await client.generate(**{**ASKED[feature], **changed})
        with pytest.raises(UnsupportedFeature) as refused:
            await client.generate(**ASKED[feature])
        assert feature in refused.value.metadata["features"].split(", ")
        assert (feature, refused.value.metadata["engine"]) in {
            (fault.field, model.engine) for fault in refused.value.violations
        }
        return None

    return ask


@pytest_asyncio.fixture
async def roomy(client: GenerationClient, tmp_path: Path) -> AsyncIterator[GenerationClient]:
    """A service with slots for several answers: the shared one where it has them, else one of the default engine."""
    if (await client.load()).running_max >= 3:
        yield client
        return
    with processes.service(tmp_path, engine="openvino", running_max=4) as service:
        async with GenerationClient(service.grpc) as connected:
            yield connected


async def test_one_likeliest_token_leaves_nothing_to_chance(client: GenerationClient, answered) -> None:
    # Of a few tokens: where two are nearly as likely, engines round differently for a prompt that they had in their cache.
    greedy = (await client.generate(**asks(max_tokens=6))).text
    for feature, only in (("top_k", {"top_k": 1}), ("min_p", {"min_p": 1.0})):
        answer = await answered(feature, **asks(max_tokens=6, temperature=2.0, **only))
        assert answer is None or answer.text == greedy


async def test_a_repetition_penalty_keeps_the_answer_from_repeating_the_question(client: GenerationClient, answered) -> None:
    plain = await client.generate(**asks(max_tokens=8))
    answer = await answered("repetition_penalty")
    assert "capital of France" in plain.text
    assert answer is None or "capital of France" not in answer.text


async def test_an_answer_has_at_least_the_fewest_tokens(client: GenerationClient, answered) -> None:
    assert (await client.generate(**asks())).usage.output_tokens < 30
    answer = await answered("min_tokens")
    assert answer is None or answer.usage.output_tokens >= 30


async def test_a_stop_text_before_the_fewest_tokens_does_not_count(answered) -> None:
    answer = await answered("min_tokens", sampling=Sampling(temperature=0.0, max_tokens=30, min_tokens=20, stop=("Paris",)))
    assert answer is None or (answer.usage.output_tokens >= 20 and "Paris" in answer.text)


async def test_a_stop_text_stays_at_the_end_if_asked(answered) -> None:
    answer = await answered("include_stop")
    assert answer is None or (answer.text.endswith("Paris") and answer.matched_stop == "Paris")


async def test_every_token_has_a_logarithm_of_its_probability(client: GenerationClient, answered) -> None:
    answer = await answered("logprobs")
    if answer is None:
        return
    assert len(answer.logprobs) == answer.usage.output_tokens
    assert all(each.logprob <= 0 and each.top == () for each in answer.logprobs)
    assert answer.text in "".join(each.token for each in answer.logprobs)
    deltas = [event async for event in client.stream(**ASKED["logprobs"]) if isinstance(event, Delta)]
    streamed = [each for delta in deltas for each in delta.logprobs]
    assert [each.token for each in streamed] == [each.token for each in answer.logprobs]
    assert [each.logprob for each in streamed] == pytest.approx([each.logprob for each in answer.logprobs], abs=0.1)


async def test_the_likeliest_tokens_come_sorted(answered) -> None:
    answer = await answered("logprobs.top")
    for each in answer.logprobs if answer else ():
        found = [other.logprob for other in each.top]
        assert len(found) == 3
        assert found == sorted(found, reverse=True)
        assert each.logprob == pytest.approx(found[0], abs=0.01)  # Greedy: the chosen one is the likeliest.
        assert math.fsum(map(math.exp, found)) <= 1.001


async def test_named_tokens_come_and_no_others(answered) -> None:
    answer = await answered("logprobs.tokens")
    for each in answer.logprobs if answer else ():
        assert {other.token for other in each.top} == {"The", " Paris"}


async def test_a_json_schema_is_kept(answered) -> None:
    answer = await answered("json_schema")
    if answer:
        jsonschema.validate(json.loads(answer.text), SCHEMA)


async def test_a_json_object_is_an_object_or_the_beginning_of_one(answered) -> None:
    answer = await answered("json_object")
    if answer and answer.finish_reason == "stop":
        assert isinstance(json.loads(answer.text), dict)
    assert answer is None or answer.text.lstrip().startswith("{")


async def test_a_regular_expression_matches_the_whole_answer(answered) -> None:
    answer = await answered("regex")
    assert answer is None or re.fullmatch(EXPRESSION, answer.text)
    sampled = await answered("regex", sampling=Sampling(temperature=2.0, max_tokens=40, seed=1))
    assert sampled is None or re.fullmatch(EXPRESSION, sampled.text)


async def test_a_choice_is_one_of_the_texts(answered) -> None:
    answer = await answered("choice")
    assert answer is None or answer.text in {"Lyon", "Paris", 'say "hi"\\n'}
    odd = ('a "quoted" \\ text\twith\x01 é😀',)
    only = await answered("choice", **form(choice=odd))
    assert only is None or only.text == odd[0]


async def test_a_grammar_is_kept(answered) -> None:
    answer = await answered("grammar")
    assert answer is None or re.fullmatch("(Paris|Rome) is in (France|Italy)", answer.text)


async def test_an_adapter_that_is_not_there_is_refused_by_name(client: GenerationClient) -> None:
    with pytest.raises(AdapterNotFound if "adapter" in (await client.models())[0].features else UnsupportedFeature) as refused:
        await client.generate(**asks(more={"adapter": "poet"}))
    assert "poet" in str(refused.value) or "adapter" in refused.value.metadata["features"]
    assert "Paris" in (await client.generate(**asks())).text


async def test_a_salt_keeps_what_a_prompt_left_in_the_cache_to_itself(client: GenerationClient, answered) -> None:
    prompt = "The river runs from the mountain to the sea, past mills and dams. " * 20

    async def cached(salt: str) -> int:
        answer = await client.generate(prompt=prompt, sampling=Sampling(temperature=0.0, max_tokens=1), cache_salt=salt)
        return answer.usage.cached_tokens

    if await answered("cache_salt") is not None:
        assert [await cached("one"), await cached("two")] == [0, 0]
        if again := await cached("one"):  # An endpoint may not say.
            assert again > 100


async def test_more_answers_than_there_are_slots_are_refused_with_both_numbers(client: GenerationClient) -> None:
    slots = (await client.load()).running_max
    with pytest.raises(InvalidArgument, match=f"{slots + 1} answers.* {slots}"):
        await client.generate(STORY, sampling=Sampling(temperature=1.0, max_tokens=2), n=slots + 1)


async def test_several_answers_differ_and_their_tokens_add_up(roomy: GenerationClient) -> None:
    client, sampling = roomy, Sampling(temperature=1.5, max_tokens=16, seed=7)
    one = await client.generate(STORY, sampling=sampling, n=1)
    answer = await client.generate(STORY, sampling=sampling, n=3)
    assert [each.index for each in answer.alternatives] == [1, 2]
    assert len({answer.text, *(each.text for each in answer.alternatives)}) == 3
    assert answer.usage.input_tokens == one.usage.input_tokens
    assert 16 < answer.usage.output_tokens <= 48
    events = [event async for event in client.stream(STORY, sampling=sampling, n=3)]
    assert {event.index for event in events if isinstance(event, Delta)} == {0, 1, 2}
    assert isinstance(events[-1], Finished)
    assert len(events[-1].alternatives) == 2


async def test_an_answer_says_how_long_it_took(client: GenerationClient) -> None:
    times = (await client.generate(**asks())).timings
    assert times is not None
    assert 0 <= times.queued_s <= times.first_token_s <= times.done_s


BAD: dict[str, dict[str, Any]] = {
    "negative temperature": asks(temperature=-1.0),
    "temperature that is no number": asks(temperature=math.nan),
    "no tokens": asks(max_tokens=0),
    "top_k of nothing": asks(top_k=0),
    "min_p above 1": asks(min_p=1.5),
    "a repetition penalty of 0": asks(repetition_penalty=0.0),
    "more fewest tokens than most": asks(min_tokens=50),
    "negative n": asks(more={"n": -1}, temperature=1.0),
    "a thousand answers": asks(more={"n": 1000}, temperature=1.0),
    "absurd priority": asks(more={"priority": 10**6}),
    "a thousand stop texts": asks(stop=tuple(f"stop {n}" for n in range(1000))),
    "a thousand log probabilities": asks(more=logprobs(top=1000)),
    "a schema that is no JSON": asks(more=form(json_schema="{")),
    "a schema that is no schema": asks(more=form(json_schema={"type": "strin"})),
    "a schema that is 900 deep": asks(more=form(json_schema='{"type":"array","items":' * 900 + "{}" + "}" * 900)),
    "a regex that is none": asks(more=form(regex="(a")),
    "a regex that explodes": asks(more=form(regex="(a{1,1000}){1,1000}")),
    "a regex that can be read in many ways": asks(more=form(regex="(a+)+b")),
    "a grammar without a root": asks(more=form(grammar='a ::= "b"')),
    "a choice of nothing new": asks(more=form(choice=("a", "a"))),
}


@pytest.mark.parametrize("name", BAD)
async def test_bad_input_is_an_error_and_the_next_request_is_served(client: GenerationClient, name: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await client.generate(**BAD[name])
    # What an engine lacks anyway may be refused as that.
    assert refused.value.violations or isinstance(refused.value, UnsupportedFeature)
    with pytest.raises(InvalidArgument):
        [event async for event in client.stream(**BAD[name])]
    assert "Paris" in (await client.generate(**asks())).text


async def test_a_prompt_over_the_window_is_refused_with_both_numbers_whatever_else_is_asked(client: GenerationClient) -> None:
    more = form(choice=("a", "b")) if "choice" in (await client.models())[0].features else {}
    with pytest.raises(PromptTooLong) as refused:
        await client.generate((Message(role="user", content="river " * 3000),), **more)
    assert refused.value.metadata["context_window"] == "1024"
    assert int(refused.value.metadata["prompt_tokens"]) > 1024
    assert "Paris" in (await client.generate(**asks())).text
