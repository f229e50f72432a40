"""One shop after another, drawn at random: what stands in Stripe is what is sold, and a second apply asks nothing."""

import random
from collections.abc import Mapping
from typing import Any

import pytest

from plangate import catalog
from plangate.catalog_file import catalog_text, read_catalog
from plangate.environment import Environment
from tests.catalog.pricing import monthly, priced
from tests.sandbox_inside import InsideSandbox
from tests.sandbox_server import SandboxServer
from tests.world import ACTOR

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
_STEPS = 12


def amount(dice: random.Random) -> dict[str, Any]:
    """A whole amount, a part of a minor unit, a package or tiers."""
    forms: list[dict[str, Any]] = [
        {"amount_minor": dice.choice([100, 200])},
        {"amount_decimal": dice.choice(["0.5", "0.25", "100"])},
        {"amount_minor": 100, "package": {"size": dice.choice([10, 100]), "round": dice.choice(["up", "down"])}},
        {
            "tiers_mode": dice.choice(["graduated", "volume"]),
            "tiers": [{"up_to": dice.choice([5, 10]), "amount_minor": 3}, {"up_to": None, "amount_decimal": "0.5"}],
        },
    ]
    return dice.choice(forms)


def drawn(dice: random.Random) -> dict[str, Any]:
    """A catalogue of some of the same plans and features, charging for them in some way or other."""
    document = priced()
    euros = dice.random() < 0.3
    terms = [monthly(), {**monthly(), "currency": "eur"}] if euros else [monthly()]
    for key, plan in list(document["plans"].items()):
        plan["name"] = f"{key.title()} {dice.choice('AB')}"
        if key == "free" or dice.random() < 0.2:
            if key != "free":
                del document["plans"][key]
            continue
        plan["prices"] = [{**one, **amount(dice)} for one in terms] if dice.random() < 0.9 else []
        plan["entitlements"] = {}
        for feature in ("exports", "messages", "calls", "seats"):
            behaviour = dice.choice(["included", "pay_in_advance"] if feature == "seats" else BEHAVIOURS)
            said: dict[str, Any] = {"limit": 10}
            if behaviour != "included":
                form = amount(dice)
                if (behaviour == "tiers") is not ("tiers" in form) and behaviour in {"tiers", "pay_as_you_go"}:
                    behaviour = "tiers" if "tiers" in form else "pay_as_you_go"
                said = {"price_behaviour": behaviour, "prices": [{**one, **form} for one in terms]}
                said |= {"soft_limit": 5} if behaviour == "overage" else {}
            plan["entitlements"][feature] = said
    if dice.random() < 0.3:
        del document["add_ons"]["storage"]
    return document


BEHAVIOURS = ["included", "pay_in_advance", "pay_as_you_go", "tiers", "overage"]


def sold(catalogue: Any) -> set[str | None]:  # noqa: ANN401 - the engine's catalogue
    """The Stripe price of everything on sale."""
    versions = [one for one in (*catalogue.plans.values(), *catalogue.add_ons.values()) if not one.is_archived]
    own = {price.stripe_price_id for version in versions for price in version.prices}
    return own | {price.stripe_price_id for version in versions for one in version.entitlements for price in one.prices}


async def test_what_stands_in_stripe_is_what_is_sold(
    connected_environment: Environment, sandbox: SandboxServer
) -> None:
    assert sandbox.url
    env, inside = connected_environment, InsideSandbox()
    inside.attach(env)
    dice = random.Random(20261120)  # noqa: S311 - the same catalogues every time, no secret.
    seen: dict[str, Mapping[str, Any]] = {}
    for step in range(_STEPS):
        # Going back to an earlier document is as good as a new one.
        document = dice.choice(list(seen.values())) if seen and dice.random() < 0.25 else drawn(dice)
        seen[str(step)] = document
        planned = await catalog.plan(env, document)
        applied = await catalog.apply(env, document, actor=ACTOR)
        assert applied.stripe == planned.stripe, step
        compiled = await env.catalog()
        prices = {one["id"]: one for one in inside.world.store.all("price")}
        assert sold(compiled) == {one for one, price in prices.items() if price["active"]}, step
        lookup_keys = [price["lookup_key"] for price in prices.values()]
        assert len(lookup_keys) == len(set(lookup_keys))
        events = [meter["event_name"] for meter in inside.world.store.all("billing.meter")]
        assert len(events) == len(set(events))
        stored = len(list(inside.world.store.all("event")))
        pulled = await catalog.current_document(env)
        for again in (document, pulled, read_catalog(catalog_text(pulled))):
            repeated = await catalog.apply(env, again, actor=ACTOR)
            assert (repeated.is_applied, repeated.stripe) == (False, ()), step
        assert len(list(inside.world.store.all("event"))) == stored, step
