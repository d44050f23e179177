"""Part 3: what the way to the model costs. The same prompts to the engine itself, and to it through gateway and service.

Prefix caching is off in both engines and no prompt comes twice, so that no side finds another's work done.
"""

from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from bench import processes
from bench.closed_loop import Sample
from bench.corpus import prompts
from bench.meter import family
from bench.plan import Plan
from bench.report import PartResult, raw
from bench.rounds import Tell, turned
from bench.tokens_tables import tokens_tables
from penstock.cli.local import LocalStack
from penstock.clients import Penstock
from penstock.flow.v1 import flow_pb2

NAME: Final = "tokens"
SIDES: Final = ("engine", "gRPC", "HTTP")
_SETTINGS: Final = {"PENSTOCK_GENERATION_OPENVINO_PREFIX_CACHING": "false"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bench:
    stack: LocalStack
    engine: processes.Worker
    client: processes.Worker
    answer_tokens: int

    async def ask(self, side: str, texts: Sequence[str], in_flight: int) -> Sample:
        """Sends every prompt once to one side."""
        load = processes.load([self._payload(side, text) for text in texts], in_flight=in_flight)
        if side == "engine":
            return await self.engine.sample(load=load, pids={"engine": family(self.engine.pid)[1:]})
        return await self.client.sample(caller=side.lower(), options=self._options(side), load=load, pids=self._pids())

    def _payload(self, side: str, text: str) -> bytes:
        if side == "engine":
            return orjson.dumps({"prompt": text, "max_tokens": self.answer_tokens})
        if side == "HTTP":
            return orjson.dumps({"inputs": {"prompt": text}})
        request = flow_pb2.StreamFlowRequest(name=f"flows/{NAME}")
        request.inputs["prompt"] = text
        return request.SerializeToString()

    def _options(self, side: str) -> dict[str, Any]:
        gateway = self.stack.services["gateway"]
        if side == "HTTP":
            return {"target": gateway.http, "path": f"/v1/flows/{NAME}:stream", "dialect": "penstock"}
        return {"target": gateway.grpc, "method": "/penstock.flow.v1.RunService/StreamFlow", "streams": True}

    def _pids(self) -> dict[str, list[int]]:
        gateway, generation = (self.stack.services[name].process.pid for name in ("gateway", "generation"))
        return {"gateway": [gateway], "generation": [generation], "engine": family(generation)[1:]}


async def measure(plan: Plan, folder: Path, tell: Tell) -> PartResult:
    """Runs the part."""
    found: dict[tuple[str, int], list[Sample]] = defaultdict(list)
    tell("tokens: loading the model twice")
    async with _running(plan, folder) as bench:
        skip = await _warm(bench)
        for round_number in range(plan.rounds):
            for in_flight, count in ((1, plan.prompts_alone), (plan.prompts_together, plan.prompts_together)):
                texts = prompts(count, skip=skip)
                skip += count
                for side in turned(SIDES, round_number):
                    tell(f"tokens: round {round_number + 1} of {plan.rounds}, {side}, {in_flight} at once")
                    found[side, in_flight].append(await bench.ask(side, texts, in_flight))
    samples = [each for (side, at), rounds in found.items() for each in raw(rounds, table="tokens", path=side, in_flight=at)]
    return PartResult(name=NAME, tables=tokens_tables(found), raw=tuple(samples))


@asynccontextmanager
async def _running(plan: Plan, folder: Path) -> AsyncIterator[_Bench]:
    async with (
        processes.services(folder, ("generation", "gateway"), _SETTINGS) as stack,
        processes.worker("engine", folder, _SETTINGS) as engine,
        processes.worker("load", folder) as client,
    ):
        async with Penstock(stack.services["gateway"].grpc) as gateway:
            await gateway.create_flow(NAME, orjson.dumps(_flow(plan)).decode(), replace=True)
        yield _Bench(stack=stack, engine=engine, client=client, answer_tokens=plan.answer_tokens)


async def _warm(bench: _Bench) -> int:
    """The first request of an engine is slower. Returns how many prompts it took."""
    for side in SIDES:
        await bench.ask(side, prompts(1, skip=0), 1)
    return 1


def _flow(plan: Plan) -> dict[str, Any]:
    return {
        "nodes": [
            {"id": "prompt", "type": "input"},
            {"id": "model", "type": "generate", "params": {"max_tokens": plan.answer_tokens, "temperature": 0}},
            {"id": "answer", "type": "output"},
        ],
        "edges": [{"source": "prompt", "target": "model"}, {"source": "model", "target": "answer"}],
    }
