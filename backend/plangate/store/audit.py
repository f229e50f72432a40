"""The audit: who changed what, append-only, each entry carrying the hash of the one before it."""

import hashlib
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec
from sqlalchemy import select
from sqlmodel import Field, Index, SQLModel

from plangate.shapes import Actor
from plangate.store.columns import Instant, JsonText, json_text, to_microseconds
from plangate.store.database import StoreSession, table_of
from plangate.store.direct import Direct, Filled, together


class AuditTable(SQLModel, table=True):
    """The chain as it is stored; its entries are read and written as `AuditRow`."""

    __tablename__ = "audit"
    __table_args__ = (Index("audit_by_company", "environment_id", "company_id", "sequence"),)

    environment_id: str = Field(primary_key=True)
    sequence: int = Field(primary_key=True)
    company_id: str = ""
    actor: Any = Field(sa_type=JsonText)
    action: str
    subject: str
    before: Any = Field(default=None, sa_type=JsonText, nullable=True)
    after: Any = Field(default=None, sa_type=JsonText, nullable=True)
    note: str = ""
    at: datetime = Field(sa_type=Instant)
    previous_hash: str
    entry_hash: str


class AuditRow(msgspec.Struct, kw_only=True):
    """One entry of the chain. `subject` is the id of what was changed, such as an override or a plan change."""

    environment_id: str
    sequence: int
    company_id: str = ""
    actor: Any
    action: str
    subject: str
    before: Any = None
    after: Any = None
    note: str = ""
    at: datetime
    previous_hash: str
    entry_hash: str


class AuditHeadRow(SQLModel, table=True):
    """The end of an environment's chain: appending locks it, so that the chain has no branches."""

    __tablename__ = "audit_heads"

    environment_id: str = Field(primary_key=True)
    sequence: int = 0
    entry_hash: str = ""


_PAGE = 1_000

audit = table_of(AuditTable)
audit_heads = table_of(AuditHeadRow)

_HEAD: Final = Direct(
    sqlite="SELECT sequence, entry_hash FROM audit_heads WHERE environment_id = ?",
    postgresql="SELECT sequence, entry_hash FROM audit_heads WHERE environment_id = $1 FOR UPDATE",
)
_FIRST_HEAD: Final = Direct(
    sqlite="INSERT INTO audit_heads (environment_id, sequence, entry_hash) VALUES (?, 0, '') ON CONFLICT DO NOTHING",
    postgresql="""
        INSERT INTO audit_heads (environment_id, sequence, entry_hash) VALUES ($1, 0, '') ON CONFLICT DO NOTHING
    """,
)
_APPEND: Final = Direct(
    sqlite="""
        INSERT INTO audit (environment_id, sequence, company_id, actor, action, subject, before, after, note, at,
            previous_hash, entry_hash)
        SELECT ?1, json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'),
            json_extract(value, '$[3]'), json_extract(value, '$[4]'), json_extract(value, '$[5]'),
            json_extract(value, '$[6]'), json_extract(value, '$[7]'), json_extract(value, '$[8]'),
            json_extract(value, '$[9]'), json_extract(value, '$[10]')
        FROM json_each(?2)
    """,
    postgresql="""
        INSERT INTO audit (environment_id, sequence, company_id, actor, action, subject, before, after, note, at,
            previous_hash, entry_hash)
        SELECT $1, * FROM unnest($2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
            $9::text[], $10::bigint[], $11::text[], $12::text[])
    """,
    writes="audit",
)
_MOVE_HEAD: Final = Direct(
    sqlite="UPDATE audit_heads SET sequence = ?2, entry_hash = ?3 WHERE environment_id = ?1",
    postgresql="UPDATE audit_heads SET sequence = $2, entry_hash = $3 WHERE environment_id = $1",
    writes="audit_heads",
)


async def append_audit(
    session: StoreSession,
    *,
    actor: Actor,
    action: str,
    subject: str,
    company_id: str = "",
    before: object = None,
    after: object = None,
    note: str = "",
) -> None:
    """Append one entry in the same transaction as the change it tells of."""
    entry = audit_entry(
        session,
        actor=actor,
        action=action,
        subject=subject,
        company_id=company_id,
        before=before,
        after=after,
        note=note,
    )
    await append_entries(session, [entry])


async def append_entries(session: StoreSession, entries: Sequence[AuditRow]) -> None:
    """As `append_audit`, for several that were made by `audit_entry`."""
    if not entries:
        return
    (head,) = await together(session, _HEAD.of(session.environment_id))
    if not head:
        _, head = await together(session, _FIRST_HEAD.of(session.environment_id), _HEAD.of(session.environment_id))
    sequence, previous_hash = head[0]
    # The head is held already, so that nobody comes between.
    session.defer(*appending(entries, sequence, previous_hash))


def audit_entry(
    session: StoreSession,
    *,
    actor: Actor,
    action: str,
    subject: str,
    company_id: str = "",
    before: object = None,
    after: object = None,
    note: str = "",
) -> AuditRow:
    """An entry that has no place in the chain yet; `appending` gives it one."""
    return AuditRow(
        environment_id=session.environment_id,
        sequence=0,
        company_id=company_id,
        actor=msgspec.to_builtins(actor),
        action=action,
        subject=subject,
        before=msgspec.to_builtins(before),
        after=msgspec.to_builtins(after),
        note=note,
        at=session.now,
        previous_hash="",
        entry_hash="",
    )


def appending(entries: Sequence[AuditRow], sequence: int, head: str) -> list[Filled]:
    """The statements that append entries after the one of this sequence number and hash, which end the chain."""
    rows: list[tuple[object, ...]] = []
    for row in entries:
        row.sequence, row.previous_hash = sequence + 1, head
        sequence, head = row.sequence, entry_hash(row)
        row.entry_hash = head
        rows.append(
            (
                row.sequence,
                row.company_id,
                json_text(row.actor),
                row.action,
                row.subject,
                json_text(row.before),
                json_text(row.after),
                row.note,
                to_microseconds(row.at),
                row.previous_hash,
                row.entry_hash,
            )
        )
    if not rows:
        return []
    environment_id = entries[-1].environment_id
    return [_APPEND.for_all(rows, environment_id), _MOVE_HEAD.of(environment_id, sequence, head)]


async def audit_of(
    session: StoreSession, *company_ids: str, before: int | None = None, limit: int = 200
) -> list[AuditRow]:
    """The entries of these companies, newest first; with `before`, those of lower sequence numbers."""
    query = select(audit).where(
        audit.c.environment_id == session.environment_id, audit.c.company_id.in_(sorted(company_ids))
    )
    if before is not None:
        query = query.where(audit.c.sequence < before)
    rows = await session.all(query.order_by(audit.c.sequence.desc()).limit(limit))
    return [AuditRow(**row) for row in rows]


async def told_of(session: StoreSession, company_ids: Collection[str], action: str) -> set[tuple[str, str]]:
    """`(subject, instant)` of all entries of this action about these companies: the instant they speak of in `after`.

    The instant is that of the member `at`, as it is written.
    """
    rows = await session.all(
        select(audit.c.subject, audit.c.after).where(
            audit.c.environment_id == session.environment_id,
            audit.c.company_id.in_(sorted(company_ids)),
            audit.c.action == action,
        )
    )
    return {(row["subject"], row["after"]["at"]) for row in rows}


async def audit_between(
    session: StoreSession, company_ids: Collection[str], first_at: datetime, last_at: datetime
) -> list[AuditRow]:
    """The entries of these companies made in `[first_at, last_at]`, newest first."""
    rows = await session.all(
        select(audit)
        .where(
            audit.c.environment_id == session.environment_id,
            audit.c.company_id.in_(sorted(company_ids)),
            audit.c.at >= first_at,
            audit.c.at <= last_at,
        )
        .order_by(audit.c.sequence.desc())
    )
    return [AuditRow(**row) for row in rows]


async def audit_page(session: StoreSession, *, after: int, until: int) -> list[AuditRow]:
    """The environment's entries of sequence numbers in `(after, until]`, in the order they were made."""
    rows = await session.all(
        select(audit)
        .where(audit.c.environment_id == session.environment_id, audit.c.sequence > after, audit.c.sequence <= until)
        .order_by(audit.c.sequence)
    )
    return [AuditRow(**row) for row in rows]


async def audit_head(session: StoreSession) -> tuple[int, str]:
    """Where the environment's chain ends: the sequence number and hash of its newest entry; 0 and "" without any."""
    row = await session.one(select(audit_heads).where(audit_heads.c.environment_id == session.environment_id))
    return (0, "") if row is None else (row["sequence"], row["entry_hash"])


async def first_broken(session: StoreSession) -> tuple[int, str] | None:
    """The first place where the environment's chain is broken, with what is wrong there; None when it is whole.

    Entries made while it is read are left out.
    """
    sequence, previous = 0, ""
    last, last_hash = await audit_head(session)
    if last == 0 and await audit_page(session, after=0, until=_PAGE) and await audit_head(session) == (0, ""):
        return 1, "belongs to a chain whose end is missing"
    while rows := await audit_page(session, after=sequence, until=min(last, sequence + _PAGE)):
        for row in rows:
            if row.sequence != sequence + 1:
                return sequence + 1, "is missing"
            if row.previous_hash != previous:
                return row.sequence, "does not follow from the entry before it"
            if row.entry_hash != entry_hash(row):
                return row.sequence, "was changed"
            sequence, previous = row.sequence, row.entry_hash
    if (sequence, previous) != (last, last_hash):
        return sequence + 1, "and what follows is missing"
    return None


def entry_hash(row: AuditRow) -> str:
    """SHA-256 over everything the entry says and the hash before it, as canonical JSON."""
    said = [
        row.environment_id,
        row.sequence,
        row.company_id,
        row.actor,
        row.action,
        row.subject,
        row.before,
        row.after,
        row.note,
        to_microseconds(row.at),
        row.previous_hash,
    ]
    return hashlib.sha256(msgspec.json.encode(said, order="sorted")).hexdigest()
