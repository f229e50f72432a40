"""Companies and their users: known by keys, described by traits; what they hold, and who changed what."""

from plangate.companies.identify import User, find, upsert, upsert_user
from plangate.companies.reading import HistoryEntry, company_view, get, history, search

__all__ = [
    "HistoryEntry",
    "User",
    "company_view",
    "find",
    "get",
    "history",
    "search",
    "upsert",
    "upsert_user",
]
