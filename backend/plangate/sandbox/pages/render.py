"""Templates with the filters every page needs, and answers with a strict Content-Security-Policy."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from starlette.responses import HTMLResponse, Response

from plangate.sandbox.money import written
from plangate.sandbox.periods import written_day

Obj = dict[str, Any]

FOLDER = Path(__file__).parent
_ASSETS = {"sandbox.css": "text/css", "sandbox.js": "text/javascript"}
_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; frame-ancestors 'none'"
)


def html(template: str, *, status: int = 200, **values: object) -> HTMLResponse:
    """A page from a template; everything it shows is escaped."""
    text = _environment().get_template(template).render(**values)
    return HTMLResponse(
        text,
        status_code=status,
        headers={
            "Content-Security-Policy": _POLICY,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-store",
        },
    )


def asset(name: str) -> Response:
    """A style sheet or script of the pages, or 404."""
    if name not in _ASSETS:
        return Response("Not found", status_code=404)
    return Response(
        (FOLDER / name).read_bytes(), media_type=_ASSETS[name], headers={"Cache-Control": "public, max-age=3600"}
    )


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    environment.filters["money"] = lambda amount, currency: written(amount or 0, currency or "usd")
    environment.filters["day"] = written_day
    environment.globals["asset_version"] = hashlib.sha256(
        b"".join((FOLDER / name).read_bytes() for name in sorted(_ASSETS))
    ).hexdigest()[:10]
    return environment
