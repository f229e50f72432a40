"""Every route of Stripe's API that the stand-in answers, in one list."""

from __future__ import annotations

from .resources import (
    account,
    charges,
    checkout,
    coupons,
    customers,
    events,
    invoices,
    meters,
    payment_methods,
    portal,
    prices,
    products,
    schedules,
    subscriptions,
)
from .routing import Route

ROUTES: list[Route] = [
    route
    for module in (
        customers,
        products,
        prices,
        subscriptions,
        schedules,
        invoices,
        checkout,
        payment_methods,
        charges,
        portal,
        coupons,
        meters,
        events,
        account,
    )
    for route in module.ROUTES
]


def find_route(method: str, path: str) -> tuple[Route, tuple[str, ...]] | None:
    """The route for a request and the ids in its path; fixed paths win over ids."""
    for route in _SORTED:
        if route.method == method and (match := route.regex.match(path)):
            return route, match.groups()
    return None


_SORTED = sorted(ROUTES, key=lambda route: route.pattern.count("{}"))
