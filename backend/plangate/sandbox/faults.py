"""Faults on purpose: calls that fail before or after they applied, and webhooks lost, doubled, late or out of order."""

from __future__ import annotations

import fnmatch
import random
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from .errors import ApiError, invalid, required

Obj = dict[str, Any]

Kind = Literal[
    "drop_webhooks",
    "duplicate_webhooks",
    "reorder_webhooks",
    "delay_webhooks",
    "fail_call",
    "rate_limit",
    "timeout",
]
WEBHOOK_KINDS = ("drop_webhooks", "duplicate_webhooks", "reorder_webhooks", "delay_webhooks")
MAX_SECONDS = 300


@dataclass
class Fault:
    """One rule. ``count`` limits how often it strikes (None: until cleared), ``percent`` how likely it does."""

    fault: Kind
    id: str = ""
    method: str = "*"
    path: str = "/v1/*"
    when: Literal["before", "after"] = "before"
    status: int = 500
    seconds: float = 0.0
    count: int | None = 1
    percent: int = 100
    types: list[str] = field(default_factory=list)
    struck: int = 0


class Faults:
    """The rules in force, in the order they were made."""

    def __init__(self) -> None:
        self._rules: list[Fault] = []
        self._made = 0
        self._chance = random.Random(20261120)  # noqa: S311 - repeatable chaos, no secret.

    def add(self, body: Obj) -> Obj:
        """A rule from JSON. Raises ApiError 400 for unknown or ill-typed fields."""
        if "fault" not in body:
            raise required("fault")
        if body["fault"] not in get_args(Kind):
            raise invalid(f"Invalid fault: must be one of {', '.join(get_args(Kind))}", param="fault")
        checks = {
            "method": str,
            "path": str,
            "when": str,
            "status": int,
            "seconds": (int, float),
            "count": (int, type(None)),
            "percent": int,
            "types": list,
            "fault": str,
        }
        for name, value in body.items():
            if name not in checks:
                raise invalid(f"Received unknown parameter: {name}", param=name, code="parameter_unknown")
            if not isinstance(value, checks[name]) or isinstance(value, bool):  # type: ignore[arg-type]  # One tuple among types.
                raise invalid(f"Invalid {name}", param=name)
        if not all(isinstance(pattern, str) for pattern in body.get("types", [])):
            raise invalid("Invalid types", param="types")
        if body.get("when", "before") not in ("before", "after"):
            raise invalid("Invalid when: must be one of before, or after", param="when")
        if not 0 <= body.get("seconds", 0) <= MAX_SECONDS or not 1 <= body.get("percent", 100) <= 100:
            raise invalid("seconds must be from 0 to 300 and percent from 1 to 100", param="seconds")
        if not 400 <= body.get("status", 500) <= 599 or not 1 <= (body.get("count") or 1) <= 1_000_000:
            raise invalid("status must be from 400 to 599 and count from 1 to 1000000", param="status")
        self._made += 1
        rule = Fault(**body, id=f"fault_{self._made}")
        if "percent" in body and "count" not in body:
            rule.count = None
        self._rules.append(rule)
        return asdict(rule)

    def all(self) -> list[Obj]:
        """The rules still in force."""
        return [asdict(rule) for rule in self._rules]

    def clear(self) -> None:
        """No more faults."""
        self._rules.clear()

    def for_call(self, method: str, path: str) -> Fault | None:
        """The rule that strikes this call, used up once."""
        for rule in self._rules:
            if rule.fault in WEBHOOK_KINDS:
                continue
            if rule.method not in ("*", method) or not fnmatch.fnmatchcase(path, rule.path):
                continue
            if self._strikes(rule):
                return rule
        return None

    def for_webhook(self, event_type: str) -> list[Fault]:
        """The rules that strike this delivery."""
        return [
            rule
            for rule in list(self._rules)
            if rule.fault in WEBHOOK_KINDS
            and (not rule.types or any(fnmatch.fnmatchcase(event_type, t) for t in rule.types))
            and self._strikes(rule)
        ]

    def _strikes(self, rule: Fault) -> bool:
        if rule.percent < 100 and self._chance.random() * 100 >= rule.percent:
            return False
        rule.struck += 1
        if rule.count is not None:
            rule.count -= 1
            if rule.count <= 0:
                self._rules.remove(rule)
        return True


def failure_of(rule: Fault) -> ApiError:
    """The refusal a call fault answers with."""
    if rule.fault == "rate_limit":
        return ApiError(
            429,
            "This object cannot be accessed right now because another API request or Stripe process is currently "
            "accessing it. If you see this error intermittently, retry the request. If you see this error frequently "
            "and are making multiple concurrent requests to a single object, make your requests serially or at a lower "
            "rate. For more details, see https://stripe.com/docs/rate-limits#object-lock-timeouts.",
            code="lock_timeout",
            is_replayable=False,
        )
    if rule.status == 429:
        return ApiError(429, "Too many requests hit the API too quickly.", code="rate_limit", is_replayable=False)
    return ApiError(
        rule.status,
        "An unknown error occurred (injected by the sandbox).",
        type="api_error",
        is_replayable=rule.when == "after",
    )
