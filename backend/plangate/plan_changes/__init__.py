"""Moves a company between plans and add-ons: preview (a signed quote), confirm, take back, and finish what is open."""

from plangate.plan_changes.custom import CustomPrice
from plangate.plan_changes.journey import (
    cancel_scheduled,
    confirm,
    get,
    listing,
    portal_url,
    preview,
    resume_unfinished,
    settle_pending,
)
from plangate.plan_changes.records import completed
from plangate.plan_changes.repricing import carry_on_repricing
from plangate.plan_changes.request import ChangeRequest, Force
from plangate.plan_changes.trials import plans_tried

__all__ = [
    "ChangeRequest",
    "CustomPrice",
    "Force",
    "cancel_scheduled",
    "carry_on_repricing",
    "completed",
    "confirm",
    "get",
    "listing",
    "plans_tried",
    "portal_url",
    "preview",
    "resume_unfinished",
    "settle_pending",
]
