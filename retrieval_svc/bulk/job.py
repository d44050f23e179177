"""What is to be built, and what is told of it while it is."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from retrieval_svc.ingest.splitting import Splitting
from retrieval_svc.values import IndexConfig, LexicalConfig, Metric


class ExecutorKind(Enum):
    """Where the work is done."""

    LOCAL = "local"
    RAY = "ray"


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildJob:
    """A collection to build out of the files of `paths`.

    `model` is one of the service's by name, "" its default. With a `dimension` there is none, and every record brings a vector.
    `whole`: each record becomes one chunk with its own id, as one with a vector does anyway. `replace`: a collection of that id
    makes way when this one is whole. `fresh`: a build that was broken off is not gone on with. 0 `workers`: as many as fit.
    """

    paths: tuple[str, ...]
    collection: str
    model: str = ""
    dimension: int = 0
    metric: Metric = Metric.COSINE
    index: IndexConfig = field(default_factory=IndexConfig)
    lexical: LexicalConfig = field(default_factory=LexicalConfig)
    shard_count: int = 0
    whole: bool = False
    join_title: bool = False
    splitting: Splitting = field(default_factory=Splitting)
    replace: bool = False
    fresh: bool = False
    errors_max: int = 1000
    executor: ExecutorKind = ExecutorKind.LOCAL
    workers: int = 0


class Phase(Enum):
    """What is being done; in this order."""

    ROWS = "rows"
    """Documents are read, split, embedded and recorded; counted in bytes of the corpus."""
    SHARDS = "shards"
    """Shards are indexed; counted in rows."""
    PUBLISHED = "published"
    """The collection is there; a replaced one's rows are being removed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a phase has come, and what came of the corpus by then."""

    phase: Phase
    done: int
    total: int
    document_count: int = 0
    chunk_count: int = 0
    error_count: int = 0
    resumed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardSummary:
    """A shard that is indexed. `recall` is of its index at 10 hits against exact search, None where that is how it searches."""

    shard: int
    row_count: int
    index_kind: str
    size_bytes: int
    recall: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What came of a build. `seconds` are of this run, for each phase."""

    collection: str
    uid: int
    document_count: int
    chunk_count: int
    error_count: int
    first_errors: tuple[tuple[str, str], ...]
    errors_file: Path | None
    shards: tuple[ShardSummary, ...]
    seconds: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """As JSON has it, with what follows from it."""
        measured = [(shard.recall, shard.row_count) for shard in self.shards if shard.recall is not None]
        rows = sum(count for _, count in measured)
        return {
            "collection": self.collection,
            "document_count": self.document_count,
            "chunk_count": self.chunk_count,
            "error_count": self.error_count,
            "first_errors": [list(each) for each in self.first_errors],
            "errors_file": str(self.errors_file or ""),
            "shard_count": len(self.shards),
            "index_kinds": sorted({shard.index_kind for shard in self.shards if shard.row_count}),
            "size_bytes": sum(shard.size_bytes for shard in self.shards),
            "recall": sum(recall * count for recall, count in measured) / rows if rows else None,
            "seconds": dict(self.seconds),
        }
