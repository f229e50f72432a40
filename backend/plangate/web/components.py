"""The component routes: embed.js, and the fragments its elements show, as one signed-in company or as a visitor."""

import gzip
import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import uuid4

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from plangate import access, companies, plan_changes
from plangate.clock import wall_now
from plangate.deployment import Deployment
from plangate.engine.catalog import Catalog
from plangate.engine.holding import holding_of
from plangate.environment import Environment
from plangate.errors import Code, Refusal, invalid
from plangate.plan_changes.quotes import read as read_quote
from plangate.shapes import Actor, ChangeKind, ChangeState, ChangeTarget, Company, PlanChange, Quote
from plangate.web.component_edge import (
    BASE,
    all_origins,
    bearer,
    cors_headers,
    form_of,
    fragment_response,
    frame_of,
    preflight,
    problem_response,
    query_of,
    require_origin,
    require_scope,
    return_address,
    words_of,
)
from plangate.web.edge import exchange_of
from plangate.web.embed import embed_routes
from plangate.web.fragments import Action, Fragment, Frame, LeavingView, Notice, ProblemView
from plangate.web.tokens import ComponentToken, Scope, read_component_token
from plangate.web.views.invoices import invoices_view, portal_view
from plangate.web.views.offers import name_of
from plangate.web.views.plan_manager import Abilities, change_banners, pending_change, plan_manager_view
from plangate.web.views.pricing import PricingWish, pricing_view
from plangate.web.views.receipt import receipt_view, refusal_view
from plangate.web.views.rhythms import rhythm_of
from plangate.web.views.usage import usage_view

_WISH_FIELDS = ("plan", "interval", "currency", "add_on", "unit", "quantity", "cancel", "resume")
# What the script says with every request: which element asks, for whom, and the element's attributes.
_SCRIPT_FIELDS = ("component", "locale", "tz", "heading_level", "plans", "features", "sign_up_url", "returned")
_FORM_FIELDS = frozenset({*_WISH_FIELDS, *_SCRIPT_FIELDS, "quote", "return_url"})
_COMPONENTS = frozenset({"pricing-table", "plan-manager", "usage"})
_QUANTITY_LIMIT = 100_000
_INVOICES_SHOWN = 12


@dataclass(frozen=True, slots=True)
class Visit:
    """One request, understood: whose environment, which token (None: a visitor), the fields, and the reader."""

    env: Environment
    token: ComponentToken | None
    fields: Mapping[str, str]
    frame: Frame
    origin: str | None

    @property
    def company_id(self) -> str:
        """The company the token speaks for. Raises Refusal for a visitor."""
        if self.token is None:
            raise Refusal(Code.UNAUTHENTICATED, "Sign in first: this component needs a component token.")
        return self.token.company

    @property
    def scopes(self) -> frozenset[Scope]:
        """What the token allows; nothing for a visitor."""
        return self.token.scopes if self.token else frozenset()

    @property
    def abilities(self) -> Abilities:
        """What the buttons may offer."""
        return Abilities(can_change="manage" in self.scopes, can_pay="pay" in self.scopes)

    @property
    def actor(self) -> Actor:
        """The end customer behind the token, for the record."""
        user = self.token.user if self.token else None
        return Actor(kind="customer", id=user or self.company_id)


Answer = Callable[[Visit], Awaitable[Response]]


def component_routes(deployment: Deployment) -> list[Route]:
    """All routes of the components, for the application's router."""
    pages: dict[str, Answer] = {
        "pricing-table": _pricing_table,
        "plan-manager": _plan_manager,
        "usage": _usage,
        "invoices": _invoices,
    }
    steps: dict[str, tuple[Scope, Answer]] = {
        "preview": ("manage", _preview),
        "confirm": ("manage", _confirm),
        "cancel-scheduled": ("manage", _cancel_scheduled),
        "portal": ("pay", _open_portal),
    }

    def reading(name: str, answer: Answer) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            return await _answer(deployment, request, answer, needs="view", may_visit=name == "pricing-table")

        return endpoint

    def writing(needs: Scope, answer: Answer) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            return await _answer(deployment, request, answer, needs=needs, may_visit=False)

        return endpoint

    async def options(request: Request) -> Response:
        return preflight(request, all_origins(deployment))

    return [
        *embed_routes(),
        *(Route(f"{BASE}/{name}", reading(name, answer), methods=["GET"]) for name, answer in pages.items()),
        Route(f"{BASE}/portal", reading("portal", _portal), methods=["GET"]),
        *(Route(f"{BASE}/{name}", writing(needs, step), methods=["POST"]) for name, (needs, step) in steps.items()),
        Route(f"{BASE}/{{name}}", options, methods=["OPTIONS"]),
    ]


# --- the outer skin of every fragment -----------------------------------------------------------------------


async def _answer(
    deployment: Deployment, request: Request, answer: Answer, *, needs: Scope, may_visit: bool
) -> Response:
    """Understand the request, answer it, and turn a refusal into a fragment; CORS headers go with all of them."""
    exchange_of(request.scope).route = request.url.path  # one of the few above: nobody makes up new ones
    is_mutation = request.method == "POST"
    origin = request.headers.get("origin")
    headers = cors_headers(origin, all_origins(deployment))
    frame = frame_of(dict(request.query_params), datetime.now(UTC))
    visit: Visit | None = None
    try:
        visit = await _visit(deployment, request, may_visit=may_visit)
        frame = visit.frame
        headers = cors_headers(origin, visit.env.settings.allowed_origins)
        narrowed = visit.token.origins if visit.token else ()
        require_origin(request, visit.env.settings.allowed_origins, narrowed, is_needed=is_mutation)
        if visit.token is not None:
            require_scope(visit.scopes, needs)
        response = await answer(visit)
    except Refusal as refusal:
        response = await _refused(visit, frame, refusal, is_mutation=is_mutation)
    response.headers.update(headers)
    return _compressed(request, response) if not is_mutation else response


async def _visit(deployment: Deployment, request: Request, *, may_visit: bool) -> Visit:
    text = bearer(request)
    token: ComponentToken | None = None
    env: Environment | None = None
    if text is not None:
        token = read_component_token(deployment.settings.secret_keys, text, now=wall_now())
        env = deployment.environments.get(token.environment_id)
    elif may_visit:
        raw = request.query_params.get("key", "")
        key = await deployment.key(raw) if raw.startswith("pgt_pk_") and len(raw) <= 200 else None
        env = key.environment if key is not None and key.kind == "publishable" else None
    if env is None:
        raise Refusal(Code.UNAUTHENTICATED, "This page needs a component token or a publishable key that is live.")
    fields = await form_of(request, known=_FORM_FIELDS) if request.method == "POST" else query_of(request)
    return Visit(
        env=env,
        token=token,
        fields=fields,
        frame=frame_of(fields, env.clock.now()),
        origin=request.headers.get("origin"),
    )


async def _refused(visit: Visit | None, frame: Frame, refusal: Refusal, *, is_mutation: bool) -> Response:
    """A refused read is a fragment with a way on; a refused step opens as a dialog over what stays as it was."""
    if not is_mutation or visit is None or refusal.status == 401:
        if visit is None and refusal.code is Code.UNAUTHENTICATED:
            say = frame.reader.say
            view = ProblemView(
                frame=frame, text=say("problem.signed_out"), hint=say("problem.signed_out_hint"), can_retry=True
            )
            return fragment_response(view, status=401, headers={"Plangate-Code": refusal.code})
        return problem_response(frame, refusal, headers={})
    company = None
    with suppress(Refusal):
        company = await companies.get(visit.env, visit.company_id)
    catalog = await visit.env.catalog()
    plan = visit.fields.get("plan")
    dialog = refusal_view(frame, catalog, company, refusal, abilities=visit.abilities, plan=plan)
    return fragment_response(
        dialog, status=refusal.status, headers={**refusal.headers, "Plangate-Code": str(refusal.code)}
    )


def _compressed(request: Request, response: Response) -> Response:
    body = bytes(response.body)
    if len(body) < 1024 or "gzip" not in request.headers.get("accept-encoding", ""):
        return response
    packed = gzip.compress(body, 6, mtime=0)
    headers = dict(response.headers)
    headers["content-encoding"] = "gzip"
    headers["content-length"] = str(len(packed))
    headers["vary"] = f"{headers.get('vary', 'Origin')}, Accept-Encoding"
    return Response(packed, status_code=response.status_code, headers=headers)


# --- fragments ----------------------------------------------------------------------------------------------


async def _pricing_table(visit: Visit) -> Response:
    if visit.token is None:
        view = pricing_view(visit.frame, await visit.env.catalog(), None, wish=_pricing_wish(visit), can_change=False)
        return fragment_response(view, is_public=True)
    await _settle(visit)
    return fragment_response(await _component(visit, "pricing-table", notice=await _returned_notice(visit)))


async def _plan_manager(visit: Visit) -> Response:
    await _settle(visit)
    if visit.fields.get("view") == "choices":
        company = await companies.get(visit.env, visit.company_id)
        back = Action(label=visit.frame.reader.say("back"), get="plan-manager", style="plain", element_id="back")
        view = pricing_view(
            visit.frame,
            await visit.env.catalog(),
            company,
            wish=_pricing_wish(visit),
            can_change=visit.abilities.can_change,
            tried=await plan_changes.plans_tried(visit.env, visit.company_id),
            back=back,
        )
        return fragment_response(view)
    return fragment_response(await _component(visit, "plan-manager", notice=await _returned_notice(visit)))


async def _usage(visit: Visit) -> Response:
    await _settle(visit)
    return fragment_response(await _component(visit, "usage"))


async def _component(visit: Visit, name: str, *, notice: Notice | None = None) -> Fragment:
    """One component as it is now, with what just happened above it."""
    env, frame = visit.env, visit.frame
    catalog = await env.catalog()
    if name == "usage":
        decisions = await access.entitlements(env, visit.company_id, trace=True)
        features = words_of(visit.fields.get("features", ""))
        return usage_view(
            frame,
            catalog,
            decisions,
            company=await companies.get(env, visit.company_id),
            features=features,
            can_change=visit.abilities.can_change,
            notice=notice,
        )
    company = await companies.get(env, visit.company_id)
    changes = await plan_changes.listing(env, visit.company_id)
    if name == "pricing-table":
        pending = pending_change(changes)
        return pricing_view(
            frame,
            catalog,
            company,
            wish=_pricing_wish(visit),
            can_change=visit.abilities.can_change,
            tried=await plan_changes.plans_tried(env, visit.company_id),
            notice=notice,
            banners=change_banners(frame.reader, catalog, company, pending, abilities=visit.abilities),
        )
    standing = await env.standings.of(visit.company_id)
    holding = None if standing is None else holding_of(standing.snapshot_at(env.clock.now()))
    return plan_manager_view(
        frame, catalog, company, changes, holding=holding, abilities=visit.abilities, notice=notice
    )


def _pricing_wish(visit: Visit) -> PricingWish:
    return PricingWish(
        interval=visit.fields.get("interval", ""),
        currency=visit.fields.get("currency", ""),
        plans=words_of(visit.fields.get("plans", "")),
        sign_up_url=visit.fields.get("sign_up_url", ""),
    )


async def _settle(visit: Visit) -> None:
    """A checkout the customer just came back from is fetched before anything is drawn; a busy Stripe is no reason
    to draw nothing."""
    with suppress(Refusal):
        await plan_changes.settle_pending(visit.env, visit.company_id)


async def _returned_notice(visit: Visit) -> Notice | None:
    """What to say to somebody who just came back from the payment page."""
    if not visit.fields.get("returned"):
        return None
    changes = await plan_changes.listing(visit.env, visit.company_id)
    newest = max(changes, key=lambda change: change.created_at, default=None)
    if newest is None or newest.state is not ChangeState.APPLIED:
        return None
    return _notice(visit.frame, await visit.env.catalog(), newest)


# --- steps of a change -----------------------------------------------------------------------------------------


async def _preview(visit: Visit) -> Response:
    return await _receipt(visit, _wish_of(visit.fields))


async def _receipt(visit: Visit, wish: Mapping[str, str]) -> Response:
    company = await companies.get(visit.env, visit.company_id)
    asked = _change_request(await visit.env.catalog(), company, wish)
    quote = await plan_changes.preview(visit.env, visit.company_id, asked, actor=visit.actor)
    return await _shown_quote(visit, company, quote, wish)


async def _shown_quote(
    visit: Visit, company: Company, quote: Quote, wish: Mapping[str, str], *, is_fresh_price: bool = False
) -> Response:
    """A quote as a receipt; what costs money is shown to those who may pay."""
    if quote.due_today.amount_minor > 0 or quote.needs_checkout:
        require_scope(visit.scopes, "pay")
    catalog = await visit.env.catalog()
    key = f"form-{uuid4()}"
    view = receipt_view(visit.frame, catalog, company, quote, wish=wish, key=key, is_fresh_price=is_fresh_price)
    return fragment_response(view, status=409 if is_fresh_price else 200)


async def _confirm(visit: Visit) -> Response:
    text = visit.fields.get("quote", "")
    return_url = return_address(visit.fields.get("return_url"), visit.origin)
    secrets = visit.env.secret_keys
    promise, _ = read_quote(text, secrets=secrets, environment_id=visit.env.id, company_id=visit.company_id)
    if promise.due_minor > 0 or promise.kind == ChangeKind.SUBSCRIBE:
        require_scope(visit.scopes, "pay")
    try:
        change = await plan_changes.confirm(visit.env, visit.company_id, text, actor=visit.actor, return_url=return_url)
    except Refusal as refusal:
        if refusal.code not in {Code.QUOTE_STALE, Code.QUOTE_EXPIRED} or "quote" not in refusal.extra:
            raise
        # Nothing was charged: show what it would be now, and let the person decide again.
        company = await companies.get(visit.env, visit.company_id)
        fresh = msgspec.convert(refusal.extra["quote"], Quote)
        return await _shown_quote(visit, company, fresh, _wish_of(visit.fields), is_fresh_price=True)
    action = change.next_action
    if action is not None and action.kind == "checkout":
        say = visit.frame.reader.say
        leaving = LeavingView(
            frame=visit.frame,
            text=say("notice.awaiting"),
            action=Action(label=say("manager.awaiting_button"), url=action.url, style="primary"),
        )
        return fragment_response(leaving, headers={"HX-Redirect": action.url})
    return await _changed(visit, change)


async def _cancel_scheduled(visit: Visit) -> Response:
    change = await plan_changes.cancel_scheduled(visit.env, visit.company_id, actor=visit.actor)
    company = await companies.get(visit.env, visit.company_id)
    catalog = await visit.env.catalog()
    plan = name_of(catalog, company.plan.key if company.plan else None)
    notice = Notice(text=visit.frame.reader.say("notice.kept", plan=plan))
    return await _changed(visit, change, notice=notice)


async def _changed(visit: Visit, change: PlanChange, *, notice: Notice | None = None) -> Response:
    """The component that asked, as it is after the change; the others on the page are told to reload."""
    asked = visit.fields.get("component", "")
    name = asked if asked in _COMPONENTS else "plan-manager"
    told = notice or _notice(visit.frame, await visit.env.catalog(), change)
    event = {
        "plangate-plan-changed": {
            "id": change.id,
            "state": str(change.state),
            "kind": str(change.kind),
            "plan": change.to.plan,
            "effective_at": change.effective_at.isoformat(),
        }
    }
    view = await _component(visit, name, notice=told)
    return fragment_response(view, headers={"HX-Trigger": json.dumps(event)})


def _notice(frame: Frame, catalog: Catalog, change: PlanChange) -> Notice:
    """What a change came to, in a sentence."""
    say, day = frame.reader.say, frame.reader.day
    plan = name_of(catalog, change.to.plan)
    match change.state:
        case ChangeState.APPLIED if change.kind is ChangeKind.RESUME:
            return Notice(text=say("notice.kept", plan=plan))
        case ChangeState.APPLIED if _base_of(change.from_) == _base_of(change.to):
            return Notice(text=say("notice.applied_other"))
        case ChangeState.APPLIED:
            return Notice(text=say("notice.applied", plan=plan))
        case ChangeState.SCHEDULED if change.kind is ChangeKind.CANCEL:
            return Notice(text=say("notice.cancel_scheduled", date=day(change.effective_at)))
        case ChangeState.SCHEDULED if change.from_.plan == change.to.plan:
            return Notice(text=say("notice.scheduled_other", date=day(change.effective_at)))
        case ChangeState.SCHEDULED:
            return Notice(text=say("notice.scheduled", plan=plan, date=day(change.effective_at)))
        case ChangeState.REQUIRES_ACTION:
            return Notice(text=say("notice.requires_action"), tone="warn")
        case ChangeState.REFUSED | ChangeState.FAILED:
            detail = change.refusal.detail if change.refusal else say("refusal.unchanged")
            return Notice(text=say("notice.unfinished", detail=detail), tone="warn")
        case _:
            return Notice(text=say("notice.applying"), tone="")


def _base_of(side: ChangeTarget) -> tuple[str | None, str | None, int]:
    return side.plan, side.interval, side.interval_count


def _wish_of(fields: Mapping[str, str]) -> dict[str, str]:
    return {name: fields[name] for name in _WISH_FIELDS if fields.get(name)}


def _change_request(catalog: Catalog, company: Company, wish: Mapping[str, str]) -> plan_changes.ChangeRequest:
    """The change a form asks for. Raises a 422 Refusal for fields that make no sense."""
    cancel = wish.get("cancel")
    if cancel is not None:
        if cancel not in {"now", "period_end"}:
            raise invalid("/cancel", "Cancelling is either now or at the period's end.")
        return plan_changes.ChangeRequest(cancel="now" if cancel == "now" else "period_end")
    if wish.get("resume"):
        return plan_changes.ChangeRequest(resume=True)
    add_on, unit = wish.get("add_on"), wish.get("unit")
    if add_on is not None or unit is not None:
        quantity = wish.get("quantity", "")
        if not quantity.isascii() or not quantity.isdigit() or len(quantity) > 6 or int(quantity) > _QUANTITY_LIMIT:
            raise invalid("/quantity", "Give the number you want, such as 2.")
        if unit is not None:
            return plan_changes.ChangeRequest(quantities={unit: int(quantity)})
        return plan_changes.ChangeRequest(add_ons={add_on or "": int(quantity)})
    plan = wish.get("plan")
    if plan is None:
        raise invalid("/plan", "Choose a plan first.")
    rhythm = rhythm_of(wish.get("interval", ""))
    if rhythm is None and "interval" in wish:
        raise invalid("/interval", "Say how often the plan is paid, such as month, year or 3-month.")
    target = catalog.plans.get(plan)
    is_priced = target is not None and bool(target.prices)
    currency = wish.get("currency") if is_priced and company.subscription is None else None
    if rhythm is None or not is_priced:
        return plan_changes.ChangeRequest(plan=plan, currency=currency)
    return plan_changes.ChangeRequest(
        plan=plan, interval=rhythm.interval, interval_count=rhythm.interval_count, currency=currency
    )


# --- invoices and the billing portal -------------------------------------------------------------------------


async def _invoices(visit: Visit) -> Response:
    require_scope(visit.scopes, "pay")
    company = await companies.get(visit.env, visit.company_id)
    found = []
    for stripe_customer_id in company.stripe_customer_ids:
        found += await visit.env.gateway.list_invoices(stripe_customer_id)
    found.sort(key=lambda invoice: int(invoice.get("created") or 0), reverse=True)
    return fragment_response(invoices_view(visit.frame, found[:_INVOICES_SHOWN]))


async def _portal(visit: Visit) -> Response:
    company = await companies.get(visit.env, visit.company_id)
    can_open = visit.abilities.can_pay and bool(company.stripe_customer_ids)
    return fragment_response(portal_view(visit.frame, can_open=can_open))


async def _open_portal(visit: Visit) -> Response:
    # Nothing was bought there: whoever comes back is not told again of the change before.
    back = return_address(visit.fields.get("return_url"), visit.origin, is_marked=False) or visit.origin or ""
    url = await plan_changes.portal_url(visit.env, visit.company_id, return_url=back)
    say = visit.frame.reader.say
    leaving = LeavingView(
        frame=visit.frame,
        text=say("portal.leaving"),
        action=Action(label=say("portal.button"), url=url, style="primary"),
    )
    return fragment_response(leaving, headers={"HX-Redirect": url})
