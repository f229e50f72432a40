"""Changes that wait for a person: a page nobody pays, a bank nobody answers, and what was scheduled before them."""

from datetime import UTC, datetime
from typing import Any

import pytest

from plangate import plan_changes
from plangate.billing.failures import FailureKind, StripeFailure
from plangate.billing.gateway import StripeGateway
from plangate.billing.transport import StripeJson
from plangate.errors import Code, Refusal
from plangate.shapes import ChangeState
from tests.shop import Shop


async def _asked_by_the_bank(shop: Shop) -> None:
    """From now on every payment needs the customer."""
    (customer,) = shop.objects("customer")
    method = shop.new_card(customer["id"], "pm_card_authenticationRequired")
    (subscription,) = shop.objects("subscription")
    shop.stripe.subscriptions.update(subscription["id"], {"default_payment_method": method})
    await shop.sync()


async def test_s27_an_expired_page_is_over_with_its_event(shop: Shop) -> None:
    change = await shop.change(plan="pro")
    (session,) = shop.objects("checkout.session")
    shop.stripe.checkout.sessions.expire(session["id"])
    await shop.sync()
    assert (await plan_changes.get(shop.env, shop.company_id, change.id)).state is ChangeState.CANCELLED
    assert (await shop.change(plan="starter")).state is ChangeState.AWAITING_PAYMENT


async def test_s26_a_page_is_closed_when_a_subscription_began_otherwise(shop: Shop) -> None:
    change = await shop.change(plan="pro")
    shop.advance("PT2M")
    (customer,) = shop.objects("customer")
    shop.new_card(customer["id"], "pm_card_visa")
    price = (await shop.env.catalog()).plans["starter"].prices[0].stripe_price_id or ""
    shop.stripe.subscriptions.create({"customer": customer["id"], "items": [{"price": price}]})
    await shop.sync()
    assert await shop.plan() == "starter"
    await plan_changes.settle_pending(shop.env, shop.company_id)
    assert (await plan_changes.get(shop.env, shop.company_id, change.id)).state is ChangeState.CANCELLED
    assert [one["status"] for one in shop.objects("checkout.session")] == ["expired"]


async def test_s22_an_unconfirmed_upgrade_leaves_the_scheduled_downgrade(shop: Shop) -> None:
    await shop.subscribed(plan="pro")
    downgrade = await shop.change(plan="starter")
    await _asked_by_the_bank(shop)
    upgrade = await shop.change(plan="pro", interval="year")
    assert upgrade.state is ChangeState.REQUIRES_ACTION
    # It is not over yet: whether it comes is up to the customer and the bank.
    assert (await plan_changes.get(shop.env, shop.company_id, downgrade.id)).state is ChangeState.SCHEDULED

    shop.advance("P1D")
    await shop.sync()
    assert (await plan_changes.get(shop.env, shop.company_id, upgrade.id)).state is ChangeState.FAILED
    await plan_changes.resume_unfinished(shop.env)
    assert (await plan_changes.get(shop.env, shop.company_id, downgrade.id)).state is ChangeState.SCHEDULED
    shop.advance("P31D")
    await shop.sync()
    assert await shop.plan() == "starter"


async def test_s22_a_scheduled_downgrade_whose_date_passed_meanwhile_takes_the_next_one(shop: Shop) -> None:
    await shop.subscribed(plan="pro")
    downgrade = await shop.change(plan="starter")
    shop.advance("P29DT12H")
    await _asked_by_the_bank(shop)
    assert (await shop.change(plan="pro", interval="year")).state is ChangeState.REQUIRES_ACTION
    shop.advance("P2D")
    await shop.sync()
    await plan_changes.resume_unfinished(shop.env)
    again = await plan_changes.get(shop.env, shop.company_id, downgrade.id)
    assert again.state is ChangeState.SCHEDULED
    (subscription,) = shop.objects("subscription")
    ends = subscription["items"]["data"][0]["current_period_end"]
    scheduled = (await shop.snapshot()).subscription
    assert scheduled is not None
    assert [phase.starts_at for phase in scheduled.phases] == [datetime.fromtimestamp(ends, UTC)]
    assert again.effective_at == datetime.fromtimestamp(ends, UTC)


async def test_s22_an_unconfirmed_upgrade_leaves_the_scheduled_end(shop: Shop) -> None:
    await shop.subscribed(plan="starter")
    ending = await shop.change(cancel="period_end")
    await _asked_by_the_bank(shop)
    assert (await shop.change(plan="pro")).state is ChangeState.REQUIRES_ACTION
    shop.advance("P1D")
    await shop.sync()
    await plan_changes.resume_unfinished(shop.env)
    assert (await plan_changes.get(shop.env, shop.company_id, ending.id)).state is ChangeState.SCHEDULED
    shop.advance("P31D")
    await shop.sync()
    assert await shop.plan() == "free"


async def test_s22_a_confirmed_upgrade_ends_what_was_scheduled(shop: Shop) -> None:
    await shop.subscribed(plan="pro")
    downgrade = await shop.change(plan="starter")
    await _asked_by_the_bank(shop)
    upgrade = await shop.change(plan="pro", interval="year")
    assert upgrade.next_action is not None
    assert shop.pay(upgrade.next_action.url) == 303
    await shop.sync()
    assert (await plan_changes.get(shop.env, shop.company_id, upgrade.id)).state is ChangeState.APPLIED
    assert (await plan_changes.get(shop.env, shop.company_id, downgrade.id)).state is ChangeState.CANCELLED


async def test_a_change_that_stripe_refuses_is_refused_and_not_failed(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    await shop.subscribed(plan="starter")

    async def refusing(*_args: object, **_options: object) -> None:
        raise StripeFailure(FailureKind.REFUSED, Code.STRIPE_REFUSED, "Stripe says no.")

    quote = await shop.preview(plan="pro")
    monkeypatch.setattr(shop.env.gateway, "update_subscription", refusing)
    with pytest.raises(Refusal) as caught:
        await shop.confirm(quote)
    assert caught.value.code is Code.STRIPE_REFUSED
    assert next(row.state for row in await shop.rows()) == "refused"
    assert await shop.plan() == "starter"


@pytest.mark.parametrize(
    "asked", [{"cancel": "period_end"}, {"cancel": "now"}, {"interval": "year"}, {"add_ons": {"extra-exports": 1}}]
)
async def test_a_payment_that_waits_for_the_bank_is_in_nobodys_way(shop: Shop, asked: dict[str, Any]) -> None:
    await shop.subscribed(plan="starter")
    await _asked_by_the_bank(shop)
    waiting = await shop.change(plan="pro")
    again = await shop.change(plan="pro")
    assert (again.id, again.next_action) == (waiting.id, waiting.next_action)

    change = await shop.change(**asked)
    assert change.id != waiting.id
    assert (await plan_changes.get(shop.env, shop.company_id, waiting.id)).state is ChangeState.FAILED
    statuses = [one["status"] for one in shop.objects("invoice") if one["lines"]["data"]]
    assert statuses.count("void") == 1
    assert statuses.count("open") == (1 if change.state is ChangeState.REQUIRES_ACTION else 0)
    (subscription,) = shop.objects("subscription")
    assert (subscription["pending_update"] is not None) is (change.state is ChangeState.REQUIRES_ACTION)
    if "cancel" in asked:
        assert change.state in {ChangeState.SCHEDULED, ChangeState.APPLIED}
        assert subscription["cancel_at_period_end"] or subscription["status"] == "canceled"


async def test_what_a_given_up_upgrade_had_taken_away_is_scheduled_again(shop: Shop) -> None:
    await shop.subscribed(plan="pro")
    downgrade = await shop.change(plan="starter")
    await _asked_by_the_bank(shop)
    await shop.change(plan="pro", interval="year")
    quote = await shop.preview(add_ons={"extra-exports": 1})
    with pytest.raises(Refusal) as caught:
        await shop.confirm(quote)
    assert caught.value.code is Code.DOWNGRADE_SCHEDULED
    assert (await plan_changes.get(shop.env, shop.company_id, downgrade.id)).state is ChangeState.SCHEDULED
    shop.advance("P31D")
    await shop.sync()
    assert await shop.plan() == "starter"


async def test_a_payment_confirmed_while_another_change_is_chosen_holds(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    await shop.subscribed(plan="starter")
    await _asked_by_the_bank(shop)
    upgrade = await shop.change(plan="pro")
    assert upgrade.next_action is not None
    url, void = upgrade.next_action.url, StripeGateway.void_invoice
    quote = await shop.preview(add_ons={"extra-exports": 1})

    async def paying(gateway: StripeGateway, stripe_invoice_id: str, *, idempotency_key: str) -> StripeJson:
        assert shop.pay(url) == 303
        return await void(gateway, stripe_invoice_id, idempotency_key=idempotency_key)

    monkeypatch.setattr(StripeGateway, "void_invoice", paying)
    with pytest.raises(Refusal) as caught:
        await shop.confirm(quote)
    assert caught.value.code is Code.QUOTE_STALE
    assert (await plan_changes.get(shop.env, shop.company_id, upgrade.id)).state is ChangeState.APPLIED
    assert await shop.plan() == "pro"
