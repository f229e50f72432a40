"""Pages of lists that are ordered by id: their cursors, and the text that is searched for."""

import base64
import binascii
from typing import Final

from plangate.errors import invalid

PAGE: Final = 50
LARGEST_PAGE: Final = 100
_SEARCH_LENGTH: Final = 200


def checked_search(search: str | None) -> str | None:
    """The text as it is. Raises Refusal (422) for one that is too long or holds what cannot be printed."""
    if search is not None and (len(search) > _SEARCH_LENGTH or not search.isprintable()):
        raise invalid("/search", f"The search is a text of at most {_SEARCH_LENGTH} printable characters.")
    return search


def cursor_of(last_id: str) -> str:
    """The cursor of the page that begins after this id."""
    return base64.urlsafe_b64encode(last_id.encode()).decode().rstrip("=")


def after_id(cursor: str | None, *, prefix: str) -> str | None:
    """The id a cursor stands for. Raises Refusal (422) for a text that is no cursor of ids with this prefix."""
    if cursor is None:
        return None
    try:
        last_id = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode("ascii")
    except (binascii.Error, ValueError):
        last_id = ""
    if not last_id.startswith(prefix) or len(last_id) > 64 or not last_id.isprintable():
        raise invalid("/cursor", "That is not a cursor of this list; take it from `next_cursor`.")
    return last_id
