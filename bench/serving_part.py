"""Part serving: what the generation service adds to vLLM. The same requests to AsyncLLM in its own process, to the service over
gRPC, and to vLLM's own OpenAI server.

Needs vLLM's environment (make vllm). Prefix caching is off on every side, so that none finds another's work done; prompts are
raw texts of the example corpus, answers have exactly `answer_tokens` tokens.
"""

from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Final

import orjson

from bench import processes, vllm_environment
from bench.closed_loop import Sample
from bench.corpus import prompts
from bench.meter import family
from bench.plan import Plan
from bench.report import PartResult, raw
from bench.rounds import Tell, turned
from bench.serving_tables import serving_tables
from penstock.generation.v1 import generation_pb2 as pb

NAME: Final = "serving"
SIDES: Final = ("AsyncLLM", "gRPC", "vllm serve")
WINDOW_TOKENS: Final = 2048
_PROMPTS: Final = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bench:
    direct: processes.Worker
    client: processes.Worker
    service: processes.Running
    server: processes.Running
    answer_tokens: int

    async def ask(self, side: str, texts: Sequence[str], in_flight: int) -> Sample:
        """Sends every prompt once to one side."""
        load = processes.load([self._payload(side, text) for text in texts], in_flight=in_flight)
        if side == "AsyncLLM":
            engine = family(self.direct.pid)[1:]
            return await self.direct.sample(load=load, pids={"engine": engine, "server": []})
        running = self.service if side == "gRPC" else self.server
        caller, options = self._caller(side)
        pids = {"server": [running.pid], "engine": family(running.pid)[1:]}
        return await self.client.sample(caller=caller, options=options, load=load, pids=pids)

    def _caller(self, side: str) -> tuple[str, Mapping[str, Any]]:
        if side == "gRPC":
            return "generate", {"target": self.service.address}
        return "http", {"target": self.server.address, "path": "/v1/completions", "dialect": "completions"}

    def _payload(self, side: str, text: str) -> bytes:
        tokens = self.answer_tokens
        if side == "gRPC":
            sampling = pb.Sampling(max_tokens=tokens, min_tokens=tokens, temperature=0.0)
            return pb.StreamGenerateRequest(model="models/default", prompt=text, sampling=sampling).SerializeToString()
        asked: dict[str, Any] = {"prompt": text, "max_tokens": tokens}
        if side == "vllm serve":
            asked |= {"model": vllm_environment.MODEL, "min_tokens": tokens, "temperature": 0.0, "stream": True}
            asked |= {"stream_options": {"include_usage": True}}
        return orjson.dumps(asked)


async def measure(plan: Plan, folder: Path, tell: Tell) -> PartResult:
    """Runs the part."""
    found: dict[tuple[str, int], list[Sample]] = defaultdict(list)
    texts = prompts(_PROMPTS, skip=0)
    async with _running(plan, folder, tell) as bench:
        for side in SIDES:  # The first request of an engine is slower.
            await bench.ask(side, texts[:1], 1)
        for round_number in range(plan.rounds):
            for in_flight in plan.streams:
                asked = list(islice(cycle(texts), max(plan.prompts_alone, plan.stream_turns * in_flight)))
                for side in turned(SIDES, round_number):
                    tell(f"{NAME}: round {round_number + 1} of {plan.rounds}, {side}, {in_flight} streams")
                    found[side, in_flight].append(await bench.ask(side, asked, in_flight))
    samples = [each for (side, at), rounds in found.items() for each in raw(rounds, table=NAME, path=side, in_flight=at)]
    return PartResult(name=NAME, tables=serving_tables(found, plan), raw=tuple(samples))


@asynccontextmanager
async def _running(plan: Plan, folder: Path, tell: Tell) -> AsyncIterator[_Bench]:
    async with AsyncExitStack() as stack:
        tell(f"{NAME}: making the checkpoint")
        model = await vllm_environment.loaded(plan, folder, sequences_max=max(plan.streams), window=WINDOW_TOKENS)
        settings = model.settings(vllm_prefix_caching=False)
        tell(f"{NAME}: loading the model three times")
        client = await stack.enter_async_context(processes.worker("load", folder))
        python = vllm_environment.python()
        direct = await stack.enter_async_context(processes.worker("vllm", folder, settings, python=python))
        await direct.ask("ready")
        service = await stack.enter_async_context(vllm_environment.service(folder, settings))
        server = await stack.enter_async_context(vllm_environment.openai_server(folder, model, prefix_caching=False))
        yield _Bench(direct=direct, client=client, service=service, server=server, answer_tokens=plan.stream_tokens)
