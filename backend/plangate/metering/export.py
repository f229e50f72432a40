"""The ledger as it stands, event by event, for spreadsheets and warehouses: read a page at a time, never held whole."""

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Final

import msgspec

from plangate.counted_events import event_of
from plangate.engine.values import FeatureType
from plangate.environment import Environment
from plangate.errors import Code, Refusal, invalid
from plangate.store.companies import company_row
from plangate.store.ledger import page_of_ledger

_PAGE: Final = 1_000


class UsageRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One fact of the ledger. Corrections are negative; `recorded_at` is when we learnt of it."""

    id: str
    company: str
    user: str | None
    event: str
    quantity: int
    occurred_at: datetime
    recorded_at: datetime


async def export(
    env: Environment,
    *,
    company_id: str | None = None,
    feature: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> AsyncIterator[Sequence[UsageRecord]]:
    """Pages of what occurred in `[since, until)`, of all companies or one, in the order it was recorded.

    What is recorded while the export runs may be left out. Raises Refusal before the first page: 404 for an unknown
    company, 422 for a feature that is not metered.
    """
    event = None
    if feature is not None:
        known = (await env.catalog()).features.get(feature)
        if known is None or known.type is not FeatureType.EVENT:
            raise invalid("/feature", "That is not a metered feature.")
        event = event_of(known)
    if company_id is not None:
        async with env.reading() as session:
            if await company_row(session, company_id) is None:
                raise Refusal(Code.NOT_FOUND, "There is no such company.")
    after = ""
    while True:
        # A transaction for each page: a slow reader must not keep one open.
        async with env.reading() as session:
            rows = await page_of_ledger(
                session, company_id=company_id, event=event, since=since, until=until, after=after, limit=_PAGE
            )
        yield [
            UsageRecord(
                id=row.id,
                company=row.company_id,
                user=row.user_id or None,
                event=row.event,
                quantity=row.quantity,
                occurred_at=row.occurred_at,
                recorded_at=row.recorded_at,
            )
            for row in rows
        ]
        if len(rows) < _PAGE:
            return
        after = rows[-1].id
