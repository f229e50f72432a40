"""Finds the files that ship beside the code: embed.js, its stylesheet, the fragments, messages and the demo site.

A wheel carries them as `plangate/_components`; a checkout has them in `components/` at its root.
"""

from functools import cache
from pathlib import Path

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
    """The text of one component file, such as `embed.css` or `messages/en.json`."""
    return (components_folder() / name).read_text(encoding="utf-8")
