"""A service that is asked to leave: what runs finishes, what waits too, what comes is sent elsewhere."""

import asyncio
import signal
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import grpc
import pytest

from penstock.clients import GenerationClient, Message, Sampling
from penstock.clients.generation import Delta, Finished
from penstock.errors import Unavailable
from penstock.generation.v1 import generation_pb2 as pb
from penstock.generation.v1.generation_pb2_grpc import GenerationServiceStub
from tests.generation_svc import processes

pytestmark = [pytest.mark.model, pytest.mark.e2e]

STORY = (Message(role="user", content="Tell me a very long story about a river, a dam and a turbine."),)
LONG = Sampling(max_tokens=150, temperature=0.0)


async def rest(stream: AsyncGenerator[Delta | Finished, None]) -> Finished:
    *_, finished = [event async for event in stream]
    assert isinstance(finished, Finished)
    return finished


async def test_running_and_waiting_answers_finish_and_new_ones_are_refused_as_unavailable(tmp_path: Path) -> None:
    with processes.started(tmp_path, engine="openvino", running_max=1, waiting_max=4) as running:
        async with GenerationClient(running.grpc) as client, grpc.aio.insecure_channel(running.grpc) as channel:
            await channel.channel_ready()  # A connection that is there already, as a balancer's is.
            stream = client.stream(STORY, sampling=LONG)
            await anext(stream)
            waits = asyncio.create_task(client.generate(STORY, sampling=Sampling(max_tokens=5)))
            while (await client.load()).waiting < 1:
                await asyncio.sleep(0.01)
            running.process.send_signal(signal.SIGTERM)
            await not_serving(running.grpc)
            stub: Any = GenerationServiceStub(channel)  # type: ignore[no-untyped-call]
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.Generate(pb.GenerateRequest(model="models/default", prompt="Hi"), timeout=10)
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
            async with GenerationClient(running.grpc) as newcomer:
                with pytest.raises(Unavailable):
                    await newcomer.generate(STORY, timeout_s=5)
            assert (await rest(stream)).usage.output_tokens > 0
            assert (await waits).usage.output_tokens > 0
        assert await asyncio.to_thread(running.process.wait, 60) == 0


async def test_answers_that_outlast_the_grace_are_ended_with_an_error_and_the_process_leaves(tmp_path: Path) -> None:
    with processes.started(tmp_path, engine="openvino", drain_grace_s=0.5) as running:
        async with GenerationClient(running.grpc) as client:
            stream = client.stream(STORY, sampling=Sampling(max_tokens=4000, temperature=0.8))
            await anext(stream)
            running.process.send_signal(signal.SIGTERM)
            with pytest.raises(Unavailable):
                await rest(stream)
        assert await asyncio.to_thread(running.process.wait, 60) == 0


async def not_serving(address: str) -> None:
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    async with asyncio.timeout(10), grpc.aio.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        while True:
            try:
                answer = await stub.Check(health_pb2.HealthCheckRequest())
            except grpc.aio.AioRpcError:
                return  # It takes no new connections any more.
            if answer.status == health_pb2.HealthCheckResponse.NOT_SERVING:
                return
            await asyncio.sleep(0.01)
