"""Reservations over HTTP: hold an estimate, then settle it with what was really used, or give it back."""

from datetime import datetime, timedelta
from typing import Final

import msgspec

from plangate import metering
from plangate.engine.decision import Decision
from plangate.environment import Environment
from plangate.errors import Code
from plangate.metering import Closed
from plangate.web.operations import Answer, Call, Documented, Operation
from plangate.web.schemas import ReservationBody, SettleBody
from plangate.web.versions import HEADER as VERSION_HEADER
from plangate.web.versions import after_counting

_TAG: Final = "Access and usage"


class Reservation(msgspec.Struct, frozen=True, kw_only=True):
    """What is held: `id` and `expires_at` are null when the Decision says no, or the feature is not metered."""

    id: str | None
    decision: Decision
    expires_at: datetime | None


async def reserve(call: Call[ReservationBody, None]) -> Answer:
    """Hold a quantity."""
    body = call.body
    held = await metering.reserve(
        call.environment,
        company=body.company,
        feature=body.feature,
        quantity=body.quantity,
        user=body.user,
        time_to_live=timedelta(seconds=body.ttl_seconds),
        trace=body.trace,
    )
    answer = Reservation(id=held.id, decision=held.decision, expires_at=held.expires_at)
    return Answer(answer, 200 if held.id is None else 201, _version(call.environment, held.decision))


async def settle(call: Call[SettleBody, None]) -> Answer:
    """Count what was really used."""
    closed = await metering.settle(call.environment, call.path["reservation_id"], call.body.quantity)
    return Answer(closed, headers=_version(call.environment, closed.decision))


async def release(call: Call[None, None]) -> Answer:
    """Give back what is held."""
    closed = await metering.release(call.environment, call.path["reservation_id"])
    return Answer(closed, headers=_version(call.environment, closed.decision))


def _version(env: Environment, decision: Decision) -> dict[str, str]:
    return {name.decode("ascii"): value.decode("ascii") for name, value in after_counting(env, decision.company)}


_HELD: Final = Documented("Held.", Reservation, headers=(VERSION_HEADER,))
_CLOSED: Final = Documented("How the reservation ended.", Closed, headers=(VERSION_HEADER,))

OPERATIONS: Final = (
    Operation(
        method="POST",
        path="/v1/reservations",
        name="reserve",
        tag=_TAG,
        summary="Hold an estimate",
        text="For work whose cost is known only afterwards. What is held counts against the limit until it is settled, "
        "released, or `ttl_seconds` are over. A 200 without `id` holds nothing: the Decision says why.",
        scope="track",
        answer=reserve,
        body=ReservationBody,
        example={"company": {"id": "acme"}, "feature": "exports", "quantity": 2, "ttl_seconds": 120},
        responses={200: Documented("Nothing is held.", Reservation, headers=(VERSION_HEADER,)), 201: _HELD},
        problems=(Code.KEY_CONFLICT,),
        takes_idempotency_key=True,
    ),
    Operation(
        method="POST",
        path="/v1/reservations/{reservation_id}/settle",
        name="settleReservation",
        tag=_TAG,
        summary="Settle a reservation",
        text="Counts what was really used, in the period of the reservation, and gives the rest back. Always counted: "
        "what the limit has no room for is the `overrun`. The same quantity again answers as the first time.",
        scope="track",
        answer=settle,
        body=SettleBody,
        example={"quantity": 1},
        responses={200: _CLOSED},
        problems=(Code.NOT_FOUND, Code.RESERVATION_CLOSED, Code.TIMESTAMP_TOO_OLD),
        takes_idempotency_key=True,
    ),
    Operation(
        method="POST",
        path="/v1/reservations/{reservation_id}/release",
        name="releaseReservation",
        tag=_TAG,
        summary="Release a reservation",
        text="Gives back what is held; nothing is counted. Safe to repeat, also after the reservation expired.",
        scope="track",
        answer=release,
        responses={200: _CLOSED},
        problems=(Code.NOT_FOUND, Code.RESERVATION_CLOSED),
        takes_idempotency_key=True,
    ),
)
