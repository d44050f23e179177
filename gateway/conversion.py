"""Between the flow protos and the core's own values. Nothing is decided here."""

from google.protobuf import timestamp_pb2

from gateway.execution import Event, NodeFinished, NodeStarted, RunResult, SourcesFound, Token
from gateway.flows import StoredFlow
from gateway.structs import to_struct
from gateway.values import Document
from penstock import paging
from penstock.errors import InvalidArgument, Violation
from penstock.flow.v1 import flow_pb2

_COLLECTION = "flows/"
_LISTING = "flows"


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
    )


def violation(fault: Violation) -> flow_pb2.Violation:
    """A fault of a document."""
    return flow_pb2.Violation(node_id=fault.node_id, field=fault.field, message=fault.message, suggestion=fault.suggestion)


def result(ended: RunResult) -> flow_pb2.RunFlowResponse:
    """What a run came to."""
    return flow_pb2.RunFlowResponse(
        outputs=to_struct(ended.outputs),
        sources=[_source(found.node_id, document) for found in ended.sources for document in found.documents],
        usage=flow_pb2.Usage(input_tokens=ended.input_tokens, output_tokens=ended.output_tokens),
        content_hash=ended.content_hash,
        trace_id=ended.trace_id,
    )


def event(happened: Event) -> flow_pb2.StreamFlowResponse:
    """An event of a stream. Tokens come first: nearly all events are."""
    response = flow_pb2.StreamFlowResponse
    match happened:
        case Token(node_id=node, text=text):
            return response(token=response.Token(node_id=node, text=text))
        case NodeStarted(node_id=node, node_type=kind):
            return response(node_started=response.NodeStarted(node_id=node, node_type=kind))
        case NodeFinished(node_id=node, node_type=kind, duration_s=duration_s):
            return response(node_finished=response.NodeFinished(node_id=node, node_type=kind, duration_s=duration_s))
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
