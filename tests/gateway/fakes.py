"""Backends and a store that do what a test says, and flow documents in few words."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from gateway.backends import (
    Answer,
    Backends,
    Delta,
    Finish,
    GenerateRequest,
    Scalar,
    Scores,
    SearchRequest,
    SqlQuery,
    Table,
    Vectors,
    WebAnswer,
    WebRequest,
)  # fmt: skip
from gateway.compiler import CompiledFlow, Compiler, RunLimits
from gateway.execution import Run
from gateway.flows import StoredFlow
from gateway.sessions import MemorySessions
from gateway.validation import validate
from gateway.values import Document
from gateway.variables import Variables
from penstock.errors import AlreadyExists, FlowMisconfigured, FlowNotFound

NOW = datetime(2026, 3, 14, 15, 9, 26, tzinfo=UTC)
UNSAMPLED = TracerProvider(sampler=ALWAYS_OFF)
FINISH = Finish(reason="stop", input_tokens=3, output_tokens=2, model="fake")


def passage(number: int, text: str = "") -> Document:
    return Document(
        chunk_id=f"c{number}",
        document_id=f"d{number}",
        text=text or f"passage {number}",
        score=1.0 / number,
        metadata={"n": number},
    )


class FakeRetriever:
    """Finds `documents`, once whatever `before` waits for has happened."""

    def __init__(self) -> None:
        self.documents = (passage(1), passage(2))
        self.calls: list[tuple[str, str | None, int]] = []
        self.searches: list[SearchRequest] = []
        self.embedded: list[tuple[str, tuple[str, ...], str]] = []
        self.before: Callable[[str], Any] | None = None
        self.cancelled = asyncio.Event()

    async def search(self, request: SearchRequest) -> tuple[Document, ...]:
        self.calls.append((request.collection, request.text, request.top_k))
        self.searches.append(request)
        try:
            if self.before is not None:
                await self.before(request.collection)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return self.documents[: request.top_k]

    async def embed(self, model: str, texts: Sequence[str], purpose: str) -> Vectors:
        self.embedded.append((model, tuple(texts), purpose))
        return Vectors(vectors=tuple((float(len(text)), 0.5) for text in texts), input_tokens=len(texts))


class FakeGenerator:
    """Says `texts`, one delta each, and counts what was taken of them; or `answer` and `parts` as they are.

    A test that needs other answers gives a `script`: of a list, each request takes the next; a function is asked with the
    request. An answer is a text or an error to raise.
    """

    def __init__(self) -> None:
        self.script: list[str | Exception] | Callable[[GenerateRequest], str | Exception] | None = None
        self.texts: list[str] = ["It ", "was ", "Denver."]
        self.answer: Answer | None = None
        self.parts: list[Delta | Finish] = []
        self.requests: list[GenerateRequest] = []
        self.before: Callable[[GenerateRequest], Any] | None = None
        self.taken = 0
        self.closed = asyncio.Event()
        self.finishes = True

    async def generate(self, request: GenerateRequest) -> Answer:
        self.requests.append(request)
        try:
            if self.before is not None:
                await self.before(request)
        finally:
            self.closed.set()
        return self.answer or Answer(text="".join(self._next(request)), finish=FINISH)

    async def stream(self, request: GenerateRequest) -> AsyncGenerator[Delta | Finish, None]:
        self.requests.append(request)
        try:
            for part in self.parts or [Delta(text=text) for text in self._next(request)]:
                if self.before is not None:
                    await self.before(request)
                self.taken += 1
                yield part
            if self.finishes and not self.parts:
                yield FINISH
        finally:
            self.closed.set()

    def _next(self, request: GenerateRequest) -> list[str]:
        if self.script is None:
            return self.texts
        if isinstance(self.script, list):
            assert self.script, f"the script has no answer left for {request}"
            said = self.script.pop(0)
        else:
            said = self.script(request)
        if isinstance(said, Exception):
            raise said
        return [said]


class FakeDatabases:
    """Gives `rows`, or raises `error`, whatever is asked."""

    def __init__(self) -> None:
        self.rows: list[Mapping[str, Any]] = []
        self.error: Exception | None = None
        self.calls: list[tuple[str, str, Mapping[str, Scalar]]] = []

    async def query(self, connection: str, query: SqlQuery, values: Mapping[str, Scalar], rows_max: int) -> Table:
        self.calls.append((connection, "?".join(query.pieces), values))
        if self.error is not None:
            raise self.error
        return Table(rows=tuple(self.rows[:rows_max]), is_whole=len(self.rows) <= rows_max)


class FakeWeb:
    """Gives `answer`, whatever is asked."""

    def __init__(self) -> None:
        self.answer = WebAnswer(status=200, text='{"ok": true}')
        self.requests: list[WebRequest] = []
        self.secrets: dict[str, str] = {}

    async def send(self, request: WebRequest) -> WebAnswer:
        self.requests.append(request)
        return self.answer

    def secret(self, name: str) -> str:
        if name not in self.secrets:
            raise FlowMisconfigured(f"there is no secret {name!r}")
        return self.secrets[name]


class FakePooling:
    """Embeds and scores by the lengths of texts."""

    def __init__(self) -> None:
        self.embedded: list[tuple[str, tuple[str, ...]]] = []
        self.reranked: list[tuple[str, str, tuple[str, ...]]] = []

    async def embed(self, model: str, texts: Sequence[str]) -> Vectors:
        self.embedded.append((model, tuple(texts)))
        return Vectors(vectors=tuple((float(len(text)), 0.25) for text in texts), input_tokens=len(texts))

    async def rerank(self, model: str, query: str, documents: Sequence[str]) -> Scores:
        self.reranked.append((model, query, tuple(documents)))
        return Scores(scores=tuple(float(len(text)) for text in documents), input_tokens=2 * len(documents))


class MemoryFlowStore:
    """The FlowStore in a dict."""

    def __init__(self) -> None:
        self.flows: dict[str, StoredFlow] = {}
        self.reads = 0

    async def put(self, flow: StoredFlow, *, replace: bool) -> StoredFlow:
        kept = self.flows.get(flow.flow_id)
        if kept is not None and kept.content_hash == flow.content_hash:
            return kept
        if kept is not None and not replace:
            raise AlreadyExists("taken")
        self.flows[flow.flow_id] = flow
        return flow

    async def get(self, flow_id: str) -> StoredFlow | None:
        self.reads += 1
        await asyncio.sleep(0)
        return self.flows.get(flow_id)

    async def page(self, after: str, limit: int) -> tuple[StoredFlow, ...]:
        found = [replace(self.flows[flow_id], document="") for flow_id in sorted(self.flows) if flow_id > after]
        return tuple(found[:limit])

    async def delete(self, flow_id: str) -> bool:
        return self.flows.pop(flow_id, None) is not None

    async def resolve(self, alias: str) -> str | None:
        self.reads += 1
        owners = [flow for flow in self.flows.values() if alias in flow.aliases]
        return min(owners, key=lambda flow: flow.create_time).flow_id if owners else None


class FakeSubflows:
    """Flows by their names, out of `documents`."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self.documents: dict[str, str] = {}

    async def run(self, flow_id: str, inputs: Mapping[str, Any], run: Run) -> Mapping[str, Any]:
        if flow_id not in self.documents:
            raise FlowNotFound(f"there is no flow {flow_id!r}")
        return await self._world.compile(self.documents[flow_id]).run_inside(inputs, run)


class World:
    """Fakes and a compiler over them."""

    def __init__(
        self, provider: TracerProvider | None = None, limits: RunLimits | None = None, *, content: bool = False
    ) -> None:
        self.retriever = FakeRetriever()
        self.generator = FakeGenerator()
        self.pooling = FakePooling()
        self.sessions = MemorySessions()
        self.subflows = FakeSubflows(self)
        self.databases = FakeDatabases()
        self.web = FakeWeb()
        self.compiler = Compiler(
            backends=Backends(
                retriever=self.retriever,
                generator=self.generator,
                sessions=self.sessions,
                subflows=self.subflows,
                databases=self.databases,
                web=self.web,
                variables=Variables({}, now=lambda: NOW),
                embedder=self.pooling,
                reranker=self.pooling,
            ),
            tracer=(provider or UNSAMPLED).get_tracer("test"),
            limits=limits or RunLimits(),
            capture_content=content,
        )

    def compile(self, document: str) -> CompiledFlow:
        return self.compiler.compile(validate(document))


def node(node_id: str, kind: str, **params: Any) -> dict[str, Any]:
    return {"id": node_id, "type": kind, "params": params}


def document(*nodes: Mapping[str, Any], edges: list[str]) -> str:
    """A flow document; an edge is "source > target"."""
    pairs = [edge.split(" > ") for edge in edges]
    return json.dumps({"nodes": nodes, "edges": [{"source": source, "target": target} for source, target in pairs]})


CHAT = document(
    node("question", "input"),
    node("prompt", "prompt", template="Q: {question}"),
    node("model", "generate", max_tokens=16),
    node("answer", "output"),
    edges=["question > prompt", "prompt > model", "model > answer"],
)
RAG = document(
    node("question", "input"),
    node("docs", "retrieve", collection="squad", top_k=2),
    node("prompt", "prompt", template="{context}\n\nQ: {question}"),
    node("model", "generate"),
    node("answer", "output"),
    edges=["question > docs", "docs > prompt", "question > prompt", "prompt > model", "model > answer"],
)
TWO_SEARCHES = document(
    node("question", "input"),
    node("left", "retrieve", collection="left"),
    node("right", "retrieve", collection="right"),
    node("both", "prompt", template="{left}|{right}"),
    node("answer", "output"),
    edges=["question > left", "question > right", "left > both", "right > both", "both > answer"],
)
ECHO = document(
    node("text", "input"),
    node("loud", "transform", operation="upper"),
    node("answer", "output"),
    edges=["text > loud", "loud > answer"],
)
