"""Plan changes over HTTP: preview a signed quote, confirm it, look it up, cancel what is scheduled."""

from typing import Final

import msgspec

from plangate import plan_changes
from plangate.companies.paging import after_id, cursor_of
from plangate.engine.values import Interval
from plangate.errors import Code
from plangate.shapes import PlanChange, Quote
from plangate.web.auth import require
from plangate.web.operations import Answer, Call, Documented, Operation, missing
from plangate.web.queries import NoQuery, PageQuery
from plangate.web.schemas import ChangeBody, ConfirmBody, CustomPriceBody
from plangate.web.versions import HEADER as VERSION_HEADER

_TAG: Final = "Plan changes"
_REFUSED: Final = (
    Code.NOT_FOUND,
    Code.CHANGE_IN_PROGRESS,
    Code.DOWNGRADE_SCHEDULED,
    Code.NO_CHANGE,
    Code.OVER_LIMIT,
    Code.PAST_DUE,
    Code.SELF_SERVICE_DISABLED,
    Code.FOREIGN_SCHEDULE,
    Code.SUBSCRIPTION_INACTIVE,
    Code.ADD_ON_UNFIT,
    Code.CURRENCY_PINNED,
    Code.CONTACT_US,
    Code.STRIPE_REFUSED,
    Code.STRIPE_BUSY,
)


class PlanChangeList(msgspec.Struct, frozen=True, kw_only=True):
    """A page of a company's plan changes, newest first; `next_cursor` null on the last."""

    data: list[PlanChange]
    next_cursor: str | None


async def preview_change(call: Call[ChangeBody, None]) -> Answer:
    """What a change would cost, and do."""
    asked = request_of(call.body)
    if (asked.force is not None or asked.custom_price is not None) and call.key is not None:
        require(call.exchange, "admin")
    return Answer(await plan_changes.preview(call.environment, call.path["company_id"], asked, actor=call.actor))


async def confirm_change(call: Call[ConfirmBody, None]) -> Answer:
    """Make the change a quote promised."""
    company_id = call.path["company_id"]
    if await call.environment.standings.of(company_id) is None:
        raise missing("company")  # before the quote is looked at, which could not be for this company
    change = await plan_changes.confirm(
        call.environment, company_id, call.body.quote, actor=call.actor, return_url=call.body.return_url
    )
    version = await call.version_of(company_id)
    return Answer(plan_changes.completed(change, headers=version), 201, version)


async def list_changes(call: Call[None, PageQuery]) -> Answer:
    """One page of a company's changes."""
    before, limit = after_id(call.query.cursor, prefix="chg_"), call.query.limit
    found = await plan_changes.listing(call.environment, call.path["company_id"], before=before, limit=limit + 1)
    following = cursor_of(found[limit - 1].id) if len(found) > limit else None
    return Answer(PlanChangeList(data=found[:limit], next_cursor=following))


async def get_change(call: Call[None, None]) -> Answer:
    """One change."""
    return Answer(await plan_changes.get(call.environment, call.path["company_id"], call.path["change_id"]))


async def cancel_scheduled(call: Call[None, None]) -> Answer:
    """Keep the plan: the scheduled change is taken back."""
    company_id = call.path["company_id"]
    change = await plan_changes.cancel_scheduled(call.environment, company_id, actor=call.actor)
    return Answer(change, headers=await call.version_of(company_id))


def request_of(body: ChangeBody) -> plan_changes.ChangeRequest:
    """The journey's request, from the parsed body."""
    return plan_changes.ChangeRequest(
        plan=body.plan,
        interval=None if body.interval is None else Interval(body.interval),
        interval_count=body.interval_count,
        currency=body.currency,
        quantities=body.quantities,
        add_ons=body.add_ons,
        cancel=body.cancel,
        resume=body.resume,
        trial_end=None if body.trial_end == "now" else body.trial_end,
        is_trial_over=body.trial_end == "now",
        custom_price=None if body.custom_price is None else custom_price_of(body.custom_price),
        when=body.when,
        promotion_code=body.promotion_code,
        force=None if body.force is None else plan_changes.Force(reason=body.force.reason),
    )


def custom_price_of(body: CustomPriceBody) -> plan_changes.CustomPrice:
    """What was agreed on, from the parsed body."""
    return plan_changes.CustomPrice(
        amount_minor=body.amount_minor,
        currency=body.currency,
        interval=Interval(body.interval),
        interval_count=body.interval_count,
        name=body.name,
        collection_method=body.collection_method,
        days_until_due=body.days_until_due,
        starts_at=body.starts_at,
    )


OPERATIONS: Final = (
    Operation(
        method="POST",
        path="/v1/companies/{company_id}/plan-changes/preview",
        name="previewPlanChange",
        tag=_TAG,
        summary="Preview a change",
        text="Answers a signed quote, valid 15 minutes: what is due today, each line, what is gained and lost, and "
        "when it takes effect. Nothing is changed. `force` and `custom_price` need the scope admin.",
        scope="write",
        answer=preview_change,
        body=ChangeBody,
        example={"plan": "starter"},
        responses={200: Documented("The quote.", Quote)},
        problems=_REFUSED,
    ),
    Operation(
        method="POST",
        path="/v1/companies/{company_id}/plan-changes",
        name="confirmPlanChange",
        tag=_TAG,
        summary="Confirm a quote",
        text="Makes exactly the change the quote promised, once. If anything it promised no longer holds, nothing is "
        "charged and the 409 carries a new quote. A 201 with `next_action` leads to the hosted payment page; when the "
        "bank must agree first the answer is a 402 with `next_action` and the `change`, until that is done.",
        scope="write",
        answer=confirm_change,
        body=ConfirmBody,
        example={"quote": "eyJhbGciOi…", "return_url": "https://app.example.com/billing"},
        responses={201: Documented("The change.", PlanChange, headers=(VERSION_HEADER,))},
        problems=(
            *_REFUSED,
            Code.QUOTE_STALE,
            Code.QUOTE_EXPIRED,
            Code.PAYMENT_FAILED,
            Code.ACTION_REQUIRED,
            Code.IDEMPOTENCY_CONFLICT,
        ),
        takes_idempotency_key=True,
    ),
    Operation(
        method="GET",
        path="/v1/companies/{company_id}/plan-changes",
        name="listPlanChanges",
        tag=_TAG,
        summary="A company's plan changes",
        text="Requested, scheduled, applied, refused and cancelled ones, newest first, `limit` at a time.",
        scope="read",
        answer=list_changes,
        query=PageQuery,
        responses={200: Documented("The changes.", PlanChangeList)},
        problems=(Code.NOT_FOUND,),
    ),
    Operation(
        method="DELETE",
        path="/v1/companies/{company_id}/plan-changes/scheduled",
        name="cancelScheduledChange",
        tag=_TAG,
        summary="Cancel the scheduled change",
        text="The company keeps what it has; in Stripe the schedule is released, or the cancellation undone.",
        scope="write",
        answer=cancel_scheduled,
        query=NoQuery,
        responses={200: Documented("The cancelled change.", PlanChange, headers=(VERSION_HEADER,))},
        problems=(Code.NOT_FOUND, Code.NOTHING_SCHEDULED, Code.CHANGE_IN_PROGRESS, Code.STRIPE_BUSY),
    ),
    Operation(
        method="GET",
        path="/v1/companies/{company_id}/plan-changes/{change_id}",
        name="getPlanChange",
        tag=_TAG,
        summary="One plan change",
        text="Its state, and `next_action` while a person must act.",
        scope="read",
        answer=get_change,
        query=NoQuery,
        responses={200: Documented("The change.", PlanChange)},
        problems=(Code.NOT_FOUND,),
    ),
)
