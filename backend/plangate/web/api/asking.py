"""The hot routes: check, checks, consume and events; msgspec in, a journey, msgspec out, and nothing between."""

from collections.abc import Mapping
from typing import Final

import msgspec

from plangate import access, companies, members, metering
from plangate.deployment import ApiKey
from plangate.engine.decision import Decision
from plangate.environment import Environment
from plangate.errors import Code, Refusal, invalid
from plangate.metering import EventResult, EventStatus
from plangate.web.auth import actor_of
from plangate.web.exchange import Exchange, encode_json
from plangate.web.operations import Documented, Operation
from plangate.web.problems import of_fields, placed_under, refusal_of_decoding
from plangate.web.schemas import (
    EVENTS_MAX,
    CheckBody,
    ChecksBody,
    ConsumeBody,
    IdentifyEvent,
    TrackEvent,
    bounded_instant,
)
from plangate.web.versions import HEADER as VERSION_HEADER
from plangate.web.versions import after_counting, catch_up_by_keys

_TAG: Final = "Access and usage"

Headers = tuple[tuple[bytes, bytes], ...]
Event = TrackEvent | IdentifyEvent

_check = msgspec.json.Decoder(CheckBody)
_checks = msgspec.json.Decoder(ChecksBody)
_consume = msgspec.json.Decoder(ConsumeBody)
_event: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)
_events: msgspec.json.Decoder[list[Event]] = msgspec.json.Decoder(list[Event])
_items = msgspec.json.Decoder(list[msgspec.Raw])


class Consumed(Decision, frozen=True, kw_only=True):
    """The Decision, and whether the quantity was counted (now or, for a repeat, the first time)."""

    counted: bool


class EventsAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """One result for each event, in order."""

    results: list[EventResult]


class ChecksAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """One Decision for each feature asked about."""

    decisions: Mapping[str, Decision]


_ONE_ACCEPTED: Final = [EventResult(status=EventStatus.ACCEPTED)]
_ACCEPTED_ANSWER: Final = encode_json(EventsAnswer(results=_ONE_ACCEPTED))


async def check(exchange: Exchange, key: ApiKey, body: bytes) -> tuple[bytes, Headers]:
    """May this company do this, right now?"""
    try:
        asked = _check.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise refusal_of_decoding(error) from None
    env = key.environment
    # Straight from memory when everything is there: no coroutine, no lookup beyond one dictionary.
    if asked.at is None and exchange.version is None and len(asked.company) == 1:
        (pair,) = asked.company.items()
        standing = env.standings.peek(*pair)
        if standing is not None:
            user = None if asked.user is None else members.held_member(env, standing, asked.user)
            if asked.user is None or user is not None:
                decision = access.check_now(
                    env, standing, asked.feature, quantity=asked.quantity, user=user, trace=asked.trace
                )
                return encode_json(decision), ()
    await catch_up_by_keys(env, exchange, asked.company)
    decision = await access.check(
        env,
        company=asked.company,
        feature=asked.feature,
        user=asked.user,
        quantity=asked.quantity,
        at=bounded_instant("/at", asked.at),
        trace=asked.trace,
    )
    return encode_json(decision), ()


async def checks(exchange: Exchange, key: ApiKey, body: bytes) -> tuple[bytes, Headers]:
    """Many features, or all of them, in one question."""
    try:
        asked = _checks.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise refusal_of_decoding(error) from None
    env = key.environment
    await catch_up_by_keys(env, exchange, asked.company)
    decisions = await access.checks(
        env,
        company=asked.company,
        features=asked.features,
        user=asked.user,
        at=bounded_instant("/at", asked.at),
    )
    return encode_json(ChecksAnswer(decisions=decisions)), ()


async def consume(_exchange: Exchange, key: ApiKey, body: bytes) -> tuple[bytes, Headers]:
    """Check and count, in one step."""
    try:
        asked = _consume.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise refusal_of_decoding(error) from None
    env = key.environment
    decision, counted = await metering.consume(
        env,
        company=asked.company,
        feature=asked.feature,
        quantity=asked.quantity,
        idempotency_key=asked.idempotency_key,
        user=asked.user,
        occurred_at=asked.when(),
        trace=asked.trace,
    )
    # The Decision's members and one more: making the larger struct first would cost as much as deciding.
    payload = encode_json(decision)[:-1] + (b',"counted":true}' if counted else b',"counted":false}')
    return payload, after_counting(env, decision.company)


async def events(_exchange: Exchange, key: ApiKey, body: bytes) -> tuple[bytes, Headers]:
    """Record what happened: one event, or a list of up to a thousand."""
    env = key.environment
    is_list = body.lstrip()[:1] == b"["
    faults: Mapping[int, EventResult] = {}
    try:
        told = _events.decode(body) if is_list else [_event.decode(body)]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        if not is_list:
            raise refusal_of_decoding(error) from None
        told, faults = _one_by_one(body)
    if len(told) > EVENTS_MAX:
        raise Refusal(Code.TOO_LARGE, f"At most {EVENTS_MAX:,} events at once.")
    results = await _recorded(env, key, told)
    if results == _ONE_ACCEPTED and not faults:
        return _ACCEPTED_ANSWER, await _version_after(env, told)
    if faults:
        recorded = iter(results)
        total = len(told) + len(faults)
        results = [faults[index] if index in faults else next(recorded) for index in range(total)]
    return encode_json(EventsAnswer(results=results)), await _version_after(env, told)


async def _version_after(env: Environment, told: list[Event]) -> Headers:
    """The version header when all events are about one company; several companies have several versions."""
    first = told[0].company if told else None
    if first is None or any(event.company != first for event in told):
        return ()
    if len(first) == 1:
        (pair,) = first.items()
        held = env.standings.peek(*pair)
        if held is not None:
            return after_counting(env, held.facts.company_id)
    try:
        standing = await env.standings.of_keys(first)
    except Refusal:
        return ()  # keys of two companies: each event was refused already
    return () if standing is None else after_counting(env, standing.facts.company_id)


async def _recorded(env: Environment, key: ApiKey, told: list[Event]) -> list[EventResult]:
    """Each event's result, in order: runs of tracked events are recorded together, an identify stands alone."""
    results: list[EventResult] = []
    tracked: list[TrackEvent] = []
    for event in told:
        if isinstance(event, TrackEvent):
            tracked.append(event)
            continue
        results += await _track(env, key, tracked)
        tracked = []
        results.append(await _identify(env, key, event))
    return results + await _track(env, key, tracked)


async def _track(env: Environment, key: ApiKey, told: list[TrackEvent]) -> list[EventResult]:
    if not told:
        return []
    results = await metering.record(env, told, may_correct=True)
    for index, event in enumerate(told):
        if event.traits and results[index].status is EventStatus.ACCEPTED:
            try:
                await companies.upsert(env, keys=event.company, traits=event.traits, actor=actor_of(key))
            except Refusal as refusal:
                # The usage was counted; only what was said about the company could not be kept.
                results[index] = EventResult(status=EventStatus.ACCEPTED, code=refusal.code, detail=refusal.detail)
    return results


async def _identify(env: Environment, key: ApiKey, event: IdentifyEvent) -> EventResult:
    actor = actor_of(key)
    try:
        if event.user is None:
            if event.company is None:
                raise invalid("", "Say which company or user: give `company`, `user`, or both.")
            await companies.upsert(env, keys=event.company, name=event.name, traits=event.traits, actor=actor)
        else:
            belongs_to = []
            if event.company is not None:
                await companies.upsert(env, keys=event.company, actor=actor)
                belongs_to.append(event.company)
            await companies.upsert_user(
                env, keys=event.user, name=event.name, traits=event.traits, companies=belongs_to
            )
    except Refusal as refusal:
        return EventResult(status=EventStatus.REFUSED, code=refusal.code, detail=refusal.detail)
    return EventResult(status=EventStatus.ACCEPTED)


def _one_by_one(body: bytes) -> tuple[list[Event], dict[int, EventResult]]:
    """The readable events of a list of which some are not, and by place what the others are refused with.

    Only taken when reading the list at once failed. Raises Refusal (400) when the body is no JSON at all.
    """
    told: list[Event] = []
    faults: dict[int, EventResult] = {}
    try:
        items = _items.decode(body)
        if len(items) > EVENTS_MAX:
            raise Refusal(Code.TOO_LARGE, f"At most {EVENTS_MAX:,} events at once.")
        for index, item in enumerate(items):
            try:
                told.append(_event.decode(item))
            except msgspec.ValidationError as error:
                refusal = of_fields(placed_under(f"/{index}", refusal_of_decoding(error)))
                faults[index] = EventResult(status=EventStatus.REFUSED, code=refusal.code, detail=refusal.detail)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise refusal_of_decoding(error) from None
    return told, faults


_COMPANY: Final = {"id": "acme"}

OPERATIONS: Final = (
    Operation(
        method="POST",
        path="/v1/check",
        name="check",
        tag=_TAG,
        summary="May this company do this, right now?",
        text="Nothing is counted; `quantity` asks whether so much more would be allowed. An unknown company, user or "
        "feature is a reason in the answer, not an error. With `at`, as known at that past instant.",
        scope="check",
        hot=check,
        body=CheckBody,
        example={"company": _COMPANY, "feature": "exports"},
        responses={200: Documented("The Decision.", Decision)},
        problems=(Code.KEY_CONFLICT, Code.TIMESTAMP_IN_FUTURE),
        takes_version=True,
    ),
    Operation(
        method="POST",
        path="/v1/checks",
        name="checkMany",
        tag=_TAG,
        summary="Check many features at once",
        text="Those named (at least one), or all features of the catalogue when `features` is left out. An unknown "
        "company or user is the reason of every Decision.",
        scope="check",
        hot=checks,
        body=ChecksBody,
        example={"company": _COMPANY, "features": ["exports", "sso"]},
        responses={200: Documented("The Decisions by feature.", ChecksAnswer)},
        problems=(Code.KEY_CONFLICT, Code.TIMESTAMP_IN_FUTURE),
        takes_version=True,
    ),
    Operation(
        method="POST",
        path="/v1/consume",
        name="consume",
        tag=_TAG,
        summary="Check and count, in one step",
        text="Yes and counted, or no and not counted; a hard limit admits exactly the limit, however many ask at once. "
        "The same idempotency key answers as the first time and counts once; a refused key may be tried again. `at` is "
        "another name of `occurred_at`; `trace` explains the Decision, and a repeat shows the first one's.",
        scope="track",
        hot=consume,
        body=ConsumeBody,
        example={"company": _COMPANY, "feature": "exports", "idempotency_key": "export-8412"},
        responses={200: Documented("The Decision, and whether it was counted.", Consumed, headers=(VERSION_HEADER,))},
        problems=(
            Code.KEY_CONFLICT,
            Code.IDEMPOTENCY_CONFLICT,
            Code.TIMESTAMP_IN_FUTURE,
            Code.TIMESTAMP_TOO_OLD,
        ),
    ),
    Operation(
        method="POST",
        path="/v1/events",
        name="recordEvents",
        tag=_TAG,
        summary="Record what happened",
        text="One event or a list of up to 1,000, answered item by item. A limit never refuses an event. An event for "
        "a company not known yet is kept and counted when its key appears within 24 hours. An event in a list that "
        "does not have the documented shape is refused alone, with a pointer to its fault; the others count.",
        scope="track",
        hot=events,
        body=TrackEvent | IdentifyEvent | list[TrackEvent | IdentifyEvent],
        example=[
            {"type": "track", "event": "export", "company": _COMPANY, "idempotency_key": "export-8413"},
            {"type": "identify", "company": _COMPANY, "traits": {"seats": 5}},
        ],
        responses={200: Documented("One result for each event.", EventsAnswer, headers=(VERSION_HEADER,))},
    ),
)
