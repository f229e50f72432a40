"""Northwind Notes: a small product that sells plans, as its own developers would build it beside Plangate.

It knows Plangate only by its public surface: one script tag, one token route, and `POST /v1/consume` from its backend.
"""

from collections.abc import Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl
from uuid import uuid4

import httpx
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

FOLDER: Final = Path(__file__).resolve().parent
COOKIE: Final = "northwind_company"
COMPANIES: Final[Mapping[str, str]] = {
    "acme": "Acme",
    "globex": "Globex",
    "initech": "Initech",
    "umbrella": "Umbrella",
}
NOTES: Final = (
    ("Launch checklist", "Today", "Copy is final. Screenshots on Thursday, then we press the button."),
    ("Interview: Dana", "Yesterday", "Keeps a notebook per client. Exports one every Friday for the invoice."),
    ("Pricing ideas", "Monday", "Two tiers were too few. Nobody reads seven."),
    ("Offsite in Lisbon", "Last week", "Trains beat planes. Book the house with the long table."),
    ("Reading list", "Last week", "Working in public. The timeless way of building. Notes on notes."),
)
_UPSTREAM_SECONDS: Final = 10.0
_FORM_LIMIT_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class Site:
    """Where the site and Plangate live, and the two keys the site was given."""

    url: str
    plangate_url: str
    secret_key: str
    publishable_key: str


def create_site(*, url: str, plangate_url: str, secret_key: str, publishable_key: str) -> Starlette:
    """The demo site. URLs are origins without a trailing slash; the secret key never leaves the site's backend."""
    site = Site(url.rstrip("/"), plangate_url.rstrip("/"), secret_key, publishable_key)
    pages = Environment(
        loader=FileSystemLoader(FOLDER / "pages"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    policy = _policy(site)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> "AsyncIterator[None]":
        async with httpx.AsyncClient(
            base_url=site.plangate_url,
            timeout=_UPSTREAM_SECONDS,
            headers={"Authorization": f"Bearer {site.secret_key}"},
        ) as client:
            app.state.plangate = client
            yield

    def show(request: Request, name: str, **values: object) -> Response:
        company = _company(request)
        html = pages.get_template(name).render(
            site=site,
            path=request.url.path,
            company=company,
            company_name=COMPANIES[company],
            companies=COMPANIES,
            **values,
        )
        return HTMLResponse(html, headers={"Content-Security-Policy": policy, "Referrer-Policy": "same-origin"})

    async def home(request: Request) -> Response:
        return show(request, "home.html", notes=NOTES)

    async def pricing(request: Request) -> Response:
        return show(request, "pricing.html")

    async def billing(request: Request) -> Response:
        return show(request, "billing.html")

    async def notebook(request: Request) -> Response:
        return show(request, "app.html", notes=NOTES, result=None)

    async def export(request: Request) -> Response:
        """The metered button: count one export first, and only then make the file."""
        if not _is_own_page(request, site):
            return PlainTextResponse("Use the button on the page.", status_code=403)
        result = await _consume_export(request.app.state.plangate, _company(request))
        if "application/json" in request.headers.get("accept", ""):
            return JSONResponse(result)
        return show(request, "app.html", notes=NOTES, result=result)

    async def token(request: Request) -> Response:
        """What `data-token-url` points at: a short-lived token for the company that is signed in here."""
        if not _is_own_page(request, site):
            return PlainTextResponse("Ask from our own pages.", status_code=403)
        wish = {"company": {"id": _company(request)}, "scopes": ["view", "manage", "pay"], "origins": [site.url]}
        try:
            answer = await request.app.state.plangate.post("/v1/component-tokens", json=wish)
        except httpx.HTTPError:
            return PlainTextResponse("Billing is not reachable.", status_code=502)
        if not answer.is_success:
            return PlainTextResponse("Billing refused the token.", status_code=502)
        granted = answer.json()
        return JSONResponse(
            {"token": granted["token"], "expires_at": granted["expires_at"]}, headers={"Cache-Control": "no-store"}
        )

    async def switch(request: Request) -> Response:
        """Stands in for signing in: choose which company you are."""
        if not _is_own_page(request, site):
            return PlainTextResponse("Use the switcher on the page.", status_code=403)
        fields = await _short_form(request)
        wanted, back = fields.get("company", ""), fields.get("back", "/")
        pages_known = {"/", "/pricing", "/billing", "/app"}
        response = RedirectResponse(back if back in pages_known else "/", status_code=303)
        if wanted in COMPANIES:
            response.set_cookie(COOKIE, wanted, httponly=True, samesite="lax", max_age=30 * 86_400)
        return response

    async def asset(request: Request) -> Response:
        name = request.path_params["name"]
        kinds = {"site.css": "text/css", "site.js": "text/javascript", "icon.svg": "image/svg+xml"}
        if name not in kinds:
            return PlainTextResponse("Not found", status_code=404)
        return Response((FOLDER / name).read_bytes(), media_type=kinds[name], headers={"Cache-Control": "no-cache"})

    return Starlette(
        lifespan=lifespan,
        middleware=[Middleware(GZipMiddleware, minimum_size=1000)],
        routes=[
            Route("/", home),
            Route("/pricing", pricing),
            Route("/billing", billing),
            Route("/app", notebook),
            Route("/app/export", export, methods=["POST"]),
            Route("/billing/plangate-token", token, methods=["POST"]),
            Route("/switch", switch, methods=["POST"]),
            Route("/assets/{name}", asset),
        ],
    )


def _policy(site: Site) -> str:
    """The strict Content-Security-Policy of every page; Plangate needs two entries in it, and nothing inline."""
    return (
        f"default-src 'none'; script-src 'self' {site.plangate_url}; connect-src 'self' {site.plangate_url}; "
        "style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'"
    )


def _company(request: Request) -> str:
    chosen = request.cookies.get(COOKIE, "acme")
    return chosen if chosen in COMPANIES else "acme"


def _is_own_page(request: Request, site: Site) -> bool:
    """Whether a POST comes from one of our own pages: a browser always names the origin of a POST."""
    return request.headers.get("origin") == site.url


async def _short_form(request: Request) -> dict[str, str]:
    """The fields of a small form; an over-long one counts as empty."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _FORM_LIMIT_BYTES:
            return {}
    return dict(parse_qsl(body.decode("utf-8", "replace")))


async def _consume_export(client: httpx.AsyncClient, company: str) -> dict[str, Any]:
    """Ask Plangate to check and count one export; answers what the page says about it."""
    question = {"company": {"id": company}, "feature": "exports", "quantity": 1}
    try:
        response = await client.post("/v1/consume", json={**question, "idempotency_key": f"export-{uuid4()}"})
        decision: dict[str, Any] = response.raise_for_status().json()
        if not decision.get("allowed"):
            # Nothing was counted. The same question with its trace names the cheapest way out.
            explained = await client.post("/v1/check", json={**question, "trace": True})
            decision = explained.raise_for_status().json()
    except (httpx.HTTPError, ValueError):
        return {"ok": False, "text": "We couldn't reach billing just now. Your note is safe: try again shortly."}
    if decision.get("allowed"):
        left = decision.get("remaining")
        rest = "" if left is None else f" You have {left:,} left."
        return {"ok": True, "text": f"Exported “Launch checklist” as a PDF.{rest}"}
    return {"ok": False, "text": _refusal(decision), "way_out": "See plans", "href": "/pricing"}


def _refusal(decision: Mapping[str, Any]) -> str:
    """Why the export was refused, with the way out, in one or two plain sentences."""
    limit = decision.get("limit")
    if decision.get("reason") != "limit_reached" or limit is None:
        return "Your plan does not include exports."
    text = f"You've used all {limit:,} exports."
    ways = []
    resets_at = (decision.get("period") or {}).get("resets_at")
    if resets_at:
        day = datetime.fromisoformat(resets_at)
        ways.append(f"they reset on {day:%B} {day.day}")
    options = (decision.get("trace") or {}).get("options") or []
    plan = next((one for one in options if one.get("kind") == "plan" and one.get("name")), None)
    if plan is not None:
        more = plan.get("limit")
        amount = f" for {more:,} a month" if isinstance(more, int) else ""
        ways.append(f"move to {plan['name']}{amount}")
    if ways:
        sentence = ", or ".join(ways)
        text += f" {sentence[0].upper()}{sentence[1:]}."
    return text
