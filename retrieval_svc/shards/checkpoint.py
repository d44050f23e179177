"""Checkpoints: what a shard can be started from without its log's beginning.

    CURRENT                              the name of the newest manifest
    checkpoints/manifest-N.json          segments, position, checksums; N ascends
    checkpoints/tombstones-N.i64         sequence numbers of the segments' rows that are gone at that position
    segments/NAME/...                    see segment.py

Everything is written under another name, brought to the disk and renamed, a manifest last and CURRENT after it: a crash between
any two operations leaves the checkpoint before. Two checkpoints are kept; a segment is removed with the last one that names it.
Processes that have it mapped go on reading it. One process at a time publishes; any may read.
"""

import hashlib
import logging
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson

from penstock.errors import FailedPrecondition
from retrieval_svc.shards.columns import Key, Kind
from retrieval_svc.shards.disk import LOCAL_DISK, Disk, FileEntry, fault_of, file_entry, full_disk_told
from retrieval_svc.shards.segment import SEGMENTS, Segment, SegmentEntry
from retrieval_svc.values import Metric, Sequences

FORMAT: Final = 1
CURRENT: Final = "CURRENT"
CHECKPOINTS: Final = "checkpoints"
PLANS: Final = "compactions"
"""Plans of compactions and what became of them; of no use once their process is gone."""
KEPT: Final = 2
SMALL_BYTES_MAX: Final = 2**20
"""Files up to this are compared with their checksums at every start; larger ones only where they came from elsewhere."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Manifest:
    """A checkpoint. Every row up to `position` is in `segments`; of those rows `tombstones` (ascending) are gone.

    `name` is empty until it is published. `fields` are those that rows had which are in no segment any more. `attachments` are
    files of others that belong to the same position.
    """

    shard: int
    position: int
    dimension: int
    metric: Metric
    segments: tuple[SegmentEntry, ...]
    tombstones: Sequences
    fields: tuple[Key, ...] = ()
    attachments: tuple[FileEntry, ...] = ()
    name: str = ""
    tombstone_file: FileEntry | None = None

    @property
    def files(self) -> tuple[FileEntry, ...]:
        """Every file but the manifest itself."""
        own = () if self.tombstone_file is None else (self.tombstone_file,)
        return (*(file for segment in self.segments for file in segment.files), *self.attachments, *own)

    @property
    def row_count(self) -> int:
        """Rows that are not gone."""
        return sum(segment.row_count for segment in self.segments) - len(self.tombstones)


class CorruptCheckpoint(Exception):
    """A checkpoint with a fault, which its text tells. Never leaves this service: an older one is used."""


def publish(folder: Path, manifest: Manifest, *, disk: Disk = LOCAL_DISK) -> Manifest:
    """Makes a manifest the newest checkpoint of the shard in `folder`; on any thread. Returns it with its name.

    Raises FailedPrecondition when the disk is full; the checkpoint before stays the newest.
    """
    checkpoints = folder / CHECKPOINTS
    checkpoints.mkdir(parents=True, exist_ok=True)
    number = max(map(_number, _names(folder)), default=0) + 1
    with full_disk_told(folder):
        tombstones = checkpoints / f"tombstones-{number:012d}.i64"
        disk.write(tombstones, manifest.tombstones.astype("<i8").tobytes())
        published = replace(manifest, name=f"manifest-{number:012d}.json", tombstone_file=file_entry(folder, tombstones))
        _place(checkpoints / published.name, encoded(published), disk)
        _place(folder / CURRENT, published.name.encode(), disk)
    _remove_old(folder, disk)
    return published


def newest(folder: Path, *, thorough: bool = False) -> Manifest | None:
    """The newest checkpoint without a fault, None where there is none. One with a fault is told in the log and passed over.

    Sizes are always compared, checksums those of small files, and of all with `thorough`.
    """
    return next(_valid(folder, thorough=thorough), None)


def load(folder: Path) -> tuple[Manifest, list[Segment]] | None:
    """The newest checkpoint whose segments can be opened, and those; None where there is none.

    A large file's content is not looked at before it is needed, so that opening may still find a fault: it is told in the log,
    and the checkpoint passed over as well.
    """
    for manifest in _valid(folder, thorough=False):
        try:
            return manifest, open_segments(folder, manifest)
        except FailedPrecondition as fault:
            _log.warning("%s; the one before it is used", fault.message)
    return None


def _valid(folder: Path, *, thorough: bool) -> Iterator[Manifest]:
    for name in _by_preference(folder):
        try:
            yield read(folder, name, thorough=thorough)
        except CorruptCheckpoint as fault:
            _log.warning("checkpoint %s of %s is corrupt: %s; the one before it is used", name, folder, fault)


def current_name(folder: Path) -> str:
    """The name of the newest manifest, "" where there is none: what to watch for a new one."""
    try:
        return (folder / CURRENT).read_text()
    except (OSError, UnicodeDecodeError):
        return ""


def read(folder: Path, name: str, *, thorough: bool = False) -> Manifest:
    """A checkpoint by name, its files checked. Raises CorruptCheckpoint."""
    try:
        manifest = replace(decoded((folder / CHECKPOINTS / name).read_bytes()), name=name)
    except OSError as error:
        raise CorruptCheckpoint(f"{name} cannot be read: {error.strerror}") from error
    verify(folder, manifest, thorough=thorough)
    tombstones = np.zeros(0, np.int64)
    if manifest.tombstone_file is not None:
        tombstones = np.frombuffer((folder / manifest.tombstone_file.path).read_bytes(), "<i8").astype(np.int64)
    return replace(manifest, tombstones=tombstones)


def verify(folder: Path, manifest: Manifest, *, thorough: bool) -> None:
    """Compares the files with what the manifest says of them. Raises CorruptCheckpoint for the first that differs."""
    for entry in manifest.files:
        small = entry == manifest.tombstone_file
        fault = fault_of(folder, entry, checksum_bytes_max=None if thorough or small else SMALL_BYTES_MAX)
        if fault:
            raise CorruptCheckpoint(fault)


def open_segments(folder: Path, manifest: Manifest) -> list[Segment]:
    """Maps a checkpoint's segments; on any thread.

    Raises FailedPrecondition where one is gone, as it may be when the checkpoint is no longer the newest.
    """
    try:
        return [Segment.open(folder, entry) for entry in manifest.segments]
    except (OSError, RuntimeError) as error:
        message = f"checkpoint {manifest.name} of {folder} cannot be opened: {error}"
        raise FailedPrecondition(message) from error


def sweep(folder: Path, *, disk: Disk = LOCAL_DISK) -> None:
    """Removes what no checkpoint names: what a crash left half done. Only before anything else uses the folder."""
    named = _segments_named(folder, _names(folder))
    for path in [*(folder / SEGMENTS).glob("*"), *folder.glob(f"{PLANS}/*")]:
        if path.name not in named:
            disk.remove(path)


def encoded(manifest: Manifest) -> bytes:
    """A manifest as a file has it: JSON, and the checksum of that before it. Its tombstones are in a file of their own."""
    body = orjson.dumps(
        {
            "format": FORMAT,
            "shard": manifest.shard,
            "position": manifest.position,
            "dimension": manifest.dimension,
            "metric": manifest.metric.value,
            "segments": [segment.to_json() for segment in manifest.segments],
            "fields": [(kind.value, field) for kind, field in manifest.fields],
            "attachments": [asdict(file) for file in manifest.attachments],
            "tombstones": None if manifest.tombstone_file is None else asdict(manifest.tombstone_file),
        },
        option=orjson.OPT_INDENT_2,
    )
    return hashlib.sha256(body).hexdigest().encode() + b"\n" + body


def decoded(data: bytes) -> Manifest:
    """Back from a file, without its name and its tombstones. Raises CorruptCheckpoint."""
    checksum, _, body = data.partition(b"\n")
    if hashlib.sha256(body).hexdigest().encode() != checksum:
        raise CorruptCheckpoint("the manifest has not the content that it was written with")
    document = orjson.loads(body)
    if document["format"] != FORMAT:
        raise CorruptCheckpoint(f"the manifest is of format {document['format']}, which this version does not read")
    return _from_json(document)


def _from_json(document: dict[str, Any]) -> Manifest:
    tombstones = document["tombstones"]
    return Manifest(
        shard=document["shard"],
        position=document["position"],
        dimension=document["dimension"],
        metric=Metric(document["metric"]),
        segments=tuple(SegmentEntry.from_json(segment) for segment in document["segments"]),
        tombstones=np.zeros(0, np.int64),
        fields=tuple((Kind(kind), field) for kind, field in document.get("fields", ())),
        attachments=tuple(FileEntry(**file) for file in document["attachments"]),
        tombstone_file=None if tombstones is None else FileEntry(**tombstones),
    )


def _place(path: Path, data: bytes, disk: Disk) -> None:
    """Puts a whole file in place, or leaves what was there."""
    partial = path.with_name(f"{path.name}.partial")
    disk.write(partial, data)
    disk.rename(partial, path)
    disk.sync(path.parent)


def _remove_old(folder: Path, disk: Disk) -> None:
    """Removes all but the newest checkpoints, and the segments that only those had. Their manifests go last: what a crash
    leaves is named by them still, and removed at the next time.
    """
    names = _names(folder)
    kept, dropped = names[:KEPT], names[KEPT:]
    for segment in _segments_named(folder, dropped) - _segments_named(folder, kept):
        disk.remove(folder / SEGMENTS / segment)
    for name in dropped:
        disk.remove(folder / CHECKPOINTS / f"tombstones-{_number(name):012d}.i64")
        disk.remove(folder / CHECKPOINTS / name)


def _segments_named(folder: Path, names: Collection[str]) -> set[str]:
    return {segment.name for manifest in _readable(folder, names) for segment in manifest.segments}


def _readable(folder: Path, names: Collection[str]) -> Iterator[Manifest]:
    for name in names:
        try:
            yield decoded((folder / CHECKPOINTS / name).read_bytes())
        except (CorruptCheckpoint, OSError):
            continue


def _by_preference(folder: Path) -> Sequence[str]:
    """The names of checkpoints in the order in which they are tried: CURRENT's, then the newest."""
    current = current_name(folder)
    return sorted(_names(folder), key=lambda name: name != current)


def _names(folder: Path) -> list[str]:
    """The names of the manifests that are there, the newest first."""
    return sorted((path.name for path in (folder / CHECKPOINTS).glob("manifest-*.json")), reverse=True)


def _number(name: str) -> int:
    return int(name.removeprefix("manifest-").removesuffix(".json"))
