"""The page that says how to connect a Stripe account lists what the code consumes, and Stripe knows all of it."""

import re
from pathlib import Path
from typing import get_args

import pytest
from stripe.params._webhook_endpoint_create_params import WebhookEndpointCreateParams

from plangate.settings import EnvironmentSettings
from plangate.store.inbox import InboxState
from plangate.sync import CONSUMED_EVENTS, receive
from tests.shop import Shop

_PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "connect-stripe.md").read_text("utf-8")


def test_the_page_lists_the_events_that_are_consumed() -> None:
    _, _, table = _PAGE.partition("| Event | Because |")
    table = table.partition("\n\n")[0]
    listed = re.findall(r"`([a-z_.]+)`", "".join(line.split("|")[1] for line in table.splitlines() if "`" in line))
    assert sorted(listed) == sorted(CONSUMED_EVENTS)
    assert len(set(listed)) == len(listed)


def test_stripe_knows_every_event_that_is_consumed() -> None:
    annotation = str(WebhookEndpointCreateParams.__annotations__["enabled_events"])
    known = set(re.findall(r'["\']([a-z_0-9.]+)["\']', annotation)) or {
        value for value in get_args(annotation) if isinstance(value, str)
    }
    assert known, "the package's type was not read"
    assert set(CONSUMED_EVENTS) <= known


def test_the_page_says_the_pace_of_the_settings() -> None:
    live, test = (EnvironmentSettings(stripe_mode=mode).long_work_per_second for mode in ("live", "test"))
    assert f"({live} live, {test} in test mode" in _PAGE


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_every_consumed_event_is_acted_on(shop: Shop) -> None:
    subjects = {
        "customer": {"object": "customer", "id": "cus_1"},
        "charge": {"object": "charge", "id": "ch_1"},
        "dispute": {"object": "dispute", "id": "du_1", "charge": "ch_1"},
        "refund.": {"object": "refund", "id": "re_1", "charge": "ch_1"},
    }
    for number, kind in enumerate(CONSUMED_EVENTS):
        subject = {"object": "any", "id": "any_1", "customer": "cus_1"}
        if kind.startswith("price."):
            subject = {"object": "price", "id": "price_1"}
        elif kind.startswith("product."):
            subject = {"object": "product", "id": "prod_1"}
        elif kind.startswith(("charge.", "refund.")):
            subject = subjects[next((one for one in ("dispute", "refund.") if one in kind), "charge")]
        elif kind.count(".") == 1 and kind.startswith("customer."):
            subject = subjects["customer"]
        event = {"id": f"evt_{number}", "type": kind, "created": 1, "livemode": False, "data": {"object": subject}}
        row = await receive(shop.env, event)
        assert row is not None
        assert row.state == InboxState.PENDING.value, kind
