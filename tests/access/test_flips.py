"""An override counts from its start and stops at its end, in every process and wherever the question is asked."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

from plangate import access, metering, overrides
from plangate.deployment import Deployment
from plangate.environment import Environment
from tests.world import ACTOR, make_company, publish

ACME = {"id": "acme"}
LATE = timedelta(seconds=1)


async def test_promise_6_an_override_flips_within_a_second_of_its_instant_everywhere(
    environment: Environment, deployment: Deployment
) -> None:
    await publish(environment)
    company = await make_company(environment)
    await metering.record(environment, [metering.TrackEvent(event="export", company=ACME, quantity=10)])
    elsewhere = await Deployment.open(deployment.settings)
    try:
        sides = {"here": environment, "elsewhere": elsewhere.named(None)}
        asked = {f"{name}: {kind}": ask for name, env in sides.items() for kind, ask in _ways(env, company.id).items()}
        # Everybody remembers the company before anything is granted.
        assert {name: await ask() for name, ask in asked.items()} == dict.fromkeys(asked, False)
        now = environment.clock.now()
        starts_at, expires_at = now + timedelta(seconds=0.5), now + timedelta(seconds=1.4)
        await overrides.grant(
            environment,
            company.id,
            feature="exports",
            mode="add",
            value=100_000,
            note="for a moment",
            actor=ACTOR,
            starts_at=starts_at,
            expires_at=expires_at,
        )
        seen: dict[str, list[tuple[datetime, bool]]] = {name: [] for name in asked}

        async def watch(name: str, ask: Callable[[], Awaitable[bool]]) -> None:
            while environment.clock.now() < expires_at + LATE:
                before = environment.clock.now()
                is_allowed = await ask()
                after = environment.clock.now()
                # An answer given while the instant passes may be either.
                if not before < starts_at <= after and not before < expires_at <= after:
                    seen[name].append((before, is_allowed))
                await asyncio.sleep(0.02)

        await asyncio.gather(*(watch(name, ask) for name, ask in asked.items()))
        for name, answers in seen.items():
            allowed = [at for at, is_allowed in answers if is_allowed]
            assert allowed, name
            # Never before its start, never after its end; late by no more than it takes another process to hear of it.
            assert starts_at <= allowed[0] < starts_at + LATE, name
            assert allowed[-1] < expires_at, name
            refused = [at for at, is_allowed in answers if not is_allowed and at >= starts_at + LATE]
            assert all(at >= expires_at for at in refused), name
    finally:
        await elsewhere.close()


def _ways(env: Environment, company_id: str) -> dict[str, Callable[[], Awaitable[bool]]]:
    """Every way to ask one process whether the company may export."""
    number = 0

    async def check() -> bool:
        return (await access.check(env, company=ACME, feature="exports")).allowed

    async def checks() -> bool:
        return (await access.checks(env, company=ACME))["exports"].allowed

    async def listed() -> bool:
        found = await access.entitlements(env, company_id)
        return next(one.allowed for one in found if one.feature == "exports")

    async def consume() -> bool:
        nonlocal number
        number += 1
        key = f"{id(env)}:{number}"
        decision, is_counted = await metering.consume(env, company=ACME, feature="exports", idempotency_key=key)
        assert decision.allowed is is_counted
        return is_counted

    async def reserve() -> bool:
        held = await metering.reserve(env, company=ACME, feature="exports", quantity=1)
        if held.id is not None:
            await metering.release(env, held.id)
        return held.id is not None

    return {"check": check, "checks": checks, "entitlements": listed, "consume": consume, "reserve": reserve}
