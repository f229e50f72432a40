"""What the views share: which price applies, and one granted feature put into words."""

import math
from collections.abc import Sequence

from plangate.engine.catalog import Catalog, Entitlement, Feature, PlanVersion, Price
from plangate.engine.values import UNLIMITED, FeatureType, Json, PeriodKind, PriceBehaviour
from plangate.shapes import Company
from plangate.web.fragments import FeatureLine
from plangate.web.views.rates import price_at, priced_text
from plangate.web.views.rhythms import Rhythm, rhythm_of_price
from plangate.web.wording import Reader


def price_of(version: PlanVersion, *, currency: str, rhythm: Rhythm) -> Price | None:
    """The version's price for exactly this currency and rhythm, or None."""
    for price in version.prices:
        if price.currency == currency and rhythm_of_price(price) == rhythm:
            return price
    return None


def held_price(catalog: Catalog, key: str, number: int, *, currency: str, rhythm: Rhythm) -> Price | None:
    """What the held version of a plan or add-on costs, also when newer versions cost something else."""
    newest = catalog.plans.get(key) or catalog.add_ons.get(key)
    if newest is not None and newest.version == number:
        return price_of(newest, currency=currency, rhythm=rhythm)
    for owner in catalog.price_owners.values():
        is_wanted = (owner.key, owner.version, owner.feature, owner.company_id) == (key, number, None, None)
        if is_wanted and owner.price.currency == currency and rhythm_of_price(owner.price) == rhythm:
            return owner.price
    return None


def may_change(company: Company | None) -> bool:
    """Whether anything can be bought or changed: not while a payment is overdue."""
    subscription = company.subscription if company is not None else None
    return subscription is None or subscription.status not in {"past_due", "unpaid"}


def name_of(catalog: Catalog, key: str | None) -> str:
    """The name of a plan or add-on, its key when the catalogue has forgotten it."""
    version = catalog.plans.get(key or "") or catalog.add_ons.get(key or "")
    return version.name if version else (key or "")


def feature_line(
    reader: Reader,
    feature: Feature,
    granted: Entitlement,
    *,
    before: Entitlement | None,
    currency: str,
    rhythms: Sequence[Rhythm] = (),
) -> FeatureLine:
    """One granted feature as a line: its text, and what it was in the plan before when that was a number.

    What it costs is said in `currency`; where that depends on how often it is paid, for each of `rhythms`.
    """
    hint = ""
    is_number = isinstance(granted.limit, int) or granted.soft_limit is not None or not granted.prices
    if before is not None and isinstance(before.limit, int) and before.limit > 0 and is_number:
        hint = reader.say("feature.instead", before=reader.number(before.limit, divisor=feature.display_divisor))
    texts = [
        (
            rhythm.key if rhythm else "",
            _granted_text(reader, feature, granted, price_at(granted, currency=currency, rhythm=rhythm)),
        )
        for rhythm in (*rhythms,) or (None,)
    ]
    return FeatureLine(
        text=texts[0][1],
        texts=tuple(texts) if len({text for _, text in texts}) > 1 else (),
        hint=hint,
        description=feature.description if before is None else "",
    )


def is_more(granted: Entitlement, before: Entitlement | None) -> bool:
    """Whether an entitlement gives something that the one before does not.

    A soft limit never stops anybody; of two that stop nobody, the one with more before it begins gives more.
    """
    if before is None:
        return is_granting(granted)
    if _is_endless(granted):
        return not _is_endless(before) or _plain_part(granted) > _plain_part(before)
    if isinstance(granted.limit, int):
        return not _is_endless(before) and granted.limit > (before.limit if isinstance(before.limit, int) else 0)
    if granted.enabled is not None:
        return granted.enabled and not before.enabled
    return granted.config != before.config or granted.limit_trait != before.limit_trait


def _is_endless(granted: Entitlement) -> bool:
    return granted.limit is UNLIMITED or granted.soft_limit is not None


def _plain_part(endless: Entitlement) -> float:
    """How much of what never ends is neither beyond a soft limit nor charged for as it is used."""
    if endless.soft_limit is not None:
        return endless.soft_limit
    return 0 if is_overage_paid(endless) else math.inf


def is_granting(granted: Entitlement) -> bool:
    """Whether an entitlement gives anything at all: an off switch does not, and a limit of 0 only if more is sold."""
    return granted.enabled is not False and (granted.limit != 0 or bool(granted.prices))


def effect_text(reader: Reader, feature: Feature | None, value: Json, *, is_bare: bool = False) -> str:
    """A value from a quote in words: true, a number (`is_bare`: without its unit), "unlimited", config or null."""
    if value is None or value is False:
        return reader.say("receipt.off")
    if value is True:
        return reader.say("receipt.on")
    if value == "unlimited":
        return reader.say("receipt.unlimited")
    if isinstance(value, int) and feature is not None and feature.type is not FeatureType.CONFIG:
        return reader.number(value, divisor=feature.display_divisor) if is_bare else reader.count(value, feature)
    return _config_text(reader, value)


def is_overage_paid(granted: Entitlement) -> bool:
    """Whether what goes beyond the soft limit costs something."""
    return granted.price_behaviour in {PriceBehaviour.OVERAGE, PriceBehaviour.PAY_AS_YOU_GO, PriceBehaviour.TIERS}


def _granted_text(reader: Reader, feature: Feature, granted: Entitlement, price: Price | None) -> str:
    included = granted.soft_limit if granted.soft_limit is not None else granted.limit
    if included is UNLIMITED:
        text = reader.say("feature.unlimited", units=feature.units)
    elif isinstance(included, int):
        text = included_text(reader, feature, granted, included)
    elif granted.limit_trait is not None:
        text = reader.say("feature.trait", name=feature.name)
    elif granted.config is not None:
        text = reader.say("feature.config", name=feature.name, value=_config_text(reader, granted.config))
    else:
        text = feature.name
    if price is not None:
        return priced_text(reader, feature, granted, price, text)
    if granted.soft_limit is None:
        return text
    return reader.say("feature.overage" if is_overage_paid(granted) else "feature.soft", included=text)


def included_text(reader: Reader, feature: Feature, granted: Entitlement, quantity: int) -> str:
    """A quantity with its period: `1,000 exports a month`."""
    counted = reader.count(quantity, feature)
    is_lasting = granted.period is None or feature.type in {FeatureType.SEAT, FeatureType.TRAIT}
    if is_lasting or granted.period is PeriodKind.ALL_TIME:
        return reader.say("feature.limit_total", quantity=counted)
    return reader.say("feature.limit", quantity=counted, period=reader.say(f"period.{granted.period}"))


def _config_text(reader: Reader, value: Json) -> str:
    if isinstance(value, bool):
        return reader.say("receipt.on" if value else "receipt.off")
    if isinstance(value, int):
        return reader.number(value)
    return str(value)
