"""Promotion codes: an invalid one is refused before anything is promised, a valid one shows in the amounts."""

from typing import Any

import pytest

from plangate.errors import Code, Refusal
from plangate.shapes import ChangeState
from tests.shop import Shop


def code(shop: Shop, text: str = "SAVE10", *, code_is: dict[str, Any] | None = None, **coupon: Any) -> str:  # noqa: ANN401 - Stripe's members
    """A promotion code that customers type as `text`; answers Stripe's id."""
    wanted: Any = {"duration": "once", **(coupon or {"percent_off": 10})}
    made = shop.stripe.coupons.create(wanted)
    asked: Any = {"promotion": {"type": "coupon", "coupon": made.id}, "code": text, **(code_is or {})}
    return shop.stripe.promotion_codes.create(asked).id


async def refused(shop: Shop, text: str) -> Refusal:
    with pytest.raises(Refusal) as caught:
        await shop.preview(plan="pro", promotion_code=text)
    assert (caught.value.code, caught.value.errors[0].pointer) == (Code.INVALID, "/promotion_code")
    return caught.value


async def test_an_invalid_code_is_refused_at_the_preview(shop: Shop) -> None:
    await refused(shop, "NOPE")
    await refused(shop, "promo_nope")
    stripe_code_id = code(shop, "OVER")
    shop.stripe.promotion_codes.update(stripe_code_id, {"active": False})
    await refused(shop, "OVER")
    await refused(shop, stripe_code_id)
    rival = shop.stripe.customers.create({"name": "Rival"})
    code(shop, "THEIRS", code_is={"customer": rival.id})
    assert "another customer" in (await refused(shop, "THEIRS")).detail
    code(shop, "EURO", amount_off=500, currency="eur")
    assert "USD" in (await refused(shop, "EURO")).detail
    code(shop, "SOON", code_is={"expires_at": int(shop.now().timestamp()) + 3600})
    assert (await shop.preview(plan="pro", promotion_code="soon")).due_today.amount_minor == 4410
    shop.advance("PT2H")
    await refused(shop, "SOON")
    assert shop.objects("checkout.session") == []


@pytest.mark.parametrize(
    ("coupon", "due", "following"),
    [
        ({"percent_off": 10, "duration": "once"}, 4410, 4900),
        ({"percent_off": 33.5, "duration": "forever"}, 3258, 3258),
        ({"amount_off": 900, "currency": "usd", "duration": "repeating", "duration_in_months": 3}, 4000, 4000),
        ({"amount_off": 9900, "currency": "usd", "duration": "once"}, 0, 4900),
    ],
)
@pytest.mark.parametrize("is_customer", [False, True])
async def test_the_amounts_of_a_checkout_include_the_code(
    shop: Shop, coupon: dict[str, Any], due: int, following: int, *, is_customer: bool
) -> None:
    if is_customer:
        await shop.customer(None)
    code(shop, **coupon)
    quote = await shop.preview(plan="pro", promotion_code="SAVE10")
    assert (quote.needs_checkout, quote.due_today.amount_minor) == (True, due)
    assert sum(line.amount_minor for line in quote.lines) == due
    assert quote.next_invoice is not None
    assert quote.next_invoice.amount_minor == following
    change = await shop.confirm(quote)
    assert change.next_action is not None
    assert shop.pay(change.next_action.url) == 303
    assert [invoice["amount_paid"] for invoice in shop.objects("invoice")] == [due]


async def test_an_open_checkout_without_the_code_is_not_used_for_a_quote_with_it(shop: Shop) -> None:
    code(shop)
    plain = await shop.change(plan="pro")
    reduced = await shop.change(plan="pro", promotion_code="SAVE10")
    again = await shop.change(plan="pro", promotion_code="save10")
    assert reduced.id != plain.id
    assert again.id == reduced.id
    assert reduced.state is ChangeState.AWAITING_PAYMENT
    assert sorted(session["status"] for session in shop.objects("checkout.session")) == ["expired", "open"]


async def test_a_code_for_a_first_purchase_is_refused_to_who_has_paid_before(shop: Shop) -> None:
    code(shop, "FIRST", code_is={"restrictions": {"first_time_transaction": True}})
    await shop.customer()
    assert (await shop.change(plan="starter", promotion_code="FIRST")).state is ChangeState.APPLIED
    assert "first purchase" in (await refused(shop, "FIRST")).detail
