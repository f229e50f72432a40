"""Alembic's entry point: it is handed an open connection by `plangate.store.schema`."""

from typing import Any

from alembic import context

from plangate.store.tables import metadata


def _is_ours(_object: Any, name: str | None, kind: str, _reflected: bool, _compare_to: Any) -> bool:  # noqa: ANN401
    return not (kind == "table" and name == "alembic_version")


connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=metadata,
    include_object=_is_ours,
    render_as_batch=connection.dialect.name == "sqlite",
    transaction_per_migration=True,
)
with context.begin_transaction():
    context.run_migrations()
