"""Which files a corpus has: paths, folders, globs and URLs of object stores to files that can be opened."""

import glob
import importlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

from penstock.errors import InvalidArgument

LINES: Final = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")
TABLES: Final = (".parquet",)
WHOLE: Final = {
    ".txt": "text/plain",
    ".md": "text/markdown",
    ".markdown": "text/markdown",
    ".html": "text/html",
    ".htm": "text/html",
    ".pdf": "application/pdf",
}
"""Files that are one document each, with their types."""
SUFFIXES: Final = (*LINES, *TABLES, *WHOLE)


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpusFile:
    """A file. `version` differs when its content does (size and time of change, or the store's own)."""

    name: str
    size_bytes: int
    version: str
    open: Callable[[], BinaryIO]

    @property
    def suffix(self) -> str:
        """What its name says of its content, ".gz" included."""
        return suffix_of(self.name)


def suffix_of(name: str) -> str:
    """The suffix of a file that can be read, else an empty one."""
    lower = name.lower()
    return max((suffix for suffix in SUFFIXES if lower.endswith(suffix)), key=len, default="")


def find_files(paths: Sequence[str]) -> list[CorpusFile]:
    """The files of all paths in a stable order, each once. Of folders and globs those that can be read.

    Raises InvalidArgument for a path where nothing is, and for a file that cannot be read by its name.
    """
    found = {file.name: file for path in paths for file in _files(path)}
    return list(found.values())


def _files(path: str) -> Iterator[CorpusFile]:
    files = list(_remote(path) if "://" in path else _local(path))
    if not files:
        raise InvalidArgument(f"{path}: nothing there that can be read; it reads {', '.join(SUFFIXES)}")
    yield from files


def _local(path: str) -> Iterator[CorpusFile]:
    plain = Path(path)
    if plain.is_dir():
        yield from (_local_file(each) for each in sorted(plain.rglob("*")) if suffix_of(each.name) and each.is_file())
    elif plain.exists():
        if not suffix_of(plain.name):
            raise InvalidArgument(f"{path}: only {', '.join(SUFFIXES)} can be read")
        yield _local_file(plain)
    elif glob.has_magic(path):
        names = sorted(glob.glob(path, recursive=True))  # noqa: PTH207  # Path.glob takes no absolute pattern.
        yield from (_local_file(Path(name)) for name in names if suffix_of(name) and Path(name).is_file())
    else:
        raise InvalidArgument(f"{path}: there is no such file or folder")


def _local_file(path: Path) -> CorpusFile:
    facts = path.stat()
    version = f"{facts.st_size}-{facts.st_mtime_ns}"
    return CorpusFile(name=str(path), size_bytes=facts.st_size, version=version, open=lambda: path.open("rb"))


def _remote(url: str) -> Iterator[CorpusFile]:
    try:
        fsspec: Any = importlib.import_module("fsspec")
        store, root = fsspec.core.url_to_fs(url)
        matches = store.glob(root) if glob.has_magic(root) else store.find(root)
        names = sorted(name for name in matches if suffix_of(name))
        yield from (_remote_file(store, name) for name in names)
    except ImportError as error:
        message = f"{url}: {error}; install fsspec and the package of that store, such as s3fs, gcsfs or adlfs"
        raise InvalidArgument(message) from error
    except (OSError, ValueError) as error:
        raise InvalidArgument(f"{url}: it cannot be listed: {error}") from error


def _remote_file(store: Any, name: str) -> CorpusFile:
    facts = store.info(name)
    size = int(facts.get("size") or 0)
    marks = [str(facts[key]) for key in ("ETag", "etag", "LastModified", "mtime", "updated", "created") if facts.get(key)]
    url = str(store.unstrip_protocol(name))
    return CorpusFile(name=url, size_bytes=size, version=f"{size}-{'-'.join(marks)}", open=lambda: store.open(name, "rb"))
