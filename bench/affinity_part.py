"""What prefix affinity is worth: the same prompts to three vLLM replicas, by gRPC's round robin and by the gateway's choice.

Hits are the engines' own: tokens of prompts that each answer says were found in its prefix cache. A replica's cache holds less
than all prompts' beginnings together, as it does in production.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Final

from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.trace import NoOpTracerProvider

from bench import vllm_environment
from bench.affinity_workload import Asked, workload
from bench.closed_loop import percentile
from bench.plan import Plan
from bench.report import PartResult, Table, number
from bench.rounds import Tell, turned
from gateway.backends import Delta, Generator
from gateway.clients import GrpcGenerator
from gateway.replicas.generator import replicated
from gateway.replicas.replica import ReplicaLimits
from gateway.replicas.statistics import Statistics
from penstock.addresses import parse_target
from penstock.channel import open_channel

NAME: Final = "affinity"
SIDES: Final = ("round robin", "affinity")
REPLICAS: Final = 3
IN_FLIGHT: Final = 4
_ANSWER_TIMEOUT_S: Final = 300.0
CACHE_GB: Final = 0.25
WINDOW_TOKENS: Final = 2048
SEQUENCES_MAX: Final = 32
_ONE_THREAD: Final = {"OMP_NUM_THREADS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
"""Of each engine, on any core: bound threads of several engines would share one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answered:
    kind: str
    input_tokens: int
    cached_tokens: int
    first_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    answers: tuple[_Answered, ...]
    seconds: float
    calls: tuple[int, ...]

    def hit_rate(self, kind: str = "") -> float:
        of = [each for each in self.answers if kind in {"", each.kind}]
        return sum(each.cached_tokens for each in of) / sum(each.input_tokens for each in of)

    def first_ms(self, percent: int) -> float:
        return 1000 * percentile([each.first_s for each in self.answers], percent)


async def measure(plan: Plan, folder: Path, tell: Tell) -> PartResult:
    """Runs the part."""
    tell("affinity: preparing the checkpoint")
    found: dict[str, list[_Run]] = {side: [] for side in SIDES}
    tell(f"affinity: loading the model {REPLICAS} times")
    async with _replicas(folder) as addresses:
        for round_number in range(plan.rounds):
            for side in turned(SIDES, round_number):
                tell(f"affinity: round {round_number + 1} of {plan.rounds}, {side}")
                mark = f"{side[:5]}{round_number}"
                asked = workload(mark, passage_count=plan.affinity_passages)
                found[side].append(await _run(side, addresses, asked))
    raw = [{"side": side, **asdict(run)} for side, runs in found.items() for run in runs]
    return PartResult(name=NAME, tables=(_table(found),), raw=tuple(raw))


@asynccontextmanager
async def _replicas(folder: Path) -> AsyncIterator[Sequence[str]]:
    path = await vllm_environment.checkpoint("w8a8")
    model = vllm_environment.Loaded(path=path, sequences_max=SEQUENCES_MAX, window=WINDOW_TOKENS, gpu=False)
    settings = model.settings(vllm_cache_gb=CACHE_GB, waiting_max=256) | _ONE_THREAD
    async with AsyncExitStack() as stack:
        services = [
            await stack.enter_async_context(vllm_environment.service(folder / f"replica{number}", settings))
            for number in range(REPLICAS)
        ]
        yield [service.address for service in services]


async def _run(side: str, addresses: Sequence[str], asked: Sequence[Asked]) -> _Run:
    waiting, answers = iter(asked), list[_Answered]()

    async def caller(generator: Generator) -> None:
        for each in waiting:
            answers.append(await _answer(generator, each))

    async with AsyncExitStack() as stack:
        calls: Counter[str] = Counter()
        open_side = _round_robin(addresses) if side == "round robin" else _affinity(addresses, calls)
        generator = await stack.enter_async_context(open_side)
        began = time.perf_counter()
        await asyncio.gather(*(caller(generator) for _ in range(IN_FLIGHT)))
        seconds = time.perf_counter() - began
    return _Run(answers=tuple(answers), seconds=seconds, calls=tuple(sorted(calls.values())))


async def _answer(generator: Generator, asked: Asked) -> _Answered:
    began, first_at = time.perf_counter(), 0.0
    async for part in generator.stream(asked.request):
        if isinstance(part, Delta):
            first_at = first_at or time.perf_counter()
        else:
            finish = part
    first_s = (first_at or time.perf_counter()) - began
    return _Answered(kind=asked.kind, input_tokens=finish.input_tokens, cached_tokens=finish.cached_tokens, first_s=first_s)


@asynccontextmanager
async def _round_robin(addresses: Sequence[str]) -> AsyncIterator[Generator]:
    """What gRPC does with a name that has several addresses."""
    generator = _connected(f"ipv4:{','.join(addresses)}")
    try:
        yield generator
    finally:
        await generator.close()


@asynccontextmanager
async def _affinity(addresses: Sequence[str], calls: Counter[str]) -> AsyncIterator[Generator]:
    statistics = Statistics(NoOpMeterProvider().get_meter(NAME))
    target = parse_target(",".join(addresses))
    async with replicated(target, _connected, limits=ReplicaLimits(), statistics=statistics) as generator:
        yield generator
        calls.update(generator.call_counts())


def _connected(target: str) -> GrpcGenerator:
    channel = open_channel(target, tracer_provider=NoOpTracerProvider(), message_bytes_max=2**24, retries=False)
    return GrpcGenerator(channel, timeout_s=_ANSWER_TIMEOUT_S)


def _table(found: Mapping[str, Sequence[_Run]]) -> Table:
    rows = [
        (
            side,
            *(f"{100 * median(run.hit_rate(kind) for run in runs):.1f} %" for kind in ("", "rag", "chat")),
            *(number(median(run.first_ms(percent) for run in runs)) for percent in (50, 95)),
            number(median(run.seconds for run in runs)),
            " ".join(map(str, runs[-1].calls)) or "even",
        )
        for side, runs in found.items()
    ]
    asked = found[SIDES[0]][0].answers
    tokens = sum(each.input_tokens for each in asked)
    return Table(
        title=f"Prefix affinity over {REPLICAS} replicas, {IN_FLIGHT} requests at once",
        note=f"{len(asked)} prompts, {tokens} tokens; hits are tokens of prompts found in the engines' prefix caches.",
        columns=("choice", "hits", "hits rag", "hits chat", "first p50 ms", "first p95 ms", "seconds", "calls"),
        rows=tuple(rows),
    )
