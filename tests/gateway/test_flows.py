import asyncio
import json

import pytest

from gateway.flow_cache import FlowCache
from gateway.flows import Flows
from penstock.errors import FlowNotFound, InvalidArgument, InvalidFlow
from tests.gateway.fakes import CHAT, ECHO, MemoryFlowStore, World


def flows_over(store: MemoryFlowStore, world: World, *, refresh_s: float = 3600, names_max: int = 8) -> Flows:
    return Flows(store=store, cache=FlowCache(8), compiler=world.compiler, refresh_s=refresh_s, names_max=names_max)


@pytest.fixture
def store() -> MemoryFlowStore:
    return MemoryFlowStore()


@pytest.fixture
def flows(store: MemoryFlowStore, world: World) -> Flows:
    return flows_over(store, world)


async def test_a_flow_that_is_kept_can_be_read_listed_run_and_deleted(flows: Flows) -> None:
    kept = await flows.create("echo", ECHO)
    assert (kept.flow_id, kept.document, kept.inputs, kept.outputs) == ("echo", ECHO, (("text", "text", True),), ("answer",))
    assert await flows.get("echo") == kept
    assert [each.flow_id for each in (await flows.page(0, "")).flows] == ["echo"]
    assert (await (await flows.compiled("echo")).run({"text": "a"})).outputs == {"answer": "A"}
    await flows.delete("echo")
    for ask in (flows.get, flows.compiled, flows.delete):
        with pytest.raises(FlowNotFound, match="there is no flow 'echo'"):
            await ask("echo")


async def test_a_flow_that_was_replaced_here_is_never_served_again(flows: Flows) -> None:
    await flows.create("f", ECHO)
    old = await flows.compiled("f")
    await flows.create("f", CHAT, replace=True)
    new = await flows.compiled("f")
    assert new.flow.content_hash != old.flow.content_hash


async def test_a_run_costs_no_query_until_the_name_is_due_again(store: MemoryFlowStore, world: World) -> None:
    flows = flows_over(store, world)
    await flows.create("f", ECHO)
    for _ in range(100):
        await flows.compiled("f")
    assert store.reads == 0


async def test_what_another_replica_replaced_is_seen_when_the_name_is_due(store: MemoryFlowStore, world: World) -> None:
    here, there = flows_over(store, world, refresh_s=0), flows_over(store, world)
    await here.create("f", ECHO)
    await there.create("f", CHAT, replace=True)
    assert (await here.compiled("f")).flow.content_hash == (await there.compiled("f")).flow.content_hash


async def test_many_who_look_for_a_name_at_once_ask_the_store_once(store: MemoryFlowStore, world: World) -> None:
    await flows_over(store, world).create("f", ECHO)
    fresh = flows_over(store, world)
    assert len(set(await asyncio.gather(*(fresh.compiled("f") for _ in range(20))))) == 1
    assert store.reads == 1


async def test_a_search_that_began_before_a_write_is_not_remembered_after_it(store: MemoryFlowStore, world: World) -> None:
    flows = flows_over(store, world)
    await flows_over(store, world).create("f", ECHO)
    searching = asyncio.create_task(flows.compiled("f"))
    await asyncio.sleep(0)
    await flows.delete("f")
    await asyncio.gather(searching, return_exceptions=True)
    with pytest.raises(FlowNotFound):
        await flows.compiled("f")


async def test_names_that_are_remembered_are_bounded(store: MemoryFlowStore, world: World) -> None:
    flows = flows_over(store, world, names_max=2)
    for name in "abc":
        await flows.create(name, ECHO)
    await flows.compiled("c")
    assert store.reads == 0
    await flows.compiled("a")
    assert store.reads == 1


@pytest.mark.parametrize("flow_id", ["", "A", "9a", "a b", "a/b", "a" * 64, "ä", "a\n", "-a"])
async def test_an_id_that_is_none_is_refused_and_never_found(flows: Flows, store: MemoryFlowStore, flow_id: str) -> None:
    with pytest.raises(InvalidArgument, match="is not a flow id"):
        await flows.create(flow_id, ECHO)
    with pytest.raises(FlowNotFound):
        await flows.get(flow_id)
    with pytest.raises(FlowNotFound):
        await flows.compiled(flow_id)
    assert store.reads == 0


async def test_a_flow_with_faults_is_not_kept(flows: Flows, store: MemoryFlowStore) -> None:
    with pytest.raises(InvalidFlow):
        await flows.create("bad", "{}")
    assert store.flows == {}
    flow, faults = await flows.check("{}")
    assert (flow, [fault.field for fault in faults]) == (None, ["nodes"])


async def test_pages_follow_each_other_without_gap_or_overlap(flows: Flows) -> None:
    names = [f"f{number}" for number in range(7)]
    for name in names:
        await flows.create(name, ECHO)
    seen, after = [], ""
    while True:
        page = await flows.page(3, after)
        seen += [each.flow_id for each in page.flows]
        assert all(each.document == "" for each in page.flows)
        if not (after := page.next_after):
            break
    assert seen == names


@pytest.mark.parametrize("size", [-1, 1001])
async def test_a_page_size_out_of_range_is_refused(flows: Flows, size: int) -> None:
    with pytest.raises(InvalidArgument, match="page_size must be from 1 to 1000"):
        await flows.page(size, "")


def imported(name: str) -> str:
    origin = {"format": "langflow", "id": "a0d05fc7-66eb-4818-9191-ee9acc03848e", "endpoint_name": name}
    return json.dumps({**json.loads(ECHO), "origin": origin})


async def test_a_flow_is_resolved_by_its_id_then_by_its_aliases(flows: Flows, store: MemoryFlowStore) -> None:
    await flows.create("echo", imported("other"))
    assert flows.known("other") is None
    for name in ("echo", "other", "A0D05FC7-66EB-4818-9191-EE9ACC03848E"):
        assert await flows.resolve(name) == "echo"
    reads = store.reads
    assert [flows.known("other"), await flows.resolve("other")] == ["echo", "echo"]
    assert store.reads == reads, "what is known costs no query"
    await flows.create("other", ECHO)
    assert await flows.resolve("other") == "other", "an id comes before an alias, and a write is seen at once"
    for name in ("nobody", "", "a b"):
        with pytest.raises(FlowNotFound):
            await flows.resolve(name)
