import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from gateway.backends import GenerateRequest
from gateway.replicas.generator import ReplicatedGenerator, replicated
from gateway.replicas.replica import Replica, ReplicaLimits, ReportedLoad
from penstock.addresses import parse_target
from penstock.errors import DeadlineExceeded, Internal
from tests.gateway.replicas.fakes import FakeNode, rag, statistics

LIMITS = ReplicaLimits(report_interval_s=0.01, resolve_interval_s=0.01, close_grace_s=7.0)


@dataclass
class Fleet:
    """Replicas behind the name "generation", and the generator over them."""

    hosts: list[str]
    nodes: dict[str, FakeNode] = field(default_factory=dict)
    generator: ReplicatedGenerator | None = None

    def connect(self, address: str) -> FakeNode:
        self.nodes[address] = FakeNode()
        return self.nodes[address]

    async def resolve(self, name: str) -> Collection[str]:
        return self.hosts

    def replica(self, host: str) -> Replica:
        assert self.generator is not None
        return next(each for each in self.generator._replicas.all() if each.address == f"{host}:1")


@asynccontextmanager
async def fleet(*hosts: str) -> AsyncIterator[Fleet]:
    made = Fleet(list(hosts))
    addresses = parse_target("dns:///generation:1")
    async with replicated(addresses, made.connect, limits=LIMITS, statistics=statistics(), resolve=made.resolve) as generator:
        made.generator = generator
        yield made


async def until(what: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not what():
            await asyncio.sleep(0.002)


async def test_replicas_join_and_leave_as_the_name_is_resolved_and_those_that_leave_may_finish() -> None:
    async with fleet("10.0.0.1", "10.0.0.2") as running:
        assert sorted(running.nodes) == ["10.0.0.1:1", "10.0.0.2:1"]
        running.hosts = ["10.0.0.2", "10.0.0.3"]
        gone = running.nodes["10.0.0.1:1"]
        await until(lambda: bool(gone.closed_with))
        assert gone.closed_with == [LIMITS.close_grace_s]
        assert "10.0.0.3:1" in running.nodes
    assert [running.nodes[f"10.0.0.{number}:1"].closed_with for number in (2, 3)] == [[None], [None]]


async def test_a_replica_is_asked_while_it_says_that_it_is_ready() -> None:
    async with fleet("10.0.0.1", "10.0.0.2") as running:
        for node in running.nodes.values():
            node.ready.put_nowait(True)
        await until(lambda: all(running.replica(f"10.0.0.{n}").ready for n in (1, 2)))
        assert running.generator is not None
        await running.generator.generate(GenerateRequest(model="m", prompt=rag(1)))
        (home,) = [node for node in running.nodes.values() if node.requests]
        home.ready.put_nowait(False)
        await until(lambda: not all(running.replica(f"10.0.0.{n}").ready for n in (1, 2)))
        for _ in range(5):
            await running.generator.generate(GenerateRequest(model="m", prompt=rag(1)))
        assert len(home.requests) == 1


async def test_what_replicas_work_on_is_asked_for_again_and_again() -> None:
    async with fleet("10.0.0.1", "10.0.0.2") as running:
        replica, node = running.replica("10.0.0.1"), running.nodes["10.0.0.1:1"]
        node.report = ReportedLoad(running=5, waiting=2, running_max=8, waiting_max=8)
        await until(lambda: replica.load == 7)
        node.report = Internal("UNIMPLEMENTED")
        await until(lambda: replica.report is None)
        assert replica.load == 0, "an old version does not say"


async def test_one_that_does_not_answer_in_time_again_and_again_counts_as_gone_until_it_does() -> None:
    async with fleet("10.0.0.1", "10.0.0.2") as running:
        replica, node = running.replica("10.0.0.1"), running.nodes["10.0.0.1:1"]
        node.ready.put_nowait(True)
        await until(lambda: replica.can_be_asked(0.0))
        answers, node.report = node.report, DeadlineExceeded("no answer")
        await until(lambda: not replica.can_be_asked(0.0))
        assert replica.ready
        node.report = answers
        await until(lambda: replica.can_be_asked(0.0))


async def test_a_single_replica_is_not_asked_what_it_works_on() -> None:
    async with fleet("10.0.0.1") as running:
        await asyncio.sleep(5 * LIMITS.report_interval_s)
        assert not running.nodes["10.0.0.1:1"].load_count
        running.hosts.append("10.0.0.2")
        await until(lambda: running.nodes["10.0.0.1:1"].load_count > 0)
