"""Health over a real grpc.aio server: what Check and Watch say, and that Watch does not hold a drain."""

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from penstock.health import Health

SERVICE = "penstock.flow.v1.RunService"
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


class Running:
    def __init__(self) -> None:
        self.health = Health((SERVICE,))
        self.server = grpc.aio.server()
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self.server)
        self.channel = grpc.aio.insecure_channel(f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}")
        self.stub = health_pb2_grpc.HealthStub(self.channel)

    async def status(self, service: str) -> int:
        answer = await self.stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=5)
        return int(answer.status)


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    started = Running()
    await started.server.start()
    yield started
    await started.channel.close()
    await started.server.stop(None)


@pytest.mark.parametrize("service", ["", SERVICE])
async def test_a_service_is_serving_only_while_it_can_answer(running: Running, service: str) -> None:
    assert await running.status(service) == NOT_SERVING
    running.health.serve()
    assert await running.status(service) == SERVING
    running.health.leave()
    assert await running.status(service) == NOT_SERVING


async def test_a_service_that_is_not_here_is_not_found(running: Running) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await running.status("nobody.Service")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_watch_tells_each_change_and_does_not_hold_the_drain(running: Running) -> None:
    watch = running.stub.Watch(health_pb2.HealthCheckRequest(service=SERVICE))
    assert (await watch.read()).status == NOT_SERVING
    running.health.serve()
    assert (await watch.read()).status == SERVING
    last = asyncio.ensure_future(watch.read())  # Before the end: a call that has ended gives no message that it holds.
    await asyncio.sleep(0)
    running.health.leave()
    async with asyncio.timeout(5):
        await running.server.stop(30)
    assert (await last).status == NOT_SERVING
    assert await watch.read() is grpc.aio.EOF


async def test_a_watch_of_an_unknown_service_says_so_and_stays(running: Running) -> None:
    watch = running.stub.Watch(health_pb2.HealthCheckRequest(service="nobody.Service"))
    assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
    assert not watch.done()
