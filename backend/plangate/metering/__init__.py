"""Usage: recording what happened, asking and counting in one step, and what was used when."""

from plangate.metering.events import EventResult, EventStatus, TrackEvent
from plangate.metering.export import UsageRecord, export
from plangate.metering.forwarding import forward
from plangate.metering.overage import keep_overage_settled, settle_overage
from plangate.metering.pulling import pull
from plangate.metering.recorder import consume, record, release, reserve, settle
from plangate.metering.reservations import Closed, Reserved, release_expired
from plangate.metering.series import UsagePoint, UsageSeries, series

__all__ = [
    "Closed",
    "EventResult",
    "EventStatus",
    "Reserved",
    "TrackEvent",
    "UsagePoint",
    "UsageRecord",
    "UsageSeries",
    "consume",
    "export",
    "forward",
    "keep_overage_settled",
    "pull",
    "record",
    "release",
    "release_expired",
    "reserve",
    "series",
    "settle",
    "settle_overage",
]
