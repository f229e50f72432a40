"""The migrations and the tables say the same, on both databases."""

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, text

from plangate.store.database import Database
from plangate.store.schema import SchemaState, migrate, schema_state
from plangate.store.tables import metadata


def _differences(connection: Connection) -> list[object]:
    context = MigrationContext.configure(connection, opts={"compare_type": False, "target_metadata": metadata})
    return list(compare_metadata(context, metadata))


async def test_a_migrated_database_has_exactly_the_tables(database_url: str) -> None:
    database = Database.at(database_url)
    async with database.connecting() as connection:
        assert await connection.run_sync(_differences) == []
    assert await schema_state(database) is SchemaState.CURRENT
    assert await migrate(database) is SchemaState.CURRENT
    await database.close()


async def test_a_newer_schema_is_recognised_and_left_alone(database_url: str) -> None:
    database = Database.at(database_url)
    async with database.connecting() as connection:
        ours = (await connection.execute(text("SELECT version_num FROM alembic_version"))).scalar()
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        await connection.commit()
    assert await schema_state(database) is SchemaState.NEWER
    assert await migrate(database) is SchemaState.NEWER
    async with database.connecting() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = :ours"), {"ours": ours})
        await connection.commit()
    await database.close()
