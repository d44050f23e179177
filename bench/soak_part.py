"""Part "soak": very many runs of one flow, and the memory of the services meanwhile.

The gateway's three dialects take turns, and a tenth of the runs is streamed.
"""

from collections.abc import Mapping
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from bench import processes
from bench.dialects import FEW, WAYS, Way, keep_flows, penstock
from bench.meter import memory_of, pss_mib
from bench.plan import Plan
from bench.report import PartResult
from bench.rounds import Tell
from bench.soak_tables import IN_FLIGHT, Step, soak_tables
from penstock.cli.local import LocalStack
from penstock.keys import new_key

NAME: Final = "soak"
STEPS: Final = 20


async def measure(plan: Plan, folder: Path, tell: Tell) -> PartResult:
    """Runs the part: `plan.soak_runs` in STEPS."""
    key, ways = new_key(), list(WAYS.items())
    async with (
        processes.fake_openai(folder, "--interval-ms", "0") as (fake, _),
        penstock(folder / "stack", fake, key) as stack,
        processes.worker("load", folder) as client,
    ):
        await keep_flows(stack, key, fake)
        steps = [_look(stack, 0)]
        bounds = [plan.soak_runs * step // STEPS for step in range(STEPS + 1)]
        for number, (begin, end) in enumerate(pairwise(bounds)):
            name, way = ways[number % len(ways)]
            tell(f"dialects-soak: {begin:,} of {plan.soak_runs:,} runs, {name}")
            told = await _runs(client, stack, way, key, end - begin)
            steps.append(_look(stack, end, way=name, **told))
    return PartResult(name=NAME, tables=soak_tables(steps), raw=tuple(asdict(each) for each in steps))


async def _runs(client: processes.Worker, stack: LocalStack, way: Way, key: str, count: int) -> dict[str, Any]:
    """So many, every tenth of them streamed: the seconds that they took, and how many failed."""
    target, streamed = stack.services["gateway"].http, count // 10
    told = {"seconds": 0.0, "errors": 0}
    for tokens, payloads in ((0, _cycled(way, count - streamed)), (FEW, [way.stream[FEW]] * streamed)):
        sample = await client.sample(
            caller="http",
            options=way.options(target, key, tokens=tokens),
            load=processes.load(payloads, in_flight=IN_FLIGHT),
            pids=processes.pids(stack),
        )
        told["seconds"] += sample.seconds
        told["errors"] += sample.errors
    return told


def _cycled(way: Way, count: int) -> list[bytes]:
    return [way.payloads[number % len(way.payloads)] for number in range(count)]


def _look(stack: LocalStack, runs: int, **told: Any) -> Step:
    memory: dict[str, Mapping[str, float]] = {}
    for name, running in stack.services.items():
        found = memory_of(running.process.pid)
        memory[name] = {
            "RSS": found.rss_mib,
            "PSS": pss_mib(running.process.pid),
            "anonymous": found.anonymous_mib,
        }
    return Step(runs=runs, memory_mib=memory, **told)
