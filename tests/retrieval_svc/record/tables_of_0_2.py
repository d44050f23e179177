"""The tables as version 0.2 made them, without a version."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.dialects import postgresql

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)
# Pages follow the order of ids, so ids are ordered by their bytes in every database.
Id = Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")

collections = Table(
    "collections",
    metadata,
    Column("uid", Integer, primary_key=True),
    Column("id", Id, nullable=False, unique=True),
    Column("embedding_model", Text, nullable=False),
    Column("embedding_fingerprint", Text, nullable=False),
    Column("dimension", Integer, nullable=False),
    Column("metric", Text, nullable=False),
    sqlite_autoincrement=True,  # So that a uid is never given out again.
)
shards = Table(
    "shards",
    metadata,
    Column("collection_uid", ForeignKey("collections.uid"), primary_key=True),
    Column("shard", Integer, primary_key=True, autoincrement=False),
    Column("last_sequence", BigInteger, nullable=False),
    Column("chunk_count", BigInteger, nullable=False),
)
chunks = Table(
    "chunks",
    metadata,
    Column("collection_uid", ForeignKey("collections.uid"), primary_key=True),
    Column("shard", Integer, primary_key=True, autoincrement=False),
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("chunk_id", Id, nullable=False),
    Column("document_id", Id, nullable=False),
    Column("text", Text, nullable=False),
    Column("metadata_json", Text, nullable=False),
    # Little-endian float32, as the caller or the model gave it. Last, so that reading the others need not pass over it.
    Column("vector", LargeBinary, nullable=False),
    UniqueConstraint("collection_uid", "chunk_id"),
    Index(None, "collection_uid", "document_id"),
)
changes = Table(
    "changes",
    metadata,
    Column("collection_uid", ForeignKey("collections.uid"), primary_key=True),
    Column("shard", Integer, primary_key=True, autoincrement=False),
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("stored", Boolean, nullable=False),
    Column("removed_sequence", BigInteger, nullable=True),
    sqlite_with_rowid=False,
)
