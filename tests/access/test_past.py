"""Questions about the past are answered with what was known then, exactly as they were answered then."""

import random
from datetime import datetime, timedelta

import pytest

from plangate import access, companies, metering, overrides
from plangate.engine.decision import Decision, Reason
from plangate.environment import Environment
from plangate.errors import Code, Refusal
from plangate.metering import TrackEvent
from plangate.shapes import OverrideState
from tests.world import ACTOR, DOCUMENT, StillClock, make_company, publish, put_on, still

ACME = {"id": "acme"}
ADA = {"id": "ada"}


async def _exports(environment: Environment, at: datetime | None = None) -> Decision:
    return await access.check(environment, company=ACME, feature="exports", at=at)


async def test_a_future_instant_is_refused(environment: Environment) -> None:
    clock = still(environment)
    await publish(environment)
    company = await make_company(environment)
    ahead = clock.at + timedelta(minutes=1)
    for attempt in (
        access.check(environment, company=ACME, feature="exports", at=ahead),
        access.checks(environment, company=ACME, at=ahead),
        access.entitlements(environment, company.id, at=ahead),
    ):
        with pytest.raises(Refusal) as caught:
            await attempt
        assert (caught.value.status, caught.value.errors[0].pointer) == (422, "/at")
        assert caught.value.code is Code.TIMESTAMP_IN_FUTURE


async def test_before_a_company_was_known_it_is_unknown(environment: Environment) -> None:
    clock = still(environment)
    await publish(environment)
    before = clock.at
    clock.advance(days=1)
    await make_company(environment)
    assert (await _exports(environment, before)).reason is Reason.UNKNOWN_COMPANY
    assert (await _exports(environment, clock.at)).reason is Reason.WITHIN_LIMIT


async def test_a_late_event_was_not_known_before_it_arrived(environment: Environment) -> None:
    clock = still(environment)
    await publish(environment)
    await make_company(environment)
    clock.advance(hours=1)
    noon = clock.at
    clock.advance(hours=1)
    late = TrackEvent(event="export", company=ACME, quantity=4, occurred_at=noon - timedelta(minutes=5))
    await metering.record(environment, [late])
    assert (await _exports(environment, noon)).used == 0
    assert (await _exports(environment, clock.at)).used == 4


async def test_a_revoked_override_still_counted_then(environment: Environment) -> None:
    clock = still(environment)
    await publish(environment)
    company = await make_company(environment)
    granted = await overrides.grant(
        environment, company.id, feature="exports", mode="add", value=5, note="Trial", actor=ACTOR
    )
    then = clock.at
    clock.advance(hours=1)
    await overrides.revoke(environment, granted.id, note="Over", actor=ACTOR)
    assert ((await _exports(environment, then)).limit, (await _exports(environment, clock.at)).limit) == (15, 10)


class _Story:
    """Things that happen to a company in a random order, with every answer given on the way."""

    def __init__(self, environment: Environment, clock: StillClock, company_id: str, seed: int) -> None:
        self.environment = environment
        self.clock = clock
        self.company_id = company_id
        self.random = random.Random(seed)  # noqa: S311 - a reproducible story, not a secret
        self.answers: list[tuple[datetime, dict[str, Decision], dict[str, Decision]]] = []  # when, company's, user's

    async def step(self) -> None:
        """Let some time pass, let something happen, and write down what is answered."""
        self.clock.advance(hours=self.random.choice([0.1, 3, 30, 200]))
        await self.random.choice([self.use, self.use, self.consume, self.override, self.end, self.trait, self.move])()
        now = self.clock.at
        whole = await access.checks(self.environment, company=ACME)
        own = await access.checks(self.environment, company=ACME, user=ADA)
        assert all(one.at is not None and one.at > now for one in whole.values())
        self.answers.append((self.clock.at, whole, own))

    async def use(self) -> None:
        event = self.random.choice(["export", "api-calls"])
        ago = timedelta(hours=self.random.choice([0, 1, 40, 400]))
        await metering.record(
            self.environment,
            [
                TrackEvent(
                    event=event,
                    company=ACME,
                    user=self.random.choice([None, ADA]),
                    quantity=self.random.randrange(-1, 6),
                    occurred_at=self.clock.at - ago,
                )
            ],
            may_correct=True,
        )

    async def consume(self) -> None:
        await metering.consume(
            self.environment,
            company=ACME,
            user=self.random.choice([None, ADA]),
            feature=self.random.choice(["exports", "api-calls"]),
            quantity=self.random.randrange(1, 5),
            idempotency_key=str(self.random.random()),
        )

    async def override(self) -> None:
        feature = self.random.choice(["exports", "api-calls", "sso", "seats"])
        mode = "deny" if feature == "sso" else self.random.choice(["set", "add"])
        try:
            await overrides.grant(
                self.environment,
                self.company_id,
                feature=feature,
                mode=mode,
                value=None if mode == "deny" else self.random.randrange(1, 50),
                user=self.random.choice([None, None, ADA]),
                period=self.random.choice([None, "week"]) if feature == "exports" else None,
                starts_at=self.clock.at + timedelta(hours=self.random.choice([0, 20])),
                expires_at=self.clock.at + timedelta(hours=self.random.choice([30, 300])),
                note="Story",
                actor=ACTOR,
            )
        except Refusal as refusal:
            assert refusal.code is Code.OVERRIDE_OVERLAP  # noqa: PT017 - any other refusal is a fault

    async def end(self) -> None:
        for one in await overrides.listing(self.environment, self.company_id):
            if one.state in {OverrideState.ACTIVE, OverrideState.SCHEDULED}:
                await overrides.revoke(self.environment, one.id, note="Story", actor=ACTOR)
                return

    async def trait(self) -> None:
        traits = {"seats": self.random.randrange(5), "projects": self.random.choice([1, "1", None])}
        await companies.upsert(self.environment, keys=ACME, traits=traits, actor=ACTOR)

    async def move(self) -> None:
        if self.random.random() < 0.5:
            await put_on(self.environment, self.company_id, self.random.choice(["free", "pro"]))
            return
        plans = {**DOCUMENT["plans"], "pro": {**DOCUMENT["plans"]["pro"]}}
        limit = self.random.randrange(20, 2_000)
        plans["pro"]["entitlements"] = {
            **plans["pro"]["entitlements"],
            "exports": {"limit": limit, "period": "billing_month"},
        }
        await publish(self.environment, {**DOCUMENT, "plans": plans})


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_answers_given_on_the_way_are_given_again_later(environment: Environment, seed: int) -> None:
    clock = still(environment)
    await publish(environment)
    company = await make_company(environment, "acme", seats=1)
    await companies.upsert_user(environment, keys=ADA, companies=[ACME])
    story = _Story(environment, clock, company.id, seed)
    for _ in range(40):
        await story.step()
    reasons = {one.reason for _, whole, _ in story.answers for one in whole.values()}
    assert len(reasons) >= 4
    assert len({whole["exports"].used for _, whole, _ in story.answers}) > 3
    clock.advance(days=60)
    for _, whole, own in story.answers:
        for user, answers in ((None, whole), (ADA, own)):
            at = next(iter(answers.values())).at
            assert at is not None
            assert await access.checks(environment, company=ACME, user=user, at=at) == answers
