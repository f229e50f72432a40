"""Says whether a config value is what its feature asks for: a closed part of JSON Schema, with nothing to depend on.

Understood are `type`, `enum`, `const`, `minimum`, `maximum`, `minLength`, `maxLength`, `items`, `minItems`,
`maxItems`, `properties`, `required`, `additionalProperties` (a boolean) and the notes `title`, `description` and
`default`. A schema with anything else is refused, so that no rule is passed over in silence.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Final

import msgspec

from plangate.engine.catalog import Feature
from plangate.engine.values import Json

MAX_DEPTH: Final = 16


class Fault(msgspec.Struct, frozen=True):
    """What is wrong, and where: a JSON pointer and half a sentence that follows it."""

    pointer: str
    detail: str


def value_faults(feature: Feature, value: Json) -> list[Fault]:
    """Why a value cannot be this config feature's; empty when it can.

    The feature's `config_type` says text, number or any JSON; its `config_schema`, if any, says the rest and has no
    `schema_faults`.
    """
    match feature.config_type:
        case "string" if not isinstance(value, str):
            return [Fault("", "must be text")]
        case "number" if not _is_number(value):
            return [Fault("", "must be a number")]
        case _:
            pass
    if feature.config_schema is None:
        return []
    return list(_value(value, feature.config_schema, ""))


def schema_faults(schema: Json) -> list[Fault]:
    """Why a schema cannot be used; empty when every keyword in it is understood and well formed."""
    return list(_schema(schema, "", 0))


def _is_number(value: Json) -> bool:
    # JSON knows no infinity and nothing that is not a number, whatever a decoder may let through.
    return isinstance(value, int | float) and not isinstance(value, bool) and value - value == 0


_TYPES: Final[Mapping[str, Callable[[Json], bool]]] = {
    "null": lambda value: value is None,
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: _is_number(value) and value == int(value),
    "number": _is_number,
    "string": lambda value: isinstance(value, str),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
}
_NOTES: Final = frozenset({"title", "description", "default"})
_COUNTS: Final = frozenset({"minLength", "maxLength", "minItems", "maxItems"})
_SHAPES: Final[Mapping[str, tuple[Callable[[Json], bool], str]]] = {
    "type": (lambda value: bool(_types(value)) and all(one in _TYPES for one in _types(value)), "must name JSON types"),
    "enum": (lambda value: isinstance(value, list) and bool(value), "must be a list of values"),
    "const": (lambda _: True, ""),
    "minimum": (_is_number, "must be a number"),
    "maximum": (_is_number, "must be a number"),
    "required": (
        lambda value: isinstance(value, list) and all(isinstance(one, str) for one in value),
        "must be a list of names",
    ),
    "additionalProperties": (lambda value: isinstance(value, bool), "must be true or false"),
    "properties": (lambda value: isinstance(value, dict), "must map names to schemas"),
    "items": (lambda value: isinstance(value, dict), "must be a schema"),
}


def _schema(schema: Json, pointer: str, depth: int) -> Iterator[Fault]:
    if not isinstance(schema, dict):
        yield Fault(pointer, "must be a schema, an object of keywords")
        return
    if depth >= MAX_DEPTH:
        yield Fault(pointer, f"is nested deeper than {MAX_DEPTH} schemas")
        return
    for keyword, wanted in schema.items():
        here = _under(pointer, keyword)
        if keyword in _NOTES:
            continue
        if keyword in _COUNTS:
            if not isinstance(wanted, int) or isinstance(wanted, bool) or wanted < 0:
                yield Fault(here, "must be a whole number, not negative")
            continue
        shape = _SHAPES.get(keyword)
        if shape is None:
            yield Fault(here, "is not a keyword that is understood")
        elif not shape[0](wanted):
            yield Fault(here, shape[1])
        elif keyword == "items":
            yield from _schema(wanted, here, depth + 1)
        elif keyword == "properties":
            for name, inner in wanted.items():
                yield from _schema(inner, _under(here, name), depth + 1)


def _value(value: Json, schema: Mapping[str, Json], pointer: str) -> Iterator[Fault]:
    types = _types(schema.get("type"))
    if types and not any(_TYPES[one](value) for one in types):
        yield Fault(pointer, f"must be {' or '.join(types)}")
        return
    if "const" in schema and not _same(value, schema["const"]):
        yield Fault(pointer, "is not the value that is allowed")
    if "enum" in schema and not any(_same(value, one) for one in schema["enum"]):
        yield Fault(pointer, "is not one of the values that are allowed")
    if _is_number(value):
        yield from _bounded(value, schema, pointer, "minimum", "maximum", "")
    elif isinstance(value, str):
        yield from _bounded(len(value), schema, pointer, "minLength", "maxLength", " characters")
    elif isinstance(value, list):
        yield from _bounded(len(value), schema, pointer, "minItems", "maxItems", " items")
        for index, one in enumerate(value):
            yield from _value(one, schema.get("items", {}), _under(pointer, str(index)))
    elif isinstance(value, dict):
        yield from _object(value, schema, pointer)


def _object(value: Mapping[str, Json], schema: Mapping[str, Json], pointer: str) -> Iterator[Fault]:
    known = schema.get("properties", {})
    for name in schema.get("required", ()):
        if name not in value:
            yield Fault(_under(pointer, name), "is missing")
    for name, one in value.items():
        if name in known:
            yield from _value(one, known[name], _under(pointer, name))
        elif schema.get("additionalProperties") is False:
            yield Fault(_under(pointer, name), "is not a field that is known")


def _bounded(
    number: int | float, schema: Mapping[str, Json], pointer: str, least: str, most: str, unit: str
) -> Iterator[Fault]:
    if least in schema and number < schema[least]:
        yield Fault(pointer, f"must be at least {schema[least]}{unit}")
    if most in schema and number > schema[most]:
        yield Fault(pointer, f"must be at most {schema[most]}{unit}")


def _types(wanted: Json) -> list[str]:
    if isinstance(wanted, str):
        return [wanted]
    return wanted if isinstance(wanted, list) and all(isinstance(one, str) for one in wanted) else []


def _same(one: Json, other: Json) -> bool:
    """Equal as JSON values: true is not 1, inside lists and objects neither."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    return bool(one == other)


def _under(pointer: str, name: str) -> str:
    return f"{pointer}/{name.replace('~', '~0').replace('/', '~1')}"
