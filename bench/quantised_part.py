"""Part "quantised": the same model in bf16 and in W8A8, each behind a generation service with vLLM, in rounds that take turns.

Both services run for the whole of the part, with the same settings; the one that is not asked sleeps. Prefix caching is off and
no prompt comes twice to a side. Prompts are as the example flow makes them: two passages and a question.
"""

from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from bench import processes
from bench.closed_loop import Sample
from bench.corpus import prompts
from bench.meter import MIB, Memory, family, memory_of
from bench.plan import Plan
from bench.quantised_tables import quantised_tables
from bench.report import PartResult, raw
from bench.rounds import Tell, turned
from bench.vllm_service import Running, checkpoint, vllm_service
from penstock.generation.v1 import generation_pb2 as pb

NAME: Final = "quantised"
PRECISIONS: Final = ("bf16", "w8a8")
STREAMS: Final = (1, 8, 32)
CACHE_GB: Final = 0.5
_SETTINGS: Final = {
    "vllm_prefix_caching": False, "vllm_enforce_eager": True, "vllm_cache_gb": CACHE_GB, "context_window": 2048,
    "running_max": max(STREAMS),
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One precision: its service, what its weights take in the file, and its processes' memory before the first request."""

    precision: str
    service: Running
    weights_mib: float
    memory: Memory


async def measure(plan: Plan, folder: Path, tell: Tell) -> PartResult:
    """Runs the part. Raises VllmMissing where there is no vLLM."""
    found: dict[tuple[str, int], list[Sample]] = defaultdict(list)
    async with _running(folder, tell) as (sides, client):
        for side in sides:
            await _ask(client, side, prompts(1, skip=0), 1, plan.answer_tokens)  # The first request is slower.
        skip = 1
        for number in range(plan.rounds):
            for streams in STREAMS:
                texts = prompts(_count(plan, streams), skip=skip)
                skip = (skip + len(texts)) % 64  # The corpus has some 110 pairs of passages.
                for side in turned(sides, number):
                    tell(f"quantised: {side.precision}, {streams} at once, round {number + 1} of {plan.rounds}")
                    sample = await _ask(client, side, texts, streams, plan.answer_tokens)
                    found[side.precision, streams].append(sample)
        memory = {side.precision: memory_of(side.service.pid) for side in sides}
    samples = [each for (name, at), rounds in found.items() for each in raw(rounds, table="rate", precision=name, in_flight=at)]
    sizes = [
        {
            "table": "memory", "precision": side.precision, "weights_mib": side.weights_mib, "loaded": asdict(side.memory),
            "after": asdict(memory[side.precision]),
        }
        for side in sides
    ]  # fmt: skip
    return PartResult(name=NAME, tables=quantised_tables(found, sizes), raw=(*samples, *sizes))


def _count(plan: Plan, streams: int) -> int:
    return plan.prompts_alone if streams == 1 else max(streams, plan.prompts_together)


@asynccontextmanager
async def _running(folder: Path, tell: Tell) -> AsyncIterator[tuple[Sequence[Side], processes.Worker]]:
    async with AsyncExitStack() as stack:
        sides = []
        for precision in PRECISIONS:
            tell(f"quantised: starting vLLM with {precision}")
            model = await checkpoint(precision)
            service = await stack.enter_async_context(vllm_service(folder / precision, model, _SETTINGS))
            weights_mib = sum(file.stat().st_size for file in model.glob("*.safetensors")) / MIB
            memory = memory_of(service.pid)
            sides.append(Side(precision=precision, service=service, weights_mib=weights_mib, memory=memory))
        yield sides, await stack.enter_async_context(processes.worker("load", folder))


async def _ask(client: processes.Worker, side: Side, texts: Sequence[str], streams: int, answer_tokens: int) -> Sample:
    """Sends every prompt once. All answers have the same length."""
    payloads = [
        pb.StreamGenerateRequest(
            model="models/default",
            messages=[pb.Message(role=pb.ROLE_USER, content=text)],
            sampling=pb.Sampling(max_tokens=answer_tokens, min_tokens=answer_tokens, temperature=0.0),
        ).SerializeToString()
        for text in texts
    ]
    return await client.sample(
        caller="generation",
        options={"target": side.service.grpc},
        load=processes.load(payloads, in_flight=streams),
        pids={"service": family(side.service.pid)},
    )
