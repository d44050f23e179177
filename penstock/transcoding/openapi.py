"""The OpenAPI 3.1 document of services, from the same descriptors that the transcoder serves them by.

A path variable of several segments is written out, as `/v1/flows/{flow}:run` for `/v1/{name=flows/*}:run`, because a path
parameter of OpenAPI holds no slash. Descriptions are the protos' comments.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from google.protobuf.descriptor import FieldDescriptor, ServiceDescriptor
from google.protobuf.descriptor_pool import Default, DescriptorPool

from penstock.errors import Code
from penstock.transcoding.comments import comment
from penstock.transcoding.dialect import Dialect
from penstock.transcoding.reading import map_entry
from penstock.transcoding.routes import WHOLE_BODY, Route, read_routes
from penstock.transcoding.schemas import Schemas
from penstock.transcoding.streams import JSON_LINES, SSE
from penstock.transcoding.templates import Variable, Wildcard
from penstock.transcoding.wellknown import wellknown_reader

Json = dict[str, Any]

_ERROR: Final = "Error"
_METHODS: Final = frozenset({"get", "put", "post", "delete", "patch", "options", "head", "trace"})
"""Those that OpenAPI 3.1 has a place for; a route with another is served and not described."""
_QUERY_DEPTH_MAX: Final = 4
"""How far into nested messages query parameters are listed; deeper ones work all the same."""


def openapi(service_names: Sequence[str], *, title: str, version: str, pool: DescriptorPool | None = None) -> Json:
    """The document of the services, which are full names whose generated modules have been imported.

    Raises UnsupportedRule where the transcoder does; KeyError for an unknown service.
    """
    pool = pool or Default()
    schemas = Schemas()
    paths: dict[str, Json] = {}
    operation_ids: dict[str, int] = {}
    routes = read_routes(service_names, pool)
    over_http = {route.rpc.containing_service.full_name for route in routes}
    for route in routes:
        if route.http_method.lower() not in _METHODS:
            continue
        path, parameters = _path(route)
        operation = _operation(route, parameters, schemas)
        nth = operation_ids[operation["operationId"]] = operation_ids.get(operation["operationId"], 0) + 1
        if nth > 1:
            operation["operationId"] += f"_{nth}"
        paths.setdefault(path, {})[route.http_method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version},
        "tags": [_tag(pool.FindServiceByName(name)) for name in service_names if name in over_http],
        "paths": paths,
        "components": {"schemas": {**schemas.components(), _ERROR: _error_schema()}, "responses": {_ERROR: _error_response()}},
    }


def _tag(service: ServiceDescriptor) -> Json:
    return {"name": service.name, "description": comment(service.full_name)}


def _operation(route: Route, path_parameters: Sequence[Json], schemas: Schemas) -> Json:
    text = comment(route.rpc.full_name)
    operation: Json = {
        "operationId": f"{route.rpc.containing_service.name}_{route.rpc.name}",
        "tags": [route.rpc.containing_service.name],
        "summary": text.partition(". ")[0].rstrip("."),
        "description": text,
        "parameters": [*path_parameters, *_query(route, schemas)],
        "responses": {"200": _response(route, schemas), "default": {"$ref": f"#/components/responses/{_ERROR}"}},
    }
    if route.body:
        operation["requestBody"] = {"required": True, "content": _json(_body_schema(route, schemas))}
    return operation


def _path(route: Route) -> tuple[str, list[Json]]:
    """The path with one parameter for each wildcard, and the parameters."""
    parts: list[str] = []
    parameters: list[Json] = []
    for index, segment in enumerate(route.template.segments):
        if isinstance(segment, str):
            parts.append(segment)
            continue
        variable = next((v for v in route.template.variables if _covers(v, index)), None)
        name = _parameter_name(variable, parts, {parameter["name"] for parameter in parameters})
        parts.append(f"{{{name}}}")
        parameters.append(_path_parameter(name, variable, segment))
    verb = f":{route.template.verb}" if route.template.verb else ""
    return f"/{'/'.join(parts)}{verb}", parameters


def _covers(variable: Variable, index: int) -> bool:
    return variable.start <= index and (variable.stop is None or index < variable.stop)


def _parameter_name(variable: Variable | None, before: Sequence[str], taken: set[str]) -> str:
    """The field's name when the parameter is the whole of it; else the singular of the collection that it stands in."""
    if variable is not None and variable.stop == variable.start + 1:
        name = ".".join(variable.field_path)
    else:
        name = before[-1].removesuffix("s") if before and not before[-1].startswith("{") else "part"
    while name in taken:
        name += "_"
    return name


def _path_parameter(name: str, variable: Variable | None, segment: Wildcard) -> Json:
    field = ".".join(variable.field_path) if variable else ""
    text = f"Part of `{field}`." if field and field != name else ""
    if segment is Wildcard.REST:
        text = f"{text} May hold slashes.".strip()
    return {"name": name, "in": "path", "required": True, "description": text, "schema": {"type": "string", "minLength": 1}}


def _query(route: Route, schemas: Schemas) -> list[Json]:
    if route.body == WHOLE_BODY:
        return []
    hidden = {variable.field_path for variable in route.template.variables} | {(route.body,)}
    return [
        {"name": ".".join(path), "in": "query", "description": comment(field.full_name), "schema": schemas.field(field)}
        for path, field in _query_fields(route.rpc.input_type.fields, ())
        if path not in hidden and path[:1] not in hidden
    ]


def _query_fields(fields: Sequence[FieldDescriptor], above: tuple[str, ...]) -> list[tuple[tuple[str, ...], FieldDescriptor]]:
    found: list[tuple[tuple[str, ...], FieldDescriptor]] = []
    for field in fields:
        path = (*above, field.name)
        if field.message_type is None or (wellknown_reader(field.message_type) and not map_entry(field)):
            found.append((path, field))
        elif not field.is_repeated and len(path) < _QUERY_DEPTH_MAX:
            found.extend(_query_fields(field.message_type.fields, path))
    return found


def _body_schema(route: Route, schemas: Schemas) -> Json:
    if route.body != WHOLE_BODY:
        return schemas.field(route.rpc.input_type.fields_by_name[route.body])
    bound = {variable.field_path[0] for variable in route.template.variables if len(variable.field_path) == 1}
    if not bound:
        return schemas.message(route.rpc.input_type)
    return schemas.message_without(route.rpc.input_type, bound)


def _response(route: Route, schemas: Schemas) -> Json:
    answered = route.rpc.output_type
    if route.rpc.server_streaming:
        schema = schemas.message(answered)
        text = "A stream of events; the schema is that of one event's data. It ends with `done` or `error`."
        return {"description": text, "content": {SSE: {"schema": schema}, JSON_LINES: {"schema": schema}}}
    if route.response_body:
        field = answered.fields_by_name[route.response_body]
        return {"description": comment(field.full_name) or "OK", "content": _json(schemas.field(field))}
    return {"description": comment(answered.full_name) or "OK", "content": _json(schemas.message(answered))}


def _json(schema: Mapping[str, Any]) -> Json:
    return {"application/json": {"schema": schema}}


def _error_response() -> Json:
    return {"description": "The call failed.", "content": _json({"$ref": f"#/components/schemas/{_ERROR}"})}


def _error_schema() -> Json:
    detail = {
        "type": "object",
        "properties": {"@type": {"type": "string"}},
        "required": ["@type"],
        "additionalProperties": True,
    }
    error = {
        "type": "object",
        "required": ["code", "status", "message", "details"],
        "properties": {
            "code": {"type": "integer", "description": "The HTTP status."},
            "status": {
                "type": "string",
                "enum": sorted({code.grpc_name for code in Code}),
                "description": "gRPC's name of it.",
            },
            "message": {"type": "string", "description": "For people."},
            "details": {
                "type": "array",
                "items": detail,
                "description": "google.rpc details. The ErrorInfo among them has the stable `reason`, for machines.",
            },
        },
    }
    return {"type": "object", "required": ["error"], "properties": {"error": error}}


def with_dialects(document: Mapping[str, Any], dialects: Iterable[Dialect]) -> Mapping[str, Any]:
    """The document with what dialects add to its paths and schemas."""
    paths, schemas = dict(document["paths"]), dict(document["components"]["schemas"])
    for dialect in dialects:
        added = dialect.describe()
        paths |= added.get("paths", {})
        schemas |= added.get("components", {}).get("schemas", {})
    return {**document, "paths": paths, "components": {**document["components"], "schemas": schemas}}
