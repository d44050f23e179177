"""`penstock bench generate` against a real gRPC server whose answers come in known steps."""

import asyncio
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from rich.console import Console

from penstock.cli.benchmark.generating import bench_generation
from penstock.cli.benchmark.generating_lengths import parse_lengths
from penstock.cli.benchmark.generating_options import GenerationBench
from penstock.cli.benchmark.generating_search import Promise
from penstock.cli.benchmark.generating_sizing import Demand
from penstock.errors import ModelNotFound
from penstock.generation.v1 import generation_pb2 as pb
from penstock.generation.v1 import generation_pb2_grpc

FIRST_S = 0.02
DELTA_S = 0.01
DELTA_TOKENS = 4
TEMPLATE_TOKENS = 12


class Service(generation_pb2_grpc.GenerationServiceServicer):
    """The first token after FIRST_S, then DELTA_TOKENS every DELTA_S; refuses who comes when `running_max` are under way."""

    def __init__(self) -> None:
        self.features = ["min_tokens"]
        self.asked: list[pb.StreamGenerateRequest] = []
        self.running = self.most = 0
        self.running_max = 1000
        self.fault: grpc.StatusCode | None = None
        self.target = ""

    async def ListModels(self, request: Any, context: Any) -> pb.ListModelsResponse:
        names = ("models/small", "models/large")
        return pb.ListModelsResponse(
            models=[
                pb.Model(name=name, engine="fake", precision="bf16", context_window=4096, features=self.features)
                for name in names
            ]
        )

    async def GetLoad(self, request: Any, context: Any) -> pb.GetLoadResponse:
        return pb.GetLoadResponse(running_max=3, waiting_max=1)

    async def StreamGenerate(self, request: pb.StreamGenerateRequest, context: Any) -> AsyncIterator[pb.StreamGenerateResponse]:
        self.asked.append(request)
        if self.running >= self.running_max:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "1 runs and none may wait")
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            async for event in self._answer(request, context):
                yield event
        finally:
            self.running -= 1

    async def _answer(self, request: pb.StreamGenerateRequest, context: Any) -> AsyncIterator[pb.StreamGenerateResponse]:
        words = len((request.prompt or request.messages[0].content).split())
        left = request.sampling.max_tokens
        await asyncio.sleep(FIRST_S)
        tokens = 1
        while left:
            if self.fault and left < request.sampling.max_tokens:
                await context.abort(self.fault, "the model is on fire")
            yield pb.StreamGenerateResponse(delta=pb.StreamGenerateResponse.Delta(text="x" * tokens, token_count=tokens))
            left -= tokens
            tokens = min(DELTA_TOKENS, left)
            await asyncio.sleep(DELTA_S)
        usage = pb.Usage(
            input_tokens=TEMPLATE_TOKENS + words, output_tokens=request.sampling.max_tokens, cached_tokens=words // 2
        )
        timings = pb.Timings(queued_s=0.001, first_token_s=FIRST_S, done_s=FIRST_S + 4 * DELTA_S)
        done = pb.StreamGenerateResponse.Done(finish_reason=pb.FINISH_REASON_LENGTH, usage=usage, timings=timings)
        yield pb.StreamGenerateResponse(done=done)


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    servicer, server = Service(), grpc.aio.server()
    generation_pb2_grpc.add_GenerationServiceServicer_to_server(servicer, server)
    servicer.target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    yield servicer
    await server.stop(None)


def options(service: Service, *, prompts: str = "100", answers: str = "17", **more: Any) -> GenerationBench:
    lengths = {"prompt_tokens": parse_lengths(prompts, ""), "output_tokens": parse_lengths(answers, "")}
    defaults: dict[str, Any] = {"seconds": 0.5, "warmup_s": 0.1, "concurrencies": (1, 3)}
    return GenerationBench(target=service.target, **lengths, **defaults | more)


async def benched(asked: GenerationBench) -> str:
    console = Console(file=io.StringIO(), width=200)
    await bench_generation(asked, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


async def windows_of(asked: GenerationBench, file: Path) -> list[dict[str, Any]]:
    await benched(asked)
    windows: list[dict[str, Any]] = json.loads(file.read_bytes())["windows"]
    return windows


async def test_every_concurrency_has_its_throughput_and_times_in_table_file_and_plot(service: Service, tmp_path: Path) -> None:
    said = await benched(options(service, json_file=tmp_path / "n.json", plot_file=tmp_path / "p.png"))
    one, three = json.loads((tmp_path / "n.json").read_bytes())["windows"]
    assert (one["setting"], three["setting"], service.most) == (1, 3, 3)
    assert three["answers"] > one["answers"] > 0
    assert one["ttft_ms"]["p50"] >= 900 * FIRST_S
    assert one["latency_ms"]["p50"] >= 900 * (FIRST_S + 4 * DELTA_S)
    assert one["service_ms"]["first token"]["p50"] == pytest.approx(1000 * FIRST_S)
    assert one["service_ms"]["per token"]["p50"] == pytest.approx(4000 * DELTA_S / 16)
    assert one["in_flight"] == pytest.approx(1, abs=0.2)
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    assert "models/small (fake, bf16); prompts 100 tokens, answers 17; closed loop" in said
    assert "By the service's own clock" in said


async def test_prompts_and_answers_have_the_lengths_that_were_asked_for(service: Service, tmp_path: Path) -> None:
    asked = options(service, prompts="uniform:60:140", shared_prefix_tokens=40, json_file=tmp_path / "n.json")
    one, _ = await windows_of(asked, tmp_path / "n.json")
    assert one["output_tokens"]["least"] == one["output_tokens"]["most"] == 17
    assert 60 <= one["input_tokens"]["least"] < one["input_tokens"]["most"] <= 140
    assert one["cached_share"] == pytest.approx(0.4, abs=0.1)
    sent = service.asked[2:]  # Behind the probes.
    assert {request.sampling.min_tokens for request in sent} == {17}
    assert len({request.messages[0].content for request in sent}) == len(sent)
    assert len({tuple(request.messages[0].content.split()[:40]) for request in sent}) == 1


async def test_an_open_loop_offers_its_rates_whatever_the_answers_do(service: Service, tmp_path: Path) -> None:
    said = await benched(options(service, rates=(20.0, 60.0), json_file=tmp_path / "n.json"))
    few, many = json.loads((tmp_path / "n.json").read_bytes())["windows"]
    assert (few["setting"], many["setting"]) == (20.0, 60.0)
    assert many["asked_per_s"] > few["asked_per_s"] > 0
    assert "offered/s" in said
    assert "the moment that was drawn for it" in said


async def test_refusals_and_failures_are_counted_apart_and_told(service: Service, tmp_path: Path) -> None:
    service.running_max = 1
    said = await benched(options(service, concurrencies=(3,), json_file=tmp_path / "n.json"))
    (window,) = json.loads((tmp_path / "n.json").read_bytes())["windows"]
    assert window["refused"] > 0
    assert window["answers"] > 0
    assert window["faults"] == {}
    assert "RESOURCE_EXHAUSTED: 1 runs and none may wait" in said


async def test_a_stream_that_fails_on_its_way_is_an_error_with_its_words(service: Service, tmp_path: Path) -> None:
    asked = options(service, concurrencies=(2,), json_file=tmp_path / "n.json")
    service.fault = grpc.StatusCode.UNAVAILABLE
    said = await benched(asked)
    (window,) = json.loads((tmp_path / "n.json").read_bytes())["windows"]
    assert window["answers"] == 0
    assert window["faults"]["UNAVAILABLE"] > 0
    assert "UNAVAILABLE: the model is on fire" in said
    assert "nothing was answered" in said


async def test_the_named_model_is_asked_and_one_that_is_not_there_is_refused_with_those_that_are(service: Service) -> None:
    await benched(options(service, model="large", concurrencies=(1,)))
    assert {request.model for request in service.asked} == {"models/large"}
    with pytest.raises(ModelNotFound, match="there is no models/huge; the service has models/small, models/large"):
        await benched(options(service, model="huge"))


async def test_without_min_tokens_answers_may_end_early_and_are_not_asked_not_to(service: Service) -> None:
    service.features = []
    await benched(options(service, concurrencies=(1,)))
    assert not any(request.sampling.HasField("min_tokens") for request in service.asked)


async def test_a_files_requests_are_what_is_sent(service: Service, tmp_path: Path) -> None:
    file = tmp_path / "asked.jsonl"
    file.write_text('{"prompt": "one two", "output_tokens": 3}\n{"prompt": "three", "output_tokens": 5}\n')
    said = await benched(options(service, file=file, concurrencies=(1,)))
    sent = {(request.prompt, request.sampling.max_tokens) for request in service.asked[2:]}
    assert sent == {("one two", 3), ("three", 5)}
    assert "prompts as asked.jsonl has them" in said


async def test_with_a_limit_a_rate_is_found_and_settings_and_replicas_are_told(service: Service, tmp_path: Path) -> None:
    service.running_max = 30  # So that there is an end: beyond some rate requests are lost.
    asked = options(
        service,
        promise=Promise(ttft_p95_ms=60_000.0, itl_p95_ms=60_000.0),
        demand=Demand(users=1000, think_s=1.0),
        seconds=0.2,
        trials=8,
        json_file=tmp_path / "n.json",
        plot_file=tmp_path / "p.png",
    )
    said = await benched(asked)
    numbers = json.loads((tmp_path / "n.json").read_bytes())
    assert numbers["alone"]["setting"] == 1
    assert len(numbers["found"]["tried"]) <= 8
    assert numbers["found"]["rate"] in {each["rate"] for each in numbers["found"]["tried"]}
    assert any(each["broken"] for each in numbers["found"]["tried"])
    assert numbers["sizing"]["running_max"] <= 3, "what the service said of itself"
    assert f"PENSTOCK_GENERATION_RUNNING_MAX={numbers['sizing']['running_max']}" in said
    assert f"replicas {numbers['sizing']['replicas']}" in said
    assert "1000 users / " in said
    assert "lost" in said
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


async def test_a_limit_that_one_request_alone_breaks_is_told_at_once(service: Service, tmp_path: Path) -> None:
    promise = Promise(ttft_p95_ms=1.0)
    said = await benched(options(service, promise=promise, json_file=tmp_path / "n.json"))
    numbers = json.loads((tmp_path / "n.json").read_bytes())
    assert "Nothing keeps p95 TTFT within 1 ms: one request at a time does not already." in said
    assert (numbers["windows"], "sizing" in numbers) == ([], False)
    assert service.most == 1
