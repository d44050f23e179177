"""Brings a database to the tables of this version, whatever version made it."""

from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection, inspect, text

from penstock.errors import FailedPrecondition
from retrieval_svc.record.database import Database

_SCRIPTS: Final = Path(__file__).parent / "migrations"
_UNVERSIONED: Final = "0001"
"""What a database is at that has tables and says nothing of a version: 0.2 made them without."""
_LOCK: Final = 0x70656E73746F636B  # "penstock"


async def migrate(database: Database) -> None:
    """Runs the migrations that are missing, in one transaction. Of several nodes that start at once, one does it.

    Raises FailedPrecondition when a newer version has written the database.
    """
    async with database.writing() as connection:
        if not database.is_sqlite:  # Where a writing transaction is alone anyway.
            await connection.execute(text("SET LOCAL statement_timeout = 0"))
            await connection.execute(text("SET LOCAL lock_timeout = 0"))
            await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        await connection.run_sync(_upgrade)


def _upgrade(connection: Connection) -> None:
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    config.attributes["connection"] = connection
    found = inspect(connection).get_table_names()
    try:
        if "collections" in found and "alembic_version" not in found:
            command.stamp(config, _UNVERSIONED)
        command.upgrade(config, "head")
    except CommandError as error:
        message = f"the record was written by another version of Penstock: run that version or a newer one ({error})"
        raise FailedPrecondition(message) from error
