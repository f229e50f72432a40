"""Every table in one place, so that migrations and tests see the whole schema."""

from sqlalchemy import MetaData
from sqlmodel import SQLModel

from plangate.store import (  # noqa: F401 - imported for their tables
    app_roles,
    audit,
    catalog,
    catalog_drafts,
    companies,
    company_terms,
    environments,
    feed,
    idempotency,
    inbox,
    leases,
    meter_outbox,
    overage,
    overrides,
    plan_changes,
    price_mappings,
    reservations,
    reviews,
    subscriptions,
    usage,
    used_keys,
    version_migrations,
)

metadata: MetaData = SQLModel.metadata
