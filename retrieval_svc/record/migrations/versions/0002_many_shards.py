"""Many shards a collection, configurations, access lists, documents, and a log that keeps removals only.

A chunk's own sequence number tells what stored it, so of the log of 0.2 only what removed something is carried over.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"

_ID = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")
_JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    for column in ("index_config", "lexical_config"):
        op.add_column("collections", sa.Column(column, _JSON, nullable=False, server_default=sa.text("'{}'")))
    op.add_column("collections", sa.Column("shard_count", sa.Integer, nullable=False, server_default=sa.text("1")))
    op.add_column("shards", sa.Column("trimmed_through", sa.BigInteger, nullable=False, server_default=sa.text("0")))
    op.add_column("chunks", sa.Column("allowed_principals", sa.Text, nullable=False, server_default=sa.text("''")))
    _create_documents()
    _create_removals()
    op.execute(
        "INSERT INTO removals SELECT collection_uid, shard, sequence, removed_sequence, stored FROM changes "
        "WHERE removed_sequence IS NOT NULL"
    )
    op.drop_table("changes")


def _create_documents() -> None:
    op.create_table(
        "documents",
        sa.Column("collection_uid", sa.Integer, nullable=False),
        sa.Column("document_id", _ID, nullable=False),
        sa.Column("content_hash", sa.Text, nullable=False),
        sa.Column("chunk_count", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("collection_uid", "document_id", name="pk_documents"),
        sa.ForeignKeyConstraint(["collection_uid"], ["collections.uid"], name="fk_documents_collection_uid"),
        sqlite_with_rowid=False,
    )


def _create_removals() -> None:
    op.create_table(
        "removals",
        sa.Column("collection_uid", sa.Integer, nullable=False),
        sa.Column("shard", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("sequence", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("removed_sequence", sa.BigInteger, nullable=False),
        sa.Column("replaced", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("collection_uid", "shard", "sequence", name="pk_removals"),
        sa.ForeignKeyConstraint(["collection_uid"], ["collections.uid"], name="fk_removals_collection_uid"),
        sqlite_with_rowid=False,
    )
