"""Companies made of Stripe customers: all rows of many of them at once, because imports make thousands."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from plangate.engine.facts import PlanRef, PlanSource, SubscriptionFact
from plangate.ids import new_id
from plangate.store.columns import to_microseconds
from plangate.store.companies import STRIPE_CUSTOMER_KEY
from plangate.store.database import StoreSession
from plangate.store.direct import Direct, together
from plangate.store.subscriptions import saving_states

_COMPANIES: Final = Direct(
    sqlite="""
        INSERT INTO companies (environment_id, created_at, updated_at, id, name, version, windows_opened)
        SELECT ?1, ?2, ?2, json_extract(value, '$[0]'), json_extract(value, '$[1]'), 1, 0 FROM json_each(?3)
    """,
    postgresql="""
        INSERT INTO companies (environment_id, created_at, updated_at, id, name, version, windows_opened)
        SELECT $1, $2, $2, id, name, 1, 0 FROM unnest($3::text[], $4::text[]) AS made (id, name)
    """,
    writes="companies",
)
_KEYS: Final = Direct(
    sqlite="""
        INSERT INTO company_keys (environment_id, name, created_at, value, company_id)
        SELECT ?1, ?2, ?3, json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?4)
    """,
    postgresql="""
        INSERT INTO company_keys (environment_id, name, created_at, value, company_id)
        SELECT $1, $2, $3, * FROM unnest($4::text[], $5::text[])
    """,
    writes="company_keys",
)
_PLANS: Final = Direct(
    sqlite="""
        INSERT INTO assignments (environment_id, key, source, held_from, recorded_at, kind, quantity, id, company_id)
        SELECT ?1, ?2, ?3, ?4, ?4, 'plan', 1, json_extract(value, '$[0]'), json_extract(value, '$[1]')
        FROM json_each(?5)
    """,
    postgresql="""
        INSERT INTO assignments (environment_id, key, source, held_from, recorded_at, kind, quantity, id, company_id)
        SELECT $1, $2, $3, $4, $4, 'plan', 1, * FROM unnest($5::text[], $6::text[])
    """,
    writes="assignments",
)


class Newcomer(NamedTuple):
    """A company to be made of a Stripe customer, its subscriptions with their state hashes, and the plan they mean."""

    company_id: str
    name: str | None
    stripe_customer_id: str
    subscriptions: Sequence[tuple[SubscriptionFact, str]]
    mapped_plan: PlanRef | None


async def insert_newcomers(session: StoreSession, newcomers: Sequence[Newcomer], *, initial_plan: str | None) -> None:
    """Insert these companies with their keys, subscriptions and, where there is one, the initial plan.

    Raises the database's IntegrityError when a customer belongs to a company by now; then none is made.
    """
    now = to_microseconds(session.now)
    session.defer(
        _COMPANIES.for_all([(one.company_id, one.name) for one in newcomers], session.environment_id, now),
        _KEYS.for_all(
            [(one.stripe_customer_id, one.company_id) for one in newcomers],
            session.environment_id,
            STRIPE_CUSTOMER_KEY,
            now,
        ),
        saving_states(
            session,
            [
                (one.company_id, fact, state_hash, one.mapped_plan)
                for one in newcomers
                for fact, state_hash in one.subscriptions
            ],
        ),
    )
    if initial_plan is not None:
        assigned = [(new_id("asg"), one.company_id) for one in newcomers]
        session.defer(
            _PLANS.for_all(assigned, session.environment_id, initial_plan, PlanSource.INITIAL.value, now),
        )
    await together(session)
