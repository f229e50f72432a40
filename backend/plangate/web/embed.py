"""Builds embed.js: the vendored htmx, our script and its styles wrapped in one function, named by its hash.

There is no build step: the server reads the files once, drops comments and indentation, and serves the result.
"""

import base64
import gzip
import hashlib
import json
import re
from dataclasses import dataclass
from functools import cache

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from plangate.errors import Code, Refusal
from plangate.resources import component_text, components_folder

EMBED_LIMIT_BYTES = 20_000
"""What the whole script may weigh after gzip."""

# In this order: what comes later wins over what is as specific.
_STYLES = ("base", "buttons", "pricing", "manager", "dialogs", "usage", "states")
_INLINE_JSDOC = re.compile(r"/\*\* @type [^*]*\*/ ?")
_TEXT_OR_SPACE = re.compile(r'("(?:[^"\\]|\\.)*"|`(?:[^`\\]|\\.)*`)|[ ]*(!=|[{}()\[\];,:?=<>&|])[ ]*')
_HTMX_LINE = re.compile(r"^// === htmx stands here =+$", re.MULTILINE)
# Parts of htmx no component uses: morphing, history, hx-on, view transitions, relative selectors.
_HTMX_UNUSED = (
    *("#I", "#at", "#ht", "#lt", "#ct", "#ut", "#ot", "#dt", "#ft"),
    *("#Ke", "#Ye", "#Ze", "#We", "#$e", "#ve", "#mt", "#rt", "#it", "#nt"),
)
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
    htmx = without_methods(component_text("vendor/htmx.min.js").strip(), _HTMX_UNUSED)
    before, after = _HTMX_LINE.split(component_text("embed.js"))
    words = {path.stem: _script_words(path.stem) for path in sorted((components_folder() / "messages").glob("*.json"))}
    styles = "\n".join(component_text(f"styles/{name}.css") for name in _STYLES)
    text = "\n".join(
        [
            '(function(SCRIPT){"use strict";if(customElements.get("plangate-pricing-table"))return;',
            compact_script(before),
            htmx,
            f"const STYLES={json.dumps(compact_styles(styles))},WORDS={json.dumps(words)};",
            compact_script(after),
            # Of two tags, the one that says who we are counts, whichever loads first.
            '})(document.querySelector("script[data-publishable-key]")||document.currentScript);',
        ]
    )
    digest = hashlib.sha384(text.encode()).digest()
    return Embed(text=text, digest=digest.hex()[:16], integrity="sha384-" + base64.b64encode(digest).decode())


def embed_routes() -> list[Route]:
    """The script under its plain address and the one with its hash, and what a page needs to pin it."""
    return [
        Route("/embed.js", _embed),
        Route("/embed.json", _embed_facts),
        Route("/embed.{digest}.js", _embed),
    ]


async def _embed(request: Request) -> Response:
    """The script: for ever under the address with its hash, for five minutes under the plain one."""
    embed = build_embed()
    digest = request.path_params.get("digest")
    if digest is not None and digest != embed.digest:
        raise Refusal(Code.NOT_FOUND, "This version of the script is no longer served: use /embed.js.")
    headers = {
        "ETag": embed.etag,
        "Cache-Control": "public, max-age=31536000, immutable" if digest else "public, max-age=300",
        "Access-Control-Allow-Origin": "*",
        "Cross-Origin-Resource-Policy": "cross-origin",
        "X-Content-Type-Options": "nosniff",
        "Vary": "Accept-Encoding",
    }
    if request.headers.get("if-none-match") == embed.etag:
        return Response(status_code=304, headers=headers)
    if "gzip" in request.headers.get("accept-encoding", ""):
        headers["Content-Encoding"] = "gzip"
        return Response(_embed_gzipped(), media_type="text/javascript", headers=headers)
    return Response(embed.text, media_type="text/javascript", headers=headers)


@cache
def _embed_gzipped() -> bytes:
    return gzip.compress(build_embed().text.encode(), 9, mtime=0)


async def _embed_facts(request: Request) -> Response:
    """What a host page needs to pin the script: its lasting address and integrity, and what it weighs."""
    embed = build_embed()
    facts = {
        "path": f"/embed.{embed.digest}.js",
        "integrity": embed.integrity,
        "bytes": len(embed.text.encode()),
        "bytes_gzipped": len(_embed_gzipped()),
    }
    return Response(json.dumps(facts), media_type="application/json", headers={"Access-Control-Allow-Origin": "*"})


def _script_words(language: str) -> dict[str, str]:
    """The few texts the script says itself, when no fragment can be had."""
    return dict(json.loads(component_text(f"messages/{language}.json"))["script"])


def without_methods(text: str, names: tuple[str, ...]) -> str:
    """A minified class whose named private methods do nothing. Raises ValueError for one that is not there once.

    Their braces must balance, texts included; which ones do is known, because the vendored file is pinned by its hash.
    """
    for name in names:
        heads = list(re.finditer(rf"(?<![.\w])(?:async)?{re.escape(name)}\([^()]*\)\{{", text))
        if len(heads) != 1:
            raise ValueError(f"{name} is defined {len(heads)} times")
        start = end = heads[0].end()
        depth = 1
        while depth:
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            end += 1
        text = text[:start] + text[end - 1 :]
    return text


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
