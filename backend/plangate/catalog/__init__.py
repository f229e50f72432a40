"""The catalogue as code: what is on offer now, what a new document would change and for whom, and applying it.

A changed plan becomes a new version, which all, some or none of its holders get; how it is shown changes without one.
"""

from plangate.catalog.drafting import (
    CatalogDraft,
    current_draft,
    diff_draft,
    discard_draft,
    publish_draft,
    save_draft,
)
from plangate.catalog.impact import Effect, Impact, PlanImpact
from plangate.catalog.importing import Imported, draft_from_stripe
from plangate.catalog.kept import KeptMigration, migrate_kept, plan_migration
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
from plangate.catalog.offer import PublicEntitlement, PublicPlan, PublicPrice, on_offer, public_plans
from plangate.catalog.price_moves import Repriced
from plangate.catalog.publishing import CatalogDiff, apply, current_document, current_revision, plan
from plangate.catalog.revision import Change, Detail
from plangate.catalog.shelf import tidy_shelf
from plangate.catalog.stripe_side import StripeCall

__all__ = [
    "CatalogDiff",
    "CatalogDraft",
    "Change",
    "Detail",
    "Effect",
    "Impact",
    "Imported",
    "KeptMigration",
    "MigratingCompany",
    "Migration",
    "PlanImpact",
    "ProductPage",
    "Proration",
    "PublicEntitlement",
    "PublicPlan",
    "PublicPrice",
    "Repriced",
    "StripeCall",
    "Target",
    "apply",
    "carry_on_migrations",
    "current_document",
    "current_draft",
    "current_revision",
    "diff_draft",
    "discard_draft",
    "draft_from_stripe",
    "map_product",
    "migrate_kept",
    "migrating_companies",
    "migration",
    "migrations",
    "on_offer",
    "plan",
    "plan_migration",
    "product_page",
    "public_plans",
    "publish_draft",
    "read_migrations",
    "retry_migration",
    "save_draft",
    "tidy_shelf",
]
