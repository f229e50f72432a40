"""Journeys that lose a race are run again: a key taken at the same moment, two that waited for each other."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from sqlalchemy.exc import DBAPIError, IntegrityError

from plangate.errors import Code, Refusal

_TRIES = 8
_LOST = frozenset({"40001", "40P01"})  # PostgreSQL: serialisation failure, deadlock

Arguments = ParamSpec("Arguments")
Answer = TypeVar("Answer")


def repeated(journey: Callable[Arguments, Awaitable[Answer]]) -> Callable[Arguments, Awaitable[Answer]]:
    """Run a journey of one transaction, and nothing else that lasts, again while its transaction loses races.

    Raises Refusal (503) when it keeps losing, and whatever else the journey raises.
    """

    @wraps(journey)
    async def until_won(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Answer:
        for number in range(_TRIES):
            try:
                return await journey(*args, **kwargs)
            except DBAPIError as error:
                if not is_lost_race(error):
                    raise
            await asyncio.sleep(0.01 * number)
        raise Refusal(Code.UNAVAILABLE, "Others are changing the same thing. Try again.", headers={"Retry-After": "1"})

    return until_won


def is_lost_race(error: DBAPIError) -> bool:
    """Whether the same transaction may succeed when it is run again."""
    return isinstance(error, IntegrityError) or getattr(error.orig, "sqlstate", None) in _LOST
