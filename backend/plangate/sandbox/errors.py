"""Refusals in the exact JSON shape Stripe's official clients parse."""

from __future__ import annotations

from typing import Any

Obj = dict[str, Any]


class ApiError(Exception):
    """A refusal: HTTP status plus Stripe's error body. ``keeps_changes`` leaves what was recorded on the way."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str = "invalid_request_error",  # noqa: A002 - Stripe's own word.
        code: str | None = None,
        param: str | None = None,
        decline_code: str | None = None,
        extra: Obj | None = None,
        keeps_changes: bool = False,
        is_replayable: bool = True,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.keeps_changes = keeps_changes
        self.is_replayable = is_replayable
        self.headers = headers or {}
        body: Obj = {"message": message, "type": type}
        if code is not None:
            body["code"] = code
            body["doc_url"] = f"https://stripe.com/docs/error-codes/{code.replace('_', '-')}"
        if param is not None:
            body["param"] = param
        if decline_code is not None:
            body["decline_code"] = decline_code
        body.update(extra or {})
        self.body: Obj = {"error": body}


def invalid(message: str, *, param: str | None = None, code: str | None = None) -> ApiError:
    """A 400 about the request itself."""
    return ApiError(400, message, param=param, code=code)


def missing(noun: str, stripe_id: str, *, param: str = "id", status: int = 404) -> ApiError:
    """An object that does not exist: 404 when named in the path, 400 when named in a parameter."""
    return ApiError(status, f"No such {noun}: '{stripe_id}'", code="resource_missing", param=param)


def required(param: str) -> ApiError:
    """A parameter that the route cannot do without."""
    return ApiError(
        400, f"Missing required param: {param}.", code="parameter_missing", param=param, is_replayable=False
    )


def only_one(*params: str) -> ApiError:
    """Parameters that exclude each other."""
    return invalid(f"You may only specify one of these parameters: {', '.join(params)}.", param=params[-1])


def card_error(code: str, message: str, *, decline_code: str | None = None, extra: Obj | None = None) -> ApiError:
    """A payment that the card refused."""
    return ApiError(
        402, message, type="card_error", code=code, decline_code=decline_code, extra=extra, keeps_changes=True
    )
