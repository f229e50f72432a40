"""Proves where overage begins: what a company may use in a window before every further unit has a price."""

import msgspec

from plangate.engine.catalog import Entitlement
from plangate.engine.overage import Sold, beyond, included, sold_overage
from plangate.engine.values import Interval, OverrideMode, PeriodKind, PriceBehaviour
from tests.engine.factories import BEGAN, NOW, RENEWS, catalog_of, exports, facts, override, plan, price, subscribed

MONTH, DAY = PeriodKind.BILLING_MONTH, PeriodKind.DAY


def sold(soft_limit: int, *, meter: str | None = "exports", period: PeriodKind = MONTH) -> Entitlement:
    """So many exports included, and a price for each beyond."""
    each = msgspec.structs.replace(price("beyond", Interval.MONTH, 2), is_metered=True, meter=meter)
    return exports(None, soft_limit=soft_limit, period=period, price_behaviour=PriceBehaviour.OVERAGE, prices=(each,))


def test_overage_is_billed_by_period_and_only_where_it_has_a_meter() -> None:
    catalog = catalog_of(
        [
            plan("free", exports(10)),
            plan("pro", sold(100), exports(None, soft_limit=5, period=DAY), monthly=4900),
            plan("unmetered", sold(50, meter=None), monthly=900),
        ],
        fallback_plan="free",
    )
    pro = facts(subscriptions=(subscribed("pro"),))
    assert included(catalog, pro, "exports", MONTH, NOW) == (True, 100)
    # Beyond the day's five nothing is charged.
    assert included(catalog, pro, "exports", DAY, NOW) == (False, None)
    assert included(catalog, facts(subscriptions=(subscribed("unmetered"),)), "exports", MONTH, NOW) == (False, None)
    assert included(catalog, facts(), "exports", MONTH, NOW) == (False, None)
    assert included(catalog, pro, "nothing", MONTH, NOW) == (False, None)
    assert sold_overage(catalog) == [Sold("exports", MONTH, 100, "exports")]


def test_nobody_has_less_included_than_the_least_of_all_versions() -> None:
    catalog = catalog_of(
        [plan("pro", sold(100), monthly=4900), plan("max", sold(30), sold(7, period=DAY), monthly=9900)]
    )
    assert sold_overage(catalog) == [Sold("exports", MONTH, 30, "exports"), Sold("exports", DAY, 7, "exports")]


def test_what_raises_an_allowance_delays_overage_and_a_denial_does_not_bring_it_forward() -> None:
    catalog = catalog_of([plan("pro", sold(100), monthly=4900)])

    def before(*exceptions: tuple[OverrideMode, object], user: str | None = None) -> tuple[bool, int | None]:
        made = tuple(override(mode, value, user=user) for mode, value in exceptions)
        company = facts(subscriptions=(subscribed("pro"),), overrides=made)
        return included(catalog, company, "exports", MONTH, NOW)

    assert before((OverrideMode.ADD, 20)) == (True, 120)
    assert before((OverrideMode.SET, 300), (OverrideMode.ADD, 20)) == (True, 320)
    assert before((OverrideMode.SET, 50)) == (True, 100)
    assert before((OverrideMode.SET, "unlimited")) == (True, None)
    assert before((OverrideMode.DENY, None)) == (True, 100)
    # One user's exception is not the company's.
    assert before((OverrideMode.ADD, 20), user="user_ann") == (True, 100)
    ended = override(OverrideMode.ADD, 20, starts_at=BEGAN, expires_at=NOW)
    later = override(OverrideMode.ADD, 20, id="ovr_later", starts_at=RENEWS)
    company = facts(subscriptions=(subscribed("pro"),), overrides=(ended, later))
    assert included(catalog, company, "exports", MONTH, NOW) == (True, 100)


def test_overage_is_what_was_used_beyond() -> None:
    assert [beyond(used, 10) for used in (-5, 0, 10, 11)] == [0, 0, 0, 1]
    assert beyond(5, None) == 0
