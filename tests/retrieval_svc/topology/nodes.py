"""A cluster of real processes: 2 slots with 2 replicas each, one PostgreSQL, one folder of snapshots."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from opentelemetry.sdk.trace import TracerProvider

from penstock.channel import open_channel
from penstock.retrieval.v1 import retrieval_pb2 as pb
from penstock.retrieval.v1.retrieval_pb2_grpc import RetrievalServiceStub
from tests.retrieval_svc.processes import environment

SLOTS = 2
REPLICAS = 2
PATIENCE_S = 60.0
"""How long anything may take that should take a moment: the machine may be busy."""


@dataclass(kw_only=True)
class Node:
    """One process of the cluster, which can be started again after it has ended."""

    name: str
    slot: int
    port: int
    folder: Path
    settings: dict[str, str]
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def http(self) -> str:
        return str(json.loads((self.folder / "addresses.json").read_text())["http"])

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def log(self) -> str:
        """What it said in this life."""
        return (self.folder / "log").read_text()

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def begin(self) -> None:
        """Starts the process; `wait` waits until it is ready."""
        assert not self.is_running
        self.folder.mkdir(exist_ok=True)
        (self.folder / "addresses.json").unlink(missing_ok=True)
        with (self.folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "retrieval_svc"], env=environment(self.folder, self.settings), stderr=log
            )

    def wait(self) -> None:
        """Returns when it is ready."""
        end = time.monotonic() + PATIENCE_S
        while not (self.folder / "addresses.json").exists():
            assert self.is_running, f"{self.name} ended: {self.log[-3000:]}"
            assert time.monotonic() < end, f"{self.name} was not ready in {PATIENCE_S} s: {self.log[-3000:]}"
            time.sleep(0.05)

    def start(self) -> None:
        self.begin()
        self.wait()

    def kill(self) -> None:
        """Ends it as a crash would: no handler runs."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """It keeps its connections but answers nothing."""
        os.kill(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)

    def forget(self) -> None:
        """Removes all that it has on disk."""
        assert not self.is_running
        shutil.rmtree(self.folder / "data")


@dataclass(kw_only=True)
class Topology:
    """a and b are the replicas of slot 0, c and d those of slot 1."""

    nodes: list[Node]

    def __getitem__(self, name: str) -> Node:
        return next(node for node in self.nodes if node.name == name)

    def heal(self) -> None:
        """Starts what does not run."""
        ended = [node for node in self.nodes if not node.is_running]
        for node in ended:
            node.begin()
        for node in ended:
            node.wait()

    def end(self) -> None:
        for node in self.nodes:
            if node.is_running:
                node.kill()

    @contextlib.asynccontextmanager
    async def clients(self, names: str = "abcd") -> AsyncIterator[list[RetrievalServiceStub]]:
        """A client of each node. They try nothing again, so that every failure is seen."""
        channels = [
            open_channel(self[name].address, tracer_provider=TracerProvider(), message_bytes_max=2**25, retries=False)
            for name in names
        ]
        try:
            async with asyncio.timeout(PATIENCE_S):  # To a node that was gone a moment ago, gRPC connects after a pause.
                await asyncio.gather(*(channel.channel_ready() for channel in channels))
            yield [RetrievalServiceStub(channel) for channel in channels]
        finally:
            for channel in channels:
                await channel.close()


@contextlib.contextmanager
def running_topology(folder: Path, database_url: str, **settings: str) -> Iterator[Topology]:
    """The cluster, every node of it ready. All processes are killed on the way out."""
    ports = free_ports(SLOTS * REPLICAS)
    targets = ",".join(
        "|".join(f"127.0.0.1:{port}" for port in ports[slot * REPLICAS : (slot + 1) * REPLICAS]) for slot in range(SLOTS)
    )
    shared = {
        "database_url": database_url,
        "slots": str(SLOTS),
        "slot_targets": targets,
        "shard_count": "2",
        "snapshot_url": (folder / "snapshots").as_uri(),
        "log_format": "text",
    }
    nodes = [
        Node(
            name="abcd"[at],
            slot=at // REPLICAS,
            port=port,
            folder=folder / "abcd"[at],
            settings=shared | {"slot": str(at // REPLICAS), "grpc_address": f"127.0.0.1:{port}"} | settings,
        )
        for at, port in enumerate(ports)
    ]
    topology = Topology(nodes=nodes)
    try:
        topology.heal()
        yield topology
    finally:
        topology.end()


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


async def eventually(condition: Callable[[], Awaitable[object]], what: str, *, within_s: float = PATIENCE_S) -> None:
    """Returns when the condition holds; fails with what was waited for, and what the condition gave last."""
    end = time.monotonic() + within_s
    while True:
        last = await condition()
        if last is True:
            return
        assert time.monotonic() < end, f"not within {within_s} s: {what}; last: {last}"
        await asyncio.sleep(0.05)


async def positions(client: RetrievalServiceStub, name: str) -> dict[int, int]:
    """Each shard that a node holds, and how far it has come."""
    status = await client.GetCollectionStatus(pb.GetCollectionStatusRequest(name=name))
    return {shard.shard: shard.position for shard in status.shards}


async def caught_up(behind: RetrievalServiceStub, fellow: RetrievalServiceStub, name: str) -> None:
    """Returns when a replica has come as far as its fellow is now."""
    target = await positions(fellow, name)
    assert target, "the fellow holds no shard"

    async def reached() -> object:
        there = await positions(behind, name)
        return (there.keys() == target.keys() and all(there[shard] >= target[shard] for shard in target)) or (there, target)

    await eventually(reached, f"the replica has caught up with its fellow in {name}")
