"""The HTTP API: one module per noun, each ending in the table of its operations."""

from plangate.web.api import (
    asking,
    catalog,
    companies,
    environment,
    overrides,
    plan_changes,
    reservations,
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
    *catalog.OPERATIONS,
    *environment.OPERATIONS,
)
