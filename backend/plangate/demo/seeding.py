"""What the demo starts with: its catalogue, four companies in four situations, and some usage.

Everything goes the way it would in production: the catalogue is applied, plans are bought and scheduled by the same
journeys, and only cards and failed payments are made in the sandbox directly, where a person would make them.
"""

from typing import Any, Final

import httpx

from plangate import catalog, companies, metering, plan_changes
from plangate.catalog_file import read_catalog
from plangate.engine.values import Interval
from plangate.environment import Environment
from plangate.errors import StartRefused
from plangate.metering import TrackEvent
from plangate.mirroring import refetch
from plangate.plan_changes import ChangeRequest
from plangate.shapes import Actor, ChangeState

ACTOR: Final = Actor(kind="system", id="demo")
_SECONDS: Final = 30


async def seed(environment: Environment, *, catalog_text: str, sandbox_url: str, stripe_secret_key: str) -> None:
    """Fill an empty environment. Raises StartRefused when the sandbox does not play along."""
    await catalog.apply(environment, read_catalog(catalog_text), actor=ACTOR)
    async with httpx.AsyncClient(
        base_url=sandbox_url, auth=(stripe_secret_key, ""), timeout=_SECONDS, trust_env=False
    ) as sandbox:
        await _company(environment, "acme", "Acme", seats=1, notebooks=2)

        globex, _ = await _customer(environment, sandbox, "globex", "Globex", seats=18, notebooks=61)
        await _buy(environment, globex, plan="pro", interval=Interval.YEAR)

        initech, stripe_customer_id = await _customer(environment, sandbox, "initech", "Initech", seats=4, notebooks=11)
        await _buy(environment, initech, plan="starter", interval=Interval.MONTH)
        await _fail_payment(sandbox, stripe_customer_id)
        await refetch(environment, initech)

        umbrella, _ = await _customer(environment, sandbox, "umbrella", "Umbrella", seats=5, notebooks=23)
        await _buy(environment, umbrella, plan="pro", interval=Interval.MONTH)
        await _buy(environment, umbrella, plan="starter", interval=Interval.MONTH)

    await _use(environment, "globex", {"exports": 412, "api-calls": 7_202})
    await _use(environment, "initech", {"exports": 83, "api-calls": 340})
    await _use(environment, "umbrella", {"exports": 64, "api-calls": 815})


async def _company(
    environment: Environment, key: str, name: str, *, stripe_customer_ids: tuple[str, ...] = (), **traits: int
) -> str:
    company, _ = await companies.upsert(
        environment,
        keys={"id": key},
        name=name,
        traits=traits,
        stripe_customer_ids=stripe_customer_ids,
        actor=ACTOR,
    )
    return company.id


async def _customer(
    environment: Environment, sandbox: httpx.AsyncClient, key: str, name: str, **traits: int
) -> tuple[str, str]:
    """A company whose Stripe customer has a card on file, so that buying needs no person at a Checkout page."""
    customer = await _ask(
        sandbox,
        "/v1/customers",
        {"name": name, "email": f"billing@{key}.example"},
    )
    stripe_customer_id = str(customer["id"])
    await _put_on_file(sandbox, stripe_customer_id, "pm_card_visa")
    company_id = await _company(environment, key, name, stripe_customer_ids=(stripe_customer_id,), **traits)
    return company_id, stripe_customer_id


async def _buy(environment: Environment, company_id: str, *, plan: str, interval: Interval) -> None:
    """Preview and confirm a change of plan, as the plan manager does."""
    request = ChangeRequest(plan=plan, interval=interval, currency="usd")
    quote = await plan_changes.preview(environment, company_id, request, actor=ACTOR)
    change = await plan_changes.confirm(environment, company_id, quote.quote, actor=ACTOR)
    if change.state not in {ChangeState.APPLIED, ChangeState.SCHEDULED}:
        raise StartRefused(f"The demo could not be filled: moving to {plan} ended as {change.state.value}.")


async def _fail_payment(sandbox: httpx.AsyncClient, stripe_customer_id: str) -> None:
    """Give the customer a card that is declined, and let a new billing period charge it: past due."""
    card_id = await _put_on_file(sandbox, stripe_customer_id, "pm_card_chargeCustomerFail")
    listed = await sandbox.get("/v1/subscriptions", params={"customer": stripe_customer_id})
    for subscription in listed.json()["data"]:
        await _ask(
            sandbox,
            f"/v1/subscriptions/{subscription['id']}",
            {
                "billing_cycle_anchor[type]": "now",
                "proration_behavior": "none",
                "payment_behavior": "allow_incomplete",
                "default_payment_method": card_id,
            },
        )


async def _put_on_file(sandbox: httpx.AsyncClient, stripe_customer_id: str, card: str) -> str:
    """Attach one of Stripe's test cards and make it the default; answers the payment method's id."""
    attached = await _ask(sandbox, f"/v1/payment_methods/{card}/attach", {"customer": stripe_customer_id})
    card_id = str(attached["id"])
    form = {"invoice_settings[default_payment_method]": card_id}
    await _ask(sandbox, f"/v1/customers/{stripe_customer_id}", form)
    return card_id


async def _use(environment: Environment, key: str, quantities: dict[str, int]) -> None:
    events = [
        TrackEvent(event=event, company={"id": key}, quantity=quantity, idempotency_key=f"demo-{key}-{event}")
        for event, quantity in quantities.items()
    ]
    await metering.record(environment, events)


async def _ask(sandbox: httpx.AsyncClient, path: str, form: dict[str, str]) -> dict[str, Any]:
    answer = await sandbox.post(path, data=form)
    body: dict[str, Any] = answer.json()
    if not answer.is_success:
        raise StartRefused(f"The demo could not be filled: {body.get('error', {}).get('message', path)}")
    return body
