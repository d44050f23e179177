"""Part "langflow": one flow, exported from LangFlow, served by LangFlow, by `lfx serve` and by Penstock, side by side.

ChatInput -> Prompt -> Model -> ChatOutput over the same endpoint that answers at once. Penstock's gateway has the export as it
imports it, and is asked by its own API, by LangFlow's and by OpenAI's; its generation service calls the endpoint. The two meet
on gRPC, as they do by default, and in a second stack on links (PENSTOCK_GATEWAY_GENERATION_LINKS).
"""

import asyncio
import http.client
import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import orjson

from bench import processes
from bench.closed_loop import Sample
from bench.fake_openai import MODEL
from bench.langflow_peer import servers
from bench.langflow_peer.environments import LANGFLOW, LFX, installed
from bench.langflow_tables import langflow_tables
from bench.meter import family, pss_mib, rss_mib
from bench.peers.environments import NotInstalled
from bench.peers.processes import free_port
from bench.plan import Plan
from bench.processes import WorkerFailed
from bench.report import PartResult, raw
from bench.rounds import Tell, turned
from penstock.cli.local import LocalStack, Running
from penstock.clients import Penstock

NAME: Final = "langflow"
FLOW: Final = "bench-chat"
_SESSIONS: Final = 256
_QUESTION: Final = "How many tackles did Luke Kuechly register?"
# The default bounds would refuse 128 in flight, as they should; here nothing may be refused.
_ROOM: Final = {"PENSTOCK_GENERATION_RUNNING_MAX": "256", "PENSTOCK_GENERATION_WAITING_MAX": "256"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One way of asking for the flow, and what came of it by requests in flight. `few` is for servers that take long."""

    name: str
    options: dict[str, Any]
    bodies: tuple[bytes, ...]
    pids: dict[str, int]
    few: bool = False
    samples: dict[int, list[Sample]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One that runs: how long it took to its first answer, and its memory before and after the load."""

    name: str
    pids: tuple[int, ...]
    ready_s: float
    first_s: float
    memory: list[dict[str, float]] = field(default_factory=list)

    def note_memory(self) -> None:
        self.memory.append({"rss_mib": sum(map(rss_mib, self.pids)), "pss_mib": sum(map(pss_mib, self.pids))})


async def measure(plan: Plan, folder: Path, tell: Tell) -> PartResult:
    """Runs the part. A peer that cannot be installed or started is told as such."""
    kept = Path(plan.peer_dir or plan.cache or folder / "peers")
    kept.mkdir(parents=True, exist_ok=True)  # noqa: ASYNC240  # Nothing else runs yet.
    ways: list[Asked]
    running: list[Server]
    absent: list[str]
    async with AsyncExitStack() as stack:
        fake, fake_pid = await stack.enter_async_context(processes.fake_openai(folder))
        ways, running, absent = [], [], []
        for name, apis, links in _STACKS:
            tell(f"langflow: starting {name}")
            asked, server = await _penstock(stack, folder, fake, name, apis, links=links)
            ways += asked
            running.append(server)
        for name, pins, serve in (("LangFlow", LANGFLOW, servers.langflow), ("lfx serve", LFX, servers.lfx)):
            tell(f"langflow: installing and starting {name}")
            try:
                programs = await installed(kept, name.partition(" ")[0].lower(), pins)
                peer = await stack.enter_async_context(serve(programs, kept, fake))
            except (NotInstalled, WorkerFailed, TimeoutError) as failure:
                absent.append(f"{name} is not measured: {str(failure).strip().splitlines()[-1][:200]}")
                continue
            ways.append(_way(name, peer))
            running.append(Server(name=name, pids=(peer.pid,), ready_s=peer.ready_s, first_s=peer.first_s))
        client = await stack.enter_async_context(processes.worker("load", folder))
        for server in running:
            server.note_memory()
        for number in range(plan.rounds):
            for in_flight in plan.in_flight:
                for way in turned(ways, number):
                    tell(f"langflow: round {number + 1} of {plan.rounds}, {way.name}, {in_flight} in flight")
                    sample = await _sample(client, way, plan, in_flight, fake_pid)
                    way.samples.setdefault(in_flight, []).append(sample)
        for server in running:
            server.note_memory()
    samples = [each for way in ways for at, found in way.samples.items() for each in raw(found, path=way.name, in_flight=at)]
    began = [{"server": s.name, "ready_s": s.ready_s, "first_s": s.first_s, "memory": s.memory} for s in running]
    return PartResult(name=NAME, tables=langflow_tables(ways, running, absent), raw=(*samples, *began))


async def _penstock(
    stack: AsyncExitStack, folder: Path, fake: str, name: str, apis: Sequence[str], *, links: bool
) -> tuple[list[Asked], Server]:
    environment = {
        "PENSTOCK_GENERATION_ENGINE": "openai",
        "PENSTOCK_GENERATION_OPENAI_BASE_URL": f"http://{fake}/v1",
        "PENSTOCK_GENERATION_MODEL": MODEL,
        "PENSTOCK_GATEWAY_GENERATION_LINKS": str(links),
        **_ROOM,
    }
    place = folder / f"penstock-{links}"
    # These keep the flow; what is timed is a start that finds it.
    async with _services(place, environment) as first, Penstock(first.services["gateway"].grpc) as gateway:
        await gateway.create_flow(FLOW, json.dumps(servers.export(fake)), replace=True)
    began = time.monotonic()
    services = await stack.enter_async_context(_at_once(place, environment))
    ready_s = time.monotonic() - began
    pids = {each: running.process.pid for each, running in services.items()}
    address = services["gateway"].http
    took_s, ways = [], []
    for api in apis:
        path, bodies = _APIS[api]
        took_s.append(await asyncio.to_thread(_answered, address, path, bodies))
        options = {"target": address, "path": path, "dialect": "langflow"}
        ways.append(Asked(name=f"{name}{api}", options=options, bodies=bodies, pids=pids))
    return ways, Server(name=name, pids=tuple(pids.values()), ready_s=ready_s, first_s=took_s[0])


@asynccontextmanager
async def _services(folder: Path, environment: Mapping[str, str]) -> AsyncIterator[LocalStack]:
    async with processes.services(folder, _SERVICES, environment) as services:
        yield services


@asynccontextmanager
async def _at_once(folder: Path, environment: Mapping[str, str]) -> AsyncIterator[dict[str, Running]]:
    """Both services, started together, as a cluster does it: the gateway is told where generation will be."""
    target = f"127.0.0.1:{free_port()}"
    told = {**environment, "PENSTOCK_GENERATION_GRPC_ADDRESS": target, "PENSTOCK_GATEWAY_GENERATION_TARGET": target}
    told["PENSTOCK_GATEWAY_DATA_DIR"] = str(folder / "gateway")
    async with AsyncExitStack() as stack:
        began = [stack.enter_async_context(processes.services(folder / f"{name}-alone", (name,), told)) for name in _SERVICES]
        stacks = await asyncio.gather(*began)
        yield {name: each.services[name] for name, each in zip(_SERVICES, stacks, strict=True)}


_SERVICES: Final = ("generation", "gateway")
_APIS: Final[Mapping[str, tuple[str, tuple[bytes, ...]]]] = {
    "": (f"/v1/flows/{FLOW}:run", (orjson.dumps({"inputs": {"input_value": _QUESTION}}),)),
    ", LangFlow's API": (
        f"/api/v1/run/{FLOW}?stream=false",
        tuple(
            orjson.dumps({"input_value": _QUESTION, "input_type": "chat", "output_type": "chat", "session_id": f"s{number}"})
            for number in range(_SESSIONS)
        ),
    ),
    ", OpenAI's API": (
        "/v1/chat/completions",
        (orjson.dumps({"model": FLOW, "messages": [{"role": "user", "content": _QUESTION}]}),),
    ),
}
_STACKS: Final = (("Penstock", ("",), False), ("Penstock with links", tuple(_APIS), True))


def _way(name: str, peer: servers.Peer) -> Asked:
    options = {"target": peer.address, "path": peer.path, "dialect": "langflow", "headers": dict(peer.headers)}
    return Asked(name=name, options=options, bodies=_APIS[", LangFlow's API"][1], pids={"server": peer.pid}, few=True)


async def _sample(client: processes.Worker, way: Asked, plan: Plan, in_flight: int, fake_pid: int) -> Sample:
    """A window of time; of a slow server a number of requests, of which it has all at once at most two for each in flight."""
    pids = {**{name: family(pid) for name, pid in way.pids.items()}, "fake": [fake_pid]}
    if way.few:
        count = min(max(12, 2 * in_flight), max(96, in_flight)) if plan.seconds >= 1 else max(2, in_flight)
        load = processes.load([way.bodies[each % len(way.bodies)] for each in range(count)], in_flight=in_flight)
    else:
        load = processes.load(way.bodies, in_flight=in_flight, seconds=plan.seconds, warmup_s=plan.warmup_s)
    return await client.sample(caller="http", options=way.options, load=load, pids=pids)


def _answered(address: str, path: str, bodies: Sequence[bytes]) -> float:
    """How long one answer took. Raises WorkerFailed when it is not the model's."""
    began = time.monotonic()
    host, _, port = address.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=60)
    try:
        connection.request("POST", path, bodies[0], {"content-type": "application/json"})
        response = connection.getresponse()
        said = response.read()
        if response.status != 200 or b"At once." not in said:
            raise WorkerFailed(f"{path} answered {response.status}: {said[:300].decode(errors='replace')}")
        return time.monotonic() - began
    finally:
        connection.close()
