"""Moves what one company has to another, so that the past stays answerable: what was known of the former one stays.

Nothing that decided is rewritten: keys, overrides and subscriptions end for the former company and begin for the
other; usage is booked from one to the other, as two ledger rows for each that was there.
"""

from collections.abc import Collection, Sequence
from datetime import datetime

import msgspec
from sqlalchemy import func, insert, literal, or_, select, union_all, update

from plangate.engine.facts import AssignmentFact, PlanRef, VersionPin, WindowCounter
from plangate.ids import new_id
from plangate.store.catalog import stripe_prices
from plangate.store.columns import Instant
from plangate.store.companies import (
    AssignmentRow,
    FormerKeyRow,
    assignments,
    companies,
    company_keys,
    user_companies,
)
from plangate.store.database import StoreSession
from plangate.store.meter_outbox import meter_outbox
from plangate.store.overage import overage_reports
from plangate.store.overrides import OverrideRow, current_overrides, replace_override
from plangate.store.plan_changes import plan_changes
from plangate.store.reservations import reservations
from plangate.store.subscriptions import SubscriptionRow, subscriptions
from plangate.store.usage import usage_events, usage_windows, window_of
from plangate.store.users import join_company
from plangate.store.version_migrations import pin_version, pins_of


async def move_keys(session: StoreSession, former_id: str, company_id: str) -> list[tuple[str, str]]:
    """Give the company every key of the former one, Stripe customer ids among them; answers them."""
    own = (company_keys.c.environment_id == session.environment_id, company_keys.c.company_id == former_id)
    rows = await session.all(select(company_keys).where(*own).order_by(company_keys.c.name, company_keys.c.value))
    await session.add_all(
        [
            FormerKeyRow(
                environment_id=session.environment_id,
                name=row["name"],
                value=row["value"],
                company_id=former_id,
                held_from=row["created_at"],
                held_until=session.now,
            )
            for row in rows
        ]
    )
    await session.run(update(company_keys).where(*own).values(company_id=company_id, created_at=session.now))
    return [(row["name"], row["value"]) for row in rows]


async def move_members(session: StoreSession, former_id: str, company_id: str) -> list[str]:
    """Make the former company's users belong to the company; answers their ids."""
    rows = await session.all(
        select(user_companies.c.user_id)
        .where(user_companies.c.environment_id == session.environment_id, user_companies.c.company_id == former_id)
        .order_by(user_companies.c.user_id)
    )
    for row in rows:
        await join_company(session, row["user_id"], company_id)
    return [row["user_id"] for row in rows]


async def move_assignments(
    session: StoreSession, former_id: str, company_id: str, moved: Sequence[AssignmentFact]
) -> None:
    """End the former company's assignments; the company holds `moved` from now on, as long as they were held."""
    await session.run(
        update(assignments)
        .where(
            assignments.c.environment_id == session.environment_id,
            assignments.c.company_id == former_id,
            assignments.c.superseded_at.is_(None),
        )
        .values(superseded_at=session.now, held_until=session.now)
    )
    for fact in moved:
        ended = update(assignments).where(
            assignments.c.environment_id == session.environment_id,
            assignments.c.company_id == company_id,
            assignments.c.kind == fact.kind,
            assignments.c.superseded_at.is_(None),
        )
        if fact.kind == "add_on":
            ended = ended.where(assignments.c.key == fact.key)
        await session.run(ended.values(superseded_at=session.now, held_until=session.now))
        await session.add(
            AssignmentRow(
                id=new_id("asg"),
                environment_id=session.environment_id,
                company_id=company_id,
                kind=fact.kind,
                key=fact.key,
                quantity=fact.quantity,
                source=fact.source.value,
                held_from=fact.held_from,
                recorded_at=session.now,
            )
        )


async def move_overrides(session: StoreSession, former_id: str, company_id: str) -> list[OverrideRow]:
    """Make every override of the former company one of the company, ended ones too; answers their new states."""
    moved = [
        row.model_copy(
            update={
                "id": new_id("ovs"),
                "revision": row.revision + 1,
                "company_id": company_id,
                "recorded_at": session.now,
            }
        )
        for row in await current_overrides(session, former_id)
    ]
    for row in moved:
        await replace_override(session, row)
    return moved


async def move_subscriptions(
    session: StoreSession, former_id: str, company_id: str, *, mapped_plan: PlanRef | None
) -> int:
    """Make the former company's subscriptions the company's from now on; answers how many there are."""
    current = (
        subscriptions.c.environment_id == session.environment_id,
        subscriptions.c.company_id == former_id,
        subscriptions.c.superseded_at.is_(None),
    )
    rows = await session.all(select(subscriptions).where(*current).order_by(subscriptions.c.stripe_subscription_id))
    await session.run(update(subscriptions).where(*current).values(superseded_at=session.now))
    await session.add_all(
        [
            SubscriptionRow(
                **{
                    **row,
                    "id": new_id("subv"),
                    "company_id": company_id,
                    "mapped_plan": msgspec.to_builtins(mapped_plan),
                    "recorded_at": session.now,
                }
            )
            for row in rows
        ]
    )
    return len(rows)


async def note_mapped_plan(session: StoreSession, company_id: str, mapped_plan: PlanRef) -> None:
    """Note on the subscriptions moved in this transaction which plan the company's mean together."""
    await session.run(
        update(subscriptions)
        .where(
            subscriptions.c.environment_id == session.environment_id,
            subscriptions.c.company_id == company_id,
            subscriptions.c.recorded_at == session.now,
            subscriptions.c.superseded_at.is_(None),
        )
        .values(mapped_plan=msgspec.to_builtins(mapped_plan))
    )


async def move_records(session: StoreSession, former_id: str, company_id: str) -> int:
    """Make plan changes, reservations and usage still to be reported the company's; answers how many changes."""
    await session.run(
        update(reservations)
        .where(reservations.c.environment_id == session.environment_id, reservations.c.company_id == former_id)
        .values(company_id=company_id, moved_from=former_id, moved_at=session.now)
    )
    await session.run(
        update(meter_outbox)
        .where(meter_outbox.c.environment_id == session.environment_id, meter_outbox.c.company_id == former_id)
        .values(company_id=company_id)
    )
    await session.run(
        update(overage_reports)
        .where(overage_reports.c.environment_id == session.environment_id, overage_reports.c.company_id == former_id)
        .values(company_id=company_id)
    )
    moved = await session.run(
        update(plan_changes)
        .where(plan_changes.c.environment_id == session.environment_id, plan_changes.c.company_id == former_id)
        .values(company_id=company_id)
    )
    return moved.rowcount


async def move_prices(session: StoreSession, former_id: str, company_id: str) -> int:
    """Hand over the prices agreed on with the former company; answers how many."""
    moved = update(stripe_prices).where(
        stripe_prices.c.environment_id == session.environment_id, stripe_prices.c.company_id == former_id
    )
    return (await session.run(moved.values(company_id=company_id))).rowcount


async def move_pins(session: StoreSession, company_id: str, pins: Sequence[VersionPin]) -> None:
    """Let the company hold no older versions than these pins of the former company say."""
    own = {(pin.kind, pin.key): pin.version for pin in await pins_of(session, company_id)}
    for pin in pins:
        if pin.version > own.get((pin.kind, pin.key), 0):
            await pin_version(session, company_id, pin, migration_id="")


async def used_events(session: StoreSession, company_id: str) -> dict[str, datetime]:
    """The events in the company's ledger, each with the instant it first occurred."""
    rows = await session.all(
        select(usage_events.c.event, func.min(usage_events.c.occurred_at, type_=Instant).label("first_at"))
        .where(usage_events.c.environment_id == session.environment_id, usage_events.c.company_id == company_id)
        .group_by(usage_events.c.event)
    )
    return {row["event"]: row["first_at"] for row in rows}


async def book_usage(session: StoreSession, former_id: str, company_id: str) -> int:
    """Book all usage of the former company to the company, at the instants it occurred; answers how many rows.

    For each row the company gets one, and the former company one that takes it back: the ledger is only appended to,
    its total stays the same, and what was known before is answered as before.
    """
    own = (usage_events.c.environment_id == session.environment_id, usage_events.c.company_id == former_id)
    now = literal(session.now, Instant)
    # A row's id is booked from one company once, so these ids are new.
    booked = {"id": usage_events.c.id + "+", "company_id": literal(company_id), "recorded_at": now}
    taken = {"id": usage_events.c.id + "-", "quantity": -usage_events.c.quantity, "recorded_at": now}
    names = [column.name for column in usage_events.c]
    halves = [
        select(*(changed.get(name, usage_events.c[name]).label(name) for name in names)).where(*own)
        for changed in (booked, taken)
    ]
    # Both halves are read before anything is written, or the second would see what the first wrote.
    result = await session.run(insert(usage_events).from_select(names, union_all(*halves)))
    await session.run(
        update(usage_windows)
        .where(usage_windows.c.environment_id == session.environment_id, usage_windows.c.company_id == former_id)
        .values(used=0, reserved=0)
    )
    return result.rowcount // 2


async def mark_merged(session: StoreSession, former_id: str, company_id: str) -> None:
    """Note that the former company, and what was merged into it before, is the company from now on."""
    of_environment = companies.c.environment_id == session.environment_id
    await session.run(
        update(companies).where(of_environment, companies.c.merged_into == former_id).values(merged_into=company_id)
    )
    await session.run(
        update(companies)
        .where(of_environment, companies.c.id == former_id)
        .values(merged_into=company_id, merged_at=session.now, updated_at=session.now)
    )


async def merged_companies(session: StoreSession, company_id: str) -> Collection[str]:
    """The ids of every company that became this one."""
    rows = await session.all(
        select(companies.c.id).where(
            companies.c.environment_id == session.environment_id, companies.c.merged_into == company_id
        )
    )
    return [row["id"] for row in rows]


async def windows_since(
    session: StoreSession, company_id: str, features: Collection[str], since: datetime
) -> list[tuple[str, str, WindowCounter]]:
    """The company's stored windows of these features that end after `since`, with their feature and user id."""
    rows = await session.all(
        select(usage_windows).where(
            usage_windows.c.environment_id == session.environment_id,
            usage_windows.c.company_id == company_id,
            usage_windows.c.feature.in_(features),
            or_(usage_windows.c.end_at.is_(None), usage_windows.c.end_at > since),
        )
    )
    return [
        (
            row["feature"],
            row["user_id"],
            window_of(row),
        )
        for row in rows
    ]
