"""The generation service itself, over an engine that answers in whatever form it is asked for."""

import asyncio
import json
from contextlib import AbstractContextManager
from typing import Any

from opentelemetry.metrics import NoOpMeter
from opentelemetry.trace import NoOpTracer

from generation_svc.admission import Admission
from generation_svc.coalescing import Coalescing
from generation_svc.engine import Answer, Delta, Feature, Finished, FinishReason, GenerationRequest, Usage
from generation_svc.generation import Generation
from generation_svc.metrics import GenerationMetrics
from generation_svc.servicer import GenerationServicer
from penstock.generation.v1.generation_pb2_grpc import add_GenerationServiceServicer_to_server
from penstock.histograms import Histograms
from tests.generation_svc.fakes import FakeEngine
from tests.penstock.clients.service_thread import in_a_thread, served

SERVICE = "penstock.generation.v1.GenerationService"


class FormEngine(FakeEngine):
    """Answers a schema with the shortest value of it, anything else with words, and what a tool has said with a text."""

    async def generate(self, request: GenerationRequest) -> Answer:
        self.requests.append(request)
        form, newest = request.structured_output, request.messages[-1].content
        if form is None:
            text = "one two three four five"
        elif form.kind is Feature.JSON_OBJECT:
            text = json.dumps({"setup": "Why?", "punchline": newest})
        elif form.kind is Feature.CHOICE:
            text = form.choices[0]
        else:
            schema = json.loads(form.value)
            prefers = 1 if " answered:\n" in newest or " failed:\n" in newest else 0
            text = json.dumps(shortest(schema, schema, newest, prefers), ensure_ascii=False)
        for stop in request.sampling.stop:
            text = text.partition(stop)[0]
        pieces = [text[at : at + 5] for at in range(0, len(text), 5)]
        for piece in pieces:
            await asyncio.sleep(self.pause_s)
            yield Delta(text=piece, token_count=1)
        yield Finished(finish_reason=FinishReason.STOP, usage=Usage(input_tokens=9, output_tokens=len(pieces), cached_tokens=1))


def shortest(schema: dict[str, Any], root: dict[str, Any], text: str, prefers: int = 0) -> Any:
    """A value that is valid by the schema; every text in it is `text`, every number 3."""
    if "$ref" in schema:
        found: Any = root
        for part in schema["$ref"][2:].split("/"):
            found = found[part]
        return shortest(found, root, text)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    if "anyOf" in schema:
        choices = schema["anyOf"]
        return shortest(choices[min(prefers, len(choices) - 1)], root, text)
    return of_type(schema, root, text)


def of_type(schema: dict[str, Any], root: dict[str, Any], text: str) -> Any:
    kind = schema.get("type")
    if kind == "object":
        properties = schema.get("properties", {})
        return {name: shortest(properties[name], root, text) for name in schema.get("required", properties)}
    if kind == "array":
        return [shortest(schema["items"], root, text)] * schema.get("minItems", 0)
    return {"integer": 3, "number": 3, "boolean": True, "null": None}.get(kind, text)


def generation_service(engine: FakeEngine) -> AbstractContextManager[str]:
    """Its address, while it serves."""
    core = Generation(
        engine=engine,
        admission=Admission(running_max=8, waiting_max=8),
        coalescing=Coalescing(tokens_max=8, delay_max_s=0.001),
        tracer=NoOpTracer(),
        metrics=GenerationMetrics(NoOpMeter("test"), Histograms()),
    )
    return in_a_thread(
        served(SERVICE, lambda mounting: add_GenerationServiceServicer_to_server(GenerationServicer(core), mounting))
    )
