"""The commit that stores a webhook, and claims it with its company's lease where nobody else is at work: one call."""

import sqlite3
from datetime import datetime
from typing import Final, NamedTuple

import asyncpg

from plangate.store.columns import json_text, to_microseconds
from plangate.store.database import StoreSession
from plangate.store.direct import Filled, Rows, SqliteConnection, driver_of, execute_composed, for_sqlite, translated
from plangate.store.inbox import InboxRow, claiming_event, storing_event
from plangate.store.leases import COMPANY, freeing_lease, taking_lease
from plangate.store.present import OPEN_CHANGE

# Whose customer it is; and whether it is the only one of a company of which no plan change is open.
_OWNER: Final = f"""
    SELECT company_id,
        NOT EXISTS (
            SELECT 1 FROM company_keys AS others
            WHERE others.environment_id = $1 AND others.company_id = company_keys.company_id AND others.name = $2
                AND others.value <> $3
        ) AND NOT EXISTS (
            SELECT 1 FROM plan_changes
            WHERE environment_id = $1 AND plan_changes.company_id = company_keys.company_id AND {OPEN_CHANGE}
        ) AS is_plain
    FROM company_keys WHERE environment_id = $1 AND name = $2 AND value = $3
"""  # noqa: S608 - our own words
_OWNER_ON_SQLITE: Final = _OWNER.replace("$", "?")
# The lease is taken before the event is stored, so that the event is stored as claimed or not. Whoever stored the event
# meanwhile has it: then nothing is stored, and the lease is given back. Who may take a lease is as in `leases`.
_ARRIVE: Final = f"""
    WITH owner AS (
        {_OWNER} AND NOT EXISTS (SELECT FROM inbox WHERE environment_id = $1 AND stripe_event_id = $4)
    ), taken AS (
        INSERT INTO leases (environment_id, subject, holder, expires_at, fence)
        SELECT $1, 'company:' || company_id, $5, $6, 1 FROM owner
        ON CONFLICT (environment_id, subject) DO UPDATE
        SET holder = excluded.holder, expires_at = excluded.expires_at, fence = leases.fence + 1
        WHERE leases.holder IS NULL OR leases.expires_at <= $7 OR leases.expires_at > $8
        RETURNING fence
    ), stored AS (
        INSERT INTO inbox (environment_id, stripe_event_id, type, stripe_object_id, stripe_customer_id, payload, state,
            attempts, available_at, received_at)
        SELECT $1, $4, $9, $10, $11, $12, $13, count(*), CASE WHEN count(*) > 0 THEN $14::bigint ELSE $15::bigint END,
            $15
        FROM taken
        ON CONFLICT DO NOTHING
        RETURNING stripe_event_id
    )
    SELECT (SELECT company_id FROM owner), (SELECT is_plain FROM owner), (SELECT fence FROM taken),
        EXISTS (SELECT FROM stored)
"""  # noqa: S608 - same


class Arrived(NamedTuple):
    """What came of a webhook: whether it is new; and if it was claimed its company, and the lease's fence.

    `is_plain` says that the event's is the only customer of the company, of which no plan change is open.
    """

    is_new: bool
    company_id: str | None = None
    fence: int | None = None
    is_plain: bool = False


class Claiming(NamedTuple):
    """Who claims an event: the key of its company, the lease's holder and seconds, and until when it is claimed."""

    key: tuple[str, str]
    holder: str
    seconds: int
    wall_now: datetime
    until: datetime


async def store_and_claim(session: StoreSession, row: InboxRow, claiming: Claiming) -> Arrived:
    """Store an event that is due, unless it is known; claimed when its company is known and nobody holds its lease.

    The session has no transaction: this is one of its own. Raises the errors of SQLAlchemy.
    """
    driver = await driver_of(session)
    try:
        with translated():
            if isinstance(driver, SqliteConnection):
                return await driver.in_one_go(lambda raw: _on_sqlite(session, raw, row, claiming))
            if isinstance(driver, asyncpg.Connection):
                return await _on_postgresql(session, driver, row, claiming)
    except BaseException:
        if session.is_postgresql:
            # Whatever state it is in, nobody else shall find it so. SQLite's thread ends what it began by itself.
            await session.connection.invalidate()
        raise
    raise TypeError("neither SQLite nor PostgreSQL")


def _on_sqlite(session: StoreSession, connection: sqlite3.Connection, row: InboxRow, claiming: Claiming) -> Arrived:
    def run(filled: Filled) -> Rows:
        return connection.execute(*for_sqlite(filled)).fetchall()

    if not run(storing_event(row)):
        return Arrived(is_new=False)
    owner = connection.execute(_OWNER_ON_SQLITE, (session.environment_id, *claiming.key)).fetchone()
    if owner is None:
        return Arrived(is_new=True)
    company_id, is_plain = owner
    fence = run(
        taking_lease(
            session, COMPANY + company_id, claiming.holder, wall_now=claiming.wall_now, seconds=claiming.seconds
        )
    )
    if not fence:
        return Arrived(is_new=True)
    run(claiming_event(row, attempts=1, available_at=claiming.until))
    return Arrived(True, company_id, fence[0][0], bool(is_plain))


async def _on_postgresql(
    session: StoreSession, driver: "asyncpg.Connection[asyncpg.Record]", row: InboxRow, claiming: Claiming
) -> Arrived:
    lease = taking_lease(session, "", claiming.holder, wall_now=claiming.wall_now, seconds=claiming.seconds)
    _, _, *lease_values = lease.values
    found = await driver.fetch(
        _ARRIVE,
        session.environment_id,
        *claiming.key,
        row.stripe_event_id,
        *lease_values,
        row.type,
        row.stripe_object_id,
        row.stripe_customer_id,
        json_text(row.payload),
        row.state,
        to_microseconds(claiming.until),
        to_microseconds(row.received_at),
    )
    company_id, is_plain, fence, is_new = found[0]
    if fence is not None and not is_new:
        await execute_composed(driver, [freeing_lease(session, COMPANY + company_id, fence)])
    if fence is None or not is_new:
        return Arrived(is_new=is_new)
    return Arrived(True, company_id, fence, is_plain)
