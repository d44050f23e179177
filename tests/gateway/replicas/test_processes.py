"""Three real generation services: one is killed in the middle of load, one joins, one drains. No answer is lost."""

import asyncio
import itertools
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager

import pytest
from opentelemetry.trace import NoOpTracerProvider

from gateway.backends import Delta, Finish, GenerateRequest, Sampling
from gateway.clients import GrpcGenerator
from gateway.replicas.generator import ReplicatedGenerator, replicated
from gateway.replicas.replica import ReplicaLimits
from penstock.addresses import parse_target
from penstock.channel import open_channel
from penstock.errors import PenstockError, Unavailable
from tests.gateway.replicas.fakes import INSTRUCTIONS, statistics
from tests.generation_svc.processes import Running, started

pytestmark = [pytest.mark.slow, pytest.mark.model, pytest.mark.e2e]

SETTINGS = {"running_max": 8, "waiting_max": 64, "openvino_threads": 1, "context_window": 1024}
CALLERS = 9


class Load:
    """Callers that ask without a pause, every other time for a stream, and what came of it."""

    def __init__(self, generator: ReplicatedGenerator) -> None:
        self._generator = generator
        self._numbers = itertools.count()
        self.answers = 0
        self.broken: list[PenstockError] = []
        self.lost: list[PenstockError] = []

    async def ask(self) -> None:
        number = next(self._numbers)
        prompt = f"{INSTRUCTIONS} The {number}th fact: the number is {number}. What is the number?"
        request = GenerateRequest(model="default", prompt=prompt, sampling=Sampling(max_tokens=12, temperature=0))
        begun = False
        try:
            if number % 2:
                await self._generator.generate(request)
            else:
                async for part in self._generator.stream(request):
                    begun = begun or isinstance(part, Delta)
                assert isinstance(part, Finish)
        except PenstockError as error:
            (self.broken if begun else self.lost).append(error)
        else:
            self.answers += 1

    async def caller(self) -> None:
        while True:
            await self.ask()

    async def more(self, answers: int) -> None:
        """Waits until that many more were answered."""
        wanted = self.answers + answers
        await until(lambda: self.answers >= wanted)


@asynccontextmanager
async def loading(generator: ReplicatedGenerator) -> AsyncIterator[Load]:
    load = Load(generator)
    tasks = [asyncio.create_task(load.caller()) for _ in range(CALLERS)]
    try:
        yield load
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def until(what: Callable[[], bool]) -> None:
    async with asyncio.timeout(200):
        while not what():
            await asyncio.sleep(0.02)


def connect(address: str) -> GrpcGenerator:
    channel = open_channel(address, tracer_provider=NoOpTracerProvider(), message_bytes_max=2**24, retries=False)
    return GrpcGenerator(channel, timeout_s=120)


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory):
    with ExitStack() as stack:
        yield [stack.enter_context(started(tmp_path_factory.mktemp(f"replica{n}"), **SETTINGS)) for n in range(3)]


async def test_no_call_is_lost_when_replicas_are_killed_drained_and_added(services: list[Running]) -> None:
    killed, drained, joining = services
    ports = [service.grpc.rpartition(":")[2] for service in services]
    hosts = {"killed": ["127.0.0.1"], "drained": ["127.0.0.1"], "joining": []}

    async def resolve(name: str) -> list[str]:
        return hosts[name]

    target = ",".join(f"{name}:{port}" for name, port in zip(hosts, ports, strict=True))
    limits = ReplicaLimits(report_interval_s=0.2, resolve_interval_s=0.2, aside_max_s=2.0)
    async with replicated(parse_target(target), connect, limits=limits, statistics=statistics(), resolve=resolve) as generator:
        replicas = generator._replicas

        def calls() -> Counter[str]:
            return Counter({replica.address: replica.call_count for replica in replicas.all()})

        await until(lambda: all(replica.ready and replica.report is not None for replica in replicas.all()))
        assert {replica.report.running_max for replica in replicas.all()} == {8}, "they say what they work on"
        async with loading(generator) as load:
            await load.more(10)
            assert len(calls()) == 2
            assert min(calls().values()) > 0, "the load is spread"

            os.kill(killed.process.pid, signal.SIGKILL)
            await until(lambda: not next(each for each in replicas.all() if each.address == killed.grpc).ready)
            await load.more(20)
            assert not load.lost
            assert all(isinstance(error, Unavailable) for error in load.broken)

            hosts["joining"] = ["127.0.0.1"]
            await until(lambda: calls()[joining.grpc] > 0)
            hosts["killed"] = []
            await until(lambda: killed.grpc not in calls())
            await load.more(10)

            load.broken.clear()
            drained.process.send_signal(signal.SIGTERM)
            await until(lambda: drained.process.poll() is not None)
            assert drained.process.returncode == 0
            told = calls()[drained.grpc]
            await load.more(20)
            # One at a time finds out whether it is back, and is answered by another.
            assert calls()[drained.grpc] - told <= 8
            assert not load.lost
            assert not load.broken, "a replica that drains finishes what it has begun"
