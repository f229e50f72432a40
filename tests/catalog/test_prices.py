"""What prices a document may name: each fault with its place, and the price behaviours as the engine reads them."""

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from plangate.catalog_compiled import offered_version
from plangate.catalog_file import catalog_text, parse_catalog, read_catalog
from plangate.engine.catalog import Price, PriceTier
from plangate.engine.pricing import amount_of
from plangate.engine.values import UNLIMITED, Interval, PriceBehaviour
from plangate.errors import Refusal
from tests.catalog.pricing import STEPS, monthly, priced

REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "catalog.md"
TIERED = monthly(tiers_mode="graduated", tiers=STEPS)


def faults(document: dict[str, Any]) -> dict[str, str]:
    """Pointer and sentence of every fault."""
    with pytest.raises(Refusal) as caught:
        parse_catalog(document)
    return {error.pointer: error.detail for error in caught.value.errors}


def pro(entitlement: dict[str, Any] | None = None, feature: str = "calls", **said: Any) -> dict[str, Any]:  # noqa: ANN401 - fields of a plan
    """The catalogue with another Pro."""
    document = priced()
    plan = document["plans"]["pro"]
    plan |= said
    if entitlement is not None:
        plan["entitlements"][feature] = entitlement
    return document


@pytest.mark.parametrize(
    ("price", "place", "said"),
    [
        (monthly(), "", "needs an amount"),
        (monthly(amount_minor=1, amount_decimal="0.5"), "", "gives amount_minor and amount_decimal"),
        (monthly(amount_minor=1, tiers_mode="volume", tiers=STEPS), "", "gives amount_minor and tiers"),
        (monthly(tiers=STEPS), "", "needs both `tiers` and `tiers_mode`"),
        (monthly(amount_minor=1, tiers_mode="volume"), "", "needs both `tiers` and `tiers_mode`"),
        (monthly(amount_decimal=0.5), "/amount_decimal", "must be decimal text"),
        (monthly(amount_decimal="1e3"), "/amount_decimal", "must be decimal text"),
        (monthly(amount_decimal="-1"), "/amount_decimal", "must be decimal text"),
        (monthly(amount_decimal="0.1234567890123"), "/amount_decimal", "must be decimal text"),
        (monthly(amount_minor=1, package={"size": 1}), "/package/size", "must be greater than or equal to 2"),
        (
            monthly(tiers_mode="volume", tiers=STEPS, package={"size": 10}),
            "/package",
            "Stripe knows no tiers of packages",
        ),
        (monthly(amount_minor=1, interval="year", interval_count=4), "/interval_count", "at least every three years"),
        (
            monthly(tiers_mode="volume", tiers=[{"up_to": 5, "amount_minor": 1}]),
            "/tiers/0/up_to",
            "must be null in the last",
        ),
        (monthly(tiers_mode="volume", tiers=[STEPS[1], STEPS[1]]), "/tiers/0/up_to", "must be null in the last"),
        (monthly(tiers_mode="volume", tiers=[STEPS[0], STEPS[0], STEPS[1]]), "/tiers/1/up_to", "must be above"),
        (monthly(tiers_mode="volume", tiers=[{"up_to": None}]), "/tiers/0", "needs `amount_minor`"),
        (
            monthly(tiers_mode="volume", tiers=[{"up_to": None, "amount_minor": 1, "amount_decimal": "1"}]),
            "/tiers/0",
            "one of them is enough",
        ),
    ],
)
def test_a_price_says_one_amount_in_one_way(price: dict[str, Any], place: str, said: str) -> None:
    found = faults(pro(entitlements={}, prices=[price]))
    assert list(found) == [f"/plans/pro/prices/0{place}"]
    assert said in next(iter(found.values()))
    elsewhere = pro({"price_behaviour": "pay_in_advance", "prices": [price]}, "seats")
    assert f"/plans/pro/entitlements/seats/prices/0{place}" in faults(elsewhere)


@pytest.mark.parametrize(
    ("currency", "amount", "step"), [("kwd", 5125, 10), ("isk", 1050, 100), ("jpy", 5, None), ("rsd", 1905, None)]
)
def test_an_amount_is_one_that_stripe_can_charge(currency: str, amount: int, step: int | None) -> None:
    tiers = [{"up_to": 5, "amount_minor": 0, "flat_amount_minor": amount}, {"up_to": None, "amount_minor": amount}]
    prices = [
        {"currency": currency, "interval": "month", "amount_minor": amount},
        {"currency": currency, "interval": "year", "tiers_mode": "volume", "tiers": tiers},
    ]
    document = pro(entitlements={}, prices=prices)
    if step is None:
        parse_catalog(document)
        return
    found = faults(document)
    assert [pointer.removeprefix("/plans/pro/prices/") for pointer in found] == [
        "0/amount_minor",
        "1/tiers/0/flat_amount_minor",
        "1/tiers/1/amount_minor",
    ]
    assert all(f"must be a multiple of {step}" in said for said in found.values())


@pytest.mark.parametrize(("interval", "most"), [("day", 1_095), ("week", 156), ("month", 36), ("year", 3)])
def test_a_price_is_billed_at_least_every_three_years(interval: str, most: int) -> None:
    price = {"currency": "usd", "interval": interval, "amount_minor": 1}
    parse_catalog(pro(entitlements={}, prices=[{**price, "interval_count": most}]))
    assert list(faults(pro(entitlements={}, prices=[{**price, "interval_count": most + 1}]))) == [
        "/plans/pro/prices/0/interval_count"
    ]


PLAIN = monthly(amount_minor=1)


@pytest.mark.parametrize(
    ("feature", "entitlement", "place", "said"),
    [
        ("calls", {"limit": 1, "prices": [PLAIN]}, "/prices", "needs `price_behaviour`"),
        ("calls", {"price_behaviour": "pay_as_you_go"}, "/price_behaviour", "needs `prices`"),
        ("calls", {"price_behaviour": "pay_as_you_go", "prices": [TIERED]}, "/prices/0", "price_behaviour: tiers"),
        ("calls", {"price_behaviour": "tiers", "prices": [PLAIN]}, "/prices/0", "needs `tiers`"),
        ("calls", {"price_behaviour": "overage", "prices": [PLAIN]}, "/price_behaviour", "needs `soft_limit`"),
        (
            "calls",
            {"price_behaviour": "overage", "soft_limit": 1, "overage": "free", "prices": [PLAIN]},
            "/overage",
            "cannot be free and have prices",
        ),
        (
            "calls",
            {"price_behaviour": "overage", "soft_limit": 1, "per": "user", "prices": [PLAIN]},
            "/per",
            "cannot be user",
        ),
        ("seats", {"price_behaviour": "pay_as_you_go", "prices": [PLAIN]}, "/price_behaviour", "paid in advance"),
        (
            "seats",
            {"price_behaviour": "pay_in_advance", "limit": "unlimited", "prices": [PLAIN]},
            "/limit",
            "must be a number",
        ),
        (
            "seats",
            {"price_behaviour": "pay_in_advance", "limit_trait": "bought", "prices": [PLAIN]},
            "/limit_trait",
            "cannot stand here",
        ),
        (
            "seats",
            {"price_behaviour": "pay_in_advance", "limit": 3, "soft_limit": 2, "prices": [PLAIN]},
            "/soft_limit",
            "cannot stand here",
        ),
        (
            "calls",
            {"price_behaviour": "pay_as_you_go", "prices": [{**PLAIN, "currency": "eur"}]},
            "/prices",
            "a price in eur each month",
        ),
        (
            "calls",
            {"price_behaviour": "pay_as_you_go", "prices": [PLAIN, {**PLAIN, "interval": "year"}]},
            "/prices",
            "has a price in usd each year",
        ),
        ("calls", {"price_behaviour": "pay_as_you_go", "prices": [PLAIN, PLAIN]}, "/prices/1", "second price"),
    ],
)
def test_what_is_charged_for_a_feature_fits_it(
    feature: str, entitlement: dict[str, Any], place: str, said: str
) -> None:
    found = faults(pro(entitlement, feature))
    assert set(found) == {f"/plans/pro/entitlements/{feature}{place}"}
    assert said in " ".join(found.values())


def test_a_switch_costs_nothing_of_its_own() -> None:
    document = pro({"enabled": True, "price_behaviour": "pay_in_advance", "prices": [PLAIN]}, "sso")
    document["features"]["sso"] = {"name": "SSO", "type": "boolean"}
    assert set(faults(document)) == {
        "/plans/pro/entitlements/sso/price_behaviour",
        "/plans/pro/entitlements/sso/prices",
    }


def test_every_currency_and_interval_of_the_plan_is_charged_in() -> None:
    document = pro(prices=[PLAIN, {"currency": "eur", "interval": "year", "amount_minor": 1}])
    found = faults(document)
    assert set(found) == {f"/plans/pro/entitlements/{one}/prices" for one in ("seats", "exports", "messages", "calls")}
    assert {detail.partition(":")[0] for detail in found.values()} == {"needs a price in eur each year"}


def test_a_plan_without_a_price_of_its_own_charges_for_everything_alike() -> None:
    document = pro(prices=[])
    assert not offered_version(parse_catalog(document), "plan", "pro").is_free
    document["plans"]["pro"]["entitlements"]["seats"]["prices"] = [{**PLAIN, "currency": "eur"}]
    found = faults(document)
    assert found["/plans/pro/entitlements/seats/prices"].startswith("needs a price in usd each month")
    document = pro(prices=[])
    document["fallback_plan"] = "pro"
    assert set(faults(document)) == {"/fallback_plan"}
    by_hand = pro(prices=[], contact_us=True)
    assert set(faults(by_hand)) == {"/plans/pro/contact_us"}


def test_one_price_of_stripes_stands_for_one_thing() -> None:
    document = pro(prices=[{**PLAIN, "stripe_price": "price_1"}])
    document["plans"]["pro"]["entitlements"]["seats"]["prices"][0]["stripe_price"] = "price_1"
    assert set(faults(document)) == {"/plans/pro/entitlements/seats/prices/0/stripe_price"}


def test_behaviours_as_the_engine_reads_them() -> None:
    version = offered_version(parse_catalog(priced()), "plan", "pro")
    granted = {one.feature: one for one in version.entitlements}
    assert {feature: (one.price_behaviour, one.limit) for feature, one in granted.items()} == {
        "seats": (PriceBehaviour.PAY_IN_ADVANCE, 5),
        "exports": (PriceBehaviour.PAY_AS_YOU_GO, UNLIMITED),
        "messages": (PriceBehaviour.TIERS, UNLIMITED),
        "calls": (PriceBehaviour.OVERAGE, UNLIMITED),
    }
    assert granted["calls"].soft_limit == 10_000
    meters = {feature: [price.meter for price in one.prices] for feature, one in granted.items()}
    assert meters == {
        "seats": [None],
        "exports": ["plangate_exports"],
        "messages": ["plangate_messages"],
        "calls": ["plangate_overage_calls"],
    }
    (messages,) = granted["messages"].prices
    assert messages.tiers == (
        PriceTier(up_to=1000, amount="0", flat_amount_minor=500),
        PriceTier(up_to=None, amount="0.25"),
    )
    assert [amount_of(messages, quantity) for quantity in (0, 1000, 1002)] == [500, 500, 501]
    (calls,) = granted["calls"].prices
    assert [amount_of(calls, quantity) for quantity in (0, 1, 1000, 1001)] == [0, 200, 200, 400]


def test_a_limit_in_advance_is_none_until_it_is_bought() -> None:
    document = pro({"price_behaviour": "pay_in_advance", "prices": [PLAIN]}, "seats")
    (seats,) = [
        one for one in offered_version(parse_catalog(document), "plan", "pro").entitlements if one.feature == "seats"
    ]
    assert seats.limit == 0


def test_a_whole_decimal_is_an_amount_like_any_other() -> None:
    written = parse_catalog(pro(prices=[monthly(amount_decimal="4900.00")]))
    plain = parse_catalog(pro(prices=[monthly(amount_minor=4900)]))
    assert offered_version(written, "plan", "pro") == offered_version(plain, "plan", "pro")
    assert offered_version(plain, "plan", "pro").prices == (
        Price(currency="usd", interval=Interval.MONTH, amount_minor=4900),
    )


def test_each_price_is_on_a_line_of_its_own_in_the_file() -> None:
    text = catalog_text(parse_catalog(priced()))
    assert re.search(
        r"^      calls:\n        soft_limit: 10000\n        price_behaviour: overage\n", text, re.MULTILINE
    )
    assert "- {currency: usd, interval: month, amount_minor: 200, package: {size: 1000}}" in text
    assert catalog_text(read_catalog(text)) == text


def test_the_references_example_is_a_catalogue() -> None:
    """Every behaviour has an example that can be pasted."""
    (example,) = re.findall(r"```yaml\n(.*?)```", REFERENCE.read_text("utf-8"), re.DOTALL)
    entitlements = yaml.safe_load(example)
    document = priced()
    document["features"]["api-calls"] = copy.deepcopy(document["features"]["calls"])
    document["plans"]["pro"]["entitlements"] = entitlements
    version = offered_version(parse_catalog(document), "plan", "pro")
    assert {one.price_behaviour for one in version.entitlements} == set(PriceBehaviour) - {PriceBehaviour.INCLUDED}
