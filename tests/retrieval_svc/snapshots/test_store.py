import asyncio
import errno
import hashlib
import importlib.util
import io
import logging
import os
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from penstock.errors import BackendUnavailable, FailedPrecondition
from retrieval_svc.snapshots.manifest import CorruptSnapshot, Snapshot, SnapshotFile, decoded, encoded
from retrieval_svc.snapshots.store import SnapshotStore

UID, SHARD = 7, 2


@pytest.fixture(params=["folder", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "store") if request.param == "folder" else f"memory://{uuid.uuid4().hex}"


@pytest.fixture
def folder_store(tmp_path: Path) -> tuple[SnapshotStore, Path]:
    root = tmp_path / "store"
    return SnapshotStore(root.as_uri()), root / str(UID) / str(SHARD)


def write(folder: Path, **contents: str) -> tuple[SnapshotFile, ...]:
    """Files below `folder`, and what a checkpoint says of them."""
    files = []
    for name, content in contents.items():
        path = folder / "segments" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        checksum = hashlib.sha256(content.encode()).hexdigest()
        files.append(SnapshotFile(path=f"segments/{name}", size_bytes=len(content), sha256=checksum))
    return tuple(files)


async def upload(store: SnapshotStore, folder: Path, position: int, **contents: str) -> str:
    files = write(folder, **contents)
    return (await store.upload(folder, uid=UID, shard=SHARD, position=position, files=files)).id


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.rglob("*") if path.is_file()}


async def test_what_was_uploaded_last_comes_back_whole(url: str, tmp_path: Path) -> None:
    store = SnapshotStore(url)
    await upload(store, tmp_path / "shard", 5, a="first")
    last = await upload(store, tmp_path / "shard", 9, a="second", b="more", empty="")
    found = await SnapshotStore(url).download(UID, SHARD, tmp_path / "restored")
    assert found is not None
    assert (found.id, found.position, found.size_bytes) == (last, 9, 10)
    assert contents(tmp_path / "restored") == {"a": "second", "b": "more", "empty": ""}
    assert (tmp_path / "restored" / "segments" / "b").is_file()


async def test_snapshots_are_listed_newest_first_and_by_shard(url: str, tmp_path: Path) -> None:
    store = SnapshotStore(url)
    ids = [await upload(store, tmp_path, position, a=f"at {position}") for position in (5, 100, 20)]
    listed = await store.snapshots(UID, SHARD)
    assert [(snapshot.id, snapshot.position) for snapshot in listed] == [(ids[1], 100), (ids[2], 20), (ids[0], 5)]
    assert await store.snapshots(UID, SHARD + 1) == []
    assert await store.download(UID + 1, SHARD, tmp_path) is None


async def test_a_file_that_is_there_is_not_sent_again(folder_store: tuple[SnapshotStore, Path], tmp_path: Path) -> None:
    store, root = folder_store
    await upload(store, tmp_path / "shard", 1, base="a large segment", head="small")
    before = {path.name: path.stat().st_mtime_ns for path in (root / "files").iterdir()}
    await upload(store, tmp_path / "shard", 2, base="a large segment", head="other")
    after = {path.name: path.stat().st_mtime_ns for path in (root / "files").iterdir()}
    assert len(after) == 3
    assert before.items() <= after.items()


@pytest.mark.parametrize("fault", ["changed", "cut", "missing", "manifest changed", "manifest cut"])
async def test_a_corrupt_snapshot_is_passed_over_for_the_one_before_it(
    folder_store: tuple[SnapshotStore, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    store, root = folder_store
    await upload(store, tmp_path / "shard", 1, a="first")
    newest = await upload(store, tmp_path / "shard", 2, a="second", b="fine")
    [file] = [path for path in (root / "files").iterdir() if path.read_text() == "second"]
    manifest = root / "manifests" / f"{newest}.json"
    if fault == "changed":
        file.write_text("sec0nd")
    elif fault == "cut":
        file.write_text("sec")
    elif fault == "missing":
        file.unlink()
    elif fault == "manifest changed":
        manifest.write_text(manifest.read_text().replace('"position":2', '"position":3'))
    else:
        manifest.write_text(manifest.read_text()[:50])
    with caplog.at_level(logging.WARNING):
        found = await store.download(UID, SHARD, tmp_path / "restored")
    assert found is not None
    assert found.position == 1
    assert contents(tmp_path / "restored") == {"a": "first"}
    assert newest in caplog.text


async def test_where_every_snapshot_is_corrupt_there_is_none(folder_store: tuple[SnapshotStore, Path], tmp_path: Path) -> None:
    store, root = folder_store
    await upload(store, tmp_path / "shard", 1, a="first")
    for path in (root / "files").iterdir():
        path.write_text("broken")
    assert await store.download(UID, SHARD, tmp_path / "restored") is None
    assert contents(tmp_path / "restored") == {}


async def test_an_upload_that_was_interrupted_is_no_snapshot_and_is_not_relied_on(
    folder_store: tuple[SnapshotStore, Path], tmp_path: Path
) -> None:
    store, root = folder_store
    # What a crash leaves: a file cut off half-way under its own name, as some stores do, and no manifest.
    (root / "files").mkdir(parents=True)
    (root / "files" / hashlib.sha256(b"content").hexdigest()).write_text("con")
    assert await store.snapshots(UID, SHARD) == []
    await upload(store, tmp_path / "shard", 1, a="content")
    assert await store.download(UID, SHARD, tmp_path / "restored") is not None
    assert contents(tmp_path / "restored") == {"a": "content"}


async def test_a_file_that_is_not_what_its_checkpoint_says_is_refused(url: str, tmp_path: Path) -> None:
    store = SnapshotStore(url)
    files = write(tmp_path, a="as written", b="b")
    (tmp_path / "segments" / "a").write_text("as changed")
    with pytest.raises(FailedPrecondition, match="next checkpoint"):
        await store.upload(tmp_path, uid=UID, shard=SHARD, position=1, files=files)
    assert await store.snapshots(UID, SHARD) == []


async def test_two_uploaders_at_once_make_two_whole_snapshots(url: str, tmp_path: Path) -> None:
    stores = [SnapshotStore(url), SnapshotStore(url)]
    shared = "shared " * 100_000
    await asyncio.gather(
        *(upload(store, tmp_path / f"node{at}", 3, base=shared, own=f"of {at}") for at, store in enumerate(stores))
    )
    assert [snapshot.position for snapshot in await stores[0].snapshots(UID, SHARD)] == [3, 3]
    found = await stores[1].download(UID, SHARD, tmp_path / "restored")
    assert found is not None
    assert contents(tmp_path / "restored")["base"] == shared
    await stores[0].prune(UID, SHARD, 1)
    assert len(await stores[1].snapshots(UID, SHARD)) == 1


async def test_pruning_keeps_the_newest_and_what_they_share(folder_store: tuple[SnapshotStore, Path], tmp_path: Path) -> None:
    store, root = folder_store
    for position in range(1, 5):
        await upload(store, tmp_path / "shard", position, base="shared by all", own=f"only of {position}")
    await store.prune(UID, SHARD, 2)
    assert [snapshot.position for snapshot in await store.snapshots(UID, SHARD)] == [4, 3]
    assert len(list((root / "files").iterdir())) == 5  # An upload that began before may count on them.
    age(root)
    await store.prune(UID, SHARD, 2)
    assert sorted(path.read_text() for path in (root / "files").iterdir()) == ["only of 3", "only of 4", "shared by all"]
    found = await store.download(UID, SHARD, tmp_path / "restored")
    assert found is not None
    assert contents(tmp_path / "restored") == {"base": "shared by all", "own": "only of 4"}


async def test_a_corrupt_manifest_does_not_count_among_those_kept(
    folder_store: tuple[SnapshotStore, Path], tmp_path: Path
) -> None:
    store, root = folder_store
    await upload(store, tmp_path / "shard", 1, a="first")
    newest = await upload(store, tmp_path / "shard", 2, a="second")
    (root / "manifests" / f"{newest}.json").write_text("{}")
    age(root)
    await store.prune(UID, SHARD, 1)
    found = await store.download(UID, SHARD, tmp_path / "restored")
    assert found is not None
    assert found.position == 1


def age(root: Path) -> None:
    """Two hours go by."""
    past = time.time() - 7200
    for path in root.rglob("*"):
        os.utime(path, (past, past))


async def test_the_snapshots_of_a_deleted_collection_go(url: str, tmp_path: Path) -> None:
    store = SnapshotStore(url)
    await upload(store, tmp_path, 1, a="a")
    await store.delete_collection(UID)
    await store.delete_collection(UID)
    assert await store.snapshots(UID, SHARD) == []


class FullDisk(io.BytesIO):
    """A file on a disk with four bytes left."""

    def write(self, data: Any, /) -> int:
        if self.tell() + len(data) > 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(data)


async def test_a_disk_that_is_full_is_said_to_be_so_and_no_older_snapshot_is_tried(url: str, tmp_path: Path) -> None:
    await upload(SnapshotStore(url), tmp_path / "shard", 1, a="one")
    await upload(SnapshotStore(url), tmp_path / "shard", 2, a="one", b="larger")
    (tmp_path / "restored").mkdir()
    store = SnapshotStore(url, create=lambda _path: FullDisk())
    with pytest.raises(FailedPrecondition, match=r"disk of .* is full"):
        await store.download(UID, SHARD, tmp_path / "restored")
    assert contents(tmp_path / "restored") == {}


async def test_a_store_that_fails_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BackendUnavailable, match="snapshot store"):
        await upload(SnapshotStore(str(tmp_path / "file")), tmp_path / "shard", 1, a="a")


def test_a_url_that_nothing_can_open_says_what_to_do() -> None:
    with pytest.raises(FailedPrecondition, match="s3://bucket"):
        SnapshotStore("nonsense://x")


@pytest.mark.skipif(importlib.util.find_spec("s3fs") is not None, reason="s3fs is installed")
def test_an_object_store_whose_driver_is_missing_names_the_package() -> None:
    with pytest.raises(FailedPrecondition, match="s3fs"):
        SnapshotStore("s3://bucket/prefix")


def test_a_manifest_that_names_a_file_outside_its_folder_is_refused(tmp_path: Path) -> None:
    for path in ("../escaped", "/etc/passwd", "a/../../b"):
        file = SnapshotFile(path=path, size_bytes=1, sha256="0")
        snapshot = Snapshot(id="x", uid=1, shard=0, position=1, create_time=datetime.now(UTC), files=(file,))
        with pytest.raises(CorruptSnapshot, match="outside"):
            decoded(encoded(snapshot))
