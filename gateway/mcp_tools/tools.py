"""A flow as a tool: what it takes, and what a run of it says. Everything goes through the dispatcher, with the caller's key."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from gateway.structs import from_struct, to_struct
from gateway.values import DEPTH_MAX, is_deeper, is_finite
from penstock.errors import InvalidInputs, PenstockError
from penstock.flow.v1 import flow_pb2
from penstock.transcoding.dialect import DialectCall

LIST: Final = "/penstock.flow.v1.FlowService/ListFlows"
RUN: Final = "/penstock.flow.v1.RunService/RunFlow"
PAGE_SIZE: Final = 100
_TYPES: Final[Mapping[str, Mapping[str, Any]]] = {
    "text": {"type": "string"},
    "number": {"type": "number"},
    "boolean": {"type": "boolean"},
    "json": {},
}
OUTPUT_SCHEMA: Final[Mapping[str, Any]] = {
    "type": "object",
    "properties": {
        "outputs": {"type": "object", "description": "The flow's outputs by their names."},
        "sources": {
            "type": "array",
            "description": "The passages that retrieval found.",
            "items": {
                "type": "object",
                "properties": {
                    "chunk_id": {"type": "string"},
                    "document_id": {"type": "string"},
                    "text": {"type": "string"},
                    "score": {"type": "number"},
                    "metadata": {"type": "object"},
                    "node_id": {"type": "string"},
                },
                "required": ["chunk_id", "document_id", "text", "score", "metadata", "node_id"],
            },
        },
        "trace_id": {"type": "string", "description": "The run's trace."},
    },
    "required": ["outputs", "sources", "trace_id"],
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowTool:
    """A flow as a tool."""

    name: str
    description: str
    input_schema: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolAnswer:
    """What a tool says: to read, and to compute with."""

    text: str
    structured: Mapping[str, Any]


async def list_tools(call: DialectCall, page_token: str) -> tuple[list[FlowTool], str]:
    """A page of tools, and the token of the next one; empty where there is none. Raises PenstockError."""
    page = await call.unary(LIST, flow_pb2.ListFlowsRequest(page_size=PAGE_SIZE, page_token=page_token))
    return [_tool(flow) for flow in page.flows], page.next_page_token


async def call_tool(call: DialectCall, name: str, arguments: Mapping[str, Any]) -> ToolAnswer:
    """Runs the flow of a tool. Raises PenstockError: FlowNotFound, InvalidInputs, and what its backends raise."""
    response = await call.unary(RUN, _request(name, arguments))
    outputs = from_struct(response.outputs)
    only = next(iter(outputs.values())) if len(outputs) == 1 else outputs
    return ToolAnswer(
        text=only if isinstance(only, str) else orjson.dumps(only).decode(),
        structured={
            "outputs": outputs,
            "sources": [_source(each) for each in response.sources],
            "trace_id": response.trace_id,
        },
    )


def _request(name: str, arguments: Mapping[str, Any]) -> flow_pb2.RunFlowRequest | PenstockError:
    given = dict(arguments)
    if is_deeper(given, DEPTH_MAX) or not is_finite(given):
        return InvalidInputs(f"the arguments are nested more than {DEPTH_MAX} deep, or have a number that is not finite")
    return flow_pb2.RunFlowRequest(name=f"flows/{name}", inputs=to_struct(given))


def _tool(flow: flow_pb2.Flow) -> FlowTool:
    schema = {
        "type": "object",
        "properties": {each.name: dict(_TYPES.get(each.type, {})) for each in flow.inputs},
        "required": [each.name for each in flow.inputs if each.required],
        "additionalProperties": False,
    }
    return FlowTool(name=flow.name.removeprefix("flows/"), description=flow.description, input_schema=schema)


def _source(source: flow_pb2.Source) -> Mapping[str, Any]:
    return {
        "chunk_id": source.chunk_id,
        "document_id": source.document_id,
        "text": source.text,
        "score": source.score,
        "metadata": from_struct(source.metadata),
        "node_id": source.node_id,
    }
