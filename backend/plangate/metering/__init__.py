"""Usage: recording what happened, asking and counting in one step, and what was used when."""

from plangate.metering.events import EventResult, EventStatus, TrackEvent
from plangate.metering.recorder import consume, record
from plangate.metering.series import UsagePoint, UsageSeries, series

__all__ = [
    "EventResult",
    "EventStatus",
    "TrackEvent",
    "UsagePoint",
    "UsageSeries",
    "consume",
    "record",
    "series",
]
