"""Snapshots in a folder or an object store, by fsspec. The only module that imports it.

    UID/SHARD/manifests/POSITION-TIME-TOKEN.json    written last: what has no manifest is no snapshot
    UID/SHARD/files/SHA256                          each content once, however many snapshots have it

A file is sent unless a snapshot that is there has it already, so what an interrupted upload left is never relied on. Files that
no snapshot has are removed when no upload can count on them any more. To that end a snapshot that is pruned is first retired,
which no upload that begins afterwards looks at.
"""

import asyncio
import errno
import hashlib
import logging
import secrets
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, Final

import fsspec
from fsspec.implementations.local import LocalFileSystem

from penstock.errors import BackendUnavailable, FailedPrecondition, PenstockError
from retrieval_svc.snapshots.manifest import CorruptSnapshot, Snapshot, SnapshotFile, decoded, encoded

_log = logging.getLogger(__name__)

_READ_BYTES: Final = 2**20
_FILES_AT_A_TIME: Final = 4
_UPLOAD_MAX: Final = timedelta(hours=1)
"""No upload takes longer; files that no snapshot has any more are left alone for that long."""
_LISTED: Final = ".json"
_RETIRED: Final = ".retired"
_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT)


def _create(path: Path) -> BinaryIO:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("wb")


class SnapshotStore:
    """Snapshots of shards at a URL that fsspec knows: a path, file://, memory://, s3:// and others whose driver is installed.

    One URL belongs to one record: uids of two databases would be taken for each other. Every method raises BackendUnavailable
    when the store fails. `create` opens files for what is downloaded.
    """

    def __init__(self, url: str, *, create: Callable[[Path], BinaryIO] = _create) -> None:
        self._files, self._root = _opened(url)
        self._create = create

    async def upload(self, folder: Path, *, uid: int, shard: int, position: int, files: Sequence[SnapshotFile]) -> Snapshot:
        """Copies the files of a shard's folder, those that are not there yet. Nothing of it counts before all of it is there.

        Raises FailedPrecondition when a file is not what `files` says of it.
        """
        return await asyncio.to_thread(self._upload, folder, uid, shard, position, tuple(files))

    async def snapshots(self, uid: int, shard: int) -> list[Snapshot]:
        """A shard's snapshots, newest first, but for those whose manifest cannot be read. Their files are not looked at."""
        return await asyncio.to_thread(lambda: list(self._readable(uid, shard)))

    async def download(self, uid: int, shard: int, folder: Path) -> Snapshot | None:
        """Copies the newest snapshot without a fault into `folder`, every file compared with its checksum; None: there is none.

        A snapshot with a fault is told in the log and passed over, and nothing of it is left. Raises FailedPrecondition when
        the disk is full.
        """
        return await asyncio.to_thread(self._download, uid, shard, folder)

    async def prune(self, uid: int, shard: int, keep: int) -> None:
        """Removes all but the newest `keep` snapshots (at least one), and the files that only those had."""
        await asyncio.to_thread(self._prune, uid, shard, max(1, keep))

    async def delete_collection(self, uid: int) -> None:
        """Removes every snapshot of a collection."""
        await asyncio.to_thread(self._remove, f"{self._root}/{uid}")

    def _upload(self, folder: Path, uid: int, shard: int, position: int, files: tuple[SnapshotFile, ...]) -> Snapshot:
        with self._told():
            there = {file.sha256 for snapshot in self._readable(uid, shard) for file in snapshot.files}
            for file in files:
                if file.sha256 not in there:
                    _check(folder, file)
                    self._put(folder / file.path, self._file(uid, shard, file))
                    there.add(file.sha256)
            now = datetime.now(UTC)
            name = f"{position:020d}-{now:%Y%m%dT%H%M%S%f}-{secrets.token_hex(4)}"
            snapshot = Snapshot(id=name, uid=uid, shard=shard, position=position, create_time=now, files=files)
            self._place(self._manifest(uid, shard, name), lambda path: self._files.pipe_file(path, encoded(snapshot)))
            return snapshot

    def _download(self, uid: int, shard: int, folder: Path) -> Snapshot | None:
        with self._told():
            for name in self._names(uid, shard):
                try:
                    return self._fetch(uid, shard, name, folder)
                except (CorruptSnapshot, FileNotFoundError) as fault:
                    _log.warning("snapshot %s of shard %d of collection %d is passed over: %s", name, shard, uid, fault)
        return None

    def _fetch(self, uid: int, shard: int, name: str, folder: Path) -> Snapshot:
        snapshot = self._read(uid, shard, name)
        try:
            self._get_all(snapshot, folder)
        except BaseException as error:
            for file in snapshot.files:
                (folder / file.path).unlink(missing_ok=True)
            if isinstance(error, OSError) and error.errno in _NO_ROOM:
                message = (
                    f"the disk of {folder} is full, so the snapshot {name} ({snapshot.size_bytes} bytes) cannot be restored; "
                    "free some space and start again"
                )
                raise FailedPrecondition(message, metadata={"folder": str(folder)}) from error
            raise
        return snapshot

    def _get_all(self, snapshot: Snapshot, folder: Path) -> None:
        """Some files at a time, the largest first: a replica serves nothing before the last of them is there and checked."""
        with ThreadPoolExecutor(_FILES_AT_A_TIME, "restoring") as pool:
            wanted = sorted(snapshot.files, key=lambda file: file.size_bytes, reverse=True)
            getting = [
                pool.submit(self._get, self._file(snapshot.uid, snapshot.shard, file), folder / file.path, file)
                for file in wanted
            ]
            try:
                for each in getting:
                    each.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def _get(self, source: str, target: Path, file: SnapshotFile) -> None:
        checksum, size = hashlib.sha256(), 0
        with self._files.open(source, "rb") as reader, self._create(target) as writer:
            while part := reader.read(_READ_BYTES):
                writer.write(part)
                checksum.update(part)
                size += len(part)
        if (size, checksum.hexdigest()) != (file.size_bytes, file.sha256):
            fault = f"{file.path} has {size} bytes whose checksum is not that of the {file.size_bytes} that were written"
            raise CorruptSnapshot(fault)

    def _prune(self, uid: int, shard: int, keep: int) -> None:
        with self._told():
            # Listed before the manifests: what is sent and gets its manifest meanwhile is not taken for a leftover.
            there = self._listed(f"{self._shard(uid, shard)}/files")
            for snapshot in list(self._readable(uid, shard))[keep:]:
                self._retire(snapshot)
            kept = {file.sha256 for snapshot in self._readable(uid, shard) for file in snapshot.files}
            kept |= {file.sha256 for snapshot in self._retired(uid, shard) for file in snapshot.files}
            for entry in there:
                if _name(entry) not in kept and _age(entry) > _UPLOAD_MAX:
                    self._files.rm_file(entry["name"])

    def _retire(self, snapshot: Snapshot) -> None:
        """Takes a snapshot off the list. Its files stay a while, for an upload that has begun may count on them."""
        path = self._manifest(snapshot.uid, snapshot.shard, snapshot.id)
        self._place(path.removesuffix(_LISTED) + _RETIRED, lambda part: self._files.pipe_file(part, encoded(snapshot)))
        self._files.rm_file(path)

    def _retired(self, uid: int, shard: int) -> Iterator[Snapshot]:
        """Those that were retired lately. Forgets the others."""
        for entry in self._listed(f"{self._shard(uid, shard)}/manifests"):
            if not _name(entry).endswith(_RETIRED):
                continue
            if _age(entry) > _UPLOAD_MAX:
                self._files.rm_file(entry["name"])
            else:
                yield decoded(self._files.cat_file(entry["name"]))

    def _remove(self, path: str) -> None:
        with self._told():
            if self._files.exists(path):
                self._files.rm(path, recursive=True)

    def _readable(self, uid: int, shard: int) -> Iterator[Snapshot]:
        with self._told():
            for name in self._names(uid, shard):
                try:
                    yield self._read(uid, shard, name)
                except (CorruptSnapshot, FileNotFoundError) as fault:
                    _log.warning("snapshot %s of shard %d of collection %d cannot be read: %s", name, shard, uid, fault)

    def _read(self, uid: int, shard: int, name: str) -> Snapshot:
        snapshot = decoded(self._files.cat_file(self._manifest(uid, shard, name)))
        if (snapshot.id, snapshot.uid, snapshot.shard) != (name, uid, shard):
            raise CorruptSnapshot(f"its manifest is that of {snapshot.id} of shard {snapshot.shard}")
        return snapshot

    def _names(self, uid: int, shard: int) -> list[str]:
        """Ids of the snapshots, newest first."""
        found = map(_name, self._listed(f"{self._shard(uid, shard)}/manifests"))
        return sorted((name.removesuffix(_LISTED) for name in found if name.endswith(_LISTED)), reverse=True)

    def _listed(self, folder: str) -> list[dict[str, Any]]:
        self._files.invalidate_cache(folder)  # Others write there too.
        try:
            return list(self._files.ls(folder, detail=True))
        except FileNotFoundError:
            return []

    def _put(self, source: Path, target: str) -> None:
        self._place(target, lambda path: self._files.put_file(str(source), path))

    def _place(self, target: str, write: Callable[[str], None]) -> None:
        """Writes an object that is there as a whole or not at all."""
        self._files.makedirs(target.rpartition("/")[0], exist_ok=True)
        if not isinstance(self._files, LocalFileSystem):
            write(target)  # An object store shows an object when all of it has arrived.
            return
        part = f"{target}.{secrets.token_hex(4)}.part"
        try:
            write(part)
            Path(part).replace(target)
        finally:
            Path(part).unlink(missing_ok=True)

    def _shard(self, uid: int, shard: int) -> str:
        return f"{self._root}/{uid}/{shard}"

    def _manifest(self, uid: int, shard: int, name: str) -> str:
        return f"{self._shard(uid, shard)}/manifests/{name}{_LISTED}"

    def _file(self, uid: int, shard: int, file: SnapshotFile) -> str:
        return f"{self._shard(uid, shard)}/files/{file.sha256}"

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (PenstockError, CorruptSnapshot):
            raise
        except Exception as error:
            message = (
                f"the snapshot store at {self._root} fails ({type(error).__name__}: {error}); check its URL and that it may be "
                "read and written. Searches and writes go on without it"
            )
            raise BackendUnavailable(message, metadata={"service": "snapshots"}) from error


def _opened(url: str) -> tuple[Any, str]:
    try:
        files, root = fsspec.core.url_to_fs(url)
    except ImportError as error:
        message = f"snapshots at {url.partition('://')[0]}:// need a package that is not installed: {error}"
        raise FailedPrecondition(message) from error
    except ValueError as error:
        message = f"snapshots cannot be kept there ({error}); give a folder or a URL such as s3://bucket/prefix"
        raise FailedPrecondition(message) from error
    return files, root.rstrip("/")


def _check(folder: Path, file: SnapshotFile) -> None:
    path = folder / file.path
    try:
        with path.open("rb") as reader:
            checksum = hashlib.file_digest(reader, "sha256").hexdigest()
    except FileNotFoundError:
        checksum = "nothing"
    if checksum != file.sha256:
        raise FailedPrecondition(f"{path} is not what its checkpoint says of it; take the next checkpoint")


def _name(entry: dict[str, Any]) -> str:
    name: str = entry["name"].rpartition("/")[2]
    return name


def _age(entry: dict[str, Any]) -> timedelta:
    """How long ago an object was written; nothing where the store does not say."""
    written = entry.get("LastModified") or entry.get("last_modified") or entry.get("mtime") or entry.get("created")
    if isinstance(written, int | float):
        written = datetime.fromtimestamp(written, UTC)
    if not isinstance(written, datetime):
        return timedelta()
    return datetime.now(UTC) - (written if written.tzinfo else written.replace(tzinfo=UTC))
