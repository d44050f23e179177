"""What holds of every example flow of a method."""

import json
import re
from pathlib import Path

import jsonschema
import pytest

from gateway.schema import flow_schema
from gateway.seeding import seed
from gateway.validation import examine
from tests.gateway.fakes import MemoryFlowStore, World
from tests.gateway.methods.scripted import FOLDER, METHODS, written
from tests.gateway.test_flows import flows_over

ROW = re.compile(r"^\| \[(.+)\]\((.+)\.json\) \|.*\| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)


def told() -> dict[str, tuple[int, int]]:
    """The most model calls and searches of each method, as the folder's README tells them."""
    rows = ROW.findall((FOLDER / "README.md").read_text(encoding="utf-8"))
    assert all(name == file for name, file, _, _ in rows)
    return {name: (most(calls), most(searches)) for name, _, calls, searches in rows}


def most(count: str) -> int:
    return int(count.partition(",")[0].rpartition(" to ")[2])


def test_the_readme_tells_of_every_method() -> None:
    assert set(METHODS) == set(told())


@pytest.mark.parametrize("method", METHODS)
def test_a_method_is_valid_fits_the_published_schema_and_says_what_it_is(method: str) -> None:
    document = written(method)
    jsonschema.Draft202012Validator(flow_schema()).validate(json.loads(document))
    flow, faults = examine(document)
    assert faults == ()
    assert flow is not None
    assert len(flow.description) > 80


@pytest.mark.parametrize("method", METHODS)
def test_a_method_declares_what_the_readme_says_that_a_question_takes_at_most(method: str) -> None:
    flow, _ = examine(written(method))
    assert flow is not None
    assert (flow.bounds.model_calls, flow.bounds.retrievals) == told()[method]


async def test_a_folder_inside_the_one_that_flows_are_read_from_is_left_alone(world: World) -> None:
    store = MemoryFlowStore()
    assert FOLDER.parent == Path(__file__).parents[3] / "examples/flows"
    await seed(flows_over(store, world), FOLDER.parent)
    assert not set(store.flows) & set(METHODS)


async def test_all_methods_can_be_kept_at_once(world: World) -> None:
    store = MemoryFlowStore()
    assert await seed(flows_over(store, world), FOLDER) == len(METHODS)
    assert set(store.flows) == set(METHODS)
