"""The record's tables.

    collections 1 ── n shards       last_sequence: the row whose lock orders a shard's writes
                1 ── n chunks       what is stored now, under the sequence number of the change that stored it
                1 ── n removals     change `sequence` removed what change `removed_sequence` had stored
                1 ── n documents    what was ingested, so that the same again is left alone
                1 ── 1 builds       how far a bulk build has come; a collection that is being built has no shards yet

The log of a shard is its chunks and its removals in the order of their sequence numbers. Each number up to last_sequence is the
number of a chunk that is stored, of a removal, or of a chunk that a later removal names: what stores a chunk without replacing
another needs no entry besides the chunk itself. Removals up to trimmed_through are gone.

`migrations` brings a database to these tables; tests compare the two.
"""

from typing import Any

from sqlalchemy import (
    JSON,
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
    text,
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
Json = JSON().with_variant(postgresql.JSONB(), "postgresql")


def _shard_key() -> tuple[Column[Any], ...]:
    return (
        Column("collection_uid", ForeignKey("collections.uid"), primary_key=True),
        Column("shard", Integer, primary_key=True, autoincrement=False),
    )


collections = Table(
    "collections",
    metadata,
    Column("uid", Integer, primary_key=True),
    Column("id", Id, nullable=False, unique=True),
    Column("embedding_model", Text, nullable=False),
    Column("embedding_fingerprint", Text, nullable=False),
    Column("dimension", Integer, nullable=False),
    Column("metric", Text, nullable=False),
    # What these do not say is as IndexConfig and LexicalConfig have it.
    Column("index_config", Json, nullable=False, server_default=text("'{}'")),
    Column("lexical_config", Json, nullable=False, server_default=text("'{}'")),
    Column("shard_count", Integer, nullable=False, server_default=text("1")),
    sqlite_autoincrement=True,  # So that a uid is never given out again.
)
shards = Table(
    "shards",
    metadata,
    *_shard_key(),
    Column("last_sequence", BigInteger, nullable=False),
    Column("chunk_count", BigInteger, nullable=False),
    Column("trimmed_through", BigInteger, nullable=False, server_default=text("0")),
)
chunks = Table(
    "chunks",
    metadata,
    *_shard_key(),
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("chunk_id", Id, nullable=False),
    Column("document_id", Id, nullable=False),
    Column("text", Text, nullable=False),
    Column("metadata_json", Text, nullable=False),
    # Little-endian float32, as the caller or the model gave it.
    Column("vector", LargeBinary, nullable=False),
    # A JSON list of who may find it; empty: everyone.
    Column("allowed_principals", Text, nullable=False, server_default=text("''")),
    UniqueConstraint("collection_uid", "chunk_id"),
    Index(None, "collection_uid", "document_id"),
)
removals = Table(
    "removals",
    metadata,
    *_shard_key(),
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("removed_sequence", BigInteger, nullable=False),
    # Whether the same change stored a chunk in place of the one it removed.
    Column("replaced", Boolean, nullable=False),
    sqlite_with_rowid=False,
)
documents = Table(
    "documents",
    metadata,
    Column("collection_uid", ForeignKey("collections.uid"), primary_key=True),
    Column("document_id", Id, primary_key=True),
    Column("content_hash", Text, nullable=False),
    Column("chunk_count", Integer, nullable=False),
    sqlite_with_rowid=False,
)
builds = Table(
    "builds",
    metadata,
    Column("collection_uid", ForeignKey("collections.uid"), primary_key=True, autoincrement=False),
    # The id that the collection gets once it is whole.
    Column("target", Id, nullable=False, unique=True),
    # What it is built of and how: a build is only gone on with by one that would come to the same.
    Column("plan", Json, nullable=False),
    Column("part_count", Integer, nullable=False),
    # How far the parts that are in reach, as the build wants to know it when it is gone on with.
    Column("progress", Json, nullable=False),
    # For each shard the sequence number of its last chunk.
    Column("ends", Json, nullable=False),
)
