"""What is agreed on with one company alone, kept as history: its grace days, and subscriptions that grant nothing.

A subscription is withheld while a refund or a dispute that took its access away is not decided for the customer.
"""

from collections.abc import Collection
from datetime import datetime
from typing import Any, Literal, NamedTuple

from sqlalchemy import select, update
from sqlmodel import Field, Index, SQLModel

from plangate.ids import new_id
from plangate.store.columns import Instant, JsonText
from plangate.store.companies import known_at
from plangate.store.database import StoreSession, table_of

TermKind = Literal["grace_days", "withheld", "deleted_customer"]


class CompanyTermRow(SQLModel, table=True):
    """One term: the days in `value` of `grace_days`, or in `subject` the Stripe subscription that is `withheld`, or the
    Stripe customer that was deleted: it names the company still, and can buy nothing.
    """

    __tablename__ = "company_terms"
    __table_args__ = (Index("company_terms_by_company", "environment_id", "company_id"),)

    id: str = Field(primary_key=True)
    environment_id: str
    company_id: str
    kind: str
    subject: str = ""
    value: Any = Field(default=None, sa_type=JsonText, nullable=True)
    recorded_at: datetime = Field(sa_type=Instant)
    superseded_at: datetime | None = Field(default=None, sa_type=Instant)


company_terms = table_of(CompanyTermRow)


class CompanyTerms(NamedTuple):
    """The terms of one company: its own grace days (None: the catalogue's), and the subscriptions withheld."""

    past_due_grace_days: int | None = None
    withheld: frozenset[str] = frozenset()


async def terms_of(session: StoreSession, company_id: str, *, at: datetime | None = None) -> CompanyTerms:
    """The company's terms as known at `at` (None: now)."""
    rows = await session.all(
        select(company_terms.c.kind, company_terms.c.subject, company_terms.c.value).where(
            company_terms.c.environment_id == session.environment_id,
            company_terms.c.company_id == company_id,
            known_at(company_terms, at),
        )
    )
    return read_terms([(row["kind"], row["subject"], row["value"]) for row in rows])


def read_terms(rows: list[tuple[str, str, Any]]) -> CompanyTerms:
    """The terms in `(kind, subject, value)` rows."""
    days = next((value for kind, _, value in rows if kind == "grace_days"), None)
    return CompanyTerms(days, frozenset(subject for kind, subject, _ in rows if kind == "withheld"))


async def set_grace_days(session: StoreSession, company_id: str, days: int | None) -> None:
    """Give the company its own grace days from now on; None lets it follow the catalogue's."""
    await _end(session, company_id, "grace_days", "")
    if days is not None:
        await _begin(session, company_id, "grace_days", "", days)


async def withhold(session: StoreSession, company_id: str, stripe_subscription_id: str, *, is_withheld: bool) -> None:
    """Let a subscription of the company grant nothing from now on, or again what it says."""
    await _end(session, company_id, "withheld", stripe_subscription_id)
    if is_withheld:
        await _begin(session, company_id, "withheld", stripe_subscription_id, True)


async def note_deleted_customers(session: StoreSession, company_id: str, stripe_customer_ids: Collection[str]) -> None:
    """Remember that these customers of the company were deleted in Stripe."""
    for stripe_customer_id in sorted(set(stripe_customer_ids) - await deleted_customers(session, company_id)):
        await _begin(session, company_id, "deleted_customer", stripe_customer_id, True)


async def deleted_customers(session: StoreSession, company_id: str) -> frozenset[str]:
    """The company's customers that were deleted in Stripe."""
    rows = await session.all(
        select(company_terms.c.subject).where(
            company_terms.c.environment_id == session.environment_id,
            company_terms.c.company_id == company_id,
            company_terms.c.kind == "deleted_customer",
            company_terms.c.superseded_at.is_(None),
        )
    )
    return frozenset(row["subject"] for row in rows)


async def move_terms(session: StoreSession, company_id: str, gone: CompanyTerms) -> None:
    """Give the company what was agreed on with one that was merged into it; its own grace days stay."""
    own = await terms_of(session, company_id)
    if own.past_due_grace_days is None and gone.past_due_grace_days is not None:
        await set_grace_days(session, company_id, gone.past_due_grace_days)
    for stripe_subscription_id in sorted(gone.withheld - own.withheld):
        await withhold(session, company_id, stripe_subscription_id, is_withheld=True)


async def _end(session: StoreSession, company_id: str, kind: TermKind, subject: str) -> None:
    await session.run(
        update(company_terms)
        .where(
            company_terms.c.environment_id == session.environment_id,
            company_terms.c.company_id == company_id,
            company_terms.c.kind == kind,
            company_terms.c.subject == subject,
            company_terms.c.superseded_at.is_(None),
        )
        .values(superseded_at=session.now)
    )


async def _begin(session: StoreSession, company_id: str, kind: TermKind, subject: str, value: object) -> None:
    await session.add(
        CompanyTermRow(
            id=new_id("trm"),
            environment_id=session.environment_id,
            company_id=company_id,
            kind=kind,
            subject=subject,
            value=value,
            recorded_at=session.now,
        )
    )
