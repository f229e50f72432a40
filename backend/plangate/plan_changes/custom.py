"""Deals made by sales: a plan for one company at a price of its own, with its own terms of invoice and day of start."""

import hashlib
from datetime import datetime, timedelta
from typing import Any, Final, Literal

import msgspec

from plangate.change_terms import OWN_PRICE, OwnPrice
from plangate.engine.catalog import Catalog, Price, PriceOwner
from plangate.engine.holding import Holding, version_held
from plangate.engine.pricing import price_among
from plangate.engine.values import INTERVALS_MAX, Interval
from plangate.errors import Code, Refusal, invalid

_AMOUNT_MAX: Final = 99_999_999  # Stripe's own ceiling: eight digits
_NAME_LENGTH_MAX: Final = 250
_DAYS_MAX: Final = 365
_DAYS_DEFAULT: Final = 30
_STARTS_WITHIN: Final = timedelta(days=5 * 365)
# A price can be billed at most every three years.


class CustomPrice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What was agreed on: `amount_minor` for one of the plan every `interval_count` intervals.

    `name` is for finance, shown in Stripe beside the price. `collection_method` says whether the card on file is
    charged or an invoice is sent, which is due after `days_until_due` days (30 unless said). `starts_at` is the day
    the subscription starts; None: as soon as the quote is confirmed.
    """

    amount_minor: int
    currency: str
    interval: Interval
    interval_count: int = 1
    name: str | None = None
    collection_method: Literal["charge", "send_invoice"] = "charge"
    days_until_due: int | None = None
    starts_at: datetime | None = None


def checked_custom(custom: CustomPrice) -> None:
    """Raise Refusal (422) naming the field at fault when the price cannot be sold so."""
    at = "/custom_price"
    if not 0 <= custom.amount_minor <= _AMOUNT_MAX:
        raise invalid(f"{at}/amount_minor", f"An amount lies between 0 and {_AMOUNT_MAX:,} minor units.")
    if not (len(custom.currency) == 3 and custom.currency.isascii() and custom.currency.islower()):
        raise invalid(f"{at}/currency", "Give the currency as three lower-case letters, such as usd.")
    if not 1 <= custom.interval_count <= INTERVALS_MAX[custom.interval]:
        raise invalid(f"{at}/interval_count", "A price is billed at least once in three years.")
    if custom.name is not None and not 1 <= len(custom.name.strip()) <= _NAME_LENGTH_MAX:
        raise invalid(f"{at}/name", f"A name has at most {_NAME_LENGTH_MAX} characters.")
    if custom.days_until_due is not None:
        if custom.collection_method != "send_invoice":
            raise invalid(f"{at}/days_until_due", "Only an invoice that is sent has days until it is due.")
        if not 0 <= custom.days_until_due <= _DAYS_MAX:
            raise invalid(f"{at}/days_until_due", f"An invoice is due within {_DAYS_MAX} days.")
    if custom.starts_at is not None and custom.starts_at.tzinfo is None:
        raise invalid(f"{at}/starts_at", "Give the instant with its time zone, such as 2026-12-01T00:00:00Z.")


def refuse_start(custom: CustomPrice, *, period_end_at: datetime | None, at: datetime) -> None:
    """Raise Refusal (422) for a start that is over, too far ahead, or in the middle of a period that is paid."""
    starts_at = custom.starts_at
    if starts_at is None:
        return
    if not at < starts_at < at + _STARTS_WITHIN:
        raise invalid("/custom_price/starts_at", "The start lies ahead, within five years; leave it out to start now.")
    if period_end_at is not None and int(starts_at.timestamp()) != int(period_end_at.timestamp()):
        raise invalid(
            "/custom_price/starts_at",
            f"The company has paid until {period_end_at.isoformat()}: start then (`when: period_end`), or now.",
        )


def price_agreed(custom: CustomPrice, current: Price | None) -> Price:
    """The price as the engine's; the one the company holds when that says the same."""
    price = Price(
        currency=custom.currency,
        interval=custom.interval,
        interval_count=custom.interval_count,
        amount_minor=custom.amount_minor,
        stripe_price_id=OWN_PRICE,
    )
    if current is not None and msgspec.structs.replace(current, stripe_price_id=OWN_PRICE) == price:
        return current
    return price


def own_price_to_make(catalog: Catalog, target: Holding, custom: CustomPrice | None) -> OwnPrice | None:
    """The price that Stripe does not have yet.

    Raises Refusal when Stripe has no product of the plan, or the plan grants something for money in other intervals
    or currencies alone.
    """
    version = version_held(catalog, target)
    own = target.own_price
    if own is None or version is None:
        return None
    if version.stripe_product_id is None:
        raise Refusal(Code.UNAVAILABLE, f"Stripe does not know {version.name} yet; apply the catalogue first.")
    for entitlement in version.entitlements:
        found = price_among(
            entitlement.prices, currency=own.currency, interval=own.interval, interval_count=own.interval_count
        )
        length = None if found is None else (found.interval, found.interval_count)
        if entitlement.prices and length != (own.interval, own.interval_count):
            raise invalid(
                "/custom_price/interval",
                f"{version.name} bills {entitlement.feature} beside the plan, and not in that currency and interval.",
            )
    return OwnPrice(
        plan=version.key,
        version=version.version,
        stripe_product_id=version.stripe_product_id,
        currency=own.currency,
        interval=own.interval,
        interval_count=own.interval_count,
        amount_minor=own.amount_minor,
        name=None if custom is None else custom.name,
    )


def collection_of(custom: CustomPrice | None) -> dict[str, Any]:
    """How the invoices are collected, as Stripe's parameters; nothing where nobody said."""
    if custom is None:
        return {}
    if custom.collection_method == "charge":
        return {"collection_method": "charge_automatically"}
    days = _DAYS_DEFAULT if custom.days_until_due is None else custom.days_until_due
    return {"collection_method": "send_invoice", "days_until_due": days}


def lookup_key_of(own: OwnPrice, company_id: str) -> str:
    """The price's name in Stripe: agreed on twice, it is made once."""
    said = (company_id, own.plan, own.currency, own.interval.value, own.interval_count, own.amount_minor)
    return f"plangate_own_{hashlib.sha256(msgspec.json.encode(said)).hexdigest()[:40]}"


def price_params(own: OwnPrice, company_id: str, change_id: str) -> dict[str, Any]:
    """The parameters that make the price in Stripe, marked so that finance finds the deal behind it."""
    params: dict[str, Any] = {
        "product": own.stripe_product_id,
        "currency": own.currency,
        "unit_amount": own.amount_minor,
        "recurring": {"interval": own.interval.value, "interval_count": own.interval_count},
        "metadata": {
            "plangate_plan": own.plan,
            "plangate_version": str(own.version),
            "plangate_company": company_id,
            "plangate_change": change_id,
        },
    }
    if own.name is not None:
        params["nickname"] = own.name
    return params


def price_described(own: OwnPrice) -> dict[str, Any]:
    """The price as a preview describes it, which makes nothing."""
    return {
        "currency": own.currency,
        "product": own.stripe_product_id,
        "recurring": {"interval": own.interval.value, "interval_count": own.interval_count},
        "unit_amount": own.amount_minor,
    }


def with_agreed(catalog: Catalog, target: Holding, *, company_id: str) -> Catalog:
    """The catalogue as it would be with the price agreed on, for looking at what the company would be granted."""
    version, own = version_held(catalog, target), target.own_price
    if own is None or own.stripe_price_id != OWN_PRICE or version is None:
        return catalog
    owner = PriceOwner("plan", version.key, version.version, own, company_id=company_id)
    return msgspec.structs.replace(catalog, price_owners={**catalog.price_owners, OWN_PRICE: owner})
