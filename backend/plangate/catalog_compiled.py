"""From the catalogue's document and what was published to the engine's catalogue; pure."""

from collections.abc import Mapping, Sequence

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
    SettingsDocument,
)
from plangate.engine.model import (
    UNLIMITED,
    Audience,
    Catalog,
    CatalogSettings,
    Condition,
    Entitlement,
    Feature,
    FeatureType,
    Flag,
    Interval,
    Json,
    KeptVersions,
    Limit,
    PeriodKind,
    PlanVersion,
    Price,
    PriceOwner,
    Rule,
    Stacking,
    version_key,
)
from plangate.engine.versions import kept_key
from plangate.store.catalog import CatalogRevisionRow, PlanVersionRow, StripePriceRow


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
            whole = msgspec.structs.replace(
                terms,
                stripe_product_id=products[kind].get(key),
                prices=_with_stripe_ids(terms, stripe_prices),
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
        features={key: compiled_feature(key, one) for key, one in document.features.items()},
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
        prices=tuple(
            Price(
                currency=price.currency,
                interval=Interval(price.interval),
                amount_minor=price.amount_minor,
                interval_count=price.interval_count,
                stripe_price_id=price.stripe_price,
            )
            for price in sold.prices
        ),
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
    """The entitlement in full. Usage without a period is counted per billing month; a soft limit alone never ends."""
    if not isinstance(entitled, EntitlementDocument):
        entitled = spelled_out(feature, entitled)
    is_counted = feature.type == "event"
    limit: Limit | None = UNLIMITED if entitled.limit == "unlimited" else entitled.limit  # type: ignore[assignment]
    if limit is None and entitled.limit_trait is None and entitled.soft_limit is not None:
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
    )


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
        time_zone=time_zone,
        week_start=WEEKDAYS.index(settings.week_start),
    )


def _with_stripe_ids(version: PlanVersion, rows: Sequence[StripePriceRow]) -> tuple[Price, ...]:
    """The version's prices with their Stripe ids: a price on sale is preferred, then the newest."""
    known: dict[tuple[str, str, int, int], tuple[bool, str]] = {}
    for row in rows:
        if (row.owner_kind, row.owner_key) == (version.kind, version.key):
            terms = (row.currency, row.interval, row.interval_count, row.amount_minor)
            if row.is_active or not known.get(terms, (False, ""))[0]:
                known[terms] = (row.is_active, row.stripe_price_id)
    return tuple(
        msgspec.structs.replace(
            price,
            stripe_price_id=known.get(
                (price.currency, price.interval.value, price.interval_count, price.amount_minor), (False, None)
            )[1],
        )
        for price in version.prices
    )


def _owner(row: StripePriceRow, newest_of: Mapping[str, int]) -> PriceOwner:
    # A price may sell a version published after this revision; as known then, it sold the newest of then.
    newest = newest_of.get(f"{row.owner_kind}:{row.owner_key}", row.owner_version)
    return PriceOwner(
        kind="plan" if row.owner_kind == "plan" else "add_on",
        key=row.owner_key,
        version=min(row.owner_version, newest),
        price=Price(
            currency=row.currency,
            interval=Interval(row.interval),
            amount_minor=row.amount_minor,
            interval_count=row.interval_count,
            stripe_price_id=row.stripe_price_id,
        ),
    )
