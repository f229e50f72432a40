"""What a sandbox must be told before it starts, in one immutable value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pathlib import Path

API_VERSION = "2026-10-28.endive"


@dataclass(frozen=True, kw_only=True)
class SandboxConfig:
    """Settings of one sandbox account.

    ``secret_key`` is the only key accepted; ``public_url`` is the sandbox's own address and is used in the pages it
    links to. ``webhook_url`` and ``webhook_secret`` describe the first webhook endpoint. ``clock_url`` and
    ``clock_key`` name the server whose business time moves together with ours. ``state_path`` keeps everything in a
    JSON file between runs. ``draft_seconds`` is how long a renewal invoice stays a draft (an hour, as at Stripe);
    ``retry_days`` and ``after_retries`` are the dunning settings.
    """

    secret_key: str
    account_id: str
    public_url: str
    webhook_url: str | None = None
    webhook_secret: str | None = None
    clock_url: str | None = None
    clock_key: str | None = None
    state_path: Path | None = None
    draft_seconds: int = 3600
    retry_days: tuple[int, ...] = (3, 5, 7)
    after_retries: Literal["cancel", "unpaid", "past_due"] = "cancel"
    webhook_retry_seconds: tuple[float, ...] = (1.0, 5.0, 30.0, 120.0, 600.0)
    webhook_timeout_seconds: float = 10.0
