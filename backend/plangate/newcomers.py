"""Makes companies of Stripe customers that nobody knew: of one, or of a whole page of an import in one transaction."""

from collections.abc import Iterable, Sequence

from plangate.billing.gateway import CustomerState
from plangate.billing.mirror import mirrored, state_hash, with_holding_times
from plangate.billing.transport import StripeJson
from plangate.engine.catalog import Catalog
from plangate.engine.entitlements import build_snapshot
from plangate.engine.facts import AssignmentFact, CompanyFacts, PlanSource
from plangate.ids import new_id
from plangate.recording import plan_meant, subscription_entries
from plangate.settling import STRIPE
from plangate.store.audit import AuditRow, append_entries, audit_entry
from plangate.store.companies import STRIPE_CUSTOMER_KEY
from plangate.store.database import StoreSession
from plangate.store.ledger import lock_pairs
from plangate.store.newcomers import Newcomer, insert_newcomers
from plangate.store.usage import awaited_keys
from plangate.usage_windows import attribute_waiting


def is_subscriber(catalog: Catalog, subscriptions: Iterable[StripeJson]) -> bool:
    """Whether any of these subscriptions, of whatever status, has a price that we sell."""
    return any(
        item["price"]["id"] in catalog.price_owners
        for subscription in subscriptions
        for item in subscription["items"]["data"]
    )


async def make_companies(session: StoreSession, catalog: Catalog, states: Sequence[CustomerState]) -> dict[str, str]:
    """A company of each of these customers, none of which belongs to one; answers their ids by those of the customers.

    All that Stripe told is stored with them: nobody else can know of a company made here, so that needs no lease. Usage
    that waited for the customers is counted. Raises the database's IntegrityError when one belongs to a company by now.
    """
    newcomers: list[Newcomer] = []
    entries: list[AuditRow] = []
    for state in states:
        newcomer = _newcomer(session, catalog, state)
        newcomers.append(newcomer)
        entries += subscription_entries(session, newcomer.company_id, (), [fact for fact, _ in newcomer.subscriptions])
        entries.append(
            audit_entry(
                session,
                actor=STRIPE,
                action="company.linked",
                subject=newcomer.company_id,
                company_id=newcomer.company_id,
                after={STRIPE_CUSTOMER_KEY: state.stripe_customer_id},
            )
        )
    made = {one.stripe_customer_id: one.company_id for one in newcomers}
    pairs = [(STRIPE_CUSTOMER_KEY, stripe_customer_id) for stripe_customer_id in made]
    await lock_pairs(session, pairs)
    await insert_newcomers(session, newcomers, initial_plan=catalog.initial_plan)
    session.changed.update(made.values())
    for pair in await awaited_keys(session, pairs):
        await attribute_waiting(session, catalog, made[pair[1]], [pair])
    await append_entries(session, entries)
    return made


def _newcomer(session: StoreSession, catalog: Catalog, state: CustomerState) -> Newcomer:
    company_id, found = new_id("comp"), with_holding_times(mirrored(state), (), at=session.now)
    initial = catalog.initial_plan
    facts = CompanyFacts(
        company_id=company_id,
        version=1,
        created_at=session.now,
        keys=frozenset({f"{STRIPE_CUSTOMER_KEY}={state.stripe_customer_id}"}),
        assignments=()
        if initial is None
        else (AssignmentFact(kind="plan", key=initial, source=PlanSource.INITIAL, held_from=session.now),),
        subscriptions=found,
    )
    return Newcomer(
        company_id=company_id,
        name=state.customer.get("name"),
        stripe_customer_id=state.stripe_customer_id,
        subscriptions=[(fact, state_hash([fact])) for fact in found],
        mapped_plan=plan_meant(build_snapshot(catalog, facts, session.now)),
    )
