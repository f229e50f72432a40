"""embed.js as served: small, whole, pinned to the htmx we vendored, and free of what a strict page forbids."""

import gzip
import hashlib
import json
import re

import pytest

from plangate.resources import component_text, components_folder
from plangate.web.embed import EMBED_LIMIT_BYTES, build_embed, compact_script, compact_styles, without_methods


def test_the_script_stays_within_its_budget() -> None:
    packed = gzip.compress(build_embed().text.encode(), 9, mtime=0)
    assert len(packed) <= EMBED_LIMIT_BYTES


def test_the_vendored_htmx_is_the_one_we_checked() -> None:
    facts = json.loads(component_text("vendor/htmx.json"))
    digest = hashlib.sha256((components_folder() / "vendor" / facts["file"]).read_bytes()).hexdigest()
    assert digest == facts["sha256"]
    assert f'version="{facts["version"]}"' in component_text("vendor/htmx.min.js")
    assert "Zero-Clause BSD" in component_text("vendor/LICENSE")


def test_the_digest_names_the_text() -> None:
    embed = build_embed()
    assert embed.integrity.startswith("sha384-")
    assert embed.digest == hashlib.sha384(embed.text.encode()).hexdigest()[:16]


def test_every_style_is_in_it() -> None:
    text = build_embed().text
    for path in (components_folder() / "styles").iterdir():
        assert json.dumps(compact_styles(path.read_text()))[1:-1] in text, path.name


def test_our_own_script_never_stores_tokens_or_evaluates_text() -> None:
    script = component_text("embed.js")
    assert not re.search(
        r"localStorage|sessionStorage|document\.cookie|\beval\b|new Function|insertAdjacentHTML", script
    )


def test_templates_of_the_script_do_not_nest() -> None:
    for template in re.findall(r"`[^`]*`", component_text("embed.js")):
        assert template.count("${") == template.count("}")


def test_methods_that_nobody_uses_are_emptied_and_their_callers_stay() -> None:
    text = "class{#a(e){if(e){b()}}async#b(){this.#a({})}c(){this.#b()}}"
    assert without_methods(text, ("#a",)) == "class{#a(e){}async#b(){this.#a({})}c(){this.#b()}}"
    assert without_methods(text, ("#b",)) == "class{#a(e){if(e){b()}}async#b(){}c(){this.#b()}}"
    with pytest.raises(ValueError, match="#d is defined 0 times"):
        without_methods(text, ("#d",))


def test_compacting_a_script_touches_neither_texts_nor_patterns() -> None:
    text = "\n".join(
        [
            "/** A note. */",
            'const a = /** @type {any} */ (b) ? "x : y" : `p , ${q}`;',
            "  // Gone.",
            "  const c = text.split(/,\\s*/);",
            "",
            "/* Also",
            "   gone. */",
            "d();",
        ]
    )
    assert compact_script(text) == 'const a=(b)?"x : y":`p , ${q}`;const c=text.split(/,\\s*/);d();'


def test_compacting_styles_keeps_what_separates_selectors() -> None:
    assert compact_styles("/* x */\n.a > .b ,\n .c {\n  margin: 0 auto;\n}\n") == ".a > .b,.c{margin:0 auto}"
