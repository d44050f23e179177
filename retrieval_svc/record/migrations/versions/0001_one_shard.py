"""The tables of version 0.2: one shard a collection, and a log with an entry for every change."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None

_ID = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "collections",
        sa.Column("uid", sa.Integer, nullable=False),
        sa.Column("id", _ID, nullable=False),
        sa.Column("embedding_model", sa.Text, nullable=False),
        sa.Column("embedding_fingerprint", sa.Text, nullable=False),
        sa.Column("dimension", sa.Integer, nullable=False),
        sa.Column("metric", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("uid", name="pk_collections"),
        sa.UniqueConstraint("id", name="uq_collections_id"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "shards",
        sa.Column("collection_uid", sa.Integer, nullable=False),
        sa.Column("shard", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("last_sequence", sa.BigInteger, nullable=False),
        sa.Column("chunk_count", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("collection_uid", "shard", name="pk_shards"),
        sa.ForeignKeyConstraint(["collection_uid"], ["collections.uid"], name="fk_shards_collection_uid"),
    )
    op.create_table(
        "chunks",
        sa.Column("collection_uid", sa.Integer, nullable=False),
        sa.Column("shard", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("sequence", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("chunk_id", _ID, nullable=False),
        sa.Column("document_id", _ID, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("metadata_json", sa.Text, nullable=False),
        sa.Column("vector", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("collection_uid", "shard", "sequence", name="pk_chunks"),
        sa.UniqueConstraint("collection_uid", "chunk_id", name="uq_chunks_collection_uid_chunk_id"),
        sa.ForeignKeyConstraint(["collection_uid"], ["collections.uid"], name="fk_chunks_collection_uid"),
    )
    op.create_index("ix_chunks_collection_uid_document_id", "chunks", ["collection_uid", "document_id"])
    op.create_table(
        "changes",
        sa.Column("collection_uid", sa.Integer, nullable=False),
        sa.Column("shard", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("sequence", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("stored", sa.Boolean, nullable=False),
        sa.Column("removed_sequence", sa.BigInteger, nullable=True),
        sa.PrimaryKeyConstraint("collection_uid", "shard", "sequence", name="pk_changes"),
        sa.ForeignKeyConstraint(["collection_uid"], ["collections.uid"], name="fk_changes_collection_uid"),
        sqlite_with_rowid=False,
    )
