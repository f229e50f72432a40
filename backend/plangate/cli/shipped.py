"""Finds what ships for the command line: the demo catalogue and the dashboard app's manifest.

A wheel carries them as `plangate/_shipped`; a checkout has them where they are edited.
"""

import json
from pathlib import Path
from typing import Any

from plangate.errors import StartRefused

_PACKAGE = Path(__file__).resolve().parents[1]


def demo_catalog_text() -> str:
    """The demo catalogue as YAML."""
    return _found("demo.yaml", "fixtures/catalogs/demo.yaml").read_text("utf-8")


def dashboard_app_manifest() -> dict[str, Any]:
    """The Stripe App's manifest as it is in the sources."""
    manifest: dict[str, Any] = json.loads(_found("stripe-app.json", "stripe-app/stripe-app.json").read_text("utf-8"))
    return manifest


def _found(shipped: str, edited: str) -> Path:
    for file in (_PACKAGE / "_shipped" / shipped, _PACKAGE.parents[1] / edited):
        if file.is_file():
            return file
    raise StartRefused(f"{shipped} is missing from this installation: install Plangate again.")
