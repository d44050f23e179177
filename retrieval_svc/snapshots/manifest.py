"""What a snapshot consists of, and how that is written down.

{"sha256": checksum of what "snapshot" has, as canonical JSON, "snapshot": {...}}
"""

import hashlib
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any

import orjson


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotFile:
    """A file of a snapshot. `path` is relative to the shard's folder, with slashes; `sha256` is hexadecimal."""

    path: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The state of a shard after the change `position`. `id` is unique in its collection and shard."""

    id: str
    uid: int
    shard: int
    position: int
    create_time: datetime
    files: tuple[SnapshotFile, ...]

    @property
    def size_bytes(self) -> int:
        """Bytes of its files, shared with other snapshots or not."""
        return sum(file.size_bytes for file in self.files)


class CorruptSnapshot(Exception):
    """A snapshot with a fault, which its text tells. Never leaves this service: an older one is used."""


def encoded(snapshot: Snapshot) -> bytes:
    """A snapshot's manifest."""
    body = asdict(snapshot)
    return orjson.dumps({"sha256": _checksum(body), "snapshot": body})


def decoded(data: bytes) -> Snapshot:
    """The snapshot of a manifest. Raises CorruptSnapshot for what `encoded` did not write."""
    try:
        document = orjson.loads(data)
        body = document["snapshot"]
        if document["sha256"] != _checksum(body):
            raise CorruptSnapshot("its manifest does not have the content that it was written with")
        time = datetime.fromisoformat(body["create_time"])
        files = tuple(SnapshotFile(**file) for file in body["files"])
        snapshot = Snapshot(**body | {"create_time": time, "files": files})
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptSnapshot(f"its manifest cannot be read ({error})") from error
    for file in files:
        path = PurePosixPath(file.path)
        if path.is_absolute() or ".." in path.parts:
            raise CorruptSnapshot(f"its file {file.path!r} lies outside its folder")
    return snapshot


def _checksum(body: dict[str, Any]) -> str:
    return hashlib.sha256(orjson.dumps(body, option=orjson.OPT_SORT_KEYS)).hexdigest()
