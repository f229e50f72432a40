"""A quote as a receipt, and a refusal as a way out: what they say, and what their buttons promise."""

import pytest
from msgspec import structs

from plangate.engine.catalog import Price
from plangate.engine.values import Interval
from plangate.errors import Code, Refusal
from plangate.shapes import ChangeKind, HeldAddOn, Money, Quote, QuoteLine, UsagePrice
from plangate.web.fragments import render
from plangate.web.views.plan_manager import Abilities
from plangate.web.views.receipt import receipt_view, refusal_view
from tests.components import canned

ALL = Abilities(can_change=True, can_pay=True)


def test_the_receipt_repeats_the_amount_or_the_date_on_its_button() -> None:
    frame, catalog, company = canned.frame(), canned.catalog(), canned.company("free")
    now = render(receipt_view(frame, catalog, company, canned.quote(), wish={"plan": "pro"}, key="k1"))
    assert "Pay $49.00 now" in now
    assert "Exports: 1,000 exports instead of 10" in now
    assert 'data-key="k1"' in now
    paid = canned.company("pro")
    later = render(
        receipt_view(frame, catalog, paid, canned.quote(ChangeKind.DOWNGRADE), wish={"plan": "starter"}, key="k")
    )
    assert "Switch on December 3" in later
    assert "Ends with it: Audit log" in later
    assert "Next payment: $19.00 on December 3." in later
    leaving = render(
        receipt_view(frame, catalog, paid, canned.quote(ChangeKind.CANCEL), wish={"cancel": "period_end"}, key="k")
    )
    assert "Cancel on December 3" in leaving
    assert "No further payments." in leaving
    assert "your work is kept" in leaving


def test_the_receipt_says_what_usage_costs_beside_the_next_payment() -> None:
    frame, catalog, company = canned.frame(), canned.catalog(), canned.company("free")
    used = (
        UsagePrice(
            feature="ai-words",
            name="AI words",
            price=Price(currency="usd", interval=Interval.MONTH, amount_minor=200, package_size=1000, is_metered=True),
        ),
        UsagePrice(
            feature="exports",
            name="Exports",
            price=Price(currency="usd", interval=Interval.MONTH, amount_decimal="0.5", is_metered=True),
        ),
    )
    quote = structs.replace(canned.quote(), plus_usage=used)
    html = render(receipt_view(frame, catalog, company, quote, wish={"plan": "pro"}, key="k"))
    assert "Next payment: $49.00 on December 3, plus what you use:" in html
    assert "<li>AI words beyond what is included: $2.00 per 1,000 words</li>" in html
    assert "<li>Exports: $0.005 per export</li>" in html
    alone = structs.replace(quote, next_invoice=None)
    html = render(receipt_view(frame, catalog, company, alone, wish={"plan": "pro"}, key="k"))
    assert "You pay for what you use:" in html
    assert "plus what you use" not in render(receipt_view(frame, catalog, company, canned.quote(), wish={}, key="k"))


def column(quote: Quote) -> tuple[list[tuple[str, str]], str]:
    """The amounts of the receipt from top to bottom, the total last, and all its text."""
    view = receipt_view(canned.frame(), canned.catalog(), canned.company("pro"), quote, wish={"plan": "pro"}, key="k")
    return [(line.text, line.amount) for line in (*view.lines, view.due)], render(view)


def _dollars(amount_minor: int) -> Money:
    return Money(amount_minor=amount_minor, currency="usd")


def test_the_receipt_adds_up_when_more_is_given_back_than_charged() -> None:
    given = QuoteLine(description="Unused time on Pro", amount_minor=-4900, proration=True)
    taken = QuoteLine(description="1 Starter", amount_minor=1900)
    quote = structs.replace(
        canned.quote(), due_today=_dollars(0), lines=(given, taken), tax=_dollars(-570), credit=_dollars(3570)
    )
    amounts, html = column(quote)
    assert amounts == [
        ("Unused time on Pro", "-$49.00"),
        ("1 Starter", "$19.00"),
        ("Tax", "-$5.70"),
        ("Kept as credit on your balance", "$35.70"),
        ("Due today", "$0.00"),
    ]
    assert "include" not in html


def test_the_receipt_adds_up_when_prices_include_the_tax() -> None:
    line = QuoteLine(description="1 Pro", amount_minor=4900)
    amounts, html = column(structs.replace(canned.quote(), lines=(line,), tax=_dollars(782)))
    assert amounts == [("1 Pro", "$49.00"), ("Due today", "$49.00")]
    assert "The prices above include $7.82 tax." in html
    both = structs.replace(canned.quote(), due_today=_dollars(5000), lines=(line,), tax=_dollars(882))
    amounts, html = column(both)
    assert amounts == [("1 Pro", "$49.00"), ("Tax", "$1.00"), ("Due today", "$50.00")]
    assert "The prices above include $7.82 tax." in html


@pytest.mark.parametrize(
    ("wish", "title"),
    [
        ({"add_on": "audit", "quantity": "1"}, "Add Audit log"),
        ({"add_on": "extra-exports", "quantity": "3"}, "Extra exports: change to 3"),
        ({"add_on": "extra-exports", "quantity": "0"}, "Remove Extra exports"),
        ({"plan": "pro", "interval": "year"}, "Pay for Pro by the year"),
        ({"unit": "seats", "quantity": "4"}, "Seats: change to 4"),
    ],
)
def test_the_receipt_of_one_plan_names_what_changes_in_it(wish: dict[str, str], title: str) -> None:
    held = canned.company("pro", add_ons=(HeldAddOn(key="extra-exports", version=1, quantity=2),))
    html = render(receipt_view(canned.frame(), canned.catalog(), held, canned.quote(), wish=wish, key="k"))
    assert f">{title}</h2>" in html


def test_an_over_limit_refusal_names_feature_usage_and_limit() -> None:
    frame, catalog, company = canned.frame(), canned.catalog(), canned.company("pro")
    html = render(refusal_view(frame, catalog, company, canned.over_limit("Too much."), abilities=ALL, plan="starter"))
    assert "Seats: you use 8, the limit would be 3." in html
    assert "You use more than Starter allows." in html


def test_a_refusal_carries_the_button_that_leads_out() -> None:
    frame, catalog, company = canned.frame(), canned.catalog(), canned.company("pro", scheduled="starter")

    def shown(code: Code, abilities: Abilities = ALL, **extra: object) -> str:
        return render(refusal_view(frame, catalog, company, Refusal(code, "No.", extra=extra), abilities=abilities))

    assert "Keep Pro" in shown(Code.DOWNGRADE_SCHEDULED)
    assert "Keep Pro" not in shown(Code.DOWNGRADE_SCHEDULED, Abilities())
    assert 'hx-post="portal"' in shown(Code.PAST_DUE)
    assert 'hx-post="portal"' in shown(Code.PAYMENT_FAILED)
    assert 'hx-post="portal"' not in shown(Code.PAYMENT_FAILED, Abilities(can_change=True))
    assert 'href="https://sales.test/"' in shown(Code.CONTACT_US, url="https://sales.test/", label="Talk to us")
    assert 'href="https://pay.test/"' in shown(Code.PAYMENT_FAILED, next_action={"url": "https://pay.test/"})
    assert "href" not in shown(Code.CONTACT_US, url="javascript:alert(1)")


def test_a_plan_is_kept_only_where_another_was_chosen() -> None:
    frame, catalog, held = canned.frame(), canned.catalog(), canned.company("pro")
    less = canned.quote(ChangeKind.DOWNGRADE)
    fewer = receipt_view(frame, catalog, held, less, wish={"add_on": "extra-exports", "quantity": "1"}, key="k")
    assert fewer.cancel_label == "Not now"
    smaller = receipt_view(frame, catalog, held, less, wish={"plan": "starter"}, key="k")
    assert smaller.cancel_label == "Keep Pro"


def test_what_is_so_already_is_no_refusal_and_the_page_behind_is_loaded_again() -> None:
    frame, catalog, held = canned.frame(), canned.catalog(), canned.company("pro")
    so_already = Refusal(Code.NO_CHANGE, "That is scheduled already.")
    same = render(refusal_view(frame, catalog, held, so_already, abilities=ALL))
    assert "Nothing to change" in same
    assert "That is scheduled already." in same
    assert "not possible" not in same
    assert "data-close data-retry" in same
    other = render(refusal_view(frame, catalog, held, Refusal(Code.PAST_DUE, "Pay first."), abilities=ALL))
    assert "data-retry" not in other


def test_nothing_is_called_a_downgrade_where_the_subscription_ends() -> None:
    frame, catalog, company = canned.frame(), canned.catalog(), canned.company("pro", scheduled="free")
    assert company.scheduled_change is not None
    ending = structs.replace(company, scheduled_change=structs.replace(company.scheduled_change, kind="cancel"))
    refusal = Refusal(Code.DOWNGRADE_SCHEDULED, "A downgrade is scheduled.")
    html = render(refusal_view(frame, catalog, ending, refusal, abilities=ALL))
    assert "Your subscription ends on December 3, so nothing can be added to it." in html
    assert "Keep Pro" in html
    assert "A downgrade is scheduled." in render(refusal_view(frame, catalog, company, refusal, abilities=ALL))
