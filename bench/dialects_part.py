"""Part "dialects": what a run costs the gateway over HTTP in each of its three dialects, whole and streamed.

A streamed token's cost is what a stream of many tokens takes beyond one of few, so that what a run costs anyhow is not in it.
"""

from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench import processes
from bench.closed_loop import Sample
from bench.dialects import FEW, MANY, WAYS, Way, keep_flows, penstock
from bench.dialects_tables import STREAMS_IN_FLIGHT, UNARY_IN_FLIGHT, Streams, dialects_tables
from bench.plan import Plan
from bench.report import PartResult, raw
from bench.rounds import Tell, turned
from penstock.cli.local import LocalStack
from penstock.keys import new_key

NAME: Final = "dialects"
STREAMS: Final = 32
_EAGER: Final = {"PENSTOCK_GENERATION_COALESCE_TOKENS_MAX": "1"}
_GATHERED, _ALONE = "", ", each token alone"
"""As it is by default, and with an event for every token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bench:
    stacks: Mapping[str, LocalStack]
    key: str
    client: processes.Worker

    async def sample(self, stack: str, way: Way, load: Mapping[str, Any], *, tokens: int = 0) -> Sample:
        started = self.stacks[stack]
        options = way.options(started.services["gateway"].http, self.key, tokens=tokens)
        return await self.client.sample(caller="http", options=options, load=load, pids=processes.pids(started))


async def measure(plan: Plan, folder: Path, tell: Tell) -> PartResult:
    """Runs the part."""
    unary: defaultdict[str, list[Sample]] = defaultdict(list)
    streams: defaultdict[tuple[str, str], list[Streams]] = defaultdict(list)
    async with _running(folder) as bench:
        for number in range(plan.rounds):
            for name, way in turned(list(WAYS.items()), number):
                tell(f"dialects: round {number + 1} of {plan.rounds}, {name}")
                load = processes.load(way.payloads, in_flight=UNARY_IN_FLIGHT, seconds=plan.seconds, warmup_s=plan.warmup_s)
                unary[name].append(await bench.sample(_GATHERED, way, load))
                for stack in bench.stacks:
                    few, many = [await _streamed(bench, stack, way, tokens) for tokens in (FEW, MANY)]
                    streams[name, stack].append(Streams(few=few, many=many, tokens=(FEW, MANY)))
    samples = [
        *(each for name, found in unary.items() for each in raw(found, table="unary", path=name)),
        *(each for at, those in streams.items() for each in _raw_streams(at, those)),
    ]
    return PartResult(name=NAME, tables=dialects_tables(unary, streams), raw=tuple(samples))


@asynccontextmanager
async def _running(folder: Path) -> AsyncIterator[_Bench]:
    key = new_key()
    stacks: dict[str, LocalStack] = {}
    async with (
        processes.fake_openai(folder, "--interval-ms", "10") as (fake, _),
        penstock(folder / "default", fake, key) as stacks[_GATHERED],
        penstock(folder / "eager", fake, key, _EAGER) as stacks[_ALONE],
        processes.worker("load", folder) as client,
    ):
        for stack in stacks.values():
            await keep_flows(stack, key, fake)
        yield _Bench(stacks=stacks, key=key, client=client)


async def _streamed(bench: _Bench, stack: str, way: Way, tokens: int) -> Sample:
    """So many streams, from the first one's beginning to the last one's end."""
    load = processes.load([way.stream[tokens]] * STREAMS, in_flight=STREAMS_IN_FLIGHT)
    return await bench.sample(stack, way, load, tokens=tokens)


def _raw_streams(at: tuple[str, str], those: Sequence[Streams]) -> list[dict[str, Any]]:
    labels = {"table": "streams", "path": at[0] + at[1]}
    few = raw([each.few for each in those], **labels, tokens=FEW)
    many = raw([each.many for each in those], **labels, tokens=MANY)
    return [*few, *many]
