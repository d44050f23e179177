"""Run by Alembic for every command: within the transaction of the connection that `migrating` hands over."""

from alembic import context

from retrieval_svc.record.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # SQLite changes tables within transactions too; Alembic would not rely on it.
    transactional_ddl=True,
)
context.run_migrations()
