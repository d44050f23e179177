"""What holds of every example flow of a method."""

import json
from pathlib import Path

import jsonschema
import pytest

from gateway.schema import flow_schema
from gateway.seeding import seed
from gateway.validation import examine
from tests.gateway.fakes import MemoryFlowStore, World
from tests.gateway.methods.scripted import FOLDER, METHODS, written
from tests.gateway.test_flows import flows_over

BUDGETS = {
    # What one question takes at most: (model calls, searches). A reranking counts as a model call.
    "standard-rag": (1, 1),
    "rerank-rag": (2, 1),
    "query-rewriting": (2, 3),
    "iter-retgen": (3, 3),
    "ircot": (6, 5),
    "self-ask": (6, 5),
    "flare": (10, 5),
    "skr": (1, 2),
    "adaptive-rag": (7, 5),
    "sure": (7, 1),
    "self-rag": (6, 1),
    "search-r1": (5, 4),
    "customer-service": (2, 1),
}


def test_every_method_is_there() -> None:
    assert set(METHODS) == set(BUDGETS)


@pytest.mark.parametrize("method", METHODS)
def test_a_method_is_valid_fits_the_published_schema_and_says_what_it_is(method: str) -> None:
    document = written(method)
    jsonschema.Draft202012Validator(flow_schema()).validate(json.loads(document))
    flow, faults = examine(document)
    assert faults == ()
    assert flow is not None
    assert len(flow.description) > 80


@pytest.mark.parametrize("method", METHODS)
def test_a_method_declares_what_a_question_takes_at_most(method: str) -> None:
    flow, _ = examine(written(method))
    assert flow is not None
    assert (flow.bounds.model_calls, flow.bounds.retrievals) == BUDGETS[method]


async def test_a_folder_inside_the_one_that_flows_are_read_from_is_left_alone(world: World) -> None:
    store = MemoryFlowStore()
    assert FOLDER.parent == Path(__file__).parents[3] / "examples/flows"
    await seed(flows_over(store, world), FOLDER.parent)
    assert not set(store.flows) & set(METHODS)


async def test_all_methods_can_be_kept_at_once(world: World) -> None:
    store = MemoryFlowStore()
    assert await seed(flows_over(store, world), FOLDER) == len(METHODS)
    assert set(store.flows) == set(METHODS)
