"""A coordinator in slot 0, and slot 1 behind real gRPC servers. Of collection 0 shard 0 is here and shard 1 is there."""

import asyncio
from collections.abc import Awaitable

import numpy as np
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from penstock.errors import (
    InvalidArgument,
    NotReady,
    Overloaded,
    Unavailable,
)
from retrieval_svc.cluster.limits import ClusterLimits
from retrieval_svc.filters import Exists, OneOf
from retrieval_svc.values import EVERYTHING, ShardQuery, UnmetCondition, Visibility
from tests.retrieval_svc.cluster.fakes import (
    EVERY_ROW,
    HASTY,
    HERE,
    PATIENT,
    THERE,
    TWO_SHARDS,
    CountingStatistics,
    FakeNode,
    collection,
    coordinating,
    forever,
    places,
    query,
    raising,
    search,
    serving,
)


async def test_a_node_alone_searches_its_own_shards_without_a_call() -> None:
    node = FakeNode({0: HERE[0], 1: THERE[1]})
    async with coordinating(node, "", slot_count=1) as coordinator:
        found = await search(coordinator, query(), query(-1.0, limit=2))
    assert [places(each.dense) for each in found] == [EVERY_ROW, [(0, 3), (1, 5)]]
    assert len(node.calls) == 1


async def test_shards_of_another_node_are_merged_with_those_of_this_one() -> None:
    asked = query(text="ab", with_chunks=True, filter=OneOf(field="year", values=(2020.0,)), ef_search=7, exact=True)
    asked_too = query(visibility=Visibility(principals=frozenset({"a", "b"})), nprobe=3, vector=None, text="abc")
    async with serving(FakeNode(THERE)) as there, coordinating(FakeNode(HERE), f",{there.address}") as coordinator:
        found = await search(coordinator, asked, asked_too)
    assert [places(found[0].dense), places(found[1].lexical)] == [EVERY_ROW, EVERY_ROW]
    assert found[0].dense is not None
    assert found[0].dense.chunks == tuple(f"{shard}/{number}".encode() for shard, number in EVERY_ROW)
    assert found[1].dense is None
    [arrived] = there.node.calls
    assert arrived[0].vector is not None
    assert asked.vector is not None
    assert arrived[0].vector.tolist() == asked.vector.tolist()
    assert [each.filter for each in arrived] == [asked.filter, None]
    assert [each.visibility for each in arrived] == [EVERYTHING, asked_too.visibility]
    assert [(each.limit, each.ef_search, each.nprobe, each.exact, each.text) for each in arrived] == [
        (10, 7, None, True, "ab"),
        (10, None, 3, False, "abc"),
    ]


async def test_queries_that_wait_go_out_as_one_call() -> None:
    gate = asyncio.Event()
    statistics = CountingStatistics()
    async with serving(FakeNode(THERE, gate.wait)) as there:  # type: ignore[arg-type]
        async with coordinating(FakeNode(HERE), f",{there.address}", limits=PATIENT, statistics=statistics) as coordinator:
            first = [asyncio.create_task(search(coordinator)) for _ in range(2)]
            while len(there.node.calls) < 1:
                await asyncio.sleep(0.01)
            second = [asyncio.create_task(search(coordinator, query(-1.0))) for _ in range(30)]
            while len(there.node.calls) < 2:
                await asyncio.sleep(0.01)
            third = [asyncio.create_task(search(coordinator)) for _ in range(100)]
            await asyncio.sleep(0.05)
            assert len(there.node.calls) == 2, "no more calls in flight than the limit"
            gate.set()
            found = await asyncio.gather(*first, *second, *third)
    assert [len(call) for call in there.node.calls] == statistics.batches == [2, 30, 64, 36]
    assert all(places(each[0].dense) == EVERY_ROW for each in (*found[:2], *found[32:]))
    assert all(places(each[0].dense) == EVERY_ROW[::-1] for each in found[2:32])
    assert statistics.fan_outs == 132


async def test_a_search_of_more_queries_than_a_call_may_have_goes_out_in_parts() -> None:
    async with serving(FakeNode(THERE)) as there, coordinating(FakeNode(HERE), f",{there.address}") as coordinator:
        found = await search(coordinator, *(query(1.0 if at % 2 else -1.0) for at in range(150)))
        many_rows = await search(coordinator, *(query(limit=6000) for _ in range(3)))
    assert [len(call) for call in there.node.calls] == [64, 64, 22, 1, 1, 1]
    assert [places(each.dense) for each in found] == [EVERY_ROW[::-1], EVERY_ROW] * 75
    assert [places(each.dense) for each in many_rows] == [EVERY_ROW] * 3


async def test_positions_reach_the_shards_and_are_not_waited_for_by_others() -> None:
    node = FakeNode(THERE)

    async def wait_where_asked_to() -> None:
        if node.positions[-1][1] > 0:
            await forever()

    node.before = wait_where_asked_to
    async with serving(node) as there, coordinating(here := FakeNode(HERE), f",{there.address}", limits=PATIENT) as coordinator:
        waiting = [
            asyncio.create_task(coordinator.gather(TWO_SHARDS, [query()], at_least={0: 3, 1: 9 + at}, allow_partial=False))
            for at in range(3)
        ]
        while node.running < 3:
            await asyncio.sleep(0.01)
        assert places((await search(coordinator))[0].dense) == EVERY_ROW
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
    assert [each[0] for each in here.positions] == [3, 3, 3, 0]
    assert sorted(each[1] for each in node.positions) == [0, 9, 10, 11]


async def test_fellow_replicas_answer_while_this_node_is_loading() -> None:
    async with serving(FakeNode(HERE)) as fellow:
        loading = FakeNode({}, raising(NotReady("loading")))
        async with coordinating(loading, fellow.address, slot_count=1) as coordinator:
            found = await coordinator.gather(collection(1), [query()], at_least={}, allow_partial=False)
            rows = await coordinator.fetch(collection(1), np.array([0], np.int32), np.array([2]), with_vectors=False)
            matched = await coordinator.match(collection(1), Exists(field="year"), EVERYTHING, at_least={})
    assert places(found[0].dense) == [(0, 2), (0, 1), (0, 3)]
    assert [row.chunk for row in rows if row is not None] == [b"0/2"]
    assert matched[0].tolist() == [1, 2, 3]


def filtered() -> ShardQuery:
    return query(filter=OneOf(field="year", values=("2020",)))


async def test_a_condition_that_no_row_can_meet_is_refused_when_every_shard_says_so() -> None:
    here, away = FakeNode(HERE), FakeNode(THERE)
    here.unmet[0] = (UnmetCondition(field="year", wanted="string", present=frozenset({"number"})),)
    async with serving(away) as there, coordinating(here, f",{there.address}") as coordinator:
        assert places((await search(coordinator, filtered()))[0].dense) == EVERY_ROW
        away.unmet[1] = (UnmetCondition(field="year", wanted="string"), UnmetCondition(field="x", wanted="bool"))
        with pytest.raises(InvalidArgument, match="field 'year' with a string, but in the chunks it is a number") as caught:
            await search(coordinator, query(), filtered())
        assert caught.value.violations[0].field == "filter"
        here.unmet[0] = (UnmetCondition(field="x", wanted="bool"),)
        with pytest.raises(InvalidArgument, match="no chunk has the metadata field 'x'"):
            await search(coordinator, filtered())
        with pytest.raises(InvalidArgument, match="no chunk has the metadata field 'x'"):
            await coordinator.match(TWO_SHARDS, Exists(field="x"), EVERYTHING, at_least={})


async def test_a_shard_that_lost_its_last_row_still_vouches_for_its_fields() -> None:
    node, unmet = FakeNode({0: {1: 0.5}, 1: {}}), (UnmetCondition(field="year", wanted="string"),)
    node.unmet = {0: unmet, 1: ()}
    async with coordinating(node, "", slot_count=1) as coordinator:
        await search(coordinator, filtered())
        await coordinator.match(TWO_SHARDS, Exists(field="year"), EVERYTHING, at_least={})
        node.unmet[1] = unmet
        with pytest.raises(InvalidArgument, match="no chunk has the metadata field 'year'"):
            await search(coordinator, filtered())
        with pytest.raises(InvalidArgument, match="no chunk has the metadata field 'year'"):
            await coordinator.match(TWO_SHARDS, Exists(field="year"), EVERYTHING, at_least={})


async def test_nothing_is_refused_where_no_shard_has_rows() -> None:
    node = FakeNode({0: {}, 1: {}})
    node.unmet = {0: (UnmetCondition(field="year", wanted="string"),), 1: (UnmetCondition(field="year", wanted="string"),)}
    async with coordinating(node, "", slot_count=1) as coordinator:
        assert places((await search(coordinator, filtered()))[0].dense) == []
        nothing = await coordinator.match(TWO_SHARDS, Exists(field="year"), EVERYTHING, at_least={})
        assert [len(sequences) for sequences in nothing.values()] == [0, 0]


async def test_rows_are_read_from_their_shards_in_the_order_asked_for_and_those_that_are_gone_are_none() -> None:
    async with serving(FakeNode(THERE)) as there, coordinating(here := FakeNode(HERE), f",{there.address}") as coordinator:
        shards, sequences = np.array([1, 0, 0, 1, 1], np.int32), np.array([5, 3, 4, 1, 5])
        rows = await coordinator.fetch(TWO_SHARDS, shards, sequences, with_vectors=True)
        none = await coordinator.fetch(TWO_SHARDS, shards[:0], sequences[:0], with_vectors=True)
        gone = await coordinator.fetch(TWO_SHARDS, np.array([1], np.int32), np.array([77]), with_vectors=True)
    assert [row and (row.chunk, row.vector is not None and row.vector.tolist()) for row in rows] == [
        (b"1/5", [np.float32(0.2)]),
        (b"0/3", [np.float32(0.1)]),
        None,
        (b"1/1", [1.0]),
        (b"1/5", [np.float32(0.2)]),
    ]
    assert (none, gone) == ([], [None])
    assert (here.fetches, there.node.fetches) == ([(4, [3, 4])], [(5, [1, 5]), (77, [77])])


async def test_reads_that_wait_go_out_as_one_call() -> None:
    gate = asyncio.Event()
    async with serving(FakeNode(THERE, gate.wait)) as there:  # type: ignore[arg-type]
        async with coordinating(FakeNode(HERE), f",{there.address}", limits=PATIENT) as coordinator:
            asked = [
                asyncio.create_task(
                    coordinator.fetch(TWO_SHARDS, np.array([1], np.int32), np.array([number]), with_vectors=False)
                )
                for number in (1, 5, 1, 9)
            ]
            while not there.node.fetches:
                await asyncio.sleep(0.01)
            gate.set()
            rows = await asyncio.gather(*asked)
    assert [row and row.chunk for [row] in rows] == [b"1/1", b"1/5", b"1/1", None]
    assert there.node.fetches == [(9, [1, 5, 9])]


async def test_all_rows_that_match_are_given_by_shard_and_a_missing_shard_fails_it() -> None:
    async with serving(FakeNode(THERE)) as there, coordinating(FakeNode(HERE), f",{there.address}") as coordinator:
        matched = await coordinator.match(TWO_SHARDS, Exists(field="year"), EVERYTHING, at_least={1: 3})
        await there.stop()
        with pytest.raises(Unavailable, match=r"shard 1 \(slot 1\)"):
            await coordinator.match(TWO_SHARDS, Exists(field="year"), EVERYTHING, at_least={})
        with pytest.raises(Unavailable, match=r"shard 1 \(slot 1\)"):
            await coordinator.fetch(TWO_SHARDS, np.array([0, 1], np.int32), np.array([1, 1]), with_vectors=False)
    assert {shard: sequences.tolist() for shard, sequences in matched.items()} == {0: [1, 2, 3], 1: [1, 5]}


def other_tasks() -> set[asyncio.Task[object]]:
    """Those that a fan-out may have left behind; gRPC's servers have some of their own."""
    return {task for task in asyncio.all_tasks() if "retrieval_svc" in str(task.get_coro())}


@pytest.mark.parametrize("what", ["search", "fetch", "match"])
async def test_whoever_leaves_leaves_nothing_behind(what: str) -> None:
    async with serving(FakeNode(THERE, forever)) as one, serving(FakeNode(THERE, forever)) as other:
        async with coordinating(FakeNode(HERE), f",{one.address}|{other.address}", limits=HASTY) as coordinator:
            before = other_tasks()

            def ask() -> Awaitable[object]:
                if what == "search":
                    return search(coordinator)
                if what == "fetch":
                    return coordinator.fetch(TWO_SHARDS, np.array([1], np.int32), np.array([1]), with_vectors=False)
                return coordinator.match(TWO_SHARDS, Exists(field="year"), EVERYTHING, at_least={})

            asked = [asyncio.ensure_future(ask()) for _ in range(5)]
            while not (one.node.running and other.node.running):
                await asyncio.sleep(0.01)
            stays = asked.pop()
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
            assert not stays.done(), "a call that somebody still waits for goes on"
            stays.cancel()
            await asyncio.gather(stays, return_exceptions=True)
            while one.node.running or other.node.running or other_tasks() - before:
                await asyncio.sleep(0.01)


async def test_closing_ends_what_is_under_way() -> None:
    async with serving(FakeNode(THERE, forever)) as there:
        async with coordinating(FakeNode(HERE), f",{there.address}") as coordinator:
            asked = asyncio.create_task(search(coordinator))
            while not there.node.running:
                await asyncio.sleep(0.01)
        with pytest.raises(Unavailable, match="leaving"):
            await asked


async def test_a_bound_on_what_waits_turns_more_away() -> None:
    limits = ClusterLimits(waiting_max=3, turns_open_max=1)
    async with serving(FakeNode(THERE, forever)) as there:
        async with coordinating(FakeNode(HERE), f",{there.address}", limits=limits) as coordinator:
            asked = [asyncio.create_task(search(coordinator))]
            while not there.node.running:
                await asyncio.sleep(0.01)
            asked += [asyncio.create_task(search(coordinator)) for _ in range(3)]
            await asyncio.sleep(0)
            with pytest.raises(Overloaded, match="3 searches wait"):
                await search(coordinator)
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)


async def test_a_node_alone_says_which_of_its_shards_it_has_too_much_to_do_for() -> None:
    full = FakeNode({0: HERE[0], 1: THERE[1]}, before=raising(Overloaded("full", retry_after_s=3.0)))
    async with coordinating(full, "", slot_count=1) as coordinator:
        with pytest.raises(Overloaded, match=r"shards 0, 1 \(slot 0\): full") as refused:
            await search(coordinator)
    assert (refused.value.metadata["shards"], refused.value.retry_after_s) == ("0,1", 3.0)


async def test_what_a_node_alone_does_is_in_the_trace_of_a_recorded_search() -> None:
    spans = InMemorySpanExporter()
    tracers = TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(spans))
    async with coordinating(FakeNode({0: HERE[0], 1: THERE[1]}), "", slot_count=1, tracers=tracers) as coordinator:
        with tracers.get_tracer("test").start_as_current_span("call"):
            found = await search(coordinator)
    assert places(found[0].dense) == EVERY_ROW
    assert [span.name for span in spans.get_finished_spans()] == ["shard call", "fan-out", "call"]


async def test_a_fan_out_is_a_span_with_one_child_a_slot_and_the_other_node_continues_the_trace() -> None:
    spans = InMemorySpanExporter()
    tracers = TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(spans))
    async with serving(FakeNode(THERE), tracers=tracers) as there:
        async with coordinating(FakeNode(HERE), f",{there.address}", tracers=tracers) as coordinator:
            await search(coordinator)
            assert {span.name for span in spans.get_finished_spans()} & {"fan-out", "shard call"} == set()
            spans.clear()
            with tracers.get_tracer("test").start_as_current_span("call"):
                await search(coordinator, query(), query())
        while len(spans.get_finished_spans()) < 6:
            await asyncio.sleep(0.01)
    by_id = {span.context.span_id: span for span in spans.get_finished_spans() if span.context}
    told = {
        (span.name, (span.attributes or {}).get("penstock.cluster.slot")): by_id[span.parent.span_id].name
        for span in by_id.values()
        if span.parent
    }
    method = "penstock.retrieval.v1.ShardService/SearchShards"
    assert told[("fan-out", None)] == "call"
    assert told[("shard call", 0)] == told[("shard call", 1)] == "fan-out"
    assert {parent for (name, _), parent in told.items() if name == method} <= {"shard call", method}
    remote = next(span for span in by_id.values() if (span.attributes or {}).get("penstock.cluster.slot") == 1)
    assert remote.attributes is not None
    assert remote.attributes["penstock.batch.size"] == remote.attributes["penstock.query.count"] == 2
    assert len({span.context.trace_id for span in by_id.values() if span.context}) == 1
