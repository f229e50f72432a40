"""Sessions: what is deferred goes out with the next statement, and connections the server closed are replaced."""

import asyncio

import asyncpg
import pytest
from sqlalchemy import select

from plangate.environment import Environment
from plangate.store import database as database_module
from plangate.store.direct import Direct, end_with_deferred, together
from plangate.store.inbox import CursorRow, cursors

_SET = Direct(
    sqlite="INSERT INTO cursors (environment_id, name, value) VALUES (?, ?, '1')",
    postgresql="INSERT INTO cursors (environment_id, name, value) VALUES ($1, $2, '1')",
)


async def names(environment: Environment) -> list[str]:
    async with environment.reading() as session:
        return [row["name"] for row in await session.all(select(cursors.c.name).order_by(cursors.c.name))]


async def test_what_is_deferred_goes_out_in_its_order_at_the_latest_with_the_commit(environment: Environment) -> None:
    async with environment.writing() as session:
        session.defer(_SET.of(environment.id, "first"))
        assert await session.scalar(select(cursors.c.name)) == "first"
        session.defer(_SET.of(environment.id, "second"))
        (found,) = await together(session, Direct(*["SELECT name FROM cursors ORDER BY name"] * 2).of())
        assert [row[0] for row in found] == ["first", "second"]
        await session.add(CursorRow(environment_id=environment.id, name="third", value=1))
        session.defer(_SET.of(environment.id, "fourth"))
    assert await names(environment) == ["first", "fourth", "second", "third"]


async def test_what_is_deferred_is_rolled_back_with_the_rest(environment: Environment) -> None:
    with pytest.raises(ZeroDivisionError):
        async with environment.writing() as session:
            session.defer(_SET.of(environment.id, "before"))
            await session.flush()
            session.defer(_SET.of(environment.id, "after"))
            raise ZeroDivisionError
    assert await names(environment) == []


async def test_a_transaction_may_end_with_its_last_statements(environment: Environment) -> None:
    async with environment.writing() as session:
        session.defer(_SET.of(environment.id, "last"))
        await end_with_deferred(session)
    async with environment.writing():
        pass
    assert await names(environment) == ["last"]


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
@pytest.mark.parametrize("rested_seconds", [0.0, 60.0])
async def test_connections_the_server_closed_are_replaced(
    environment: Environment, monkeypatch: pytest.MonkeyPatch, rested_seconds: float
) -> None:
    monkeypatch.setattr(database_module, "_RESTED_SECONDS", rested_seconds)
    await asyncio.gather(*(names(environment) for _ in range(3)))
    server = await asyncpg.connect(environment.database.plain_url())
    await server.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    await server.close()
    # Whoever asks after a rest need not have heard of it; whoever does not has.
    await asyncio.sleep(0.2 if rested_seconds else 0)
    assert await asyncio.gather(*(names(environment) for _ in range(3))) == [[], [], []]
