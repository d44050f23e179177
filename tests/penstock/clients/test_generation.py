"""The client of the generation service, over a real server and channel."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from penstock.clients import Answer, Delta, Finished, GenerationClient, Message, Sampling, Usage
from penstock.errors import DeadlineExceeded, ModelNotFound
from penstock.generation.v1 import generation_pb2 as pb

ASKED = [Message(role="system", content="be brief"), Message(role="user", content="say it")]


@pytest.fixture
async def client(services: Any) -> AsyncIterator[GenerationClient]:
    async with GenerationClient(services.target) as opened:
        yield opened


async def test_an_answer_has_its_text_ending_and_tokens(services: Any, client: GenerationClient) -> None:
    answer = await client.generate(ASKED, model="small", sampling=Sampling(max_tokens=2, temperature=0.0, stop=("!",)))
    assert answer == Answer(
        text="SAY IT ",
        finish_reason="length",
        matched_stop="!",
        usage=Usage(input_tokens=7, output_tokens=2, cached_tokens=3),
        model="small",
    )
    request = services.generation.requests[0]
    assert [(message.role, message.content) for message in request.messages] == [
        (pb.ROLE_SYSTEM, "be brief"),
        (pb.ROLE_USER, "say it"),
    ]
    assert request.sampling.HasField("temperature")  # 0 is a choice; what is not given stays the engine's.
    assert not request.sampling.HasField("top_p")


async def test_a_raw_prompt_goes_as_it_is(services: Any, client: GenerationClient) -> None:
    assert (await client.generate(prompt="once upon")).text == "ONCE UPON "
    assert services.generation.requests[0] == pb.GenerateRequest(model="models/default", prompt="once upon")


async def test_a_stream_is_deltas_and_then_how_it_ended(client: GenerationClient) -> None:
    usage = Usage(input_tokens=7, output_tokens=2, cached_tokens=3)
    assert [event async for event in client.stream(ASKED)] == [
        Delta(text="SAY ", token_count=1),
        Delta(text="IT ", token_count=1),
        Finished(finish_reason="stop", matched_stop="", usage=usage, model="small"),
    ]


async def test_breaking_out_of_a_stream_stops_the_models_work(services: Any, client: GenerationClient) -> None:
    services.generation.endless = True
    async for event in client.stream(ASKED):
        assert event == Delta(text="SAY ", token_count=1)
        break
    await asyncio.wait_for(services.generation.closed.wait(), 5)


async def test_an_unknown_model_is_the_services_error_in_both_ways(client: GenerationClient) -> None:
    with pytest.raises(ModelNotFound, match="models/none"):
        await client.generate(ASKED, model="none")
    with pytest.raises(ModelNotFound, match="models/none"):
        async for _ in client.stream(ASKED, model="none"):
            pytest.fail("nothing was to come")


async def test_a_call_ends_with_its_deadline(services: Any, client: GenerationClient) -> None:
    services.generation.pause = lambda: asyncio.sleep(60)
    with pytest.raises(DeadlineExceeded):
        await client.generate(ASKED, timeout_s=0.2)


async def test_the_models_of_all_pages_are_listed(client: GenerationClient) -> None:
    models = await client.models()
    assert [(model.name, model.engine, model.context_window) for model in models] == [
        ("big", "openvino", 2048),
        ("small", "openvino", 2048),
    ]
