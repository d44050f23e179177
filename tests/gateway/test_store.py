import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway.flows import StoredFlow
from gateway.origin import Provenance
from gateway.store import SqlFlowStore, open_store
from penstock.errors import AlreadyExists, FailedPrecondition, Unavailable


def flow(flow_id: str = "f", version: str = "1") -> StoredFlow:
    return StoredFlow(
        flow_id=flow_id,
        content_hash=version * 64,
        document=f'{{"version": "{version}"}}',
        create_time=datetime.now(UTC),
        inputs=(("question", "text", True), ("n", "number", False)),
        outputs=("answer",),
    )


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqlFlowStore]:
    async with open_store("", tmp_path / "made" / "here") as opened:
        yield opened


async def test_what_was_put_is_got_again_also_after_a_restart(tmp_path: Path) -> None:
    kept = flow()
    async with open_store("", tmp_path) as store:
        assert await store.put(kept, replace=False) == kept
    async with open_store("", tmp_path) as store:
        assert await store.get("f") == kept
        assert await store.get("g") is None


async def test_the_same_document_again_changes_nothing(store: SqlFlowStore) -> None:
    first = await store.put(flow(), replace=False)
    for replaces in (False, True):
        assert await store.put(flow(), replace=replaces) == first


async def test_another_document_needs_replace(store: SqlFlowStore) -> None:
    await store.put(flow(version="1"), replace=False)
    with pytest.raises(AlreadyExists, match="set replace") as caught:
        await store.put(flow(version="2"), replace=False)
    assert caught.value.metadata == {"flow": "f", "content_hash": "1" * 64}
    second = flow(version="2")
    assert await store.put(second, replace=True) == second
    assert await store.get("f") == second


async def test_a_page_is_in_order_and_without_documents(store: SqlFlowStore) -> None:
    for name in ("b", "c", "a", "d"):
        await store.put(flow(name), replace=False)
    page = await store.page("a", 2)
    assert [each.flow_id for each in page] == ["b", "c"]
    assert page[0].document == ""
    assert (page[0].inputs, page[0].outputs) == (flow().inputs, flow().outputs)


async def test_a_deleted_flow_is_gone_and_its_name_free(store: SqlFlowStore) -> None:
    await store.put(flow(), replace=False)
    assert await store.delete("f")
    assert not await store.delete("f")
    await store.put(flow(version="2"), replace=False)


async def test_of_many_writers_of_one_name_one_wins_and_the_others_are_told(store: SqlFlowStore) -> None:
    tried = await asyncio.gather(
        *(store.put(flow(version=version), replace=False) for version in "12345678"), return_exceptions=True
    )
    won = [each for each in tried if isinstance(each, StoredFlow)]
    assert len(won) == 1
    assert all(isinstance(each, AlreadyExists) for each in tried if each is not won[0])
    assert await store.get("f") == won[0]


async def test_two_processes_may_share_the_file(tmp_path: Path) -> None:
    async with open_store("", tmp_path) as one, open_store("", tmp_path) as other:
        kept = await one.put(flow(), replace=False)
        assert await other.get("f") == kept
        await asyncio.gather(*(each.put(flow(f"n{n}"), replace=False) for n, each in enumerate([one, other] * 10)))
        assert len(await one.page("", 100)) == 21


async def test_a_database_that_cannot_be_used_is_unavailable_and_says_why(tmp_path: Path) -> None:
    (tmp_path / "flows.db").write_bytes(b"this is not a database, but long enough to be read as one" * 100)
    with pytest.raises(Unavailable, match="the database of flows cannot be used: file is not a database"):
        async with open_store("", tmp_path):
            pass


async def test_times_keep_their_zone(store: SqlFlowStore) -> None:
    kept = replace(flow(), create_time=datetime(2026, 1, 2, 3, 4, 5, 678900, tzinfo=UTC))
    await store.put(kept, replace=False)
    assert (await store.get("f")) == kept


@pytest.mark.parametrize("url", ["nonsense", "http://ann:secret@db/x", "postgresql://ann:secret@db/x", "sqlite:///x.db"])
async def test_a_url_that_cannot_be_used_says_what_to_set(url: str, tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition, match=r"^PENSTOCK_GATEWAY_DATABASE_URL .* set it to sqlite") as refused:
        async with open_store(url, tmp_path):
            pass
    assert "secret" not in refused.value.message


async def test_a_database_that_cannot_be_used_says_where_that_is_set(tmp_path: Path) -> None:
    (tmp_path / "flows.db").write_bytes(b"no database" * 1000)
    with pytest.raises(Unavailable, match="file is not a database; check that it runs, and PENSTOCK_GATEWAY_DATABASE_URL"):
        async with open_store("", tmp_path):
            pass


def imported(flow_id: str, version: str = "1", endpoint_name: str = "Support") -> StoredFlow:
    origin = Provenance(format="langflow", id="a0d05fc7-66eb-4818-9191-ee9acc03848e", name="Bot", endpoint_name=endpoint_name)
    return replace(flow(flow_id, version), origin=origin, description="Answers.")


async def test_an_imported_flow_is_found_by_the_names_that_it_had(store: SqlFlowStore) -> None:
    kept = await store.put(imported("bot"), replace=False)
    assert await store.get("bot") == kept
    assert [await store.resolve(name) for name in kept.aliases] == ["bot", "bot"]
    assert [await store.resolve(name) for name in ("support", "bot", "")] == [None, None, None]


async def test_a_name_that_several_had_leads_to_the_first_until_it_has_it_no_more(store: SqlFlowStore) -> None:
    await store.put(imported("zebra"), replace=False)
    await store.put(imported("ant"), replace=False)
    await store.put(imported("zebra", version="2"), replace=True)
    assert await store.resolve("Support") == "zebra"
    await store.put(imported("zebra", version="3", endpoint_name="other"), replace=True)
    assert [await store.resolve(name) for name in ("Support", "other")] == ["ant", "zebra"]
    await store.delete("ant")
    assert await store.resolve("Support") is None
