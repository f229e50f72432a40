"""The environment itself over HTTP: component tokens for its sites, and its test clock."""

from datetime import datetime, timedelta
from typing import Final

import msgspec

from plangate.clock import wall_now
from plangate.errors import Code, Refusal
from plangate.members import member
from plangate.store.audit import append_audit
from plangate.store.environments import set_offset
from plangate.web.operations import Answer, Call, Documented, Operation
from plangate.web.schemas import ClockBody, TokenBody
from plangate.web.tokens import mint_component_token


class TokenAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A token for the components in one company's pages, and when it ends."""

    token: str
    expires_at: datetime


class ClockAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The environment's business time now."""

    offset_seconds: int
    now: datetime


async def mint_token(call: Call[TokenBody, None]) -> Answer:
    """A short-lived token for one company's components."""
    env, body = call.environment, call.body
    standing = await env.standings.of_keys(body.company)
    if standing is None:
        raise Refusal(Code.NOT_FOUND, "No company has these keys. Make it first with PUT /v1/companies.")
    person = None
    if body.user is not None:
        person = await member(env, standing, body.user)
        if person is None:
            raise Refusal(Code.NOT_FOUND, "No user of this company has these keys. Make them first with PUT /v1/users.")
    token, expires_at = mint_component_token(
        env.secret_keys,
        environment_id=env.id,
        company=standing.facts.company_id,
        user=None if person is None else person.user_id,
        scopes=body.scopes,
        origins=body.origins,
        ttl_seconds=body.ttl_seconds,
        now=wall_now(),
    )
    return Answer(TokenAnswer(token=token, expires_at=expires_at), 201)


async def put_clock(call: Call[ClockBody, None]) -> Answer:
    """Move the environment's business time."""
    env, offset_seconds = call.environment, call.body.offset_seconds
    if env.settings.stripe_mode != "test":
        raise Refusal(Code.FORBIDDEN, "Only an environment in test mode may move its clock.")
    async with env.writing() as session:
        await set_offset(session, offset_seconds)
        await append_audit(
            session,
            actor=call.actor,
            action="clock.moved",
            subject=env.id,
            before={"offset_seconds": round(env.clock.offset.total_seconds())},
            after={"offset_seconds": offset_seconds},
        )
        env.touch_everything(session)
    env.clock.offset = timedelta(seconds=offset_seconds)
    return Answer(ClockAnswer(offset_seconds=offset_seconds, now=env.clock.now()))


OPERATIONS: Final = (
    Operation(
        method="POST",
        path="/v1/component-tokens",
        name="mintComponentToken",
        tag="Components",
        summary="A token for the components in a page",
        text="For one company (and user), at most 15 minutes, on the sites listed in `origins` (default: the "
        "environment's). Make it in your backend for the person signed in there, and hand it to the page.",
        scope="write",
        answer=mint_token,
        body=TokenBody,
        example={"company": {"id": "acme"}, "scopes": ["view", "manage", "pay"]},
        responses={201: Documented("The token.", TokenAnswer)},
        problems=(Code.NOT_FOUND, Code.KEY_CONFLICT),
    ),
    Operation(
        method="PUT",
        path="/v1/environment/clock",
        name="putClock",
        tag="Environment",
        summary="Move the test clock",
        text="Business time becomes wall time plus `offset_seconds`: periods, expiries and `at` follow, signatures and "
        "tokens do not. Only in test mode.",
        scope="admin",
        answer=put_clock,
        body=ClockBody,
        example={"offset_seconds": 86400},
        responses={200: Documented("The clock.", ClockAnswer)},
    ),
)
