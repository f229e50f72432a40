"""From the catalogue in force and a new document to the next revision: what changes, and which versions it publishes.

Pure. Nothing that was published disappears: what the new document leaves out stays as archived.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Literal, TypeAlias

import msgspec

from plangate.catalog_compiled import compiled_price, meter_of, offered_version, price_terms, resolved_entitlement
from plangate.catalog_document import (
    PARTS_MAX,
    CatalogDocument,
    EntitlementDocument,
    Kind,
    Migrate,
    MigrationDocument,
    PriceDocument,
    document_value,
)
from plangate.catalog_file import refused
from plangate.catalog_rules import pointer_of
from plangate.engine.catalog import PlanVersion, Price
from plangate.engine.values import Json, PriceBehaviour
from plangate.errors import Code, FieldError, invalid
from plangate.store.catalog import CatalogRevisionRow, PlanVersionRow

Subject: TypeAlias = Literal["catalog", "setting", "feature", "plan", "add_on", "audience"]
Action: TypeAlias = Literal["added", "changed", "archived", "restored", "removed"]


class Detail(msgspec.Struct, frozen=True, kw_only=True):
    """One field that changes, as the document writes it; None is nothing. Amounts are in minor units."""

    field: str
    before: Json
    after: Json


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One part of the catalogue that changes. `version` is the plan or add-on version it publishes, if any.

    `migrate` says who among those that hold an earlier version gets it.
    """

    kind: Subject
    key: str
    action: Action
    name: str = ""
    version: int | None = None
    migrate: Literal["all", "some", "none"] | None = None
    details: tuple[Detail, ...] = ()


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """The next revision, not yet published. `published` are the versions it publishes, by kind and key.

    `migrations` says who gets those that are not the first ones; `floors` are the oldest versions still held.
    """

    revision: int
    document: CatalogDocument
    changes: tuple[Change, ...]
    versions: Mapping[str, int]
    published: Mapping[tuple[Kind, str], PlanVersion]
    migrations: Mapping[tuple[Kind, str], Migrate]
    floors: Mapping[str, int]

    def revision_row(self, environment_id: str, *, author: object, at: datetime) -> CatalogRevisionRow:
        """The row that stores it."""
        return CatalogRevisionRow(
            environment_id=environment_id,
            revision=self.revision,
            document=document_value(self.document),
            versions=dict(self.versions),
            floors=dict(self.floors),
            author=msgspec.to_builtins(author),
            recorded_at=at,
        )

    def version_rows(self, environment_id: str, *, at: datetime) -> list[PlanVersionRow]:
        """The rows of the versions it publishes."""
        return [
            PlanVersionRow(
                environment_id=environment_id,
                kind=kind,
                key=key,
                version=version.version,
                document=msgspec.to_builtins(version),
                recorded_at=at,
            )
            for (kind, key), version in self.published.items()
        ]


def draft(
    current: CatalogRevisionRow | None,
    published: Sequence[PlanVersionRow],
    wanted: CatalogDocument,
    *,
    migrate: Mapping[str, Migrate] | None = None,
) -> Draft:
    """What publishing `wanted` over the revision in force would make.

    `migrate` says who gets new versions, by `plan:KEY`, `add_on:KEY`, KEY or "" (the rest); else the document does.
    Raises Refusal (422) when a feature would change its type or the event it counts, because usage counted already and
    overrides would lose their meaning; and when there would be too many parts, archived ones included.
    """
    before = (
        CatalogDocument(features={}, plans={}) if current is None else CatalogDocument.model_validate(current.document)
    )
    faults = [
        FieldError(
            pointer_of("features", key, "type"),
            Code.INVALID,
            f"was published as {before.features[key].type}; give the new kind a key of its own",
        )
        for key, feature in wanted.features.items()
        if key in before.features and before.features[key].type != feature.type
    ] + [
        FieldError(
            pointer_of("features", key, "event"),
            Code.INVALID,
            f"was published counting {before.features[key].event or key!r}; give the new event a feature of its own",
        )
        for key, feature in wanted.features.items()
        if key in before.features and (before.features[key].event or key) != (feature.event or key)
    ]
    faults += _meters_kept(before, wanted, published)
    if faults:
        raise refused(faults)
    after = _keeping_archived(before, wanted)
    versions: dict[str, int] = {} if current is None else dict(current.versions)
    floors: dict[str, int] = {} if current is None else dict(current.floors or {})
    terms = {(row.kind, row.key, row.version): msgspec.convert(row.document, PlanVersion) for row in published}
    new: dict[tuple[Kind, str], PlanVersion] = {}
    migrations: dict[tuple[Kind, str], Migrate] = {}
    said = _said(after, migrate or {})
    for kind, key, sold in after.sold():
        name = f"{kind}:{key}"
        held = versions.get(name, 0)
        offered = offered_version(after, kind, key, version=held + 1)
        known = terms.get((kind, key, held))
        if known is not None and _terms(known) == _terms(offered):
            continue
        versions[name] = held + 1
        new[kind, key] = offered
        if held == 0:
            continue
        migrations[kind, key] = said.get(name) or said.get("") or sold.migrate or after.settings.migrate
        if migrations[kind, key] == "all":
            floors.pop(name, None)
        else:
            floors.setdefault(name, held)
    changes = tuple(_changes(before, after, new, migrations))
    return Draft(
        revision=(current.revision if current is not None else 0) + 1,
        document=after,
        changes=changes,
        versions=versions,
        published=new,
        migrations=migrations,
        floors=floors,
    )


def _meters_kept(
    before: CatalogDocument, wanted: CatalogDocument, published: Sequence[PlanVersionRow]
) -> list[FieldError]:
    """Faults of features whose usage is billed already, and would no longer reach the meter that bills it."""
    billed = {
        (one.feature, price.meter)
        for row in published
        for one in msgspec.convert(row.document, PlanVersion).entitlements
        if one.price_behaviour is not PriceBehaviour.OVERAGE
        for price in one.prices
        if price.meter is not None
    }
    return [
        FieldError(
            pointer_of("features", key, "stripe_meter"),
            Code.INVALID,
            f"must stay {meter}: prices were published that bill what this meter counts",
        )
        for key, meter in sorted(billed)
        if key in wanted.features
        and key in before.features
        and meter != meter_of(key, wanted.features[key], PriceBehaviour.PAY_AS_YOU_GO)
    ]


def _said(document: CatalogDocument, migrate: Mapping[str, Migrate]) -> dict[str, Migrate]:
    """Who migrates, by `plan:KEY` and `add_on:KEY`. Raises Refusal (422) for a key that is neither."""
    said = {"": migrate[""]} if "" in migrate else {}
    for name, wanted in migrate.items():
        meant = [f"{kind}:{key}" for kind, key, _ in document.sold() if name in {key, f"{kind}:{key}"}]
        if name and not meant:
            raise invalid("/migrate", f"There is no plan or add-on {name!r} to migrate.")
        said.update(dict.fromkeys(meant, wanted))
    return said


def _keeping_archived(before: CatalogDocument, wanted: CatalogDocument) -> CatalogDocument:
    """The wanted document, with what it no longer mentions added as archived: somebody may still hold it."""
    parts = {
        name: {
            **getattr(wanted, name),
            **{
                key: part.model_copy(update={"archived": True, **({"recommended": False} if name == "plans" else {})})
                for key, part in getattr(before, name).items()
                if key not in getattr(wanted, name)
            },
        }
        for name in ("features", "plans", "add_ons")
    }
    crowded = [
        FieldError(
            pointer_of(name),
            Code.INVALID,
            f"would be {len(parts[name])} with those published before, which stay as archived: at most {most} fit. "
            "Give the ones there are new terms instead of adding more",
        )
        for name, most in PARTS_MAX.items()
        if len(parts[name]) > most
    ]
    if crowded:
        raise refused(crowded)
    return wanted.model_copy(update=parts)


def _terms(version: PlanVersion) -> tuple[object, ...]:
    """What makes another version of a plan or add-on when it changes; the rest is how it is shown."""
    return (
        sorted(
            (
                msgspec.structs.replace(one, prices=tuple(sorted(map(price_terms, one.prices), key=_price_order)))
                for one in version.entitlements
            ),
            key=lambda one: one.feature,
        ),
        sorted(map(price_terms, version.prices), key=_price_order),
        version.trial_days,
        sorted(version.fits),
        version.is_contact_us,
    )


def _price_order(price: Price) -> tuple[str, str, int]:
    return (price.currency, price.interval.value, price.interval_count)


def _changes(
    before: CatalogDocument,
    after: CatalogDocument,
    published: Mapping[tuple[Kind, str], PlanVersion],
    migrations: Mapping[tuple[Kind, str], Migrate],
) -> Iterator[Change]:
    for role in ("initial_plan", "fallback_plan", "trial_expiry_plan"):
        old, new = getattr(before, role), getattr(after, role)
        if old != new:
            yield Change(kind="catalog", key=role, action="changed", details=(Detail(field="", before=old, after=new),))
    for name, old in before.settings.model_dump().items():
        new = getattr(after.settings, name)
        if old != new:
            yield Change(kind="setting", key=name, action="changed", details=(Detail(field="", before=old, after=new),))
    left, right = document_value(before), document_value(after)
    for key in after.features:
        change = _part(
            "feature", key, left.get("features", {}).get(key), right["features"][key], name=after.features[key].name
        )
        if change is not None:
            yield change
    for kind, key, sold in after.sold():
        section = "plans" if kind == "plan" else "add_ons"
        version = published.get((kind, key))
        change = _part(
            kind,
            key,
            _plain(before, kind, key, left.get(section, {}).get(key)),
            _plain(after, kind, key, right[section][key]) or {},
            name=sold.name,
            version=None if version is None else version.version,
        )
        if change is not None:
            yield msgspec.structs.replace(change, migrate=_who(migrations.get((kind, key))))
    old_audiences, new_audiences = left.get("audiences", {}), right.get("audiences", {})
    for key in dict.fromkeys([*new_audiences, *old_audiences]):
        change = _part("audience", key, old_audiences.get(key), new_audiences.get(key, {}), name=key)
        if change is not None:
            yield change if key in new_audiences else msgspec.structs.replace(change, action="removed")
    for section in ("features", "plans", "add_ons"):
        known = [key for key in getattr(before, section) if key in getattr(after, section)]
        shown = [key for key in getattr(after, section) if key in getattr(before, section)]
        if known != shown:
            detail = Detail(field="", before=", ".join(known), after=", ".join(shown))
            yield Change(
                kind="catalog", key=f"order of {section.replace('_', '-')}", action="changed", details=(detail,)
            )


def _who(migration: Migrate | None) -> Literal["all", "some", "none"] | None:
    return "some" if isinstance(migration, MigrationDocument) else migration


def _part(
    kind: Subject,
    key: str,
    before: Mapping[str, Json] | None,
    after: Mapping[str, Json],
    *,
    name: str,
    version: int | None = None,
) -> Change | None:
    if before is None:
        details = tuple(Detail(field=field, before=None, after=value) for field, value in _fields(after))
        return Change(kind=kind, key=key, action="added", name=name, version=version, details=details)
    old, new = dict(_fields(before)), dict(_fields(after))
    was_archived, is_archived = bool(old.pop("archived", False)), bool(new.pop("archived", False))
    details = tuple(
        Detail(field=field, before=old.get(field), after=new.get(field))
        for field in dict.fromkeys([*old, *new])
        if old.get(field) != new.get(field)
    )
    action: Action = "changed"
    if was_archived is not is_archived:
        action = "archived" if is_archived else "restored"
    elif not details and version is None:
        return None
    return Change(kind=kind, key=key, action=action, name=name, version=version, details=details)


def _fields(part: Mapping[str, Json]) -> Iterator[tuple[str, Json]]:
    """The fields of a part, its mappings one level down flattened: `entitlements.sso`, `prices.usd/month`."""
    for name, value in part.items():
        if name in {"entitlements", "prices"}:
            for key, one in value.items():
                yield f"{name}.{key}", one
        else:
            yield name, value


def _plain(
    document: CatalogDocument, kind: Kind, key: str, written: Mapping[str, Json] | None
) -> Mapping[str, Json] | None:
    """A plan or add-on with prices by currency and interval, and entitlements in full so that only meaning differs."""
    if written is None:
        return None
    sold = document.plans[key] if kind == "plan" else document.add_ons[key]
    plain = dict(written)
    adopted = {_price_name(price): price.stripe_price for price in sold.prices if price.stripe_price is not None}
    if sold.prices:
        plain["prices"] = {_price_name(price): _price_value(compiled_price(price)) for price in sold.prices}
    if sold.entitlements:
        plain["entitlements"] = {}
    for feature, entitled in sold.entitlements.items():
        whole = resolved_entitlement(feature, document.features[feature], entitled)
        plain["entitlements"][feature] = {
            name: value
            for name, value in msgspec.to_builtins(whole).items()
            if value is not None and name not in {"feature", "prices"} and (name, value) != ("stacking", "max")
        }
        if isinstance(entitled, EntitlementDocument) and entitled.prices:
            plain["entitlements"][feature]["prices"] = {
                _price_name(price): _price_value(one) for price, one in zip(entitled.prices, whole.prices, strict=True)
            }
            adopted |= {
                f"{feature} {_price_name(price)}": price.stripe_price
                for price in entitled.prices
                if price.stripe_price is not None
            }
    if adopted:
        plain["stripe_prices"] = adopted
    return plain


def _price_value(price: Price) -> Json:
    """A whole amount in minor units, or what else the price says; its currency and interval name it already."""
    said: dict[str, Json] = msgspec.to_builtins(price_terms(price))
    more = {
        name: value for name, value in said.items() if name not in {"currency", "interval", "interval_count", "meter"}
    }
    return price.amount_minor if more.keys() <= {"amount_minor"} else more


def _price_name(price: PriceDocument) -> str:
    count = "" if price.interval_count == 1 else f"{price.interval_count} "
    return f"{price.currency}/{count}{price.interval}"
