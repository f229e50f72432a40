"""The catalogue as code: what is on offer now, what a new document would change and for whom, and applying it.

A changed plan becomes a new version, which every holder gets at once; how a plan is shown changes without one.
"""

from plangate.catalog.impact import Effect, Impact, PlanImpact
from plangate.catalog.offer import PublicEntitlement, PublicPlan, PublicPrice, public_plans
from plangate.catalog.publishing import CatalogDiff, apply, current, current_document, plan
from plangate.catalog.revision import Change, Detail

__all__ = [
    "CatalogDiff",
    "Change",
    "Detail",
    "Effect",
    "Impact",
    "PlanImpact",
    "PublicEntitlement",
    "PublicPlan",
    "PublicPrice",
    "apply",
    "current",
    "current_document",
    "plan",
    "public_plans",
]
