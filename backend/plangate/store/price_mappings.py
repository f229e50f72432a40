"""What Stripe prices stood for before somebody mapped them otherwise, and who holds them."""

from collections.abc import Collection
from datetime import datetime
from typing import Any

from sqlalchemy import or_, select
from sqlmodel import Field, Index, SQLModel

from plangate.ids import new_id
from plangate.store.catalog import StripePriceRow, all_stripe_prices, save_stripe_price
from plangate.store.columns import Instant, JsonText, from_microseconds, mentions, to_microseconds
from plangate.store.database import StoreSession, table_of
from plangate.store.subscriptions import ENDED, subscriptions


class FormerPriceRow(SQLModel, table=True):
    """A Stripe price as it was mapped until `superseded_at`; the past is asked about with it."""

    __tablename__ = "former_stripe_prices"
    __table_args__ = (Index("former_stripe_prices_by_time", "environment_id", "superseded_at"),)

    id: str = Field(primary_key=True)
    environment_id: str
    stripe_price_id: str
    document: Any = Field(sa_type=JsonText)
    superseded_at: datetime = Field(sa_type=Instant)


former_stripe_prices = table_of(FormerPriceRow)


async def map_price(session: StoreSession, row: StripePriceRow, *, before: StripePriceRow | None) -> None:
    """Let a price stand for what `row` says from now on; `before` is what it stood for."""
    if before is not None:
        await session.add(
            FormerPriceRow(
                id=new_id("fpr"),
                environment_id=session.environment_id,
                stripe_price_id=row.stripe_price_id,
                document={**before.model_dump(), "recorded_at": to_microseconds(before.recorded_at)},
                superseded_at=session.now,
            )
        )
    await save_stripe_price(session, row)


async def prices_as_known(session: StoreSession, at: datetime) -> list[StripePriceRow]:
    """Every price that stood for something at `at`, as what it did then."""
    rows = {row.stripe_price_id: row for row in await all_stripe_prices(session) if row.recorded_at <= at}
    former = await session.all(
        select(former_stripe_prices)
        .where(
            former_stripe_prices.c.environment_id == session.environment_id,
            former_stripe_prices.c.superseded_at > at,
        )
        .order_by(former_stripe_prices.c.superseded_at.desc(), former_stripe_prices.c.id.desc())
    )
    for row in former:
        # The one that ended first after that instant is looked at last, and stays.
        if row["stripe_price_id"] in rows:
            document = row["document"]
            recorded_at = from_microseconds(document["recorded_at"])
            rows[row["stripe_price_id"]] = StripePriceRow(**{**document, "recorded_at": recorded_at})
    return list(rows.values())


async def companies_holding(session: StoreSession, stripe_price_ids: Collection[str]) -> list[str]:
    """Companies, by id, with a subscription that has not ended and holds any of the prices, now or in a later phase."""
    if not stripe_price_ids:
        return []
    held = subscriptions.c
    rows = await session.all(
        select(held.company_id)
        .where(
            held.environment_id == session.environment_id,
            held.superseded_at.is_(None),
            held.status.not_in(ENDED),
            or_(*(mentions(held.document, one) for one in stripe_price_ids)),
        )
        .distinct()
        .order_by(held.company_id)
    )
    return [row["company_id"] for row in rows]
