"""Trials: which plans a company may still try, and how staff move the end of one that runs."""

from datetime import datetime

from plangate.billing.transport import StripeJson
from plangate.change_terms import Action, Line, Terms
from plangate.engine.catalog import Catalog, CheckoutFields
from plangate.engine.facts import SubscriptionFact
from plangate.engine.holding import Holding
from plangate.engine.values import Interval
from plangate.environment import Environment
from plangate.errors import Code, Refusal
from plangate.plan_changes.lines import target_lines
from plangate.plan_changes.request import ChangeRequest
from plangate.plan_changes.terms import Drafted, refuse_foreign
from plangate.shapes import Actor
from plangate.store.subscriptions import trials_of


async def plans_tried(env: Environment, company_id: str) -> frozenset[str]:
    """The plans the company was on trial with: each is tried once, also when another was taken since."""
    catalog = await env.catalog()
    async with env.reading() as session:
        trials = await trials_of(session, company_id)
    owners = (catalog.owner_of(item.stripe_price_id, company_id) for trial in trials for item in trial.items)
    return frozenset(owner.key for owner in owners if owner is not None and owner.kind == "plan")


async def trial_days(env: Environment, company_id: str, catalog: Catalog, target: Holding) -> int:
    """The days of trial a company gets when it subscribes: once per plan."""
    plan = catalog.newest("plan", target.plan) if target.plan is not None else None
    if plan is None or not plan.trial_days or plan.key in await plans_tried(env, company_id):
        return 0
    return plan.trial_days


def trial_params(terms: Terms) -> StripeJson:
    """How a subscription begins with a trial, in Stripe's parameters; nothing where it does not.

    Without a card by its end nobody could pay: the subscription ends with the trial, and nothing is owed.
    """
    if not terms.trial_days:
        return {}
    return {
        "trial_period_days": terms.trial_days,
        "trial_settings": {"end_behavior": {"missing_payment_method": "cancel"}},
    }


def asked_on_page(fields: CheckoutFields, *, is_trial: bool) -> StripeJson:
    """What the hosted page asks for beside what is bought, in Stripe's parameters. What is asked is kept, too."""
    asked: StripeJson = {}
    if is_trial and not fields.asks_trial_card:
        asked["payment_method_collection"] = "if_required"
    if fields.asks_billing_address:
        asked |= {"billing_address_collection": "required", "customer_update": {"address": "auto"}}
    if fields.asks_phone:
        asked["phone_number_collection"] = {"enabled": True}
    if fields.asks_tax_id:
        asked |= {"tax_id_collection": {"enabled": True}, "customer_update": {"address": "auto", "name": "auto"}}
    return asked


def moved_trial(
    catalog: Catalog,
    subscription: SubscriptionFact | None,
    current: Holding,
    request: ChangeRequest,
    actor: Actor,
    at: datetime,
    company_id: str,
) -> Drafted:
    """The terms of moving the end of a running trial, or of ending it at once: staff only."""
    if actor.kind == "customer":
        raise Refusal(Code.FORBIDDEN, "Only staff may move the end of a trial.")
    if subscription is None or subscription.status != "trialing":
        raise Refusal(Code.SUBSCRIPTION_INACTIVE, "No trial is running, so its end cannot be moved.")
    refuse_foreign(subscription)
    if subscription.phases or subscription.scheduled_end_at is not None:
        raise Refusal(
            Code.DOWNGRADE_SCHEDULED,
            "A change waits for the end of this trial: take it back first, then move the end.",
            extra={"way_out": "cancel_scheduled"},
        )
    lines = target_lines(catalog, current, subscription, company_id=company_id)
    ends = None if request.trial_end is None or request.trial_end <= at else int(request.trial_end.timestamp())
    return Drafted(
        terms=Terms(
            action=Action.UPDATE,
            lines=tuple(Line(line.stripe_price_id, line.quantity) for line in lines),
            params={"trial_end": "now" if ends is None else ends, "proration_behavior": "none"},
            interval=current.interval or Interval.MONTH,
            interval_count=current.interval_count,
            trial_end=ends,
            is_trial_over=ends is None,
        ),
        lines=lines,
    )
