"""A gateway with flows of several shapes, and OpenAI's own client against it."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.gateway.fakes import ECHO, RAG, document, node
from tests.gateway.serving import Stack, serving

TWO_MODELS = document(
    node("question", "input"),
    node("language", "input", type="text", required=False),
    node("rewrite", "generate"),
    node("prompt", "prompt", template="{rewrite} in {language}"),
    node("model", "generate"),
    node("answer", "output"),
    node("rewritten", "output"),
    edges=[
        "question > rewrite", "rewrite > prompt.rewrite", "language > prompt.language", "prompt > model", "model > answer",
        "rewrite > rewritten",
    ],
)  # fmt: skip
COUNTING = document(
    node("n", "input", type="number"),
    node("q", "input", required=False),
    node("o", "output"),
    edges=["n > o"],
)
NUMBERS = document(node("n", "input", type="number"), node("o", "output"), edges=["n > o"])
TURNS = document(
    node("question", "input"),
    node("turns", "history", operation="read"),
    node("prompt", "prompt", template="{turns}"),
    node("answer", "output"),
    edges=["turns.text > prompt", "prompt > answer"],
)
ASSISTANT = document(
    node("question", "input"),
    node("model", "generate", history=True, tools="caller"),
    node("answer", "output"),
    edges=["question > model", "model.text > answer"],
)
INNER = TWO_MODELS.replace('"type": "generate", "params": {}', '"type": "generate", "params": {"caller_sampling": false}', 1)
MEMORY = document(
    node("question", "input"),
    node("turns", "history", operation="read"),
    node("kept", "history", operation="append", role="user"),
    node("answer", "output"),
    edges=["turns.text > answer", "question > kept"],
)
BRANCHING = document(
    node("question", "input"),
    node("by_length", "switch", type="text", cases=[{"name": "long", "when": "size(value) > 5"}], otherwise="short"),
    node("model", "generate"),
    node("refusal", "prompt", template="Too short.{text}"),
    node("nothing", "transform", operation="replace", old="hi", new=""),
    node("either", "join", inputs=["long", "short"]),
    node("answer", "output"),
    edges=[
        "question > by_length.value", "by_length.long > model.prompt", "by_length.short > nothing", "nothing > refusal.text",
        "model.text > either.long", "refusal > either.short", "either.value > answer",
    ],
)  # fmt: skip
FLOWS = {
    "rag": RAG,
    "echo": ECHO,
    "two": TWO_MODELS,
    "turns": TURNS,
    "assistant": ASSISTANT,
    "inner": INNER,
    "memory": MEMORY,
    "branching": BRANCHING,
    "counting": COUNTING,
    "numbers": NUMBERS,
    "closed": json.dumps({**json.loads(RAG), "overrides": "none"}),
    "open": json.dumps({**json.loads(RAG), "overrides": "all"}),
}


@pytest.fixture
def settings() -> dict[str, Any]:
    """What a test sets of the gateway."""
    return {}


@pytest.fixture
async def stack(tmp_path: Path, settings: dict[str, Any]) -> AsyncIterator[Stack]:
    flows = tmp_path / "flows"
    flows.mkdir()
    for name, text in FLOWS.items():
        (flows / f"{name}.json").write_text(text)
    async with serving(tmp_path, flows_dir=flows, **settings) as started:
        yield started


@pytest.fixture
async def client(stack: Stack) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{stack.url}/v1", api_key="none", max_retries=0, timeout=10) as connected:
        yield connected
