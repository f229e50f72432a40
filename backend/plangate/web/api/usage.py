"""Usage over HTTP: one feature over time, and the whole ledger for other programs."""

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Final, Literal

import msgspec

from plangate import metering
from plangate.errors import Code
from plangate.web.exporting import CONTENT_TYPES, wanted_form, written
from plangate.web.operations import Answer, Call, Documented, Operation
from plangate.web.queries import ExportQuery, UsageQuery

_TAG: Final = "Usage"
_RECORD_COLUMNS: Final = metering.UsageRecord.__struct_fields__
_NO_STORE: Final = {"Cache-Control": "no-store"}


class UsageLine(msgspec.Struct, frozen=True, kw_only=True):
    """One step of a series, as a line of CSV or NDJSON."""

    feature: str
    user: str | None
    start: datetime
    end: datetime
    quantity: int


async def get_usage(call: Call[None, UsageQuery]) -> Answer:
    """One feature's usage over time."""
    company_id, query = call.path["company_id"], call.query
    await call.catch_up(company_id)
    series = await metering.series(
        call.environment,
        company_id,
        query.feature,
        query.by,
        user=query.user_keys(),
        since=query.since,
        until=query.until,
    )
    form = wanted_form(call.exchange, query.format, "json")
    if form == "json":
        return Answer(series)
    chunks = written(_lines(series), form, UsageLine.__struct_fields__)
    return Answer(chunks, headers=_NO_STORE, kind=CONTENT_TYPES[form])


async def export_usage(call: Call[None, ExportQuery]) -> Answer:
    """The ledger, event by event."""
    query = call.query
    records = metering.export(
        call.environment, company_id=query.company, feature=query.feature, since=query.since, until=query.until
    )
    form: Literal["csv", "ndjson"] = "csv" if wanted_form(call.exchange, query.format, "ndjson") == "csv" else "ndjson"
    return Answer(written(records, form, _RECORD_COLUMNS), headers=_NO_STORE, kind=CONTENT_TYPES[form])


async def _lines(series: metering.UsageSeries) -> AsyncIterator[Sequence[UsageLine]]:
    yield [
        UsageLine(feature=series.feature, user=series.user, start=point.start, end=point.end, quantity=point.quantity)
        for point in series.points
    ]


OPERATIONS: Final = (
    Operation(
        method="GET",
        path="/v1/companies/{company_id}/usage",
        name="getUsage",
        tag=_TAG,
        summary="One feature's usage over time",
        text="In steps of an hour, a day or a month, gaps filled with zero; of one user with `user`. As CSV or NDJSON "
        "with `format` or `Accept`.",
        scope="read",
        answer=get_usage,
        query=UsageQuery,
        responses={
            200: Documented("The series.", metering.UsageSeries, other_kinds=("text/csv", "application/x-ndjson"))
        },
        problems=(Code.NOT_FOUND,),
        takes_version=True,
    ),
    Operation(
        method="GET",
        path="/v1/usage/export",
        name="exportUsage",
        tag=_TAG,
        summary="Export the usage ledger",
        text="Every recorded event that occurred in `[since, until)`, of all companies or one, in the order it was "
        "recorded, as NDJSON or CSV. The answer is sent as it is read, however long it is; one that breaks off is not "
        "complete.",
        scope="read",
        answer=export_usage,
        query=ExportQuery,
        responses={200: Documented("The events.", kind="application/x-ndjson", other_kinds=("text/csv",))},
        problems=(Code.NOT_FOUND,),
    ),
)
