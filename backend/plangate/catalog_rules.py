"""What only the whole catalogue document can tell: names that must exist, values that must fit their feature's type."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from pydantic import ValidationError

from plangate.catalog_compiled import METERED, compiled_feature, spelled_out
from plangate.catalog_document import (
    AddOnDocument,
    CatalogDocument,
    ConditionDocument,
    EntitlementDocument,
    FeatureDocument,
    MigrationDocument,
    PlanDocument,
    PriceDocument,
    TierDocument,
)
from plangate.engine.config_values import schema_faults, value_faults
from plangate.engine.targeting import compare
from plangate.engine.values import INTERVALS_MAX, Interval
from plangate.errors import Code, FieldError

_PAID: Final = frozenset({"price_behaviour", "prices"})
# What Stripe charges in these currencies is a multiple of so many minor units (its documentation of currencies).
_STEPS: Final = {**dict.fromkeys(["bhd", "jod", "kwd", "omr", "tnd"], 10), "isk": 100, "ugx": 100}


def faults_of(document: CatalogDocument) -> list[FieldError]:
    """Every fault across the parts of a document; empty when it can be applied."""
    return [
        *_roles(document),
        *_features(document),
        *_audiences(document),
        *_adopted(document),
        *(
            fault
            for kind, key, sold in document.sold()
            for fault in _sold(document, ("plans" if kind == "plan" else "add_ons", key), sold)
        ),
    ]


def migration_faults(
    document: CatalogDocument, path: tuple[object, ...], migration: MigrationDocument
) -> list[FieldError]:
    """Every fault of what a migration says about companies; `path` is where it says so."""
    nobody = not migration.companies and not migration.groups
    return [
        *([_at(path, "names nobody; write none, or name companies or groups")] if nobody else []),
        *_about_companies(document, (*path, "groups"), migration.groups),
    ]


def pointer_of(*parts: object) -> str:
    """A JSON pointer (RFC 6901) from its parts."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)


def _at(path: Iterable[object], detail: str) -> FieldError:
    return FieldError(pointer_of(*path), Code.INVALID, detail)


def _roles(document: CatalogDocument) -> Iterator[FieldError]:
    roles = {
        "initial_plan": document.initial_plan,
        "fallback_plan": document.fallback_plan,
        "trial_expiry_plan": document.trial_expiry_plan,
    }
    for role, key in roles.items():
        if key is None:
            continue
        plan = document.plans.get(key)
        if plan is None:
            yield _at([role], f"names the plan {key!r}, which the catalogue does not have")
        elif plan.archived:
            yield _at([role], f"names the plan {key!r}, which is archived")
        elif plan.prices or _priced(plan):
            yield _at([role], f"names the plan {key!r}, which has prices; a company gets this one without paying")
    recommended = [key for key, plan in document.plans.items() if plan.recommended]
    if len(recommended) > 1:
        yield _at(["plans", recommended[1], "recommended"], f"is already true for {recommended[0]!r}; recommend one")


def _features(document: CatalogDocument) -> Iterator[FieldError]:
    for key, feature in document.features.items():
        path = ("features", key)
        if feature.event is not None and feature.type != "event":
            yield _at((*path, "event"), "is for features of the type event")
        if feature.trait is not None and feature.type not in {"trait", "seat"}:
            yield _at((*path, "trait"), "is for features of the type trait or seat")
        if feature.trait is None and feature.type in {"trait", "seat"}:
            yield _at(path, f"needs `trait`: a {feature.type} feature reads what is in use from a company trait")
        if (feature.config_type is None) == (feature.type == "config"):
            wanted = (
                "needs `config_type`: string, number or json" if feature.type == "config" else "has a `config_type`"
            )
            yield _at(
                path, wanted if feature.type == "config" else f"{wanted}, which is for features of the type config"
            )
        if feature.stripe_meter is not None and feature.type != "event":
            yield _at((*path, "stripe_meter"), "is for features of the type event")
        if feature.usage_source == "stripe_meter" and feature.stripe_meter is None:
            yield _at((*path, "usage_source"), "needs `stripe_meter`: the event name of the meter to read")
        if feature.config_schema is not None:
            if feature.type != "config":
                yield _at((*path, "config_schema"), "is for features of the type config")
            for fault in schema_faults(feature.config_schema):
                yield FieldError(pointer_of(*path, "config_schema") + fault.pointer, Code.INVALID, fault.detail)
        names = [rule.key for rule in feature.flag.rules]
        for index, rule in enumerate(feature.flag.rules):
            here = (*path, "flag", "rules", index)
            if rule.key in names[:index]:
                yield _at((*here, "key"), f"repeats the rule {rule.key!r}")
            for place, condition in _conditions((*here, "groups"), rule.groups):
                yield from _condition(document, place, condition)


def _audiences(document: CatalogDocument) -> Iterator[FieldError]:
    for key, audience in document.audiences.items():
        path = ("audiences", key)
        plan = document.plans.get(audience.plan)
        if plan is None:
            yield _at((*path, "plan"), f"names the plan {audience.plan!r}, which the catalogue does not have")
        elif plan.archived:
            yield _at((*path, "plan"), f"names the plan {audience.plan!r}, which is archived")
        yield from _about_companies(document, (*path, "groups"), audience.groups)


def _about_companies(
    document: CatalogDocument, path: tuple[object, ...], groups: Sequence[Sequence[ConditionDocument]]
) -> Iterator[FieldError]:
    """Conditions that must be decided without a user, without usage, and before the base plan is known."""
    for place, condition in _conditions(path, groups):
        if condition.kind in {"user", "plan", "usage"} or (condition.kind == "trait" and condition.subject == "user"):
            yield _at(place, "must be about the company: its keys, traits, add-ons or Stripe products")
        else:
            yield from _condition(document, place, condition)


def _conditions(
    path: tuple[object, ...], groups: Sequence[Sequence[ConditionDocument]]
) -> Iterator[tuple[tuple[object, ...], ConditionDocument]]:
    for index, group in enumerate(groups):
        for inner, condition in enumerate(group):
            yield (*path, index, inner), condition


def _adopted(document: CatalogDocument) -> Iterator[FieldError]:
    """A product or price of Stripe's can stand for one thing only; what is archived leaves it to what comes after."""
    seen: set[str] = set()
    for kind, key, sold in document.sold():
        if sold.archived:
            continue
        path: tuple[object, ...] = ("plans" if kind == "plan" else "add_ons", key)
        named = [((*path, "stripe_product"), sold.stripe_product)]
        for place, prices in ((path, sold.prices), *(((*path, "entitlements", k), e.prices) for k, e in _priced(sold))):
            named += [((*place, "prices", index, "stripe_price"), one.stripe_price) for index, one in enumerate(prices)]
        for place, stripe_id in named:
            if stripe_id is None:
                continue
            if stripe_id in seen:
                yield _at(place, f"repeats {stripe_id}, which stands for something else already")
            seen.add(stripe_id)
        if sold.stripe_product is not None and not sold.prices:
            yield _at((*path, "stripe_product"), "needs prices: without them nothing is sold through Stripe")


def _condition(
    document: CatalogDocument, path: tuple[object, ...], condition: ConditionDocument
) -> Iterator[FieldError]:
    match condition.kind:
        case "company" | "user":
            if not condition.values:
                yield _at(path, "needs `values`: ids, or keys such as id=acme")
        case "plan" | "add_on":
            known: Iterable[str] = document.plans if condition.kind == "plan" else document.add_ons
            if not condition.values:
                yield _at(path, "needs `values`: keys of the catalogue")
            for index, value in enumerate(condition.values):
                if value not in known:
                    yield _at((*path, "values", index), f"{value!r} is not in the catalogue")
        case "product":
            if not condition.values:
                yield _at(path, "needs `values`: ids of Stripe products")
        case "trait":
            if condition.trait is None:
                yield _at(path, "needs `trait`")
            if (condition.value is None) == (condition.other_trait is None):
                yield _at(path, "needs `value` or `other_trait`, and not both")
            yield from _compared(path, condition)
        case "usage":
            feature = document.features.get(condition.feature or "")
            if feature is None or feature.type != "event":
                yield _at(path, "needs `feature`, the key of a feature of the type event")
            if isinstance(condition.value, bool) or not isinstance(condition.value, int):
                yield _at(path, "needs `value`, a whole number")


def _compared(path: tuple[object, ...], condition: ConditionDocument) -> Iterator[FieldError]:
    """What a trait is compared with must be of the type asked for: no value of another type ever matches."""
    if condition.value is None:
        return
    is_list = condition.operator in {"in", "not_in"}
    if is_list is not isinstance(condition.value, list):
        yield _at((*path, "value"), f"must {'' if is_list else 'not '}be a list with the operator {condition.operator}")
        return
    for value in condition.value if is_list else [condition.value]:
        if not compare(value, "eq", value, value_type=condition.value_type):
            yield _at((*path, "value"), f"must be a {condition.value_type or 'text, number, true or false'}")
            return


def _sold(
    document: CatalogDocument, path: tuple[object, ...], sold: PlanDocument | AddOnDocument
) -> Iterator[FieldError]:
    for key, entitled in sold.entitlements.items():
        here = (*path, "entitlements", key)
        feature = document.features.get(key)
        if feature is None:
            yield _at(here, f"names the feature {key!r}, which the catalogue does not have")
            continue
        if not isinstance(entitled, EntitlementDocument):
            try:
                entitled = spelled_out(feature, entitled)  # noqa: PLW2901 - the same entitlement, in full
            except ValidationError:
                yield _at(here, _expected(feature))
                continue
        yield from _entitlement(here, feature, entitled)
    yield from _prices(path, sold.prices)
    yield from _matching(path, sold)
    if isinstance(sold.migrate, MigrationDocument):
        yield from migration_faults(document, (*path, "migrate"), sold.migrate)
    if isinstance(sold, PlanDocument):
        if sold.contact_us and (sold.prices or _priced(sold)):
            yield _at((*path, "contact_us"), "cannot stand beside prices: the plan is sold by hand or by itself")
        if sold.contact_url is not None and not sold.contact_us:
            yield _at((*path, "contact_url"), "is for plans with contact_us: true")
        if sold.trial_days and not sold.prices and not _priced(sold):
            yield _at((*path, "trial_days"), "needs prices: there is nothing to try for free")
        return
    for index, plan in enumerate(sold.fits):
        if plan not in document.plans:
            yield _at((*path, "fits", index), f"names the plan {plan!r}, which the catalogue does not have")


def _entitlement(
    path: tuple[object, ...], feature: FeatureDocument, entitled: EntitlementDocument
) -> Iterator[FieldError]:
    given = {name for name in entitled.model_fields_set - _PAID if getattr(entitled, name) is not None}
    given |= {
        name
        for name in _PAID
        if getattr(entitled, name) != EntitlementDocument.model_fields[name].get_default(call_default_factory=True)
    }
    values = given & {"enabled", "limit", "limit_trait", "config"}
    allowed = {
        "boolean": {"enabled"},
        "config": {"config"},
        "event": {"limit", "limit_trait", "period", "stacking", "soft_limit", "overage", "per", *_PAID},
        "trait": {"limit", "limit_trait", "stacking", "soft_limit", "overage", *_PAID},
        "seat": {"limit", "limit_trait", "stacking", "soft_limit", "overage", *_PAID},
    }[feature.type]
    for name in sorted(given - allowed):
        why = "only usage is counted" if name in {"period", "per"} else _expected(feature)
        yield _at((*path, name), f"does not fit a feature of the type {feature.type}: {why}")
    values &= allowed
    if len(values) > 1:
        yield _at(path, f"gives {' and '.join(sorted(values))}: one of them is enough")
    if not given & {*allowed, "enabled", "limit", "limit_trait", "config"} - {"period", "stacking", "overage", "per"}:
        yield _at(path, _expected(feature))
    if isinstance(entitled.limit, int) and entitled.soft_limit is not None and entitled.soft_limit >= entitled.limit:
        yield _at((*path, "soft_limit"), "must be below the limit, which refuses everything beyond it")
    if entitled.overage is not None and entitled.soft_limit is None:
        yield _at((*path, "overage"), "needs `soft_limit`, which says where overage begins")
    if _PAID & given and allowed >= _PAID:
        yield from _paid(path, feature, entitled)
    if feature.type == "config" and "config" in given and not schema_faults(feature.config_schema or {}):
        whole = compiled_feature("", feature)
        for fault in value_faults(whole, entitled.config):
            yield FieldError(pointer_of(*path) + fault.pointer, Code.INVALID, fault.detail)


def _paid(path: tuple[object, ...], feature: FeatureDocument, entitled: EntitlementDocument) -> Iterator[FieldError]:
    """What is paid for a feature beside the plan's price, and in which way."""
    behaviour = entitled.price_behaviour
    yield from _prices(path, entitled.prices)
    if behaviour == "included":
        yield _at((*path, "prices"), "needs `price_behaviour`, which says what is paid for")
        return
    if not entitled.prices:
        yield _at((*path, "price_behaviour"), f"needs `prices`: what {behaviour.replace('_', ' ')} costs")
    if behaviour in METERED and feature.type != "event":
        yield _at((*path, "price_behaviour"), "is for features of the type event; others are paid in advance")
    if behaviour in {"overage", "pay_in_advance"} and entitled.per == "user":
        yield _at((*path, "per"), "cannot be user: what the company as a whole uses or buys is paid for")
    match behaviour:
        case "pay_in_advance":
            for name in ("limit_trait", "soft_limit"):
                if getattr(entitled, name) is not None:
                    yield _at((*path, name), "cannot stand here: the limit is what was bought in advance")
            if entitled.limit == "unlimited":
                yield _at((*path, "limit"), "must be a number: it is the limit until more is bought in advance")
        case "overage":
            if entitled.soft_limit is None:
                yield _at((*path, "price_behaviour"), "needs `soft_limit`, which says where overage begins")
            if entitled.overage == "free":
                yield _at((*path, "overage"), "cannot be free and have prices too")
        case "pay_as_you_go" | "tiers":
            for index, price in enumerate(entitled.prices):
                if bool(price.tiers) is not (behaviour == "tiers"):
                    yield _at(
                        (*path, "prices", index),
                        "needs `tiers`" if behaviour == "tiers" else "has tiers; write price_behaviour: tiers",
                    )


def _prices(path: tuple[object, ...], prices: Sequence[PriceDocument]) -> Iterator[FieldError]:
    """Each price says one amount, in one way; there is one for a currency and interval."""
    seen: set[tuple[str, str, int]] = set()
    for index, price in enumerate(prices):
        here = (*path, "prices", index)
        if _terms(price) in seen:
            yield _at(here, f"is a second price in {price.currency} for the same interval")
        seen.add(_terms(price))
        said = [name for name in ("amount_minor", "amount_decimal") if getattr(price, name) is not None]
        said += ["tiers"] if price.tiers else []
        if not said:
            yield _at(here, "needs an amount: `amount_minor`, `amount_decimal` or `tiers`")
        elif len(said) > 1:
            yield _at(here, f"gives {' and '.join(said)}: one of them is enough")
        if bool(price.tiers) is not (price.tiers_mode is not None):
            yield _at(here, "needs both `tiers` and `tiers_mode`: graduated or volume")
        if price.tiers and price.package is not None:
            yield _at((*here, "package"), "cannot stand beside tiers: Stripe knows no tiers of packages")
        if price.interval_count > INTERVALS_MAX[Interval(price.interval)]:
            yield _at((*here, "interval_count"), "is too long: Stripe bills at least every three years")
        yield from _tiers((*here, "tiers"), price.tiers)
        yield from _rounded(here, price)


def _rounded(path: tuple[object, ...], price: PriceDocument) -> Iterator[FieldError]:
    """Whole amounts that Stripe could never charge, because it knows no such fraction of the currency."""
    step = _STEPS.get(price.currency, 1)
    said = [((*path, "amount_minor"), price.amount_minor)]
    for index, tier in enumerate(price.tiers):
        said += [((*path, "tiers", index, name), getattr(tier, name)) for name in ("amount_minor", "flat_amount_minor")]
    for place, amount in said:
        if (amount or 0) % step:
            yield _at(place, f"must be a multiple of {step}: Stripe charges nothing smaller in {price.currency}")


def _tiers(path: tuple[object, ...], tiers: Sequence[TierDocument]) -> Iterator[FieldError]:
    floor = 0
    for index, tier in enumerate(tiers):
        is_last = index == len(tiers) - 1
        if (tier.up_to is None) is not is_last:
            yield _at((*path, index, "up_to"), "must be null in the last tier, and only there")
        elif tier.up_to is not None and tier.up_to <= floor:
            yield _at((*path, index, "up_to"), "must be above that of the tier before")
        floor = tier.up_to or floor
        if tier.amount_minor is not None and tier.amount_decimal is not None:
            yield _at((*path, index), "gives amount_minor and amount_decimal: one of them is enough")
        if tier.amount_minor is None and tier.amount_decimal is None and not tier.flat_amount_minor:
            yield _at((*path, index), "needs `amount_minor`, `amount_decimal` or `flat_amount_minor`")


def _matching(path: tuple[object, ...], sold: PlanDocument | AddOnDocument) -> Iterator[FieldError]:
    """Whoever buys it pays for all of it in one currency, and as often."""
    priced = _priced(sold)
    wanted = {_terms(price) for price in sold.prices} or {_terms(one) for _, paid in priced for one in paid.prices}
    for key, entitled in priced:
        own = {_terms(price) for price in entitled.prices}
        for said, terms in (
            *(("needs", one) for one in sorted(wanted - own)),
            *(("has", one) for one in sorted(own - wanted)),
        ):
            currency, interval, count = terms
            often = interval if count == 1 else f"{count} {interval}s"
            why = "what it is granted with is sold so" if said == "needs" else "what it is granted with is not sold so"
            yield _at((*path, "entitlements", key, "prices"), f"{said} a price in {currency} each {often}: {why}")


def _priced(sold: PlanDocument | AddOnDocument) -> list[tuple[str, EntitlementDocument]]:
    """The entitlements that are paid for beside the plan or add-on itself."""
    return [
        (key, entitled)
        for key, entitled in sold.entitlements.items()
        if isinstance(entitled, EntitlementDocument) and entitled.prices
    ]


def _terms(price: PriceDocument) -> tuple[str, str, int]:
    return (price.currency, price.interval, price.interval_count)


def _expected(feature: FeatureDocument) -> str:
    match feature.type:
        case "boolean":
            return "must be true or false"
        case "config":
            return f"must be a {feature.config_type or 'config'} value"
        case "event" | "trait" | "seat":
            return 'must be a limit: a whole number, "unlimited", or a mapping such as {limit: 10}'
