"""The pages that lead newcomers through the code name files and functions that are there."""

import ast
import re
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]
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
