"""What is known of many Stripe customers at once: whose they are, and the states of their subscriptions."""

from collections.abc import Collection, Mapping
from typing import Final, NamedTuple

from sqlalchemy import select, union

from plangate.store.companies import STRIPE_CUSTOMER_KEY, company_keys
from plangate.store.database import StoreSession
from plangate.store.direct import Direct, together
from plangate.store.subscriptions import subscriptions

_KNOWN: Final = Direct(
    sqlite="""
        SELECT own.value, own.company_id, (
                SELECT count(*) FROM company_keys AS other
                WHERE other.environment_id = own.environment_id AND other.company_id = own.company_id
                    AND other.name = own.name
            ), stripe_subscription_id, state_hash
        FROM company_keys AS own LEFT JOIN subscriptions ON subscriptions.environment_id = own.environment_id
            AND subscriptions.company_id = own.company_id AND superseded_at IS NULL
        WHERE own.environment_id = ? AND own.name = ? AND own.value IN (SELECT value FROM json_each(?))
    """,
    postgresql="""
        SELECT own.value, own.company_id, (
                SELECT count(*) FROM company_keys AS other
                WHERE other.environment_id = own.environment_id AND other.company_id = own.company_id
                    AND other.name = own.name
            ), stripe_subscription_id, state_hash
        FROM company_keys AS own LEFT JOIN subscriptions ON subscriptions.environment_id = own.environment_id
            AND subscriptions.company_id = own.company_id AND superseded_at IS NULL
        WHERE own.environment_id = $1 AND own.name = $2 AND own.value = ANY($3::text[])
    """,
)


class KnownCustomer(NamedTuple):
    """The company of a Stripe customer, whether it has no other, and the company's state hashes by subscription."""

    company_id: str
    is_sole: bool
    states: dict[str, str]


async def known_customers(session: StoreSession, stripe_customer_ids: Collection[str]) -> Mapping[str, KnownCustomer]:
    """Those of these customers that belong to a company, by their ids."""
    asking = _KNOWN.of(session.environment_id, STRIPE_CUSTOMER_KEY, list(stripe_customer_ids))
    (rows,) = await together(session, asking)
    found: dict[str, KnownCustomer] = {}
    for stripe_customer_id, company_id, customers, stripe_subscription_id, state_hash in rows:
        known = found.setdefault(stripe_customer_id, KnownCustomer(company_id, customers == 1, {}))
        if stripe_subscription_id is not None:
            known.states[stripe_subscription_id] = state_hash
    return found


async def companies_at_stripe(session: StoreSession, *, after: str, limit: int) -> list[str]:
    """Up to `limit` ids, those beyond `after`, of companies with a Stripe customer or a subscription, ended or not."""
    keys = (
        select(company_keys.c.company_id)
        .where(
            company_keys.c.environment_id == session.environment_id,
            company_keys.c.name == STRIPE_CUSTOMER_KEY,
            company_keys.c.company_id > after,
        )
        .order_by(company_keys.c.company_id)
        .limit(limit)
        .subquery()
    )
    held = (
        select(subscriptions.c.company_id)
        .where(
            subscriptions.c.environment_id == session.environment_id,
            subscriptions.c.superseded_at.is_(None),
            subscriptions.c.company_id > after,
        )
        .order_by(subscriptions.c.company_id)
        .limit(limit)
        .subquery()
    )
    either = union(select(keys.c.company_id), select(held.c.company_id)).subquery()
    rows = await session.all(select(either.c.company_id).order_by(either.c.company_id).limit(limit))
    return [row["company_id"] for row in rows]
