"""The record's tables, and how its database is opened.

    collections 1 ── n shards       last_sequence, chunk_count: the row whose lock orders a shard's writes
                1 ── n chunks       what is stored now, under the sequence number of the change that stored it
                1 ── n changes      the log: number n stored a chunk, or removed what number m had stored, or both

One code path serves SQLite and PostgreSQL; what differs is how a connection is opened and a transaction begun.
"""

from typing import Any, Final

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
    event,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

WRITES: Final = "penstock_writes"
"""The execution option of engines whose transactions write."""

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


def open_engine(database_url: str) -> AsyncEngine:
    """The engine of an SQLAlchemy URL with an async driver. It connects when it is first used."""
    engine = create_async_engine(database_url)
    if engine.dialect.name == "sqlite":
        _prepare_sqlite(engine)
    return engine


def _prepare_sqlite(engine: AsyncEngine) -> None:
    @event.listens_for(engine.sync_engine, "connect")
    def set_up(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # The driver's own way of beginning would begin too late: see below.
        cursor = connection.cursor()
        # FULL: a commit is on the disk before it is acknowledged, even if the power fails right after.
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=10000"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Any) -> None:
        # A transaction that reads first and writes later fails when another wrote in between, so writers take the lock at once.
        # Every read of ours is one statement, which is consistent in itself and needs no transaction.
        if connection.get_execution_options().get(WRITES, False):
            connection.exec_driver_sql("BEGIN IMMEDIATE")
