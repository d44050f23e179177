"""A corpus cut into parts, each of which is prepared at once, recorded in one transaction, and never half."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from penstock.corpora import BadRecord, Corpus, CorpusFile, CorpusRecord

PART_BYTES: Final = 4 * 2**20
PART_RECORDS_EMBEDDED: Final = 128
"""Half a minute of one core's embedding, which is what is done again when a worker dies."""
PART_RECORDS_READY: Final = 4096

_ALL: Final = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """A place in a corpus: everything up to the record `number` of the file at `file` has been read."""

    file: int = 0
    number: int = 0

    @classmethod
    def of(cls, progress: Mapping[str, Any]) -> Self:
        """Of what a build records."""
        return cls(file=progress["file"], number=progress["number"])

    def passed(self, files: Sequence[CorpusFile]) -> dict[str, int]:
        """For the corpus to pass over."""
        before = {file.name: _ALL for file in files[: self.file]}
        return before | ({files[self.file].name: self.number} if self.number else {})


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Records in their order, what was bad between them, and how far the reading was then."""

    records: tuple[CorpusRecord, ...]
    bad: tuple[BadRecord, ...]
    reached: Reached
    bytes_read: int


def parts(corpus: Corpus, *, records_max: int) -> Iterator[Part]:
    """The rest of a corpus. `passed` is what the corpus was told of."""
    places = {file.name: at for at, file in enumerate(corpus.files)}
    found: list[CorpusRecord | BadRecord] = []
    size = 0
    for each in corpus:
        found.append(each)
        size += each.size_bytes if isinstance(each, CorpusRecord) else 0
        if len(found) >= records_max or size >= PART_BYTES:
            yield _part(found, places, corpus.bytes_read)
            found, size = [], 0
    if found:
        yield _part(found, places, corpus.bytes_read)


def _part(found: Sequence[CorpusRecord | BadRecord], places: Mapping[str, int], bytes_read: int) -> Part:
    last = found[-1]
    return Part(
        records=tuple(each for each in found if isinstance(each, CorpusRecord)),
        bad=tuple(each for each in found if isinstance(each, BadRecord)),
        reached=Reached(file=places[last.file], number=last.number),
        bytes_read=bytes_read,
    )
