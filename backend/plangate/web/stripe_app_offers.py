"""What a plan change in the Stripe App can be made of: everything on sale, and what the company holds of it now."""

from collections.abc import Mapping

import msgspec

from plangate import catalog
from plangate.engine.holding import holding_of
from plangate.environment import Environment
from plangate.errors import Code, Refusal, invalid


class HeldNow(msgspec.Struct, frozen=True, kw_only=True):
    """What the company is on. `add_ons` and `units` are numbers by key; units of an add-on are `extra/seats`.

    `is_custom` says that the plan costs what was agreed on with this company, not what the catalogue says.
    """

    plan: str | None
    version: int | None
    interval: str | None
    interval_count: int
    currency: str | None
    quantity: int
    add_ons: Mapping[str, int]
    units: Mapping[str, int]
    is_custom: bool


class PlanOffers(msgspec.Struct, frozen=True, kw_only=True):
    """Plans and add-ons on sale in the catalogue's order, and what the company holds."""

    offers: list[catalog.PublicPlan]
    held: HeldNow


async def offers_to(env: Environment, company_id: str) -> PlanOffers:
    """What this company can be moved to. Raises Refusal (404) when there is no such company."""
    standing = await env.standings.of(company_id)
    if standing is None:
        raise Refusal(Code.NOT_FOUND, "There is no such company.")
    held = holding_of(standing.snapshot_at(env.clock.now()))
    return PlanOffers(
        offers=await catalog.public_plans(env),
        held=HeldNow(
            plan=held.plan,
            version=held.version,
            interval=held.interval,
            interval_count=held.interval_count,
            currency=held.currency,
            quantity=held.quantity,
            add_ons=held.add_ons,
            units=held.units,
            is_custom=held.own_price is not None,
        ),
    )


def quantities_of(text: str | None) -> dict[str, int]:
    """The numbers in `seats=5,extra=2`: a signed message holds plain values, so they travel as one text.

    The text has been checked against `stripe_app_payloads.QUANTITIES`. Raises Refusal (422) for a key said twice.
    """
    found: dict[str, int] = {}
    for entry in text.split(",") if text else ():
        key, _, number = entry.partition("=")
        if key in found:
            raise invalid("/quantities", f"{key} is named twice: say one number for it.")
        found[key] = int(number)
    return found
