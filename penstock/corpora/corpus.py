"""A corpus as one stream of documents: every file of every path, each id once."""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from types import TracebackType
from typing import Self

from penstock.corpora.files import LINES, TABLES, WHOLE, CorpusFile, find_files
from penstock.corpora.json_lines import read_json_lines
from penstock.corpora.records import BadRecord, CorpusRecord, ReadingOptions
from penstock.corpora.tables import read_table


class Corpus:
    """The documents of some files. `passed` says for a file's name the number through which it was read before.

    What was read before is passed over, but for its ids: a document whose id stood before is bad, so that the same one is taken
    however often the reading is taken up again. Iterated once; raises InvalidArgument only where a library is missing.
    """

    def __init__(
        self,
        files: Sequence[CorpusFile],
        *,
        options: ReadingOptions | None = None,
        passed: Mapping[str, int] | None = None,
    ) -> None:
        self.files = tuple(files)
        self.bytes_total = sum(file.size_bytes for file in files)
        self.bytes_read = 0
        self._options = options or ReadingOptions()
        self._passed = dict(passed or {})
        self._seen = _SeenIds()

    @classmethod
    def of(cls, paths: Sequence[str], *, options: ReadingOptions | None = None) -> "Corpus":
        """The corpus of paths, folders, globs and URLs. Raises InvalidArgument where there is nothing to read."""
        return cls(find_files(paths), options=options)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._seen.close()

    def __iter__(self) -> Iterator[CorpusRecord | BadRecord]:
        before = 0
        for at, file in enumerate(self.files):
            for done, found in self._read(file):
                self.bytes_read = before + done
                new = self._once(at, found)
                if new.number > self._passed.get(file.name, 0) or new.number == 0:
                    yield new
            before += file.size_bytes
            self.bytes_read = before

    def _read(self, file: CorpusFile) -> Iterator[tuple[int, CorpusRecord | BadRecord]]:
        try:
            if file.suffix in LINES:
                yield from read_json_lines(file, self._options)
            elif file.suffix in TABLES:
                yield from read_table(file, self._options)
            elif self._passed.get(file.name, 0):
                yield file.size_bytes, CorpusRecord(file=file.name, number=1, place=file.name, id=file.name)
            else:
                yield file.size_bytes, _whole(file, self._options)
        except OSError as error:
            yield 0, BadRecord(file=file.name, number=0, place=file.name, message=f"it cannot be opened: {error}")

    def _once(self, at: int, found: CorpusRecord | BadRecord) -> CorpusRecord | BadRecord:
        if isinstance(found, BadRecord):
            return found
        first = self._seen.first(found.id, at, found.number)
        if first is None:
            return found
        place = f"{self.files[first[0]].name}:{first[1]}"
        message = f"the id {found.id[:80]!r} stood at {place} before; only that one is taken"
        return BadRecord(file=found.file, number=found.number, place=found.place, message=message)


def _whole(file: CorpusFile, options: ReadingOptions) -> CorpusRecord | BadRecord:
    """A file that is one document; its name is the id."""
    kind = WHOLE[file.suffix]
    with file.open() as raw:
        content = raw.read(options.file_bytes_max + 1)
    message, text = "", ""
    if len(content) > options.file_bytes_max:
        message = f"it has {file.size_bytes} bytes, and a document has at most {options.file_bytes_max}; split it"
    elif not content.strip():
        message = "there is nothing in it"
    elif kind in {"text/plain", "text/markdown"}:
        try:
            text, content = content.decode("utf-8-sig"), b""
        except UnicodeDecodeError as error:
            message = f"it is not UTF-8: byte {error.start} (0x{content[error.start]:02x}) does not fit"
    if message:
        return BadRecord(file=file.name, number=1, place=file.name, message=message)
    return CorpusRecord(
        file=file.name,
        number=1,
        place=file.name,
        id=file.name,
        text=text,
        content=content,
        content_type=kind,
        metadata={"path": file.name},
    )


class _SeenIds:
    """Where each id stood first, in a temporary database that lies on disk where it outgrows its cache."""

    def __init__(self) -> None:
        # Read in one thread at a time, but not always the same.
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute("PRAGMA synchronous = OFF")
        self._database.execute("PRAGMA cache_size = -65536")
        self._database.execute("CREATE TABLE ids (hash BLOB PRIMARY KEY, file INTEGER, number INTEGER) WITHOUT ROWID")
        self._database.execute("BEGIN")

    def first(self, identity: str, file: int, number: int) -> tuple[int, int] | None:
        """None for an id that is new, and is noted; else the file and the number of its first record."""
        key = blake2b(identity.encode(), digest_size=16).digest()
        added = self._database.execute("INSERT INTO ids VALUES (?, ?, ?) ON CONFLICT DO NOTHING", (key, file, number))
        if added.rowcount:
            return None
        row = self._database.execute("SELECT file, number FROM ids WHERE hash = ?", (key,)).fetchone()
        return int(row[0]), int(row[1])

    def close(self) -> None:
        self._database.close()
