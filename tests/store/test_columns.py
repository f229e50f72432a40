"""Values come back from both databases exactly as they went in."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plangate.environment import Environment
from plangate.store.columns import from_microseconds, to_microseconds
from plangate.store.companies import set_traits, traits_of
from plangate.store.inbox import cursor, set_cursor


@given(st.datetimes(min_value=datetime(1900, 1, 1), max_value=datetime(2200, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001
def test_instants_round_trip_to_the_microsecond(instant: datetime) -> None:
    assert from_microseconds(to_microseconds(instant)) == instant


def test_a_naive_instant_is_a_bug() -> None:
    with pytest.raises(TypeError):
        to_microseconds(datetime(2026, 1, 1))  # noqa: DTZ001


async def test_json_keeps_64_bit_integers(environment: Environment) -> None:
    value = {"most": 2**63 - 1, "least": -(2**63), "text": "Zoë ✓", "nested": [None, True, 1.5]}
    async with environment.writing() as session:
        await set_cursor(session, "place", value)
    async with environment.reading() as session:
        assert await cursor(session, "place") == value


async def test_a_trait_changes_type_only_when_told(environment: Environment) -> None:
    async with environment.writing() as session:
        assert await set_traits(session, "comp_1", {"seats": 1, "name": "a"}) == {"seats": 1, "name": "a"}
        assert await set_traits(session, "comp_1", {"seats": 1}) == {}
        assert await set_traits(session, "comp_1", {"seats": True}) == {"seats": True}
        assert await set_traits(session, "comp_1", {"name": None}) == {"name": None}
        known: dict[str, Any] = await traits_of(session, "comp_1")
    assert known == {"seats": True}


async def test_traits_are_answered_as_known_at_an_instant(environment: Environment) -> None:
    async with environment.writing() as session:
        await set_traits(session, "comp_1", {"seats": 1})
    first_at = session.now
    environment.clock.offset += timedelta(days=1)
    async with environment.writing() as session:
        await set_traits(session, "comp_1", {"seats": 2})
    async with environment.reading() as session:
        assert await traits_of(session, "comp_1", at=first_at) == {"seats": 1}
        assert await traits_of(session, "comp_1", at=first_at + timedelta(days=2)) == {"seats": 2}
        assert await traits_of(session, "comp_1", at=first_at - timedelta(days=1)) == {}
