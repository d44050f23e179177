"""What no client of ours would send, and what disks do to a service: clear errors, nothing lost, and the service goes on."""

import asyncio
import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import grpc
import numpy as np
import pytest

from penstock.errors import BackendUnavailable, InvalidArgument, MessageTooLarge, PenstockError
from penstock.retrieval.v1 import retrieval_pb2 as pb
from penstock.wire import from_rpc_error
from tests.retrieval_svc.processes import Running, running

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

NAME = "collections/vectors"
DIMENSION = 8
LEVELS = 1000


def vector_of(number: int) -> bytes:
    return np.random.default_rng(number).standard_normal(DIMENSION).astype("<f4").tobytes()


async def create(service: Running) -> None:
    collection = pb.Collection(dimension=DIMENSION)
    await service.stub.CreateCollection(pb.CreateCollectionRequest(collection_id="vectors", collection=collection))


async def store(service: Running, numbers: range, text: str = "text") -> None:
    chunks = [pb.Chunk(id=f"c{number}", text=f"{text} {number}", vector=vector_of(number)) for number in numbers]
    await service.stub.UpsertChunks(pb.UpsertChunksRequest(collection=NAME, chunks=chunks))


async def finds(service: Running, number: int) -> bool:
    answer = await service.stub.Search(pb.SearchRequest(collection=NAME, vector=vector_of(number), top_k=1))
    return [hit.chunk.id for hit in answer.hits] == [f"c{number}"]


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Running]:
    async with running(tmp_path) as service:
        await create(service)
        await store(service, range(10))
        yield service
        assert await finds(service, 3)
        assert await service.drain() == 0


async def sent_raw(service: Running, method: str, message: bytes) -> PenstockError:
    """What the service answers to bytes as they are."""
    call = service.channel.unary_unary(f"/penstock.retrieval.v1.RetrievalService/{method}")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call(message)
    return from_rpc_error(refused.value)


async def posted(service: Running, path: str, body: bytes) -> tuple[int, str]:
    """Status and reason of the answer to a body as it is."""
    async with aiohttp.ClientSession() as http:
        headers = {"Content-Type": "application/json"}
        async with http.post(f"http://{service.http}/v1/{path}", data=io.BytesIO(body), headers=headers) as answer:
            return answer.status, (await answer.json())["error"]["details"][0]["reason"]


def field(number: int, content: bytes) -> bytes:
    """A field of protobuf that holds bytes, a text or a message."""
    length, digits = len(content), bytearray()
    while length > 127:
        digits.append(length & 127 | 128)
        length >>= 7
    return bytes([number << 3 | 2, *digits, length]) + content


async def test_a_filter_nested_a_thousand_deep_is_refused_over_both_transports(service: Running) -> None:
    nested = field(4, field(1, b"year"))
    for _ in range(LEVELS):
        nested = field(7, field(1, nested))  # none_of { filters { ...
    request = field(1, NAME.encode()) + field(3, vector_of(1)) + field(6, nested)
    error = await sent_raw(service, "Search", request)
    assert isinstance(error, InvalidArgument)
    assert "nested too deeply" in error.message
    body: object = {"exists": {"field": "year"}}
    for _ in range(LEVELS):
        body = {"none_of": {"filters": [body]}}
    with without_recursion_limit():
        text = json.dumps({"vector": "AAAA", "filter": body})
    assert (await posted(service, f"{NAME}:search", text.encode()))[0] == 400


@contextlib.contextmanager
def without_recursion_limit() -> Iterator[None]:
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(20 * LEVELS)
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


async def test_text_that_is_no_utf_8_is_refused_over_both_transports(service: Running) -> None:
    chunk = field(1, b"c\xff\xfe") + field(3, b"text") + field(5, vector_of(1))
    error = await sent_raw(service, "UpsertChunks", field(1, NAME.encode()) + field(2, chunk))
    assert isinstance(error, InvalidArgument)
    chunk = field(1, b"c99") + field(3, b"text \xc3\x28") + field(5, vector_of(1))
    error = await sent_raw(service, "UpsertChunks", field(1, NAME.encode()) + field(2, chunk))
    assert isinstance(error, InvalidArgument)
    status = await posted(service, f"{NAME}/chunks:upsert", b'{"chunks": [{"id": "c\xff", "text": "t", "vector": "AAAA"}]}')
    assert status == (400, "MALFORMED_REQUEST")
    status = await posted(service, f"{NAME}/chunks:upsert", rb'{"chunks": [{"id": "c\ud800", "text": "t", "vector": "AAAA"}]}')
    assert status[0] == 400
    listed = await service.stub.ListChunks(pb.ListChunksRequest(collection=NAME, page_size=100))
    assert len(listed.chunks) == 10


async def test_a_document_of_a_hundred_megabytes_is_refused_without_being_kept(service: Running) -> None:
    document = pb.Document(id="large", text="x" * 100_000_000)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await service.stub.IngestDocuments(pb.IngestDocumentsRequest(collection=NAME, documents=[document]))
    # The client's own limit may say so first, which is of the same kind.
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    raw = service.channel.unary_unary("/penstock.retrieval.v1.RetrievalService/IngestDocuments")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await raw(b"\0" * 30_000_000)
    assert isinstance(from_rpc_error(refused.value), MessageTooLarge)
    body = b'{"documents": [{"id": "large", "text": "' + b"x" * 100_000_000 + b'"}]}'
    with contextlib.suppress(aiohttp.ClientConnectionError):  # It may close before it has read what it will not take.
        assert await posted(service, f"{NAME}/documents:ingest", body) == (413, "MESSAGE_TOO_LARGE")
    resident = int(Path(f"/proc/{service.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    assert resident < 400 * 2**20


@contextlib.contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[None]:
    """A file system of so many megabytes in a folder."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


async def test_a_full_disk_fails_writes_with_advice_and_loses_nothing(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    filler = disk / "filler"
    text = "x" * 20_000
    with small_disk(disk, 48):
        async with running(tmp_path, data_dir=str(disk / "data"), checkpoint_interval_s="2") as service:
            await create(service)
            await store(service, range(100), text)
            with contextlib.suppress(OSError):
                with filler.open("wb") as full:
                    while True:
                        full.write(b"\0" * 2**16)
                        full.flush()
            stored = 100
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                for stored in range(100, 1100, 100):
                    await store(service, range(stored, stored + 100), text)
            error = from_rpc_error(refused.value)
            assert isinstance(error, BackendUnavailable)
            assert "disk is full" in error.message
            await asyncio.sleep(3)  # A checkpoint is due meanwhile, and fails.
            for number in (0, 50, stored - 1):
                assert await finds(service, number)
            filler.unlink()
            await store(service, range(stored, stored + 100), text)
            assert await finds(service, stored + 99)
            await service.kill()
        async with running(tmp_path, data_dir=str(disk / "data")) as service:
            for number in (0, stored - 1, stored, stored + 99):
                assert await finds(service, number)
            collection = (await service.stub.GetCollection(pb.GetCollectionRequest(name=NAME))).collection
            assert collection.chunk_count == stored + 100


async def by_words(service: Running, count: int, mode: pb.SearchMode) -> list[str]:
    """What is found first for the number of each of the first chunks, which stands in its text alone."""
    found: list[str] = []
    for number in range(count):
        vector = vector_of(number) if mode == pb.SEARCH_MODE_HYBRID else None
        request = pb.SearchRequest(collection=NAME, text=str(number), vector=vector, mode=mode, top_k=1)
        found += [hit.chunk.id for hit in (await service.stub.Search(request)).hits]
    return found


def fill(file: Path, megabytes: float) -> None:
    """Writes so much, or as much as there is room for."""
    with contextlib.suppress(OSError), file.open("wb", buffering=0) as filling:
        for _ in range(int(megabytes * 2**8)):
            filling.write(b"\0" * 2**12)


async def store_until_refused(service: Running, first: int) -> int:
    """Stores large chunks, and has their words indexed if that can be done; how many chunks are acknowledged."""
    search = pb.SearchRequest(collection=NAME, text="text", mode=pb.SEARCH_MODE_LEXICAL)
    for stored in range(first, first + 200, 20):
        try:
            await store(service, range(stored, stored + 20), "text " * 4000)
        except grpc.aio.AioRpcError:
            return stored
        with contextlib.suppress(grpc.aio.AioRpcError):
            await service.stub.Search(search, timeout=0.5)
    return first + 200


@pytest.mark.parametrize("record", ["on the same disk", "elsewhere"])
async def test_words_that_a_full_disk_lost_are_found_again_once_there_is_room(record: str, tmp_path: Path) -> None:
    disk, elsewhere = tmp_path / "disk", record == "elsewhere"
    settings = {"database_url": f"sqlite+aiosqlite:///{tmp_path}/record.db"} if elsewhere else {}
    with small_disk(disk, 12):
        async with running(tmp_path, data_dir=str(disk / "data"), **settings) as service:
            await create(service)
            await store(service, range(20))
            assert await by_words(service, 20, pb.SEARCH_MODE_LEXICAL) == [f"c{number}" for number in range(20)]
            fill(disk / "filler", 12 if elsewhere else 9)
            count = await store_until_refused(service, 20)
            assert (count == 220) == elsewhere, "writes are refused where the record has no room, and there alone"
            if elsewhere:
                with pytest.raises(
                    grpc.aio.AioRpcError, match="the words of shard 0 cannot be written now; searches by vector"
                ):
                    await by_words(service, count, pb.SEARCH_MODE_LEXICAL)
            assert await finds(service, count - 1)
            (disk / "filler").unlink()
            expected = [f"c{number}" for number in range(count)]
            assert await by_words(service, count, pb.SEARCH_MODE_LEXICAL) == expected
            assert await by_words(service, count, pb.SEARCH_MODE_HYBRID) == expected
            await service.kill()
        async with running(tmp_path, data_dir=str(disk / "data"), **settings) as service:
            assert await by_words(service, count, pb.SEARCH_MODE_LEXICAL) == expected


async def test_a_corrupt_snapshot_is_said_and_the_one_before_it_used(tmp_path: Path) -> None:
    settings = {
        "database_url": f"sqlite+aiosqlite:///{tmp_path / 'record.db'}",
        "snapshot_url": (tmp_path / "snapshots").as_uri(),
        "log_format": "text",
    }
    files: list[set[Path]] = []
    async with running(tmp_path, data_dir=str(tmp_path / "one"), **settings) as service:
        await create(service)
        for first in (0, 20):
            await store(service, range(first, first + 20))
            made = await service.stub.CreateSnapshot(pb.CreateSnapshotRequest(collection=NAME))
            assert [snapshot.position for snapshot in made.snapshots] == [first + 20], "of what was acknowledged, at once"
            files.append({path for path in (tmp_path / "snapshots").rglob("*") if path.is_file()})
        await service.kill()
    newest = max(files[1] - files[0], key=lambda path: path.stat().st_size)
    newest.write_bytes(newest.read_bytes()[:-1] + b"?")
    async with running(tmp_path, data_dir=str(tmp_path / "two"), **settings) as service:
        for number in (0, 19, 20, 39):
            assert await finds(service, number)
        log = await service.killed_log()
    assert "restored the snapshot" in log
    warning = next(line for line in log.splitlines() if "WARNING" in line and "snapshot" in line)
    assert newest.name[:12] in warning or "checksum" in warning or "sha256" in warning
