"""The catalogue as code: what is on offer now, what a new document would change and for whom, and applying it.

A changed plan becomes a new version, which all, some or none of its holders get; how it is shown changes without one.
"""

from plangate.catalog.impact import Effect, Impact, PlanImpact
from plangate.catalog.importing import Imported, draft_from_stripe
from plangate.catalog.mapping import ProductPage, Target, map_product, product_page
from plangate.catalog.migrating import (
    MigratingCompany,
    Migration,
    Proration,
    carry_on_migrations,
    migrating_companies,
    migration,
    migrations,
    read_migrations,
    retry_migration,
)
from plangate.catalog.offer import PublicEntitlement, PublicPlan, PublicPrice, public_plans
from plangate.catalog.publishing import CatalogDiff, apply, current_document, current_revision, plan
from plangate.catalog.revision import Change, Detail
from plangate.catalog.shelf import tidy_shelf
from plangate.catalog.stripe_side import StripeCall

__all__ = [
    "CatalogDiff",
    "Change",
    "Detail",
    "Effect",
    "Impact",
    "Imported",
    "MigratingCompany",
    "Migration",
    "PlanImpact",
    "ProductPage",
    "Proration",
    "PublicEntitlement",
    "PublicPlan",
    "PublicPrice",
    "StripeCall",
    "Target",
    "apply",
    "carry_on_migrations",
    "current_document",
    "current_revision",
    "draft_from_stripe",
    "map_product",
    "migrating_companies",
    "migration",
    "migrations",
    "plan",
    "product_page",
    "public_plans",
    "read_migrations",
    "retry_migration",
    "tidy_shelf",
]
