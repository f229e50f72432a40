"""Proves that a trace names every source in order of precedence, and that an unlock is the cheapest way to a yes."""

from datetime import timedelta

import msgspec
import pytest

from plangate.engine.catalog import Catalog, Condition, Entitlement, Flag, PriceTier, Rule
from plangate.engine.decide import decide
from plangate.engine.decision import Decision, SourceKind, Trace, Unlock
from plangate.engine.entitlements import build_snapshot
from plangate.engine.facts import CompanyFacts, UserFacts, WindowCounter
from plangate.engine.values import INT64_MAX, Interval, OverrideMode, PeriodKind, Stacking
from tests.engine.factories import (
    NOW,
    RENEWS,
    assigned,
    catalog_of,
    counter,
    exports,
    facts,
    override,
    plan,
    price,
    shop,
    subscribed,
)
from tests.engine.vectors import FOLDER, load

SHOP = shop()
EXPORTS = ("exports", PeriodKind.BILLING_MONTH, "")


def traced(
    company: CompanyFacts,
    feature: str = "exports",
    *,
    catalog: Catalog = SHOP,
    used: int = 0,
    quantity: int = 1,
    user: UserFacts | None = None,
    on_sale: Catalog | None = None,
) -> tuple[Decision, Trace]:
    counters: dict[tuple[str, PeriodKind, str], WindowCounter] = {EXPORTS: counter(used)}
    snapshot = build_snapshot(catalog, company, NOW)
    decision = decide(
        snapshot, feature, counters, at=NOW, quantity=quantity, user=user, with_trace=True, catalog=on_sale
    )
    assert decision.trace is not None
    return decision, decision.trace


def steps(trace: Trace) -> list[tuple[SourceKind, str | None, str]]:
    return [(step.source.kind, step.source.key, step.outcome) for step in trace.steps]


def test_every_source_in_order_of_precedence() -> None:
    company = facts(
        subscriptions=(subscribed("pro", "extra"),),
        overrides=(
            override(OverrideMode.DENY, id="ovr_over", expires_at=NOW),
            override(OverrideMode.SET, 700, id="ovr_set"),
            override(OverrideMode.ADD, 50, id="ovr_later", starts_at=NOW + timedelta(days=1)),
            override(OverrideMode.ADD, 50, id="ovr_other", user="user_bob"),
        ),
    )
    _, trace = traced(company)
    assert steps(trace) == [
        (SourceKind.FLAG, "exports", "not_matched"),
        (SourceKind.OVERRIDE, "ovr_over", "not_matched"),
        (SourceKind.PLAN, "pro", "won"),
        (SourceKind.ADD_ON, "extra", "combined"),
        (SourceKind.OVERRIDE, "ovr_set", "lost"),
        (SourceKind.OVERRIDE, "ovr_later", "not_matched"),
        (SourceKind.DEFAULT, None, "lost"),
    ]
    assert [step.detail for step in trace.steps] == [
        "The flag is not switched on or off for everyone.",
        "An override ended at 2026-11-20T12:00:00+00:00.",
        "Pro grants 1,000 exports per month.",
        "Extra adds 500 exports per month.",
        "An override sets 700 exports; what is granted is as generous.",
        "An override starts at 2026-11-21T12:00:00+00:00.",
        "The default is no; an earlier source decided.",
    ]


def test_an_exhausted_grant_says_so() -> None:
    decision, trace = traced(facts(subscriptions=(subscribed("starter"),)), used=100)
    assert not decision.allowed
    assert (SourceKind.PLAN, "starter", "exhausted") in steps(trace)
    company = facts(overrides=(override(OverrideMode.ADD, 5),))
    decision, trace = traced(company, used=15)
    assert not decision.allowed
    assert steps(trace)[1:3] == [(SourceKind.PLAN, "free", "combined"), (SourceKind.OVERRIDE, "ovr_add", "exhausted")]


def test_a_deny_overrules_what_is_granted() -> None:
    company = facts(
        subscriptions=(subscribed("pro"),),
        overrides=(override(OverrideMode.ADD, 5), override(OverrideMode.DENY)),
    )
    _, trace = traced(company)
    assert steps(trace) == [
        (SourceKind.FLAG, "exports", "not_matched"),
        (SourceKind.OVERRIDE, "ovr_deny", "won"),
        (SourceKind.PLAN, "pro", "lost"),
        (SourceKind.OVERRIDE, "ovr_add", "lost"),
        (SourceKind.DEFAULT, None, "lost"),
    ]
    assert trace.options == ()


def test_a_winning_set_combines_with_nothing() -> None:
    company = facts(overrides=(override(OverrideMode.SET, 700),))
    _, trace = traced(company)
    assert steps(trace)[1:3] == [(SourceKind.PLAN, "free", "lost"), (SourceKind.OVERRIDE, "ovr_set", "won")]


def test_a_forced_flag_overrules_everything() -> None:
    forced = msgspec.structs.replace(SHOP.features["sso"], flag=Flag(forced=True))
    catalog = msgspec.structs.replace(SHOP, features={**SHOP.features, "sso": forced})
    company = facts(subscriptions=(subscribed("pro"),), overrides=(override(OverrideMode.DENY, feature="sso"),))
    decision, trace = traced(company, "sso", catalog=catalog)
    assert decision.allowed
    assert steps(trace) == [
        (SourceKind.FLAG, "sso", "won"),
        (SourceKind.OVERRIDE, "ovr_deny", "lost"),
        (SourceKind.PLAN, "pro", "lost"),
        (SourceKind.DEFAULT, None, "lost"),
    ]


def test_rules_are_listed_by_priority() -> None:
    rules = (
        Rule(key="third", priority=3, groups=((),)),
        Rule(key="first", priority=1, groups=((Condition(kind="plan", values=("pro",)),),)),
        Rule(key="second", priority=2, groups=((),)),
    )
    flagged = msgspec.structs.replace(SHOP.features["sso"], flag=Flag(rules=rules))
    catalog = msgspec.structs.replace(SHOP, features={**SHOP.features, "sso": flagged})
    _, trace = traced(facts(), "sso", catalog=catalog)
    assert steps(trace) == [
        (SourceKind.FLAG, "sso", "not_matched"),
        (SourceKind.PLAN, "free", "not_matched"),
        (SourceKind.RULE, "first", "not_matched"),
        (SourceKind.RULE, "second", "won"),
        (SourceKind.RULE, "third", "lost"),
        (SourceKind.DEFAULT, None, "lost"),
    ]
    _, trace = traced(facts(subscriptions=(subscribed("pro"),)), "sso", catalog=catalog)
    assert steps(trace)[2:5] == [(SourceKind.RULE, key, "lost") for key in ("first", "second", "third")]


def test_the_default_wins_where_nothing_else_does() -> None:
    _, trace = traced(facts(), "sso")
    assert trace.steps[-1].outcome == "won"
    assert trace.steps[-1].detail == "Nothing else applied: the default is no."


def test_a_suspended_subscription_is_named() -> None:
    held = subscribed("pro", status="past_due", past_due_since=NOW - timedelta(days=8))
    _, trace = traced(facts(subscriptions=(held,)), "sso")
    details = [step.detail for step in trace.steps if step.source.key == "pro"]
    assert details == ["Pro includes it, but its subscription is not active."]


def test_config_values_and_missing_traits_are_told() -> None:
    catalog = catalog_of(
        [
            plan(
                "pro",
                Entitlement(feature="upload-mb", config=512),
                Entitlement(feature="exports", limit_trait="bought"),
            )
        ],
        fallback_plan="pro",
    )
    company = facts(overrides=(override(OverrideMode.SET, 64, feature="upload-mb"),))
    _, trace = traced(company, "upload-mb", catalog=catalog)
    assert [step.detail for step in trace.steps[1:3]] == [
        "Pro grants the value 512; another source is more generous.",
        "An override sets the value 64.",
    ]
    _, trace = traced(facts(), catalog=catalog)
    assert trace.steps[1].outcome == "won"
    assert trace.steps[1].detail == "Pro grants as many exports as the trait bought says, which is missing."


def test_unknown_and_archived_features_have_one_step() -> None:
    _, trace = traced(facts(), "nothing")
    assert steps(trace) == [(SourceKind.DEFAULT, None, "won")]
    archived = msgspec.structs.replace(SHOP.features["sso"], is_archived=True)
    catalog = msgspec.structs.replace(SHOP, features={**SHOP.features, "sso": archived})
    _, trace = traced(facts(), "sso", catalog=catalog)
    assert steps(trace) == [(SourceKind.FLAG, "sso", "won")]


def test_every_way_to_a_yes_cheapest_first() -> None:
    _, trace = traced(facts(subscriptions=(subscribed("starter"),)), used=100)
    assert trace.options == (
        Unlock(kind="wait", at=RENEWS, limit=100),
        Unlock(
            kind="add_on",
            key="extra",
            name="Extra",
            amount_minor=900,
            currency="usd",
            interval=Interval.MONTH,
            limit=600,
        ),
        Unlock(
            kind="plan",
            key="pro",
            name="Pro",
            amount_minor=4900,
            currency="usd",
            interval=Interval.MONTH,
            limit=1000,
        ),
        Unlock(kind="contact_us", key="enterprise", name="Enterprise", limit="unlimited"),
    )
    assert trace.unlock == trace.options[0]


def test_an_upgrade_is_weighed_by_what_it_adds_to_the_bill() -> None:
    # From Starter at 19 to Plus at 20 is one more; the add-on costs nine more.
    catalog = catalog_of(
        [
            plan("starter", exports(100), monthly=1900),
            plan("plus", exports(200), monthly=2000),
            plan("extra", exports(500), monthly=900, kind="add_on"),
        ]
    )
    _, trace = traced(facts(subscriptions=(subscribed("starter"),)), catalog=catalog, used=100, quantity=101)
    assert [option.key for option in trace.options] == ["extra"]
    _, trace = traced(facts(subscriptions=(subscribed("starter"),)), catalog=catalog, used=100)
    assert [option.key for option in trace.options] == [None, "plus", "extra"]


def test_as_many_of_an_add_on_as_it_takes_are_a_way_to_a_yes() -> None:
    # Up to two of them cost five each, those beyond that three.
    tiers = (PriceTier(up_to=2, amount="500"), PriceTier(up_to=None, amount="300"))
    tiered = msgspec.structs.replace(price("extra", Interval.MONTH, 0), tiers_mode="graduated", tiers=tiers)
    more = msgspec.structs.replace(exports(500), stacking=Stacking.SUM)
    catalog = catalog_of(
        [
            plan("starter", exports(100), monthly=1900),
            plan("pro", exports(5_000), monthly=4900),
            plan("extra", more, prices=(tiered,), kind="add_on"),
            plan("single", exports(400), monthly=100, kind="add_on"),
        ]
    )
    company = facts(subscriptions=(subscribed("starter"),))
    for quantity, expected in (
        (500, [("extra", 500, None, 600), ("pro", 4900, None, 5_000)]),
        (501, [("extra", 1000, 2, 1_100), ("pro", 4900, None, 5_000)]),
        (1_900, [("extra", 1600, 4, 2_100), ("pro", 4900, None, 5_000)]),
        (20_000, [("extra", 12_400, 40, 20_100)]),
        (INT64_MAX, []),
    ):
        _, trace = traced(company, catalog=catalog, used=100, quantity=quantity)
        ways = [(one.key, one.amount_minor, one.quantity, one.limit) for one in trace.options]
        assert ways == expected, quantity


def test_an_unlock_costs_what_the_quantity_held_costs() -> None:
    graduated = msgspec.structs.replace(
        price("pro", Interval.MONTH, 0), tiers_mode="volume", tiers=(PriceTier(up_to=None, amount="0.5"),)
    )
    catalog = catalog_of([plan("starter", monthly=1900), plan("pro", exports(100), prices=(graduated,))])
    held = subscribed("starter")
    three = msgspec.structs.replace(held, items=(msgspec.structs.replace(held.items[0], quantity=3),))
    for subscription, amount in ((held, 1), (three, 2)):  # halves are rounded up, as in Stripe
        _, trace = traced(facts(subscriptions=(subscription,)), catalog=catalog)
        assert trace.unlock is not None
        assert (trace.unlock.key, trace.unlock.amount_minor) == ("pro", amount)


def test_unlocks_speak_the_interval_and_currency_that_is_paid() -> None:
    versions = [
        plan(
            key,
            exports(limit),
            prices=tuple(
                price(key, interval, amount * number, currency=currency)
                for interval, number in ((Interval.MONTH, 1), (Interval.YEAR, 10))
                for currency in ("usd", "eur")
            ),
        )
        for key, limit, amount in (("starter", 1, 1900), ("pro", 100, 4900))
    ]
    catalog = catalog_of(versions)
    held = subscribed("starter")
    yearly = msgspec.structs.replace(
        held,
        currency="eur",
        items=tuple(
            msgspec.structs.replace(one, stripe_price_id="price_starter_year_eur", interval=Interval.YEAR)
            for one in held.items
        ),
    )
    _, trace = traced(facts(subscriptions=(yearly,)), catalog=catalog, quantity=50)
    assert trace.unlock is not None
    assert (trace.unlock.key, trace.unlock.amount_minor) == ("pro", 49000)
    assert (trace.unlock.currency, trace.unlock.interval) == ("eur", Interval.YEAR)


def test_unlocks_come_from_what_is_sold_now() -> None:
    company = facts(assignments=(assigned("free"),))
    newer = msgspec.structs.replace(
        SHOP, plans={**SHOP.plans, "pro": msgspec.structs.replace(SHOP.plans["pro"], is_archived=True)}
    )
    _, trace = traced(company, "sso", on_sale=newer)
    assert [option.key for option in trace.options] == ["enterprise"]


def test_a_users_question_is_asked_again_for_that_user() -> None:
    company = facts(overrides=(override(OverrideMode.DENY, feature="sso", user="user_ann"),))
    _, trace = traced(company, "sso", user=UserFacts(user_id="user_ann"))
    assert trace.options == ()
    _, trace = traced(company, "sso", user=UserFacts(user_id="user_bob"))
    assert [option.key for option in trace.options] == ["pro", "enterprise"]


@pytest.mark.parametrize(
    ("condition", "detail"),
    [
        (Condition(kind="trait", trait="size", operator="gte", value=250), "the company's trait size at least 250"),
        (Condition(kind="trait", trait="is_partner", value=True), "the company's trait is_partner equal to true"),
        (
            Condition(kind="trait", trait="region", operator="in", value=["eu", "us"]),
            "the company's trait region among eu, us",
        ),
        (
            Condition(kind="trait", trait="size", operator="gt", other_trait="quota"),
            "the company's trait size above the trait quota",
        ),
        (Condition(kind="trait", subject="user", trait="role", value="admin"), "the user's trait role equal to admin"),
        (Condition(kind="plan", values=("pro", "team")), "the plan among pro, team"),
        (Condition(kind="company", values=("comp_acme",), operator="not_in"), "the company other than comp_acme"),
        (Condition(kind="product", values=()), "a Stripe product among none"),
        (Condition(kind="usage", feature="exports", operator="gt", value=5), "usage of exports above 5"),
    ],
)
def test_a_rule_that_does_not_match_says_what_it_asks_for(condition: Condition, detail: str) -> None:
    met = Condition(kind="company", values=("comp_acme",))
    never = Condition(kind="add_on", values=("nothing",))
    # The second group comes closest: one of its conditions is met.
    rule = Rule(key="rule", groups=((never, never), (met, condition)))
    features = {**SHOP.features, "sso": msgspec.structs.replace(SHOP.features["sso"], flag=Flag(rules=(rule,)))}
    catalog = msgspec.structs.replace(SHOP, features=features)
    _, trace = traced(facts(), "sso", catalog=catalog, used=5)
    steps = [step.detail for step in trace.steps if step.source.kind is SourceKind.RULE]
    assert steps == [f"The rule does not match: it asks for {detail}."]


def test_a_rule_without_groups_says_only_that_it_does_not_match() -> None:
    features = {
        **SHOP.features,
        "sso": msgspec.structs.replace(SHOP.features["sso"], flag=Flag(rules=(Rule(key="r"),))),
    }
    _, trace = traced(facts(), "sso", catalog=msgspec.structs.replace(SHOP, features=features))
    assert [step.detail for step in trace.steps if step.source.kind is SourceKind.RULE] == ["The rule does not match."]


@pytest.mark.parametrize(
    ("name", "detail"),
    [
        ("bought-seats-are-the-limit", "Pro grants 12 seats, paid in advance at $9.00 per seat."),
        ("overage-says-yes", "Pro grants 1,000 calls per month included, unlimited beyond at $0.002 per call."),
        ("pay-as-you-go-never-ends", "Pro grants unlimited messages at $0.05 per message."),
        (
            "tiers-never-end",
            (
                "Pay as you go grants unlimited mails at graduated tiers: "
                "$0.01 per mail up to 1,000, $0.005 per mail beyond."
            ),
        ),
    ],
)
def test_the_trace_says_what_is_paid_for(name: str, detail: str) -> None:
    file = load(FOLDER / "prices.json")
    case = next(one for one in file.cases if one.name == name)
    snapshot = build_snapshot(file.catalogs["main"], case.facts, case.question.at)
    decision = decide(snapshot, case.question.feature, case.counted(), at=case.question.at, with_trace=True)
    assert decision.trace is not None
    assert detail in [step.detail for step in decision.trace.steps]


def test_what_a_suspended_subscription_would_grant_is_named_where_it_grants_it() -> None:
    company = facts(subscriptions=(subscribed("starter", status="unpaid"),))
    _, trace = traced(company, "exports", used=10)
    details = [step.detail for step in trace.steps if step.source.key == "starter"]
    assert details == ["Starter includes it, but its subscription is not active."]
    _, trace = traced(company, "sso")
    assert [step for step in trace.steps if step.source.key == "starter"] == []


def test_of_several_groups_the_one_that_comes_closest_is_explained() -> None:
    unmet = Condition(kind="plan", values=("pro",))
    of_ann = Condition(kind="user", values=("user_ann",))
    rule = Rule(key="beta", groups=((unmet, Condition(kind="add_on", values=("extra",))), (of_ann, unmet)))
    flagged = msgspec.structs.replace(SHOP.features["sso"], flag=Flag(rules=(rule,)))
    catalog = msgspec.structs.replace(SHOP, features={**SHOP.features, "sso": flagged})
    _, ann = traced(facts(), "sso", catalog=catalog, user=UserFacts(user_id="user_ann"))
    _, bob = traced(facts(), "sso", catalog=catalog, user=UserFacts(user_id="user_bob"))
    (of_a,) = [step.detail for step in ann.steps if step.source.key == "beta"]
    (of_b,) = [step.detail for step in bob.steps if step.source.key == "beta"]
    assert of_a == of_b
    assert "pro" in of_a
    alone = Rule(key="beta", groups=((unmet, Condition(kind="add_on", values=("extra",))), (of_ann,)))
    flagged = msgspec.structs.replace(flagged, flag=Flag(rules=(alone,)))
    catalog = msgspec.structs.replace(SHOP, features={**SHOP.features, "sso": flagged})
    _, bob = traced(facts(), "sso", catalog=catalog, user=UserFacts(user_id="user_bob"))
    (of_b,) = [step.detail for step in bob.steps if step.source.key == "beta"]
    assert "user_ann" in of_b


def test_what_is_granted_for_another_period_has_no_part_in_the_answer() -> None:
    catalog = catalog_of(
        [
            plan("free", exports(10, period=PeriodKind.DAY), exports(100)),
            plan("extra", exports(5, period=PeriodKind.DAY, stacking=Stacking.SUM), kind="add_on"),
            plan("more", exports(50, stacking=Stacking.SUM), kind="add_on"),
        ],
        fallback_plan="free",
    )
    held = (assigned("extra", kind="add_on"), assigned("more", kind="add_on"))
    decision, trace = traced(facts(assignments=held), catalog=catalog)
    assert decision.limit == 150
    assert [(step.source.key, step.outcome, step.detail) for step in trace.steps if step.source.version] == [
        ("free", "lost", "Free grants 10 exports per day; another source is more generous."),
        ("free", "won", "Free grants 100 exports per month."),
        ("more", "combined", "More adds 50 exports per month."),
        ("extra", "lost", "Extra grants 5 exports per day; another source is more generous."),
    ]
