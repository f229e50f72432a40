"""Proves what each user has of their own: allowances, overrides, traces, what a change of plan does to them."""

from collections.abc import Mapping
from datetime import timedelta

from plangate.engine.catalog import Catalog, Entitlement, PlanVersion
from plangate.engine.decide import decide
from plangate.engine.decision import Decision, Reason, SourceKind
from plangate.engine.effects import effects, violations
from plangate.engine.entitlements import build_snapshot, is_counted_per_user, window_kinds
from plangate.engine.facts import CompanyFacts, UserFacts, WindowCounter
from plangate.engine.plan_change import Violation
from plangate.engine.snapshot import CompanySnapshot
from plangate.engine.values import OverrideMode, PeriodKind, Stacking
from plangate.engine.wording import granted_text, granted_value
from tests.engine.factories import NOW, catalog_of, counter, exports, facts, override, plan, subscribed

ANN, BOB = UserFacts(user_id="user_ann"), UserFacts(user_id="user_bob")
MONTH = PeriodKind.BILLING_MONTH
EACH = exports(50, scope="user")


def of(*entitlements: Entitlement, extra: tuple[Entitlement, ...] = ()) -> Catalog:
    add_on: list[PlanVersion] = [plan("extra", *extra, kind="add_on", monthly=900)] if extra else []
    return catalog_of([plan("free"), plan("pro", *entitlements, monthly=4900), *add_on], fallback_plan="free")


def ask(
    catalog: Catalog,
    user: UserFacts | None,
    used: Mapping[str, int],
    *,
    company: CompanyFacts | None = None,
    quantity: int = 1,
    kind: PeriodKind = MONTH,
) -> Decision:
    """Ask about exports; `used` maps user ids (empty: the company) to what they used in the running window."""
    company = facts(subscriptions=(subscribed("pro"),)) if company is None else company
    counters: dict[tuple[str, PeriodKind, str], WindowCounter] = {
        ("exports", kind, user_id): counter(number) for user_id, number in used.items()
    }
    snapshot = build_snapshot(catalog, company, NOW)
    decision = decide(snapshot, "exports", counters, at=NOW, quantity=quantity, user=user, with_trace=True)
    plain = decide(snapshot, "exports", counters, at=NOW, quantity=quantity, user=user)
    assert decision.trace is not None
    assert sum(step.outcome in {"won", "exhausted"} for step in decision.trace.steps) == 1
    assert (plain.allowed, plain.reason, plain.limit, plain.period) == (
        decision.allowed,
        decision.reason,
        decision.limit,
        decision.period,
    )
    return decision


def test_each_user_has_their_own_allowance() -> None:
    used = {"": 99, "user_ann": 50, "user_bob": 49}
    ann, bob = ask(of(EACH), ANN, used), ask(of(EACH), BOB, used)
    assert (ann.allowed, ann.reason, ann.used, ann.limit, ann.user) == (
        False,
        Reason.LIMIT_REACHED,
        50,
        50,
        "user_ann",
    )
    assert (bob.allowed, bob.reason, bob.remaining) == (True, Reason.WITHIN_LIMIT, 1)
    assert bob.source is not None
    assert (bob.source.kind, bob.source.key) == (SourceKind.PLAN, "pro")
    assert not ask(of(EACH), BOB, used, quantity=2).allowed


def test_nobody_named_is_a_no_with_its_reason() -> None:
    decision = ask(of(EACH), None, {"": 3})
    assert (decision.allowed, decision.reason, decision.limit, decision.used) == (False, Reason.UNKNOWN_USER, 50, None)
    assert decision.trace is not None
    said = [step.detail for step in decision.trace.steps if step.outcome == "won"]
    assert said == ["Pro grants 50 exports per month for each user, but no user was named."]
    # What is missing is the user: nothing that is bought helps.
    assert decision.trace.options == ()


def test_a_user_nobody_counted_yet_has_everything() -> None:
    decision = ask(of(EACH), ANN, {})
    assert (decision.allowed, decision.used, decision.remaining) == (True, 0, 50)


def test_a_shared_limit_beside_each_users_own() -> None:
    both = of(exports(1000), EACH)
    # Either with room is a yes, and the one with most remaining is shown.
    assert ask(both, ANN, {"": 1000, "user_ann": 49}).remaining == 1
    assert ask(both, ANN, {"": 900, "user_ann": 50}).remaining == 100
    assert ask(both, ANN, {"": 1000, "user_ann": 50}).reason is Reason.LIMIT_REACHED
    # Without a user the shared limit alone answers.
    assert ask(both, None, {"": 1000, "user_ann": 0}).reason is Reason.LIMIT_REACHED
    assert ask(both, None, {"": 999}).allowed


def test_allowances_of_each_user_stack_among_themselves() -> None:
    company = facts(subscriptions=(subscribed("pro", "extra"),))
    summed = of(EACH, extra=(exports(25, scope="user", stacking=Stacking.SUM),))
    assert ask(summed, ANN, {}, company=company).limit == 75
    larger = of(EACH, extra=(exports(60, scope="user"),))
    assert ask(larger, ANN, {}, company=company).limit == 60
    apart = of(EACH, extra=(exports(500, stacking=Stacking.SUM),))
    assert ask(apart, None, {}, company=company).limit == 500


def test_an_override_for_the_company_changes_what_each_user_has() -> None:
    more = facts(subscriptions=(subscribed("pro"),), overrides=(override(OverrideMode.ADD, 10),))
    assert ask(of(EACH), ANN, {"user_ann": 59}, company=more).remaining == 1
    assert ask(of(EACH), None, {}, company=more).reason is Reason.UNKNOWN_USER
    # Beside a limit that all share it changes that one.
    assert ask(of(EACH, exports(100)), None, {}, company=more).limit == 110
    denied = facts(subscriptions=(subscribed("pro"),), overrides=(override(OverrideMode.DENY),))
    assert ask(of(EACH), ANN, {}, company=denied).reason is Reason.OVERRIDE_DENIED


def test_overrides_for_one_user() -> None:
    company = facts(
        subscriptions=(subscribed("pro"),),
        overrides=(
            override(OverrideMode.ADD, 5, user="user_ann"),
            override(OverrideMode.SET, 80, user="user_bob", id="ovr_bob"),
        ),
    )
    assert ask(of(EACH), ANN, {"user_ann": 1}, company=company).limit == 55
    assert ask(of(EACH), BOB, {"user_bob": 1}, company=company).limit == 80
    assert ask(of(EACH), UserFacts(user_id="user_eve"), {}, company=company).limit == 50
    # A smaller value than what each user has changes nothing.
    less = facts(subscriptions=(subscribed("pro"),), overrides=(override(OverrideMode.SET, 20, user="user_ann"),))
    assert ask(of(EACH), ANN, {}, company=less).limit == 50


def test_unlimited_and_soft_limits_for_each_user() -> None:
    assert ask(of(exports(None, scope="user")), ANN, {"user_ann": 9}).reason is Reason.UNLIMITED
    assert ask(of(exports(None, scope="user")), None, {}).reason is Reason.UNKNOWN_USER
    soft = ask(of(exports(None, scope="user", soft_limit=10)), ANN, {"user_ann": 10})
    assert (soft.allowed, soft.over_soft_limit) == (True, True)


def test_a_missing_limit_trait_of_each_user_never_grants() -> None:
    stored = Entitlement(feature="exports", limit_trait="quota", period=MONTH, scope="user")
    assert ask(of(stored), ANN, {}).reason is Reason.TRAIT_MISSING
    company = facts(subscriptions=(subscribed("pro"),), traits={"quota": 7})
    assert ask(of(stored), ANN, {}, company=company).limit == 7


def test_scope_means_nothing_where_usage_is_not_counted() -> None:
    catalog = of(Entitlement(feature="sso", enabled=True, scope="user"))
    snapshot = build_snapshot(catalog, facts(subscriptions=(subscribed("pro"),)), NOW)
    assert decide(snapshot, "sso", {}, at=NOW).allowed
    assert not is_counted_per_user(catalog, "sso")
    assert not is_counted_per_user(catalog, "nothing")


def test_the_writer_learns_which_windows_to_keep() -> None:
    assert is_counted_per_user(of(EACH), "exports")
    assert not is_counted_per_user(of(exports(50)), "exports")
    assert window_kinds(of(exports(50, scope="user", period=PeriodKind.DAY)), "exports") == {PeriodKind.DAY}


def test_windows_roll_forward_for_each_user() -> None:
    snapshot = build_snapshot(of(EACH), facts(subscriptions=(subscribed("pro"),)), NOW)
    ended = counter(50, end_at=NOW)
    decision = decide(snapshot, "exports", {("exports", MONTH, "user_ann"): ended}, at=NOW, user=ANN)
    assert (decision.allowed, decision.used) == (True, 0)
    assert decision.period is not None
    assert decision.period.start == NOW


def snapshot_of(*entitlements: Entitlement) -> CompanySnapshot:
    return build_snapshot(of(*entitlements), facts(subscriptions=(subscribed("pro"),)), NOW)


def test_what_is_granted_is_said() -> None:
    answer = snapshot_of(EACH).features["exports"].answer
    feature = snapshot_of(EACH).features["exports"].feature
    assert (granted_value(answer), granted_text(feature, answer)) == (50, "50 exports per month for each user")
    both = snapshot_of(EACH, exports(1000)).features["exports"].answer
    assert granted_text(feature, both) == "1,000 exports per month, and 50 exports per month for each user"
    unlimited = snapshot_of(exports(None, scope="user")).features["exports"].answer
    assert granted_text(feature, unlimited) == "unlimited exports for each user"


def test_effects_of_a_change() -> None:
    def moved(before: CompanySnapshot, after: CompanySnapshot) -> str:
        gained, lost = effects(before, after)
        assert len(gained) + len(lost) <= 1
        return "gained" if gained else "lost" if lost else "same"

    fewer = exports(20, scope="user")
    assert moved(snapshot_of(fewer), snapshot_of(EACH)) == "gained"
    assert moved(snapshot_of(EACH), snapshot_of(fewer)) == "lost"
    assert moved(snapshot_of(EACH), snapshot_of(EACH)) == "same"
    assert moved(snapshot_of(exports(100), EACH), snapshot_of(exports(100))) == "lost"
    assert moved(snapshot_of(exports(100)), snapshot_of(exports(100), EACH)) == "gained"
    assert moved(snapshot_of(EACH), snapshot_of()) == "lost"
    assert moved(snapshot_of(), snapshot_of(EACH)) == "gained"
    assert moved(snapshot_of(exports(100), EACH), snapshot_of(exports(90), EACH)) == "lost"


def test_the_user_furthest_over_is_what_stands_against_a_downgrade() -> None:
    counters = {
        ("exports", MONTH, ""): counter(500),
        ("exports", MONTH, "user_ann"): counter(60),
        ("exports", MONTH, "user_bob"): counter(55),
    }
    after = snapshot_of(EACH)
    found = violations(after, counters, effective_at=NOW, before=snapshot_of(exports(1000)))
    assert found == [Violation(feature="exports", name="Exports", used=60, limit=50)]
    ended = {key: counter(60, end_at=NOW + timedelta(days=1)) for key in counters}
    assert violations(after, ended, effective_at=NOW + timedelta(days=2)) == []
    equal = {("exports", MONTH, "user_ann"): counter(50)}
    assert violations(after, equal, effective_at=NOW) == []


def test_a_users_own_set_leaves_what_all_share_as_it_is() -> None:
    own = override(OverrideMode.SET, 50, user="user_ann")
    company = facts(subscriptions=(subscribed("pro"),), overrides=(own,))
    catalog = of(exports(10))
    # The shared ten are used up, and so are Ann's fifty: a larger limit for all is not what she was given.
    spent = ask(catalog, ANN, {"": 30, "user_ann": 50}, company=company)
    assert (spent.allowed, spent.reason) == (False, Reason.LIMIT_REACHED)
    left = ask(catalog, ANN, {"": 30, "user_ann": 49}, company=company)
    assert (left.allowed, left.limit, left.used) == (True, 50, 49)
    assert not ask(catalog, BOB, {"": 30}, company=company).allowed


def test_of_windows_with_as_much_left_the_shortest_is_shown() -> None:
    catalog = of(exports(5, period=PeriodKind.DAY), exports(5))
    shown = ask(catalog, None, {})
    assert shown.period is not None
    assert shown.period.kind is PeriodKind.DAY
    # One that never ends comes before any with an end, and after it one that costs more beyond.
    catalog = of(exports(5, period=PeriodKind.DAY), exports(None))
    assert ask(catalog, None, {}).reason is Reason.UNLIMITED
    catalog = of(exports(None, soft_limit=500, period=PeriodKind.DAY), exports(None))
    assert ask(catalog, None, {}).soft_limit is None
    catalog = of(exports(900, period=PeriodKind.DAY), exports(None, soft_limit=5))
    assert ask(catalog, None, {}).soft_limit == 5
