"""Prices of every few months on every page: chosen by their key, said in words, and put in order of length."""

import re

import msgspec
import pytest

from plangate.engine.holding import Holding
from plangate.engine.values import Interval
from plangate.shapes import Company, HeldAddOn, ScheduledChange
from plangate.web.fragments import render
from plangate.web.views.plan_manager import Abilities, plan_manager_view
from plangate.web.views.pricing import PricingWish, pricing_view
from plangate.web.views.receipt import receipt_view
from plangate.web.views.rhythms import Rhythm, rhythm_of
from tests.components import canned

ALL = Abilities(can_change=True, can_pay=True)
CHECKED = re.compile(r'value="([^"]+)" id="[^"]+" data-keep checked')


def _table(company: Company | None = None, *, interval: str = "") -> str:
    catalog, wish = canned.rhythmic_catalog(), PricingWish(interval=interval)
    return render(pricing_view(canned.frame(), catalog, company, wish=wish, can_change=company is not None))


def _shown(html: str) -> str:
    """What is read before anything else is chosen, without tags."""
    seen = re.sub(r"<(p|span|button)\b[^>]* hidden(?: [^>]*)?>.*?</\1>", "", html, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", "", seen).split())


def _facts(company: Company, holding: Holding | None = None) -> dict[str, str]:
    catalog = canned.rhythmic_catalog()
    view = plan_manager_view(canned.frame(), catalog, company, [], holding=holding, abilities=ALL)
    return {fact.label: fact.text for fact in view.facts}


def _waiting(company: Company, *, interval_count: int) -> Company:
    """The company, which moves to another rhythm of Starter."""
    change = ScheduledChange(
        id="chg_1",
        kind="downgrade",
        plan="starter",
        effective_at=canned.RESET,
        interval="month",
        interval_count=interval_count,
    )
    return msgspec.structs.replace(company, scheduled_change=change)


@pytest.mark.parametrize(
    ("key", "rhythm"),
    [
        ("month", Rhythm(Interval.MONTH)),
        ("3-month", Rhythm(Interval.MONTH, 3)),
        ("1095-day", Rhythm(Interval.DAY, 1095)),
        ("2-week", Rhythm(Interval.WEEK, 2)),
    ],
)
def test_a_key_names_a_rhythm_and_a_rhythm_its_key(key: str, rhythm: Rhythm) -> None:
    assert rhythm_of(key) == rhythm
    assert rhythm.key == key


@pytest.mark.parametrize(
    "key", ["", "decade", "3-months", "0-month", "-3-month", "3 month", "\u0663-month", "99999-day"]
)
def test_what_is_no_key_names_nothing(key: str) -> None:
    assert rhythm_of(key) is None


def test_the_table_offers_every_rhythm_the_shortest_first() -> None:
    html = _table()
    assert re.findall(r'name="interval" value="([^"]+)"', html) == ["week", "month", "3-month", "year"]
    assert CHECKED.findall(html) == ["month"]
    assert "<span>Every 3 months</span>" in html
    assert "Save up to $38" in html
    assert "Not sold this way" in _shown(html)


def test_the_page_can_ask_for_the_quarter() -> None:
    html = _table(interval="3-month")
    assert CHECKED.findall(html) == ["3-month"]
    shown = _shown(html)
    assert "$129.50 / 3 months" in shown
    assert "14 days free, then $129.50 every 3 months" in shown
    assert "$135 / 3 months" in shown
    assert "Billed every 3 months" in shown
    assert "Choose Pro" in shown
    assert "/month" not in shown
    assert "Not sold this way" not in shown


def test_the_table_of_who_pays_by_the_quarter_begins_there_and_offers_the_rest() -> None:
    html = _table(canned.company("starter", interval_count=3))
    assert CHECKED.findall(html) == ["3-month"]
    assert "Upgrade to Pro" in _shown(html)
    assert 'id="choose-starter-3-month"' not in html
    for words in ("Switch to weekly", "Switch to monthly", "Switch to yearly"):
        assert words in html
    assert "Switch to every 3 months" in _table(canned.company("starter"))


def test_only_the_rhythm_that_waits_is_said_to_start() -> None:
    html = _table(_waiting(canned.company("starter", interval="year"), interval_count=3))
    assert html.count("Starts December 3") == 1
    assert 'id="choose-starter-month"' in html
    assert 'id="choose-starter-3-month"' not in html


def test_the_manager_says_what_is_paid_every_three_months() -> None:
    facts = _facts(canned.company("starter", interval_count=3))
    assert facts["You pay"] == "$129.50 every 3 months"
    assert facts["Next payment"] == "$129.50 on December 3"


@pytest.mark.parametrize(("count", "amount"), [(3, "$129.50"), (1, "$19.00")])
def test_the_next_payment_is_of_the_rhythm_that_waits(count: int, amount: str) -> None:
    company = _waiting(canned.company("starter", interval="year"), interval_count=count)
    assert _facts(company)["Next payment"] == f"{amount} on December 3"


def test_a_price_agreed_on_is_said_as_often_as_it_is_paid() -> None:
    price = canned.rhythmic_catalog().plans["pro"].prices[0]
    holding = Holding(plan="pro", version=3, own_price=msgspec.structs.replace(price, amount_minor=9_900))
    assert _facts(canned.company("pro", interval_count=3), holding)["You pay"] == "$99.00 every 3 months"


def test_an_add_on_beside_a_quarterly_plan_is_offered_by_the_month() -> None:
    company = canned.company("starter", interval_count=3, add_ons=(HeldAddOn(key="audit", version=1, quantity=1),))
    view = plan_manager_view(canned.frame(), canned.rhythmic_catalog(), company, [], abilities=ALL)
    prices = {line.key: line.price for line in view.add_ons}
    assert prices == {"audit": "$15 a month", "extra-exports": "$10 a month each"}


def test_the_receipt_names_the_quarter() -> None:
    wish = {"plan": "pro", "interval": "3-month"}
    held = canned.company("pro")
    html = render(receipt_view(canned.frame(), canned.rhythmic_catalog(), held, canned.quote(), wish=wish, key="k"))
    assert ">Pay for Pro every 3 months</h2>" in html
