"""A company's way through the plans, against the sandbox: subscribe, upgrade, downgrade at the period's end, cancel."""

from datetime import timedelta
from typing import Any

import msgspec
import pytest

from plangate import plan_changes
from plangate.billing.gateway import StripeGateway
from plangate.errors import Code, Refusal
from plangate.mirroring import refetch
from plangate.shapes import ChangeKind, ChangeState, Quote
from tests.shop import CUSTOMER, RETURN_URL, STAFF, Shop


async def test_subscribing_without_a_card_goes_through_checkout(shop: Shop) -> None:
    quote = await shop.preview(plan="pro")
    assert (quote.kind, quote.needs_checkout, quote.due_today.amount_minor) == (ChangeKind.SUBSCRIBE, True, 4900)
    assert [effect.feature for effect in quote.gained] == ["exports", "sso"]
    change = await shop.confirm(quote)
    assert change.state is ChangeState.AWAITING_PAYMENT
    assert change.next_action is not None
    assert change.next_action.kind == "checkout"
    assert await shop.plan() == "free"

    assert shop.pay(change.next_action.url) == 303
    # S25: the customer is back before any webhook.
    await plan_changes.settle_pending(shop.env, shop.company_id)
    assert await shop.plan() == "pro"
    settled = await plan_changes.get(shop.env, shop.company_id, change.id)
    assert (settled.state, settled.next_action) == (ChangeState.APPLIED, None)
    assert (settled.from_.plan, settled.to.plan, settled.to.version) == ("free", "pro", 1)
    (subscription,) = shop.objects("subscription")
    assert subscription["metadata"]["plangate_company"] == shop.company_id
    assert subscription["metadata"]["plangate_change"] == change.id


async def test_settling_without_anything_pending_asks_stripe_nothing(shop: Shop) -> None:
    before = len(shop.sandbox.control("GET", "requests")["data"])
    await plan_changes.settle_pending(shop.env, shop.company_id)
    assert len(shop.sandbox.control("GET", "requests")["data"]) == before


async def test_s26_the_same_checkout_is_opened_once(shop: Shop) -> None:
    first, second = await shop.preview(plan="pro"), await shop.preview(plan="pro")
    one, two, again = await shop.confirm(first), await shop.confirm(second), await shop.confirm(first)
    assert one == two == again
    assert len(shop.objects("checkout.session")) == 1
    assert len(shop.objects("customer")) == 1


async def test_s26_choosing_another_plan_closes_the_first_page(shop: Shop) -> None:
    one = await shop.change(plan="pro")
    two = await shop.change(plan="starter")
    assert (await plan_changes.get(shop.env, shop.company_id, one.id)).state is ChangeState.CANCELLED
    assert two.state is ChangeState.AWAITING_PAYMENT
    assert sorted(session["status"] for session in shop.objects("checkout.session")) == ["expired", "open"]


@pytest.mark.parametrize("paid", ["before it is looked at", "before it is closed"])
async def test_s26_a_page_paid_while_another_plan_is_confirmed_is_the_only_one(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, paid: str
) -> None:
    """The customer pays in one tab in the very moment in which another plan is confirmed in the other one."""
    first = await shop.change(plan="pro")
    assert first.next_action is not None
    url = first.next_action.url
    quote = await shop.preview(plan="starter")
    name = "preview_invoice" if paid == "before it is looked at" else "expire_checkout_session"
    call = getattr(StripeGateway, name)

    async def paying(gateway: StripeGateway, *given: object, **named: object) -> object:
        monkeypatch.setattr(StripeGateway, name, call)
        assert shop.pay(url) == 303
        return await call(gateway, *given, **named)

    monkeypatch.setattr(StripeGateway, name, paying)
    with pytest.raises(Refusal) as caught:
        await shop.confirm(quote)
    assert caught.value.code is Code.QUOTE_STALE
    fresh = msgspec.convert(caught.value.extra["quote"], Quote)
    assert (fresh.kind, fresh.is_scheduled, fresh.due_today.amount_minor) == (ChangeKind.DOWNGRADE, True, 0)
    assert [(row.target["plan"], row.state) for row in await shop.rows()] == [("pro", "applied")]
    assert [one["status"] for one in shop.objects("subscription")] == ["active"]
    assert await shop.plan() == "pro"


async def test_a_page_that_could_not_be_closed_is_closed_at_the_next_try(shop: Shop) -> None:
    await shop.change(plan="pro")
    quote = await shop.preview(plan="starter")
    fault = {"fault": "fail_call", "path": "/v1/checkout/sessions/*/expire", "count": None, "status": 500}
    shop.sandbox.control("POST", "faults", fault)
    with pytest.raises(Refusal) as caught:
        await shop.confirm(quote)
    assert caught.value.code is Code.STRIPE_BUSY
    shop.sandbox.control("DELETE", "faults")
    assert (await shop.confirm(quote)).state is ChangeState.AWAITING_PAYMENT
    assert sorted(session["status"] for session in shop.objects("checkout.session")) == ["expired", "open"]


async def test_s27_an_abandoned_page_frees_the_way(shop: Shop) -> None:
    change = await shop.change(plan="pro")
    shop.advance("P2D")
    await plan_changes.settle_pending(shop.env, shop.company_id)
    assert (await plan_changes.get(shop.env, shop.company_id, change.id)).state is ChangeState.CANCELLED


async def test_subscribing_with_a_card_on_file_charges_it(shop: Shop) -> None:
    await shop.customer()
    quote = await shop.preview(plan="pro")
    assert (quote.needs_checkout, quote.due_today.amount_minor) == (False, 4900)
    change = await shop.confirm(quote)
    assert change.state is ChangeState.APPLIED
    assert await shop.plan() == "pro"
    assert [invoice["amount_paid"] for invoice in shop.objects("invoice")] == [4900]


async def test_a_declined_card_starts_nothing(shop: Shop) -> None:
    await shop.customer("pm_card_chargeCustomerFail")
    quote = await shop.preview(plan="pro")
    with pytest.raises(Refusal) as caught:
        await shop.confirm(quote)
    assert (caught.value.code, caught.value.status) == (Code.PAYMENT_FAILED, 402)
    assert await shop.plan() == "free"
    assert [row.state for row in await shop.rows()] == ["failed"]
    assert not [one for one in shop.objects("subscription") if one["status"] in {"active", "trialing"}]


async def test_an_upgrade_charges_what_was_quoted(shop: Shop) -> None:
    await shop.subscribed(plan="starter")
    shop.advance("P10D")
    await shop.sync()
    quote = await shop.preview(plan="pro")
    assert (quote.kind, quote.is_scheduled) == (ChangeKind.UPGRADE, False)
    assert 0 < quote.due_today.amount_minor < 3000
    assert sum(line.amount_minor for line in quote.lines) == quote.due_today.amount_minor
    assert quote.next_invoice is not None
    assert quote.next_invoice.amount_minor == 4900
    change = await shop.confirm(quote)
    assert change.state is ChangeState.APPLIED
    assert await shop.plan() == "pro"
    charged = max(shop.objects("invoice"), key=lambda invoice: invoice["created"])
    assert charged["amount_paid"] == quote.due_today.amount_minor


async def test_s21_a_declined_upgrade_changes_nothing(shop: Shop) -> None:
    await shop.subscribed(plan="starter")
    shop.advance("P10D")
    await shop.sync()
    (customer,) = shop.objects("customer")
    method = shop.new_card(customer["id"], "pm_card_chargeCustomerFail")
    (subscription,) = shop.objects("subscription")
    shop.stripe.subscriptions.update(subscription["id"], {"default_payment_method": method})
    await shop.sync()
    quote = await shop.preview(plan="pro")
    with pytest.raises(Refusal) as caught:
        await shop.confirm(quote)
    assert caught.value.code is Code.PAYMENT_FAILED
    assert await shop.plan() == "starter"
    (after,) = shop.objects("subscription")
    assert after["items"]["data"][0]["price"]["unit_amount"] == 1900
    assert after["pending_update"] is None
    assert not [invoice for invoice in shop.objects("invoice") if invoice["status"] == "open"]
    # The same quote fails in the same words and tries nothing again.
    updates = len(shop.requests(path=subscription["id"]))
    with pytest.raises(Refusal) as again:
        await shop.confirm(quote)
    assert again.value.code is Code.PAYMENT_FAILED
    assert len(shop.requests(path=subscription["id"])) == updates


async def test_s21_an_upgrade_that_needs_the_bank(shop: Shop) -> None:
    stripe_subscription_id = await shop.subscribed(plan="starter")
    (customer,) = shop.objects("customer")
    method = shop.new_card(customer["id"], "pm_card_authenticationRequired")
    shop.stripe.subscriptions.update(stripe_subscription_id, {"default_payment_method": method})
    await shop.sync()
    change = await shop.change(plan="pro")
    assert change.state is ChangeState.REQUIRES_ACTION
    assert change.next_action is not None
    assert change.next_action.kind == "authenticate"
    assert await shop.plan() == "starter"
    assert shop.pay(change.next_action.url, card="visa", authentication="complete") in {200, 303}
    await plan_changes.settle_pending(shop.env, shop.company_id)
    assert await shop.plan() == "pro"
    assert (await plan_changes.get(shop.env, shop.company_id, change.id)).state is ChangeState.APPLIED


async def test_resuming_while_a_downgrade_is_scheduled_takes_it_back(shop: Shop) -> None:
    await shop.subscribed()
    scheduled = await shop.change(plan="starter")
    quote = await shop.preview(resume=True)
    assert (quote.kind, quote.due_today.amount_minor) == (ChangeKind.RESUME, 0)
    assert quote.next_invoice is not None
    assert (quote.next_invoice.amount_minor, quote.next_invoice.at) == (4900, scheduled.effective_at)
    assert (await shop.confirm(quote)).state is ChangeState.APPLIED
    assert [one["status"] for one in shop.objects("subscription_schedule")] == ["released"]
    assert (await plan_changes.get(shop.env, shop.company_id, scheduled.id)).state is ChangeState.CANCELLED
    with pytest.raises(Refusal) as caught:
        await shop.preview(resume=True)
    assert caught.value.code is Code.NOTHING_SCHEDULED


async def test_s22_an_unconfirmed_upgrade_expires(shop: Shop) -> None:
    stripe_subscription_id = await shop.subscribed(plan="starter")
    (customer,) = shop.objects("customer")
    method = shop.new_card(customer["id"], "pm_card_authenticationRequired")
    shop.stripe.subscriptions.update(stripe_subscription_id, {"default_payment_method": method})
    await shop.sync()
    change = await shop.change(plan="pro")
    shop.advance("P1D")
    await shop.sync()
    assert (await plan_changes.get(shop.env, shop.company_id, change.id)).state is ChangeState.FAILED
    assert await shop.plan() == "starter"


async def test_the_story_of_a_downgrade(shop: Shop) -> None:
    stripe_subscription_id = await shop.subscribed()
    quote = await shop.preview(plan="starter")
    assert (quote.kind, quote.is_scheduled, quote.due_today.amount_minor) == (ChangeKind.DOWNGRADE, True, 0)
    assert {effect.feature for effect in quote.lost} == {"exports", "sso"}
    assert quote.next_invoice is not None
    assert (quote.next_invoice.amount_minor, quote.next_invoice.at) == (1900, quote.when)
    change = await shop.confirm(quote)
    assert (change.state, change.effective_at) == (ChangeState.SCHEDULED, quote.when)
    assert await shop.plan() == "pro"

    # While it is scheduled nothing more is bought.
    with pytest.raises(Refusal) as caught:
        await shop.preview(add_ons={"extra-exports": 1})
    assert caught.value.code is Code.DOWNGRADE_SCHEDULED
    assert caught.value.extra["way_out"] == "cancel_scheduled"

    cancelled = await plan_changes.cancel_scheduled(shop.env, shop.company_id, actor=CUSTOMER)
    assert (cancelled.id, cancelled.state) == (change.id, ChangeState.CANCELLED)
    assert shop.stripe.subscriptions.retrieve(stripe_subscription_id).schedule is None
    with pytest.raises(Refusal) as nothing:
        await plan_changes.cancel_scheduled(shop.env, shop.company_id, actor=CUSTOMER)
    assert nothing.value.code is Code.NOTHING_SCHEDULED

    again = await shop.change(plan="starter")
    assert again.state is ChangeState.SCHEDULED
    shop.advance("P1M")
    shop.advance("P1D")
    await shop.sync()
    assert await shop.plan() == "starter"
    assert (await plan_changes.get(shop.env, shop.company_id, again.id)).state is ChangeState.APPLIED
    paid = [invoice["amount_paid"] for invoice in shop.objects("invoice")]
    assert sorted(paid) == [1900, 4900]
    shop.advance("P2M")
    await shop.sync()
    assert await shop.plan() == "starter"
    assert shop.stripe.subscriptions.retrieve(stripe_subscription_id).status == "active"


async def test_d10_a_downgrade_to_free_cancels_at_the_end_and_can_be_taken_back(shop: Shop) -> None:
    stripe_subscription_id = await shop.subscribed()
    quote = await shop.preview(cancel="period_end")
    assert (quote.kind, quote.is_scheduled) == (ChangeKind.CANCEL, True)
    change = await shop.confirm(quote)
    assert change.state is ChangeState.SCHEDULED
    assert shop.stripe.subscriptions.retrieve(stripe_subscription_id).cancel_at is not None
    assert await shop.plan() == "pro"
    kept = await plan_changes.cancel_scheduled(shop.env, shop.company_id, actor=CUSTOMER)
    assert kept.state is ChangeState.CANCELLED
    assert shop.stripe.subscriptions.retrieve(stripe_subscription_id).cancel_at is None

    change = await shop.change(plan="free")
    shop.advance("P1M")
    shop.advance("P1D")
    await shop.sync()
    assert await shop.plan() == "free"
    assert (await plan_changes.get(shop.env, shop.company_id, change.id)).state is ChangeState.APPLIED


async def test_cancelling_now_credits_what_is_left(shop: Shop) -> None:
    await shop.subscribed()
    shop.advance("P10D")
    await shop.sync()
    quote = await shop.preview(cancel="now", actor=STAFF)
    assert quote.credit is not None
    assert 3000 < quote.credit.amount_minor < 3600
    change = await shop.confirm(quote, actor=STAFF)
    assert change.state is ChangeState.APPLIED
    assert await shop.plan() == "free"


async def test_a_downgrade_now_restarts_the_period_and_credits(shop: Shop) -> None:
    await shop.subscribed()
    shop.advance("P10D")
    await shop.sync()
    quote = await shop.preview(plan="starter", when="now", actor=STAFF)
    assert quote.kind is ChangeKind.DOWNGRADE
    assert quote.due_today.amount_minor == 0
    assert quote.credit is not None
    change = await shop.confirm(quote, actor=STAFF)
    assert change.state is ChangeState.APPLIED
    assert await shop.plan() == "starter"
    (customer,) = shop.objects("customer")
    assert customer["balance"] == -quote.credit.amount_minor
    period = (await shop.snapshot()).cycle
    assert period.period_start_at is not None
    assert abs(period.period_start_at - shop.now()) < timedelta(minutes=1)


async def test_d11_an_upgrade_removes_the_scheduled_downgrade(shop: Shop) -> None:
    stripe_subscription_id = await shop.subscribed()
    scheduled = await shop.change(plan="starter")
    change = await shop.change(interval="year")
    assert (change.kind, change.state) == (ChangeKind.UPGRADE, ChangeState.APPLIED)
    assert shop.stripe.subscriptions.retrieve(stripe_subscription_id).schedule is None
    assert (await plan_changes.get(shop.env, shop.company_id, scheduled.id)).state is ChangeState.CANCELLED
    shop.advance("P2M")
    await shop.sync()
    assert await shop.plan() == "pro"


async def test_d11_a_declined_upgrade_leaves_the_scheduled_downgrade(shop: Shop) -> None:
    stripe_subscription_id = await shop.subscribed()
    scheduled = await shop.change(plan="starter")
    (customer,) = shop.objects("customer")
    method = shop.new_card(customer["id"], "pm_card_chargeCustomerFail")
    shop.stripe.subscriptions.update(stripe_subscription_id, {"default_payment_method": method})
    await shop.sync()
    with pytest.raises(Refusal) as caught:
        await shop.change(interval="year")
    assert caught.value.code is Code.PAYMENT_FAILED
    await shop.sync()
    assert (await plan_changes.get(shop.env, shop.company_id, scheduled.id)).state is ChangeState.SCHEDULED
    assert shop.stripe.subscriptions.retrieve(stripe_subscription_id).schedule is not None


async def test_a_second_downgrade_replaces_the_first(shop: Shop) -> None:
    await shop.subscribed(interval="year")
    first = await shop.change(interval="month")
    second = await shop.change(plan="starter")
    assert second.state is ChangeState.SCHEDULED
    assert (await plan_changes.get(shop.env, shop.company_id, first.id)).state is ChangeState.CANCELLED
    assert len([one for one in shop.objects("subscription_schedule") if one["status"] == "active"]) == 1


async def test_add_ons_come_at_once_and_go_at_the_end(shop: Shop) -> None:
    await shop.subscribed()
    added = await shop.change(add_ons={"extra-exports": 2})
    assert (added.kind, added.state) == (ChangeKind.UPGRADE, ChangeState.APPLIED)
    assert (await shop.snapshot()).add_ons[0].quantity == 2
    removed = await shop.change(add_ons={"extra-exports": 0})
    assert (removed.kind, removed.state) == (ChangeKind.DOWNGRADE, ChangeState.SCHEDULED)
    assert (await shop.snapshot()).add_ons[0].quantity == 2
    shop.advance("P1M")
    shop.advance("P1D")
    await shop.sync()
    assert (await shop.snapshot()).add_ons == ()
    assert await shop.plan() == "pro"
    assert (await plan_changes.get(shop.env, shop.company_id, removed.id)).state is ChangeState.APPLIED


async def test_a_foreign_schedule_is_respected(shop: Shop) -> None:
    stripe_subscription_id = await shop.subscribed()
    shop.stripe.subscription_schedules.create({"from_subscription": stripe_subscription_id})
    await shop.sync()
    wishes: list[dict[str, Any]] = [{"plan": "starter"}, {"interval": "year"}, {"cancel": "period_end"}]
    for asked in wishes:
        with pytest.raises(Refusal) as caught:
            await shop.change(**asked)
        assert caught.value.code is Code.FOREIGN_SCHEDULE
    with pytest.raises(Refusal) as cancelling:
        await plan_changes.cancel_scheduled(shop.env, shop.company_id, actor=CUSTOMER)
    assert cancelling.value.code in {Code.FOREIGN_SCHEDULE, Code.NOTHING_SCHEDULED}
    assert [one["status"] for one in shop.objects("subscription_schedule")] == ["active"]


async def test_past_due_refuses_all_but_cancelling(shop: Shop) -> None:
    stripe_subscription_id = await shop.subscribed()
    (customer,) = shop.objects("customer")
    method = shop.new_card(customer["id"], "pm_card_chargeCustomerFail")
    shop.stripe.subscriptions.update(stripe_subscription_id, {"default_payment_method": method})
    shop.advance("P1M")
    shop.advance("PT6H")
    await shop.sync()
    subscription = (await shop.snapshot()).subscription
    assert subscription is not None
    assert subscription.status == "past_due"
    assert subscription.past_due_since is not None
    assert await shop.plan() == "pro"
    with pytest.raises(Refusal) as caught:
        await shop.preview(plan="starter")
    assert caught.value.code is Code.PAST_DUE
    assert (await shop.change(cancel="period_end")).state is ChangeState.SCHEDULED


@pytest.mark.parametrize("leaves", ["past_due", "unpaid", "paused"])
@pytest.mark.parametrize(("when", "state"), [("now", ChangeState.APPLIED), ("period_end", ChangeState.SCHEDULED)])
async def test_what_is_suspended_and_grants_nothing_can_be_cancelled(
    shop: Shop, when: str, state: ChangeState, leaves: str
) -> None:
    """Stripe still tries to charge, or leaves it unpaid or paused for ever: it has to end some day."""
    stripe_subscription_id = await shop.subscribed()
    (customer,) = shop.objects("customer")
    method = shop.new_card(customer["id"], "pm_card_chargeCustomerFail")
    shop.stripe.subscriptions.update(stripe_subscription_id, {"default_payment_method": method})
    shop.advance("P40D")
    shop.sandbox.app_state.sandbox.world.store.get("subscription", stripe_subscription_id)["status"] = leaves
    await shop.sync()
    await refetch(shop.env, shop.company_id)
    found = shop.stripe.subscriptions.retrieve(stripe_subscription_id)
    assert (found.status, await shop.plan()) == (leaves, "free")
    quote = await shop.preview(cancel=when)
    assert (quote.due_today.amount_minor, quote.credit, quote.lost) == (0, None, ())
    assert (await shop.confirm(quote)).state is state
    found = shop.stripe.subscriptions.retrieve(stripe_subscription_id)
    assert (found.status == "canceled", found.cancel_at is not None) == (when == "now", when == "period_end")
    if when == "period_end":
        assert (await plan_changes.cancel_scheduled(shop.env, shop.company_id, actor=CUSTOMER)).state == "cancelled"
    else:
        with pytest.raises(Refusal) as caught:
            await shop.preview(cancel="now")
        assert caught.value.code is Code.NO_CHANGE


async def test_portal_needs_a_customer(shop: Shop) -> None:
    with pytest.raises(Refusal) as caught:
        await plan_changes.portal_url(shop.env, shop.company_id, return_url=RETURN_URL)
    assert caught.value.code is Code.NOT_FOUND
    await shop.customer()
    url = await plan_changes.portal_url(shop.env, shop.company_id, return_url=RETURN_URL)
    assert url.startswith(shop.sandbox.url)


async def test_nothing_to_change(shop: Shop) -> None:
    await shop.subscribed()
    with pytest.raises(Refusal) as caught:
        await shop.preview(plan="pro")
    assert caught.value.code is Code.NO_CHANGE
