"""Part 1: what a flow costs. input -> prompt -> generate -> output, over a model that answers at once.

The same client asks the fake endpoint directly, the gateway over HTTP and the gateway over gRPC; the difference is Penstock.
"""

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from bench import processes
from bench.fake_openai import MODEL, STREAM_INTERVAL_S, STREAM_TOKENS
from bench.flow_tables import flow_tables
from bench.meter import Meter, rss_mib
from bench.plan import Plan
from bench.report import PartResult, raw
from bench.rounds import Side, Tell, turned
from penstock.cli.local import LocalStack
from penstock.clients import Penstock
from penstock.flow.v1 import flow_pb2

NAME: Final = "flow"
STREAMS_IN_FLIGHT: Final = 16
FLOW: Final = {
    "nodes": [
        {"id": "question", "type": "input"},
        {"id": "prompt", "type": "prompt", "params": {"template": "Question: {question}\nAnswer in one sentence."}},
        {"id": "model", "type": "generate", "params": {"max_tokens": 64, "temperature": 0}},
        {"id": "answer", "type": "output"},
    ],
    "edges": [
        {"source": "question", "target": "prompt"},
        {"source": "prompt", "target": "model"},
        {"source": "model", "target": "answer"},
    ],
}
_QUESTION: Final = "How many tackles did Luke Kuechly register?"
_IDLE_S: Final = 1.5
# The default bounds would refuse 128 in flight, as they should; here nothing may be refused.
_ROOM: Final = {"PENSTOCK_GENERATION_RUNNING_MAX": "256", "PENSTOCK_GENERATION_WAITING_MAX": "256"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bench:
    """What runs: the fake endpoint, a stack as it is by default, one that sends each token on its own, and the client."""

    fake: str
    fake_pid: int
    stack: LocalStack
    eager: LocalStack
    client: processes.Worker

    def pids(self, stack: LocalStack) -> dict[str, list[int]]:
        return {**processes.pids(stack), "fake": [self.fake_pid]}


async def measure(plan: Plan, folder: Path, tell: Tell) -> PartResult:
    """Runs the part."""
    async with _running(folder) as bench:
        tell("flow: idle")
        idle = await _idle(bench)
        memory = [_memory(bench)]
        unary = await _interleave(bench, plan, _unary_sides(bench), plan.in_flight, tell)
        streams = await _interleave(bench, plan, _stream_sides(bench), (STREAMS_IN_FLIGHT,), tell)
        memory.append(_memory(bench))
    samples = [
        *(each for (name, at), found in unary.items() for each in raw(found, table="unary", path=name, in_flight=at)),
        *(each for (name, at), found in streams.items() for each in raw(found, table="streams", path=name, in_flight=at)),
        {"table": "memory", "before_mib": memory[0], "after_mib": memory[1]},
        {"table": "idle", "cores": idle},
    ]
    return PartResult(name=NAME, tables=flow_tables(unary, streams, memory, idle), raw=tuple(samples))


@asynccontextmanager
async def _running(folder: Path) -> AsyncIterator[_Bench]:
    async with processes.fake_openai(folder) as (fake, fake_pid):
        engine = {
            "PENSTOCK_GENERATION_ENGINE": "openai",
            "PENSTOCK_GENERATION_OPENAI_BASE_URL": f"http://{fake}/v1",
            "PENSTOCK_GENERATION_MODEL": MODEL,
            **_ROOM,
        }
        each_token = {**engine, "PENSTOCK_GENERATION_COALESCE_TOKENS_MAX": "1"}
        names = ("generation", "gateway")
        async with (
            processes.services(folder / "default", names, engine) as stack,
            processes.services(folder / "eager", names, each_token) as eager,
            processes.worker("load", folder) as client,
        ):
            for started in (stack, eager):
                async with Penstock(started.services["gateway"].grpc) as gateway:
                    await gateway.create_flow(NAME, json.dumps(FLOW), replace=True)
            yield _Bench(fake=fake, fake_pid=fake_pid, stack=stack, eager=eager, client=client)


async def _interleave(
    bench: _Bench, plan: Plan, sides: Sequence[Side], in_flight: Sequence[int], tell: Tell
) -> dict[tuple[str, int], list[Any]]:
    """Samples by side and in flight, one a round."""
    found = defaultdict(list)
    for round_number in range(plan.rounds):
        for count in in_flight:
            for side in turned(sides, round_number):
                tell(f"flow: round {round_number + 1} of {plan.rounds}, {side.name}, {count} in flight")
                load = processes.load(side.payloads, in_flight=count, seconds=plan.seconds, warmup_s=plan.warmup_s)
                sample = await bench.client.sample(caller=side.caller, options=side.options, load=load, pids=side.pids)
                found[side.name, count].append(sample)
    return dict(found)


def _unary_sides(bench: _Bench) -> list[Side]:
    pids = bench.pids(bench.stack)
    return [
        _direct(bench, streams=False),
        _http("HTTP", bench.stack, pids, "run"),
        _grpc("gRPC", bench.stack, pids, "RunFlow"),
    ]


def _stream_sides(bench: _Bench) -> list[Side]:
    sides = [_direct(bench, streams=True)]
    for how, stack in (("", bench.stack), (", each token alone", bench.eager)):
        pids = bench.pids(stack)
        sides += [_http(f"HTTP{how}", stack, pids, "stream"), _grpc(f"gRPC{how}", stack, pids, "StreamFlow")]
    return sides


def _direct(bench: _Bench, *, streams: bool) -> Side:
    """What the generation service sends, sent by the client itself."""
    content = FLOW["nodes"][1]["params"]["template"].format(question=_QUESTION)  # type: ignore[index]
    body = {
        "model": MODEL,
        "max_tokens": 64,
        "messages": [{"role": "user", "content": content}],
        "temperature": 0.0,
        **({"stream": True, "stream_options": {"include_usage": True}} if streams else {}),
    }
    options = {"target": bench.fake, "path": "/v1/chat/completions", "dialect": "openai"}
    return Side(name="direct", caller="http", options=options, payloads=[orjson.dumps(body)], pids={"fake": [bench.fake_pid]})


def _http(name: str, stack: LocalStack, pids: Mapping[str, list[int]], verb: str) -> Side:
    options = {"target": stack.services["gateway"].http, "path": f"/v1/flows/{NAME}:{verb}", "dialect": "penstock"}
    payload = orjson.dumps({"inputs": {"question": _QUESTION}})
    return Side(name=name, caller="http", options=options, payloads=[payload], pids=pids)


def _grpc(name: str, stack: LocalStack, pids: Mapping[str, list[int]], method: str) -> Side:
    full = f"/penstock.flow.v1.RunService/{method}"
    options = {"target": stack.services["gateway"].grpc, "method": full, "streams": method == "StreamFlow"}
    # Both methods' requests have these fields alike.
    request = flow_pb2.RunFlowRequest(name=f"flows/{NAME}")
    request.inputs["question"] = _QUESTION
    return Side(name=name, caller="grpc", options=options, payloads=[request.SerializeToString()], pids=pids)


async def _idle(bench: _Bench) -> dict[str, float]:
    """Cores that each group takes while nobody asks anything, and that everything else takes."""
    meter = Meter(bench.pids(bench.stack))
    begun = meter.read()
    await asyncio.sleep(_IDLE_S)
    used = meter.read().since(begun)
    return {**{name: cpu_s / used.at for name, cpu_s in used.cpu_s.items()}, "everything else": used.other_cores()}


def _memory(bench: _Bench) -> dict[str, float]:
    return {name: rss_mib(members[0]) for name, members in bench.pids(bench.stack).items()}


STREAM_NOTE: Final = f"{STREAM_TOKENS} tokens, one every {1000 * STREAM_INTERVAL_S:.0f} ms"
