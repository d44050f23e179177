"""A typed client of flow.v1, the gateway's own surface: keeping flows and running them.

    async with Penstock("127.0.0.1:50050") as client:
        result = await client.run("rag", {"question": "Who designed the tower?"})
        async for event in client.stream("rag", {"question": "Who designed the tower?"}):
            if isinstance(event, Token):
                print(event.text, end="")

Leaving a stream's loop stops the run.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, TypedDict, Unpack

import orjson

from penstock.clients.connection import LONG_TIMEOUT_S, TIMEOUT_S, Client, items_of, resource_name, short_name
from penstock.clients.generation import Usage
from penstock.clients.structs import from_struct, to_struct
from penstock.errors import InvalidFlow, Violation
from penstock.flow.v1 import flow_pb2 as pb
from penstock.flow.v1.flow_pb2_grpc import FlowServiceStub, RunServiceStub


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A chunk that a retrieving node found. `score` is in the collection's metric: higher is nearer."""

    chunk_id: str
    document_id: str
    text: str
    score: float
    metadata: Mapping[str, Any]
    node_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """A call of one of the caller's tools that a model asks for."""

    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """What a run returned. `content_hash` is the flow version that ran, `trace_id` the run's trace (32 hex digits).

    `finish_reason` is that of the last answer of a model: "stop", "length", "tool_calls", or "" where none was asked;
    `bounded_nodes` are loops and agents that ended because they reached their most rounds.
    """

    outputs: Mapping[str, Any]
    sources: tuple[Source, ...]
    usage: Usage
    content_hash: str
    trace_id: str
    model_calls: int = 0
    retrievals: int = 0
    finish_reason: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    bounded_nodes: tuple[str, ...] = ()


class RunOptions(TypedDict, total=False):
    """What a caller may say of one run.

    `session` is the conversation that history nodes read and write; `messages` a conversation in its place, (role, content)
    pairs, oldest first; `sampling` parameters of generate nodes; `overrides` {node: {parameter: value}}, where the flow
    allows it; `tools` are functions that the caller would run: {"name", "description", "parameters": a JSON Schema}.
    """

    session: str
    messages: Sequence[tuple[str, str]]
    sampling: Mapping[str, Any]
    overrides: Mapping[str, Any]
    tools: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStarted:
    """A node has started."""

    node_id: str
    node_type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFinished:
    """A node has finished, after `duration_s` seconds."""

    node_id: str
    node_type: str
    duration_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """A retrieving node has found its chunks, nearest first."""

    node_id: str
    sources: tuple[Source, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A generating node has made more text, to append to what it made before."""

    node_id: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """The run has ended well. Always the last event."""

    result: RunResult


FlowEvent = NodeStarted | NodeFinished | Sources | Token | Done


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowInput:
    """What a run takes under `name`. `type` is "text", "number", "boolean" or "json"."""

    name: str
    type: str
    required: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """A flow that is kept. `document` is None in listings; `content_hash` is its version (SHA-256, hexadecimal)."""

    name: str
    content_hash: str
    document: Mapping[str, Any] | None
    create_time: datetime
    inputs: tuple[FlowInput, ...]
    outputs: tuple[str, ...]
    description: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """What is wrong with a document: nothing, when it is valid, and then it has a `content_hash`."""

    valid: bool
    violations: tuple[Violation, ...]
    content_hash: str


class Penstock(Client):
    """Calls a gateway. Failures, in-band ones included, are raised as the PenstockError that the gateway raised.

    A flow is called by its id ("rag") or its resource name ("flows/rag"); a document is a JSON object or its text.
    """

    service = "gateway"

    async def run(
        self,
        flow: str,
        inputs: Mapping[str, Any],
        *,
        timeout_s: float = LONG_TIMEOUT_S,
        **options: Unpack[RunOptions],
    ) -> RunResult:
        """Runs a flow to its end. Raises FlowNotFound, InvalidInputs, and what the nodes' backends raise."""
        request = pb.RunFlowRequest(name=resource_name("flows", flow), **_run_fields(inputs, options))
        return _result(await self._call(self._runs.RunFlow, request, timeout_s))

    async def stream(
        self,
        flow: str,
        inputs: Mapping[str, Any],
        *,
        timeout_s: float = LONG_TIMEOUT_S,
        **options: Unpack[RunOptions],
    ) -> AsyncGenerator[FlowEvent, None]:
        """Runs a flow and tells what happens as it happens; raises as `run` does. Leaving the loop stops the run."""
        request = pb.StreamFlowRequest(name=resource_name("flows", flow), **_run_fields(inputs, options))
        async with aclosing(self._stream(self._runs.StreamFlow, request, timeout_s)) as messages:
            async for message in messages:
                event = _event(message)
                if event is not None:
                    yield event

    async def create_flow(
        self, flow: str, document: Mapping[str, Any] | str, *, replace: bool = False, timeout_s: float = TIMEOUT_S
    ) -> Flow:
        """Keeps a flow. Raises InvalidFlow with every fault in `violations`, and AlreadyExists unless `replace`."""
        request = pb.CreateFlowRequest(flow_id=short_name(flow), document=_json(document), replace=replace)
        return _flow((await self._call(self._flows.CreateFlow, request, timeout_s)).flow)

    async def get_flow(self, flow: str, *, timeout_s: float = TIMEOUT_S) -> Flow:
        """Reads a flow with its document. Raises FlowNotFound."""
        request = pb.GetFlowRequest(name=resource_name("flows", flow))
        return _flow((await self._call(self._flows.GetFlow, request, timeout_s)).flow)

    async def list_flows(self, *, page_size: int = 100, timeout_s: float = TIMEOUT_S) -> AsyncGenerator[Flow, None]:
        """All flows in the order of their names, read page by page, each page within `timeout_s`."""
        pages = self._pages(self._flows.ListFlows, pb.ListFlowsRequest(page_size=page_size), timeout_s)
        async with aclosing(items_of(pages, "flows")) as flows:
            async for flow in flows:
                yield _flow(flow)

    async def delete_flow(self, flow: str, *, timeout_s: float = TIMEOUT_S) -> None:
        """Deletes a flow; runs that have begun go on. Raises FlowNotFound."""
        await self._call(self._flows.DeleteFlow, pb.DeleteFlowRequest(name=resource_name("flows", flow)), timeout_s)

    async def validate_flow(self, document: Mapping[str, Any] | str, *, timeout_s: float = TIMEOUT_S) -> Validation:
        """Checks a document and keeps nothing. A document with faults is an answer here, not an error."""
        request = pb.ValidateFlowRequest(document=_json(document))
        response = await self._call(self._flows.ValidateFlow, request, timeout_s)
        return Validation(
            valid=response.valid,
            violations=tuple(_violation(each) for each in response.violations),
            content_hash=response.content_hash,
        )

    async def flow_schema(self, *, timeout_s: float = TIMEOUT_S) -> Mapping[str, Any]:
        """The JSON Schema of flow documents."""
        response = await self._call(self._flows.GetFlowSchema, pb.GetFlowSchemaRequest(), timeout_s)
        return from_struct(response.schema)

    @cached_property
    def _flows(self) -> Any:
        return FlowServiceStub(self._channel)  # type: ignore[no-untyped-call]  # Generated.

    @cached_property
    def _runs(self) -> Any:
        return RunServiceStub(self._channel)  # type: ignore[no-untyped-call]  # Generated.


def _json(document: Mapping[str, Any] | str) -> str:
    if isinstance(document, str):
        return document
    try:
        return orjson.dumps(dict(document)).decode()
    except TypeError as error:
        raise InvalidFlow(f"the flow document must be what JSON can say: {error}") from error


def _run_fields(inputs: Mapping[str, Any], options: RunOptions) -> dict[str, Any]:
    return {
        "inputs": to_struct(inputs, "the inputs"),
        "session": options.get("session", ""),
        "messages": [pb.ChatMessage(role=role, content=content) for role, content in options.get("messages", ())],
        "sampling": to_struct(options.get("sampling", {}), "the sampling"),
        "overrides": to_struct(options.get("overrides", {}), "the overrides"),
        "tools": [
            pb.Tool(name=each["name"], description=each.get("description", ""), parameters=_json(each.get("parameters", {})))
            for each in options.get("tools", ())
        ],
    }


def _result(response: pb.RunFlowResponse) -> RunResult:
    return RunResult(
        outputs=from_struct(response.outputs),
        sources=tuple(_source(source) for source in response.sources),
        usage=Usage(
            input_tokens=response.usage.input_tokens,
            output_tokens=response.usage.output_tokens,
            cached_tokens=response.usage.cached_tokens,
        ),
        content_hash=response.content_hash,
        trace_id=response.trace_id,
        model_calls=response.usage.model_calls,
        retrievals=response.usage.retrievals,
        finish_reason=response.finish_reason,
        tool_calls=tuple(ToolCall(name=each.name, arguments=orjson.loads(each.arguments)) for each in response.tool_calls),
        bounded_nodes=tuple(response.bounded_nodes),
    )


def _event(message: pb.StreamFlowResponse) -> FlowEvent | None:
    """None for an event of a newer gateway, which this client does not know."""
    match message.WhichOneof("event"):
        case "node_started":
            started = message.node_started
            return NodeStarted(node_id=started.node_id, node_type=started.node_type)
        case "node_finished":
            ended = message.node_finished
            return NodeFinished(node_id=ended.node_id, node_type=ended.node_type, duration_s=ended.duration_s)
        case "sources":
            found = message.sources
            return Sources(node_id=found.node_id, sources=tuple(_source(source) for source in found.sources))
        case "token":
            return Token(node_id=message.token.node_id, text=message.token.text)
        case "done":
            return Done(result=_result(message.done))
    return None


def _source(source: pb.Source) -> Source:
    return Source(
        chunk_id=source.chunk_id,
        document_id=source.document_id,
        text=source.text,
        score=source.score,
        metadata=from_struct(source.metadata),
        node_id=source.node_id,
    )


def _flow(flow: pb.Flow) -> Flow:
    return Flow(
        name=short_name(flow.name),
        content_hash=flow.content_hash,
        document=orjson.loads(flow.document) if flow.document else None,
        create_time=flow.create_time.ToDatetime(tzinfo=UTC),
        inputs=tuple(FlowInput(name=each.name, type=each.type, required=each.required) for each in flow.inputs),
        outputs=tuple(flow.outputs),
        description=flow.description,
    )


def _violation(violation: pb.Violation) -> Violation:
    return Violation(
        node_id=violation.node_id, field=violation.field, message=violation.message, suggestion=violation.suggestion
    )
