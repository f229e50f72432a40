"""Proves how a company's standing is resolved: assignments, roles, users, windows, and how long a snapshot holds."""

from datetime import timedelta

import msgspec
import pytest

from plangate.engine.catalog import Catalog, CatalogSettings, Entitlement, Feature, PriceOwner
from plangate.engine.decide import decide, unanswerable
from plangate.engine.decision import Reason
from plangate.engine.entitlements import build_snapshot, window_kinds
from plangate.engine.facts import UserFacts
from plangate.engine.snapshot import SINCE_EVER
from plangate.engine.usage import used_at
from plangate.engine.values import FeatureType, Interval, OverrideMode, PeriodKind, Stacking
from tests.engine.factories import (
    BEGAN,
    NOW,
    RENEWS,
    assigned,
    catalog_of,
    counter,
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
EXPORTS = ("exports", PeriodKind.BILLING_MONTH, "")


def test_an_override_is_gone_at_the_instant_of_its_expiry() -> None:
    # O1: the snapshot ends with the override, so nothing that caches it can show it longer.
    expires_at = NOW + timedelta(hours=1)
    company = facts(overrides=(override(OverrideMode.ADD, 500, expires_at=expires_at),))
    before = build_snapshot(SHOP, company, NOW)
    assert (before.valid_from, before.valid_until) == (BEGAN, expires_at)
    assert before.holds_at(expires_at - timedelta(microseconds=1))
    assert not before.holds_at(expires_at)
    after = build_snapshot(SHOP, company, expires_at)
    assert (after.valid_from, after.valid_until) == (expires_at, None)
    assert decide(before, "exports", {}, at=NOW).limit == 510
    assert decide(after, "exports", {}, at=expires_at).limit == 10


def test_the_more_generous_of_override_and_plan_applies() -> None:
    # O2
    for value, limit in ((9, 10), (10, 10), (11, 11)):
        company = facts(overrides=(override(OverrideMode.SET, value),))
        assert decide(build_snapshot(SHOP, company, NOW), "exports", {}, at=NOW).limit == limit


@pytest.mark.parametrize("value", [None, "10", True, False, "", [1], float("nan"), float("inf")])
def test_a_limit_that_is_no_number_never_grants(value: object) -> None:
    # O8
    catalog = catalog_of([plan("pro", Entitlement(feature="exports", limit_trait="bought"))], fallback_plan="pro")
    traits = {} if value is None else {"bought": value}
    company = facts(traits=traits)
    decision = decide(build_snapshot(catalog, company, NOW), "exports", {}, at=NOW)
    assert (decision.allowed, decision.reason, decision.unlimited) == (False, Reason.TRAIT_MISSING, False)


def test_a_feature_archived_while_overridden_is_a_stable_no() -> None:
    # O14
    archived = msgspec.structs.replace(SHOP.features["exports"], is_archived=True)
    catalog = msgspec.structs.replace(SHOP, features={**SHOP.features, "exports": archived})
    company = facts(overrides=(override(OverrideMode.SET, "unlimited"), override(OverrideMode.DENY, user="user_ann")))
    snapshot = build_snapshot(catalog, company, NOW)
    for user in (None, UserFacts(user_id="user_ann")):
        decision = decide(snapshot, "exports", {}, at=NOW, user=user)
        assert (decision.allowed, decision.reason) == (False, Reason.ARCHIVED_FEATURE)


def test_the_anchor_is_the_subscriptions_then_the_assignments_then_the_companys() -> None:
    day = timedelta(days=1)
    assert build_snapshot(SHOP, facts(), NOW).anchor_at == BEGAN
    company = facts(assignments=(assigned("pro", held_from=BEGAN + day),))
    assert build_snapshot(SHOP, company, NOW).anchor_at == BEGAN + day
    company = facts(assignments=company.assignments, subscriptions=(subscribed("pro", anchor_at=BEGAN + 2 * day),))
    assert build_snapshot(SHOP, company, NOW).anchor_at == BEGAN + 2 * day


def test_assignments_begin_and_end_with_the_snapshot() -> None:
    begins, ends = NOW + timedelta(days=1), NOW + timedelta(days=2)
    company = facts(assignments=(assigned("pro", held_from=begins, held_until=ends),))
    plans = []
    at = NOW
    while True:
        snapshot = build_snapshot(SHOP, company, at)
        plans.append((snapshot.plan and snapshot.plan.key, snapshot.valid_from, snapshot.valid_until))
        if snapshot.valid_until is None:
            break
        at = snapshot.valid_until
    assert plans == [("free", SINCE_EVER, begins), ("pro", begins, ends), ("free", ends, None)]


def test_the_newest_assignment_counts() -> None:
    old, new = assigned("pro", held_from=BEGAN), assigned("starter", held_from=NOW)
    for order in ((old, new), (new, old)):
        snapshot = build_snapshot(SHOP, facts(assignments=order), NOW)
        assert snapshot.plan is not None
        assert snapshot.plan.key == "starter"


def test_an_assignment_of_a_plan_nobody_knows_is_passed_over() -> None:
    snapshot = build_snapshot(SHOP, facts(assignments=(assigned("gone"), assigned("lost", kind="add_on"))), NOW)
    assert snapshot.plan is not None
    assert (snapshot.plan.key, snapshot.add_ons) == ("free", ())


def test_a_version_the_catalogue_lost_falls_back_to_the_newest() -> None:
    owners = {"price_pro_month_usd": PriceOwner("plan", "pro", 99, price("pro", Interval.MONTH, 1))}
    catalog = msgspec.structs.replace(SHOP, price_owners=owners)
    snapshot = build_snapshot(catalog, facts(subscriptions=(subscribed("pro"),)), NOW)
    assert snapshot.plan is not None
    assert (snapshot.plan.key, snapshot.plan.version) == ("pro", 1)


def test_without_roles_there_is_no_plan() -> None:
    catalog = msgspec.structs.replace(SHOP, initial_plan=None, fallback_plan=None)
    assert build_snapshot(catalog, facts(), NOW).plan is None


def test_which_windows_are_counted() -> None:
    catalog = catalog_of(
        [
            plan("pro", exports(10), exports(5, period=PeriodKind.DAY)),
            plan("extra", exports(1, period=PeriodKind.WEEK), kind="add_on"),
        ]
    )
    older = {"plan/pro@1": plan("pro", Entitlement(feature="exports", limit=3))}
    catalog = msgspec.structs.replace(catalog, older_versions=older)
    granted = {PeriodKind.BILLING_MONTH, PeriodKind.DAY, PeriodKind.WEEK, PeriodKind.ALL_TIME}
    assert window_kinds(catalog, "exports") == granted
    monthly = override(OverrideMode.SET, 5, period=PeriodKind.MONTH)
    assert window_kinds(catalog, "exports", [monthly]) == granted | {PeriodKind.MONTH}
    assert window_kinds(catalog, "sso") == set()
    assert window_kinds(catalog, "nothing") == set()
    assert window_kinds(catalog_of([]), "exports") == {PeriodKind.ALL_TIME}


def test_the_time_zone_of_the_catalogue_is_the_calendars() -> None:
    catalog = catalog_of(
        [plan("pro", exports(10, period=PeriodKind.DAY))],
        fallback_plan="pro",
        settings=CatalogSettings(time_zone="Asia/Tokyo"),
    )
    for company in (facts(), facts(subscriptions=(subscribed("audit"),))):
        period = decide(build_snapshot(catalog, company, NOW), "exports", {}, at=NOW).period
        assert period is not None
        assert period.start == NOW.replace(hour=15) - timedelta(days=1)


def test_usage_is_read_in_the_longest_window_or_from_the_trait() -> None:
    catalog = catalog_of(
        [plan("pro", exports(10), exports(5, period=PeriodKind.DAY), Entitlement(feature="seats", limit=2))],
        fallback_plan="pro",
    )
    snapshot = build_snapshot(catalog, facts(traits={"seats": 2}), NOW)
    counters = {EXPORTS: counter(8), ("exports", PeriodKind.DAY, ""): counter(1)}
    assert used_at(snapshot, "exports", counters, NOW) == 8
    assert used_at(snapshot, "exports", counters, RENEWS) == 0
    assert used_at(snapshot, "exports", counters, BEGAN - timedelta(seconds=1)) == 0
    assert used_at(snapshot, "exports", {}, NOW) == 0
    assert used_at(snapshot, "seats", {}, NOW) == 2
    assert used_at(snapshot, "sso", {}, NOW) is None
    assert used_at(snapshot, "nothing", {}, NOW) is None


def test_a_window_of_the_future_does_not_count_yet() -> None:
    snapshot = build_snapshot(SHOP, facts(), NOW)
    counters = {EXPORTS: counter(10, start_at=NOW + timedelta(seconds=1))}
    assert decide(snapshot, "exports", counters, at=NOW).used == 0


def test_unknown_companies_and_users_are_answers() -> None:
    user = UserFacts(user_id="user_ann")
    decision = unanswerable(Reason.UNKNOWN_USER, "exports", at=NOW, company="comp_acme", user=user)
    assert (decision.allowed, decision.reason, decision.user, decision.company, decision.at) == (
        False,
        Reason.UNKNOWN_USER,
        "user_ann",
        "comp_acme",
        NOW,
    )


def test_users_with_overrides_of_their_own_are_compiled_apart() -> None:
    company = facts(
        overrides=(
            override(OverrideMode.SET, True, feature="sso", user="user_ann"),
            override(OverrideMode.SET, 64, feature="upload-mb", id="ovr_all"),
            override(OverrideMode.SET, 32, feature="upload-mb", id="ovr_ann", user="user_ann"),
        )
    )
    snapshot = build_snapshot(SHOP, company, NOW)
    ann, bob = UserFacts(user_id="user_ann"), UserFacts(user_id="user_bob")
    assert decide(snapshot, "sso", {}, at=NOW, user=ann).reason is Reason.OVERRIDE
    assert not decide(snapshot, "sso", {}, at=NOW, user=bob).allowed
    assert not decide(snapshot, "sso", {}, at=NOW).allowed
    assert decide(snapshot, "upload-mb", {}, at=NOW, user=ann).value == 32
    assert decide(snapshot, "upload-mb", {}, at=NOW, user=bob).value == 64


def test_a_users_own_seats_are_the_more_generous_of_both() -> None:
    company = facts(traits={"seats": 3}, overrides=(override(OverrideMode.SET, 9, feature="seats", user="user_ann"),))
    snapshot = build_snapshot(SHOP, company, NOW)
    assert decide(snapshot, "seats", {}, at=NOW, user=UserFacts(user_id="user_ann")).limit == 9
    assert decide(snapshot, "seats", {}, at=NOW).limit == 2


def test_limits_stop_at_64_bits() -> None:
    largest = 2**63 - 1
    catalog = catalog_of(
        [
            plan(
                "pro",
                exports(largest),
                Entitlement(feature="seats", limit=largest, stacking=Stacking.SUM),
                monthly=1,
            )
        ],
    )
    held = subscribed(items=(item("price_pro_month_usd", quantity=1000),))
    company = facts(subscriptions=(held,), overrides=(override(OverrideMode.ADD, 5),), traits={"seats": 10**30})
    snapshot = build_snapshot(catalog, company, NOW)
    assert decide(snapshot, "exports", {}, at=NOW).limit == largest
    seats = decide(snapshot, "seats", {}, at=NOW)
    assert (seats.limit, seats.used, seats.allowed) == (largest, largest, False)


def test_an_enabled_metered_feature_has_no_limit_and_a_disabled_one_nothing() -> None:
    for enabled, reason in ((True, Reason.UNLIMITED), (False, Reason.NO_ENTITLEMENT)):
        catalog = catalog_of([plan("pro", Entitlement(feature="exports", enabled=enabled))], fallback_plan="pro")
        assert decide(build_snapshot(catalog, facts(), NOW), "exports", {}, at=NOW).reason is reason


def test_versions_are_found_old_and_new() -> None:
    old = plan("pro", version=1)
    catalog = Catalog(revision=1, plans={"pro": plan("pro", version=2)}, older_versions={"plan/pro@1": old})
    assert catalog.version_of("plan", "pro", 1) is old
    assert catalog.version_of("plan", "pro", 2) is catalog.plans["pro"]
    assert catalog.version_of("plan", "pro", 3) is None
    assert catalog.version_of("add_on", "pro", 1) is None
    assert catalog.newest("add_on", "pro") is None


def test_a_flag_that_is_on_reads_values_in_use_too() -> None:
    flagged = Feature(
        key="seats",
        name="Seats",
        type=FeatureType.SEAT,
        trait="seats",
        flag=msgspec.structs.replace(SHOP.features["seats"].flag, forced=True),
    )
    catalog = msgspec.structs.replace(SHOP, features={"seats": flagged})
    for traits, used in (({"seats": 4}, 4), ({}, None)):
        decision = decide(build_snapshot(catalog, facts(traits=traits), NOW), "seats", {}, at=NOW)
        assert (decision.reason, decision.unlimited, decision.used, decision.limit) == (
            Reason.FLAG_ON,
            True,
            used,
            None,
        )


def test_usage_for_all_time_is_read_whenever_it_began() -> None:
    catalog = catalog_of([plan("free", exports(5, period=PeriodKind.ALL_TIME))], fallback_plan="free")
    snapshot = build_snapshot(catalog, facts(), NOW)
    key = ("exports", PeriodKind.ALL_TIME, "")
    assert used_at(snapshot, "exports", {key: counter(3, end_at=None)}, NOW) == 3
    assert used_at(snapshot, "exports", {key: counter(3, end_at=None, start_at=NOW + timedelta(days=1))}, NOW) == 0


def test_only_an_answer_with_usage_from_a_stripe_meter_lags() -> None:
    pulled = msgspec.structs.replace(SHOP.features["exports"], usage_source="stripe_meter", stripe_meter="exports")
    catalog = msgspec.structs.replace(SHOP, features={**SHOP.features, "exports": pulled})
    snapshot = build_snapshot(catalog, facts(), NOW)
    assert decide(snapshot, "exports", {}, at=NOW).stale
    assert not decide(snapshot, "seats", {}, at=NOW).stale
    nothing = msgspec.structs.replace(catalog, initial_plan=None, fallback_plan=None)
    assert not decide(build_snapshot(nothing, facts(), NOW), "exports", {}, at=NOW).stale
