"""What is done to the file system, as few operations that each leave it in a state that can be started from."""

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from penstock.errors import FailedPrecondition

_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT)


class Disk(Protocol):
    """The operations that order what a crash may leave behind."""

    def write(self, path: Path, data: bytes) -> None:
        """Writes a file and waits until it is on the disk."""
        ...

    def sync(self, *paths: Path) -> None:
        """Waits until files' contents, and folders' entries, are on the disk."""
        ...

    def rename(self, source: Path, target: Path) -> None:
        """Puts a file or folder in the place of another, at once or not at all."""
        ...

    def remove(self, path: Path) -> None:
        """Removes a file or a folder with what is in it, where it is there."""
        ...


class LocalDisk:
    """The operating system's."""

    def write(self, path: Path, data: bytes) -> None:
        with path.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    def sync(self, *paths: Path) -> None:
        for path in paths:
            handle = os.open(path, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)

    def rename(self, source: Path, target: Path) -> None:
        source.replace(target)

    def remove(self, path: Path) -> None:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


LOCAL_DISK: Final = LocalDisk()


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEntry:
    """A file of a checkpoint. `path` is relative to the shard's folder, with slashes; `sha256` is hexadecimal."""

    path: str
    size_bytes: int
    sha256: str


def file_entry(root: Path, path: Path) -> FileEntry:
    """The entry of a file that is there, which is read for it."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return FileEntry(path=path.relative_to(root).as_posix(), size_bytes=path.stat().st_size, sha256=digest)


def fault_of(root: Path, entry: FileEntry, *, checksum_bytes_max: int | None) -> str:
    """What is wrong with a file, "" when nothing is. A file of more than `checksum_bytes_max` is only measured."""
    path = root / entry.path
    try:
        size = path.stat().st_size
        if size != entry.size_bytes:
            return f"{entry.path} has {size} bytes instead of {entry.size_bytes}"
        if checksum_bytes_max is not None and size > checksum_bytes_max:
            return ""
        return "" if file_entry(root, path) == entry else f"{entry.path} has not the content that it was written with"
    except OSError as error:
        return f"{entry.path} cannot be read: {error.strerror}"


@contextmanager
def full_disk_told(folder: Path) -> Iterator[None]:
    """Turns the several ways of finding the disk full into one error, FailedPrecondition, that says what to do."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        # FAISS raises RuntimeError with the system's words in it.
        if getattr(error, "errno", None) not in _NO_ROOM and os.strerror(errno.ENOSPC) not in str(error):
            raise
        message = (
            f"the disk of {folder} is full, so nothing more can be indexed to it; free some space. "
            "Everything written is in the database, and searches go on"
        )
        raise FailedPrecondition(message, metadata={"folder": str(folder)}) from error
