"""Where builds work, and within which limits."""

from dataclasses import dataclass
from pathlib import Path

from retrieval_svc.bulk.preparing import PreparingLimits
from retrieval_svc.ingest.splitting import Splitting


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """Where a build works. `folder` is the service's data folder; its shards' files stay there with `keep_files`."""

    folder: Path
    database_url: str
    snapshot_url: str
    keep_files: bool
    cores: int
    workers: int
    lexical_memory_bytes: int
    shard_count: int
    splitting: Splitting
    limits: PreparingLimits

    def work(self, collection: str) -> Path:
        """What a build leaves for people to read, and its lock."""
        return self.folder / "builds" / collection

    def errors_file(self, collection: str) -> Path:
        """Where the records are told that could not be taken in."""
        return self.work(collection) / "errors.txt"

    @property
    def shards(self) -> Path:
        """Where nodes look for shards."""
        return self.folder / "shards"
