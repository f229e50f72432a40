"""A downgrade's phases lose nothing of what runs now, and follow the rules that made other people's invoices wrong."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stripe.params import _subscription_schedule_update_params as official

from plangate.billing.gateway import LineItem
from plangate.billing.schedule import (
    INVOICE_ITEM_FIELDS,
    INVOICE_SETTINGS_FIELDS,
    ITEM_FIELDS,
    PHASE_FIELDS,
    Boundary,
    carried_phase,
    running_phase,
    scheduled_phases,
)
from plangate.engine.values import Interval

START, BOUNDARY, LATER = 1_762_128_000, 1_764_720_000, 1_767_398_400
MARKS = {"plangate_company": "comp_1", "plangate_change": "chg_1"}


def test_d3_every_writable_field_of_the_official_types_is_carried() -> None:
    """What is left out on purpose is named here, with the field that says the same thing."""
    assert set(PHASE_FIELDS) == set(official.SubscriptionScheduleUpdateParamsPhase.__annotations__) - {
        "duration"  # A running phase has its end as `end_date`.
    }
    assert set(ITEM_FIELDS) == set(official.SubscriptionScheduleUpdateParamsPhaseItem.__annotations__) - {
        "plan",  # The older word for `price`.
        "price_data",  # It became a price when the item was made.
    }
    assert set(INVOICE_SETTINGS_FIELDS) == set(
        official.SubscriptionScheduleUpdateParamsPhaseInvoiceSettings.__annotations__
    )
    assert set(INVOICE_ITEM_FIELDS) == set(
        official.SubscriptionScheduleUpdateParamsPhaseAddInvoiceItem.__annotations__
    ) - {"price_data"}


def stripe_id(prefix: str) -> st.SearchStrategy[str]:
    return st.from_regex(rf"{prefix}_[a-zA-Z0-9]{{4}}", fullmatch=True)


def expandable(prefix: str) -> st.SearchStrategy[Any]:
    """An id, or the object with it, as `expand` decides."""
    return stripe_id(prefix) | stripe_id(prefix).map(lambda text: {"id": text, "object": "any", "created": 1})


def price_of(item: dict[str, Any]) -> str:
    price = item["price"]
    return str(price if isinstance(price, str) else price["id"])


METADATA = st.dictionaries(st.from_regex(r"[a-z]{1,8}", fullmatch=True), st.text(min_size=1, max_size=8), max_size=3)
TEXT = st.none() | st.text(min_size=1, max_size=12)
DISCOUNT = st.one_of(
    st.fixed_dictionaries({"coupon": st.none(), "discount": expandable("di"), "promotion_code": st.none()}),
    st.fixed_dictionaries({"coupon": expandable("co"), "discount": st.none(), "promotion_code": st.none()}),
)
PARTY = st.none() | st.fixed_dictionaries({"account": st.none() | expandable("acct"), "type": st.just("self")})
ITEM = st.fixed_dictionaries(
    {
        "billing_thresholds": st.none() | st.fixed_dictionaries({"usage_gte": st.integers(1, 9)}),
        "discounts": st.lists(DISCOUNT, max_size=2),
        "metadata": METADATA,
        "plan": expandable("plan"),
        "price": expandable("price"),
        "quantity": st.none() | st.integers(0, 99),
        "tax_rates": st.none() | st.lists(expandable("txr"), max_size=2),
    }
)
PHASE = st.fixed_dictionaries(
    {
        "add_invoice_items": st.lists(
            st.fixed_dictionaries(
                {
                    "discountable": st.none() | st.booleans(),
                    "discounts": st.lists(DISCOUNT, max_size=1),
                    "metadata": METADATA,
                    "period": st.just({"start": {"type": "phase_start"}, "end": {"type": "timestamp", "timestamp": 5}}),
                    "price": expandable("price"),
                    "quantity": st.none() | st.integers(1, 9),
                    "tax_rates": st.lists(expandable("txr"), max_size=1),
                }
            ),
            max_size=1,
        ),
        "application_fee_percent": st.none() | st.integers(1, 100),
        "automatic_tax": st.none()
        | st.fixed_dictionaries({"disabled_reason": st.none(), "enabled": st.booleans(), "liability": PARTY}),
        "billing_cycle_anchor": st.none() | st.just("automatic"),
        "billing_thresholds": st.none()
        | st.fixed_dictionaries({"amount_gte": st.integers(1, 9), "reset_billing_cycle_anchor": st.booleans()}),
        "collection_method": st.sampled_from([None, "charge_automatically", "send_invoice"]),
        "currency": st.just("usd"),
        "default_payment_method": st.none() | expandable("pm"),
        "default_tax_rates": st.none() | st.lists(expandable("txr"), max_size=2),
        "description": TEXT,
        "discounts": st.lists(DISCOUNT, max_size=2),
        "end_date": st.just(BOUNDARY),
        "invoice_settings": st.none()
        | st.fixed_dictionaries(
            {
                "account_tax_ids": st.none() | st.lists(expandable("txi"), max_size=1),
                "custom_fields": st.none() | st.just([{"name": "PO", "value": "7"}]),
                "days_until_due": st.none() | st.integers(1, 90),
                "description": TEXT,
                "footer": TEXT,
                "issuer": PARTY,
            }
        ),
        "items": st.lists(ITEM, min_size=1, max_size=3, unique_by=price_of),
        "metadata": METADATA,
        "on_behalf_of": st.none() | expandable("acct"),
        "proration_behavior": st.sampled_from(["none", "create_prorations"]),
        "start_date": st.just(START),
        "transfer_data": st.none()
        | st.fixed_dictionaries({"amount_percent": st.none(), "destination": expandable("acct")}),
        "trial": st.none() | st.just(True),
        "trial_end": st.none() | st.just(BOUNDARY),
    }
)


def flattened(value: object) -> object:
    """The same with every expanded object replaced by its id, and nothing that is empty."""
    if isinstance(value, dict):
        if "object" in value:
            return value["id"]
        members = {name: flattened(member) for name, member in value.items()}
        return {name: member for name, member in members.items() if member not in (None, [], {}, "")}
    return [flattened(entry) for entry in value] if isinstance(value, list) else value


def schedule_with(phase: dict[str, Any], *later: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": "sub_sched_1",
        "current_phase": {"start_date": phase["start_date"], "end_date": phase["end_date"]},
        "phases": [phase, *later],
    }


@settings(max_examples=200, derandomize=True, deadline=None)
@given(phase=PHASE)
def test_d3_a_phase_survives_the_round_trip(phase: dict[str, Any]) -> None:
    expected = flattened(phase)
    assert isinstance(expected, dict)
    for item in expected["items"]:
        del item["plan"]
    (expected.get("automatic_tax") or {}).pop("disabled_reason", None)
    carried = carried_phase(phase)
    assert carried == expected
    # Written once more from what Stripe would return for it, nothing changes.
    assert carried_phase(carried) == carried


@settings(max_examples=100, derandomize=True, deadline=None)
@given(phase=PHASE, quantity=st.none() | st.integers(0, 9))
def test_the_running_phase_is_rewritten_unchanged_and_the_next_one_inherits(
    phase: dict[str, Any], quantity: int | None
) -> None:
    kept = price_of(phase["items"][0])
    params = scheduled_phases(
        schedule_with(phase),
        [LineItem("price_new", 1), LineItem(kept, quantity)],
        boundary=Boundary(BOUNDARY, Interval.MONTH, 1, is_interval_changed=False),
        metadata=MARKS,
    )
    running, following = params["phases"]
    assert running == carried_phase(phase)
    assert running["start_date"] == START
    assert running["end_date"] == following["start_date"] == BOUNDARY
    for name in (
        "automatic_tax",
        "collection_method",
        "default_payment_method",
        "default_tax_rates",
        "description",
        "discounts",
        "invoice_settings",
        "on_behalf_of",
        "transfer_data",
        "currency",
    ):
        assert following.get(name) == running.get(name)
    assert following["metadata"] == {**running.get("metadata", {}), **MARKS}
    assert not {"trial", "trial_end", "add_invoice_items", "end_date"} & set(following)
    assert following["items"][0] == {"price": "price_new", "quantity": 1}
    inherited = {name: value for name, value in running["items"][0].items() if name != "quantity"}
    assert {name: value for name, value in following["items"][1].items() if name != "quantity"} == inherited
    assert following["items"][1].get("quantity") == quantity


def a_phase(start: int, end: int, price: str) -> dict[str, Any]:
    return {"start_date": start, "end_date": end, "items": [{"price": price, "quantity": 1}], "metadata": {"a": "b"}}


def a_downgrade(*, interval: Interval = Interval.MONTH, is_interval_changed: bool = False) -> dict[str, Any]:
    return scheduled_phases(
        schedule_with(a_phase(START, LATER, "price_pro")),
        [LineItem("price_starter", 1)],
        boundary=Boundary(BOUNDARY, interval, 1, is_interval_changed),
        metadata=MARKS,
    )


def test_d5_no_iterations_but_a_duration() -> None:
    following = a_downgrade()["phases"][1]
    assert "iterations" not in following
    assert following["duration"] == {"interval": "month", "interval_count": 1}


def test_d6_a_new_interval_restarts_the_cycle_at_the_boundary() -> None:
    assert a_downgrade(interval=Interval.YEAR, is_interval_changed=True)["phases"][1]["billing_cycle_anchor"] == (
        "phase_start"
    )
    assert "billing_cycle_anchor" not in a_downgrade()["phases"][1]


def test_d7_and_d8_no_proration_and_release_at_the_end() -> None:
    params = a_downgrade()
    assert params["proration_behavior"] == "none"
    assert params["phases"][1]["proration_behavior"] == "none"
    assert params["end_behavior"] == "release"
    assert params["metadata"] == MARKS


def test_d16_the_running_phase_ends_exactly_at_the_item_period() -> None:
    running, following = a_downgrade()["phases"]
    assert (running["end_date"], following["start_date"]) == (BOUNDARY, BOUNDARY)


@pytest.mark.parametrize("order", [1, -1])
def test_later_phases_of_an_earlier_version_are_replaced(order: int) -> None:
    phases = [a_phase(START, BOUNDARY, "price_pro"), a_phase(BOUNDARY, LATER, "price_old_target")][::order]
    schedule = {"current_phase": {"start_date": START, "end_date": BOUNDARY}, "phases": phases}
    assert running_phase(schedule)["items"][0]["price"] == "price_pro"
    params = scheduled_phases(
        schedule,
        [LineItem("price_starter", 1)],
        boundary=Boundary(BOUNDARY, Interval.MONTH, 1, is_interval_changed=False),
        metadata=MARKS,
    )
    assert [phase["items"][0]["price"] for phase in params["phases"]] == ["price_pro", "price_starter"]
