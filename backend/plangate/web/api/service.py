"""The service about itself: alive, ready, measured, described. Open to everyone; none of it names a company."""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from time import monotonic
from typing import Final, Literal

import msgspec
import structlog
from sqlalchemy.exc import SQLAlchemyError

from plangate import __version__
from plangate.clock import wall_now
from plangate.deployment import Deployment
from plangate.errors import Code, Refusal
from plangate.store.inbox import cursor, inbox_figures
from plangate.store.meter_outbox import SET_ASIDE, WAITING, outbox_counts
from plangate.store.schema import SchemaState, schema_state
from plangate.sync import SWEEP_CURSOR
from plangate.web.metrics import CONTENT_TYPE, RequestMetrics
from plangate.web.operations import Answer, Call, Documented, Operation
from plangate.web.queries import NoQuery

_READINESS_HELD_SECONDS: Final = 1.0
_SCHEMA_HELD_SECONDS: Final = 60.0
_INBOX_LAG_WARNING: Final = timedelta(minutes=1)
_SILENCE_WARNING: Final = timedelta(hours=24)
_log = structlog.get_logger(__name__)

Gauges = dict[str, tuple[str, dict[tuple[str, str], float]]]


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """The process answers."""

    status: Literal["ok"] = "ok"
    version: str = __version__


class EnvironmentHealth(msgspec.Struct, frozen=True, kw_only=True):
    """One environment's webhooks: how many wait, for how long, when the last one came, how many events the last sweep
    found that none had brought; its reports to meters.
    """

    name: str
    pending: int
    failed: int
    oldest_pending_seconds: float | None
    last_event_at: datetime | None
    missed_by_last_sweep: int
    meter_reports_waiting: int
    meter_reports_set_aside: int


class Readiness(msgspec.Struct, frozen=True, kw_only=True):
    """Whether requests should be sent here. Warnings say what a person should look at; they do not make it unready."""

    status: Literal["ready"] = "ready"
    environments: list[EnvironmentHealth]
    warnings: list[str]


class Service:
    """Answers for one process. What needs the database is asked at most once a second."""

    def __init__(self, deployment: Deployment, metrics: RequestMetrics, describe: Callable[[], bytes]) -> None:
        self._deployment = deployment
        self._metrics = metrics
        self._describe = describe
        self._figures: tuple[float, list[EnvironmentHealth]] | None = None
        self._schema_checked_at = float("-inf")

    async def health(self, _call: Call[None, None]) -> Answer:
        """Alive."""
        return Answer(Health())

    async def readiness(self, _call: Call[None, None]) -> Answer:
        """Ready, or a 503 that says why not."""
        try:
            await self._require_schema()
            environments = await self._environments()
        except (SQLAlchemyError, OSError) as error:
            _log.warning("not_ready", error=str(error))
            raise Refusal(Code.UNAVAILABLE, "The database cannot be reached.", headers={"Retry-After": "2"}) from error
        return Answer(Readiness(environments=environments, warnings=_warnings(environments)))

    async def metrics(self, _call: Call[None, None]) -> Answer:
        """Prometheus text."""
        try:
            gauges = _gauges(await self._environments())
        except (SQLAlchemyError, OSError) as error:
            _log.warning("metrics_without_inbox", error=str(error))
            gauges = {}
        return Answer(self._metrics.render(gauges), kind=CONTENT_TYPE)

    async def openapi(self, _call: Call[None, None]) -> Answer:
        """This API's description."""
        return Answer(self._describe(), kind="application/json")

    async def _require_schema(self) -> None:
        if monotonic() - self._schema_checked_at < _SCHEMA_HELD_SECONDS:
            return
        if await schema_state(self._deployment.database) is not SchemaState.CURRENT:
            raise Refusal(
                Code.UNAVAILABLE, "The database's schema is not this version's. Run plangate migrate, then restart."
            )
        self._schema_checked_at = monotonic()

    async def _environments(self) -> list[EnvironmentHealth]:
        if self._figures is not None and monotonic() - self._figures[0] < _READINESS_HELD_SECONDS:
            return self._figures[1]
        found = []
        for env in self._deployment.environments.values():
            async with env.reading() as session:
                figures = await inbox_figures(session)
                reports = await outbox_counts(session)
                place = await cursor(session, SWEEP_CURSOR)
            oldest = figures["oldest_pending_at"]
            counts: Mapping[str, int] = figures["counts"]
            found.append(
                EnvironmentHealth(
                    name=env.settings.name,
                    pending=counts.get("pending", 0),
                    failed=counts.get("failed", 0),
                    oldest_pending_seconds=None if oldest is None else (wall_now() - oldest).total_seconds(),
                    last_event_at=figures["newest_at"],
                    missed_by_last_sweep=(place or {}).get("missed", 0),
                    meter_reports_waiting=reports.get(WAITING, 0),
                    meter_reports_set_aside=reports.get(SET_ASIDE, 0),
                )
            )
        self._figures = (monotonic(), found)
        return found


def operations(service: Service) -> tuple[Operation, ...]:
    """The open operations of one process."""
    return (
        Operation(
            method="GET",
            path="/healthz",
            name="getHealth",
            tag="Service",
            summary="Alive?",
            text="Answers as long as the process does.",
            answer=service.health,
            query=NoQuery,
            responses={200: Documented("Alive.", Health)},
        ),
        Operation(
            method="GET",
            path="/readyz",
            name="getReadiness",
            tag="Service",
            summary="Ready?",
            text="Database reachable and of this version; warns about webhooks that wait or no longer come.",
            answer=service.readiness,
            query=NoQuery,
            responses={200: Documented("Ready.", Readiness)},
            problems=(Code.UNAVAILABLE,),
        ),
        Operation(
            method="GET",
            path="/metrics",
            name="getMetrics",
            tag="Service",
            summary="Metrics",
            text="In Prometheus' text format.",
            answer=service.metrics,
            query=NoQuery,
            responses={200: Documented("The metrics.", str, kind="text/plain")},
        ),
        Operation(
            method="GET",
            path="/openapi.json",
            name="getOpenapi",
            tag="Service",
            summary="This description",
            text="OpenAPI 3.1.",
            answer=service.openapi,
            query=NoQuery,
            responses={200: Documented("The document.", dict)},
        ),
    )


def _warnings(environments: list[EnvironmentHealth]) -> list[str]:
    warnings = []
    for one in environments:
        lag = one.oldest_pending_seconds
        if lag is not None and lag > _INBOX_LAG_WARNING.total_seconds():
            warnings.append(f"{one.name}: a webhook has waited for {lag:.0f} seconds; is a worker running?")
        if one.failed:
            warnings.append(f"{one.name}: {one.failed} webhooks failed for good and wait for a person.")
        if one.last_event_at is not None and wall_now() - one.last_event_at > _SILENCE_WARNING:
            warnings.append(f"{one.name}: no webhook came for a day; is the endpoint still enabled in Stripe?")
        if one.missed_by_last_sweep:
            warnings.append(
                f"{one.name}: the last sweep found {one.missed_by_last_sweep} events that no webhook brought; "
                "is the endpoint still enabled in Stripe?"
            )
        if one.meter_reports_set_aside:
            warnings.append(
                f"{one.name}: {one.meter_reports_set_aside} reports to Stripe meters were set aside; see why with "
                "plangate verify --usage --stripe."
            )
    return warnings


def _gauges(environments: list[EnvironmentHealth]) -> Gauges:
    events: dict[tuple[str, str], float] = {}
    ages: dict[tuple[str, str], float] = {}
    reports: dict[tuple[str, str], float] = {}
    for one in environments:
        events[(one.name, "pending")] = one.pending
        events[(one.name, "failed")] = one.failed
        events[(one.name, "missed_by_last_sweep")] = one.missed_by_last_sweep
        reports[(one.name, WAITING)] = one.meter_reports_waiting
        reports[(one.name, SET_ASIDE)] = one.meter_reports_set_aside
        ages[(one.name, "oldest_pending")] = one.oldest_pending_seconds or 0.0
        if one.last_event_at is not None:
            ages[(one.name, "last_received")] = (wall_now() - one.last_event_at).total_seconds()
    return {
        "plangate_inbox_events": ("Webhooks stored, by state.", events),
        "plangate_inbox_age_seconds": ("Age of the oldest waiting and of the newest webhook.", ages),
        "plangate_meter_reports": ("Reports to Stripe meters not delivered, by state.", reports),
    }
