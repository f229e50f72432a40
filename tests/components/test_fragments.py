"""Every fragment renders from its view model alone, escapes what people typed, and stays small."""

import gzip
import re
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from typing import Any

import msgspec
import pytest
from msgspec import structs

from plangate.engine.catalog import Catalog, Entitlement, Price, PriceOwner, PriceTier
from plangate.engine.decision import SourceKind
from plangate.engine.holding import Holding
from plangate.engine.values import UNLIMITED, Interval, PeriodKind, PriceBehaviour
from plangate.errors import Code, Refusal
from plangate.shapes import (
    ChangeKind,
    ChangeState,
    Company,
    HeldAddOn,
    PlanChange,
)
from plangate.web.fragments import Action, Fragment, LeavingView, Notice, ProblemView, render, web_address
from plangate.web.views.invoices import invoices_view, portal_view
from plangate.web.views.offers import is_more
from plangate.web.views.plan_manager import Abilities, plan_manager_view
from plangate.web.views.pricing import PricingWish, pricing_view
from plangate.web.views.receipt import receipt_view, refusal_view
from plangate.web.views.usage import usage_view
from tests.components import canned

ALL = Abilities(can_change=True, can_pay=True)
HOSTILE = """"><img src=x onerror=alert(1)><script>alert(2)</script>{{ 7 * 7 }}' & \u202e"""


class _Inventory(HTMLParser):
    """What a fragment is made of, as a browser would read it."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.names: set[str] = set()
        self.links: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element and its attributes."""
        self.tags.add(tag)
        self.names |= {name for name, _ in attrs}
        self.links += [value or "" for name, value in attrs if name in {"href", "src", "action"}]


def _refuse_what_a_strict_page_forbids(html: str) -> None:
    found = _Inventory(html)
    assert not found.tags & {"script", "style", "title", "img", "iframe", "object", "link", "base", "meta"}
    assert not [name for name in found.names if name.startswith(("on", "hx-on", "style"))]
    assert all(web_address(link) for link in found.links)


def _table(company: Company | None = None, *, catalog: Catalog | None = None, wish: PricingWish | None = None) -> str:
    return render(
        pricing_view(canned.frame(), catalog or canned.catalog(), company, wish=wish or PricingWish(), can_change=True)
    )


def _manager(company: Company, *changes: PlanChange, abilities: Abilities = ALL) -> str:
    return render(plan_manager_view(canned.frame(), canned.catalog(), company, changes, abilities=abilities))


def _meters(*args: object, **kwargs: object) -> str:
    decision = canned.decision(*args, **kwargs)  # type: ignore[arg-type]  # the test names what it means
    return render(usage_view(canned.frame(), canned.catalog(), [decision], can_change=True))


def _hostile_catalog() -> Catalog:
    catalog = canned.catalog()
    features = {
        key: msgspec.structs.replace(one, name=HOSTILE, description=HOSTILE, unit=HOSTILE, units=HOSTILE)
        for key, one in catalog.features.items()
    }
    plans = {
        key: msgspec.structs.replace(one, name=HOSTILE, description=HOSTILE, contact_url="javascript:alert(1)")
        for key, one in catalog.plans.items()
    }
    add_ons = {
        key: msgspec.structs.replace(one, name=HOSTILE, description=HOSTILE) for key, one in catalog.add_ons.items()
    }
    return msgspec.structs.replace(catalog, features=features, plans=plans, add_ons=add_ons)


def _all_views(catalog: Catalog, word: str) -> list[Fragment]:
    frame = canned.frame()
    rich = canned.company("pro", scheduled="starter", add_ons=(HeldAddOn(key="extra-exports", version=1, quantity=2),))
    wish = {"plan": word, "quantity": word}
    invoice = {"created": 1_790_000_000, "total": 4900, "currency": "usd", "status": word, "hosted_invoice_url": word}
    return [
        pricing_view(frame, catalog, None, wish=PricingWish(sign_up_url=word), can_change=False),
        pricing_view(frame, catalog, rich, wish=PricingWish(), can_change=True, notice=Notice(text=word)),
        plan_manager_view(frame, catalog, rich, [canned.change(ChangeState.REQUIRES_ACTION, url=word)], abilities=ALL),
        plan_manager_view(frame, catalog, canned.company("pro", status=word), [], abilities=ALL),
        pricing_view(frame, canned.priced_catalog(), None, wish=PricingWish(), can_change=False),
        usage_view(frame, catalog, canned.decisions("free", 10), can_change=True),
        usage_view(frame, catalog, canned.decisions("pro", 820), features=["exports", "sso", "ai-words"]),
        receipt_view(frame, catalog, rich, canned.quote(ChangeKind.DOWNGRADE, text=word), wish=wish, key=word),
        receipt_view(frame, catalog, rich, canned.quote(), wish={}, key="k", is_fresh_price=True),
        receipt_view(frame, catalog, rich, canned.violating_quote(), wish={}, key="k"),
        refusal_view(frame, catalog, rich, canned.over_limit(word), abilities=ALL, plan="starter"),
        refusal_view(frame, catalog, rich, Refusal(Code.DOWNGRADE_SCHEDULED, word), abilities=ALL),
        refusal_view(frame, catalog, rich, Refusal(Code.CONTACT_US, word, extra={"url": word}), abilities=ALL),
        ProblemView(frame=frame, text=word, hint=word, can_retry=True),
        LeavingView(frame=frame, text=word, action=Action(label=word, url="https://pay.test/")),
        invoices_view(frame, [invoice]),
        portal_view(frame, can_open=True),
        portal_view(frame, can_open=False),
    ]


def test_hostile_words_stay_words_in_every_fragment() -> None:
    for view in _all_views(_hostile_catalog(), HOSTILE):
        html = render(view)
        assert HOSTILE not in html
        _refuse_what_a_strict_page_forbids(html)


def test_no_fragment_needs_anything_inline_or_weighs_more_than_six_kilobytes() -> None:
    for view in _all_views(canned.catalog(), "word"):
        html = render(view)
        _refuse_what_a_strict_page_forbids(html)
        assert len(gzip.compress(html.encode(), 6)) <= 6_000
        assert 'lang="en"' in html


def test_the_table_names_the_saving_the_trial_and_the_difference() -> None:
    html = _table()
    assert "Save up to $98" in html
    assert "14 days free, then $19 a month" in html
    assert "Everything in Starter, and:" in html
    assert "instead of 100" in html
    assert "Choose Pro" in html
    assert "mailto:sales@northwind.test" in html
    assert "Your plan" not in html


def test_the_table_marks_the_held_plan_and_names_each_way_from_it() -> None:
    html = _table(canned.company("pro"))
    assert html.count("Your plan") == 2
    assert "Switch to yearly" in html
    assert "Move to Starter" in html
    assert "Move to Free" in html
    assert "EUR" not in html
    scheduled = _table(canned.company("pro", scheduled="starter"))
    assert "Starts December 3" in scheduled


def test_everything_in_a_plan_is_said_only_where_nothing_of_it_is_missing() -> None:
    plain = canned.catalog()
    team = structs.replace(
        plain.plans["starter"],
        key="team",
        name="Team",
        position=4,
        entitlements=(
            canned.exports(500),
            Entitlement(feature="seats", limit=5),
            Entitlement(feature="upload", config=9),
        ),
    )
    html = _table(catalog=structs.replace(plain, plans={**plain.plans, "team": team}))
    assert "Everything in Enterprise" not in html
    card = html.partition("<h2>Team</h2>")[2]
    assert "Includes:" in card
    assert "500 exports a month" in card
    assert "5 seats" in card
    assert "instead of" not in card


def test_a_yearly_plan_compares_by_the_month() -> None:
    html = _table(canned.company("starter", interval="year"))
    assert "Upgrade to Pro" in html
    assert "Move to Pro" not in html
    assert 'value="year" id="interval-year" data-keep checked' in html


def test_plans_can_be_chosen_and_ordered_by_the_page() -> None:
    html = _table(wish=PricingWish(plans=["pro", "starter", "nonsense"], currency="EUR"))
    names = re.findall(r"<h2>(\w+)</h2>", html)
    assert names == ["Pro", "Starter"]
    assert "€" in html


def test_ten_plans_of_sixty_features_stay_one_table() -> None:
    html = _table(catalog=canned.crowded_catalog())
    assert html.count('part="plan') == 10
    assert "All of it (60 features)" in html


def test_an_empty_catalogue_says_so() -> None:
    assert "No plans are on sale right now." in _table(catalog=Catalog(revision=1))


def test_the_manager_says_what_it_costs_and_when_it_is_paid_next() -> None:
    company = canned.company("pro", add_ons=(HeldAddOn(key="extra-exports", version=1, quantity=2),))
    html = _manager(company)
    assert "$69.00 a month" in html
    assert "$69.00 on December 3" in html
    assert "You have 2" in html
    assert "Cancel subscription" in html
    assert 'value="2"' in html


def test_a_scheduled_downgrade_is_a_calm_banner_with_the_way_back() -> None:
    html = _manager(canned.company("pro", scheduled="starter"))
    assert "You move to Starter on December 3." in html
    assert "$19.00 on December 3" in html
    assert 'hx-post="cancel-scheduled"' in html
    assert "Cancel subscription" in html


def _gains(html: str, plan: str) -> str:
    """What a plan's card lists as gained over the plan before it."""
    _, found, rest = html.partition(f"Everything in {plan}")
    assert found, html
    return rest.partition("</ul>")[0]


def test_what_costs_nothing_beyond_is_a_gain_over_what_charges_beyond_a_soft_limit() -> None:
    plain = canned.priced_catalog()
    enterprise = structs.replace(
        plain.plans["grow"],
        key="enterprise",
        name="Enterprise",
        position=3,
        is_recommended=False,
        entitlements=(
            Entitlement(feature="ai-words", limit=UNLIMITED, period=PeriodKind.BILLING_MONTH),
            *plain.plans["grow"].entitlements[1:],
        ),
    )
    gains = _gains(_table(catalog=structs.replace(plain, plans={**plain.plans, "enterprise": enterprise})), "Grow")
    assert "Unlimited words" in gains
    # What both charge for in the same way is none.
    assert "exports" not in gains


@pytest.mark.parametrize(
    ("granted", "before", "is_gain"),
    [
        ({}, {"soft_limit": 10}, True),
        ({"soft_limit": 10}, {}, False),
        ({"soft_limit": 20}, {"soft_limit": 10}, True),
        ({"soft_limit": 10}, {"soft_limit": 10}, False),
        ({}, {}, False),
        ({}, {"price_behaviour": PriceBehaviour.PAY_AS_YOU_GO}, True),
        ({"price_behaviour": PriceBehaviour.TIERS}, {"price_behaviour": PriceBehaviour.PAY_AS_YOU_GO}, False),
        ({"price_behaviour": PriceBehaviour.PAY_AS_YOU_GO}, {}, False),
        ({"price_behaviour": PriceBehaviour.PAY_AS_YOU_GO}, {"limit": 10}, True),
    ],
)
def test_of_two_that_stop_nobody_the_one_with_more_that_is_free_gives_more(
    granted: dict[str, Any], before: dict[str, Any], is_gain: bool
) -> None:
    endless = Entitlement(feature="ai-words", limit=UNLIMITED)
    assert is_more(structs.replace(endless, **granted), structs.replace(endless, **before)) is is_gain


def test_an_ending_subscription_says_when_and_that_nothing_more_is_paid() -> None:
    html = _manager(canned.company("pro", cancel_at=canned.RESET))
    assert "Your subscription ends on December 3." in html
    assert "Nothing to pay" in html


def test_a_viewer_gets_no_buttons() -> None:
    html = _manager(canned.company("pro", scheduled="starter"), abilities=Abilities())
    assert "hx-post" not in html
    assert "hx-get" not in html
    table = render(
        pricing_view(canned.frame(), canned.catalog(), canned.company("pro"), wish=PricingWish(), can_change=False)
    )
    assert 'type="submit"' not in table


@pytest.mark.parametrize(
    ("state", "sentence", "button"),
    [
        (ChangeState.AWAITING_PAYMENT, "Your move to Pro waits for payment.", "Continue to payment"),
        (ChangeState.REQUIRES_ACTION, "Your bank wants you to confirm the payment.", "Confirm payment"),
        (ChangeState.APPLYING, "Your payment is being confirmed.", "load delay:3s"),
    ],
)
def test_an_unfinished_change_says_what_is_missing(state: ChangeState, sentence: str, button: str) -> None:
    html = _manager(canned.company("free"), canned.change(state))
    assert sentence in html
    assert button in html


def test_an_overdue_payment_comes_first() -> None:
    html = _manager(canned.company("pro", status="past_due", scheduled="starter"))
    assert html.index("did not go through") < html.index("You move to Starter")
    assert "Payment overdue" in html


def test_a_used_up_meter_says_when_it_resets_and_what_helps() -> None:
    html = _meters("exports", 10, 10, unlock=canned.unlock_pro())
    sentence = "You&#39;ve used all 10 exports. They reset on December 3, or move to Pro for 1,000 exports a month."
    assert sentence in html
    assert '<input type="hidden" name="plan" value="pro">' in html
    assert 'max="10" value="10"' in html


@pytest.mark.parametrize(
    ("used", "limit", "tone", "sentence"),
    [
        (79, 100, "", None),
        (80, 100, "warn", "Nearly used up: 20 exports left"),
        (99, 100, "warn", "Nearly used up: 1 export left"),
        (100, 100, "bad", "You&#39;ve used all 100 exports."),
        (130, 100, "bad", "You&#39;re over your limit: 130 of 100 exports."),
        (1, 1, "bad", "You&#39;ve used your 1 export."),
        (3, 0, "bad", "You&#39;re over your limit: 3 of 0 exports."),
    ],
)
def test_meters_warn_at_eighty_and_stop_at_a_hundred(used: int, limit: int, tone: str, sentence: str | None) -> None:
    html = _meters("exports", used, limit)
    assert f'class="meter {tone}"' in html
    assert sentence is None or sentence in html


def test_soft_limits_and_unlimited_say_what_happens() -> None:
    soft = _meters("ai-words", 61_500, None, soft_limit=50_000, unlimited=True)
    assert "11,500 over the 50,000 words included. The rest is paid as you go." in soft
    included = _meters("ai-words", 10, None, soft_limit=50_000, unlimited=True, source=SourceKind.OVERRIDE)
    assert "50,000 words included, and more when you need it" in included
    unlimited = _meters("notebooks", 41, None, unlimited=True, kind=None)
    assert "41 notebooks, unlimited" in unlimited
    assert "<progress" not in unlimited


def test_a_daily_meter_names_the_hour_and_an_override_is_told() -> None:
    today = canned.NOW + timedelta(hours=5)
    html = _meters("exports", 3, 10, resets_at=today, source=SourceKind.OVERRIDE)
    assert "Resets today at 6:00" in html
    assert "Includes an extra granted to you" in html


def test_absent_features_show_only_when_named() -> None:
    frame, catalog = canned.frame(), canned.catalog()
    for limit in (None, 0):
        decision = canned.decision("exports", 0, limit, kind=None)
        assert "Nothing is measured" in render(usage_view(frame, catalog, [decision]))
        assert "Not in your plan" in render(usage_view(frame, catalog, [decision], features=["exports"]))


def test_the_table_says_what_each_feature_costs() -> None:
    html = _table(catalog=canned.priced_catalog())
    for words in (
        "10,000 words a month, then $0.002 per word",
        "Exports: first 1,000 exports included, up to 5,000 exports $0.01 per export, then $0.005 per export plus $10",
        "Exports: $5.00 per 1,000 exports",
        # What is paid each interval follows the choice of the interval.
        '<span data-interval="month">3 seats, more at $9.00 per seat a month</span>',
        '<span data-interval="year" hidden>3 seats, more at $90.00 per seat a year</span>',
    ):
        assert words in html, words
    # A plan without a price of its own is not free where usage is paid.
    assert html.count("For as long as you like") == 1
    assert "Only for what you use" in html
    euros = _table(catalog=canned.priced_catalog(), wish=PricingWish(currency="eur"))
    assert "then €0.002 per word" in euros


def test_a_plan_in_tiers_shows_the_first_price_and_the_tiers() -> None:
    catalog = canned.priced_catalog()
    tiers = (PriceTier(up_to=10, amount="1000"), PriceTier(up_to=None, amount="800"))
    price = Price(currency="usd", interval=Interval.MONTH, amount_minor=0, tiers_mode="volume", tiers=tiers)
    grow = msgspec.structs.replace(catalog.plans["grow"], prices=(price,))
    html = _table(catalog=msgspec.structs.replace(catalog, plans={**catalog.plans, "grow": grow}))
    assert '<b class="big">10</b>' in html
    assert "By quantity: $10.00 per unit up to 10 units, beyond that $8.00 per unit for all units" in html


@pytest.mark.parametrize(
    ("key", "used", "soft_limit", "sentence"),
    [
        ("ai-words", 9_000, 10_000, "10,000 words included, then $0.002 per word"),
        ("ai-words", 12_500, 10_000, "2,500 over the 10,000 words included: $5.00 so far, $0.002 per word."),
        # An override that raises the allowance moves where overage begins.
        ("ai-words", 12_500, 12_000, "500 over the 12,000 words included: $1.00 so far, $0.002 per word."),
        ("exports", 5_100, None, "$50.50 so far: first 1,000 exports included"),
        ("exports", 0, None, "You pay for what you use: first 1,000 exports included"),
    ],
)
def test_meters_say_what_usage_has_cost(key: str, used: int, soft_limit: int | None, sentence: str) -> None:
    decision = canned.decision(key, used, None, soft_limit=soft_limit, unlimited=True, source=SourceKind.OVERRIDE)
    view = usage_view(canned.frame(), canned.priced_catalog(), [decision], company=canned.paying("grow"))
    assert sentence in render(view)


def test_a_year_of_monthly_windows_names_the_rate_alone() -> None:
    decision = canned.decision("ai-words", 12_500, None, soft_limit=10_000, unlimited=True)
    company = canned.paying("grow", interval="year")
    html = render(usage_view(canned.frame(), canned.priced_catalog(), [decision], company=company))
    assert "2,500 over the 10,000 words included, $0.002 per word." in html


def test_the_manager_counts_what_is_paid_in_advance_and_offers_more() -> None:
    company = canned.paying("grow")
    holding = Holding(plan="grow", version=1, units={"seats": 12})
    catalog = canned.priced_catalog()
    owners = {str(index): PriceOwner("plan", "grow", 1, one) for index, one in enumerate(catalog.plans["grow"].prices)}
    catalog = msgspec.structs.replace(catalog, price_owners=owners)
    html = render(plan_manager_view(canned.frame(), catalog, company, [], holding=holding, abilities=ALL))
    assert "$157.00 a month" in html
    assert "and what you use" in html
    assert "$9.00 per seat a month" in html
    assert "You have 12" in html
    assert '<input type="hidden" name="unit" value="seats">' in html
    assert 'name="quantity" min="1" max="999" value="12"' in html


def test_while_a_payment_is_overdue_only_leaving_is_offered() -> None:
    html = _table(canned.company("starter", status="past_due"))
    assert html.count("After payment") == 3
    assert re.findall(r'id="choose-([a-z]+)-', html) == ["free"]


def test_a_change_that_waits_for_payment_has_the_one_primary_button() -> None:
    html = _manager(canned.company("free"), canned.change(ChangeState.AWAITING_PAYMENT))
    assert html.count("button-primary") == 1
    assert re.search(r'class="button "[^>]*>Choose a plan<', html)


def test_invoices_link_only_to_the_web() -> None:
    good = {"created": 1_790_000_000, "total": 4900, "currency": "usd", "status": "paid"}
    html = render(
        invoices_view(
            canned.frame(),
            [
                {**good, "hosted_invoice_url": "https://invoice.test/1"},
                {**good, "hosted_invoice_url": "javascript:alert(1)"},
                {**good, "status": "draft"},
            ],
        )
    )
    assert html.count("$49.00") == 2
    assert html.count("href=") == 1


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("https://a.test/x", True),
        ("/signup", True),
        ("mailto:a@b.test", True),
        ("javascript:alert(1)", False),
        (" javascript:alert(1)", False),
        ("//evil.test", False),
        ("/\\evil.test", False),
        ("data:text/html,x", False),
        ("http://[", False),
        ("", False),
        (None, False),
    ],
)
def test_only_web_addresses_become_links(url: str | None, *, kept: bool) -> None:
    assert bool(web_address(url)) is kept


def test_a_reader_elsewhere_reads_the_same_numbers_in_english() -> None:
    frame = canned.frame(locale="nl-NL", now=datetime(2027, 1, 1, tzinfo=UTC))
    html = render(plan_manager_view(frame, canned.catalog(), canned.company("pro"), [], abilities=ALL))
    assert "December 3, 2026" in html
