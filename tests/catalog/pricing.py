"""A catalogue that charges in every way there is: what tests of the catalogue's Stripe side start from."""

import copy
from typing import Any

FEATURES: dict[str, Any] = {
    "exports": {"name": "Exports", "type": "event", "unit": "export", "units": "exports"},
    "messages": {"name": "Messages", "type": "event"},
    "calls": {"name": "API calls", "type": "event", "description": "Calls to our API."},
    "seats": {"name": "Seats", "type": "seat", "trait": "seats"},
}
STEPS: list[dict[str, Any]] = [
    {"up_to": 1000, "amount_minor": 0, "flat_amount_minor": 500},
    {"up_to": None, "amount_decimal": "0.25"},
]


def monthly(**said: object) -> dict[str, Any]:
    """A price in dollars each month."""
    return {"currency": "usd", "interval": "month", **said}


def priced() -> dict[str, Any]:
    """Pro with every behaviour, Team with volume tiers by seat, an add-on in packages."""
    return copy.deepcopy(
        {
            "version": 1,
            "features": FEATURES,
            "plans": {
                "free": {"name": "Free", "entitlements": {"exports": 10}},
                "pro": {
                    "name": "Pro",
                    "description": "For companies.",
                    "entitlements": {
                        "seats": {
                            "limit": 5,
                            "price_behaviour": "pay_in_advance",
                            "prices": [monthly(amount_minor=900)],
                        },
                        "exports": {
                            "price_behaviour": "pay_as_you_go",
                            "prices": [monthly(amount_decimal="0.50")],
                        },
                        "messages": {
                            "price_behaviour": "tiers",
                            "prices": [monthly(tiers_mode="graduated", tiers=STEPS)],
                        },
                        "calls": {
                            "soft_limit": 10_000,
                            "price_behaviour": "overage",
                            "prices": [monthly(amount_minor=200, package={"size": 1000})],
                        },
                    },
                    "prices": [monthly(amount_minor=4900)],
                },
                "team": {
                    "name": "Team",
                    "prices": [
                        monthly(
                            tiers_mode="volume",
                            tiers=[{"up_to": 10, "amount_minor": 1000}, {"up_to": None, "amount_minor": 800}],
                        ),
                        {"currency": "eur", "interval": "year", "amount_minor": 9000},
                    ],
                },
            },
            "add_ons": {
                "storage": {
                    "name": "Storage",
                    "prices": [monthly(amount_minor=100, package={"size": 10, "round": "down"})],
                }
            },
        }
    )
