"""The official package's own types as rules: which parameters exist, and which fields an object must carry."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import types
import typing
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cache
from typing import Any, Literal, NotRequired, Required, Union, get_args, get_origin

import stripe
import stripe.params
import typing_extensions
from stripe._request_options import RequestOptions
from stripe._stripe_object import UntypedStripeObject

from .errors import ApiError, invalid, required

if typing.TYPE_CHECKING:
    from .forms import Node, Tree

# Options of the client itself; they travel as headers and are no parameters.
_CLIENT_OPTIONS = frozenset(typing.get_type_hints(RequestOptions, {"StripeContext": object, "Mapping": dict}))
_INTEGER = re.compile(r"-?\d{1,19}\Z")
DECIMAL = re.compile(r"-?\d{1,15}(\.\d{1,12})?\Z")
MAX_TEXT = 5000
MAX_METADATA_KEYS = 50


@dataclass(frozen=True)
class Rule:
    """One alternative shape of a parameter."""

    kind: Literal["choice", "text", "integer", "number", "boolean", "decimal", "list", "map", "object"]
    choices: tuple[str, ...] = ()
    inner: tuple[Rule, ...] = ()
    fields: dict[str, Field] = field(default_factory=dict)


@dataclass(frozen=True)
class Field:
    """A named parameter: its alternatives, and whether the route refuses to work without it."""

    rules: tuple[Rule, ...]
    is_required: bool


def parse_params(params_type: str, tree: Tree) -> dict[str, Any]:
    """Check a form tree against one of Stripe's `*Params` types and give its values their types.

    ``params_type`` is a dotted name under ``stripe.params`` (`checkout.SessionCreateParams`).
    Raises ApiError 400 for unknown, missing or ill-typed parameters, in Stripe's words.
    """
    return _object(params_fields(params_type), tree, "")


@cache
def params_fields(params_type: str) -> dict[str, Field]:
    """The parameters a `*Params` type allows, by name."""
    return _fields(_params_class(params_type))


@cache
def required_fields(resource_type: str) -> frozenset[str]:
    """Fields which the official resource class says are always there (`checkout.Session`)."""
    return frozenset(name for name, hint in _resource_hints(resource_type).items() if not _is_optional(hint))


@cache
def known_fields(resource_type: str) -> frozenset[str]:
    """Every field the official resource class names."""
    return frozenset(_resource_hints(resource_type))


def inner_classes(resource_type: str, name: str) -> type | None:
    """The class of a nested object of a resource, when it has one of its own."""
    found = getattr(_resource_class(resource_type), "_inner_class_types", {}).get(name)
    return found if isinstance(found, type) else None


def class_required_fields(cls: type) -> frozenset[str]:
    """Always-present fields of a nested resource class."""
    hints = inspect.get_annotations(cls)
    return frozenset(n for n, h in hints.items() if not n.startswith("_") and not _is_optional(h))


def _resource_class(resource_type: str) -> type:
    here: Any = stripe
    for part in resource_type.split("."):
        here = getattr(here, part)
    return typing.cast(type, here)


def _resource_hints(resource_type: str) -> dict[str, object]:
    hints = inspect.get_annotations(_resource_class(resource_type))
    return {n: h for n, h in hints.items() if not n.startswith("_") and "ClassVar" not in str(h)}


def _is_optional(hint: object) -> bool:
    return type(None) in get_args(hint) or str(hint).startswith(("Optional", "typing.Optional"))


def _params_class(params_type: str) -> type:
    package, _, name = params_type.rpartition(".")
    module = importlib.import_module(f"stripe.params.{package}" if package else "stripe.params")
    return typing.cast(type, getattr(module, name))


@cache
def _namespace(module_name: str) -> dict[str, object]:
    # The generated types name each other as text; what they need is spread over their own module and `typing`.
    module = importlib.import_module(module_name)
    return {
        **vars(typing_extensions),
        **vars(typing),
        "Decimal": Decimal,
        "UntypedStripeObject": UntypedStripeObject,
        "StripeContext": object,
        "Mapping": dict,
        **vars(module),
    }


@cache
def _fields(cls: type) -> dict[str, Field]:
    hints = typing.get_type_hints(cls, _namespace(cls.__module__), include_extras=True)
    found: dict[str, Field] = {}
    for name, hint in hints.items():
        if name in _CLIENT_OPTIONS:
            continue
        is_required = True
        origin = get_origin(hint)
        if origin in (NotRequired, typing_extensions.NotRequired):
            is_required, hint = False, get_args(hint)[0]  # noqa: PLW2901 - the wrapper is peeled off.
        elif origin in (Required, typing_extensions.Required):
            hint = get_args(hint)[0]  # noqa: PLW2901 - the same.
        found[name] = Field(_rules(hint, cls), is_required)
    return found


def _rules(hint: object, owner: type) -> tuple[Rule, ...]:
    if isinstance(hint, typing.ForwardRef):
        hint = hint.__forward_arg__
    if isinstance(hint, str):
        hint = eval(hint, _namespace(owner.__module__))  # noqa: S307 - text of the official package only.
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        rules = [rule for part in get_args(hint) for rule in _rules(part, owner)]
        choices = tuple(c for rule in rules if rule.kind == "choice" for c in rule.choices)
        # The package writes `Literal[…] | str` for enumerations: closed here, because Stripe refuses other values.
        others = [r for r in rules if r.kind != "choice" and not (r.kind == "text" and set(choices) - {""})]
        return (*((Rule("choice", choices=choices),) if choices else ()), *others)
    if origin in (Literal, typing_extensions.Literal):
        return (Rule("choice", choices=tuple(str(value) for value in get_args(hint))),)
    if origin is list:
        return (Rule("list", inner=_rules(get_args(hint)[0], owner)),)
    if origin is dict:
        return (Rule("map", inner=_rules(get_args(hint)[1], owner)),)
    if origin is UntypedStripeObject or hint is type(None):
        return ()
    if (isinstance(hint, type) and issubclass(hint, dict)) or typing_extensions.is_typeddict(hint):
        return (Rule("object", fields=_fields(typing.cast(type, hint))),)
    return (Rule(_SCALARS[hint]),)


_SCALARS: dict[object, Literal["text", "integer", "number", "boolean", "decimal"]] = {
    str: "text",
    int: "integer",
    float: "number",
    bool: "boolean",
    Decimal: "decimal",
}


def _object(fields: dict[str, Field], tree: Tree, path: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, node in tree.items():
        where = f"{path}[{name}]" if path else name
        known = fields.get(name)
        if known is None:
            raise ApiError(
                400,
                f"Received unknown parameter: {where}",
                code="parameter_unknown",
                param=where,
                is_replayable=False,
            )
        values[name] = _value(known.rules, node, where)
    for name, known in fields.items():
        if known.is_required and name not in values:
            raise required(f"{path}[{name}]" if path else name)
    return values


def _value(rules: tuple[Rule, ...], node: Node, where: str) -> Any:  # noqa: ANN401 - as varied as Stripe's API.
    by_kind: dict[str, Rule] = {rule.kind: rule for rule in rules}
    if isinstance(node, dict):
        if "object" in by_kind:
            return _object(by_kind["object"].fields, node, where)
        if "map" in by_kind:
            return _map(by_kind["map"], node, where)
        raise _ill_typed("Invalid string: an object was given", where)
    if isinstance(node, list):
        if "list" in by_kind:
            return [_value(by_kind["list"].inner, item, f"{where}[{n}]") for n, item in enumerate(node)]
        if "map" in by_kind:
            return _map(by_kind["map"], {str(n): item for n, item in enumerate(node)}, where)
        raise _ill_typed("Invalid array", where)
    return _scalar(by_kind, node, where)


def _map(rule: Rule, node: Tree, where: str) -> dict[str, Any]:
    if len(node) > MAX_METADATA_KEYS:
        raise _ill_typed(f"Metadata can have at most {MAX_METADATA_KEYS} keys", where)
    # Text values of a map may be empty: that is how a key is unset.
    return {
        name: child if child == "" else _value(rule.inner, child, f"{where}[{name}]") for name, child in node.items()
    }


def _scalar(by_kind: dict[str, Rule], text: str, where: str) -> Any:  # noqa: ANN401 - see above.
    choices = by_kind["choice"].choices if "choice" in by_kind else ()
    if text in choices:
        return text
    if text == "":
        if "list" in by_kind and len(by_kind) == 1:
            return []
        raise ApiError(
            400,
            f"You passed an empty string for '{where}'. We assume empty values are an attempt to unset a field; "
            f"however '{where}' cannot be unset. You should remove '{where}' from your request or supply a "
            "non-empty value.",
            code="parameter_invalid_empty",
            param=where,
            is_replayable=False,
        )
    if len(text) > MAX_TEXT:
        raise _ill_typed(f"Invalid string: must be at most {MAX_TEXT} characters", where)
    if "integer" in by_kind and _INTEGER.match(text):
        return int(text)
    if "boolean" in by_kind and text in ("true", "false"):
        return text == "true"
    if ("number" in by_kind or "decimal" in by_kind) and DECIMAL.match(text):
        return text if "decimal" in by_kind else float(text)
    if "text" in by_kind:
        return text
    raise _refusal(by_kind, choices, text, where)


def _refusal(by_kind: dict[str, Rule], choices: tuple[str, ...], text: str, where: str) -> ApiError:
    shown = text[:60]
    named = tuple(c for c in choices if c)
    if named and not set(by_kind) & {"integer", "number"}:
        wanted = named[0] if len(named) == 1 else f"{', '.join(named[:-1])}, or {named[-1]}"
        leaf = where.rpartition("[")[2].rstrip("]")
        return _ill_typed(f"Invalid {leaf}: must be one of {wanted}", where)
    if "integer" in by_kind:
        return _ill_typed(f"Invalid integer: {shown}", where, code="parameter_invalid_integer")
    if "boolean" in by_kind:
        return _ill_typed(f"Invalid boolean: {shown}", where)
    if set(by_kind) & {"number", "decimal"}:
        return _ill_typed(f"Invalid decimal: {shown}", where)
    if "list" in by_kind:
        return _ill_typed("Invalid array", where)
    return _ill_typed("Invalid object", where)


def _ill_typed(message: str, where: str, *, code: str | None = None) -> ApiError:
    error = invalid(message, param=where, code=code)
    error.is_replayable = False
    return error


def every_params_type() -> list[str]:
    """All `*Params` names of the installed package, for the honesty tests."""
    names: list[str] = []
    for module in pkgutil.walk_packages(stripe.params.__path__, "stripe.params."):
        loaded = importlib.import_module(module.name)
        names += [n for n in vars(loaded) if n.endswith("Params")]
    return sorted(set(names))
