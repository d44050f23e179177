"""Collections that are being built in bulk."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"

_ID = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")
_JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    op.create_table(
        "builds",
        sa.Column("collection_uid", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("target", _ID, nullable=False),
        sa.Column("plan", _JSON, nullable=False),
        sa.Column("part_count", sa.Integer, nullable=False),
        sa.Column("progress", _JSON, nullable=False),
        sa.Column("ends", _JSON, nullable=False),
        sa.PrimaryKeyConstraint("collection_uid", name="pk_builds"),
        sa.UniqueConstraint("target", name="uq_builds_target"),
        sa.ForeignKeyConstraint(["collection_uid"], ["collections.uid"], name="fk_builds_collection_uid"),
    )
