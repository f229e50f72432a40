"""From the catalogue's document and what was published to the engine's catalogue; pure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, TypeAlias

import msgspec

from plangate.catalog_document import (
    WEEKDAYS,
    AddOnDocument,
    AudienceDocument,
    CatalogDocument,
    ConditionDocument,
    Entitled,
    EntitlementDocument,
    FeatureDocument,
    Kind,
    PlanDocument,
    PriceDocument,
    SettingsDocument,
)
from plangate.engine.catalog import (
    Audience,
    Catalog,
    CatalogSettings,
    CheckoutFields,
    Condition,
    Entitlement,
    Feature,
    Flag,
    KeptVersions,
    PlanVersion,
    Price,
    PriceOwner,
    PriceTier,
    Rule,
    version_key,
)
from plangate.engine.values import UNLIMITED, FeatureType, Interval, Json, Limit, PeriodKind, PriceBehaviour, Stacking
from plangate.engine.versions import kept_key
from plangate.store.catalog import CatalogRevisionRow, PlanVersionRow, StripePriceRow

# What is billed by a meter: after it was used, instead of before.
METERED: Final = frozenset({PriceBehaviour.PAY_AS_YOU_GO, PriceBehaviour.TIERS, PriceBehaviour.OVERAGE})


def compile_catalog(
    revision: CatalogRevisionRow | None,
    plan_versions: Sequence[PlanVersionRow],
    stripe_prices: Sequence[StripePriceRow],
    plan_products: Mapping[str, str],
    add_on_products: Mapping[str, str],
    *,
    time_zone: str = "UTC",
) -> Catalog:
    """The engine's catalogue at one revision (None: before the first, when nothing is on offer).

    `plan_versions` and `stripe_prices` are all there ever were; versions newer than the revision are left out.
    """
    if revision is None:
        return Catalog(revision=0, settings=CatalogSettings(time_zone=time_zone))
    document = CatalogDocument.model_validate(revision.document)
    known = _known_prices(stripe_prices)
    on_sale = {said: [row for row in rows if row.is_active] for said, rows in known.items()}
    newest_of: Mapping[str, int] = revision.versions
    products: Mapping[Kind, Mapping[str, str]] = {"plan": plan_products, "add_on": add_on_products}
    stored = {(row.kind, row.key, row.version): row for row in plan_versions}
    plans: dict[str, PlanVersion] = {}
    add_ons: dict[str, PlanVersion] = {}
    older: dict[str, PlanVersion] = {}
    for position, (kind, key, sold) in enumerate(document.sold()):
        newest = newest_of[f"{kind}:{key}"]
        shown = offered_version(document, kind, key, version=newest, position=position)
        for version in range(1, newest + 1):
            row = stored.get((kind, key, version))
            if row is None:
                continue
            terms = msgspec.convert(row.document, PlanVersion)
            is_sold = version == newest and not sold.archived
            named = _named(shown) if version == newest else frozenset()
            whole = msgspec.structs.replace(
                _with_stripe_ids(terms, on_sale if is_sold else known, named=named),
                stripe_product_id=products[kind].get(key),
                is_archived=sold.archived,
            )
            if version < newest:
                older[version_key(kind, key, version)] = whole
                continue
            # How it is shown follows the document at once; what it grants and costs is what was published.
            (plans if kind == "plan" else add_ons)[key] = msgspec.structs.replace(
                whole,
                name=shown.name,
                description=shown.description,
                is_recommended=shown.is_recommended,
                contact_url=shown.contact_url,
                position=position,
            )
    return Catalog(
        revision=revision.revision,
        features=_features(document, (*plans.values(), *add_ons.values(), *older.values())),
        plans=plans,
        add_ons=add_ons,
        older_versions=older,
        price_owners={row.stripe_price_id: _owner(row, newest_of) for row in stripe_prices},
        initial_plan=document.initial_plan,
        fallback_plan=document.fallback_plan,
        trial_expiry_plan=document.trial_expiry_plan,
        settings=_settings(document.settings, time_zone),
        audiences=tuple(_audience(key, one) for key, one in document.audiences.items()),
        kept=_kept(revision, stored),
    )


def offered_version(
    document: CatalogDocument, kind: Kind, key: str, *, version: int = 1, position: int = 0
) -> PlanVersion:
    """A plan or add-on of the document as the engine's version; of Stripe's only what the document adopts.

    Raises KeyError when the document has none of that key.
    """
    sold: PlanDocument | AddOnDocument = document.plans[key] if kind == "plan" else document.add_ons[key]
    plan = sold if isinstance(sold, PlanDocument) else None
    return PlanVersion(
        key=key,
        version=version,
        kind=kind,
        name=sold.name,
        description=sold.description,
        # In the order of the features, so that two documents that grant the same compare equal.
        entitlements=tuple(
            resolved_entitlement(feature, document.features[feature], sold.entitlements[feature])
            for feature in document.features
            if feature in sold.entitlements
        ),
        prices=tuple(compiled_price(price) for price in sold.prices),
        trial_days=plan.trial_days if plan else 0,
        is_recommended=plan.recommended if plan else False,
        is_contact_us=plan.contact_us if plan else False,
        contact_url=plan.contact_url if plan else None,
        is_archived=sold.archived,
        fits=tuple(sold.fits) if isinstance(sold, AddOnDocument) else (),
        position=position,
        stripe_product_id=sold.stripe_product,
    )


def resolved_entitlement(key: str, feature: FeatureDocument, entitled: Entitled) -> Entitlement:
    """The entitlement in full. Usage without a period is counted per billing month; a soft limit alone never ends.

    Neither does what is paid as it is used. Of what is paid in advance there is none before it is bought.
    """
    if not isinstance(entitled, EntitlementDocument):
        entitled = spelled_out(feature, entitled)
    is_counted = feature.type == "event"
    limit: Limit | None = UNLIMITED if entitled.limit == "unlimited" else entitled.limit  # type: ignore[assignment]
    behaviour = PriceBehaviour(entitled.price_behaviour)
    if limit is None and behaviour is PriceBehaviour.PAY_IN_ADVANCE:
        limit = 0
    if limit is None and entitled.limit_trait is None and (entitled.soft_limit is not None or behaviour in METERED):
        limit = UNLIMITED
    default_period = PeriodKind.BILLING_MONTH if is_counted else None
    return Entitlement(
        feature=key,
        enabled=entitled.enabled,
        limit=limit,
        limit_trait=entitled.limit_trait,
        config=entitled.config,
        period=PeriodKind(entitled.period) if entitled.period is not None else default_period,
        stacking=Stacking(entitled.stacking),
        soft_limit=entitled.soft_limit,
        scope=entitled.per,
        price_behaviour=behaviour,
        prices=tuple(
            compiled_price(price, meter=meter_of(key, feature, behaviour) if behaviour in METERED else None)
            for price in entitled.prices
        ),
    )


def compiled_price(price: PriceDocument, *, meter: str | None = None) -> Price:
    """A price of the document as the engine's; with the event name of a `meter` it bills what that counts.

    A whole `amount_decimal` is an amount like any other.
    """
    amount = price.amount_decimal
    is_whole = amount is None or "." not in amount
    return Price(
        currency=price.currency,
        interval=Interval(price.interval),
        amount_minor=int(amount) if amount is not None and is_whole else price.amount_minor or 0,
        interval_count=price.interval_count,
        stripe_price_id=price.stripe_price,
        amount_decimal=None if is_whole else amount,
        tiers_mode=price.tiers_mode,
        tiers=tuple(
            PriceTier(
                up_to=tier.up_to,
                amount=tier.amount_decimal if tier.amount_decimal is not None else str(tier.amount_minor or 0),
                flat_amount_minor=tier.flat_amount_minor,
            )
            for tier in price.tiers
        ),
        package_size=price.package.size if price.package is not None else 1,
        package_rounding=price.package.round if price.package is not None else "up",
        is_metered=meter is not None,
        meter=meter,
    )


def meter_of(key: str, feature: FeatureDocument, behaviour: PriceBehaviour) -> str:
    """The event name of the Stripe meter that metered prices of a feature bill.

    Overage has a meter of its own, because only what is used beyond the soft limit is reported to it.
    """
    if behaviour is PriceBehaviour.OVERAGE:
        return f"plangate_overage_{key}"
    return feature.stripe_meter or f"plangate_{key}"


def spelled_out(feature: FeatureDocument, value: Json) -> EntitlementDocument:
    """What a short form means for a feature of this type. Raises ValidationError when it means nothing."""
    match feature.type:
        case "boolean":
            return EntitlementDocument.model_validate({"enabled": value})
        case "config":
            return EntitlementDocument.model_validate({"config": value})
        case "event" | "trait" | "seat":
            return EntitlementDocument.model_validate({"limit": value})


def compiled_feature(key: str, feature: FeatureDocument) -> Feature:
    """A feature of the document as the engine's."""
    return Feature(
        key=key,
        name=feature.name,
        type=FeatureType(feature.type),
        description=feature.description,
        event=feature.event,
        trait=feature.trait,
        unit=feature.unit,
        units=feature.units,
        display_divisor=feature.display_divisor,
        config_type=feature.config_type,
        config_schema=feature.config_schema,
        stripe_meter=feature.stripe_meter,
        usage_source=feature.usage_source,
        flag=Flag(
            forced=feature.flag.forced,
            default=feature.flag.default,
            rules=tuple(
                Rule(
                    key=rule.key,
                    priority=rule.priority,
                    allowed=rule.allowed,
                    groups=compiled_groups(rule.groups),
                )
                for rule in feature.flag.rules
            ),
        ),
        is_archived=feature.archived,
    )


def price_of(row: StripePriceRow) -> Price:
    """The price that a stored Stripe price says, with its id."""
    if row.terms is not None:
        return msgspec.structs.replace(msgspec.convert(row.terms, Price), stripe_price_id=row.stripe_price_id)
    return Price(
        currency=row.currency,
        interval=Interval(row.interval),
        amount_minor=row.amount_minor,
        interval_count=row.interval_count,
        stripe_price_id=row.stripe_price_id,
    )


def price_terms(price: Price) -> Price:
    """What the price says, whatever it is called in Stripe: two prices of the same terms are interchangeable."""
    return msgspec.structs.replace(price, stripe_price_id=None)


def compiled_groups(groups: Sequence[Sequence[ConditionDocument]]) -> tuple[tuple[Condition, ...], ...]:
    """Groups of conditions as the engine's."""
    return tuple(tuple(msgspec.convert(one.model_dump(), Condition) for one in group) for group in groups)


def _audience(key: str, audience: AudienceDocument) -> Audience:
    return Audience(key=key, plan=audience.plan, priority=audience.priority, groups=compiled_groups(audience.groups))


def _kept(
    revision: CatalogRevisionRow, stored: Mapping[tuple[str, str, int], PlanVersionRow]
) -> dict[str, KeptVersions]:
    """The versions still held of what was published without migrating everybody."""
    kept: dict[str, KeptVersions] = {}
    floors: Mapping[str, int] = revision.floors or {}
    for name, floor in floors.items():
        kind, _, key = name.partition(":")
        found = [
            (version, stored[kind, key, version].recorded_at)
            for version in range(floor, revision.versions[name] + 1)
            if (kind, key, version) in stored
        ]
        if len(found) > 1:
            kept[kept_key("plan" if kind == "plan" else "add_on", key)] = KeptVersions(tuple(found))
    return kept


def _settings(settings: SettingsDocument, time_zone: str) -> CatalogSettings:
    return CatalogSettings(
        downgrades=settings.downgrades,
        proration=settings.proration,
        is_downgrade_blocked_over_limit=settings.block_downgrade_over_limit,
        is_self_service_downgrade_allowed=settings.self_service_downgrades,
        self_service_downgrade_label=settings.self_service_downgrade_label,
        self_service_downgrade_url=settings.self_service_downgrade_url,
        past_due_grace_days=settings.past_due_grace_days,
        paused_collection=settings.paused_collection,
        on_refund=settings.on_refund,
        on_dispute=settings.on_dispute,
        checkout=CheckoutFields(
            asks_trial_card=settings.checkout_trial_card,
            asks_billing_address=settings.checkout_billing_address,
            asks_phone=settings.checkout_phone,
            asks_tax_id=settings.checkout_tax_id,
        ),
        time_zone=time_zone,
        week_start=WEEKDAYS.index(settings.week_start),
    )


def _features(document: CatalogDocument, versions: Iterable[PlanVersion]) -> dict[str, Feature]:
    """The features; usage that any version bills as it is used is reported to a meter, named by the document or not."""
    billed = {
        entitlement.feature: price.meter
        for version in versions
        for entitlement in version.entitlements
        if entitlement.price_behaviour is not PriceBehaviour.OVERAGE
        for price in entitlement.prices
        if price.meter is not None
    }
    features = {key: compiled_feature(key, one) for key, one in document.features.items()}
    return {
        key: msgspec.structs.replace(one, stripe_meter=one.stripe_meter or billed.get(key))
        for key, one in features.items()
    }


_Known: TypeAlias = dict[tuple[str, str, str | None, Price], list[StripePriceRow]]


def _known_prices(rows: Iterable[StripePriceRow]) -> _Known:
    """By whom and what they are for, and by terms. What was agreed on with one company is sold to nobody else."""
    known: _Known = {}
    for row in rows:
        if row.company_id is None:
            terms = price_terms(price_of(row))
            known.setdefault((row.owner_kind, row.owner_key, row.feature, terms), []).append(row)
    return known


def _named(version: PlanVersion) -> frozenset[str]:
    """The prices of Stripe's that a version of the document adopts."""
    granted = (price for entitlement in version.entitlements for price in entitlement.prices)
    return frozenset(one.stripe_price_id for one in (*version.prices, *granted) if one.stripe_price_id is not None)


def _with_stripe_ids(version: PlanVersion, known: _Known, *, named: frozenset[str]) -> PlanVersion:
    """The version with the ids that Stripe knows its prices by, and those of what it grants."""

    def known_as(feature: str | None, prices: Iterable[Price]) -> tuple[Price, ...]:
        return tuple(
            msgspec.structs.replace(
                price,
                stripe_price_id=_chosen(known.get((version.kind, version.key, feature, price_terms(price)), ()), named),
            )
            for price in prices
        )

    return msgspec.structs.replace(
        version,
        prices=known_as(None, version.prices),
        entitlements=tuple(
            msgspec.structs.replace(one, prices=known_as(one.feature, one.prices)) if one.prices else one
            for one in version.entitlements
        ),
    )


def _chosen(rows: Sequence[StripePriceRow], named: frozenset[str]) -> str | None:
    """Of prices that say the same: the one that is named, else one on sale, rather of our own, the newest."""
    ranked = [
        (row.stripe_price_id in named, row.is_active, not row.is_adopted, place, row.stripe_price_id)
        for place, row in enumerate(rows)
    ]
    return max(ranked)[-1] if ranked else None


def _owner(row: StripePriceRow, newest_of: Mapping[str, int]) -> PriceOwner:
    # A price may sell a version published after this revision; as known then, it sold the newest of then.
    newest = newest_of.get(f"{row.owner_kind}:{row.owner_key}", row.owner_version)
    return PriceOwner(
        kind="plan" if row.owner_kind == "plan" else "add_on",
        key=row.owner_key,
        version=min(row.owner_version, newest),
        price=price_of(row),
        feature=row.feature,
        company_id=row.company_id,
    )
