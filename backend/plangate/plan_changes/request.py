"""What somebody asks for, and the holding it comes to: what is not mentioned stays as it is."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final, Literal

import msgspec

from plangate.engine.catalog import Catalog, PlanVersion
from plangate.engine.holding import Holding, sold_in_advance
from plangate.engine.pricing import price_for, prices_of
from plangate.engine.values import Interval
from plangate.errors import Code, Refusal, invalid
from plangate.plan_changes.custom import CustomPrice, checked_custom, price_agreed

_QUANTITY_MAX: Final = 1_000_000
_ENTRIES_MAX: Final = 50
_REASON_LENGTH_MAX: Final = 500
PLAN_QUANTITY: Final = "plan"


class Force(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Staff insists on a change that usage speaks against; the reason is kept in the audit."""

    reason: str


class ChangeRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A change asked for. `add_ons` and `quantities` give absolute numbers; 0 takes an add-on away.

    `interval_count` is every how many intervals is paid (3 months: quarterly); None takes what is paid already, or what
    is sold. `quantities` names the plan (its key, or `plan`), an add-on, or a feature that is paid in advance (of an
    add-on as `extra/seats`). `custom_price` is what sales agreed on with the company for the plan. `cancel` leads to
    the fallback plan, `resume` takes a scheduled change or end back, `trial_end` moves the end of a running trial (an
    instant that is over ends it), and `is_trial_over` ends it at once.
    """

    plan: str | None = None
    interval: Interval | None = None
    interval_count: int | None = None
    currency: str | None = None
    quantities: Mapping[str, int] = {}
    add_ons: Mapping[str, int] = {}
    cancel: Literal["now", "period_end"] | None = None
    resume: bool = False
    trial_end: datetime | None = None
    is_trial_over: bool = False
    custom_price: CustomPrice | None = None
    when: Literal["auto", "now", "period_end"] = "auto"
    promotion_code: str | None = None
    force: Force | None = None

    @property
    def moves_trial(self) -> bool:
        """Whether it is about the end of a running trial, and nothing else."""
        return self.is_trial_over or self.trial_end is not None

    @property
    def timing(self) -> Literal["auto", "now", "period_end"]:
        """When it should take effect: a cancellation says so itself."""
        return self.cancel or self.when


def checked(request: ChangeRequest) -> ChangeRequest:
    """The request, if it asks for one thing within bounds. Raises Refusal (422) naming the field at fault."""
    asked_for = [
        name
        for name, is_asked in (
            ("cancel", request.cancel is not None),
            ("resume", request.resume),
            ("trial_end", request.moves_trial),
            ("plan", _is_of_plan(request)),
        )
        if is_asked
    ]
    if not asked_for and request.currency is None:
        raise invalid(
            "",
            "Say what should change: plan, interval, quantities, add_ons, cancel, resume, trial_end or custom_price.",
        )
    if len(asked_for) > 1:
        raise invalid(f"/{asked_for[0]}", f"Ask for one thing at a time, not for {' and '.join(asked_for)}.")
    _refuse_beside(request, asked_for)
    for field, entries in (("quantities", request.quantities), ("add_ons", request.add_ons)):
        if len(entries) > _ENTRIES_MAX:
            raise invalid(f"/{field}", f"At most {_ENTRIES_MAX} entries are possible.")
        for key, quantity in entries.items():
            if not 0 <= quantity <= _QUANTITY_MAX:
                raise invalid(f"/{field}/{_escaped(key)}", f"A quantity lies between 0 and {_QUANTITY_MAX:,}.")
    if request.interval_count is not None and request.interval is None:
        raise invalid("/interval", "Say which interval is counted, such as month.")
    if request.force is not None and not 1 <= len(request.force.reason.strip()) <= _REASON_LENGTH_MAX:
        raise invalid("/force/reason", f"Give a reason of at most {_REASON_LENGTH_MAX} characters.")
    if request.trial_end is not None and request.trial_end.tzinfo is None:
        raise invalid("/trial_end", "Give the instant with its time zone, such as 2026-12-01T00:00:00Z.")
    if request.custom_price is not None:
        checked_custom(request.custom_price)
        if request.interval is not None or request.currency is not None:
            field = "/interval" if request.interval is not None else "/currency"
            raise invalid(field, "The custom price says its interval and currency itself.")
        if request.custom_price.starts_at is not None and request.when != "auto":
            raise invalid("/when", "The custom price says itself when it starts.")
    return request


def target_holding(catalog: Catalog, current: Holding, request: ChangeRequest) -> Holding:
    """What the company would be on. A change of plan or interval takes the newest version, others keep the one held."""
    if request.cancel is not None:
        return Holding(plan=catalog.fallback_plan)
    plan = request.plan or current.plan
    if plan is None:
        raise invalid("/plan", "The company is on no plan yet: name the one it should move to.")
    version = catalog.newest("plan", plan)
    if version is None:
        raise Refusal(Code.NOT_FOUND, "There is no such plan: choose one that is on sale.")
    custom = request.custom_price
    if version.is_free and custom is not None:
        raise invalid("/custom_price", f"{version.name} costs nothing: name the plan that was agreed on.")
    if version.is_free and not request.add_ons:
        return Holding(plan=plan)
    own_price = None if custom is None else price_agreed(custom, current.own_price if plan == current.plan else None)
    offered = prices_of(version)
    currency = request.currency or current.currency or (offered[0].currency if offered else None)
    every = request.interval, request.interval_count
    if own_price is not None:
        currency, every = own_price.currency, (own_price.interval, own_price.interval_count)
    interval, interval_count = _paid_every(version, current, plan, every, currency)
    is_same_base = (plan, interval, interval_count) == (current.plan, current.interval, current.interval_count)
    if is_same_base and own_price is None:
        own_price = current.own_price
    add_ons = {**current.add_ons, **request.add_ons}
    quantity = current.quantity if plan == current.plan else 1
    bought: dict[str, int] = {}
    for key, number in request.quantities.items():
        if key in request.add_ons or (key == PLAN_QUANTITY != plan and plan in request.quantities):
            raise invalid(f"/quantities/{_escaped(key)}", "This is named twice: give one number.")
        if key in {PLAN_QUANTITY, plan}:
            if number < 1:
                raise invalid(f"/quantities/{_escaped(key)}", "A plan is held at least once; cancel it instead.")
            if not version.prices and own_price is None:
                raise invalid(f"/quantities/{_escaped(key)}", f"{version.name} is not sold by number.")
            quantity = number
        elif catalog.newest("add_on", key) is not None:
            add_ons[key] = number
        else:
            bought[key] = number
    add_ons = {key: number for key, number in add_ons.items() if number > 0}
    return Holding(
        plan=plan,
        version=current.version if is_same_base else None,
        interval=interval,
        interval_count=interval_count,
        currency=currency,
        quantity=quantity,
        add_ons=add_ons,
        units=_units(catalog, current, (plan, current.version if is_same_base else None), add_ons, bought),
        own_price=own_price,
    )


def _paid_every(
    version: PlanVersion,
    current: Holding,
    plan: str,
    asked: tuple[Interval | None, int | None],
    currency: str | None,
) -> tuple[Interval, int]:
    """How often the plan would be paid: as asked, else as it is paid now, else as it is sold; monthly before others."""
    interval, interval_count = asked
    if interval is not None and interval_count is not None:
        return interval, interval_count
    wanted = interval or current.interval or Interval.MONTH
    if (plan, wanted) == (current.plan, current.interval):
        return wanted, current.interval_count
    counted = current.interval_count if wanted is current.interval else 1
    price = price_for(version, currency=currency, interval=wanted, interval_count=counted)
    is_free_to_choose = interval is None and current.interval is None
    if price is None or (price.interval is not wanted and not is_free_to_choose):
        return wanted, 1  # Not sold so: that is judged, and refused, with everything else.
    return price.interval, price.interval_count


def _refuse_beside(request: ChangeRequest, asked_for: Sequence[str]) -> None:
    """Raise Refusal (422) for what would say nothing, or the contrary, beside an end, a resumption or a trial."""
    asked = next((one for one in asked_for if one != "plan"), None)
    if asked is None:
        return
    if request.promotion_code is not None:
        raise invalid("/promotion_code", f"A promotion code comes with a plan, not with {asked}.")
    if request.when not in {"auto", request.cancel}:
        raise invalid("/when", f"When it happens is said by {asked} itself.")


def _is_of_plan(request: ChangeRequest) -> bool:
    """Whether anything about the plan is asked for that can be asked for together."""
    asked = (request.plan, request.interval, request.quantities, request.add_ons, request.custom_price)
    return any(bool(one) for one in asked)


def _units(
    catalog: Catalog,
    current: Holding,
    plan: tuple[str, int | None],
    add_ons: Mapping[str, int],
    bought: Mapping[str, int],
) -> dict[str, int]:
    """What is bought in advance afterwards: what is not mentioned stays, as far as it is sold beside the new plan."""
    key, number = plan
    version = (catalog.version_of("plan", key, number) if number is not None else None) or catalog.newest("plan", key)
    versions = [version, *(catalog.newest("add_on", add_on) for add_on in add_ons)]
    sold = {unit for one in versions if one is not None for unit in sold_in_advance(one)}
    for unit in bought:
        if unit not in sold:
            raise invalid(
                f"/quantities/{_escaped(unit)}", "This is neither the plan, nor an add-on, nor bought in advance."
            )
    units = {unit: count for unit, count in current.units.items() if unit in sold} | dict(bought)
    return {unit: count for unit, count in units.items() if count > 0}


def _escaped(key: str) -> str:
    """A key inside a JSON pointer (RFC 6901)."""
    return key.replace("~", "~0").replace("/", "~1")
