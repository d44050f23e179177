import asyncio
from dataclasses import replace

import pytest

from penstock.errors import BackendUnavailable
from retrieval_svc.record.committing import Gone, Written
from retrieval_svc.record.grouping import Lane
from retrieval_svc.record.store import SqlStore
from retrieval_svc.values import Collection, WriteBatch
from tests.retrieval_svc.record.batches import chunks, deletion, ingest, replicas, sharded, stored_ids


class Transactions:
    """Keeps what it is given to write, each transaction taking a turn of the loop."""

    def __init__(self) -> None:
        self.batches: list[WriteBatch] = []
        self.failures = 0

    async def write(self, batch: WriteBatch) -> Written:
        self.batches.append(batch)
        await asyncio.sleep(0.001)
        if self.failures:
            self.failures -= 1
            raise BackendUnavailable("down")
        return Written(changes={}, gone=())

    @property
    def ids(self) -> list[list[str]]:
        return [[chunk.id for chunk in batch.chunks] for batch in self.batches]


async def written(*batches: WriteBatch) -> Transactions:
    transactions = Transactions()
    lane = Lane(write=transactions.write)
    await asyncio.gather(*(lane.commit(batch) for batch in (chunks("first"), *batches)))
    return transactions


async def test_what_waits_goes_together_and_nothing_waits_for_company() -> None:
    transactions = await written(chunks("a"), chunks("b", "c"), ingest("d", "d#0"))
    assert transactions.ids == [["first", "a", "b", "c", "d#0"]] or transactions.ids[-1][-1] == "d#0"
    assert len(transactions.batches) <= 2
    joined = transactions.batches[-1]
    assert joined.delete_document_ids == ("d",)
    assert [document.id for document in joined.documents] == ["d"]
    assert len(joined.vectors) == len(joined.chunks)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (chunks("a"), chunks("a")),
        (chunks("a"), deletion(chunk_ids=("a",))),
        (ingest("d", "d#0"), ingest("d", "x")),
        (chunks("a", document="d"), deletion(document_ids=("d",))),
        (chunks("a"), deletion(rows={0: [1]})),
        (deletion(rows={0: [1]}), chunks("a")),
        (chunks("a"), chunks(*(f"many{number}" for number in range(64)))),
    ],
    ids=["the same chunk", "its deletion", "the same document", "its deletion", "rows", "rows first", "a large one"],
)
async def test_writes_that_have_an_order_or_are_large_go_one_after_another(one: WriteBatch, other: WriteBatch) -> None:
    transactions = await written(one, other)
    assert len(transactions.batches) >= 2
    assert transactions.batches[-1] is other


async def test_a_transaction_that_fails_fails_all_who_share_it_and_nobody_else() -> None:
    transactions = Transactions()
    transactions.failures = 1
    lane = Lane(write=transactions.write)
    results = await asyncio.gather(*(lane.commit(chunks(name)) for name in "ab"), return_exceptions=True)
    assert [type(result) for result in results] == [BackendUnavailable] * 2
    await lane.commit(chunks("c"))


async def test_whoever_leaves_takes_nobody_along() -> None:
    transactions = Transactions()
    lane = Lane(write=transactions.write)
    leaving, staying = (asyncio.ensure_future(lane.commit(chunks(name))) for name in "ab")
    await asyncio.sleep(0)
    leaving.cancel()
    await staying
    assert leaving.cancelled()


def test_each_is_told_what_it_deleted_itself() -> None:
    gone = tuple(
        Gone(shard=0, sequence=at, chunk_id=chunk_id, document_id=document)
        for at, (chunk_id, document) in enumerate([("a", ""), ("d#0", "d"), ("d#1", "d"), ("replaced", "")])
    )
    written = Written(changes={}, gone=gone)
    assert written.deleted_by(deletion(chunk_ids=("a", "unknown"))) == 1
    assert written.deleted_by(replace(ingest("d", "d#0"))) == 1
    assert written.deleted_by(chunks("replaced")) == 0
    assert written.deleted_by(deletion(rows={0: [0, 1, 2, 3]})) == 4


async def test_single_writes_at_the_same_time_share_transactions(store: SqlStore, docs: Collection) -> None:
    commits = await asyncio.gather(*(store.commit(docs.uid, chunks(f"c{number}")) for number in range(100)))
    assert len({commit.positions[0] for commit in commits}) < 50
    assert len(await stored_ids(store, docs.uid)) == 100
    for number, commit in enumerate(commits):
        assert f"c{number}" in {chunk.id for chunk in commit.changes[0].stored.chunks}


async def test_documents_ingested_at_the_same_time_are_all_whole(store: SqlStore) -> None:
    collection = await store.create_collection(sharded(3))
    batches = [ingest(f"d{number}", f"d{number}#0", f"d{number}#1") for number in range(30)]
    await asyncio.gather(*(store.commit(collection.uid, batch) for batch in batches))
    deleted = await asyncio.gather(
        *(store.commit(collection.uid, deletion(document_ids=(f"d{number}",))) for number in range(10)),
        *(store.commit(collection.uid, ingest(f"d{number}", f"d{number}#0")) for number in range(10, 20)),
    )
    assert [commit.deleted_count for commit in deleted] == [2] * 10 + [1] * 10
    followed = await replicas(store, collection.uid)
    found = sorted(chunk_id for replica in followed.values() for chunk_id in replica.rows.values())
    assert found == await stored_ids(store, collection.uid)
    assert len(found) == 10 + 20
    assert len(await store.documents_by_id(collection.uid, [f"d{number}" for number in range(30)])) == 20
