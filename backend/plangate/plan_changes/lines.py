"""What a subscription is to hold, item by item: the plan, what it grants for money, its add-ons and theirs."""

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

import msgspec

from plangate.billing.transport import StripeJson
from plangate.change_terms import OWN_PRICE, Line
from plangate.engine.catalog import Catalog, PlanVersion, Price, PriceOwner
from plangate.engine.facts import SubscriptionFact, SubscriptionItem
from plangate.engine.holding import Holding, sold_in_advance, unit_key
from plangate.engine.pricing import amount_of, price_among
from plangate.errors import Code, Refusal

_Fresh: TypeAlias = frozenset[tuple[str, str]]
_Held: TypeAlias = Mapping[tuple[str, str, str | None], tuple[SubscriptionItem, PriceOwner]]


class TargetLine(msgspec.Struct, frozen=True, kw_only=True):
    """One item the subscription is to hold, with what it stands for; `item` is the one that holds it already.

    `kind` is `other` for items the catalogue does not know, which are left exactly as they are. `feature` is set where
    the item pays for that alone. `quantity` is None for what is billed as it is used. `price` says what it costs;
    None where only Stripe knows.
    """

    kind: Literal["plan", "add_on", "other"]
    key: str
    stripe_price_id: str
    quantity: int | None
    feature: str | None = None
    name: str = ""
    price: Price | None = None
    item: SubscriptionItem | None = None

    @property
    def amount_minor(self) -> int:
        """What it costs each interval by the catalogue, in minor units; of usage, what none of it costs."""
        if self.price is not None:
            return amount_of(self.price, self.quantity or 0)
        each = self.item.unit_amount_minor if self.item is not None else None
        return (each or 0) * (self.quantity or 0)


def target_lines(
    catalog: Catalog,
    target: Holding,
    subscription: SubscriptionFact | None,
    *,
    company_id: str,
    renewed: tuple[str, str] | None = None,
) -> tuple[TargetLine, ...]:
    """All items the subscription is to hold: the plan first, then add-ons, then what the catalogue does not know.

    Beside each come the items for what it grants for money: what is billed as it is used, and what was bought in
    advance. Whatever is held already in the same interval keeps its price, also when that is archived; only the
    plan or add-on that is `renewed`, by kind and key, takes the price of its version.

    Raises Refusal when Stripe does not know a price yet, or a part is not sold in that currency and interval.
    """
    held = _held_items(catalog, subscription, company_id)
    fresh: _Fresh = frozenset() if renewed is None else frozenset({renewed})
    found: list[TargetLine] = []
    plan = catalog.newest("plan", target.plan) if target.plan is not None else None
    if plan is not None and target.version is not None:
        plan = catalog.version_of("plan", plan.key, target.version) or plan
    if plan is not None and (target.own_price is not None or not plan.is_free):
        found += _plan_lines(catalog, plan, target, held, fresh)
    for key, quantity in target.add_ons.items():
        add_on = catalog.newest("add_on", key)
        if add_on is not None:
            found += _add_on_lines(add_on, quantity, target, held, fresh)
    if subscription is not None:
        found += (
            TargetLine(
                kind="other",
                key=item.stripe_item_id,
                stripe_price_id=item.stripe_price_id,
                quantity=item.quantity,
                item=item,
            )
            for item in subscription.items
            if catalog.owner_of(item.stripe_price_id, company_id) is None
        )
    return tuple(found)


def item_params(
    catalog: Catalog, lines: Sequence[TargetLine], subscription: SubscriptionFact, *, company_id: str
) -> list[StripeJson]:
    """The `items` that turn the subscription into `lines`: changed, added and deleted ones; others are not named."""
    written: list[StripeJson] = []
    kept: set[str] = set()
    for line in lines:
        if line.item is None:
            written.append(_priced(line))
            continue
        kept.add(line.item.stripe_item_id)
        is_same = (line.item.stripe_price_id, line.item.quantity) == (line.stripe_price_id, line.quantity)
        if line.kind != "other" and not is_same:
            priced = _priced(line)
            if line.item.stripe_price_id == line.stripe_price_id:
                # A price that is held already need not be active, as long as it is not named again.
                priced.pop("price")
            written.append({"id": line.item.stripe_item_id, **priced})
    gone = [
        item.stripe_item_id
        for item in subscription.items
        if item.stripe_item_id not in kept and catalog.owner_of(item.stripe_price_id, company_id) is not None
    ]
    return [*written, *({"id": stripe_item_id, "deleted": True} for stripe_item_id in gone)]


def start_items(lines: Sequence[Line]) -> list[StripeJson]:
    """The `items` of a subscription that begins."""
    return [
        {"price": line.stripe_price_id} | ({"quantity": line.quantity} if line.quantity is not None else {})
        for line in lines
    ]


def held_plan_price(catalog: Catalog, subscription: SubscriptionFact, *, company_id: str) -> str | None:
    """The price of the base plan the subscription holds; of a plan without one, that of a part."""
    held = _held_items(catalog, subscription, company_id)
    ranked = sorted(
        (feature is not None, item.stripe_price_id) for (kind, _, feature), (item, _) in held.items() if kind == "plan"
    )
    return ranked[0][1] if ranked else None


def _held_items(catalog: Catalog, subscription: SubscriptionFact | None, company_id: str) -> _Held:
    """What each item of the subscription stands for, found by its price and never by its position."""
    held: dict[tuple[str, str, str | None], tuple[SubscriptionItem, PriceOwner]] = {}
    for item in subscription.items if subscription is not None else ():
        owner = catalog.owner_of(item.stripe_price_id, company_id)
        if owner is not None:
            held.setdefault((owner.kind, owner.key, owner.feature), (item, owner))
    return held


def _plan_lines(catalog: Catalog, plan: PlanVersion, target: Holding, held: _Held, fresh: _Fresh) -> list[TargetLine]:
    others = [found for (kind, _, feature), found in held.items() if kind == "plan" and feature is None]
    old = held.get(("plan", plan.key, None)) or next(iter(others), None)
    newest = catalog.newest("plan", plan.key)
    lines: list[TargetLine] = []
    own = target.own_price
    if own is not None:
        lines.append(
            TargetLine(
                kind="plan",
                key=plan.key,
                name=plan.name,
                stripe_price_id=own.stripe_price_id or OWN_PRICE,
                quantity=target.quantity,
                price=own,
                item=None if old is None else old[0],
            )
        )
    elif plan.prices:
        is_kept = old is not None and old[1].company_id is None and _is_of(old[1], plan, newest, fresh)
        lines.append(_line(plan, None, plan.prices, target.quantity, target, old, is_kept=is_kept))
    return [*lines, *_part_lines(plan, newest, target, held, fresh)]


def _add_on_lines(add_on: PlanVersion, quantity: int, target: Holding, held: _Held, fresh: _Fresh) -> list[TargetLine]:
    old = held.get(("add_on", add_on.key, None))
    lines = (
        [_line(add_on, None, add_on.prices, quantity, target, old, is_kept=("add_on", add_on.key) not in fresh)]
        if add_on.prices
        else []
    )
    return [*lines, *_part_lines(add_on, add_on, target, held, fresh)]


def _part_lines(
    version: PlanVersion, newest: PlanVersion | None, target: Holding, held: _Held, fresh: _Fresh
) -> list[TargetLine]:
    """The items for what a version grants for money. One of another plan for the same feature becomes this plan's."""
    advances = sold_in_advance(version)
    lines: list[TargetLine] = []
    for entitlement in version.entitlements:
        key = unit_key(version.kind, version.key, entitlement.feature)
        quantity = target.units.get(key, 0) if key in advances else None
        if not entitlement.prices or quantity == 0:
            continue
        old = held.get((version.kind, version.key, entitlement.feature))
        if old is None and version.kind == "plan":
            others = (
                found for (kind, _, feature), found in held.items() if (kind, feature) == ("plan", entitlement.feature)
            )
            old = next((one for one in others if one[0].is_metered is (quantity is None)), None)
        is_kept = old is not None and _is_of(old[1], version, newest, fresh) and old[0].is_metered is (quantity is None)
        lines.append(_line(version, entitlement.feature, entitlement.prices, quantity, target, old, is_kept=is_kept))
    return lines


def _is_of(owner: PriceOwner, version: PlanVersion, newest: PlanVersion | None, fresh: _Fresh) -> bool:
    """Whether a held price is that of the version. A price sells the newest; who holds an older one can be on that."""
    if (version.kind, version.key) in fresh:
        return False
    is_older = newest is not None and version.version < newest.version
    return owner.key == version.key and (owner.version == version.version or is_older)


def _line(
    version: PlanVersion,
    feature: str | None,
    prices: Sequence[Price],
    quantity: int | None,
    target: Holding,
    old: tuple[SubscriptionItem, PriceOwner] | None,
    *,
    is_kept: bool,
) -> TargetLine:
    item, owner = old if old is not None else (None, None)
    length = (target.interval, target.interval_count)
    is_as_long = item is not None and (item.interval, item.interval_count) == length
    # An add-on may be sold in other intervals than its plan: it stays in the one it is billed in then.
    is_not_sold_so = version.kind == "add_on" and feature is None and not _is_sold(prices, target)
    if is_kept and item is not None and owner is not None and (is_as_long or is_not_sold_so):
        price: Price | None = owner.price
        stripe_price_id: str | None = item.stripe_price_id
    else:
        price = price_among(prices, currency=target.currency, interval=length[0], interval_count=length[1])
        if price is None or (feature is not None and (price.interval, price.interval_count) != length):
            granting = " with all it grants" if feature is not None else ""
            raise Refusal(
                Code.INVALID,
                f"{version.name} is not sold in that currency and interval{granting}: choose another.",
                extra={"way_out": "choose_other"},
            )
        stripe_price_id = price.stripe_price_id
    if stripe_price_id is None:
        raise Refusal(
            Code.UNAVAILABLE,
            f"Stripe does not know a price of {version.name} in that currency and interval yet; apply the catalogue "
            "first.",
        )
    return TargetLine(
        kind=version.kind,
        key=version.key,
        feature=feature,
        name=version.name,
        stripe_price_id=stripe_price_id,
        quantity=quantity,
        price=price,
        item=item,
    )


def _is_sold(prices: Sequence[Price], target: Holding) -> bool:
    """Whether one of the prices is of the currency and interval of the target."""
    wanted = (target.currency, target.interval, target.interval_count)
    return any((price.currency, price.interval, price.interval_count) == wanted for price in prices)


def _priced(line: TargetLine) -> StripeJson:
    written: StripeJson = {"price": line.stripe_price_id}
    if line.quantity is not None:
        written["quantity"] = line.quantity
    return written
