"""Turns every refusal into RFC 9457 `application/problem+json`, and every parser's complaint into a refusal.

Clients read `code` (a closed list) and `errors[].pointer`; people read `detail`.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from pydantic import ValidationError

from plangate.errors import CATALOGUE, Code, FieldError, Refusal

CONTENT_TYPE: Final = b"application/problem+json"
TYPE_BASE: Final = "https://github.com/plangate/plangate/blob/main/docs/reference/errors.md#"
_ERRORS_SHOWN: Final = 20
_DETAIL_CHARACTERS: Final = 300
# "Expected `int`, got `str` - at `$.events[3].quantity`", or "… - at `key` in `$.company`" for an object's key.
_PLACED: Final = re.compile(r"^(?P<said>.*?)(?: - at (?:`key` in )?`\$(?P<path>.*)`)?$", re.DOTALL)
_NAMED: Final = re.compile(r"^Object (?P<fault>missing required|contains unknown) field `(?P<name>.*)`$", re.DOTALL)
_PATH_PART: Final = re.compile(r"\.([^.\[]+)|\[(\d+)\]|\[\.\.\.\]")


class ProblemError(msgspec.Struct, frozen=True, kw_only=True):
    """One field at fault; `pointer` is a JSON pointer (RFC 6901) into the request's body, or `?name` for a query."""

    pointer: str
    code: str
    detail: str


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """A documented "no". `code` is one of the closed list; some codes carry further members beside these."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    errors: tuple[ProblemError, ...] = ()
    request_id: str


def problem_of(refusal: Refusal, request_id: str) -> dict[str, Any]:
    """The problem's members, in the contract's order, with the refusal's extra ones at the end."""
    kind = CATALOGUE[refusal.code]
    return {
        "type": TYPE_BASE + refusal.code.value,
        "title": kind.title,
        "status": kind.status,
        "code": refusal.code.value,
        "detail": refusal.detail,
        "errors": [
            {"pointer": error.pointer, "code": error.code.value, "detail": error.detail} for error in refusal.errors
        ],
        "request_id": request_id,
        **refusal.extra,
    }


def refusal_of_decoding(error: Exception) -> Refusal:
    """What a body that msgspec could not read is refused with: 400 when it is no JSON, 422 when a field is wrong."""
    if not isinstance(error, msgspec.ValidationError):
        return Refusal(Code.MALFORMED, "The body is not valid JSON.")
    return of_fields([_fault(str(error))])


def refusal_of_validation(error: ValidationError, body: object) -> Refusal:
    """What a body (or query) that pydantic refused is answered with: every field at fault, up to twenty.

    `body` is the decoded body: pydantic's location also names union members, which no client can point at.
    """
    faults: dict[str, FieldError] = {}
    for fault in error.errors(include_url=False, include_input=False, include_context=False):
        pointer = _pointer(fault["loc"], body, is_absent=fault["type"] in {"missing", "extra_forbidden"})
        if fault["type"] == "extra_forbidden":
            found = FieldError(pointer, Code.UNKNOWN_FIELD, "This field is not known here.")
        elif fault["type"] == "missing":
            found = FieldError(pointer, Code.INVALID, "This field is required.")
        else:
            found = FieldError(pointer, Code.INVALID, _sentence(fault["msg"].removeprefix("Value error, ")))
        faults.setdefault(pointer, found)
    return of_fields(list(faults.values()))


def of_fields(faults: Sequence[FieldError]) -> Refusal:
    """One 422 for several fields at fault; its code is theirs when they agree, `invalid` otherwise."""
    codes = {fault.code for fault in faults}
    code = codes.pop() if len(codes) == 1 else Code.INVALID
    first = faults[0]
    detail = f"{first.pointer or 'The body'}: {first.detail}"
    if len(faults) > 1:
        detail += f" And {len(faults) - 1} more." if len(faults) > 2 else " And one more."
    return Refusal(code, detail, errors=faults[:_ERRORS_SHOWN])


def placed_under(prefix: str, refusal: Refusal) -> list[FieldError]:
    """The refusal's fields with `prefix` before their pointers, for one item of a list."""
    if not refusal.errors:
        return [FieldError(prefix, refusal.code, refusal.detail)]
    return [FieldError(prefix + error.pointer, error.code, error.detail) for error in refusal.errors]


def escaped(part: str) -> str:
    """One part of a JSON pointer, with `~` and `/` escaped as RFC 6901 says."""
    return part.replace("~", "~0").replace("/", "~1")


def _fault(text: str) -> FieldError:
    placed = _PLACED.match(text)
    said, path = (placed["said"], placed["path"] or "") if placed is not None else (text, "")
    pointer = "".join("/" + escaped(name or index) for name, index in _PATH_PART.findall(path) if name or index)
    named = _NAMED.match(said)
    if named is None:
        return FieldError(pointer, Code.INVALID, _sentence(said))
    pointer += "/" + escaped(named["name"][:_DETAIL_CHARACTERS])
    if named["fault"] == "contains unknown":
        return FieldError(pointer, Code.UNKNOWN_FIELD, "This field is not known here.")
    return FieldError(pointer, Code.INVALID, "This field is required.")


def _pointer(location: Sequence[int | str], body: object, *, is_absent: bool) -> str:
    parts: list[str] = []
    here = body
    for depth, part in enumerate(location):
        is_last = depth == len(location) - 1
        if isinstance(here, Mapping) and (part in here or (is_last and is_absent)):
            here = here.get(part)
        elif isinstance(here, list) and isinstance(part, int) and 0 <= part < len(here):
            here = here[part]
        else:
            continue
        parts.append("/" + escaped(str(part)[:_DETAIL_CHARACTERS]))
    return "".join(parts)


def _sentence(text: str) -> str:
    text = text[:_DETAIL_CHARACTERS].rstrip(".")
    return text[:1].upper() + text[1:] + "."
