"""Exceptions for one company or one of its users, with an author, a note and dates, all of them kept for ever."""

from plangate.overrides.bulk import COMPANIES_AT_ONCE, Granted, companies_on_plan, grant_to_many
from plangate.overrides.granting import edit, grant, revoke
from plangate.overrides.reading import OverrideChange, changes, get, listing, search, view

__all__ = [
    "COMPANIES_AT_ONCE",
    "Granted",
    "OverrideChange",
    "changes",
    "companies_on_plan",
    "edit",
    "get",
    "grant",
    "grant_to_many",
    "listing",
    "revoke",
    "search",
    "view",
]
