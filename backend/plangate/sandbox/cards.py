"""The test cards: what each of them does when it is saved and when it is charged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from .errors import ApiError, card_error

Obj = dict[str, Any]


@dataclass(frozen=True)
class Card:
    """``on_attach`` and ``on_charge`` say what happens; `once` needs a person only until authenticated."""

    number: str
    brand: str
    title: str
    on_attach: Literal["ok", "declined", "insufficient_funds", "expired"] = "ok"
    on_charge: Literal["ok", "declined", "insufficient_funds"] = "ok"
    authentication: Literal["never", "once", "always"] = "never"

    @property
    def last4(self) -> str:
        """The digits people see."""
        return self.number[-4:]


CARDS = {
    "visa": Card("4242424242424242", "visa", "Works"),
    "mastercard": Card("5555555555554444", "mastercard", "Works (Mastercard)"),
    "declined": Card("4000000000000002", "visa", "Declined", on_attach="declined"),
    "insufficient": Card(
        "4000000000009995", "visa", "Insufficient funds", on_attach="insufficient_funds", on_charge="insufficient_funds"
    ),
    "expired": Card("4000000000000069", "visa", "Expired card", on_attach="expired"),
    "fails_later": Card("4000000000000341", "visa", "Saves, then fails when charged", on_charge="declined"),
    "authenticate_once": Card("4000002500003155", "visa", "Needs authentication", authentication="once"),
    "authenticate_always": Card("4000002760003184", "visa", "Needs authentication every time", authentication="always"),
}

TOKENS = {
    "pm_card_visa": "visa",
    "pm_card_mastercard": "mastercard",
    "pm_card_chargeDeclined": "declined",
    "pm_card_visa_chargeDeclined": "declined",
    "pm_card_chargeDeclinedInsufficientFunds": "insufficient",
    "pm_card_visa_chargeDeclinedInsufficientFunds": "insufficient",
    "pm_card_chargeDeclinedExpiredCard": "expired",
    "pm_card_chargeCustomerFail": "fails_later",
    "pm_card_authenticationRequiredOnSetup": "authenticate_once",
    "pm_card_authenticationRequired": "authenticate_always",
    "pm_card_threeDSecure2Required": "authenticate_always",
    "tok_visa": "visa",
    "tok_mastercard": "mastercard",
    "tok_chargeDeclined": "declined",
    "tok_chargeCustomerFail": "fails_later",
}

Outcome = Literal["ok", "declined", "insufficient_funds", "expired", "authenticate"]


def card_named(number: str) -> str | None:
    """The card with this number; blanks do not matter."""
    digits = "".join(c for c in number if c.isdigit())
    return next((name for name, card in CARDS.items() if card.number == digits), None)


def charge_outcome(method: Obj) -> Outcome:
    """What charging a saved card would do now."""
    card = CARDS[method["_card"]]
    if card.on_charge != "ok":
        return card.on_charge
    if card.authentication == "always" or (card.authentication == "once" and not method["_authenticated"]):
        return "authenticate"
    return "ok"


def refusal(outcome: Outcome, extra: Obj | None = None) -> ApiError:
    """The card's refusal in Stripe's words."""
    if outcome == "insufficient_funds":
        return card_error(
            "card_declined", "Your card has insufficient funds.", decline_code="insufficient_funds", extra=extra
        )
    if outcome == "expired":
        return card_error("expired_card", "Your card has expired.", decline_code="expired_card", extra=extra)
    if outcome == "authenticate":
        return card_error(
            "authentication_required",
            "Your card was declined. This transaction requires authentication.",
            decline_code="authentication_required",
            extra=extra,
        )
    return card_error("card_declined", "Your card was declined.", decline_code="generic_decline", extra=extra)
