"""One company's random life, with everything that can decide about it, and every answer given on the way."""

import random
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Any

from plangate import access, companies, drift, metering, overrides
from plangate.catalog import apply, carry_on_migrations
from plangate.catalog_document import Migrate, MigrationDocument
from plangate.companies import Assigned
from plangate.engine.decision import Decision
from plangate.environment import Environment
from plangate.errors import Code, Refusal
from plangate.metering import TrackEvent
from plangate.shapes import OverrideState
from tests.world import ACTOR, DOCUMENT, StillClock, fetched, monthly_item, price_of, still, subscription_of

ACME, TWIN, ADA, BOB = {"id": "acme"}, {"id": "twin"}, {"id": "ada"}, {"id": "bob"}
_ANYTHING_BUT_FAULTS = {
    Code.OVERRIDE_OVERLAP,
    Code.ADD_ON_UNFIT,
    Code.NOT_FOUND,
    Code.INVALID,
    Code.KEY_CONFLICT,
    Code.TIMESTAMP_TOO_OLD,
}

Question = tuple[Mapping[str, str], Mapping[str, str] | None]
Answers = Mapping[str, Decision]


def catalogue(chance: random.Random) -> dict[str, Any]:
    """A catalogue with rules, audiences, add-ons and prices; limits differ from one call to the next."""
    limit = {"limit": chance.randrange(5, 60), "period": chance.choice(["billing_month", "week"])}
    price = [{"currency": "usd", "interval": "month", "amount_minor": 1_900}]
    rule = {
        "key": "europe",
        "groups": [
            [{"kind": "trait", "trait": "region", "value": "eu"}, {"kind": "company", "values": ["crm=7"]}],
            [{"kind": "trait", "subject": "user", "trait": "role", "value": "owner"}],
            [{"kind": "usage", "feature": "exports", "operator": "gte", "value": 8}],
        ],
    }
    free = {**DOCUMENT["plans"]["free"]["entitlements"], "api-calls": {"limit": 9, "period": "day", "per": "user"}}
    features = {**DOCUMENT["features"], "sso": {**DOCUMENT["features"]["sso"], "flag": {"rules": [rule]}}}
    features["theme"] = {**features["theme"], "archived": chance.random() < 0.2}
    return {
        **DOCUMENT,
        "features": features,
        "plans": {
            "free": {**DOCUMENT["plans"]["free"], "entitlements": free},
            "pro": {**DOCUMENT["plans"]["pro"], "entitlements": {"exports": limit, "api-calls": 50}, "prices": price},
            "team": {"name": "Team", "entitlements": {"exports": limit, "seats": chance.randrange(2, 9)}},
        },
        "audiences": {
            "large": {"plan": "team", "groups": [[{"kind": "trait", "trait": "seats", "operator": "gte", "value": 4}]]}
        },
        "add_ons": {
            "more": {
                "name": "More",
                "entitlements": {"exports": {**limit, "limit": 7, "stacking": "sum"}},
                "prices": price,
            }
        },
    }


class Life:
    """Steps of a life: each lets time pass, does one thing, and writes down what is answered."""

    def __init__(self, environment: Environment, clock: StillClock, seed: int) -> None:
        self.environment = environment
        self.clock = clock
        self.chance = random.Random(seed)  # noqa: S311 - a repeatable life, not a secret
        self.answers: list[tuple[Question, Answers]] = []
        self.done: dict[str, int] = {}
        self._held: list[str] = []
        self._steps: tuple[Callable[[], Awaitable[None]], ...] = (
            self.use,
            self.use,
            self.consume,
            self.reserve,
            self.close,
            self.override,
            self.end_override,
            self.company,
            self.user,
            self.assign,
            self.publish,
            self.subscribe,
            self.merge,
        )

    async def begin(self) -> None:
        """A catalogue, and a company with a member."""
        await self.publish()
        self.done["publish"] = 1
        await companies.upsert(self.environment, keys=ACME, traits={"seats": 1}, actor=ACTOR)
        await companies.upsert_user(self.environment, keys=ADA, companies=[ACME])

    async def step(self) -> None:
        """Something happens, or is refused as it may be."""
        self.clock.advance(hours=self.chance.choice([0.01, 3, 30, 200]))
        doing = self.chance.choice(self._steps)
        try:
            await doing()
        except Refusal as refusal:
            if refusal.code not in _ANYTHING_BUT_FAULTS:
                raise
        else:
            name = doing.__name__
            self.done[name] = self.done.get(name, 0) + 1
        for company in (ACME, TWIN):
            for user in (None, ADA):
                self.answers.append(((company, user), await self._ask(company, user)))

    async def _ask(self, company: Mapping[str, str], user: Mapping[str, str] | None) -> Answers:
        return await access.checks(self.environment, company=company, user=user)

    def _any_company(self) -> Mapping[str, str]:
        return self.chance.choice([ACME, ACME, TWIN])

    async def _company_id(self, company: Mapping[str, str]) -> str:
        found = await companies.find(self.environment, company)
        if found is None:
            raise Refusal(Code.NOT_FOUND, "Not made yet.")
        return found

    async def use(self) -> None:
        """Report usage, late or corrected."""
        event = TrackEvent(
            event=self.chance.choice(["export", "api-calls"]),
            company=self._any_company(),
            user=self.chance.choice([None, ADA]),
            quantity=self.chance.randrange(-1, 6),
            occurred_at=self.clock.at - timedelta(hours=self.chance.choice([0, 1, 40, 400])),
        )
        await metering.record(self.environment, [event], may_correct=True)

    async def consume(self) -> None:
        """Ask and count."""
        await metering.consume(
            self.environment,
            company=self._any_company(),
            user=self.chance.choice([None, ADA]),
            feature=self.chance.choice(["exports", "api-calls"]),
            quantity=self.chance.randrange(1, 5),
            idempotency_key=str(self.chance.random()),
        )

    async def reserve(self) -> None:
        """Hold some."""
        held = await metering.reserve(
            self.environment,
            company=self._any_company(),
            user=self.chance.choice([None, ADA]),
            feature="exports",
            quantity=self.chance.randrange(1, 4),
            time_to_live=timedelta(hours=self.chance.choice([1, 20])),
        )
        if held.id is not None:
            self._held.append(held.id)

    async def close(self) -> None:
        """Settle or give back what is held; whatever was left too long expires."""
        await metering.release_expired(self.environment)
        if self._held:
            reservation = self._held.pop()
            if self.chance.random() < 0.5:
                await metering.settle(self.environment, reservation, self.chance.randrange(0, 6))
            else:
                await metering.release(self.environment, reservation)

    async def override(self) -> None:
        """Grant an exception, for now or later."""
        feature = self.chance.choice(["exports", "api-calls", "sso", "seats"])
        mode = "deny" if feature == "sso" else self.chance.choice(["set", "add"])
        await overrides.grant(
            self.environment,
            await self._company_id(self._any_company()),
            feature=feature,
            mode=mode,
            value=None if mode == "deny" else self.chance.randrange(1, 50),
            user=self.chance.choice([None, None, ADA]),
            period=self.chance.choice([None, "week"]) if feature == "exports" else None,
            starts_at=self.clock.at + timedelta(hours=self.chance.choice([0, 20])),
            expires_at=self.clock.at + timedelta(hours=self.chance.choice([30, 300])),
            note="Life",
            actor=ACTOR,
        )

    async def end_override(self) -> None:
        """Revoke one, or let it last."""
        for one in await overrides.listing(self.environment, await self._company_id(self._any_company())):
            if one.state in {OverrideState.ACTIVE, OverrideState.SCHEDULED}:
                if self.chance.random() < 0.5:
                    await overrides.revoke(self.environment, one.id, note="Life", actor=ACTOR)
                else:
                    changes = {"expires_at": None, "note": "For good"}
                    await overrides.edit(self.environment, one.id, etag=one.etag, changes=changes, actor=ACTOR)
                return

    async def company(self) -> None:
        """Traits that are counted, limited by and asked about; and now and then another key."""
        traits = {
            "seats": self.chance.randrange(6),
            "projects": self.chance.choice([1, "1", None]),
            "projects_bought": self.chance.choice([3, None]),
            "region": self.chance.choice(["eu", "us"]),
        }
        known = self._any_company()
        keys = {**known, "crm": str(self.chance.randrange(6, 9))} if self.chance.random() < 0.3 else known
        await companies.upsert(self.environment, keys=keys, traits=traits, actor=ACTOR)

    async def user(self) -> None:
        """A member comes, goes, or changes."""
        role = self.chance.choice(["owner", "guest", None])
        companies_of, left = self.chance.choice([([ACME], []), ([], [ACME]), ([], []), ([TWIN], [])])
        await companies.upsert_user(
            self.environment, keys=ADA, traits={"role": role}, companies=companies_of, left=left, actor=ACTOR
        )

    async def assign(self) -> None:
        """A plan or add-ons by hand."""
        wanted = self.chance.choice(
            [
                Assigned(plan="pro"),
                Assigned(plan="team"),
                Assigned(plan=None),
                Assigned(add_ons={"more": self.chance.randrange(0, 3)}),
            ]
        )
        await companies.upsert(self.environment, keys=self._any_company(), assigned=wanted, actor=ACTOR)

    async def publish(self) -> None:
        """Another catalogue, for everybody or only for those who come later."""
        some: Migrate = MigrationDocument(companies=["id=acme"])
        who: dict[str, Migrate] | None = (
            {"": self.chance.choice(("all", "none", some))} if "publish" in self.done else None
        )
        await apply(self.environment, catalogue(self.chance), actor=ACTOR, migrate=who)
        while await carry_on_migrations(self.environment):
            self.clock.advance(minutes=1)

    async def subscribe(self) -> None:
        """What a fetch from Stripe finds: a subscription in some status, from some day on."""
        company_id = await self._company_id(ACME)
        anchor = self.clock.at - timedelta(days=self.chance.choice([0, 10]))
        item = monthly_item(await price_of(self.environment, "pro"), anchor, anchor + timedelta(days=31))
        status = self.chance.choice(["active", "trialing", "past_due", "unpaid", "canceled"])
        fact = subscription_of(item, anchor_at=anchor, status=status)
        await fetched(self.environment, company_id, fact, state=str(self.chance.random()))

    async def merge(self) -> None:
        """The two companies turn out to be one, now and then; `twin` is made again by nobody."""
        if self.chance.random() < 0.5:
            await companies.upsert(self.environment, keys=TWIN, actor=ACTOR)
            return
        target, former = await self._company_id(ACME), await self._company_id(TWIN)
        if target == former:
            raise Refusal(Code.INVALID, "One already.")
        await companies.merge(self.environment, target, former, actor=ACTOR)


async def live(environment: Environment, seed: int, *, steps: int) -> tuple[int, list[str]]:
    """Live so many steps, then ask everything again. Answers how many Decisions were asked for, and which differ."""
    life = Life(environment, still(environment), seed)
    await life.begin()
    for _ in range(steps):
        await life.step()
    life.clock.advance(days=60)
    asked, mismatches = 0, [f"{one.subject}: {one.detail}" for one in await drift.usage_drift(environment)]
    for number, ((company, user), answers) in enumerate(life.answers):
        at = next(iter(answers.values())).at
        if at is None:
            raise LookupError("an answer has no instant")
        again = await access.checks(environment, company=company, user=user, at=at)
        asked += len(answers)
        for feature in answers.keys() | again.keys():
            if answers.get(feature) != again.get(feature):
                said = f"answer {number}, company {company}, user {user}: first {answers.get(feature)}"
                mismatches.append(f"{said}, again {again.get(feature)}")
    return asked, mismatches
