"""Builds embed.js: the vendored htmx, our script and its stylesheet wrapped in one function, named by its hash.

There is no build step: the server reads the files once, drops comments and indentation, and serves the result.
"""

import base64
import hashlib
import json
import re
from dataclasses import dataclass
from functools import cache

from plangate.resources import component_text, components_folder

EMBED_LIMIT_BYTES = 20_000
"""What the whole script may weigh after gzip."""

_INLINE_JSDOC = re.compile(r"/\*\* @type [^*]*\*/ ?")
_TEXT_OR_SPACE = re.compile(r'("(?:[^"\\]|\\.)*"|`(?:[^`\\]|\\.)*`)|[ ]*(!=|[{}()\[\];,:?=<>&|])[ ]*')
_LINE_END = re.compile(r"(?<=[{(\[,;:?&|])\n")


@dataclass(frozen=True, slots=True)
class Embed:
    """The script as served: its text, the short hash in its lasting address, and the `integrity` value of the tag."""

    text: str
    digest: str
    integrity: str

    @property
    def etag(self) -> str:
        """The entity tag of the script, quotes included."""
        return f'"{self.digest}"'


@cache
def build_embed() -> Embed:
    """The script every host page loads, built once per process.

    Nothing is done when the elements exist already, so a page may carry the tag twice.
    """
    htmx = component_text("vendor/htmx.min.js").strip()
    words = {path.stem: _script_words(path.stem) for path in sorted((components_folder() / "messages").glob("*.json"))}
    text = "\n".join(
        [
            '(function(SCRIPT){"use strict";if(customElements.get("plangate-pricing-table"))return;',
            htmx,
            f"const STYLES={json.dumps(compact_styles(component_text('embed.css')))},WORDS={json.dumps(words)};",
            compact_script(component_text("embed.js")),
            # Of two tags, the one that says who we are counts, whichever loads first.
            '})(document.querySelector("script[data-publishable-key]")||document.currentScript);',
        ]
    )
    digest = hashlib.sha384(text.encode()).digest()
    return Embed(text=text, digest=digest.hex()[:16], integrity="sha384-" + base64.b64encode(digest).decode())


def _script_words(language: str) -> dict[str, str]:
    """The few texts the script says itself, when no fragment can be had."""
    return dict(json.loads(component_text(f"messages/{language}.json"))["script"])


def compact_script(text: str) -> str:
    """The script without comments, indentation and the spaces around punctuation.

    Only whole-line comments and inline type notes are taken for comments; strings and templates (which must not
    nest) stay as they are; a line ends where it ended unless its last character says that the statement goes on.
    """
    lines: list[str] = []
    is_inside_comment = False
    for line in text.splitlines():
        bare = line.strip()
        if not is_inside_comment and bare.startswith("/*") and not _INLINE_JSDOC.match(bare):
            is_inside_comment = True
        if is_inside_comment:
            is_inside_comment = not bare.endswith("*/")
        elif bare and not bare.startswith("//"):
            lines.append(_INLINE_JSDOC.sub("", bare))
    squeezed = _TEXT_OR_SPACE.sub(lambda match: match[1] or match[2], "\n".join(lines))
    return _LINE_END.sub("", squeezed).replace(";}", "}")


def compact_styles(text: str) -> str:
    """The stylesheet without comments and without the white space that means nothing."""
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    text = re.sub(r"\s+", " ", text)
    text = re.sub(r" ?([{};,]) ?", r"\1", text)
    text = re.sub(r'="([a-z]+)"', r"=\1", text)
    text = re.sub(r"(?<=[ :(,-])0\.(?=\d)", ".", text)
    return text.replace(": ", ":").replace(";}", "}").strip()
