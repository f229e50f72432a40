"""The bounds of keys, names and traits: what may name a company or a user, and what may be said about them."""

import math
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from plangate.engine.values import INT64_MAX, TraitValue
from plangate.errors import invalid

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}")
_KEY_NAME_LENGTH: Final = 64
_VALUE_LENGTH: Final = 255
_KEYS: Final = 20
_NAME_LENGTH: Final = 200
_TRAITS: Final = 100
_TEXT_LENGTH: Final = 4_000


def checked_keys(keys: Mapping[str, str], *, pointer: str) -> Mapping[str, str]:
    """The keys as they are, at least one. Raises Refusal (422) that points at the first one out of bounds."""
    if not 1 <= len(keys) <= _KEYS:
        raise invalid(pointer, f'Between 1 and {_KEYS} keys are needed, such as {{"id": "acme"}}.')
    for name, value in keys.items():
        if len(name) > _KEY_NAME_LENGTH or not _is_name(name):
            raise invalid(pointer, "A key's name has 1 to 64 letters, digits, dots, colons, dashes or underscores.")
        if not 1 <= len(value) <= _VALUE_LENGTH or not value.isprintable():
            raise invalid(f"{pointer}/{name}", f"A key's value is a text of 1 to {_VALUE_LENGTH} printable characters.")
    return keys


@lru_cache(maxsize=1_000)
def _is_name(name: str) -> bool:
    # Every event says its keys' names again, and there are few of them.
    return _NAME.fullmatch(name) is not None


def checked_traits(traits: Mapping[str, object], *, pointer: str) -> dict[str, TraitValue]:
    """Trait values: texts (dates among them), numbers, booleans, or None to remove one. Raises Refusal (422)."""
    if len(traits) > _TRAITS:
        raise invalid(pointer, f"At most {_TRAITS} traits may be set at once.")
    checked: dict[str, TraitValue] = {}
    for name, value in traits.items():
        if _NAME.fullmatch(name) is None:
            raise invalid(pointer, "A trait's name has 1 to 64 letters, digits, dots, colons, dashes or underscores.")
        match value:
            case None | bool():
                checked[name] = value
            case int() if -INT64_MAX <= value <= INT64_MAX:
                checked[name] = value
            case float() if math.isfinite(value):
                checked[name] = value
            case str() if len(value) <= _TEXT_LENGTH and is_storable(value):
                checked[name] = value
            case _:
                raise invalid(
                    f"{pointer}/{name}",
                    f"A trait is a text of up to {_TEXT_LENGTH} characters, a 64-bit number, true, false, or null.",
                )
    return checked


def checked_name(name: str | None) -> str | None:
    """A name for people without the spaces around it, or None. Raises Refusal (422) for one out of bounds."""
    if name is not None and (not 1 <= len(name.strip()) <= _NAME_LENGTH or not is_storable(name)):
        raise invalid("/name", f"A name has 1 to {_NAME_LENGTH} characters.")
    return None if name is None else name.strip()


def is_storable(text: str) -> bool:
    """Whether both databases can keep the text: no NUL, and no halves of surrogate pairs."""
    return "\x00" not in text and not any("\ud800" <= character <= "\udfff" for character in text)
