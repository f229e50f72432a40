"""What Stripe says becomes facts: all items, both generations of shapes, the scheduled end however it is expressed."""

import copy
import random
from datetime import UTC, datetime
from typing import Any

import pytest

from plangate.billing.gateway import CustomerState
from plangate.billing.mirror import mirrored, owning_company, state_hash, subscription_fact
from plangate.engine.facts import ScheduledPhase
from plangate.engine.values import Interval

START, END, LATER = 1_762_128_000, 1_764_720_000, 1_767_398_400


def at(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def an_item(number: int = 1, *, price: dict[str, Any] | None = None, **changes: object) -> dict[str, Any]:
    written = {
        "id": f"price_{number}",
        "product": f"prod_{number}",
        "currency": "usd",
        "unit_amount": 4900,
        "recurring": {"interval": "month", "interval_count": 1, "usage_type": "licensed"},
        **(price or {}),
    }
    return {
        "id": f"si_{number}",
        "price": written,
        "quantity": 1,
        "current_period_start": START,
        "current_period_end": END,
        **changes,
    }


def a_subscription(*items: dict[str, Any], **changes: object) -> dict[str, Any]:
    return {
        "id": "sub_1",
        "customer": "cus_1",
        "status": "active",
        "currency": "usd",
        "items": {"data": list(items) or [an_item()], "has_more": False},
        "billing_cycle_anchor": START,
        "start_date": START,
        "cancel_at": None,
        "cancel_at_period_end": False,
        "ended_at": None,
        "trial_end": None,
        "pause_collection": None,
        "schedule": None,
        "default_payment_method": None,
        **changes,
    }


def a_schedule(**changes: object) -> dict[str, Any]:
    return {
        "id": "sub_sched_1",
        "status": "active",
        "subscription": "sub_1",
        "metadata": {"plangate_change": "chg_1"},
        "current_phase": {"start_date": START, "end_date": END},
        "phases": [
            {"start_date": END, "end_date": LATER, "items": [{"price": {"id": "price_2"}, "quantity": 3}]},
            {"start_date": START, "end_date": END, "items": [{"price": "price_1", "quantity": 1}]},
        ],
        **changes,
    }


def test_a_plain_subscription() -> None:
    fact = subscription_fact(a_subscription(default_payment_method={"id": "pm_1"}))
    assert (fact.stripe_subscription_id, fact.stripe_customer_id, fact.status) == ("sub_1", "cus_1", "active")
    assert (fact.anchor_at, fact.started_at) == (at(START), at(START))
    assert fact.default_payment_method == "pm_1"
    (item,) = fact.items
    assert (item.stripe_price_id, item.stripe_product_id, item.quantity) == ("price_1", "prod_1", 1)
    assert (item.interval, item.interval_count, item.unit_amount_minor) == (Interval.MONTH, 1, 4900)
    assert (item.period_start_at, item.period_end_at) == (at(START), at(END))


def test_w13_the_older_shape_gives_the_same_fact() -> None:
    older = a_subscription(current_period_start=START, current_period_end=END)
    for item in older["items"]["data"]:
        del item["current_period_start"], item["current_period_end"]
    assert subscription_fact(older) == subscription_fact(a_subscription())


def test_s10_every_item_is_kept_whatever_its_position() -> None:
    metered = an_item(0, quantity=None, price={"recurring": {"interval": "month", "usage_type": "metered"}})
    items = [metered, an_item(1), an_item(2, quantity=4)]
    first = subscription_fact(a_subscription(*items))
    second = subscription_fact(a_subscription(*reversed(items)))
    assert first == second
    assert [(item.stripe_price_id, item.quantity, item.is_metered) for item in first.items] == [
        ("price_0", None, True),
        ("price_1", 1, False),
        ("price_2", 4, False),
    ]


def test_s8_the_scheduled_end_however_it_is_expressed() -> None:
    late = an_item(2, current_period_end=LATER)
    assert subscription_fact(a_subscription()).scheduled_end_at is None
    classic = a_subscription(an_item(1), late, cancel_at_period_end=True)
    assert subscription_fact(classic).scheduled_end_at == at(LATER)
    flexible = a_subscription(an_item(1), late, cancel_at=END)
    assert subscription_fact(flexible).scheduled_end_at == at(END)
    both = a_subscription(an_item(1), late, cancel_at=END, cancel_at_period_end=True)
    assert subscription_fact(both).scheduled_end_at == at(END)


def test_s5_a_paused_collection_is_not_a_paused_subscription() -> None:
    fact = subscription_fact(a_subscription(pause_collection={"behavior": "void"}))
    assert (fact.status, fact.is_collection_paused) == ("active", True)


def test_w19_a_status_nobody_knows_yet_is_kept_verbatim() -> None:
    assert subscription_fact(a_subscription(status="hibernating")).status == "hibernating"


def test_an_amount_of_another_currency_is_not_taken_for_ours() -> None:
    fact = subscription_fact(a_subscription(an_item(1, price={"currency": "eur"})))
    assert fact.items[0].unit_amount_minor is None
    assert fact.items[0].currency == "usd"


def test_the_later_phases_of_our_schedule() -> None:
    fact = subscription_fact(a_subscription(schedule="sub_sched_1"), schedule=a_schedule())
    assert (fact.stripe_schedule_id, fact.is_schedule_ours) == ("sub_sched_1", True)
    assert fact.phases == (ScheduledPhase(starts_at=at(END), ends_at=at(LATER), prices=(("price_2", 3),)),)


def test_a_schedule_without_our_mark_is_foreign() -> None:
    fact = subscription_fact(a_subscription(), schedule=a_schedule(metadata={"by": "erp"}))
    assert (fact.stripe_schedule_id, fact.is_schedule_ours) == ("sub_sched_1", False)


def test_a_schedule_not_started_has_all_phases_ahead() -> None:
    fact = subscription_fact(a_subscription(), schedule=a_schedule(status="not_started", current_phase=None))
    assert [phase.starts_at for phase in fact.phases] == [at(START), at(END)]


@pytest.mark.parametrize("shape", ["new", "old"])
def test_s3_past_due_since_the_oldest_unpaid_invoice_was_tried(shape: str) -> None:
    def invoice(finalized_at: int | None, subscription: str = "sub_1") -> dict[str, Any]:
        named: dict[str, Any] = (
            {"parent": {"subscription_details": {"subscription": subscription}}}
            if shape == "new"
            else {"subscription": subscription}
        )
        told = {"status": "open", "status_transitions": {"finalized_at": finalized_at}}
        return {"id": "in_1", "created": START + 5, **told, **named}

    subscription = a_subscription(status="past_due")
    invoices = [invoice(START + 9000), invoice(START + 3600), invoice(START, "sub_other")]
    assert subscription_fact(subscription, unpaid_invoices=invoices).past_due_since == at(START + 3600)
    assert subscription_fact(subscription, unpaid_invoices=[invoice(None)]).past_due_since == at(START + 5)
    assert subscription_fact(subscription).past_due_since == at(START)
    assert subscription_fact(a_subscription(), unpaid_invoices=invoices).past_due_since is None


def test_the_hash_depends_on_the_facts_alone() -> None:
    subscriptions = [a_subscription(an_item(1), an_item(2), id=f"sub_{n}") for n in range(5)]
    expected = state_hash(
        mirrored(CustomerState(stripe_customer_id="cus_1", customer={}, subscriptions=tuple(subscriptions)))
    )
    chance = random.Random(7)  # noqa: S311 - repeatable shuffles, not secrets.
    for _ in range(20):
        shuffled = copy.deepcopy(subscriptions)
        chance.shuffle(shuffled)
        for subscription in shuffled:
            chance.shuffle(subscription["items"]["data"])
        state = CustomerState(stripe_customer_id="cus_1", customer={}, subscriptions=tuple(shuffled))
        assert state_hash(mirrored(state)) == expected
    subscriptions[0]["items"]["data"][0]["quantity"] = 2
    changed = CustomerState(stripe_customer_id="cus_1", customer={}, subscriptions=tuple(subscriptions))
    assert state_hash(mirrored(changed)) != expected


def test_only_schedules_in_force_are_read() -> None:
    state = CustomerState(
        stripe_customer_id="cus_1",
        customer={},
        subscriptions=(a_subscription(),),
        schedules=(a_schedule(status="released"),),
    )
    assert mirrored(state)[0].phases == ()


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [(None, None), ({}, None), ({"plangate_company": ""}, None), ({"plangate_company": "comp_1"}, "comp_1")],
)
def test_the_company_named_in_metadata(metadata: dict[str, str] | None, expected: str | None) -> None:
    assert owning_company(metadata) == expected
