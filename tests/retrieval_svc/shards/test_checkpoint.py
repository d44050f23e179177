"""What crashes, full disks and rotten files leave of a shard's folder."""

import errno
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from penstock.errors import FailedPrecondition
from retrieval_svc.shards.checkpoint import (
    CHECKPOINTS,
    CURRENT,
    CorruptCheckpoint,
    Manifest,
    current_name,
    newest,
    open_segments,
    publish,
    read,
    sweep,
    verify,
)
from retrieval_svc.shards.compaction import read_plan, read_result, run, write_plan
from retrieval_svc.shards.disk import LOCAL_DISK, Disk, LocalDisk, full_disk_told
from retrieval_svc.shards.index import FlatVectors, build
from retrieval_svc.shards.segment import SEGMENTS, files_below
from retrieval_svc.shards.segment_writer import write_segment
from retrieval_svc.shards.shard_index import ShardIndex
from retrieval_svc.values import EVERYTHING, IndexConfig, IndexKind, Metric
from tests.retrieval_svc.shards.rows import DIMENSION, added, clustered, open_shard, query, removed, spec_of

VECTORS = clustered(60)
LOG = [added(0, VECTORS[:20]), removed(20, [2]), added(21, VECTORS[20:40]), removed(41, [3, 22]), added(43, VECTORS[40:])]
KEPT = {*range(1, 21), *range(22, 42), *range(44, 64)} - {2, 3, 22}


class Crash(BaseException):
    """The power is gone."""


class FailingDisk(LocalDisk):
    """Does some operations and fails the next; a write that fails has written half."""

    def __init__(self, operations: int, failure: BaseException) -> None:
        self.left = operations
        self.failure = failure

    def fails(self) -> bool:
        self.left -= 1
        return self.left < 0

    def write(self, path: Path, data: bytes) -> None:
        if self.fails():
            path.write_bytes(data[: len(data) // 2])
            raise self.failure
        super().write(path, data)

    def sync(self, *paths: Path) -> None:
        if self.fails():
            raise self.failure
        super().sync(*paths)

    def rename(self, source: Path, target: Path) -> None:
        if self.fails():
            raise self.failure
        super().rename(source, target)

    def remove(self, path: Path) -> None:
        if self.fails():
            raise self.failure
        super().remove(path)


def seal(shard: ShardIndex, folder: Path, disk: Disk = LOCAL_DISK) -> None:
    frozen = shard.freeze_head()
    entries = [] if frozen is None else [write_segment(frozen, folder, disk=disk)]
    manifest = publish(folder, shard.next_manifest(added=entries), disk=disk)
    shard.adopt(manifest, open_segments(folder, manifest))


def compact(shard: ShardIndex, folder: Path, disk: Disk = LOCAL_DISK) -> None:
    plan = shard.plan_compaction(force=True)
    assert plan is not None
    write_plan(plan, folder, disk=disk)
    entry = run(plan, disk=disk)
    shard.adopt(publish(folder, shard.next_manifest(added=[entry], replaced=plan.inputs), disk=disk))


def checkpoint_only(shard: ShardIndex, folder: Path, disk: Disk = LOCAL_DISK) -> None:
    publish(folder, shard.next_manifest(), disk=disk)


def prepared_folder(folder: Path) -> None:
    """Two segments with tombstones, two checkpoints."""
    shard = open_shard(folder)
    for changes in LOG[:4]:
        shard.apply(changes)
        seal(shard, folder)


def caught_up(folder: Path) -> ShardIndex:
    sweep(folder)
    shard = open_shard(folder)
    for changes in LOG:
        if changes.through > shard.position:
            shard.apply(changes)
    return shard


def rows_of(shard: ShardIndex) -> set[int]:
    return set(shard.search([query(VECTORS[0], 1000)])[0][0].sequences.tolist())


@pytest.mark.parametrize("operation", [seal, compact, checkpoint_only])
def test_a_crash_between_any_two_file_operations_loses_nothing(tmp_path: Path, operation: Callable) -> None:
    prepared_folder(tmp_path / "template")
    for operations in count():
        folder = tmp_path / f"crash-{operations}"
        shutil.copytree(tmp_path / "template", folder)
        shard = caught_up(folder)
        try:
            operation(shard, folder, FailingDisk(operations, Crash()))
            finished = True
        except Crash:
            finished = False
        again = caught_up(folder)
        assert rows_of(again) == KEPT, operations
        seal(again, folder)
        assert rows_of(open_shard(folder)) == KEPT
        left = {path.name for path in (folder / SEGMENTS).iterdir()}
        named = {entry.name for manifest in manifests(folder) for entry in manifest.segments}
        assert left == named, "what the crash left was swept, and nothing else"
        if finished:
            break
    assert operations > 5


def manifests(folder: Path) -> list[Manifest]:
    return [read(folder, path.name) for path in (folder / CHECKPOINTS).glob("manifest-*.json")]


@pytest.mark.parametrize("operation", [seal, compact, checkpoint_only])
def test_a_full_disk_is_one_clear_error_and_leaves_what_was_there(tmp_path: Path, operation: Callable) -> None:
    prepared_folder(tmp_path / "template")
    for operations in count():
        folder = tmp_path / f"full-{operations}"
        shutil.copytree(tmp_path / "template", folder)
        shard = caught_up(folder)
        outcome = outcome_of(
            operation, shard, folder, FailingDisk(operations, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
        )
        if outcome is None:
            break
        if isinstance(outcome, FailedPrecondition):
            assert "free some space" in outcome.message
        else:
            assert current_name(folder) != current_name(tmp_path / "template"), "only the tidying after it may fail otherwise"
        assert rows_of(shard) == KEPT
        assert rows_of(caught_up(folder)) == KEPT
    assert operations > 5


def outcome_of(operation: Callable, shard: ShardIndex, folder: Path, disk: Disk) -> Exception | None:
    try:
        operation(shard, folder, disk)
    except (FailedPrecondition, OSError) as error:
        return error
    return None


def test_a_head_that_could_not_be_written_is_written_when_there_is_room(tmp_path: Path) -> None:
    shard = open_shard(tmp_path)
    shard.apply(LOG[0])
    frozen = shard.freeze_head()
    assert frozen is not None
    with pytest.raises(FailedPrecondition, match="is full"):
        write_segment(frozen, tmp_path, disk=FailingDisk(3, OSError(errno.ENOSPC, "No space left on device")))
    entry = write_segment(frozen, tmp_path)
    assert write_segment(frozen, tmp_path) == entry
    shard.adopt(publish(tmp_path, shard.next_manifest(added=[entry])))
    assert rows_of(open_shard(tmp_path)) == set(range(1, 21))


def test_what_faiss_says_of_a_full_disk_is_understood() -> None:
    vectors = FlatVectors.empty(DIMENSION, Metric.L2)
    vectors.add(clustered(2000))
    with pytest.raises(FailedPrecondition, match="free some space"), full_disk_told(Path("/data")):
        build(IndexKind.HNSW, vectors, IndexConfig(), Path("/dev/full"))


def test_other_faults_of_files_are_not_taken_for_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), full_disk_told(tmp_path):
        raise PermissionError(errno.EACCES, "no")


def newest_files(folder: Path) -> list[Path]:
    """All files that only the newest checkpoint has, the manifest among them."""
    manifest = newest(folder)
    assert manifest is not None
    older = {file.path for one in manifests(folder) if one.name != manifest.name for file in one.files}
    own = [folder / file.path for file in manifest.files if file.path not in older]
    return [folder / CHECKPOINTS / manifest.name, *own]


def two_checkpoints(folder: Path) -> None:
    shard = open_shard(folder)
    shard.apply(LOG[0])
    seal(shard, folder)
    for changes in LOG[1:]:
        shard.apply(changes)
    seal(shard, folder)


@pytest.mark.parametrize("damage", ["cut", "flipped", "gone"])
def test_the_checkpoint_before_is_used_when_any_file_is_damaged(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    two_checkpoints(tmp_path / "template")
    names = [path.relative_to(tmp_path / "template") for path in newest_files(tmp_path / "template")]
    assert len(names) > 5
    for at, name in enumerate(names):
        folder = tmp_path / str(at)
        shutil.copytree(tmp_path / "template", folder)
        spoil(folder / name, damage)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            shard = open_shard(folder)
        assert shard.position == 20, name
        assert ("is corrupt" in caplog.text) == (damage != "gone" or name.suffix != ".json"), "a manifest that is gone is none"
        assert rows_of(caught_up(folder)) == KEPT


def spoil(path: Path, damage: str) -> None:
    data = bytearray(path.read_bytes())
    match damage:
        case "gone":
            path.unlink()
        case "cut":
            path.write_bytes(data[:-1]) if data else path.write_bytes(b"x")
        case _:
            if data:
                data[len(data) // 2] ^= 1
            path.write_bytes(data or b"x")


def test_a_shard_without_a_valid_checkpoint_starts_empty(tmp_path: Path) -> None:
    two_checkpoints(tmp_path)
    for path in (tmp_path / CHECKPOINTS).glob("manifest-*"):
        spoil(path, "flipped")
    shard = open_shard(tmp_path)
    assert (shard.position, shard.row_count) == (0, 0)
    assert rows_of(caught_up(tmp_path)) == KEPT


@pytest.mark.parametrize("content", [b"", b"nonsense", b"manifest-000000000099.json", b"\xff"])
def test_a_damaged_pointer_is_passed_over(tmp_path: Path, content: bytes) -> None:
    two_checkpoints(tmp_path)
    (tmp_path / CURRENT).write_bytes(content)
    assert open_shard(tmp_path).position == LOG[-1].through


def test_a_large_file_with_wrong_content_is_found_by_a_thorough_check_alone(tmp_path: Path) -> None:
    shard = open_shard(tmp_path, spec_of(dimension=512))
    shard.apply(added(0, clustered(1000, 512)))
    seal(shard, tmp_path)
    manifest = newest(tmp_path)
    assert manifest is not None
    spoil(tmp_path / next(file.path for file in manifest.files if file.size_bytes > 2**20), "flipped")
    verify(tmp_path, manifest, thorough=False)
    with pytest.raises(CorruptCheckpoint, match="not the content"):
        verify(tmp_path, manifest, thorough=True)
    assert newest(tmp_path, thorough=True) is None


def test_a_large_file_that_cannot_be_opened_makes_way_for_the_checkpoint_before(tmp_path: Path) -> None:
    spec = spec_of(dimension=512)
    shard = open_shard(tmp_path, spec)
    for after in (0, 1000):
        shard.apply(added(after, clustered(1000, 512)))
        seal(shard, tmp_path)
    [vectors] = [path for path in newest_files(tmp_path) if path.name == "vectors.faiss"]
    data = vectors.read_bytes()
    vectors.write_bytes(b"none" + data[4:])
    assert open_shard(tmp_path, spec).position == 1000


def test_a_checkpoint_of_another_dimension_or_metric_is_not_used(tmp_path: Path) -> None:
    two_checkpoints(tmp_path)
    assert open_shard(tmp_path, spec_of(Metric.L2)).position == 0


def test_two_checkpoints_are_kept_and_nothing_that_neither_names(tmp_path: Path) -> None:
    shard = open_shard(tmp_path)
    for changes in LOG:
        shard.apply(changes)
        seal(shard, tmp_path)
        compact(shard, tmp_path) if shard.plan_compaction(force=True) else None
    assert len(manifests(tmp_path)) == 2
    named = {file.path for manifest in manifests(tmp_path) for file in manifest.files}
    there = {path.relative_to(tmp_path).as_posix() for path in files_below(tmp_path / SEGMENTS)}
    assert {path for path in there if not path.endswith("segment.json")} == {
        path for path in named if path.startswith(SEGMENTS)
    }
    assert len(list((tmp_path / CHECKPOINTS).iterdir())) == 4


def test_segments_that_were_mapped_go_on_being_searched_when_their_files_are_gone(tmp_path: Path) -> None:
    two_checkpoints(tmp_path)
    shard = open_shard(tmp_path)
    shutil.rmtree(tmp_path)
    assert rows_of(shard) == KEPT
    manifest = shard.next_manifest()
    with pytest.raises(FailedPrecondition, match="cannot be opened"):
        open_segments(tmp_path, manifest)


def test_a_plan_is_carried_out_by_a_process_of_its_own(tmp_path: Path) -> None:
    shard = open_shard(tmp_path, spec_of(Metric.COSINE, IndexKind.HNSW))
    for changes in LOG:
        shard.apply(changes)
        seal(shard, tmp_path)
    plan = shard.plan_compaction(force=True)
    assert plan is not None
    path = write_plan(plan, tmp_path)
    assert read_plan(path).spec == plan.spec
    done = subprocess.run([sys.executable, "-m", "retrieval_svc.shards.compaction", str(path)], check=True, capture_output=True)
    assert done.stderr == b""
    entry = read_result(plan)
    assert (entry.row_count, entry.kind) == (len(KEPT), IndexKind.HNSW)
    shard.adopt(publish(tmp_path, shard.next_manifest(added=[entry], replaced=plan.inputs)))
    assert shard.match(None, EVERYTHING).sequences.tolist() == sorted(KEPT)


def test_a_process_whose_input_is_gone_says_so(tmp_path: Path) -> None:
    prepared_folder(tmp_path)
    plan = open_shard(tmp_path).plan_compaction(force=True)
    assert plan is not None
    path = write_plan(replace(plan, inputs=("segment-none",)), tmp_path)
    failed = subprocess.run(
        [sys.executable, "-m", "retrieval_svc.shards.compaction", str(path)], capture_output=True, text=True
    )
    assert failed.returncode == 1
    assert "segment-none" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_tombstones_of_a_manifest_are_only_of_rows_that_its_segments_have(tmp_path: Path) -> None:
    shard = caught_up(tmp_path)
    seal(shard, tmp_path)
    compact_plan = shard.plan_compaction(force=True)
    assert compact_plan is None, "rows that go before they are sealed are never written"
    shard.apply(removed(LOG[-1].through, [10, 11]))
    checkpoint_only(shard, tmp_path)
    manifest = newest(tmp_path)
    assert manifest is not None
    assert np.array_equal(manifest.tombstones, [10, 11])
    assert manifest.row_count == len(KEPT) - 2
