"""Proves how a company's standing is resolved: plans, add-ons, notices, and how long a snapshot holds."""

from datetime import timedelta

import msgspec
import pytest

from plangate.engine.catalog import Catalog, CatalogSettings, Entitlement, Feature, Price, PriceOwner
from plangate.engine.decide import decide, unanswerable
from plangate.engine.decision import Reason
from plangate.engine.entitlements import build_snapshot, window_kinds
from plangate.engine.facts import PlanRef, PlanSource, SubscriptionFact, UserFacts
from plangate.engine.snapshot import SINCE_EVER, HeldAddOn, HeldPlan
from plangate.engine.subscriptions import scheduled_end
from plangate.engine.usage import used_at
from plangate.engine.values import UNLIMITED, FeatureType, Interval, OverrideMode, PeriodKind, PriceBehaviour, Stacking
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


def test_the_scheduled_end_is_found_in_both_billing_modes() -> None:
    # S8: flexible billing sets cancel_at alone; items may end at different instants.
    later = RENEWS + timedelta(days=300)
    items = (item("price_pro_month_usd"), item("price_audit_month_usd", period_end_at=later))
    assert scheduled_end(cancel_at=NOW, is_cancel_at_period_end=False, items=items) == NOW
    assert scheduled_end(cancel_at=NOW, is_cancel_at_period_end=True, items=items) == NOW
    assert scheduled_end(cancel_at=None, is_cancel_at_period_end=True, items=items) == later
    assert scheduled_end(cancel_at=None, is_cancel_at_period_end=False, items=items) is None
    assert scheduled_end(cancel_at=None, is_cancel_at_period_end=True, items=()) is None


def test_items_are_mapped_by_price_in_any_order() -> None:
    # S10
    metered = item("price_extra_year_usd", quantity=None, is_metered=True)
    items = (metered, item("price_audit_month_usd"), item("price_pro_month_usd", quantity=3))
    for order in (items, items[::-1]):
        snapshot = build_snapshot(SHOP, facts(subscriptions=(subscribed(items=order),)), NOW)
        assert snapshot.plan == HeldPlan(key="pro", version=1, source=PlanSource.SUBSCRIPTION, quantity=3)
        assert set(snapshot.add_ons) == {
            HeldAddOn(key="extra", version=1, quantity=1),
            HeldAddOn(key="audit", version=1, quantity=1),
        }


def test_an_unmapped_price_never_takes_the_plan_away() -> None:
    # S11
    company = facts(subscriptions=(subscribed("mystery"),), last_mapped_plan=PlanRef("pro", 1))
    snapshot = build_snapshot(SHOP, company, NOW)
    assert snapshot.plan == HeldPlan(key="pro", version=1, source=PlanSource.SUBSCRIPTION)
    (notice,) = snapshot.notices
    assert notice.code == "unmapped_price"
    assert "price_mystery_month_usd" in notice.detail


def test_an_unmapped_price_beside_a_mapped_one_is_only_noticed() -> None:
    company = facts(subscriptions=(subscribed("starter", "mystery"),), last_mapped_plan=PlanRef("pro", 1))
    snapshot = build_snapshot(SHOP, company, NOW)
    assert snapshot.plan is not None
    assert snapshot.plan.key == "starter"
    assert [notice.code for notice in snapshot.notices] == ["unmapped_price"]


@pytest.mark.parametrize(
    ("quantity", "is_metered", "limit"),
    [(None, True, 3), (None, False, 3), (7, True, 3), (0, False, 0), (4, False, 12)],
)
def test_s18_only_licensed_items_say_how_many(quantity: int | None, *, is_metered: bool, limit: int) -> None:
    # Without a quantity the plan's own number stands, and nothing is ever unlimited by accident.
    seats = Entitlement(feature="seats", limit=3, stacking=Stacking.SUM)
    catalog = catalog_of([plan("pro", seats, monthly=100)])
    held = subscribed(items=(item("price_pro_month_usd", quantity=quantity, is_metered=is_metered),))
    snapshot = build_snapshot(catalog, facts(subscriptions=(held,), traits={"seats": 0}), NOW)
    decision = decide(snapshot, "seats", {}, at=NOW)
    assert (decision.limit, decision.unlimited) == (limit, False)


@pytest.mark.parametrize(
    ("quantity", "is_metered", "limit"),
    [(None, True, 3), (None, False, 3), (7, True, 3), (0, False, 3), (4, False, 4)],
)
def test_s18_what_was_paid_in_advance_is_the_limit(quantity: int | None, *, is_metered: bool, limit: int) -> None:
    price = Price(currency="usd", interval=Interval.MONTH, amount_minor=900, stripe_price_id="price_seats")
    seats = Entitlement(feature="seats", limit=3, price_behaviour=PriceBehaviour.PAY_IN_ADVANCE, prices=(price,))
    catalog = catalog_of([plan("pro", seats, monthly=100)])
    owners = {**catalog.price_owners, "price_seats": PriceOwner("plan", "pro", 1, price, feature="seats")}
    catalog = msgspec.structs.replace(catalog, price_owners=owners)
    paid = item("price_seats", quantity=quantity, is_metered=is_metered)
    held = subscribed(items=(paid, item("price_pro_month_usd", quantity=5)))
    snapshot = build_snapshot(catalog, facts(subscriptions=(held,), traits={"seats": 0}), NOW)
    assert snapshot.plan == HeldPlan(key="pro", version=1, source=PlanSource.SUBSCRIPTION, quantity=5)
    assert snapshot.notices == ()
    decision = decide(snapshot, "seats", {}, at=NOW)
    assert (decision.limit, decision.unlimited) == (limit, False)


def test_two_items_of_one_plan_add_their_quantities() -> None:
    items = (item("price_pro_month_usd", quantity=2), item("price_pro_year_usd", quantity=3))
    snapshot = build_snapshot(SHOP, facts(subscriptions=(subscribed(items=items),)), NOW)
    assert snapshot.plan is not None
    assert snapshot.plan.quantity == 5


def test_of_several_subscriptions_the_dearest_is_the_base_and_the_conflict_is_noticed() -> None:
    # Starter yearly at 190 is 15.83 a month: less than Pro at 49, although the number is larger.
    yearly = item("price_starter_year_usd", interval=Interval.YEAR)
    starter = subscribed(stripe_subscription_id="sub_a", items=(yearly,))
    pro = subscribed("pro", stripe_subscription_id="sub_b", anchor_at=NOW)
    for order in ((starter, pro), (pro, starter)):
        snapshot = build_snapshot(SHOP, facts(subscriptions=order), NOW)
        assert snapshot.plan is not None
        assert snapshot.plan.key == "pro"
        assert snapshot.subscription == pro
        assert snapshot.anchor_at == NOW
        (notice,) = snapshot.notices
        assert notice.code == "several_subscriptions"
        assert "sub_a, sub_b" in notice.detail


def test_equal_prices_are_told_apart_by_the_subscription() -> None:
    first, second = (
        subscribed("pro", stripe_subscription_id=name, anchor_at=at) for name, at in (("sub_a", BEGAN), ("sub_b", NOW))
    )
    for order in ((first, second), (second, first)):
        assert build_snapshot(SHOP, facts(subscriptions=order), NOW).subscription == first


def test_prices_of_several_subscriptions_are_compared_in_one_currency() -> None:
    yen = plan("yen", prices=(price("yen", Interval.MONTH, 5000, currency="jpy"), price("yen", Interval.MONTH, 3000)))
    catalog = catalog_of([plan("pro", monthly=4900), yen])
    held = (
        subscribed("pro", stripe_subscription_id="sub_a"),
        msgspec.structs.replace(
            subscribed(stripe_subscription_id="sub_b", items=(item("price_yen_month_jpy"),)), currency="jpy"
        ),
    )
    snapshot = build_snapshot(catalog, facts(subscriptions=held), NOW)
    assert snapshot.plan is not None
    assert snapshot.plan.key == "pro"


def test_grace_ends_access_and_the_snapshot() -> None:
    held = subscribed("pro", status="past_due", past_due_since=NOW - timedelta(days=6))
    snapshot = build_snapshot(SHOP, facts(subscriptions=(held,)), NOW)
    grace_ends_at = NOW + timedelta(days=1)
    assert snapshot.valid_until == grace_ends_at
    assert [notice.code for notice in snapshot.notices] == ["past_due"]
    after = build_snapshot(SHOP, facts(subscriptions=(held,)), grace_ends_at)
    assert after.plan == HeldPlan(key="free", version=1, source=PlanSource.FALLBACK)
    assert [notice.code for notice in after.notices] == ["grace_ended"]


def test_grace_counts_from_the_renewal_when_the_first_failure_was_not_seen() -> None:
    held = subscribed("pro", status="past_due")
    snapshot = build_snapshot(SHOP, facts(subscriptions=(held,)), BEGAN)
    assert snapshot.valid_until == BEGAN + timedelta(days=7)


def test_grace_of_zero_days_is_no_grace() -> None:
    held = subscribed("pro", status="past_due", past_due_since=NOW)
    company = facts(subscriptions=(held,), past_due_grace_days=0)
    snapshot = build_snapshot(SHOP, company, NOW)
    assert snapshot.plan is not None
    assert snapshot.plan.key == "free"


@pytest.mark.parametrize(
    ("fields", "code"),
    [({"status": "hibernating"}, "unknown_status"), ({"is_collection_paused": True}, "collection_paused")],
)
def test_what_a_person_should_look_at_is_noticed(fields: dict[str, object], code: str) -> None:
    snapshot = build_snapshot(SHOP, facts(subscriptions=(subscribed("pro", **fields),)), NOW)
    assert [notice.code for notice in snapshot.notices] == [code]


def test_a_subscription_of_add_ons_alone_leaves_the_plan_and_gives_the_period() -> None:
    company = facts(subscriptions=(subscribed("audit", anchor_at=BEGAN + timedelta(days=1)),))
    snapshot = build_snapshot(SHOP, company, NOW)
    assert snapshot.plan is not None
    assert (snapshot.plan.key, snapshot.plan.source) == ("free", PlanSource.FALLBACK)
    assert [one.key for one in snapshot.add_ons] == ["audit"]
    assert snapshot.anchor_at == BEGAN + timedelta(days=1)
    assert snapshot.notices == ()


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


@pytest.mark.parametrize(
    ("fields", "key"),
    [
        ({"status": "paused", "trial_end_at": NOW}, "starter"),
        ({"status": "paused", "trial_end_at": NOW + timedelta(seconds=1)}, "free"),
        ({"status": "paused"}, "free"),
        ({"status": "canceled", "trial_end_at": BEGAN, "ended_at": BEGAN}, "starter"),
        ({"status": "canceled", "trial_end_at": BEGAN, "ended_at": NOW}, "free"),
        ({"status": "unpaid", "trial_end_at": BEGAN}, "free"),
    ],
)
def test_a_trial_that_ended_without_a_card_leads_to_its_own_plan(fields: dict[str, object], key: str) -> None:
    catalog = msgspec.structs.replace(SHOP, trial_expiry_plan="starter")
    snapshot = build_snapshot(catalog, facts(subscriptions=(subscribed("pro", **fields),)), NOW)
    assert snapshot.plan is not None
    source = PlanSource.TRIAL_EXPIRY if key == "starter" else PlanSource.FALLBACK
    assert (snapshot.plan.key, snapshot.plan.source) == (key, source)


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


def _sold_by_use(*, with_extra: bool) -> tuple[Catalog, SubscriptionFact]:
    """A plan that costs nothing but its exports, and a subscription to them beside an add-on or pro's seats."""
    used = Price(currency="usd", interval=Interval.MONTH, amount_minor=1, stripe_price_id="price_used", is_metered=True)
    seat = Price(currency="usd", interval=Interval.MONTH, amount_minor=900, stripe_price_id="price_seats")
    payg = plan(
        "payg",
        Entitlement(feature="exports", limit=UNLIMITED, price_behaviour=PriceBehaviour.PAY_AS_YOU_GO, prices=(used,)),
    )
    pro = plan(
        "pro",
        Entitlement(feature="seats", limit=3, price_behaviour=PriceBehaviour.PAY_IN_ADVANCE, prices=(seat,)),
        monthly=100,
    )
    catalog = shop()
    catalog = msgspec.structs.replace(
        catalog,
        plans={**catalog.plans, "payg": payg, "pro": pro},
        price_owners={
            **catalog.price_owners,
            "price_used": PriceOwner("plan", "payg", 1, used, feature="exports"),
            "price_seats": PriceOwner("plan", "pro", 1, seat, feature="seats"),
        },
    )
    beside = item("price_extra_month_usd") if with_extra else item("price_seats", quantity=5)
    return catalog, subscribed(items=(beside, item("price_used", quantity=None, is_metered=True)))


def test_what_costs_only_what_is_used_is_held_beside_an_add_on() -> None:
    catalog, held = _sold_by_use(with_extra=True)
    snapshot = build_snapshot(catalog, facts(subscriptions=(held,)), NOW)
    assert snapshot.plan is not None
    assert (snapshot.plan.key, snapshot.plan.source) == ("payg", PlanSource.SUBSCRIPTION)
    assert [one.key for one in snapshot.add_ons] == ["extra"]
    assert snapshot.notices == ()


def test_seats_of_a_plan_that_is_not_held_grant_nothing_and_are_noticed() -> None:
    catalog, held = _sold_by_use(with_extra=False)
    snapshot = build_snapshot(catalog, facts(subscriptions=(held,), traits={"seats": 0}), NOW)
    assert snapshot.plan is not None
    assert snapshot.plan.key == "payg"
    (notice,) = snapshot.notices
    assert notice.code == "part_without_plan"
    assert "pays for features of Pro, which is not held" in notice.detail
    assert decide(snapshot, "seats", {}, at=NOW).reason is Reason.NO_ENTITLEMENT


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
