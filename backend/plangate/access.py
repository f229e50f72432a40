"""May this company, or this user of it, do something? What does it have, now or then, and why.

The present is answered from memory; a past instant from the store, with what was known then. Both end in the engine's
one function, as every other surface does.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime

from plangate.counted_events import event_of
from plangate.engine.catalog import Catalog
from plangate.engine.decide import decide, decisions, unanswerable
from plangate.engine.decision import Decision, Reason
from plangate.engine.entitlements import build_snapshot, window_kinds
from plangate.engine.facts import Counters, UserFacts, WindowCounter
from plangate.engine.snapshot import CompanySnapshot, CounterKey
from plangate.engine.values import INT64_MAX
from plangate.environment import Environment, one_owner
from plangate.errors import Code, Refusal, invalid
from plangate.members import member, one_user
from plangate.standing import Standing
from plangate.store.companies import owners_of_keys
from plangate.store.database import StoreSession
from plangate.store.ledger import ledger_total
from plangate.store.reservations import held_total
from plangate.store.snapshot import company_facts
from plangate.store.usage import known_windows
from plangate.store.users import user_facts, user_of_keys

FEATURES_PER_QUESTION = 1_000


async def check(
    env: Environment,
    *,
    company: Mapping[str, str],
    feature: str,
    user: Mapping[str, str] | None = None,
    quantity: int = 1,
    at: datetime | None = None,
    trace: bool = False,
    at_least: int = 0,
) -> Decision:
    """May the company (and user) use `quantity` base units more of a feature? Nothing is counted.

    `company` and `user` are keys, `name: value`. `at` asks about a past instant, answered with what was known then.
    `at_least` is a company version the answer must not be older than. What is unknown is a reason, not an error.
    Raises Refusal: 422 for a quantity outside `[0, 2**63)` or a future `at`, 409 for keys of two companies or users.
    """
    if not 0 <= quantity <= INT64_MAX:
        raise invalid("/quantity", "The quantity must be a whole number between 0 and 9223372036854775807.")
    if at is not None:
        answers = await _then(env, company, user, [feature], at, quantity=quantity, with_trace=trace)
        return answers[feature]
    standing = await _standing(env, company, at_least)
    if standing is None:
        return unanswerable(Reason.UNKNOWN_COMPANY, feature, at=env.clock.now())
    person = None
    if user is not None:
        person = await member(env, standing, user)
        if person is None:
            return unanswerable(Reason.UNKNOWN_USER, feature, at=env.clock.now(), company=standing.facts.company_id)
    return check_now(env, standing, feature, quantity=quantity, user=person, trace=trace)


def check_now(
    env: Environment,
    standing: Standing,
    feature: str,
    *,
    quantity: int = 1,
    user: UserFacts | None = None,
    at: datetime | None = None,
    trace: bool = False,
) -> Decision:
    """As `check` for the present, when standing and user are in memory already: no waiting, no database.

    `at` is the environment's business time read by the caller (default: read here). The caller has seen to it that
    `quantity` is not negative.
    """
    now = env.clock.now() if at is None else at
    return decide(
        standing.snapshot_at(now),
        feature,
        standing.counters,
        at=now,
        quantity=quantity,
        user=user,
        with_trace=trace,
        catalog=standing.catalog,
    )


async def checks(
    env: Environment,
    *,
    company: Mapping[str, str],
    user: Mapping[str, str] | None = None,
    features: Sequence[str] | None = None,
    at: datetime | None = None,
    at_least: int = 0,
) -> dict[str, Decision]:
    """One Decision for each feature named, or for every feature of the catalogue. Raises as `check` does.

    An unknown company or user is the reason of every Decision.
    """
    if features is not None and len(features) > FEATURES_PER_QUESTION:
        raise invalid("/features", f"At most {FEATURES_PER_QUESTION} features may be named.")
    if at is not None:
        return await _then(env, company, user, features, at)
    standing = await _standing(env, company, at_least)
    now = env.clock.now()
    if standing is None:
        return _nobody(features, await env.catalog(), Reason.UNKNOWN_COMPANY, at=now)
    person = None
    if user is not None:
        person = await member(env, standing, user)
        if person is None:
            company_id = standing.facts.company_id
            return _nobody(features, standing.catalog, Reason.UNKNOWN_USER, at=now, company=company_id)
    return checks_now(env, standing, features, user=person, at=now)


def checks_now(
    env: Environment,
    standing: Standing,
    features: Sequence[str] | None = None,
    *,
    user: UserFacts | None = None,
    at: datetime | None = None,
) -> dict[str, Decision]:
    """As `checks` for the present, from memory alone."""
    now = env.clock.now() if at is None else at
    return decisions(standing.snapshot_at(now), standing.counters, at=now, features=features, user=user)


async def entitlements(
    env: Environment, company_id: str, *, at: datetime | None = None, trace: bool = False, at_least: int = 0
) -> list[Decision]:
    """What the company has: one Decision per feature, in the catalogue's order, archived features left out.

    Raises Refusal: 404 for an unknown company (or one unknown at `at`), 422 for a future `at`.
    """
    if at is not None:
        _not_in_future(env, at)
        async with env.reading() as session:
            past = await _past_of(env, session, company_id, None, at)
        if past is None:
            raise _no_company()
        return list(past.answer(past.open_features(), with_trace=trace).values())
    standing = await env.standings.of(company_id, at_least=at_least)
    if standing is None:
        raise _no_company()
    now = env.clock.now()
    snapshot = standing.snapshot_at(now)
    if not trace:
        return list(decisions(snapshot, standing.counters, at=now).values())
    return [
        check_now(env, standing, key, at=now, trace=True)
        for key, compiled in snapshot.features.items()
        if not compiled.feature.is_archived
    ]


class _Past:
    """What was known of one company at one instant."""

    def __init__(
        self, snapshot: CompanySnapshot, catalog: Catalog, counters: Counters, user: UserFacts | None, at: datetime
    ) -> None:
        self._snapshot = snapshot
        self._catalog = catalog
        self._counters = counters
        self._user = user
        self._at = at

    def open_features(self) -> list[str]:
        """Every feature of the catalogue of then, archived ones left out."""
        return [key for key, compiled in self._snapshot.features.items() if not compiled.feature.is_archived]

    def answer(self, features: Sequence[str], *, quantity: int = 1, with_trace: bool = False) -> dict[str, Decision]:
        """One Decision for each feature, as it would have been given then."""
        return {
            key: decide(
                self._snapshot,
                key,
                self._counters,
                at=self._at,
                quantity=quantity,
                user=self._user,
                with_trace=with_trace,
                catalog=self._catalog,
            )
            for key in features
        }


async def _then(
    env: Environment,
    company: Mapping[str, str],
    user: Mapping[str, str] | None,
    features: Sequence[str] | None,
    at: datetime,
    *,
    quantity: int = 1,
    with_trace: bool = False,
) -> dict[str, Decision]:
    _not_in_future(env, at)
    async with env.reading() as session:
        company_id = one_owner(await owners_of_keys(session, company, at=at))
        person: UserFacts | None = None
        reason = Reason.UNKNOWN_COMPANY
        past: _Past | None = None
        if company_id is not None:
            if user is not None:
                user_id = one_user(await user_of_keys(session, user, at=at))
                person = None if user_id is None else await user_facts(session, company_id, user_id, at=at)
            past = await _past_of(env, session, company_id, person, at, features=features)
            if past is not None and user is not None and person is None:
                past, reason = None, Reason.UNKNOWN_USER
        if past is None:
            known_company = company_id if reason is Reason.UNKNOWN_USER else None
            catalog = await env.catalog_in(session, at=at)
            return _nobody(features, catalog, reason, at=at, company=known_company)
    return past.answer(past.open_features() if features is None else features, quantity=quantity, with_trace=with_trace)


async def _past_of(
    env: Environment,
    session: StoreSession,
    company_id: str,
    user: UserFacts | None,
    at: datetime,
    *,
    features: Sequence[str] | None = None,
) -> _Past | None:
    facts = await company_facts(session, company_id, at=at)
    if facts is None:
        return None
    catalog = await env.catalog_in(session, at=at)
    # Rules may ask for the usage of other features, so those questions need every counter.
    wanted = set(catalog.features)
    if features is not None and not any(
        catalog.features[key].flag.rules for key in features if key in catalog.features
    ):
        wanted &= set(features)
    counters: dict[CounterKey, WindowCounter] = {}
    for key, window in (await known_windows(session, company_id, at)).items():
        feature_key, kind, user_id = key
        if feature_key not in wanted or user_id not in {"", None if user is None else user.user_id}:
            continue
        if kind not in window_kinds(catalog, feature_key, facts.overrides):
            continue
        counters[key] = window
        if window.end_at is not None and window.end_at <= at:
            continue
        event = event_of(catalog.features[feature_key])
        start_at, end_at = window.start_at, window.end_at
        window.used = await ledger_total(
            session, company_id, event, start_at=start_at, end_at=end_at, user_id=user_id, known_at=at
        )
        window.reserved = await held_total(
            session, company_id, event, start_at=start_at, end_at=end_at, user_id=user_id, at=at
        )
    return _Past(build_snapshot(catalog, facts, at), catalog, counters, user, at)


async def _standing(env: Environment, company: Mapping[str, str], at_least: int) -> Standing | None:
    standing = await env.standings.of_keys(company)
    if standing is not None and standing.facts.version < at_least:
        return await env.standings.of(standing.facts.company_id, at_least=at_least)
    return standing


def _nobody(
    features: Sequence[str] | None, catalog: Catalog, reason: Reason, *, at: datetime, company: str | None = None
) -> dict[str, Decision]:
    """The same "no" for each feature named, or for every open feature of the catalogue."""
    if features is None:
        features = [key for key, feature in catalog.features.items() if not feature.is_archived]
    return {key: unanswerable(reason, key, at=at, company=company) for key in features}


def _not_in_future(env: Environment, at: datetime) -> None:
    if at > env.clock.now():
        raise invalid("/at", "`at` lies in the future; leave it out to ask about now.", code=Code.TIMESTAMP_IN_FUTURE)


def _no_company() -> Refusal:
    return Refusal(Code.NOT_FOUND, "There is no such company.")
