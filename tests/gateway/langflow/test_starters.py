"""Every starter flow of every release of LangFlow in a folder of wheels, where PENSTOCK_LANGFLOW_WHEELS names one.

pip download --no-deps -d wheels langflow-base==1.13.0 langflow-base==0.9.0 ...
PENSTOCK_LANGFLOW_WHEELS=wheels pytest tests/gateway/langflow/test_starters.py
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from bench.langflow_starters import starters, version
from gateway.langflow import attempt
from tests.gateway.fakes import World
from tests.gateway.langflow.written import run

FOLDER = os.environ.get("PENSTOCK_LANGFLOW_WHEELS")
WHEELS = sorted(Path(FOLDER).glob("langflow_base-*.whl")) if FOLDER else []

# Those that are made of chat, texts, prompts, models, agents without tools or with local ones, memory, parsers, files, stores
# and structured output alone. Some came later, some went; some were built otherwise in between.
LOCAL = {
    "Basic Prompt Chaining", "Basic Prompting", "Diet Analysis", "Document Q&A", "Financial Report Parser", "Hybrid Search RAG",
    "Image Sentiment Analysis", "Knowledge Retrieval", "Memory Chatbot", "Multi Agent Flow", "Portfolio Website Code Generator",
    "SEO Keyword Generator", "SaaS Pricing", "Text Sentiment Analysis", "Twitter Thread Generator", "Vector Store RAG",
}  # fmt: skip
FLOWS = [
    pytest.param(json.loads(text), id=f"{version(wheel)}-{name}")
    for wheel in WHEELS
    for name, text in starters(wheel)
    if name in LOCAL
]


@pytest.mark.parametrize("export", FLOWS)
async def test_a_starter_of_local_components_runs(export: dict[str, Any]) -> None:
    world = World()
    world.generator.script = lambda request: said(request.form)
    outputs = await run(world, export, model="small", collection="squad", connection="plans")
    assert outputs
    assert all(isinstance(value, str) and value for value in outputs.values())
    assert {request.model for request in world.generator.requests} <= {"small"}
    assert {collection for collection, _, _ in world.retriever.calls} <= {"squad"}


def said(form: Any) -> str:
    """An answer in the form that is asked for."""
    if form is None:
        return "Forty-two."
    schema = json.loads(form.value)
    if "anyOf" in schema:
        return '{"answer": "Forty-two."}'
    objects = schema["properties"].get("objects")
    if objects is None:
        return json.dumps(dict.fromkeys(schema["properties"], "x"))
    return json.dumps({"objects": [dict.fromkeys(objects["items"]["properties"], "x")]})


@pytest.mark.parametrize("wheel", WHEELS, ids=version)
def test_the_others_are_refused_by_the_names_of_their_components(wheel: Path) -> None:
    for name, text in starters(wheel):
        imported, faults = attempt(text)
        assert (imported is None) == bool(faults)
        assert imported is not None or all((fault.node_id or fault.field) and fault.suggestion for fault in faults), name
