"""How far an ingestion has come, in a file beside the data: what a second run after a crash goes on from.

One JSON object: for each file of the corpus, under its version, the number of the last line or row that is stored together with
all before it. It is written as a whole and renamed into place, so that a crash leaves the one before; what is repeated after a
crash does no harm, because the service leaves alone what it has. The file goes when an ingestion has come to its end.
"""

import os
import time
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

import orjson

from penstock.corpora import CorpusFile
from penstock.errors import InvalidArgument

_SAVE_INTERVAL_S: Final = 1.0


def journal_path(paths: Sequence[str], collection: str, target: str) -> Path:
    """Where the journal of an ingestion lies: beside its first path, or in the working folder for an object store."""
    first = paths[0]
    plain = Path(first)
    folder = Path() if "://" in first else plain if plain.is_dir() else plain.parent
    while not folder.is_dir():  # The first part of a glob that is one.
        folder = folder.parent
    key = blake2b(orjson.dumps([list(paths), collection, target]), digest_size=4).hexdigest()
    return folder / f".penstock-ingest-{collection.rpartition('/')[2]}-{key}.json"


class Journal:
    """The journal of one collection on one service. Begun anew where the file is of another."""

    def __init__(self, path: Path, *, collection: str, target: str) -> None:
        self.path = path
        self._key = {"collection": collection, "target": target}
        self._files: dict[str, dict[str, Any]] = {}
        self._saved_at = 0.0
        if path.exists():
            self._read()

    def passed(self, files: Sequence[CorpusFile]) -> dict[str, int]:
        """The last number of each file that is stored. A file that has changed since is read from its beginning."""
        self._files = {
            file.name: entry if (entry := self._files.get(file.name, {})).get("version") == file.version
            else {"version": file.version, "stored": 0}
            for file in files
        }  # fmt: skip
        return {name: int(entry["stored"]) for name, entry in self._files.items()}

    def forget(self) -> None:
        """Begins anew: the collection that all of it was stored in is gone."""
        self._files = {}

    def advance(self, ends: Mapping[str, int]) -> None:
        """Notes that everything up to these numbers is stored; on disk a second later at most, if more comes."""
        for name, number in ends.items():
            self._files[name]["stored"] = max(number, self._files[name]["stored"])
        if time.monotonic() - self._saved_at >= _SAVE_INTERVAL_S:
            self.save()

    def save(self) -> None:
        """Writes it. Raises InvalidArgument where it cannot be written."""
        self._saved_at = time.monotonic()
        draft = self.path.with_name(f"{self.path.name}.tmp")
        try:
            with draft.open("wb") as out:
                out.write(orjson.dumps(self._key | {"files": self._files}, option=orjson.OPT_INDENT_2))
                out.flush()
                os.fsync(out.fileno())
            draft.replace(self.path)
        except OSError as error:
            message = f"how far it came cannot be written to {self.path}: {error}; give another file with --state"
            raise InvalidArgument(message) from error

    def finish(self) -> None:
        """Removes it: there is nothing to go on with."""
        self.path.unlink(missing_ok=True)

    def _read(self) -> None:
        try:
            kept = orjson.loads(self.path.read_bytes())
            if {key: kept[key] for key in self._key} == self._key:
                self._files = {
                    str(name): {"version": str(each["version"]), "stored": int(each["stored"])}
                    for name, each in kept["files"].items()
                }
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            message = (
                f"{self.path} is not the journal of an ingestion ({error!r}); remove it, or give another file with --state"
            )
            raise InvalidArgument(message) from error
