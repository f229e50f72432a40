"""What an override may say: a value that fits its feature, a period where one is counted, dates that make sense."""

from collections.abc import Mapping
from datetime import datetime
from typing import Final

import msgspec

from plangate.engine.catalog import Feature
from plangate.engine.config_values import value_faults
from plangate.engine.values import INT64_MAX, UNLIMITED, FeatureType, Json, OverrideMode, PeriodKind
from plangate.errors import invalid
from plangate.keys import is_storable

NOTE_LENGTH: Final = 2_000
_CONFIG_BYTES: Final = 16_384


def checked_feature(features: Mapping[str, Feature], key: str) -> Feature:
    feature = features.get(key)
    if feature is None:
        raise invalid("/feature", "There is no such feature in the catalogue.")
    if feature.is_archived:
        raise invalid("/feature", f"{feature.name} is archived; an override of it would have no effect.")
    return feature


def checked_mode(mode: str) -> OverrideMode:
    try:
        return OverrideMode(mode)
    except ValueError:
        raise invalid("/mode", "The mode is one of set, add and deny.") from None


def checked_period(feature: Feature, mode: OverrideMode, period: str | None) -> PeriodKind | None:
    if period is None:
        return None
    if feature.type is not FeatureType.EVENT or mode is OverrideMode.DENY:
        raise invalid("/period", "Only a limit on a metered feature has a period.")
    try:
        return PeriodKind(period)
    except ValueError:
        raise invalid("/period", f"The period is one of {', '.join(kind.value for kind in PeriodKind)}.") from None


def checked_value(feature: Feature, mode: OverrideMode, value: Json) -> Json:
    if mode is OverrideMode.DENY:
        if value is not None:
            raise invalid("/value", "A denial has no value.")
        return None
    if feature.type in {FeatureType.BOOLEAN, FeatureType.CONFIG} and mode is OverrideMode.ADD:
        raise invalid("/mode", f"{feature.name} has no number to add to; use the mode set.")
    match feature.type:
        case FeatureType.BOOLEAN:
            if not isinstance(value, bool):
                raise invalid("/value", f"{feature.name} is on or off: the value is true or false.")
            return value
        case FeatureType.CONFIG:
            return _config(feature, value)
        case FeatureType.EVENT | FeatureType.TRAIT | FeatureType.SEAT:
            return _limit(feature, mode, value)


def _limit(feature: Feature, mode: OverrideMode, value: Json) -> int | str:
    if mode is OverrideMode.SET and (value is UNLIMITED or value == UNLIMITED.value):
        return UNLIMITED.value
    least = 1 if mode is OverrideMode.ADD else 0
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= INT64_MAX:
        words = "a whole number from 1" if mode is OverrideMode.ADD else 'a whole number from 0, or "unlimited"'
        raise invalid("/value", f"{feature.name} is a limit: the value is {words}.")
    return value


def _config(feature: Feature, value: Json) -> Json:
    try:
        encoded = msgspec.json.encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError):
        raise invalid("/value", "The value is not JSON.") from None
    if value is None or len(encoded) > _CONFIG_BYTES:
        raise invalid("/value", f"The value of {feature.name} is JSON of at most {_CONFIG_BYTES} bytes, and not null.")
    # A number beyond what a quantity can hold is nothing a product could act on.
    if feature.config_type == "number" and isinstance(value, int | float) and not -INT64_MAX <= value <= INT64_MAX:
        raise invalid("/value", f"The value of {feature.name} is a number of at most 64 bits.")
    for fault in value_faults(feature, value):
        raise invalid(f"/value{fault.pointer}", f"The value of {feature.name} {fault.detail}.")
    return value


def checked_note(note: object) -> str:
    if not isinstance(note, str) or not 1 <= len(note.strip()) <= NOTE_LENGTH or not is_storable(note):
        raise invalid("/note", f"A note of 1 to {NOTE_LENGTH} characters says why.")
    return note.strip()


def checked_start(starts_at: datetime | None, now: datetime) -> datetime:
    if starts_at is not None and starts_at.tzinfo is None:
        raise invalid("/starts_at", "The time needs a time zone, such as 2026-11-20T10:00:00Z.")
    # What was answered before now cannot change any more.
    return now if starts_at is None else max(starts_at, now)


def check_times(starts_at: datetime, expires_at: datetime | None, now: datetime) -> None:
    if expires_at is None:
        return
    if expires_at.tzinfo is None:
        raise invalid("/expires_at", "The time needs a time zone, such as 2026-11-20T10:00:00Z.")
    if expires_at <= now:
        raise invalid("/expires_at", "The expiry must lie in the future.")
    if expires_at <= starts_at:
        raise invalid("/expires_at", "The expiry must come after the start.")
