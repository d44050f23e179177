"""Worker processes on one port, as real processes with real signals."""

import asyncio
import json
import os
import signal
import socket
import sys
import urllib.request
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest

from penstock.errors import FailedPrecondition
from penstock.ports import reserved
from penstock.retrieval.v1 import retrieval_pb2 as pb
from penstock.retrieval.v1.retrieval_pb2_grpc import RetrievalServiceStub
from penstock.worker_metrics import merged

ROOT = Path(__file__).parents[2]


class Parent:
    """The parent of a service's workers, and what can be asked of them."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.file = folder / "address.json"
        self.log = folder / "log"
        self._settings = {"WORKERS": 2, "LOG_FORMAT": "text", **{name.upper(): value for name, value in settings.items()}}

    async def start(self) -> "Parent":
        own = {f"TESTED_{name}": str(value) for name, value in {**self._settings, "ADDRESS_FILE": self.file}.items()}
        command = (sys.executable, "-m", "tests.penstock.worker_service")
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, env=os.environ | own, stderr=log)
        return self

    async def ready(self) -> "Parent":
        await eventually(lambda: self.file.exists() or self.process.returncode is not None)
        assert self.process.returncode is None, self.log.read_text()
        self.addresses = json.loads(self.file.read_text())
        return self

    def workers(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children()

    async def ask(self, name: str = "") -> pb.Collection:
        """Over a connection of its own, which the kernel gives to some worker."""
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(self.addresses["grpc"], options=options) as channel:
            stub = RetrievalServiceStub(channel)
            return (await stub.GetCollection(pb.GetCollectionRequest(name=name), timeout=10, wait_for_ready=True)).collection

    async def seen(self, count: int = 40) -> set[int]:
        """The workers that answer."""
        return {(await self.ask()).dimension for _ in range(count)}

    async def kill(self) -> None:
        if self.process.returncode is None:
            children = self.workers()
            for each in (psutil.Process(self.process.pid), *children):
                each.kill()
            await self.process.wait()


@pytest.fixture
async def parents() -> AsyncIterator[Callable[..., Parent]]:
    made: list[Parent] = []

    def make(folder: Path, **settings: Any) -> Parent:
        made.append(Parent(folder, **settings))
        return made[-1]

    yield make
    for each in made:
        await each.kill()


async def eventually(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not true():
            await asyncio.sleep(0.02)


pytestmark = pytest.mark.e2e


async def test_all_workers_answer_on_one_port_and_know_their_seats(parents: Any, tmp_path: Path) -> None:
    parent = await (await parents(tmp_path).start()).ready()
    assert await parent.seen() == {0, 1}
    assert (await parent.ask()).shard_count == 2


async def test_the_service_is_ready_when_all_its_workers_are_and_answers_nothing_before(parents: Any, tmp_path: Path) -> None:
    host, port = "127.0.0.1", free_port()
    parent = await parents(tmp_path, slow_worker=1, grpc_address=f"{host}:{port}").start()
    refused = 0
    while not parent.file.exists():
        try:
            _, writer = await asyncio.open_connection(host, port)
        except OSError:
            refused += 1
        else:
            writer.close()
            # The workers listen when the last is ready, a moment before the parent's file is there.
            await eventually(parent.file.exists)
        await asyncio.sleep(0.02)
    await parent.ready()
    assert refused > 0
    assert await parent.seen() == {0, 1}


async def test_a_worker_that_is_killed_is_started_again_and_the_other_answers_meanwhile(parents: Any, tmp_path: Path) -> None:
    parent = await (await parents(tmp_path).start()).ready()
    before = {each.pid for each in parent.workers()}
    victim = parent.workers()[0]
    victim.kill()
    await eventually(lambda: victim.pid not in {each.pid for each in parent.workers()})
    await parent.ask()
    await eventually(lambda: len(parent.workers()) == 2)
    async with asyncio.timeout(60):
        while await parent.seen(20) != {0, 1}:
            pass
    assert len(before & {each.pid for each in parent.workers()}) == 1
    assert "ended with -9; it is started again" in parent.log.read_text()


async def test_sigterm_drains_every_worker_and_all_leave_with_0(parents: Any, tmp_path: Path) -> None:
    parent = await (await parents(tmp_path).start()).ready()
    workers = parent.workers()
    calls = [asyncio.create_task(parent.ask("slow")) for _ in range(8)]
    await asyncio.sleep(0.2)
    parent.process.send_signal(signal.SIGTERM)
    assert len(await asyncio.gather(*calls)) == 8
    assert await asyncio.wait_for(parent.process.wait(), 30) == 0
    assert not any(each.is_running() for each in workers)


async def test_a_killed_parent_takes_its_workers_with_it(parents: Any, tmp_path: Path) -> None:
    parent = await (await parents(tmp_path).start()).ready()
    workers = parent.workers()
    parent.process.kill()
    await parent.process.wait()
    await eventually(lambda: not any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in workers))


async def test_a_worker_that_cannot_load_fails_the_whole_start(parents: Any, tmp_path: Path) -> None:
    parent = await parents(tmp_path, broken_worker=1).start()
    assert await asyncio.wait_for(parent.process.wait(), 60) == 1
    assert not parent.file.exists()
    assert "worker 1 ended with 1 before it was ready" in parent.log.read_text()


@pytest.mark.parametrize(("first", "second"), [(2, 2), (2, 1), (1, 2)])
async def test_two_strangers_never_share_a_port(parents: Any, tmp_path: Path, first: int, second: int) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    holder = await (await parents(tmp_path / "a", workers=first).start()).ready()
    stranger = await parents(tmp_path / "b", workers=second, grpc_address=holder.addresses["grpc"]).start()
    assert await asyncio.wait_for(stranger.process.wait(), 60) == 1
    assert "cannot listen for gRPC" in stranger.log.read_text()
    pids = {each.pid for each in holder.workers()} or {holder.process.pid}
    assert {int((await holder.ask()).name) for _ in range(20)} <= pids


async def test_metrics_are_those_of_all_workers_whichever_is_asked(parents: Any, tmp_path: Path) -> None:
    parent = await (await parents(tmp_path).start()).ready()
    for _ in range(30):
        await parent.ask()
    page = await asyncio.to_thread(read_page, parent.addresses["http"])
    counts = [line for line in page.splitlines() if line.startswith("rpc_server_call_duration_seconds_count")]
    assert sum(float(line.rpartition(" ")[2]) for line in counts) == 30
    assert {line.partition('worker="')[2][0] for line in counts} == {"0", "1"}
    assert page.count("# TYPE rpc_server_call_duration_seconds ") == 1


async def test_a_reserved_port_is_refused_to_whoever_does_not_share_it() -> None:
    with reserved("127.0.0.1:0", "gRPC") as address:
        with pytest.raises(FailedPrecondition, match="choose another grpc_address"), reserved(address, "gRPC"):
            pass
        host, port = address.split(":")
        with socket.create_server((host, int(port)), reuse_port=True):
            with pytest.raises(OSError, match="in use"):
                socket.create_server((host, int(port)))
    with reserved(address, "gRPC"):
        pass


@pytest.mark.parametrize("address", ["nonsense", "127.0.0.1:", "127.0.0.1:99999", "no.such.host.invalid:0"])
async def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(FailedPrecondition, match="cannot listen for HTTP"), reserved(address, "HTTP"):
        pass


def test_workers_pages_become_one_with_a_label_and_one_description() -> None:
    page = '# HELP a_total Things.\n# TYPE a_total counter\na_total{kind="x"} 1.0\n# HELP b Bytes.\n# TYPE b gauge\nb 2.0\n'
    assert merged({0: page, 1: page}).splitlines() == [
        "# HELP a_total Things.",
        "# TYPE a_total counter",
        'a_total{worker="0",kind="x"} 1.0',
        'a_total{worker="1",kind="x"} 1.0',
        "# HELP b Bytes.",
        "# TYPE b gauge",
        'b{worker="0"} 2.0',
        'b{worker="1"} 2.0',
    ]


def read_page(address: str) -> str:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
        return answer.read().decode()


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])
