"""What the Stripe App may ask for: each action's payload, the role it needs, and the journey behind it."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec

from plangate import access, catalog, companies, metering, overrides, plan_changes, reviews
from plangate.engine.catalog import Catalog
from plangate.engine.decision import Decision
from plangate.engine.values import Interval
from plangate.environment import Environment
from plangate.errors import Code, FieldError, Refusal, invalid
from plangate.settings import Role
from plangate.shapes import Actor, ChangeState, Company, OverrideView, PlanChange, ScheduledChange, SubscriptionView
from plangate.store.companies import STRIPE_CUSTOMER_KEY
from plangate.web.stripe_app_offers import PlanOffers, offers_to, quantities_of
from plangate.web.stripe_app_payloads import (
    CancelPayload,
    ConfirmPayload,
    CustomerPayload,
    EditPayload,
    GrantPayload,
    LinkPayload,
    MapPayload,
    Payload,
    PreviewPayload,
    ProductPayload,
    RevokePayload,
    SearchPayload,
    TracePayload,
    TrialPayload,
    UsagePayload,
)
from plangate.web.views.plan_manager import pending_change
from plangate.web.views.usage import paid_sentence
from plangate.web.wording import reader_of

_OVERRIDES_SHOWN: Final = 50
_REVIEWS_SHOWN: Final = 10
_EXPIRING_SHOWN: Final = 20
_SOON: Final = timedelta(days=14)


class Named(Decision, frozen=True, kw_only=True):
    """A Decision with the feature's name for people, and what usage of it costs, in a sentence."""

    name: str
    paid: str | None = None


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """Something about the company that a person should look at."""

    kind: str
    text: str


class CustomerPage(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the customer view shows; `company` null when the customer is not linked to one.

    `pending_change` waits for the customer's payment, the bank or Stripe; `next_action` says where it goes on.
    """

    company: Company | None
    subscription: SubscriptionView | None
    entitlements: list[Named]
    overrides: list[OverrideView]
    scheduled_change: PlanChange | ScheduledChange | None
    pending_change: PlanChange | None = None
    notices: list[Notice]
    role: Role


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """What stands behind the app: the environment, its catalogue, the caller's role, and overrides that end soon."""

    environment: str
    mode: str
    role: Role
    catalog_revision: int
    plans: int
    add_ons: int
    features: int
    expiring: list[OverrideView]
    at: datetime


class ProductAnswer(catalog.ProductPage, frozen=True, kw_only=True):
    """A product as the catalogue knows it, and what whoever asks may do about it."""

    role: Role


class CompanyMatches(msgspec.Struct, frozen=True, kw_only=True):
    """Companies found."""

    data: list[Company]


@dataclass(frozen=True, slots=True)
class Asked:
    """One verified message: the environment it speaks to, who sent it and what it says."""

    env: Environment
    role: Role
    actor: Actor
    payload: Any

    async def company_id(self) -> str:
        """The company of the customer named. Raises Refusal (404) when none is linked."""
        found = await companies.find(self.env, {STRIPE_CUSTOMER_KEY: self.payload.customer})
        if found is None:
            raise Refusal(Code.NOT_FOUND, "No company is linked to this Stripe customer yet.")
        return found


@dataclass(frozen=True, slots=True)
class Action:
    """One action. A change needs an `operation_id` in its payload."""

    name: str
    role: Role
    payload: type[Payload]
    answer: Callable[[Asked], Awaitable[object]]
    is_change: bool = False


async def customer_get(asked: Asked) -> CustomerPage:
    """The whole customer view in one answer."""
    env = asked.env
    company_id = await companies.find(env, {STRIPE_CUSTOMER_KEY: asked.payload.customer})
    if company_id is None:
        return CustomerPage(
            company=None,
            subscription=None,
            entitlements=[],
            overrides=[],
            scheduled_change=None,
            notices=[Notice(kind="not_linked", text="No company is linked to this Stripe customer yet.")],
            role=asked.role,
        )
    company = await companies.get(env, company_id)
    known = await env.catalog()
    decisions = await access.entitlements(env, company_id)
    standing = await env.standings.of(company_id)
    notices = () if standing is None else standing.snapshot_at(env.clock.now()).notices
    waiting = await reviews.listing(env, company_id=company_id, limit=_REVIEWS_SHOWN)
    changes = await plan_changes.listing(env, company_id)
    ours = next((change for change in changes if change.state is ChangeState.SCHEDULED), None)
    return CustomerPage(
        company=company,
        subscription=company.subscription,
        entitlements=[_named(decision, known, company=company) for decision in decisions],
        overrides=list(await overrides.listing(env, company_id))[:_OVERRIDES_SHOWN],
        scheduled_change=ours or company.scheduled_change,
        pending_change=pending_change(changes),
        notices=[
            *(Notice(kind=notice.code, text=notice.detail) for notice in notices),
            *(Notice(kind="review_required", text=_to_review(one)) for one in waiting),
        ],
        role=asked.role,
    )


def _to_review(review: reviews.Review) -> str:
    what = "A payment was refunded" if review.kind == "refund" else f"A payment is disputed ({review.stripe_status})"
    access_now = "access goes on" if review.access == "kept" else "the subscription grants nothing"
    return f"{what}; {access_now} until somebody decides on {review.id}."


async def decision_trace(asked: Asked) -> Named:
    """One Decision with every source considered."""
    payload = asked.payload
    known = await asked.env.catalog()
    await asked.company_id()
    if payload.feature not in known.features:
        raise invalid("/feature", "The catalogue has no such feature.")
    decision = await access.check(
        asked.env,
        company={STRIPE_CUSTOMER_KEY: payload.customer},
        feature=payload.feature,
        quantity=payload.quantity,
        at=payload.at,
        trace=True,
    )
    return _named(decision, known)


async def usage_history(asked: Asked) -> metering.UsageSeries:
    """One feature's usage over time."""
    payload = asked.payload
    return await metering.series(
        asked.env,
        await asked.company_id(),
        payload.feature,
        payload.by,
        since=payload.since,
        until=payload.until,
    )


async def override_grant(asked: Asked) -> OverrideView:
    """Grant an override."""
    payload = asked.payload
    try:
        return await overrides.grant(
            asked.env,
            await asked.company_id(),
            feature=payload.feature,
            mode=payload.override_mode,
            value=None if payload.override_mode == "deny" else payload.value,
            note=payload.note,
            actor=asked.actor,
            expires_at=payload.expires_at,
        )
    except Refusal as refusal:
        raise _renamed(refusal, {"/mode": "/override_mode"}) from None


async def override_edit(asked: Asked) -> OverrideView:
    """Edit an override of this customer's company."""
    payload = asked.payload
    await _require_own(asked, payload.override)
    changes = {
        name: getattr(payload, name) for name in ("value", "expires_at", "note") if name in payload.model_fields_set
    }
    return await overrides.edit(asked.env, payload.override, etag=payload.etag, changes=changes, actor=asked.actor)


async def override_revoke(asked: Asked) -> OverrideView:
    """Revoke an override of this customer's company."""
    payload = asked.payload
    await _require_own(asked, payload.override)
    return await overrides.revoke(asked.env, payload.override, note=payload.note, actor=asked.actor)


def _agreed(asked: Asked) -> plan_changes.CustomPrice | None:
    """What was agreed on with the customer; an admin alone may say so."""
    payload = asked.payload
    if payload.custom_amount_minor is None:
        return None
    if asked.role != "admin":
        raise Refusal(
            Code.ROLE_TOO_LOW, "Only an admin may give a customer a price of its own.", extra={"role": asked.role}
        )
    for name in ("custom_currency", "custom_interval"):
        if getattr(payload, name) is None:
            raise invalid(f"/{name}", "A price needs its amount, its currency and its interval.")
    return plan_changes.CustomPrice(
        amount_minor=payload.custom_amount_minor,
        currency=payload.custom_currency,
        interval=Interval(payload.custom_interval),
        interval_count=payload.custom_interval_count,
        name=payload.custom_name,
        collection_method=payload.custom_collection_method,
        days_until_due=payload.custom_days_until_due,
        starts_at=payload.custom_starts_at,
    )


async def plan_offers(asked: Asked) -> PlanOffers:
    """What a plan change can be made of."""
    return await offers_to(asked.env, await asked.company_id())


async def plan_preview(asked: Asked) -> object:
    """A signed quote."""
    payload = asked.payload
    if payload.force_reason is not None and asked.role != "admin":
        raise Refusal(Code.ROLE_TOO_LOW, "Only an admin may go on in spite of the limits.", extra={"role": asked.role})
    wanted = plan_changes.ChangeRequest(
        plan=payload.plan,
        interval=None if payload.interval is None else Interval(payload.interval),
        interval_count=payload.interval_count,
        currency=payload.currency,
        quantities=quantities_of(payload.quantities),
        cancel=payload.cancel,
        resume=payload.resume,
        when=payload.when,
        trial_end=None if payload.trial_end == "now" else payload.trial_end,
        is_trial_over=payload.trial_end == "now",
        promotion_code=payload.promotion_code,
        force=None if payload.force_reason is None else plan_changes.Force(reason=payload.force_reason),
        custom_price=_agreed(asked),
    )
    return await plan_changes.preview(asked.env, await asked.company_id(), wanted, actor=asked.actor)


async def plan_change(asked: Asked) -> PlanChange:
    """Make the change a quote promised."""
    change = await plan_changes.confirm(asked.env, await asked.company_id(), asked.payload.quote, actor=asked.actor)
    return plan_changes.completed(change)


async def plan_cancel_scheduled(asked: Asked) -> PlanChange:
    """Take the scheduled change back, if it is still the one that was shown."""
    company_id = await asked.company_id()
    shown = asked.payload.change
    if shown is not None:
        changes = await plan_changes.listing(asked.env, company_id)
        if not any(change.id == shown and change.state is ChangeState.SCHEDULED for change in changes):
            raise Refusal(Code.NOTHING_SCHEDULED, "That change is no longer scheduled. Look at the customer again.")
    return await plan_changes.cancel_scheduled(asked.env, company_id, actor=asked.actor)


async def trial_extend(asked: Asked) -> PlanChange:
    """Let a running trial end later."""
    payload = asked.payload
    if (payload.days is None) is (payload.trial_end is None):
        raise invalid("/days", "Say either how many days more, or when the trial ends: `days` or `trial_end`.")
    company_id = await asked.company_id()
    subscription = (await companies.get(asked.env, company_id)).subscription
    if subscription is None or subscription.status != "trialing" or subscription.trial_end is None:
        raise Refusal(Code.SUBSCRIPTION_INACTIVE, "No trial is running, so its end cannot be moved.")
    ends_at = (
        subscription.trial_end + timedelta(days=payload.days or 0) if payload.trial_end is None else payload.trial_end
    )
    if ends_at <= subscription.trial_end:
        raise invalid("/trial_end", "An extended trial ends later than it does now.")
    wanted = plan_changes.ChangeRequest(trial_end=ends_at)
    quote = await plan_changes.preview(asked.env, company_id, wanted, actor=asked.actor)
    change = await plan_changes.confirm(asked.env, company_id, quote.quote, actor=asked.actor)
    return plan_changes.completed(change)


async def company_search(asked: Asked) -> CompanyMatches:
    """Companies to link a customer to."""
    found, _ = await companies.search(asked.env, search=asked.payload.search, limit=20)
    return CompanyMatches(data=found)


async def company_link(asked: Asked) -> Company:
    """Give a company this Stripe customer. One that another company has is a 409 naming both."""
    company = await companies.get(asked.env, asked.payload.company)
    # A company met in Stripe may have no other key than the customers it has already.
    known = company.stripe_customer_ids[:1]
    linked, _ = await companies.upsert(
        asked.env,
        keys=company.keys,
        stripe_customer_ids=tuple(dict.fromkeys((*known, asked.payload.customer))),
        actor=asked.actor,
    )
    return linked


async def overview_get(asked: Asked) -> Overview:
    """What stands behind the app."""
    known = await asked.env.catalog()
    soon = asked.env.clock.now() + _SOON
    expiring, _ = await overrides.search(asked.env, expires_before=soon, limit=_EXPIRING_SHOWN)
    return Overview(
        environment=asked.env.settings.name,
        mode=asked.env.settings.stripe_mode,
        role=asked.role,
        catalog_revision=known.revision,
        plans=sum(not plan.is_archived for plan in known.plans.values()),
        add_ons=sum(not add_on.is_archived for add_on in known.add_ons.values()),
        features=sum(not feature.is_archived for feature in known.features.values()),
        expiring=expiring,
        at=asked.env.clock.now(),
    )


async def product_get(asked: Asked) -> ProductAnswer:
    """What a product and its prices stand for, who holds them, and what mapping them would do."""
    payload = asked.payload
    if (payload.kind is None) is not (payload.key is None):
        raise invalid("/key", "Say both `kind` and `key` to see what mapping would do, or neither.")
    target = None if payload.kind is None else _target(payload)
    return _product_answer(asked, await catalog.product_page(asked.env, payload.product, target=target))


async def product_map(asked: Asked) -> ProductAnswer:
    """Map a product's prices to a plan or add-on."""
    payload = asked.payload
    page = await catalog.map_product(
        asked.env, payload.product, target=_target(payload), mapping=payload.mapping, actor=asked.actor
    )
    return _product_answer(asked, page)


def _target(payload: ProductPayload | MapPayload) -> catalog.Target:
    if payload.kind is None or payload.key is None:
        raise invalid("/kind", "Say what to map to.")
    return catalog.Target(kind=payload.kind, key=payload.key, feature=payload.feature, price=payload.price)


def _product_answer(asked: Asked, page: catalog.ProductPage) -> ProductAnswer:
    return ProductAnswer(
        **{field: getattr(page, field) for field in catalog.ProductPage.__struct_fields__}, role=asked.role
    )


def _named(decision: Decision, known: Catalog, *, company: Company | None = None) -> Named:
    feature = known.features.get(decision.feature)
    name = decision.feature if feature is None else feature.name
    paid = None
    if feature is not None and company is not None and decision.at is not None:
        reader = reader_of(locale=None, time_zone=None, now=decision.at)
        paid = paid_sentence(reader, known, company, feature, decision)
    return Named(**{field: getattr(decision, field) for field in Decision.__struct_fields__}, name=name, paid=paid)


async def _require_own(asked: Asked, override_id: str) -> None:
    """An override of another company looks like one that does not exist."""
    listed = await overrides.listing(asked.env, await asked.company_id())
    if not any(view.id == override_id for view in listed):
        raise Refusal(Code.NOT_FOUND, "This customer has no such override.")


def _renamed(refusal: Refusal, names: Mapping[str, str]) -> Refusal:
    errors = [FieldError(names.get(error.pointer, error.pointer), error.code, error.detail) for error in refusal.errors]
    return Refusal(refusal.code, refusal.detail, errors=errors, extra=refusal.extra, headers=refusal.headers)


ACTIONS: Final[Mapping[str, Action]] = {
    action.name: action
    for action in (
        Action("customer.get", "viewer", CustomerPayload, customer_get),
        Action("decision.trace", "viewer", TracePayload, decision_trace),
        Action("usage.history", "viewer", UsagePayload, usage_history),
        Action("company.search", "viewer", SearchPayload, company_search),
        Action("overview.get", "viewer", Payload, overview_get),
        Action("product.get", "viewer", ProductPayload, product_get),
        Action("plan.offers", "agent", CustomerPayload, plan_offers),
        Action("plan.preview", "agent", PreviewPayload, plan_preview),
        Action("override.grant", "agent", GrantPayload, override_grant, is_change=True),
        Action("override.edit", "agent", EditPayload, override_edit, is_change=True),
        Action("override.revoke", "agent", RevokePayload, override_revoke, is_change=True),
        Action("plan.change", "agent", ConfirmPayload, plan_change, is_change=True),
        Action("plan.cancel_scheduled", "agent", CancelPayload, plan_cancel_scheduled, is_change=True),
        Action("trial.extend", "agent", TrialPayload, trial_extend, is_change=True),
        Action("product.map", "admin", MapPayload, product_map, is_change=True),
        Action("company.link", "admin", LinkPayload, company_link, is_change=True),
    )
}
