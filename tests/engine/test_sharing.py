"""Proves that companies share what is compiled for them only where nothing of it is their own."""

import msgspec

from plangate.engine.catalog import Entitlement, PriceOwner
from plangate.engine.decide import decide
from plangate.engine.decision import Reason
from plangate.engine.entitlements import build_snapshot
from plangate.engine.sharing import compiled_features
from plangate.engine.values import Interval, OverrideMode, PriceBehaviour
from tests.engine.factories import (
    BEGAN,
    NOW,
    assigned,
    catalog_of,
    exports,
    facts,
    item,
    override,
    plan,
    price,
    shop,
    subscribed,
)

SHOP = shop()


def test_companies_that_differ_in_nothing_share_what_is_compiled() -> None:
    first = build_snapshot(SHOP, facts(subscriptions=(subscribed("pro"),)), NOW)
    other = msgspec.structs.replace(facts(subscriptions=(subscribed("pro"),)), company_id="comp_other")
    second = build_snapshot(SHOP, other, NOW)
    assert second.features["exports"] is first.features["exports"]
    assert decide(first, "exports", {}, at=NOW).company == "comp_acme"
    assert decide(second, "exports", {}, at=NOW).company == "comp_other"
    assert decide(second, "sso", {}, at=NOW).company == "comp_other"
    # Values in use are a company's own, and so is anything with an exception.
    assert second.features["seats"] is not first.features["seats"]
    excepted = facts(subscriptions=(subscribed("pro"),), overrides=(override(OverrideMode.ADD, 1),))
    third = build_snapshot(SHOP, excepted, NOW)
    assert third.features["exports"] is not first.features["exports"]
    assert third.features["sso"] is first.features["sso"]


def test_what_is_shared_is_never_that_of_another_catalogue_or_holding() -> None:
    catalogs = [catalog_of([plan("pro", exports(number))], fallback_plan="pro") for number in range(10)]
    for _ in range(2):
        for number, catalog in enumerate(catalogs):
            assert decide(build_snapshot(catalog, facts(), NOW), "exports", {}, at=NOW).limit == number
    for quantity in (1, 2, 3):
        held = facts(assignments=(assigned("pro"), assigned("extra", kind="add_on", quantity=quantity)))
        assert decide(build_snapshot(SHOP, held, NOW), "exports", {}, at=NOW).limit == 1000 + 500 * quantity
    suspended = facts(subscriptions=(subscribed("pro", status="unpaid"),))
    cancelled = facts(subscriptions=(subscribed("pro", status="canceled", ended_at=BEGAN),))
    reasons = [decide(build_snapshot(SHOP, one, NOW), "sso", {}, at=NOW).reason for one in (suspended, cancelled)]
    assert reasons == [Reason.SUBSCRIPTION_INACTIVE, Reason.NO_ENTITLEMENT]


def test_limits_read_from_traits_are_a_companys_own() -> None:
    catalog = catalog_of([plan("pro", Entitlement(feature="exports", limit_trait="bought"))], fallback_plan="pro")
    for bought in (3, 4):
        snapshot = build_snapshot(catalog, facts(traits={"bought": bought}), NOW)
        assert decide(snapshot, "exports", {}, at=NOW).limit == bought


def test_the_catalogues_asked_for_last_are_the_ones_remembered() -> None:
    catalogs = [catalog_of([plan("pro", exports(number))]) for number in range(6)]
    first, second, *_ = [compiled_features(one) for one in catalogs[:4]]
    assert compiled_features(catalogs[0]) is first
    # Four are kept: the fifth takes the place of the one that nobody asked for the longest.
    compiled_features(catalogs[4])
    assert compiled_features(catalogs[0]) is first
    assert compiled_features(catalogs[1]) is not second


def test_what_is_bought_of_a_feature_is_told_apart() -> None:
    each = price("export", Interval.MONTH, 5)
    sold = exports(1, price_behaviour=PriceBehaviour.PAY_IN_ADVANCE, prices=(each,))
    catalog = catalog_of([plan("pro", sold, monthly=4900)])
    owner = PriceOwner("plan", "pro", 1, each, feature="exports")
    catalog = msgspec.structs.replace(catalog, price_owners={**catalog.price_owners, "price_export_month_usd": owner})
    for _ in range(2):
        for quantity in (2, 3):
            items = (item("price_pro_month_usd"), item("price_export_month_usd", quantity=quantity))
            snapshot = build_snapshot(catalog, facts(subscriptions=(subscribed(items=items),)), NOW)
            assert decide(snapshot, "exports", {}, at=NOW).limit == quantity
        snapshot = build_snapshot(catalog, facts(subscriptions=(subscribed("pro"),)), NOW)
        assert decide(snapshot, "exports", {}, at=NOW).limit == 1
