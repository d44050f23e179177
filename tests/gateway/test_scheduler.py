"""How nodes run together. Nothing here measures time: what must happen at once waits for each other."""

import asyncio
from typing import Any

import pytest

from gateway.execution import NodeFinished, NodeStarted, RunResult
from penstock.errors import CollectionNotFound, ModelNotFound
from tests.gateway.fakes import CHAT, RAG, TWO_SEARCHES, World, document, node, passage


async def test_branches_run_at_the_same_time(world: World) -> None:
    both = asyncio.Barrier(2)
    world.retriever.before = lambda _: both.wait()
    async with asyncio.timeout(5):
        result = await world.compile(TWO_SEARCHES).run({"question": "x"})
    assert result.outputs == {"answer": "[1] passage 1\n\n[2] passage 2|[1] passage 1\n\n[2] passage 2"}


async def test_a_node_starts_when_its_own_inputs_are_ready_and_waits_for_no_others(world: World) -> None:
    generated = asyncio.Event()

    async def slow_left(collection: str) -> None:
        if collection == "left":
            await generated.wait()

    async def after_right(_: object) -> None:
        generated.set()

    world.retriever.before, world.generator.before = slow_left, after_right
    flow = document(
        node("question", "input"), node("left", "retrieve", collection="left"),
        node("right", "retrieve", collection="right"),
        node("prompt", "prompt", template="{right}"), node("model", "generate"),
        node("join", "prompt", template="{left}{model}"),
        node("answer", "output"),
        edges=["question > left", "question > right", "right > prompt", "prompt > model", "model > join",
               "left > join", "join > answer"],
    )  # fmt: skip
    async with asyncio.timeout(5):
        result = await world.compile(flow).run({"question": "x"})
    assert result.outputs["answer"].endswith("It was Denver.")


async def test_a_straight_line_makes_no_task(world: World) -> None:
    seen: list[asyncio.Task[Any] | None] = []

    async def note(_: object) -> None:
        seen.append(asyncio.current_task())

    world.retriever.before = world.generator.before = note
    await world.compile(RAG).run({"question": "x"})
    assert seen == [asyncio.current_task()] * 2


async def test_runs_share_nothing(world: World) -> None:
    compiled = world.compile(CHAT)
    everyone = asyncio.Barrier(20)
    world.generator.before = lambda _: everyone.wait()
    async with asyncio.timeout(5):
        results = await asyncio.gather(*(compiled.run({"question": f"q{number}"}) for number in range(20)))
    assert {request.prompt for request in world.generator.requests} == {f"Q: q{number}" for number in range(20)}
    assert all((result.spent.input_tokens, result.spent.output_tokens) == (3, 2) for result in results)


async def test_the_first_failure_stops_the_other_branches_and_names_its_node(world: World) -> None:
    async def fail_right(collection: str) -> None:
        if collection == "right":
            raise CollectionNotFound("no collection 'right'", metadata={"collection": "right"})
        await asyncio.Event().wait()

    world.retriever.before = fail_right
    async with asyncio.timeout(5):
        with pytest.raises(CollectionNotFound, match="no collection 'right'") as caught:
            await world.compile(TWO_SEARCHES).run({"question": "x"})
    assert caught.value.metadata == {"collection": "right", "node": "right"}
    assert world.retriever.cancelled.is_set()


async def test_of_two_failures_at_once_one_is_told_and_the_other_is_not_left_behind(world: World) -> None:
    both = asyncio.Barrier(2)

    async def fail(collection: str) -> None:
        await both.wait()
        raise ModelNotFound(collection)

    world.retriever.before = fail
    with pytest.raises(ModelNotFound) as caught:
        await world.compile(TWO_SEARCHES).run({"question": "x"})
    assert caught.value.metadata["node"] in {"left", "right"}


async def test_a_defect_in_a_node_is_noted_with_the_node_and_not_hidden(world: World) -> None:
    async def break_down(_: str) -> None:
        raise ZeroDivisionError

    world.retriever.before = break_down
    with pytest.raises(ZeroDivisionError) as caught:
        await world.compile(RAG).run({"question": "x"})
    assert caught.value.__notes__ == ["in the node 'docs' of type 'retrieve'"]


async def test_a_caller_that_leaves_stops_every_branch(world: World) -> None:
    stopped: set[str] = set()
    both = asyncio.Barrier(3)

    async def wait_for_ever(collection: str) -> None:
        await both.wait()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            stopped.add(collection)
            raise

    world.retriever.before = wait_for_ever
    running = asyncio.create_task(world.compile(TWO_SEARCHES).run({"question": "x"}))
    await both.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert stopped == {"left", "right"}


async def test_every_node_tells_that_it_started_and_then_that_it_finished(world: World) -> None:
    events = [event async for event in world.compile(RAG).events({"question": "x"})]
    order = [(type(event), event.node_id) for event in events if isinstance(event, NodeStarted | NodeFinished)]
    nodes = ["question", "docs", "prompt", "model", "answer"]
    assert order == [(kind, name) for name in nodes for kind in (NodeStarted, NodeFinished)]
    assert isinstance(events[-1], RunResult)
    assert all(event.duration_s >= 0 for event in events if isinstance(event, NodeFinished))


async def test_sources_are_in_the_order_of_the_nodes_whoever_was_faster(world: World) -> None:
    right_done = asyncio.Event()

    async def right_first(collection: str) -> None:
        if collection == "left":
            await right_done.wait()
        right_done.set()

    world.retriever.before = right_first
    result = await world.compile(TWO_SEARCHES).run({"question": "x"})
    assert [(found.node_id, found.documents) for found in result.sources] == [
        ("left", (passage(1), passage(2))),
        ("right", (passage(1), passage(2))),
    ]


async def test_a_wide_and_deep_flow_runs(world: World) -> None:
    layers = [[f"n{layer}x{place}" for place in range(5)] for layer in range(20)]
    nodes = [
        node(name, "prompt", template="{a}{b}" if depth < 5 else "{a}") for depth, layer in enumerate(layers) for name in layer
    ]
    edges = [
        f"{layers[depth - 1][(place + step) % 5] if depth else 'q'} > {name}.{port}"
        for depth, layer in enumerate(layers)
        for place, name in enumerate(layer)
        for step, port in enumerate("ab" if depth < 5 else "a")
    ]
    flow = document(node("q", "input"), *nodes, node("out", "output"), edges=[*edges, f"{layers[-1][0]} > out"])
    result = await world.compile(flow).run({"q": "x"})
    assert result.outputs == {"out": "x" * 32}
