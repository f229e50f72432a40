"""The import of a whole account: few calls, several customers at once, on from where it was stopped, and honest."""

import asyncio
import time
from typing import Any

import pytest
from sqlalchemy import select

from plangate import drift, importing, sync
from plangate.access import check
from plangate.billing import pacing
from plangate.billing.gateway import StripeGateway
from plangate.errors import Refusal
from plangate.importing import ImportReport, import_account
from plangate.metering import TrackEvent, record
from plangate.mirroring import refetch, refetch_customer
from plangate.store.audit import first_broken
from plangate.store.companies import STRIPE_CUSTOMER_KEY, company_keys, page_of_companies
from plangate.store.database import StoreSession
from plangate.store.inbox import cursor
from plangate.store.known import known_customers
from plangate.store.subscriptions import subscriptions_of
from tests.shop import Shop, new_company
from tests.sync.crowds import grow, subscribe_again


async def priced(shop: Shop, plan: str = "pro") -> str:
    return (await shop.env.catalog()).plans[plan].prices[0].stripe_price_id or ""


def calls(shop: Shop) -> list[str]:
    return [one["path"] for one in shop.requests("GET")]


async def test_a_whole_account_takes_few_calls_and_agrees_with_stripe(shop: Shop) -> None:
    grow(shop, 120, price=await priced(shop))
    before = len(calls(shop))
    report = await import_account(shop.env)
    asked = len(calls(shop)) - before
    assert (report.customers, report.companies, report.changed, report.failed) == (120, 120, 120, [])
    # The account; then counting, reading and looking at everybody: two pages of a hundred each.
    assert asked <= 7, calls(shop)[before:]
    assert await drift.stripe_drift(shop.env) == []
    again = await import_account(shop.env)
    assert (again.companies, again.changed) == (120, 0)


async def test_an_import_can_be_repeated(shop: Shop) -> None:
    customer = await shop.customer()
    shop.stripe.subscriptions.create({"customer": customer, "items": [{"price": await priced(shop)}]})
    shop.stripe.customers.create({"name": "Nobody"})
    first = await import_account(shop.env)
    assert (first.customers, first.companies, first.changed) == (2, 1, 1)
    again = await import_account(shop.env)
    assert (again.customers, again.companies, again.changed) == (2, 1, 0)
    everyone = await import_account(shop.env, is_every_customer_wanted=True)
    assert (everyone.customers, everyone.companies) == (2, 2)


async def test_a_killed_import_goes_on_where_it_was(shop: Shop) -> None:
    grow(shop, 130, price=await priced(shop))
    reached = asyncio.Event()

    def watch(words: str, through: int, _total: int | None) -> None:
        if words == "Importing subscribers" and through >= 100:
            reached.set()

    running = asyncio.create_task(import_account(shop.env, progress=watch))
    await reached.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    async with shop.env.reading() as session:
        stored = await cursor(session, "import")
    assert stored["step"] == "subscribers"
    assert 100 <= stored["through"] < 130
    told: list[tuple[str, int]] = []
    report = await import_account(shop.env, progress=lambda words, through, _total: told.append((words, through)))
    assert report.is_resumed
    assert (report.customers, report.failed) == (130, [])
    assert next(through for words, through in told if words == "Importing subscribers") > 100
    assert await drift.stripe_drift(shop.env) == []
    # What went through is not gone on with.
    assert not (await import_account(shop.env)).is_resumed


async def test_what_several_pages_tell_of_one_customer_is_put_together(shop: Shop) -> None:
    names = grow(shop, 130, price=await priced(shop))
    # The oldest are on the last page, what they bought since on the first.
    again = {name: subscribe_again(shop.sandbox, name) for name in names[:5]}
    before = len(calls(shop))
    report = await import_account(shop.env)
    assert (report.customers, report.companies, report.changed, report.failed) == (130, 130, 130, [])
    assert len(calls(shop)) - before <= 7, calls(shop)[before:]
    async with shop.env.reading() as session:
        known = await known_customers(session, names)
    assert {name for name in names if len(known[name].states) == 2} == set(again)
    before = len(calls(shop))
    assert await drift.stripe_drift(shop.env) == []
    assert not [one for one in calls(shop)[before:] if one.startswith("/v1/customers/")]


async def test_who_was_listed_in_part_when_the_import_was_killed_is_fetched_by_the_next(shop: Shop) -> None:
    names = grow(shop, 130, price=await priced(shop))
    for name in names[:3]:
        subscribe_again(shop.sandbox, name)
    await _stopped_after_a_page(shop)
    before = len(calls(shop))
    report = await import_account(shop.env)
    assert (report.is_resumed, report.customers, report.companies, report.failed) == (True, 130, 130, [])
    assert {one for one in calls(shop)[before:] if one.startswith("/v1/customers/")} == {
        f"/v1/customers/{name}" for name in names[:3]
    }
    async with shop.env.reading() as session:
        known = await known_customers(session, names)
    assert [len(known[name].states) for name in names[:4]] == [2, 2, 2, 1]
    assert await drift.stripe_drift(shop.env) == []


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_subscription_made_after_they_were_counted_is_not_taken_for_the_only_one(shop: Shop) -> None:
    names = grow(shop, 130, price=await priced(shop))
    made: list[str] = []

    def subscribe(words: str, through: int, _total: int | None) -> None:
        if words == "Counting subscriptions" and through == 130:
            made.append(subscribe_again(shop.sandbox, names[0]))

    report = await import_account(shop.env, progress=subscribe)
    assert (report.failed, len(made)) == ([], 1)
    async with shop.env.reading() as session:
        known = await known_customers(session, names[:1])
    assert len(known[names[0]].states) == 2
    assert await drift.stripe_drift(shop.env) == []


async def test_a_customer_linked_while_its_page_is_stored_keeps_nobody_else_out(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = grow(shop, 5, price=await priced(shop))

    async def overtaken(session: StoreSession, asked: Any) -> Any:  # noqa: ANN401 - passed on
        known = await known_customers(session, asked)
        await refetch_customer(shop.env, names[2])
        return known

    monkeypatch.setattr(importing, "known_customers", overtaken)
    report = await import_account(shop.env)
    assert (report.companies, report.failed) == (5, [])
    assert await drift.stripe_drift(shop.env) == []
    async with shop.env.reading() as session:
        assert await first_broken(session) is None
        assert len(await page_of_companies(session, search=None, after=None, limit=100)) == 6


async def test_usage_that_waited_for_a_customer_counts_when_it_is_imported(shop: Shop) -> None:
    names = grow(shop, 3, price=await priced(shop))
    event = TrackEvent(event="exports", company={STRIPE_CUSTOMER_KEY: names[1]}, quantity=7)
    (result,) = await record(shop.env, [event])
    assert result.status == "unattributed"
    await import_account(shop.env)
    decisions = [await check(shop.env, company={STRIPE_CUSTOMER_KEY: name}, feature="exports") for name in names]
    assert [one.used for one in decisions] == [0, 7, 0]


async def test_an_account_of_odd_customers_is_imported_whole(shop: Shop) -> None:
    pro, starter = await priced(shop), await priced(shop, "starter")
    product = shop.stripe.products.create({"name": "Parts"}).id
    parts = [
        shop.stripe.prices.create(
            {"product": product, "currency": "usd", "unit_amount": 100 + n, "recurring": {"interval": "month"}}
        ).id
        for n in range(12)
    ]
    many, gone, stranger, archived = grow(shop, 4, price=pro)
    shop.new_card(many, "pm_card_visa")
    asked: Any = {"customer": many, "items": [{"price": price} for price in (*parts, starter)]}
    shop.stripe.subscriptions.create(asked)
    first, second = await shop.customer(), await shop.customer()
    for customer in (first, second):
        shop.stripe.subscriptions.create({"customer": customer, "items": [{"price": starter}]})
    await import_account(shop.env)
    shop.stripe.customers.delete(gone)
    late = shop.stripe.customers.create({"name": "Gone before we heard"}).id
    shop.new_card(late, "pm_card_visa")
    shop.stripe.subscriptions.create({"customer": late, "items": [{"price": starter}]})
    shop.stripe.customers.delete(late)
    shop.stripe.prices.update(starter, {"active": False})
    report = await import_account(shop.env)
    assert report.failed == []
    async with shop.env.reading() as session:
        known = await known_customers(session, [many, gone, stranger, archived, first, second, late])
    assert known.keys() == {many, gone, stranger, archived, first, second}
    assert known[first].company_id == known[second].company_id == shop.company_id
    assert len(known[many].states) == 2
    assert len(report.unmapped) == 12
    plans = {}
    for name in (many, gone, first):
        shop.company_id = known[name].company_id
        plans[name] = await shop.plan()
    assert (plans[gone], plans[first]) == ("free", "starter")
    async with shop.env.reading() as session:
        facts = await subscriptions_of(session, known[many].company_id)
    assert sorted(len(fact.items) for fact in facts) == [1, 13]


async def test_a_restarted_import_begins_anew(shop: Shop) -> None:
    grow(shop, 110, price=await priced(shop))
    running = asyncio.create_task(_stopped_after_a_page(shop))
    await running
    report = await import_account(shop.env, is_restarted=True)
    assert (report.is_resumed, report.customers) == (False, 110)


async def _stopped_after_a_page(shop: Shop) -> None:
    class Stopped(Exception):
        pass

    def stop(words: str, _through: int, _total: int | None) -> None:
        if words == "Importing subscribers":
            raise Stopped

    with pytest.raises(Stopped):
        await import_account(shop.env, progress=stop)


async def test_s11_prices_without_a_plan_are_reported_with_their_customers(shop: Shop) -> None:
    product = shop.stripe.products.create({"name": "Made by hand"}).id
    price = shop.stripe.prices.create(
        {"product": product, "currency": "usd", "unit_amount": 700, "recurring": {"interval": "year"}}
    ).id
    names = grow(shop, 5, price=price)
    report = await import_account(shop.env)
    (unmapped,) = report.unmapped
    assert (unmapped.stripe_price_id, unmapped.stripe_product_id, unmapped.customers) == (price, product, 5)
    assert (unmapped.amount_minor, unmapped.currency, unmapped.interval) == (700, "usd", "year")
    assert len(unmapped.examples) == 3
    assert set(unmapped.examples) <= set(names)
    assert report.companies == 0


async def test_several_subscriptions_and_several_customers_are_fetched_whole(shop: Shop) -> None:
    price, starter = await priced(shop), await priced(shop, "starter")
    first, second = await shop.customer(), await shop.customer()
    for customer in (first, second):
        shop.stripe.subscriptions.create({"customer": customer, "items": [{"price": starter}]})
    other = shop.stripe.customers.create({"name": "Twice"}).id
    shop.new_card(other, "pm_card_visa")
    for wanted in (starter, price):
        shop.stripe.subscriptions.create({"customer": other, "items": [{"price": wanted}]})
    report = await import_account(shop.env)
    assert (report.customers, report.companies, report.failed) == (3, 3, [])
    assert await drift.stripe_drift(shop.env) == []
    assert await shop.plan() == "starter"


async def test_w9_a_customer_deleted_unseen_ends_with_the_import(shop: Shop) -> None:
    customer = await shop.customer()
    made = shop.stripe.subscriptions.create({"customer": customer, "items": [{"price": await priced(shop)}]})
    await refetch(shop.env, shop.company_id)
    assert await shop.plan() == "pro"
    shop.stripe.customers.delete(customer)
    # Not even its subscription is listed any more, as after a hard deletion.
    world = shop.sandbox.app_state.sandbox.world
    world.store.remove(world.store.get("subscription", made.id))
    report = await import_account(shop.env)
    assert report.changed == 1
    assert await shop.plan() == "free"


async def test_what_was_fetched_after_the_page_is_not_overwritten_by_it(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    customer = await shop.customer()
    made = shop.stripe.subscriptions.create({"customer": customer, "items": [{"price": await priced(shop)}]})
    completed = StripeGateway.completed_state

    async def overtaken(self: StripeGateway, raw: Any, subscriptions: Any) -> Any:  # noqa: ANN401 - passed on
        state = await completed(self, raw, subscriptions)
        if shop.stripe.subscriptions.retrieve(made.id).status == "active":
            shop.stripe.subscriptions.cancel(made.id)
            await refetch(shop.env, shop.company_id)
        return state

    monkeypatch.setattr(StripeGateway, "completed_state", overtaken)
    await import_account(shop.env)
    assert await shop.plan() == "free"


async def test_one_customer_that_cannot_be_read_keeps_nobody_else_out(shop: Shop) -> None:
    price = await priced(shop)
    # Of a company with two customers no page tells all, so both are fetched.
    customer = await shop.customer()
    shop.stripe.subscriptions.create({"customer": customer, "items": [{"price": price}]})
    second = await shop.customer()
    shop.stripe.subscriptions.create({"customer": second, "items": [{"price": price}]})
    grow(shop, 3, price=price)
    fault: dict[str, Any] = {"fault": "fail_call", "path": f"/v1/customers/{customer}", "status": 500, "count": 9}
    shop.sandbox.control("POST", "faults", fault)
    report = await import_account(shop.env)
    assert (set(report.failed), report.companies) == ({customer, second}, 3)
    shop.sandbox.control("DELETE", "faults")
    assert (await import_account(shop.env)).failed == []


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_nothing_is_imported_with_the_key_of_another_account(shop: Shop) -> None:
    grow(shop, 2, price=await priced(shop))
    shop.env.settings = shop.env.settings.model_copy(update={"stripe_account": "acct_another"})
    with pytest.raises(Refusal, match="another account"):
        await import_account(shop.env, is_every_customer_wanted=True)
    async with shop.env.reading() as session:
        assert [row.id for row in await page_of_companies(session, search=None, after=None, limit=9)] == [
            shop.company_id
        ]


async def test_a_busy_stripe_is_waited_for(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pacing, "_PAUSE_SECONDS", 0.01)
    grow(shop, 2, price=await priced(shop))
    fault: dict[str, Any] = {"fault": "fail_call", "path": "/v1/subscriptions", "status": 429, "count": 3}
    shop.sandbox.control("POST", "faults", fault)
    assert (await import_account(shop.env)).companies == 2


async def test_long_work_keeps_its_pace_and_other_calls_do_not_wait() -> None:
    pace = pacing.Pace(100)
    began = time.monotonic()
    with pacing.paced(pace):
        for _ in range(11):
            await pace.turn()
        assert pacing.current_pace() is pace
    assert time.monotonic() - began >= 0.1
    assert pacing.current_pace() is None


async def test_a_page_links_customers_without_subscriptions_by_metadata(shop: Shop) -> None:
    metadata = {"plangate_company": shop.company_id, "plangate_environment": shop.env.id}
    made = shop.stripe.customers.create({"metadata": metadata})
    report: ImportReport = await import_account(shop.env)
    assert (report.customers, report.companies) == (1, 1)
    async with shop.env.reading() as session:
        found = await session.scalar(
            select(company_keys.c.company_id).where(
                company_keys.c.name == STRIPE_CUSTOMER_KEY, company_keys.c.value == made.id
            )
        )
    assert found == shop.company_id


async def test_w10_the_first_sweep_of_an_environment_asks_for_all_that_stripe_kept(shop: Shop) -> None:
    other = await new_company(shop.env, "other")
    shop.company_id = other
    customer = await shop.customer()
    shop.stripe.subscriptions.create({"customer": customer, "items": [{"price": await priced(shop)}]})
    shop.advance("P20D")
    assert await sync.sweep(shop.env) > 0
    while await sync.work_inbox(shop.env):
        pass
    assert await shop.plan() == "pro"
