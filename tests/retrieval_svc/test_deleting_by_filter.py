"""A deletion by a filter that is tried again has nothing left to do, which is no mistake of the caller's."""

import struct
from pathlib import Path

import pytest
from google.protobuf.struct_pb2 import Value

from penstock.errors import InvalidArgument
from penstock.retrieval.v1 import retrieval_pb2 as pb
from tests.retrieval_svc.fakes import Core, CoreLimits, running_core
from tests.retrieval_svc.test_bad_input import Context

BOOKS = "collections/books"
COUNT = 20


def where(field: str, value: str) -> pb.Filter:
    return pb.Filter(equals=pb.Equals(field=field, value=Value(string_value=value)))


def book(number: int, *, lent: bool) -> pb.Chunk:
    chunk = pb.Chunk(id=f"c{number}", text=f"book {number}", vector=struct.pack("<3f", 1, number, 0))
    chunk.metadata.update({"lent_by": "ann"} if lent else {"title": "x"})
    return chunk


async def filled(core: Core, lent: int) -> None:
    collection = pb.Collection(dimension=3)
    await core.servicer.CreateCollection(pb.CreateCollectionRequest(collection_id="books", collection=collection), Context())
    chunks = [book(number, lent=number < lent) for number in range(COUNT)]
    await core.servicer.UpsertChunks(pb.UpsertChunksRequest(collection=BOOKS, chunks=chunks), Context())


async def deleted(core: Core, filter_: pb.Filter) -> int:
    request = pb.DeleteChunksRequest(collection=BOOKS, filter=filter_)
    return (await core.servicer.DeleteChunks(request, Context())).deleted_count


async def check(core: Core, rest: int) -> None:
    """Deleting again and searching find nothing; a field that never was is told as long as there is anything to search."""
    assert await deleted(core, where("lent_by", "ann")) == 0
    for mode in (pb.SEARCH_MODE_DENSE, pb.SEARCH_MODE_LEXICAL, pb.SEARCH_MODE_HYBRID):
        search = pb.SearchRequest(collection=BOOKS, text="book", mode=mode, filter=where("lent_by", "ann"))
        if mode is not pb.SEARCH_MODE_LEXICAL:
            search.vector = struct.pack("<3f", 1, 0, 0)
        if mode is pb.SEARCH_MODE_DENSE:
            search.ClearField("text")
        assert not (await core.servicer.Search(search, Context())).message().hits
        search.filter.CopyFrom(where("lend_by", "ann"))
        if rest:
            with pytest.raises(InvalidArgument, match="no chunk has the metadata field 'lend_by'"):
                await core.servicer.Search(search, Context())
    if rest:
        with pytest.raises(InvalidArgument, match="no chunk has the metadata field 'lend_by'"):
            await deleted(core, where("lend_by", "ann"))
    else:
        assert await deleted(core, where("lend_by", "ann")) == 0


@pytest.mark.parametrize("shard_count", [1, 3])
@pytest.mark.parametrize("lent", [1, 5, COUNT])
@pytest.mark.parametrize("sealed", [True, False])
async def test_it_is_the_same_before_and_after_sealing_merging_and_a_restart(
    tmp_path: Path, shard_count: int, lent: int, sealed: bool
) -> None:
    rest = COUNT - lent
    async with running_core(tmp_path, limits=CoreLimits(shard_count=shard_count)) as core:
        await filled(core, lent)
        if sealed:
            await all_do(core, "checkpoint")
        assert await deleted(core, where("lent_by", "ann")) == lent
        await check(core, rest)
        for step in ("checkpoint", "compact"):
            await all_do(core, step)
            await check(core, rest)
    async with running_core(tmp_path, limits=CoreLimits(shard_count=shard_count)) as core:
        await check(core, rest)


async def all_do(core: Core, step: str) -> None:
    for replica in core.shards.replicas():
        await getattr(core.maintenance, step)(replica)
