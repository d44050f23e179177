import json
from pathlib import Path

import jsonschema
import pytest

from gateway.nodes import NODE_TYPES
from gateway.nodes.operations import OPERATIONS
from gateway.schema import SCHEMA_FILE, flow_schema, schema_text
from tests.gateway.fakes import CHAT, ECHO, RAG, TWO_SEARCHES, document, node

EXAMPLES = sorted((Path(__file__).parents[2] / "examples/flows").glob("*.json"))


@pytest.fixture
def validator() -> jsonschema.Draft202012Validator:
    jsonschema.Draft202012Validator.check_schema(flow_schema())
    return jsonschema.Draft202012Validator(flow_schema())


def test_the_committed_schema_is_what_the_models_say() -> None:
    assert SCHEMA_FILE.read_text(encoding="utf-8") == schema_text(), "run `python -m gateway.schema` and commit what changed"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_the_examples_fit_the_schema(validator: jsonschema.Draft202012Validator, path: Path) -> None:
    validator.validate(json.loads(path.read_text(encoding="utf-8")))


def test_what_a_document_says_of_its_runs_has_its_schema(validator: jsonschema.Draft202012Validator) -> None:
    whole = json.loads(ECHO) | {"budget": {"model_calls": 3, "wall_s": 1.5}, "overrides": "all"}
    validator.validate(whole)
    assert not validator.is_valid(whole | {"budget": {"model_calls": -1}})
    assert not validator.is_valid(whole | {"budget": {"calls": 1}})


@pytest.mark.parametrize("text", [CHAT, RAG, ECHO, TWO_SEARCHES])
def test_the_short_form_fits_the_schema(validator: jsonschema.Draft202012Validator, text: str) -> None:
    validator.validate(json.loads(text))


@pytest.mark.parametrize(
    "wrong",
    [
        node("x", "retreive"),
        node("x", "retrieve"),
        node("x", "retrieve", collection="squad", topk=1),
        node("x", "retrieve", collection="squad", top_k=0),
        node("x", "transform", operation="explode"),
        node("x", "transform", operation="replace", old="a"),
        {"id": "x", "type": "prompt"},
        {"id": "x y", "type": "input"},
        {"type": "input"},
    ],
)
def test_the_schema_refuses_what_validation_refuses(
    validator: jsonschema.Draft202012Validator, wrong: dict[str, object]
) -> None:
    assert not validator.is_valid(json.loads(document(wrong, edges=[])))


def test_every_node_type_and_operation_has_its_schema() -> None:
    definitions = flow_schema()["$defs"]
    assert NODE_TYPES.keys() <= definitions.keys()
    assert {model.__name__ for model in OPERATIONS.values()} <= definitions.keys()
    assert all(definitions[name]["description"] for name in NODE_TYPES)
