import json

import pytest
from google.api import annotations_pb2
from google.protobuf import descriptor_pool
from jsonschema import Draft202012Validator

from penstock.flow.v1 import flow_pb2
from penstock.retrieval.v1 import retrieval_pb2
from penstock.transcoding import openapi
from penstock.transcoding.reading import map_entry
from penstock.transcoding.rendering import Renderers

# The parts of OpenAPI 3.1's own schema that our documents use, each closed against what 3.1 does not have.
WELL_FORMED = {
    "type": "object",
    "required": ["openapi", "info", "paths", "components", "tags"],
    "additionalProperties": False,
    "properties": {
        "openapi": {"const": "3.1.0"},
        "info": {"type": "object", "required": ["title", "version"], "additionalProperties": {"type": "string"}},
        "tags": {"type": "array", "items": {"type": "object", "required": ["name"]}},
        "paths": {
            "type": "object",
            "propertyNames": {"pattern": "^/"},
            "additionalProperties": {
                "type": "object",
                "propertyNames": {"enum": ["get", "put", "post", "delete", "patch", "options", "head", "trace"]},
                "additionalProperties": {"$ref": "#/$defs/operation"},
            },
        },
        "components": {
            "type": "object",
            "additionalProperties": {"type": "object", "propertyNames": {"pattern": "^[a-zA-Z0-9._-]+$"}},
        },
    },
    "$defs": {
        "operation": {
            "type": "object",
            "required": ["operationId", "responses"],
            "additionalProperties": False,
            "properties": {
                "operationId": {"type": "string", "minLength": 1},
                "tags": {"type": "array", "items": {"type": "string"}},
                "summary": {"type": "string"},
                "description": {"type": "string"},
                "parameters": {"type": "array", "items": {"$ref": "#/$defs/parameter"}},
                "requestBody": {"type": "object", "required": ["content"]},
                "responses": {
                    "type": "object",
                    "minProperties": 1,
                    "propertyNames": {"pattern": "^([1-5][0-9]{2}|default)$"},
                    "additionalProperties": {"anyOf": [{"required": ["description"]}, {"required": ["$ref"]}]},
                },
            },
        },
        "parameter": {
            "type": "object",
            "required": ["name", "in", "schema"],
            "additionalProperties": False,
            "properties": {
                "name": {"type": "string", "minLength": 1},
                "in": {"enum": ["path", "query"]},
                "required": {"type": "boolean"},
                "description": {"type": "string"},
                "schema": {"type": "object"},
            },
            "if": {"properties": {"in": {"const": "path"}}},
            "then": {"required": ["required"], "properties": {"required": {"const": True}}},
        },
    },
}

SERVICES = (
    "penstock.flow.v1.FlowService",
    "penstock.flow.v1.RunService",
    "penstock.retrieval.v1.RetrievalService",
    "penstock.generation.v1.GenerationService",
)


@pytest.fixture(scope="module")
def document():
    return openapi(SERVICES, title="Penstock", version="1.0")


@pytest.fixture(scope="module")
def library_document(library):
    return openapi(["library.v1.Library"], title="Library", version="1", pool=library)


@pytest.fixture(params=["document", "library_document"])
def each_document(request):
    return request.getfixturevalue(request.param)


def below(value):
    """Every object inside a document."""
    if isinstance(value, dict):
        yield value
        for item in value.values():
            yield from below(item)
    elif isinstance(value, list):
        for item in value:
            yield from below(item)


def operations(document):
    return [(path, method, operation) for path, item in document["paths"].items() for method, operation in item.items()]


def validator(document, schema):
    return Draft202012Validator({**schema, "components": document["components"]})


def test_a_document_is_well_formed(each_document):
    Draft202012Validator(WELL_FORMED).validate(each_document)
    json.dumps(each_document)


def test_every_reference_leads_somewhere(each_document):
    references = [each["$ref"] for each in below(each_document) if isinstance(each.get("$ref"), str)]
    assert references
    for reference in references:
        target = each_document
        for part in reference.removeprefix("#/").split("/"):
            target = target[part]
        assert target


def test_every_component_schema_is_a_json_schema(each_document):
    for schema in each_document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


def test_operation_ids_are_unique(each_document):
    ids = [operation["operationId"] for _, _, operation in operations(each_document)]
    assert len(ids) == len(set(ids))


def test_every_part_of_a_path_is_a_parameter_and_no_other_is(each_document):
    for path, _, operation in operations(each_document):
        in_path = {part.partition("}")[0] for part in path.split("{")[1:]}
        assert in_path == {each["name"] for each in operation["parameters"] if each["in"] == "path"}


@pytest.mark.parametrize("service", SERVICES)
def test_every_method_with_a_rule_is_described(service):
    rpcs = descriptor_pool.Default().FindServiceByName(service).methods
    ruled = {f"{service.split('.')[-1]}_{rpc.name}" for rpc in rpcs if rpc.GetOptions().HasExtension(annotations_pb2.http)}
    described = operations(openapi([service], title="One", version="1"))
    assert ruled == {operation["operationId"].removesuffix("_2") for _, _, operation in described}


def test_descriptions_are_the_protos_comments(document):
    run = document["paths"]["/v1/flows/{flow}:run"]["post"]
    assert run["summary"] == "Runs a flow and returns what its output nodes received"
    flow = document["components"]["schemas"]["penstock.flow.v1.Flow"]
    assert flow["description"] == "A flow that is kept."
    assert flow["properties"]["name"]["description"] == 'Resource name, "flows/{flow}".'
    metric = document["components"]["schemas"]["penstock.retrieval.v1.Metric"]
    assert "- `METRIC_COSINE`: Cosine of the angle" in metric["description"]


def test_a_body_is_described_without_what_the_path_gives(document):
    body = document["paths"]["/v1/collections/{collection}:search"]["post"]["requestBody"]["content"]["application/json"]
    assert set(body["schema"]["properties"]) == set(retrieval_pb2.SearchRequest.DESCRIPTOR.fields_by_name) - {"collection"}


def test_a_query_is_described_field_by_field(document, library_document):
    search = document["paths"]["/v1/collections/{collection}:search"]["get"]
    assert [each["name"] for each in search["parameters"]][:5] == ["collection", "text", "vector", "top_k", "mode"]
    names = {each["name"] for each in library_document["paths"]["/v1/books"]["get"]["parameters"]}
    assert {"filter.author", "filter.since", "filter.inner.author", "words", "edition", "extra"} <= names
    assert not {"filter", "samples", "labels"} & names


def test_a_stream_is_described_as_events(document):
    content = document["paths"]["/v1/flows/{flow}:stream"]["post"]["responses"]["200"]["content"]
    assert set(content) == {"text/event-stream", "application/x-ndjson"}


def test_a_response_body_is_described_as_the_field(document, library_document):
    content = document["paths"]["/v1/flows/{flow}"]["get"]["responses"]["200"]["content"]
    assert content["application/json"]["schema"]["$ref"].endswith("penstock.flow.v1.Flow")
    titles = library_document["paths"]["/v1/titles"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert titles == {"type": "array", "items": {"type": "string"}}


def test_a_verb_that_openapi_does_not_have_is_left_out(library_document):
    assert set(library_document["paths"]["/v1/books"]) == {"get"}


def test_what_is_answered_is_what_is_described(document, library_document, library_message):
    """Rendered messages validate against the schemas of their types."""
    search = retrieval_pb2.SearchResponse(hits=[{"chunk": {"id": "a", "vector": b"\x01"}, "score": 0.5}])
    run = flow_pb2.RunFlowResponse(outputs={"a": [1, {"b": None}]}, usage={"input_tokens": 3})
    flow = flow_pb2.Flow(name="flows/a", create_time={"seconds": 5})
    everything = library_message("Everything")(
        large=2**60, single=0.5, colour=1, maybe=3, counts={"a": 1}, shelf={1: {"name": "x"}}, number=5, any={}, document="{}"
    )
    for text in ("wrapped_text", "wrapped_large", "duration", "time", "mask", "value", "list"):
        getattr(everything, text).SetInParent()
    for message, described in ((search, document), (run, document), (flow, document), (everything, library_document)):
        closed = json.loads(json.dumps(described))  # The document leaves room for fields to come; this test does not.
        for schema in below(closed["components"]["schemas"]):
            if isinstance(schema.get("properties"), dict):
                schema.setdefault("additionalProperties", False)
        schema = closed["components"]["schemas"][message.DESCRIPTOR.full_name]
        validator(closed, schema).validate(Renderers().of(message.DESCRIPTOR)(message))


def test_an_error_is_what_is_described(document):
    error = {"code": 404, "status": "NOT_FOUND", "message": "x", "details": [{"@type": "t", "reason": "FLOW_NOT_FOUND"}]}
    schema = document["components"]["schemas"]["Error"]
    validator(document, schema).validate({"error": error})
    assert not validator(document, schema).is_valid({"error": {"code": 404}})


def test_a_document_field_takes_an_object_or_text(document):
    schema = document["components"]["schemas"]["penstock.flow.v1.CreateFlowRequest"]
    check = validator(document, schema)
    assert check.is_valid({"flow_id": "a", "document": {"nodes": []}})
    assert check.is_valid({"flow_id": "a", "document": "{}"})
    assert not check.is_valid({"flow_id": "a", "document": 5})


def test_maps_are_told_from_lists_of_messages(library_message):
    fields = library_message("Everything").DESCRIPTOR.fields_by_name
    assert map_entry(fields["books"]) is None
    assert [field.name for field in map_entry(fields["shelf"])] == ["key", "value"]
