"""Stripe's bracket nesting (`items[0][price]=…`) parsed into plain trees of lists, dicts and strings."""

from __future__ import annotations

from urllib.parse import parse_qsl

from .errors import ApiError, invalid

Tree = dict[str, "Tree | list[Tree | str] | str"]
Node = Tree | list[Tree | str] | str

MAX_FIELDS = 2000
MAX_DEPTH = 12


def parse_form(text: str) -> Tree:
    """Read an `application/x-www-form-urlencoded` text.

    Keys such as `a[b][0][c]` and `a[]` nest; dicts whose keys are 0, 1, 2 … become lists.
    Raises ApiError 400 for malformed keys, too many fields or too deep nesting.
    """
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_FIELDS, errors="strict")
    except (ValueError, UnicodeDecodeError) as error:
        raise ApiError(400, "Invalid request body: it is not valid form encoding.") from error
    root: dict[str, object] = {}
    for key, value in pairs:
        _place(root, _split(key), value, key)
    return {name: _settle(child) for name, child in root.items()}


def _split(key: str) -> list[str]:
    head, bracket, rest = key.partition("[")
    if not bracket:
        return [key]
    if not head or not rest.endswith("]"):
        raise invalid(f"Received unknown parameter: {key}", param=key, code="parameter_unknown")
    parts = [head, *rest[:-1].split("][")]
    if len(parts) > MAX_DEPTH:
        raise invalid("The request is nested too deeply.", param=head)
    return parts


def _place(root: dict[str, object], parts: list[str], value: str, key: str) -> None:
    here = root
    for part in parts[:-1]:
        child = here.setdefault(part or str(len(here)), {})
        if not isinstance(child, dict):
            raise invalid(f"Invalid object: {key}", param=parts[0])
        here = child
    last = parts[-1] or str(len(here))
    if isinstance(here.get(last), dict):
        raise invalid(f"Invalid object: {key}", param=parts[0])
    here[last] = value


def _settle(node: object) -> Node:
    if isinstance(node, str):
        return node
    assert isinstance(node, dict)  # noqa: S101 - the parser builds nothing else.
    children = {str(name): _settle(child) for name, child in node.items()}
    if children and all(name.isdecimal() for name in children):
        settled: list[Tree | str] = []
        for name in sorted(children, key=int):
            child = children[name]
            if isinstance(child, list):
                raise invalid("Invalid array: an array inside an array", param=name)
            settled.append(child)
        return settled
    return children
