"""Every table in one place, so that migrations and tests see the whole schema."""

from sqlalchemy import MetaData
from sqlmodel import SQLModel

from plangate.store import (  # noqa: F401 - imported for their tables
    app_roles,
    audit,
    catalog,
    companies,
    environments,
    feed,
    idempotency,
    inbox,
    leases,
    meter_outbox,
    overage,
    overrides,
    plan_changes,
    reservations,
    subscriptions,
    usage,
    version_migrations,
)

metadata: MetaData = SQLModel.metadata
