"""Reads a catalogue from YAML or a decoded value, refusing with every fault and its line; writes it back, always alike.

What `pull` writes, `apply` reads back to the same document, byte for byte the second time. Comments are not kept.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import yaml
from pydantic import ValidationError

from plangate.catalog_document import CatalogDocument, document_value
from plangate.catalog_rules import faults_of, pointer_of
from plangate.errors import Code, FieldError, Refusal

_FAULTS_SHOWN: Final = 50
_PATTERNS: Final = {
    "currency": "must be a three-letter currency such as usd",
    "name": "must be on one line, without control characters",
    "stripe_meter": "must be the event name of a meter, at most 100 characters",
    "stripe_product": "must be the id of a product in Stripe, such as prod_123",
    "stripe_price": "must be the id of a price in Stripe, such as price_123",
}
_BYTES: Final = 1_048_576
_DEPTH: Final = 32
_TEXT_TAGS: Final = frozenset({"tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"})
_SUBJECT: Final = re.compile(r"^(Input|String|List|Dictionary) should ")


def read_catalog(text: str) -> CatalogDocument:
    """The catalogue a YAML (or JSON) file describes.

    Raises Refusal (400) when it cannot be read: not YAML, a key given twice, an alias, over 1 MiB or 32 levels deep;
    and as `parse_catalog` (422).
    """
    if len(text.encode()) > _BYTES:
        raise Refusal(Code.TOO_LARGE, "The catalogue is over 1 MiB. Split what it says, or shorten its descriptions.")
    value, lines = _decoded(text)
    if value is None:
        raise Refusal(Code.MALFORMED, "The catalogue is empty. It starts with `version: 1`.")
    return parse_catalog(value, lines=lines)


def _decoded(text: str) -> tuple[object, Mapping[str, int]]:
    """What the file says, not yet looked at, and the line of every part by its pointer."""
    lines: dict[str, int] = {}
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            _walk(node, "", lines, 0)
            value = loader.construct_document(node) if node is not None else None
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f" at line {mark.line + 1}" if mark is not None else ""
        raise Refusal(Code.MALFORMED, f"The catalogue is not valid YAML{place}: {error.problem}.") from None
    except (yaml.YAMLError, ValueError, RecursionError):
        raise Refusal(Code.MALFORMED, "The catalogue is not valid YAML. Check it with a YAML linter.") from None
    return value, lines


def parse_catalog(document: object, *, lines: Mapping[str, int] | None = None) -> CatalogDocument:
    """The catalogue a decoded JSON or YAML value describes.

    `lines` maps JSON pointers to lines of the file, for the sentences. Raises Refusal (422) that lists every fault,
    at most 50, each with its pointer.
    """
    try:
        parsed = CatalogDocument.model_validate(document)
    except ValidationError as error:
        faults = [_fault(one) for one in error.errors(include_url=False, include_input=False)]
        # What is misspelt comes before what is missing because of it.
        faults.sort(key=lambda fault: fault.code is not Code.UNKNOWN_FIELD)
        raise refused(faults, lines) from None
    if faults := faults_of(parsed):
        raise refused(faults, lines)
    return parsed


def refused(faults: Sequence[FieldError], lines: Mapping[str, int] | None = None) -> Refusal:
    """The refusal for faults of a document; its sentence is the first one's, and says how many more there are."""
    first, more = faults[0], len(faults) - 1
    line = line_of(first.pointer, lines or {})
    place = f"{first.pointer or '/'} (line {line})" if line is not None else first.pointer or "/"
    others = f" There {'is 1 more fault' if more == 1 else f'are {more} more faults'} in it." if more else ""
    code = Code.UNKNOWN_FIELD if all(fault.code is Code.UNKNOWN_FIELD for fault in faults) else Code.INVALID
    return Refusal(code, f"The catalogue is not valid: {place} {first.detail}.{others}", errors=faults[:_FAULTS_SHOWN])


def line_of(pointer: str, lines: Mapping[str, int]) -> int | None:
    """The line of the nearest part of the file that contains the pointer."""
    while pointer and pointer not in lines:
        pointer = pointer.rpartition("/")[0]
    return lines.get(pointer)


def placed(refusal: Refusal, text: str) -> Refusal:
    """The refusal of what a file says, met after it was read, with the field at fault and its line in the sentence."""
    pointer = refusal.errors[0].pointer if refusal.errors else ""
    _, lines = _decoded(text)
    if "/".join(pointer.split("/")[:2]) not in lines:
        return refusal
    place = f"{pointer} (line {line_of(pointer, lines)})"
    is_named = pointer in refusal.detail
    detail = refusal.detail.replace(pointer, place, 1) if is_named else f"{place}: {refusal.detail}"
    return Refusal(refusal.code, detail, errors=refusal.errors, extra=refusal.extra, headers=refusal.headers)


def catalog_text(document: CatalogDocument) -> str:
    """The document as YAML in its canonical form: the same document is always the same text."""
    value = document_value(document)
    for section in ("plans", "add_ons"):
        for sold in value.get(section, {}).values():
            if "prices" in sold:
                sold["prices"] = [_Inline(price) for price in sold["prices"]]
            if "fits" in sold:
                sold["fits"] = _InlineList(sold["fits"])
            for key, entitled in sold.get("entitlements", {}).items():
                if isinstance(entitled, dict) and "prices" in entitled:
                    entitled["prices"] = [_Inline(price) for price in entitled["prices"]]
                elif isinstance(entitled, dict):
                    sold["entitlements"][key] = _Inline(entitled)
    sections = (
        yaml.dump({key: part}, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
        for key, part in value.items()
    )
    # A blank line before each part that has more than one line, so that the file reads as chapters.
    return "".join(f"\n{text}" if text.count("\n") > 1 else text for text in sections).lstrip("\n")


class _Loader(yaml.SafeLoader):
    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        # Aliases could make a small file describe an enormous value.
        if self.check_event(yaml.AliasEvent):
            mark = self.get_event().start_mark  # type: ignore[no-untyped-call]  # the stubs leave it out
            raise yaml.MarkedYAMLError(problem="aliases are not used here", problem_mark=mark)
        return super().compose_node(parent, index)


class _Inline(dict[str, Any]):
    """A mapping written on one line."""


class _InlineList(list[Any]):
    """A list written on one line."""


class _Dumper(yaml.SafeDumper):
    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        # Lists are indented under their key; PyYAML would leave them at the key's own column.
        super().increase_indent(flow, False)


_Dumper.add_representer(
    _Inline, lambda dumper, value: dumper.represent_mapping("tag:yaml.org,2002:map", value, flow_style=True)
)
_Dumper.add_representer(
    _InlineList, lambda dumper, value: dumper.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=True)
)


def _walk(node: yaml.Node | None, pointer: str, lines: dict[str, int], depth: int) -> None:
    """Note the line of every part; refuse what the safe loader lets through: double keys, great depth."""
    if node is None:
        return
    if depth > _DEPTH:
        raise yaml.MarkedYAMLError(problem=f"it is over {_DEPTH} levels deep", problem_mark=node.start_mark)
    lines[pointer] = node.start_mark.line + 1
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _walk(item, f"{pointer}{pointer_of(index)}", lines, depth + 1)
    if isinstance(node, yaml.MappingNode):
        for key, item in node.value:
            if key.tag not in _TEXT_TAGS:
                said = f"the key {key.value}" if isinstance(key, yaml.ScalarNode) else "a key"
                raise yaml.MarkedYAMLError(problem=f"{said} is not text; put it in quotes", problem_mark=key.start_mark)
            here = f"{pointer}{pointer_of(key.value)}"
            if here in lines:
                raise yaml.MarkedYAMLError(problem=f"{key.value} is given twice", problem_mark=key.start_mark)
            _walk(item, here, lines, depth + 1)
            lines[here] = key.start_mark.line + 1


def _fault(error: Mapping[str, Any]) -> FieldError:
    parts = [part for part in error["loc"] if part not in {"~short", "~whole", "[key]"}]
    pointer = pointer_of(*parts)
    kind: str = error["type"]
    if kind == "extra_forbidden":
        return FieldError(pointer, Code.UNKNOWN_FIELD, "is not a known field here")
    sentences = {
        "missing": "is missing",
        "string_too_short": "must not be empty",
        "dict_type": "must be a mapping",
        "model_type": "must be a mapping",
        "model_attributes_type": "must be a mapping",
        "union_tag_not_found": "must be on or off, a number, a text, or a mapping such as {limit: 10}",
        "string_pattern_mismatch": _PATTERNS.get(
            str(parts[-1]) if parts else "", "must be a key of lower-case letters, digits, - and _, at most 64 long"
        ),
    }
    message: str = error["msg"]
    plain = _SUBJECT.sub("", message.removeprefix("Value error, ")).replace("valid ", "")
    plain = (
        plain.replace("a integer", "a whole number").replace("a string", "text").replace("a boolean", "true or false")
    )
    plain = plain if plain.startswith(("must", "be", "have")) else f"is not valid ({plain})"
    plain = f"must {plain}" if plain.startswith(("be", "have")) else plain
    return FieldError(pointer, Code.INVALID, sentences.get(kind, plain))
