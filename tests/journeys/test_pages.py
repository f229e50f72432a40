"""The pages that lead newcomers through the code name what is there, and no page links to nothing."""

import ast
import re
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]
_TEXTS = sorted([*_ROOT.glob("*.md"), *_ROOT.glob("docs/**/*.md"), *_ROOT.glob("stripe-app/*.md")])
_PAGES = sorted((_ROOT / "docs" / "journeys").glob("*.md"))


@pytest.mark.parametrize("page", _PAGES, ids=lambda page: page.stem)
def test_every_file_defines_what_the_page_looks_for_in_it(page: Path) -> None:
    text = page.read_text("utf-8")
    steps = re.findall(r"^\| `([\w/]+\.py)` \| `(\w+)` \| .+ \|$", text, re.MULTILINE)
    assert len(steps) > 5
    for path, name in steps:
        tree = ast.parse((_ROOT / "backend" / "plangate" / path).read_text("utf-8"))
        assert name in {getattr(node, "name", None) for node in tree.body}, f"{path} defines no {name}"
    for path in re.findall(r"`([\w/]+\.py)`", text):
        assert (_ROOT / "backend" / "plangate" / path).is_file(), path


@pytest.mark.parametrize("page", _TEXTS, ids=lambda page: str(page.relative_to(_ROOT)))
def test_links_lead_to_files_and_headings_that_are_there(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        if re.match(r"\w+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", file.read_text("utf-8"), re.MULTILINE)
            assert anchor in {_anchor_of(heading) for heading in headings}, target


def _anchor_of(heading: str) -> str:
    """As forges write it: small letters, spaces to hyphens, everything else but letters and digits left out."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
