"""The HTTP API: one module per noun, each ending in the table of its operations."""

from plangate.web.api import (
    asking,
    catalog,
    companies,
    environment,
    inbox,
    overrides,
    plan_changes,
    reservations,
    reviews,
    usage,
    users,
)
from plangate.web.operations import Operation

OPERATIONS: tuple[Operation, ...] = (
    *asking.OPERATIONS,
    *reservations.OPERATIONS,
    *companies.OPERATIONS,
    *usage.OPERATIONS,
    *users.OPERATIONS,
    *overrides.OPERATIONS,
    *plan_changes.OPERATIONS,
    *reviews.OPERATIONS,
    *catalog.OPERATIONS,
    *inbox.OPERATIONS,
    *environment.OPERATIONS,
)
