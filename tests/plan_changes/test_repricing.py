"""Subscribers follow a new version to its price, each by a change of their own, whatever stands in the way of one."""

from typing import Any

import pytest

from plangate import catalog, companies, plan_changes
from plangate.catalog import MigratingCompany, Migration
from plangate.catalog_document import MigrationDocument
from plangate.errors import Code, Refusal
from plangate.plan_changes.repricing import carry_on_repricing
from plangate.shapes import Actor, ChangeState
from plangate.store.version_migrations import migrating_companies
from tests.shop import DOCUMENT, STAFF, Shop, new_company

ACTOR = Actor(kind="cli", id="tests")
DEARER: dict[str, Any] = {
    **DOCUMENT,
    "plans": {
        **DOCUMENT["plans"],
        "pro": {
            **DOCUMENT["plans"]["pro"],
            "prices": [
                {"currency": "usd", "interval": "month", "amount_minor": 5900},
                {"currency": "usd", "interval": "year", "amount_minor": 59000},
            ],
        },
    },
}


async def _migrated(shop: Shop, proration: catalog.Proration | None, who: str = "all") -> Migration:
    await catalog.apply(shop.env, DEARER, actor=ACTOR, migrate=catalog.read_migrations([who]), proration=proration)
    return await _worked(shop)


async def _worked(shop: Shop) -> Migration:
    """What the worker does until there is nothing left to do."""
    for _ in range(20):
        if not await catalog.carry_on_migrations(shop.env) and not await carry_on_repricing(shop.env):
            break
    await catalog.carry_on_migrations(shop.env)
    return (await catalog.migrations(shop.env))[0][0]


async def _listed(shop: Shop, migration: Migration) -> dict[str, MigratingCompany]:
    return {one.company: one for one in (await catalog.migrating_companies(shop.env, migration.id))[0]}


async def _another(shop: Shop, name: str, **asked: Any) -> str:  # noqa: ANN401 - fields of ChangeRequest
    """One more subscriber."""
    shop.company_id = await new_company(shop.env, name)
    await shop.subscribed(**asked)
    return shop.company_id


def _paid(shop: Shop) -> list[int]:
    """What each subscription costs now."""
    return sorted(one["items"]["data"][0]["price"]["unit_amount"] for one in shop.objects("subscription"))


async def test_prices_stay_unless_they_are_to_move(shop: Shop) -> None:
    await shop.subscribed(plan="pro")
    migration = await _migrated(shop, None)
    assert (migration.state, migration.proration, migration.prices) == ("finished", None, {})
    assert _paid(shop) == [4900]


async def test_everybody_moves_to_the_new_price_without_proration(shop: Shop) -> None:
    monthly = await _another(shop, "acme-1", plan="pro")
    yearly = await _another(shop, "acme-2", plan="pro", interval="year")
    other = await _another(shop, "acme-3", plan="starter")
    migration = await _migrated(shop, "none")
    assert (migration.state, migration.prices) == ("finished", {"moved": 2})
    assert {monthly, yearly} == set(await _listed(shop, migration))
    assert _paid(shop) == [1900, 5900, 59000]
    assert len(shop.objects("invoice")) == 3  # the first ones: nothing was charged for the move
    shop.company_id = monthly
    (change, _) = await shop.rows()
    assert (change.state, change.kind, change.target["version"]) == ("applied", "upgrade", 2)
    assert other not in await _listed(shop, migration)
    shop.advance("P32D")
    await shop.sync()
    totals = sorted(invoice["total"] for invoice in shop.objects("invoice"))
    assert totals == [1900, 1900, 4900, 5900, 47000]


async def test_the_difference_can_be_charged_at_once_or_with_the_next_invoice(shop: Shop) -> None:
    await shop.subscribed(plan="pro")
    shop.advance("P10D")
    await shop.sync()
    migration = await _migrated(shop, "charge_now")
    assert migration.prices == {"moved": 1}
    charged = max(shop.objects("invoice"), key=lambda invoice: invoice["created"])
    assert (charged["status"], 0 < charged["total"] < 1000) == ("paid", True)


async def test_the_difference_waits_for_the_next_invoice(shop: Shop) -> None:
    await shop.subscribed(plan="pro")
    shop.advance("P10D")
    await shop.sync()
    assert (await _migrated(shop, "next_invoice")).prices == {"moved": 1}
    assert len(shop.objects("invoice")) == 1
    shop.advance("P22D")
    renewal = max(shop.objects("invoice"), key=lambda invoice: invoice["created"])
    assert 5900 < renewal["total"] < 6900


async def test_a_company_that_was_merged_meanwhile_holds_nothing(shop: Shop) -> None:
    other = shop.company_id
    former = await _another(shop, "former", plan="pro")
    who = catalog.read_migrations(["all"])
    await catalog.apply(shop.env, DEARER, actor=ACTOR, migrate=who, proration="none")
    while await catalog.carry_on_migrations(shop.env):
        pass
    await companies.merge(shop.env, other, former, actor=ACTOR)
    assert (await _worked(shop)).prices == {"not_held": 1}


async def test_only_those_named_move(shop: Shop) -> None:
    await _another(shop, "globex", plan="pro")
    await _another(shop, "initech", plan="pro")
    migration = await _migrated(shop, "none", "pro=id=globex")
    assert (migration.mode, migration.counts.done, migration.prices) == ("some", 1, {"moved": 1})
    assert _paid(shop) == [4900, 5900]


async def test_every_company_has_an_outcome_of_its_own(shop: Shop) -> None:
    names = {"past_due": await _another(shop, "owes", plan="pro")}
    (fact,) = (await shop.snapshot()).facts.subscriptions
    owing = shop.new_card(fact.stripe_customer_id, "pm_card_chargeCustomerFail")
    shop.stripe.subscriptions.update(fact.stripe_subscription_id, {"default_payment_method": owing})
    shop.advance("P31DT2H")
    names["moved"] = await _another(shop, "moves", plan="pro")
    names["scheduled_change"] = await _another(shop, "leaves", plan="pro")
    await shop.change(plan="starter")
    names["ending"] = await _another(shop, "ends", plan="pro")
    await shop.change(cancel="period_end")
    names["custom_price"] = await _another(shop, "agreed", plan="starter")
    deal = {"amount_minor": 4000, "currency": "usd", "interval": "month"}
    await shop.change(actor=STAFF, plan="pro", custom_price=deal)
    names["foreign_schedule"] = await _another(shop, "theirs", plan="pro")
    (fact,) = (await shop.snapshot()).facts.subscriptions
    shop.stripe.subscription_schedules.create({"from_subscription": fact.stripe_subscription_id})
    names["payment_failed"] = await _another(shop, "declines", plan="pro")
    (fact,) = (await shop.snapshot()).facts.subscriptions
    declining = shop.new_card(fact.stripe_customer_id, "pm_card_chargeCustomerFail")
    shop.stripe.subscriptions.update(fact.stripe_subscription_id, {"default_payment_method": declining})
    await shop.sync()
    shop.advance("P1D")

    migration = await _migrated(shop, "charge_now")
    listed = await _listed(shop, migration)
    assert {name: listed[company].price for name, company in names.items()} == dict(zip(names, names, strict=True))
    assert migration.state == "finished"

    # What was in the way is gone, and those that failed are tried again; nobody pays twice.
    shop.company_id = names["payment_failed"]
    good = shop.new_card(fact.stripe_customer_id, "pm_card_visa")
    shop.stripe.subscriptions.update(fact.stripe_subscription_id, {"default_payment_method": good})
    shop.company_id = names["scheduled_change"]
    await plan_changes.cancel_scheduled(shop.env, shop.company_id, actor=STAFF)
    again = await catalog.retry_migration(shop.env, migration.id, actor=ACTOR)
    assert again.state == "running"
    migration = await _worked(shop)
    assert migration.prices == {
        "moved": 3,
        "ending": 1,
        "custom_price": 1,
        "foreign_schedule": 1,
        "past_due": 1,
    }


async def test_a_change_under_way_is_finished_first(shop: Shop) -> None:
    await shop.subscribed(plan="pro")
    (fact,) = (await shop.snapshot()).facts.subscriptions
    method = shop.new_card(fact.stripe_customer_id, "pm_card_authenticationRequired")
    shop.stripe.subscriptions.update(fact.stripe_subscription_id, {"default_payment_method": method})
    await shop.sync()
    upgrade = await shop.change(plan="pro", interval="year")
    assert upgrade.state is ChangeState.REQUIRES_ACTION
    migration = await _migrated(shop, "none")
    assert (migration.state, migration.prices) == ("running", {"pending": 1})


async def test_a_kill_in_the_middle_moves_everybody_once(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    companies = [await _another(shop, f"acme-{number}", plan="pro") for number in range(3)]
    await catalog.apply(shop.env, DEARER, actor=ACTOR, proration="charge_now")
    shop.advance("P3D")
    while await catalog.carry_on_migrations(shop.env):
        pass
    gateway = shop.env.gateway
    update, calls = gateway.update_subscription, 0

    async def dying(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - passed through
        nonlocal calls
        calls += 1
        made = await update(*arguments, **options)
        if calls == 2:
            raise KeyboardInterrupt  # Stripe did it, and we are gone before we know.
        return made

    monkeypatch.setattr(gateway, "update_subscription", dying)
    with pytest.raises(KeyboardInterrupt):
        await carry_on_repricing(shop.env)
    monkeypatch.setattr(gateway, "update_subscription", update)
    async with shop.env.writing() as session:
        # The claims of the dead process are over.
        await session.run(migrating_companies.update().values(available_at=session.now.replace(year=2020)))
    migration = await _worked(shop)
    assert (migration.state, migration.prices) == ("finished", {"moved": 3})
    assert _paid(shop) == [5900, 5900, 5900]
    charged = [invoice for invoice in shop.objects("invoice") if invoice["billing_reason"] == "subscription_update"]
    assert len(charged) == 3
    for company in companies:
        shop.company_id = company
        assert [row.state for row in await shop.rows()] == ["applied", "applied"]


async def test_what_is_not_sold_in_that_interval_stays(shop: Shop) -> None:
    await shop.subscribed(plan="pro", interval="year")
    plans = {**DEARER["plans"], "pro": {**DEARER["plans"]["pro"], "prices": DEARER["plans"]["pro"]["prices"][:1]}}
    await catalog.apply(shop.env, {**DEARER, "plans": plans}, actor=ACTOR, proration="none")
    migration = await _worked(shop)
    assert migration.prices == {"not_sold": 1}
    assert _paid(shop) == [47000]


async def test_a_price_that_did_not_change_is_there_already(shop: Shop) -> None:
    await shop.subscribed(plan="pro")
    richer = {**DOCUMENT["plans"]["pro"], "entitlements": {**DOCUMENT["plans"]["pro"]["entitlements"], "exports": 9000}}
    await catalog.apply(
        shop.env, {**DOCUMENT, "plans": {**DOCUMENT["plans"], "pro": richer}}, actor=ACTOR, proration="charge_now"
    )
    assert (await _worked(shop)).prices == {"already_there": 1}


async def test_nobody_unknown_is_retried(shop: Shop) -> None:
    with pytest.raises(Refusal) as caught:
        await catalog.retry_migration(shop.env, "mig_unknown", actor=ACTOR)
    assert caught.value.code is Code.NOT_FOUND


async def test_who_will_pay_another_price_is_counted_before_and_as_it_is_applied(shop: Shop) -> None:
    await _another(shop, "acme-1", plan="pro")
    named = await _another(shop, "acme-2", plan="pro", interval="year")
    await _another(shop, "acme-3", plan="starter")
    await _another(shop, "acme-4", plan="pro")
    await shop.change(cancel="period_end")
    shop.company_id = await new_company(shop.env, "acme-5")
    await shop.customer()
    deal = {"amount_minor": 4_900, "currency": "usd", "interval": "month"}
    await shop.change(actor=STAFF, plan="pro", custom_price=deal)

    async def counted(proration: catalog.Proration | None, *who: str) -> catalog.Repriced | None:
        said = catalog.read_migrations(who)
        return (await catalog.plan(shop.env, DEARER, migrate=said, proration=proration)).repriced

    assert await counted(None, "all") is None
    assert await counted("none", "all") == catalog.Repriced(companies=2)
    assert await counted("none", "none") == catalog.Repriced(companies=0)
    assert await counted("charge_now", "none", f"pro={named}") == catalog.Repriced(companies=1)
    await catalog.save_draft(shop.env, DEARER, actor=ACTOR)
    assert (await catalog.diff_draft(shop.env)).repriced is None
    assert (await catalog.diff_draft(shop.env, proration="none")).repriced == catalog.Repriced(companies=2)
    some = catalog.read_migrations(["none", f"pro={named}"])
    drafted = await catalog.diff_draft(shop.env, migrate=some, proration="charge_now")
    assert drafted.repriced == catalog.Repriced(companies=1)
    diff = await catalog.apply(shop.env, DEARER, actor=ACTOR, proration="none")
    assert diff.repriced == catalog.Repriced(companies=2)
    migration = await _worked(shop)
    assert migration.prices["moved"] == 2


async def test_who_of_those_left_behind_will_pay_another_price_is_counted_before(shop: Shop) -> None:
    named = await _another(shop, "acme-1", plan="pro")
    await _another(shop, "acme-2", plan="pro", interval="year")
    await _another(shop, "acme-3", plan="starter")
    await catalog.apply(shop.env, DEARER, actor=ACTOR, migrate=catalog.read_migrations(["none"]))
    only = MigrationDocument(companies=[named])
    assert (await catalog.plan_migration(shop.env, "pro", "all")).repriced is None
    planned = await catalog.plan_migration(shop.env, "pro", "all", proration="none")
    assert planned.repriced == catalog.Repriced(companies=2)
    planned = await catalog.plan_migration(shop.env, "pro", only, proration="charge_now")
    assert planned.repriced == catalog.Repriced(companies=1)
    done = await catalog.migrate_kept(shop.env, "pro", only, actor=ACTOR, proration="charge_now")
    assert done.repriced is None
    assert (await _worked(shop)).prices == {"moved": 1}
    planned = await catalog.plan_migration(shop.env, "pro", "all", proration="none")
    assert planned.repriced == catalog.Repriced(companies=1)
