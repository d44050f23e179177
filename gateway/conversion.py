"""Between the flow protos and the core's own values. Nothing is decided here."""

import re
from dataclasses import replace
from typing import Final

import orjson
from google.protobuf import timestamp_pb2

from gateway.execution import (
    NOTHING_SAID,
    Call,
    ChatMessage,
    Event,
    NodeFinished,
    NodeStarted,
    RunResult,
    SourcesFound,
    Token,
    Tool,
)
from gateway.flow_model import Flow, Node
from gateway.flows import StoredFlow
from gateway.nodes.generate import caller_sampling
from gateway.origin import Provenance
from gateway.structs import from_struct, to_struct
from gateway.values import Document, as_json
from penstock import paging
from penstock.errors import InvalidArgument, PermissionDenied, Violation
from penstock.flow.v1 import flow_pb2

SESSION_BYTES_MAX: Final = 256
ROLES: Final = ("system", "user", "assistant", "tool")
TOOL_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")

_COLLECTION: Final = "flows/"
_LISTING: Final = "flows"


def flow_id(name: str) -> str:
    """The id in a resource name. Raises InvalidArgument when it is not one."""
    identifier = name.removeprefix(_COLLECTION)
    if not name.startswith(_COLLECTION) or not identifier or "/" in identifier:
        raise InvalidArgument(
            f"{name[:80]!r} is not the name of a flow: flows/{{flow}}",
            violations=[Violation(field="name", message="not a flow's name", suggestion="such as flows/rag")],
        )
    return identifier


def after(page_token: str) -> str:
    """The id after which a page begins. Raises InvalidArgument for a token that no answer carried."""
    return paging.key_after(_LISTING, page_token)


def page_token(next_after: str) -> str:
    """An opaque token; empty where there is no next page."""
    return paging.page_token(_LISTING, next_after)


def flow(stored: StoredFlow) -> flow_pb2.Flow:
    """A flow as callers see it."""
    create_time = timestamp_pb2.Timestamp()
    create_time.FromDatetime(stored.create_time)
    return flow_pb2.Flow(
        name=f"{_COLLECTION}{stored.flow_id}",
        content_hash=stored.content_hash,
        document=stored.document,
        create_time=create_time,
        inputs=[flow_pb2.FlowInput(name=name, type=kind, required=required) for name, kind, required in stored.inputs],
        outputs=stored.outputs,
        description=stored.description,
        origin=_origin(stored.origin),
    )


def _origin(origin: Provenance) -> flow_pb2.Flow.Origin | None:
    if not origin.format:
        return None
    return flow_pb2.Flow.Origin(format=origin.format, id=origin.id, name=origin.name, endpoint_name=origin.endpoint_name)


def violation(fault: Violation) -> flow_pb2.Violation:
    """A fault of a document."""
    return flow_pb2.Violation(node_id=fault.node_id, field=fault.field, message=fault.message, suggestion=fault.suggestion)


def ports(node: Node) -> flow_pb2.NodePorts:
    """The ports of a node."""
    return flow_pb2.NodePorts(
        node_id=node.id,
        node_type=node.type,
        inputs=[
            flow_pb2.NodePorts.InputPort(
                name=port.name,
                accepts=sorted(kind.value for kind in port.accepts),
                optional=port.optional,
            )
            for port in node.ports.inputs
        ],
        outputs=[flow_pb2.NodePorts.OutputPort(name=port.name, type=port.type.value) for port in node.ports.outputs],
    )


def call(request: flow_pb2.RunFlowRequest | flow_pb2.StreamFlowRequest, flow: Flow) -> Call:
    """What a request says of the run beside its inputs. Raises InvalidArgument, PermissionDenied."""
    if isinstance(request, flow_pb2.StreamFlowRequest) and request.node_outputs:
        return replace(_call(request, flow), node_outputs=_may_see_nodes(flow))
    return _call(request, flow)


def _may_see_nodes(flow: Flow) -> bool:
    if flow.overrides != "all":
        raise PermissionDenied('this flow tells no caller what its nodes give; its "overrides" would have to be "all"')
    return True


def _call(request: flow_pb2.RunFlowRequest | flow_pb2.StreamFlowRequest, flow: Flow) -> Call:
    if not (request.session or request.messages or request.tools or request.HasField("sampling")):
        return NOTHING_SAID
    return Call(
        session=_session(request.session),
        messages=tuple(_message(each) for each in request.messages) or None,
        sampling=caller_sampling(from_struct(request.sampling), flow.overrides),
        tools=tuple(_tool(each) for each in request.tools),
    )


def _session(session: str) -> str:
    if len(session.encode()) > SESSION_BYTES_MAX:
        raise InvalidArgument(f"a session's name has at most {SESSION_BYTES_MAX} bytes; this one has {len(session.encode())}")
    return session


def _message(message: flow_pb2.ChatMessage) -> ChatMessage:
    if message.role not in ROLES:
        raise InvalidArgument(f"unknown role {message.role[:40]!r} of a message; known: {', '.join(ROLES)}")
    return ChatMessage(role=message.role, content=message.content)


def _tool(tool: flow_pb2.Tool) -> Tool:
    try:
        parameters = orjson.loads(tool.parameters or "{}")
    except orjson.JSONDecodeError as error:
        raise InvalidArgument(f"the parameters of tool {tool.name[:64]!r} are not JSON: {error}") from error
    if not TOOL_NAME.fullmatch(tool.name) or not isinstance(parameters, dict):
        raise InvalidArgument(
            f"a tool has a name of letters, digits, underscores and hyphens, at most 64, and a JSON Schema; found "
            f"{tool.name[:80]!r}"
        )
    return Tool(name=tool.name, description=tool.description, parameters=parameters)


def result(ended: RunResult) -> flow_pb2.RunFlowResponse:
    """What a run came to."""
    return flow_pb2.RunFlowResponse(
        outputs=to_struct(ended.outputs),
        sources=[_source(found.node_id, document) for found in ended.sources for document in found.documents],
        usage=flow_pb2.Usage(
            input_tokens=ended.spent.input_tokens,
            output_tokens=ended.spent.output_tokens,
            cached_tokens=ended.spent.cached_tokens,
            model_calls=ended.spent.model_calls,
            retrievals=ended.spent.retrievals,
        ),
        content_hash=ended.content_hash,
        trace_id=ended.trace_id,
        session=ended.session,
        finish_reason=ended.finish_reason,
        tool_calls=[flow_pb2.ToolCall(name=call.name, arguments=call.arguments) for call in ended.tool_calls],
        bounded_nodes=ended.bounded_nodes,
    )


def event(happened: Event) -> flow_pb2.StreamFlowResponse:
    """An event of a stream. Tokens come first: nearly all events are."""
    response = flow_pb2.StreamFlowResponse
    match happened:
        case Token(node_id=node, text=text):
            return response(token=response.Token(node_id=node, text=text))
        case NodeStarted(node_id=node, node_type=kind):
            return response(node_started=response.NodeStarted(node_id=node, node_type=kind))
        case NodeFinished(node_id=node, node_type=kind, duration_s=duration_s, outputs=outputs):
            given = None if outputs is None else to_struct({name: as_json(value) for name, value in outputs.items()})
            finished = response.NodeFinished(node_id=node, node_type=kind, duration_s=duration_s, outputs=given)
            return response(node_finished=finished)
        case SourcesFound(node_id=node, documents=documents):
            return response(sources=response.Sources(node_id=node, sources=[_source(node, each) for each in documents]))
        case RunResult():
            return response(done=result(happened))


def _source(node_id: str, document: Document) -> flow_pb2.Source:
    return flow_pb2.Source(
        chunk_id=document.chunk_id,
        document_id=document.document_id,
        text=document.text,
        score=document.score,
        metadata=to_struct(document.metadata),
        node_id=node_id,
    )
