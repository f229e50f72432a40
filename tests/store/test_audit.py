"""The audit is one unbroken chain, also under concurrency."""

import asyncio
from datetime import timedelta

import msgspec

from plangate.environment import Environment
from plangate.shapes import Actor
from plangate.store.audit import append_audit, audit_of, entry_hash

_CLI = Actor(kind="cli", id="plangate")


async def _append(environment: Environment, number: int) -> None:
    async with environment.writing() as session:
        await append_audit(
            session,
            actor=_CLI,
            action="override.granted",
            subject=f"ovr_{number}",
            company_id="comp_1",
            after={"n": number},
        )


async def test_concurrent_entries_form_one_chain(environment: Environment) -> None:
    await asyncio.gather(*(_append(environment, number) for number in range(20)))
    async with environment.reading() as session:
        entries = list(reversed(await audit_of(session, "comp_1")))
    assert [entry.sequence for entry in entries] == list(range(1, 21))
    previous = ""
    for entry in entries:
        assert entry.previous_hash == previous
        assert entry.entry_hash == entry_hash(entry)
        previous = entry.entry_hash


async def test_a_changed_entry_no_longer_matches_its_hash(environment: Environment) -> None:
    await _append(environment, 1)
    async with environment.reading() as session:
        (entry,) = await audit_of(session, "comp_1")
    for name, value in {"after": {"n": 2}, "note": "x", "at": entry.at + timedelta(seconds=1)}.items():
        changed = msgspec.structs.replace(entry, **{name: value})
        assert entry_hash(changed) != entry.entry_hash
