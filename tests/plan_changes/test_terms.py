"""What became of a change, told from facts alone."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from plangate.change_terms import Action, Line, Terms, followed, outcome
from plangate.engine.facts import ScheduledPhase, SubscriptionFact, SubscriptionItem
from plangate.engine.values import Interval
from plangate.shapes import ChangeState

START, BOUNDARY, LATER = (datetime(2026, month, 3, tzinfo=UTC) for month in (10, 11, 12))


def an_item(price: str, quantity: int | None = 1, *, start: datetime = START) -> SubscriptionItem:
    return SubscriptionItem(
        stripe_item_id=f"si_{price}",
        stripe_price_id=price,
        stripe_product_id="prod",
        quantity=quantity,
        is_metered=quantity is None,
        currency="usd",
        interval=Interval.MONTH,
        interval_count=1,
        unit_amount_minor=100,
        period_start_at=start,
        period_end_at=BOUNDARY if start == START else LATER,
    )


def a_fact(*items: SubscriptionItem, **changes: Any) -> SubscriptionFact:  # noqa: ANN401 - fields of the fact
    fact = SubscriptionFact(
        stripe_subscription_id="sub_1",
        stripe_customer_id="cus_1",
        status="active",
        items=items or (an_item("pro"),),
        currency="usd",
        anchor_at=START,
        started_at=START,
    )
    return msgspec.structs.replace(fact, **changes)


PHASE = ScheduledPhase(starts_at=BOUNDARY, ends_at=LATER, prices=(("starter", 1),))
SCHEDULE = Terms(
    action=Action.SCHEDULE,
    lines=(Line("starter", 1),),
    plan_price_id="starter",
    held=(Line("pro", 1),),
    held_plan_price_id="pro",
    boundary=int(BOUNDARY.timestamp()),
)
UPDATE = Terms(action=Action.UPDATE, lines=(Line("pro", 1),), plan_price_id="pro")
AT_END = Terms(action=Action.CANCEL_AT_PERIOD_END)
KEEP = Terms(action=Action.KEEP)
START_TERMS = Terms(action=Action.CHECKOUT, lines=(Line("pro", 1),))
OURS: dict[str, Any] = {"is_schedule_ours": True, "stripe_schedule_id": "sched", "phases": (PHASE,)}
APPLYING, SCHEDULED, CANCELLING = ChangeState.APPLYING, ChangeState.SCHEDULED, ChangeState.CANCELLING


@pytest.mark.parametrize(
    ("terms", "state", "fact", "expected"),
    [
        (SCHEDULE, APPLYING, a_fact(), None),
        (SCHEDULE, APPLYING, a_fact(**OURS), SCHEDULED),
        (SCHEDULE, APPLYING, a_fact(**{**OURS, "is_schedule_ours": False}), None),
        (SCHEDULE, SCHEDULED, a_fact(**OURS), SCHEDULED),
        (SCHEDULE, SCHEDULED, a_fact(), ChangeState.CANCELLED),
        (SCHEDULE, SCHEDULED, a_fact(an_item("starter")), ChangeState.CANCELLED),
        (SCHEDULE, SCHEDULED, a_fact(an_item("starter", start=BOUNDARY)), ChangeState.APPLIED),
        (SCHEDULE, SCHEDULED, a_fact(an_item("starter", start=BOUNDARY), **OURS), SCHEDULED),
        (SCHEDULE, SCHEDULED, a_fact(status="canceled"), ChangeState.CANCELLED),
        (SCHEDULE, CANCELLING, a_fact(**OURS), None),
        (SCHEDULE, CANCELLING, a_fact(), ChangeState.CANCELLED),
        (UPDATE, APPLYING, a_fact(), ChangeState.APPLIED),
        (UPDATE, APPLYING, a_fact(an_item("starter")), None),
        (UPDATE, APPLYING, a_fact(an_item("pro"), an_item("extra")), None),
        (UPDATE, ChangeState.REQUIRES_ACTION, a_fact(an_item("starter")), None),
        (msgspec.structs.replace(UPDATE, trial_end=1), APPLYING, a_fact(), None),
        (msgspec.structs.replace(UPDATE, is_trial_over=True), APPLYING, a_fact(status="trialing"), None),
        (msgspec.structs.replace(UPDATE, is_trial_over=True), APPLYING, a_fact(), ChangeState.APPLIED),
        (AT_END, APPLYING, a_fact(), None),
        (AT_END, APPLYING, a_fact(scheduled_end_at=BOUNDARY), SCHEDULED),
        (AT_END, SCHEDULED, a_fact(), ChangeState.CANCELLED),
        (AT_END, SCHEDULED, a_fact(status="canceled"), ChangeState.APPLIED),
        (AT_END, CANCELLING, a_fact(scheduled_end_at=BOUNDARY), None),
        (Terms(action=Action.CANCEL_NOW), APPLYING, a_fact(), None),
        (Terms(action=Action.CANCEL_NOW), APPLYING, a_fact(status="canceled"), ChangeState.APPLIED),
        (KEEP, APPLYING, a_fact(), ChangeState.APPLIED),
        (KEEP, APPLYING, a_fact(**OURS), None),
        (KEEP, APPLYING, a_fact(status="canceled"), ChangeState.CANCELLED),
        (UPDATE, APPLYING, None, None),
    ],
)
def test_outcomes(
    terms: Terms, state: ChangeState, fact: SubscriptionFact | None, expected: ChangeState | None
) -> None:
    assert outcome(terms, state, "chg_1", fact=fact, subscriptions=()) is expected


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("active", ChangeState.APPLIED),
        ("trialing", ChangeState.APPLIED),
        ("incomplete", None),
        ("incomplete_expired", ChangeState.FAILED),
    ],
)
def test_a_start_is_found_by_its_mark(status: str, expected: ChangeState | None) -> None:
    mine = {"id": "sub_1", "status": status, "metadata": {"plangate_change": "chg_1"}}
    other = {"id": "sub_2", "status": "active", "metadata": {"plangate_change": "chg_2"}}
    assert outcome(START_TERMS, APPLYING, "chg_1", fact=None, subscriptions=[other, mine]) is expected
    assert outcome(START_TERMS, APPLYING, "chg_3", fact=None, subscriptions=[other, mine]) is None


@pytest.mark.parametrize(("pending", "expected"), [(None, ChangeState.FAILED), ({"expires_at": 1}, None)])
def test_s22_a_pending_update_that_is_gone(pending: object, expected: ChangeState | None) -> None:
    raw = {"id": "sub_1", "status": "active", "metadata": {}, "pending_update": pending}
    fact = a_fact(an_item("starter"))
    found = outcome(UPDATE, ChangeState.REQUIRES_ACTION, "chg_1", fact=fact, subscriptions=[raw])
    assert found is expected


def lines_after(terms: Terms, *items: SubscriptionItem) -> dict[str, int | None] | None:
    edited = followed(terms, a_fact(*items, **OURS))
    return None if edited is None else {line.stripe_price_id: line.quantity for line in edited.lines}


def test_edits_are_followed_where_the_change_kept_the_quantity() -> None:
    terms = msgspec.structs.replace(
        SCHEDULE,
        lines=(Line("starter", 1), Line("kept", 2), Line("reduced", 1), Line("calls", None)),
        held=(Line("pro", 1), Line("kept", 2), Line("reduced", 5), Line("calls", None)),
    )
    same = (an_item("pro"), an_item("kept", 2), an_item("reduced", 5), an_item("calls", None))
    assert lines_after(terms, *same) is None
    edited = (an_item("pro", 3), an_item("kept", 7), an_item("reduced", 9), an_item("calls", None))
    assert lines_after(terms, *edited) == {"starter": 3, "kept": 7, "reduced": 1, "calls": None}
    removed = (an_item("pro"), an_item("reduced", 5), an_item("calls", None), an_item("new", 4))
    assert lines_after(terms, *removed) == {"starter": 1, "reduced": 1, "calls": None, "new": 4}
    # The plan itself was changed elsewhere: nothing to follow.
    assert lines_after(terms, an_item("enterprise")) is None
