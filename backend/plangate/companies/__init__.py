"""Companies and their users: known by keys, described by traits; what they hold, and who changed what."""

from plangate.companies.assigning import Assigned
from plangate.companies.identify import find, upsert
from plangate.companies.merging import became, merge
from plangate.companies.reading import HistoryEntry, company_view, get, history, history_page, search
from plangate.companies.users import User, get_user, search_users, upsert_user

__all__ = [
    "Assigned",
    "HistoryEntry",
    "User",
    "became",
    "company_view",
    "find",
    "get",
    "get_user",
    "history",
    "history_page",
    "merge",
    "search",
    "search_users",
    "upsert",
    "upsert_user",
]
