"""A company as people see it: what it holds, its subscription, and what waits for its date, whoever scheduled it."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from plangate import companies
from plangate.engine.facts import PlanSource, ScheduledPhase
from plangate.environment import Environment
from plangate.shapes import Actor, ChangeState, ChangeTarget, Company
from plangate.store.plan_changes import PlanChangeRow, insert_change
from plangate.store.subscriptions import save_subscriptions
from tests.world import DOCUMENT, make_company, monthly_item, price_of, publish, subscription_of

START = datetime(2026, 11, 1, tzinfo=UTC)
END = datetime.now(UTC).replace(microsecond=0) + timedelta(days=12)


def _priced() -> dict[str, Any]:
    plans = DOCUMENT["plans"]

    def monthly(amount_minor: int) -> list[dict[str, object]]:
        return [{"currency": "usd", "interval": "month", "amount_minor": amount_minor}]

    return {
        **DOCUMENT,
        "plans": {
            **plans,
            "starter": {**plans["free"], "name": "Starter", "prices": monthly(1_900)},
            "pro": {**plans["pro"], "prices": monthly(4_900)},
        },
        "add_ons": {
            "more-exports": {
                "name": "More exports",
                "entitlements": {"exports": {"limit": 500, "period": "billing_month", "stacking": "sum"}},
                "prices": monthly(500),
            }
        },
    }


async def _subscribe(environment: Environment, company: Company, **changes: Any) -> Company:  # noqa: ANN401 - fields
    items = (
        monthly_item(await price_of(environment, "more-exports"), START, END, quantity=2, stripe_item_id="si_2"),
        monthly_item(await price_of(environment, "pro"), START, END),
    )
    fact = subscription_of(*items, anchor_at=START)
    fact = msgspec.structs.replace(fact, **changes)
    async with environment.writing() as session:
        await save_subscriptions(session, company.id, [(fact, repr(changes))], mapped_plan=None)
        await environment.touch(session, company.id)
    return await companies.get(environment, company.id)


async def test_a_subscriber_shows_plan_add_ons_and_period(connected_environment: Environment) -> None:
    environment = connected_environment
    await publish(environment, _priced())
    company = await _subscribe(environment, await make_company(environment))
    assert company.plan is not None
    assert (company.plan.key, company.plan.version, company.plan.source) == ("pro", 1, PlanSource.SUBSCRIPTION)
    assert [(one.key, one.quantity) for one in company.add_ons] == [("more-exports", 2)]
    subscription = company.subscription
    assert subscription is not None
    assert (subscription.status, subscription.interval, subscription.currency) == ("active", "month", "usd")
    assert (subscription.period.start, subscription.period.end, subscription.cancel_at) == (START, END, None)
    assert company.scheduled_change is None


async def test_a_schedule_made_in_stripe_is_shown_without_an_id(connected_environment: Environment) -> None:
    environment = connected_environment
    await publish(environment, _priced())
    prices = ((await price_of(environment, "starter"), 1), (await price_of(environment, "more-exports"), 3))
    phase = ScheduledPhase(starts_at=END, ends_at=None, prices=prices)
    company = await _subscribe(environment, await make_company(environment), phases=(phase,))
    change = company.scheduled_change
    assert change is not None
    assert (change.id, change.kind, change.plan, change.effective_at) == (None, "downgrade", "starter", END)
    assert (change.interval, change.add_ons) == ("month", {"more-exports": 3})


async def test_a_scheduled_end_leads_to_the_fallback_plan(connected_environment: Environment) -> None:
    environment = connected_environment
    await publish(environment, _priced())
    company = await _subscribe(environment, await make_company(environment), scheduled_end_at=END)
    assert company.subscription is not None
    assert company.subscription.cancel_at == END
    change = company.scheduled_change
    assert change is not None
    assert (change.id, change.kind, change.plan, change.effective_at) == (None, "cancel", "free", END)


async def test_our_own_scheduled_change_carries_its_id(connected_environment: Environment) -> None:
    environment = connected_environment
    await publish(environment, _priced())
    company = await _subscribe(environment, await make_company(environment))
    async with environment.writing() as session:
        await insert_change(
            session,
            PlanChangeRow(
                id="chg_1",
                environment_id=environment.id,
                company_id=company.id,
                quote_id="q1",
                state=ChangeState.SCHEDULED.value,
                kind="downgrade",
                is_scheduled=True,
                held={},
                target=msgspec.to_builtins(ChangeTarget(plan="starter", interval="month", interval_count=3)),
                terms={},
                effective_at=END,
                requested_by=msgspec.to_builtins(Actor(kind="api_key", id="key_1")),
                available_at=session.now,
                created_at=session.now,
                updated_at=session.now,
            ),
        )
    change = (await companies.get(environment, company.id)).scheduled_change
    assert change is not None
    assert (change.id, change.kind, change.plan, change.effective_at) == ("chg_1", "downgrade", "starter", END)
    assert (change.interval, change.interval_count) == ("month", 3)
    (listed,), _ = await companies.search(environment)
    assert listed.scheduled_change == change


async def test_an_unpaid_subscription_is_shown_though_it_grants_nothing(connected_environment: Environment) -> None:
    environment = connected_environment
    await publish(environment, _priced())
    company = await _subscribe(environment, await make_company(environment), status="unpaid")
    assert company.plan is not None
    assert (company.plan.key, company.plan.source) == ("free", PlanSource.FALLBACK)
    assert company.subscription is not None
    assert (company.subscription.status, company.subscription.period.end) == ("unpaid", END)
    company = await _subscribe(environment, company, status="canceled", ended_at=START)
    assert company.subscription is None


async def test_what_is_paid_by_the_quarter_says_so(connected_environment: Environment) -> None:
    """Of the subscription, though it grants nothing now, and of what Stripe has scheduled after it."""
    environment = connected_environment
    document = _priced()
    for name, amount in (("starter", 5_000), ("pro", 12_000)):
        document["plans"][name]["prices"][0] |= {"interval_count": 3, "amount_minor": amount}
    await publish(environment, document)
    item = monthly_item(await price_of(environment, "pro"), START, END)
    phase = ScheduledPhase(starts_at=END, ends_at=None, prices=((await price_of(environment, "starter"), 1),))
    fact = subscription_of(msgspec.structs.replace(item, interval_count=3), anchor_at=START)
    company = await make_company(environment)
    for status, kind in (("active", "downgrade"), ("unpaid", "subscribe")):
        held = msgspec.structs.replace(fact, status=status, phases=(phase,))
        async with environment.writing() as session:
            await save_subscriptions(session, company.id, [(held, status)], mapped_plan=None)
            await environment.touch(session, company.id)
        shown = await companies.get(environment, company.id)
        assert shown.subscription is not None
        assert (shown.subscription.interval, shown.subscription.interval_count) == ("month", 3)
        change = shown.scheduled_change
        assert change is not None
        assert (change.kind, change.plan, change.interval, change.interval_count) == (kind, "starter", "month", 3)
