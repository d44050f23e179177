"""The models that the service is set to load, for builds to load elsewhere."""

from dataclasses import dataclass
from pathlib import Path

from retrieval_svc.embedding.embedder import Embedder, Purpose
from retrieval_svc.embedding.loading import ModelConfig, load
from retrieval_svc.embedding.prompts import prompted


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceModel:
    """Implements the port of a build's model source: the same vectors as the service's for documents."""

    config: ModelConfig
    cache_dir: Path
    threads: int

    def load(self) -> Embedder:
        """As the port has it."""
        loaded = load(self.config, cache_dir=self.cache_dir, threads=self.threads)
        return prompted(loaded.embedder, loaded.prompts)[Purpose.DOCUMENT]
