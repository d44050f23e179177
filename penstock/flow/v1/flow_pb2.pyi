import datetime

from google.api import annotations_pb2 as _annotations_pb2
from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.rpc import status_pb2 as _status_pb2
from penstock.annotations.v1 import annotations_pb2 as _annotations_pb2_1
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Flow(_message.Message):
    __slots__ = ("name", "content_hash", "document", "create_time", "inputs", "outputs", "description", "origin")
    class Origin(_message.Message):
        __slots__ = ("format", "id", "name", "endpoint_name")
        FORMAT_FIELD_NUMBER: _ClassVar[int]
        ID_FIELD_NUMBER: _ClassVar[int]
        NAME_FIELD_NUMBER: _ClassVar[int]
        ENDPOINT_NAME_FIELD_NUMBER: _ClassVar[int]
        format: str
        id: str
        name: str
        endpoint_name: str
        def __init__(self, format: _Optional[str] = ..., id: _Optional[str] = ..., name: _Optional[str] = ..., endpoint_name: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    CONTENT_HASH_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    name: str
    content_hash: str
    document: str
    create_time: _timestamp_pb2.Timestamp
    inputs: _containers.RepeatedCompositeFieldContainer[FlowInput]
    outputs: _containers.RepeatedScalarFieldContainer[str]
    description: str
    origin: Flow.Origin
    def __init__(self, name: _Optional[str] = ..., content_hash: _Optional[str] = ..., document: _Optional[str] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., inputs: _Optional[_Iterable[_Union[FlowInput, _Mapping]]] = ..., outputs: _Optional[_Iterable[str]] = ..., description: _Optional[str] = ..., origin: _Optional[_Union[Flow.Origin, _Mapping]] = ...) -> None: ...

class FlowInput(_message.Message):
    __slots__ = ("name", "type", "required")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    REQUIRED_FIELD_NUMBER: _ClassVar[int]
    name: str
    type: str
    required: bool
    def __init__(self, name: _Optional[str] = ..., type: _Optional[str] = ..., required: _Optional[bool] = ...) -> None: ...

class CreateFlowRequest(_message.Message):
    __slots__ = ("flow_id", "document", "replace")
    FLOW_ID_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    REPLACE_FIELD_NUMBER: _ClassVar[int]
    flow_id: str
    document: str
    replace: bool
    def __init__(self, flow_id: _Optional[str] = ..., document: _Optional[str] = ..., replace: _Optional[bool] = ...) -> None: ...

class CreateFlowResponse(_message.Message):
    __slots__ = ("flow",)
    FLOW_FIELD_NUMBER: _ClassVar[int]
    flow: Flow
    def __init__(self, flow: _Optional[_Union[Flow, _Mapping]] = ...) -> None: ...

class GetFlowRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class GetFlowResponse(_message.Message):
    __slots__ = ("flow",)
    FLOW_FIELD_NUMBER: _ClassVar[int]
    flow: Flow
    def __init__(self, flow: _Optional[_Union[Flow, _Mapping]] = ...) -> None: ...

class ListFlowsRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListFlowsResponse(_message.Message):
    __slots__ = ("flows", "next_page_token")
    FLOWS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    flows: _containers.RepeatedCompositeFieldContainer[Flow]
    next_page_token: str
    def __init__(self, flows: _Optional[_Iterable[_Union[Flow, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class DeleteFlowRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class DeleteFlowResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ValidateFlowRequest(_message.Message):
    __slots__ = ("document",)
    DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    document: str
    def __init__(self, document: _Optional[str] = ...) -> None: ...

class ValidateFlowResponse(_message.Message):
    __slots__ = ("valid", "violations", "content_hash", "nodes")
    VALID_FIELD_NUMBER: _ClassVar[int]
    VIOLATIONS_FIELD_NUMBER: _ClassVar[int]
    CONTENT_HASH_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    valid: bool
    violations: _containers.RepeatedCompositeFieldContainer[Violation]
    content_hash: str
    nodes: _containers.RepeatedCompositeFieldContainer[NodePorts]
    def __init__(self, valid: _Optional[bool] = ..., violations: _Optional[_Iterable[_Union[Violation, _Mapping]]] = ..., content_hash: _Optional[str] = ..., nodes: _Optional[_Iterable[_Union[NodePorts, _Mapping]]] = ...) -> None: ...

class NodePorts(_message.Message):
    __slots__ = ("node_id", "node_type", "inputs", "outputs")
    class InputPort(_message.Message):
        __slots__ = ("name", "accepts", "optional")
        NAME_FIELD_NUMBER: _ClassVar[int]
        ACCEPTS_FIELD_NUMBER: _ClassVar[int]
        OPTIONAL_FIELD_NUMBER: _ClassVar[int]
        name: str
        accepts: _containers.RepeatedScalarFieldContainer[str]
        optional: bool
        def __init__(self, name: _Optional[str] = ..., accepts: _Optional[_Iterable[str]] = ..., optional: _Optional[bool] = ...) -> None: ...
    class OutputPort(_message.Message):
        __slots__ = ("name", "type")
        NAME_FIELD_NUMBER: _ClassVar[int]
        TYPE_FIELD_NUMBER: _ClassVar[int]
        name: str
        type: str
        def __init__(self, name: _Optional[str] = ..., type: _Optional[str] = ...) -> None: ...
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    NODE_TYPE_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    node_type: str
    inputs: _containers.RepeatedCompositeFieldContainer[NodePorts.InputPort]
    outputs: _containers.RepeatedCompositeFieldContainer[NodePorts.OutputPort]
    def __init__(self, node_id: _Optional[str] = ..., node_type: _Optional[str] = ..., inputs: _Optional[_Iterable[_Union[NodePorts.InputPort, _Mapping]]] = ..., outputs: _Optional[_Iterable[_Union[NodePorts.OutputPort, _Mapping]]] = ...) -> None: ...

class GetFlowSchemaRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetFlowSchemaResponse(_message.Message):
    __slots__ = ("schema",)
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    schema: _struct_pb2.Struct
    def __init__(self, schema: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ...) -> None: ...

class Violation(_message.Message):
    __slots__ = ("node_id", "field", "message", "suggestion")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    SUGGESTION_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    field: str
    message: str
    suggestion: str
    def __init__(self, node_id: _Optional[str] = ..., field: _Optional[str] = ..., message: _Optional[str] = ..., suggestion: _Optional[str] = ...) -> None: ...

class RunFlowRequest(_message.Message):
    __slots__ = ("name", "inputs", "session", "messages", "sampling", "overrides", "tools")
    NAME_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    OVERRIDES_FIELD_NUMBER: _ClassVar[int]
    TOOLS_FIELD_NUMBER: _ClassVar[int]
    name: str
    inputs: _struct_pb2.Struct
    session: str
    messages: _containers.RepeatedCompositeFieldContainer[ChatMessage]
    sampling: _struct_pb2.Struct
    overrides: _struct_pb2.Struct
    tools: _containers.RepeatedCompositeFieldContainer[Tool]
    def __init__(self, name: _Optional[str] = ..., inputs: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., session: _Optional[str] = ..., messages: _Optional[_Iterable[_Union[ChatMessage, _Mapping]]] = ..., sampling: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., overrides: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., tools: _Optional[_Iterable[_Union[Tool, _Mapping]]] = ...) -> None: ...

class ChatMessage(_message.Message):
    __slots__ = ("role", "content")
    ROLE_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    role: str
    content: str
    def __init__(self, role: _Optional[str] = ..., content: _Optional[str] = ...) -> None: ...

class Tool(_message.Message):
    __slots__ = ("name", "description", "parameters")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    name: str
    description: str
    parameters: str
    def __init__(self, name: _Optional[str] = ..., description: _Optional[str] = ..., parameters: _Optional[str] = ...) -> None: ...

class ToolCall(_message.Message):
    __slots__ = ("name", "arguments")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ARGUMENTS_FIELD_NUMBER: _ClassVar[int]
    name: str
    arguments: str
    def __init__(self, name: _Optional[str] = ..., arguments: _Optional[str] = ...) -> None: ...

class RunFlowResponse(_message.Message):
    __slots__ = ("outputs", "sources", "usage", "content_hash", "trace_id", "session", "finish_reason", "tool_calls", "bounded_nodes")
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    SOURCES_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    CONTENT_HASH_FIELD_NUMBER: _ClassVar[int]
    TRACE_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    TOOL_CALLS_FIELD_NUMBER: _ClassVar[int]
    BOUNDED_NODES_FIELD_NUMBER: _ClassVar[int]
    outputs: _struct_pb2.Struct
    sources: _containers.RepeatedCompositeFieldContainer[Source]
    usage: Usage
    content_hash: str
    trace_id: str
    session: str
    finish_reason: str
    tool_calls: _containers.RepeatedCompositeFieldContainer[ToolCall]
    bounded_nodes: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, outputs: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., sources: _Optional[_Iterable[_Union[Source, _Mapping]]] = ..., usage: _Optional[_Union[Usage, _Mapping]] = ..., content_hash: _Optional[str] = ..., trace_id: _Optional[str] = ..., session: _Optional[str] = ..., finish_reason: _Optional[str] = ..., tool_calls: _Optional[_Iterable[_Union[ToolCall, _Mapping]]] = ..., bounded_nodes: _Optional[_Iterable[str]] = ...) -> None: ...

class Source(_message.Message):
    __slots__ = ("chunk_id", "document_id", "text", "score", "metadata", "node_id")
    CHUNK_ID_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_ID_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    chunk_id: str
    document_id: str
    text: str
    score: float
    metadata: _struct_pb2.Struct
    node_id: str
    def __init__(self, chunk_id: _Optional[str] = ..., document_id: _Optional[str] = ..., text: _Optional[str] = ..., score: _Optional[float] = ..., metadata: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., node_id: _Optional[str] = ...) -> None: ...

class Usage(_message.Message):
    __slots__ = ("input_tokens", "output_tokens", "cached_tokens", "model_calls", "retrievals")
    INPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    CACHED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MODEL_CALLS_FIELD_NUMBER: _ClassVar[int]
    RETRIEVALS_FIELD_NUMBER: _ClassVar[int]
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    model_calls: int
    retrievals: int
    def __init__(self, input_tokens: _Optional[int] = ..., output_tokens: _Optional[int] = ..., cached_tokens: _Optional[int] = ..., model_calls: _Optional[int] = ..., retrievals: _Optional[int] = ...) -> None: ...

class StreamFlowRequest(_message.Message):
    __slots__ = ("name", "inputs", "session", "messages", "sampling", "overrides", "tools", "node_outputs")
    NAME_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    OVERRIDES_FIELD_NUMBER: _ClassVar[int]
    TOOLS_FIELD_NUMBER: _ClassVar[int]
    NODE_OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    name: str
    inputs: _struct_pb2.Struct
    session: str
    messages: _containers.RepeatedCompositeFieldContainer[ChatMessage]
    sampling: _struct_pb2.Struct
    overrides: _struct_pb2.Struct
    tools: _containers.RepeatedCompositeFieldContainer[Tool]
    node_outputs: bool
    def __init__(self, name: _Optional[str] = ..., inputs: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., session: _Optional[str] = ..., messages: _Optional[_Iterable[_Union[ChatMessage, _Mapping]]] = ..., sampling: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., overrides: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., tools: _Optional[_Iterable[_Union[Tool, _Mapping]]] = ..., node_outputs: _Optional[bool] = ...) -> None: ...

class StreamFlowResponse(_message.Message):
    __slots__ = ("node_started", "node_finished", "sources", "token", "done", "error")
    class NodeStarted(_message.Message):
        __slots__ = ("node_id", "node_type")
        NODE_ID_FIELD_NUMBER: _ClassVar[int]
        NODE_TYPE_FIELD_NUMBER: _ClassVar[int]
        node_id: str
        node_type: str
        def __init__(self, node_id: _Optional[str] = ..., node_type: _Optional[str] = ...) -> None: ...
    class NodeFinished(_message.Message):
        __slots__ = ("node_id", "node_type", "duration_s", "outputs")
        NODE_ID_FIELD_NUMBER: _ClassVar[int]
        NODE_TYPE_FIELD_NUMBER: _ClassVar[int]
        DURATION_S_FIELD_NUMBER: _ClassVar[int]
        OUTPUTS_FIELD_NUMBER: _ClassVar[int]
        node_id: str
        node_type: str
        duration_s: float
        outputs: _struct_pb2.Struct
        def __init__(self, node_id: _Optional[str] = ..., node_type: _Optional[str] = ..., duration_s: _Optional[float] = ..., outputs: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ...) -> None: ...
    class Sources(_message.Message):
        __slots__ = ("node_id", "sources")
        NODE_ID_FIELD_NUMBER: _ClassVar[int]
        SOURCES_FIELD_NUMBER: _ClassVar[int]
        node_id: str
        sources: _containers.RepeatedCompositeFieldContainer[Source]
        def __init__(self, node_id: _Optional[str] = ..., sources: _Optional[_Iterable[_Union[Source, _Mapping]]] = ...) -> None: ...
    class Token(_message.Message):
        __slots__ = ("node_id", "text")
        NODE_ID_FIELD_NUMBER: _ClassVar[int]
        TEXT_FIELD_NUMBER: _ClassVar[int]
        node_id: str
        text: str
        def __init__(self, node_id: _Optional[str] = ..., text: _Optional[str] = ...) -> None: ...
    NODE_STARTED_FIELD_NUMBER: _ClassVar[int]
    NODE_FINISHED_FIELD_NUMBER: _ClassVar[int]
    SOURCES_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    node_started: StreamFlowResponse.NodeStarted
    node_finished: StreamFlowResponse.NodeFinished
    sources: StreamFlowResponse.Sources
    token: StreamFlowResponse.Token
    done: RunFlowResponse
    error: _status_pb2.Status
    def __init__(self, node_started: _Optional[_Union[StreamFlowResponse.NodeStarted, _Mapping]] = ..., node_finished: _Optional[_Union[StreamFlowResponse.NodeFinished, _Mapping]] = ..., sources: _Optional[_Union[StreamFlowResponse.Sources, _Mapping]] = ..., token: _Optional[_Union[StreamFlowResponse.Token, _Mapping]] = ..., done: _Optional[_Union[RunFlowResponse, _Mapping]] = ..., error: _Optional[_Union[_status_pb2.Status, _Mapping]] = ...) -> None: ...
