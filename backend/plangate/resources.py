"""Finds the files that ship beside the code: embed.js, its stylesheet, the fragments, messages and the demo site.

A wheel carries them as `plangate/_components`; a checkout has them in `components/` at its root.
"""

import sys
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Protocol, cast

from starlette.types import ASGIApp

from plangate.errors import StartRefused


@cache
def components_folder() -> Path:
    """The folder of embed.js, fragments/, messages/, vendor/ and demo/: the package's first, then the checkout's.

    Raises StartRefused when neither exists, which means a broken installation.
    """
    package = Path(__file__).resolve().parent
    for folder in (package / "_components", package.parents[1] / "components"):
        if (folder / "embed.js").is_file():
            return folder
    raise StartRefused("The component files are missing from this installation: install Plangate again.")


def component_text(name: str) -> str:
    """The text of one component file, such as `styles/base.css` or `messages/en.json`."""
    return (components_folder() / name).read_text(encoding="utf-8")


class SiteFactory(Protocol):
    """How the demo site is made: its own origin, Plangate's, and the two keys. See components/demo/app.py."""

    def __call__(self, *, url: str, plangate_url: str, secret_key: str, publishable_key: str) -> ASGIApp:
        """The site as an ASGI application."""


def demo_site() -> SiteFactory:
    """The demo site's factory, loaded from its file: in a checkout it is in no package."""
    file = components_folder() / "demo" / "app.py"
    spec = spec_from_file_location("plangate_demo_site", file)
    if spec is None or spec.loader is None:
        raise StartRefused("The demo site is missing from this installation: install Plangate again.")
    module = module_from_spec(spec)
    # Dataclasses look their module up by name while it loads.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return cast(SiteFactory, module.create_site)
