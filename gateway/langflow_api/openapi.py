"""What the dialect adds to the OpenAPI document: its paths, and the schemas of their bodies from the models that read them."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from pydantic import BaseModel

from gateway.langflow_api.reading import AdvancedRequest, ResponsesRequest, RunRequest, StopRequest, WorkflowRequest

TAG: Final = "LangFlow"
_PREFIX: Final = "Langflow"
_DETAIL: Final = f"{_PREFIX}Detail"
_STREAM: Final = "text/event-stream"

Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Operation:
    """One method of a path. `body` is a model, or the schema of a body that has none; `open`: no key is asked for."""

    method: str
    path: str
    summary: str
    body: type[BaseModel] | Json | None = None
    query: tuple[tuple[str, Json], ...] = ()
    streams: bool = False
    forms: bool = False
    status: int = 200
    open: bool = False
    needs_body: bool = False


_TEXT: Final[Json] = {"type": "string"}
_COUNT: Final[Json] = {"type": "integer", "minimum": 0, "maximum": 1_000_000}
_TEXTS: Final[Json] = {"type": "array", "items": {"type": "string"}, "maxItems": 500}
_ANYTHING: Final[Json] = {"description": "Whatever is posted."}
_EXPORT: Final[Json] = {
    "type": "object",
    "required": ["data"],
    "properties": {"name": _TEXT, "data": {"type": "object", "properties": {"nodes": {"type": "array"}}}},
}
_ORDER: Final[Json] = {"type": "string", "enum": ["ASC", "DESC"]}
_ORDER_BY: Final[Json] = {
    "type": "string", "enum": ["timestamp", "sender", "sender_name", "session_id", "text", "id", "flow_id"],
}  # fmt: skip
_PAGE: Final = (("limit", _COUNT), ("offset", _COUNT))
_STREAMED: Final = (("stream", {"type": "boolean"}),)

_OPERATIONS: Final = (
    _Operation(
        method="post",
        path="/api/v1/run/{flow}",
        summary="Runs a flow.",
        body=RunRequest,
        query=_STREAMED,
        streams=True,
        forms=True,
    ),
    _Operation(
        method="post",
        path="/api/v1/run/session/{flow}",
        summary="The same.",
        body=RunRequest,
        query=_STREAMED,
        streams=True,
        forms=True,
    ),
    _Operation(
        method="post", path="/api/v1/run/advanced/{flow}", summary="Runs a flow once for each input.", body=AdvancedRequest
    ),
    _Operation(
        method="post",
        path="/api/v1/webhook/{flow}",
        summary="Runs a flow in the background on what is posted.",
        body=_ANYTHING,
        status=202,
        needs_body=True,
    ),
    _Operation(
        method="post",
        path="/api/v1/responses",
        summary="Runs a flow in LangFlow's reading of OpenAI's Responses API.",
        body=ResponsesRequest,
        streams=True,
        needs_body=True,
    ),
    _Operation(
        method="post",
        path="/api/v2/workflows",
        summary="Runs a flow: whole, as a stream, or in the background.",
        body=WorkflowRequest,
        streams=True,
        needs_body=True,
    ),
    _Operation(
        method="get",
        path="/api/v2/workflows",
        summary="How a run in the background stands, or its result.",
        query=(("job_id", _TEXT),),
    ),
    _Operation(
        method="post",
        path="/api/v2/workflows/stop",
        summary="Stops a run in the background.",
        body=StopRequest,
        needs_body=True,
    ),
    _Operation(
        method="get",
        path="/api/v2/workflows/{job}/events",
        summary="The events of a run in the background, from its beginning.",
        streams=True,
    ),
    _Operation(method="get", path="/api/v1/flows/", summary="The headers of all flows."),
    _Operation(
        method="post",
        path="/api/v1/flows/",
        summary="Imports a flow as LangFlow exports it.",
        body=_EXPORT,
        status=201,
        needs_body=True,
    ),
    _Operation(
        method="post",
        path="/api/v1/flows/upload/",
        summary="Imports the flows of a file, each in place of the one that has its id.",
        body=_EXPORT,
        status=201,
        needs_body=True,
    ),
    _Operation(method="get", path="/api/v1/flows/{flow}", summary="The header of one flow."),
    _Operation(method="delete", path="/api/v1/flows/{flow}", summary="Deletes a flow."),
    _Operation(
        method="get",
        path="/api/v1/monitor/messages",
        summary="What was said.",
        query=(
            ("flow_id", _TEXT),
            ("session_id", _TEXT),
            ("sender", _TEXT),
            ("sender_name", _TEXT),
            ("order_by", _ORDER_BY),
            ("order", _ORDER),
            *_PAGE,
        ),
    ),
    _Operation(
        method="delete", path="/api/v1/monitor/messages", summary="Forgets messages.", body=_TEXTS, status=204, needs_body=True
    ),
    _Operation(
        method="get",
        path="/api/v1/monitor/messages/sessions",
        summary="The sessions, those written last first.",
        query=(("flow_id", _TEXT), *_PAGE),
    ),
    _Operation(
        method="delete", path="/api/v1/monitor/messages/sessions", summary="Forgets sessions.", body=_TEXTS, needs_body=True
    ),
    _Operation(method="delete", path="/api/v1/monitor/messages/session/{session}", summary="Forgets a session.", status=204),
    _Operation(method="get", path="/health", summary="Whether the process answers.", open=True),
    _Operation(method="get", path="/health_check", summary="Whether its database of flows answers.", open=True),
    _Operation(method="get", path="/api/v1/version", summary="The release of LangFlow whose API this is.", open=True),
    _Operation(method="get", path="/api/v1/config", summary="How LangFlow's own page would be set.", open=True),
)


@cache
def describe() -> Mapping[str, Any]:
    """The paths and their schemas."""
    schemas: Json = {
        _DETAIL: {
            "type": "object",
            "required": ["detail"],
            "properties": {"detail": {"description": "What is wrong: a text, an object, or a list of a body's faults."}},
        }
    }
    paths: dict[str, Json] = {}
    for operation in _OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _described(operation, schemas)
    return {"paths": paths, "components": {"schemas": schemas}}


def _described(operation: _Operation, schemas: Json) -> Json:
    name = operation.path.strip("/").replace("{", "").replace("}", "").replace("/", "_")
    described: Json = {
        "operationId": f"{_PREFIX}_{operation.method}_{name}",
        "tags": [TAG],
        "summary": operation.summary,
        "parameters": [*_parameters(operation)],
        "responses": {str(operation.status): _answer(operation), "default": _problem()},
    }
    if operation.body is not None:
        content = {"application/json": {"schema": _schema(operation.body, schemas)}}
        if operation.forms:
            content["multipart/form-data"] = {"schema": _form()}
        described["requestBody"] = {"required": operation.needs_body, "content": content}
    return described


def _parameters(operation: _Operation) -> list[Json]:
    found = [
        {"name": part[1:-1], "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for part in operation.path.split("/")
        if part.startswith("{")
    ]
    found += [{"name": name, "in": "query", "schema": schema} for name, schema in operation.query]
    if not operation.open:
        key = {"description": "API key, where keys are asked for.", "schema": _TEXT}
        found += [{"name": "x-api-key", "in": place, **key} for place in ("header", "query")]
    return found


def _answer(operation: _Operation) -> Json:
    if operation.status == 204:
        return {"description": "Done."}
    content: Json = {"application/json": {"schema": {}}}
    if operation.streams:
        content[_STREAM] = {"schema": _TEXT}
    return {"description": "As LangFlow answers.", "content": content}


def _problem() -> Json:
    schema = {"$ref": f"#/components/schemas/{_DETAIL}"}
    return {"description": "It was refused, or failed.", "content": {"application/json": {"schema": schema}}}


def _form() -> Json:
    fields: Json = dict.fromkeys(RunRequest.model_fields, _TEXT)
    return {"type": "object", "properties": fields}


def _schema(body: type[BaseModel] | Json, schemas: Json) -> Json:
    if isinstance(body, dict):
        return body
    schema = body.model_json_schema(ref_template=f"#/components/schemas/{_PREFIX}{{model}}")
    schemas |= {f"{_PREFIX}{name}": inner for name, inner in schema.pop("$defs", {}).items()}
    schemas[f"{_PREFIX}{body.__name__}"] = schema
    return {"$ref": f"#/components/schemas/{_PREFIX}{body.__name__}"}
