"""Changes that wait for a person: a page nobody pays, a bank nobody answers, and what was scheduled before them."""

from datetime import UTC, datetime

import pytest

from plangate import plan_changes
from plangate.billing.failures import FailureKind, StripeFailure
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
