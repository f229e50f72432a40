"""Two real servers on two origins: a host page under a strict policy, and a toy Plangate with canned companies.

The toy keeps one company's plan in memory, so that a whole upgrade can be clicked through; script, stylesheet,
fragments, tokens and CORS are the real ones.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from plangate.clock import wall_now
from plangate.engine.catalog import Catalog
from plangate.errors import Code, Refusal
from plangate.shapes import ChangeKind, Company, HeldAddOn, PlanChange
from plangate.web.component_edge import (
    bearer,
    cors_headers,
    form_of,
    fragment_response,
    frame_of,
    preflight,
    problem_response,
    query_of,
    require_origin,
    words_of,
)
from plangate.web.embed import build_embed
from plangate.web.fragments import Action, Fragment, Notice
from plangate.web.tokens import mint_component_token, read_component_token
from plangate.web.views.invoices import invoices_view
from plangate.web.views.plan_manager import Abilities, plan_manager_view
from plangate.web.views.pricing import PricingWish, pricing_view
from plangate.web.views.receipt import receipt_view, refusal_view
from plangate.web.views.usage import usage_view
from tests.components import canned

ALL = Abilities(can_change=True, can_pay=True)
SECRETS = ("harness-secret-harness-secret-harness",)


@dataclass
class Toy:
    """What the toy Plangate knows and saw. `delay_seconds` slows answers, `ttl_seconds` shortens tokens."""

    origin: str = ""
    plan: str = "free"
    used: int = 10
    scheduled: str | None = None
    add_ons: tuple[HeldAddOn, ...] = ()
    signed_in: bool = True
    ttl_seconds: int = 900
    delay_seconds: float = 0
    stale_quotes: int = 0
    broken: bool = False
    is_checkout: bool = False
    tokens: int = 0
    suffix: str = ""
    crowd: bool = False
    is_rhythmic: bool = False
    changes: list[PlanChange] = field(default_factory=list)
    confirmed: list[str] = field(default_factory=list)
    seen: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)


def _catalog(toy: Toy) -> Catalog:
    """The canned catalogue, with `suffix` after every plan's name."""
    catalog = canned.crowded_catalog() if toy.crowd else canned.catalog()
    catalog = canned.rhythmic_catalog() if toy.is_rhythmic else catalog
    plans = {
        key: msgspec.structs.replace(plan, name=plan.name + toy.suffix, description=toy.suffix or plan.description)
        for key, plan in catalog.plans.items()
    }
    return msgspec.structs.replace(catalog, plans=plans)


def _company(toy: Toy) -> Company:
    return canned.company(toy.plan, scheduled=toy.scheduled, add_ons=toy.add_ons)


def toy_plangate(toy: Toy) -> ASGIApp:
    """The toy server behind the components."""

    async def embed(request: Request) -> Response:
        return Response(build_embed().text, media_type="text/javascript", headers={"Access-Control-Allow-Origin": "*"})

    async def fragment(request: Request) -> Response:
        if request.method == "OPTIONS":
            return preflight(request, [toy.origin])
        name = request.path_params["name"]
        toy.seen.append((request.method, name, dict(request.headers)))
        headers = cors_headers(request.headers.get("origin"), [toy.origin])
        fields = query_of(request) if request.method == "GET" else await form_of(request)
        if toy.delay_seconds:
            time.sleep(toy.delay_seconds)  # noqa: ASYNC251 - the toy has one visitor, and that one is to wait
        frame = frame_of(fields, canned.NOW)
        try:
            require_origin(request, [toy.origin], is_needed=request.method == "POST")
            is_signed_in = _signed_in(toy, request, name)
            return _answer(toy, name, fields, request.headers.get("idempotency-key", ""), headers, is_signed_in)
        except Refusal as refusal:
            if request.method == "POST":
                view = refusal_view(frame, canned.catalog(), _company(toy), refusal, abilities=ALL)
                return fragment_response(view, status=refusal.status, headers=headers)
            return problem_response(frame, refusal, headers=headers)

    return Starlette(
        routes=[
            Route("/embed.js", embed),
            Route("/components/v1/{name}", fragment, methods=["GET", "POST", "OPTIONS"]),
        ]
    )


def _signed_in(toy: Toy, request: Request, name: str) -> bool:
    if toy.broken:
        raise Refusal(Code.UNAVAILABLE, "The toy is out of order.")
    text = bearer(request)
    if text is not None:
        read_component_token(SECRETS, text, now=wall_now())
    elif name != "pricing-table":
        raise Refusal(Code.UNAUTHENTICATED, "No token.")
    return text is not None


def _answer(
    toy: Toy, name: str, fields: dict[str, str], key: str, headers: dict[str, str], is_signed_in: bool
) -> Response:
    frame, catalog, company = frame_of(fields, canned.NOW), _catalog(toy), _company(toy)
    told: dict[str, str] = {}
    notice = None
    if name == "preview":
        return fragment_response(_preview(toy, fields), headers=headers)
    if name == "confirm":
        if toy.stale_quotes:
            toy.stale_quotes -= 1
            fresh = receipt_view(frame, catalog, company, canned.quote(), wish={}, key="k2", is_fresh_price=True)
            return fragment_response(fresh, status=409, headers=headers)
        toy.confirmed.append(key)
        if toy.is_checkout:
            return Response("", headers={**headers, "HX-Redirect": fields["return_url"] + "?plangate_return=1"})
        if fields["quote"] == "down":
            toy.scheduled = "starter"
            notice = Notice(text=frame.reader.say("notice.scheduled", plan="Starter", date="December 3"))
        else:
            toy.plan = "pro"
            notice = Notice(text=frame.reader.say("notice.applied", plan="Pro"))
        told = {"HX-Trigger": '{"plangate-plan-changed": {"state": "applied", "plan": "pro"}}'}
    if name == "cancel-scheduled":
        toy.scheduled = None
        notice = Notice(text=frame.reader.say("notice.kept", plan="Pro"))
        told = {"HX-Trigger": '{"plangate-plan-changed": {"state": "cancelled"}}'}
    company = _company(toy)
    component = fields.get("component", name)
    view: Fragment
    if component == "invoices":
        view = invoices_view(frame, canned.INVOICES)
    elif component == "usage":
        meters = canned.decisions(toy.plan, toy.used)
        view = usage_view(frame, catalog, meters, features=words_of(fields.get("features", "")), can_change=True)
    elif component == "plan-manager" and fields.get("view") != "choices":
        view = plan_manager_view(frame, catalog, company, toy.changes, abilities=ALL, notice=notice)
    else:
        back = Action(label=frame.reader.say("back"), get="plan-manager", style="plain")
        view = pricing_view(
            frame,
            catalog,
            company if is_signed_in else None,
            wish=PricingWish(
                interval=fields.get("interval", ""),
                currency=fields.get("currency", ""),
                plans=words_of(fields.get("plans", "")),
                sign_up_url=fields.get("sign_up_url", ""),
            ),
            can_change=True,
            notice=notice,
            back=back if fields.get("view") == "choices" else None,
        )
    return fragment_response(view, headers={**headers, **told})


def _preview(toy: Toy, fields: dict[str, str]) -> Fragment:
    frame, catalog, company = frame_of(fields, canned.NOW), _catalog(toy), _company(toy)
    if toy.scheduled and fields.get("add_on"):
        raise Refusal(Code.DOWNGRADE_SCHEDULED, "You move to Starter on December 3, so nothing can be added now.")
    kind, text = (ChangeKind.DOWNGRADE, "down") if toy.plan == "pro" else (ChangeKind.UPGRADE, "up")
    if fields.get("cancel"):
        kind = ChangeKind.CANCEL
    quoted = msgspec.structs.replace(canned.quote(kind, needs_checkout=toy.is_checkout), quote=text)
    names = {"plan", "interval", "currency", "add_on", "quantity", "cancel"}
    wish = {name: value for name, value in fields.items() if name in names}
    return receipt_view(frame, catalog, company, quoted, wish=wish, key=f"key-{len(toy.seen)}")


PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Host</title>
<meta name="viewport" content="width=device-width,initial-scale=1"><link rel="stylesheet" href="/page.css{query}">
{head}<script src="{plangate}/embed.js" data-publishable-key="pgt_pk_1" data-token-url="/token" async></script>{script}
</head><body>{body}</body></html>"""

STYLES = """body{margin:0;padding:16px;font-family:system-ui,sans-serif}
body{color-scheme:light dark;background:Canvas;color:CanvasText}
plangate-pricing-table,plangate-plan-manager,plangate-usage{margin:0 auto 24px;max-width:1160px}
plangate-usage,plangate-plan-manager{max-width:640px}"""

HOSTILE = """*{letter-spacing:9px!important;text-transform:uppercase!important}
*{color:red!important;line-height:9!important}
button,li,h2,h3,p,progress,.card,.button{display:none!important;font-size:60px!important}"""

HOST_SCRIPT = """
window.htmx = {mine: true};
window.__seen = {events: [], htmx: [], violations: []};
const names = ["ready", "plan-selected", "checkout-started", "plan-changed", "error"];
for (const name of names)
  document.addEventListener("plangate-" + name, (event) => __seen.events.push([name, event.detail]));
for (const name of ["config:request", "before:swap", "after:swap", "before:process", "error"])
  document.addEventListener("htmx:" + name, () => __seen.htmx.push(name));
document.addEventListener("securitypolicyviolation", (event) =>
  __seen.violations.push(event.violatedDirective + " " + event.blockedURI));
window.__before = Object.keys(window);
"""


def host_site(toy: Toy, plangate: str) -> ASGIApp:
    """The host's own site, under the strictest policy a component must live with."""

    async def page(request: Request) -> Response:
        query = request.query_params
        body = query.get("body", "<plangate-pricing-table></plangate-pricing-table>")
        twice = f'<script src="{plangate}/embed.js" async></script>' if "twice" in query else ""
        hostile = "?hostile" if "hostile" in query else ""
        policy = (
            f"default-src 'none'; script-src 'self' {plangate}; connect-src 'self' {plangate}; style-src 'self'; "
            "img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; "
            "require-trusted-types-for 'script'"
        )
        meta = '<meta name="htmx-config" content=\'{"extensions":"sse","defaultSwap":"outerHTML"}\'>'
        html = PAGE.format(
            plangate=plangate, head='<script src="/page.js"></script>' + meta, script=twice, body=body, query=hostile
        )
        return Response(html, media_type="text/html", headers={"Content-Security-Policy": policy})

    async def styles(request: Request) -> Response:
        return Response(STYLES + (HOSTILE if "hostile" in request.query_params else ""), media_type="text/css")

    async def script(request: Request) -> Response:
        return Response(HOST_SCRIPT, media_type="text/javascript")

    async def token(request: Request) -> Response:
        toy.tokens += 1
        if not toy.signed_in:
            return PlainTextResponse("", status_code=401)
        lived = timedelta(seconds=900 - toy.ttl_seconds)
        text, expires_at = mint_component_token(
            SECRETS, environment_id="env_1", company="comp_acme", scopes=["manage", "pay"], now=wall_now() - lived
        )
        said = expires_at + lived  # the host's clock may be wrong: the server decides when a token has ended
        return JSONResponse({"token": text, "expires_at": said.isoformat()})

    return Starlette(
        routes=[
            Route("/", page),
            Route("/page.css", styles),
            Route("/page.js", script),
            Route("/token", token, methods=["POST"]),
        ]
    )


@contextmanager
def serving(app: ASGIApp) -> Iterator[str]:
    """The app on an ephemeral loopback port, in a thread of its own; answers its origin."""
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 10
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(timeout=10)
