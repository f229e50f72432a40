"""Companies and their users: known by keys, described by traits; what they hold, and who changed what."""

from plangate.companies.assigning import Assigned
from plangate.companies.identify import User, find, upsert, upsert_user
from plangate.companies.merging import became, merge
from plangate.companies.reading import HistoryEntry, company_view, get, history, history_page, search

__all__ = [
    "Assigned",
    "HistoryEntry",
    "User",
    "became",
    "company_view",
    "find",
    "get",
    "history",
    "history_page",
    "merge",
    "search",
    "upsert",
    "upsert_user",
]
