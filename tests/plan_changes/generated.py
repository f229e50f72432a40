"""Random lives of subscribers: each change is previewed, confirmed, and compared with the invoices that come of it."""

import random
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from plangate import plan_changes
from plangate.errors import Code, Refusal
from plangate.mirroring import refetch
from plangate.shapes import ChangeKind, Money, NextInvoice, PlanChange, Quote
from tests.shop import DOCUMENT, STAFF, Shop, new_company

Invoice = dict[str, Any]

# A restart counts from the confirmation, which comes a moment after the preview.
_SECONDS_BETWEEN = 20
_DRAFT_SECONDS = 3_600
_DAY = 86_400


def _both(month: dict[str, Any], year: dict[str, Any]) -> list[dict[str, Any]]:
    """A price each month and one each year, in a currency with cents and in one without."""
    return [
        {"currency": currency, "interval": interval, **terms}
        for currency in ("usd", "jpy")
        for interval, terms in (("month", month), ("year", year))
    ]


def _in_both_currencies(sold: dict[str, Any]) -> dict[str, Any]:
    """A plan or add-on whose dollar prices are yen prices too."""
    return {**sold, "prices": [*sold["prices"], *({**price, "currency": "jpy"} for price in sold["prices"])]}


_QUARTERLY = {"currency": "usd", "interval": "month", "interval_count": 3, "amount_minor": 8_888}
_YEARLY = {"currency": "usd", "interval": "year", "amount_minor": 31_000}
_MONTHLY = {"currency": "usd", "interval": "month", "amount_minor": 777}

SOLD: dict[str, Any] = {
    **DOCUMENT,
    "features": {
        **DOCUMENT["features"],
        "seats": {"name": "Seats", "type": "seat", "trait": "seats"},
        "calls": {"name": "Calls", "type": "event"},
        "storage": {"name": "Storage", "type": "event"},
        "tokens": {"name": "Tokens", "type": "event"},
    },
    "plans": {
        **DOCUMENT["plans"],
        "starter": _in_both_currencies(DOCUMENT["plans"]["starter"]),
        "pro": _in_both_currencies(DOCUMENT["plans"]["pro"]),
        "team": {
            "name": "Team",
            "entitlements": {
                "exports": {"limit": 5000, "period": "billing_month"},
                "sso": True,
                "seats": {
                    "limit": 3,
                    "price_behaviour": "pay_in_advance",
                    "prices": _both({"amount_minor": 700}, {"amount_minor": 7100}),
                },
                "calls": {
                    "price_behaviour": "pay_as_you_go",
                    "prices": _both({"amount_decimal": "0.25"}, {"amount_decimal": "0.2"}),
                },
            },
            "trial_days": 14,
            "prices": _both({"amount_minor": 3333}, {"amount_minor": 29999}),
        },
        "scale": {
            "name": "Scale",
            "entitlements": {
                "exports": {"limit": 9000, "period": "billing_month"},
                "storage": {
                    "price_behaviour": "tiers",
                    "prices": _both(
                        {
                            "tiers_mode": "graduated",
                            "tiers": [
                                {"up_to": 10, "amount_minor": 0},
                                {"up_to": 100, "amount_minor": 7},
                                {"up_to": None, "amount_decimal": "4.5"},
                            ],
                        },
                        {
                            "tiers_mode": "volume",
                            "tiers": [
                                {"up_to": 50, "amount_minor": 9, "flat_amount_minor": 100},
                                {"up_to": None, "amount_minor": 6},
                            ],
                        },
                    ),
                },
                "calls": {
                    "price_behaviour": "pay_as_you_go",
                    "prices": _both(
                        {"amount_minor": 150, "package": {"size": 100}},
                        {"amount_minor": 140, "package": {"size": 100, "round": "down"}},
                    ),
                },
                "seats": {
                    "price_behaviour": "pay_in_advance",
                    "prices": _both(
                        {
                            "tiers_mode": "graduated",
                            "tiers": [
                                {"up_to": 5, "amount_minor": 600},
                                {"up_to": None, "amount_minor": 450},
                            ],
                        },
                        {"amount_minor": 1999, "package": {"size": 3}},
                    ),
                },
            },
            "prices": _both(
                {
                    "tiers_mode": "volume",
                    "tiers": [{"up_to": 4, "amount_minor": 5000}, {"up_to": None, "amount_minor": 4400}],
                },
                {"amount_minor": 48000, "package": {"size": 2}},
            ),
        },
        "season": {"name": "Season", "prices": _in_both_currencies({"prices": [_QUARTERLY, _YEARLY]})["prices"]},
        "metered": {
            "name": "Metered",
            "entitlements": {
                "calls": {
                    "price_behaviour": "pay_as_you_go",
                    "prices": _both({"amount_decimal": "0.4"}, {"amount_decimal": "0.35"}),
                },
            },
        },
    },
    "add_ons": {
        "extra-exports": {
            **_in_both_currencies(DOCUMENT["add_ons"]["extra-exports"]),
            "fits": ["starter", "pro", "team", "scale"],
        },
        "archive": {"name": "Archive", "prices": _in_both_currencies({"prices": [_MONTHLY]})["prices"]},
        "tokens": {
            "name": "Tokens",
            "entitlements": {
                "tokens": {
                    "price_behaviour": "pay_as_you_go",
                    "prices": _both({"amount_decimal": "1.5"}, {"amount_decimal": "1.25"}),
                },
                "seats": {
                    "price_behaviour": "pay_in_advance",
                    "prices": _both({"amount_minor": 330}, {"amount_minor": 3300}),
                },
            },
            "prices": _both({"amount_minor": 999}, {"amount_minor": 9999}),
        },
    },
}
_COUPONS: dict[str, dict[str, Any]] = {
    "ONCE": {"percent_off": 33, "duration": "once"},
    "ALWAYS": {"percent_off": 12.5, "duration": "forever"},
    "MONTHS": {"amount_off": 700, "currency": "usd", "duration": "repeating", "duration_in_months": 2},
}


def selling(seed: int) -> dict[str, Any]:
    """What is sold in one run: each proration setting in turn."""
    return {**SOLD, "settings": {"proration": ("charge_now", "next_invoice", "none")[seed // 100 % 3]}}


@dataclass
class Outcome:
    """What a run of lives came to: changes confirmed, renewals compared, and every difference in words."""

    changes: int = 0
    renewals: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    differences: list[str] = field(default_factory=list)


async def live(shop: Shop, *, seed: int, changes: int) -> Outcome:
    """Let subscribers of a shop that sells `SOLD` make this many changes, and compare each with its quote."""
    outcome = Outcome()
    codes = _promotion_codes(shop)
    rates = [
        shop.stripe.tax_rates.create({"display_name": "VAT", "percentage": 19, "inclusive": is_inclusive}).id
        for is_inclusive in (False, True)
    ]
    number = 0
    while outcome.changes < changes:
        number += 1
        chance = random.Random(f"{seed}:{number}")  # noqa: S311 - repeatable lives, no secret
        one = _Life(shop, chance, outcome, codes, rates, f"seed {seed} life {number}")
        await one.run(min(changes - outcome.changes, chance.randint(3, 8)))
    return outcome


def _promotion_codes(shop: Shop) -> list[str]:
    made = []
    for name, terms in _COUPONS.items():
        asked: Any = {"name": name, **terms}
        coupon = shop.stripe.coupons.create(asked)
        code = shop.stripe.promotion_codes.create({"promotion": {"type": "coupon", "coupon": coupon.id}, "code": name})
        made.append(code.id)
    return made


class _Life:
    """One company, from its first subscription on."""

    def __init__(
        self, shop: Shop, chance: random.Random, outcome: Outcome, codes: list[str], rates: list[str], name: str
    ) -> None:
        self.shop = shop
        self.chance = chance
        self.outcome = outcome
        self.codes = codes
        self.rates = rates
        self.currency = chance.choice(["usd", "usd", "jpy"])
        self.name = name
        self.customer = ""
        self.expected: NextInvoice | None = None
        self.meters = [one["event_name"] for one in shop.objects("billing.meter")]
        self.told: list[str] = []

    async def run(self, changes: int) -> None:
        self.shop.company_id = await new_company(self.shop.env, self.name.replace(" ", "-"))
        self.customer = await self.shop.customer("pm_card_visa" if self.chance.random() < 0.7 else None)
        if self.chance.random() < 0.4:
            self._credit()
        made = 0
        for _ in range(changes * 6):
            if made == changes:
                break
            made += await self._change()
            await self._pass_time()
        for subscription in self._subscriptions():
            # The next life shares the clock, and nobody pays for this one any more.
            self.shop.stripe.subscriptions.cancel(subscription)

    async def _change(self) -> bool:
        """One change, compared with its quote. Answers whether there was one."""
        await refetch(self.shop.env, self.shop.company_id)
        asked = self._wish()
        for _ in range(3):
            try:
                quote = await self.shop.preview(actor=STAFF, **asked)
                known, balance = {one["id"] for one in self._invoices()}, self._balance()
                change = await self.shop.confirm(quote, actor=STAFF)
                if change.next_action is not None:
                    change = await self._paid(change, change.next_action.url)
            except Refusal as refusal:
                if refusal.code is Code.QUOTE_STALE:
                    continue  # A second passed, and with it a cent.
                self.outcome.refused[refusal.code.value] += 1
                return False
            self.told = [*self.told, f"{shop_time(self.shop)} {asked}"][-6:]
            if change.state not in {"applied", "scheduled"}:
                self._differs(f"ended {change.state}")
            self.outcome.changes += 1
            self.outcome.kinds[quote.kind.value] += 1
            self._compare(quote, [one for one in self._invoices() if one["id"] not in known], balance)
            self.expected = quote.next_invoice
            return True
        self._differs("the quote went stale three times")
        return False

    async def _paid(self, change: PlanChange, url: str) -> PlanChange:
        """The customer pays on the hosted page and comes back."""
        if self.shop.pay(url) != 303:
            self._differs("the page was not paid")
        await plan_changes.settle_pending(self.shop.env, self.shop.company_id)
        return await plan_changes.get(self.shop.env, self.shop.company_id, change.id)

    def _wish(self) -> dict[str, Any]:
        chance = self.chance
        trials = [
            one.trial_end
            for one in self.shop.stripe.subscriptions.list({"customer": self.customer, "status": "trialing"}).data
        ]
        if trials and chance.random() < 0.3:
            if chance.random() < 0.3:
                return {"is_trial_over": True}
            ends = datetime.fromtimestamp(max(end or 0 for end in trials), UTC)
            return {"trial_end": (ends + timedelta(days=chance.randint(1, 20))).isoformat()}
        plans, intervals = ["starter", "pro", "team", "team", "scale", "scale", "metered", "season"], ["month", "year"]
        if not self._subscriptions():
            wish: dict[str, Any] = {
                "plan": chance.choice(plans),
                "interval": chance.choice(intervals),
                "currency": self.currency,
            }
            if chance.random() < 0.4:
                wish["quantities"] = {"plan": chance.randint(1, 9)}
        else:
            when = chance.choice(["auto", "auto", "now", "period_end"])
            wish = chance.choice(
                [
                    {"plan": chance.choice(plans), "when": when},
                    {"plan": chance.choice(plans), "interval": chance.choice(intervals), "when": when},
                    {"interval": chance.choice(intervals), "when": when},
                    {"quantities": {"plan": chance.randint(1, 12)}, "when": when},
                    {"plan": chance.choice(plans), "quantities": {"plan": chance.randint(1, 5)}, "when": when},
                    {"add_ons": {"extra-exports": chance.randint(0, 3)}, "when": when},
                    {"add_ons": {"archive": chance.randint(0, 2)}, "when": when},
                    {"add_ons": {"tokens": chance.randint(0, 2)}, "when": when},
                    {"quantities": {"seats": chance.randint(0, 12)}, "when": when},
                    {"quantities": {"tokens/seats": chance.randint(0, 4)}, "when": when},
                    {"plan": "team", "quantities": {"seats": chance.randint(1, 9)}, "when": when},
                    {"cancel": "period_end"},
                    {"cancel": chance.choice(["period_end", "now"])},
                    {"resume": True},
                    {"resume": True},
                ]
            )
        if chance.random() < 0.2 and not {"cancel", "resume"} & wish.keys():
            wish["promotion_code"] = chance.choice(self.codes)
        return wish

    def _compare(self, quote: Quote, made: list[Invoice], balance: int) -> None:
        """The invoice a change made, if any, is the one that was quoted."""
        due, credit, tax = quote.due_today.amount_minor, _amount(quote.credit), _amount(quote.tax)
        if len(made) > 1:
            self._differs(f"{len(made)} invoices were made")
        if not made:
            if due or credit or tax or self._balance() != balance:
                self._differs(f"{due} was quoted as due, credit {credit}, tax {tax}, and there is no invoice")
            if quote.lines:
                self._differs(f"there is no invoice to have the lines {quote.lines}")
            return
        (invoice,) = made[:1]
        if (due, credit) != (invoice["amount_due"], max(0, -invoice["total"])):
            self._differs(f"{due} due and credit {credit} quoted, invoice {invoice['amount_due']}/{invoice['total']}")
        if invoice["status"] != "paid":
            self._differs(f"the invoice is {invoice['status']}")
        if tax != sum(one["amount"] for one in invoice["total_taxes"] or []):
            self._differs(f"{tax} tax quoted, invoice {invoice['total_taxes']}")
        on_top = sum(one["amount"] for one in invoice["total_taxes"] or [] if one["tax_behavior"] == "exclusive")
        if sum(line.amount_minor for line in quote.lines) + on_top != due - credit:
            self._differs(f"lines and tax come to something else than {due - credit}: {quote.lines}")
        lines = [(line["description"], line["amount"]) for line in invoice["lines"]["data"]]
        if quote.kind is ChangeKind.CANCEL:
            lines = [line for line in lines if line[1]]  # What costs nothing until it is cancelled is not quoted.
        if [(line.description, line.amount_minor) for line in quote.lines][: len(lines)] != lines:
            self._differs(f"lines {quote.lines}, invoice {lines}")
        if self._balance() != balance + invoice["total"] - invoice["amount_due"]:
            self._differs(f"balance {balance} became {self._balance()}")

    async def _pass_time(self) -> None:
        seconds = self.chance.choice([60, 3_700, _DAY, 9 * _DAY, 17 * _DAY, 32 * _DAY]) + self.chance.randint(0, _DAY)
        until = self.shop.now().timestamp() + seconds
        if self.expected is not None and self.chance.random() < 0.3:
            until = max(until, self.expected.at.timestamp() + 2 * _DRAFT_SECONDS)
        while self.expected is not None and self.expected.at.timestamp() <= until - _DRAFT_SECONDS - _SECONDS_BETWEEN:
            expected, self.expected = self.expected, None
            known = {one["id"] for one in self._invoices()}
            self._move(int(expected.at.timestamp() - self.shop.now().timestamp()) + _DRAFT_SECONDS + _SECONDS_BETWEEN)
            self._compare_renewal(expected, [one for one in self._invoices() if one["id"] not in known])
        self._move(int(until - self.shop.now().timestamp()))
        if self.chance.random() < 0.25:
            self._stir()

    def _compare_renewal(self, expected: NextInvoice, made: list[Invoice]) -> None:
        self.outcome.renewals += 1
        if len(made) != 1:
            self._differs(f"{len(made)} renewals where {expected} was quoted")
            return
        (invoice,) = made
        if invoice["amount_due"] != expected.amount_minor:
            self._differs(f"{expected} was quoted, the renewal is {invoice['amount_due']} of {invoice['total']}")
        if abs(invoice["created"] - expected.at.timestamp()) > _SECONDS_BETWEEN:
            self._differs(f"{expected} was quoted, the renewal came at {invoice['created']}")

    def _stir(self) -> None:
        """Something that happens in Stripe beside us; what was quoted before it need not hold any more."""
        self.expected = None
        live = self._subscriptions()
        if not live or self.chance.random() < 0.5:
            self._credit()
        elif self.chance.random() < 0.5:
            self._use()
        elif self.chance.random() < 0.7:
            rates: Any = self.chance.choice([self.rates[:1], self.rates[1:], ""])
            self.shop.stripe.subscriptions.update(live[0], {"default_tax_rates": rates, "proration_behavior": "none"})

    def _use(self) -> None:
        """Usage reaches the meters; what was quoted before it lacked it."""
        for event_name in self.meters:
            if self.chance.random() < 0.6:
                self.shop.stripe.billing.meter_events.create(
                    {
                        "event_name": event_name,
                        "payload": {
                            "stripe_customer_id": self.customer,
                            "value": str(self.chance.choice([1, 17, 99, 100, 101, 250, 1_234])),
                        },
                        "timestamp": int(self.shop.now().timestamp()),
                    }
                )
        # A period that begins in the same second would count it too.
        self._move(2)

    def _credit(self) -> None:
        amount = self.chance.choice([-250, -1_700, -9_000, 400])
        given: Any = {"amount": amount, "currency": self.currency}
        self.shop.stripe.customers.balance_transactions.create(self.customer, given)

    def _move(self, seconds: int) -> None:
        if seconds > 0:
            self.shop.advance(f"PT{seconds}S")

    def _subscriptions(self) -> list[str]:
        return [one.id for one in self.shop.stripe.subscriptions.list({"customer": self.customer}).data]

    def _invoices(self) -> list[Invoice]:
        listed = self.shop.stripe.invoices.list({"customer": self.customer, "limit": 100})
        return [one.to_dict(for_json=True) for one in listed.data]

    def _balance(self) -> int:
        return self.shop.stripe.customers.retrieve(self.customer).balance or 0

    def _differs(self, words: str) -> None:
        self.outcome.differences.append(f"{self.name}: {words}\n    after " + "\n    then ".join(self.told))


def shop_time(shop: Shop) -> str:
    """The shop's instant, for the words of a difference."""
    at: datetime = shop.now()
    return at.strftime("%Y-%m-%d %H:%M:%S")


def _amount(money: Money | None) -> int:
    return 0 if money is None else money.amount_minor
