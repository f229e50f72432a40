"""Origins, forms and return addresses: what the component routes let in."""

from collections.abc import MutableMapping
from typing import Any

import pytest
from starlette.requests import Request

from plangate.errors import Code, Refusal
from plangate.web.component_edge import (
    ALLOWED_HEADERS,
    cors_headers,
    form_of,
    frame_of,
    preflight,
    require_origin,
    return_address,
    words_of,
)
from tests.components.canned import NOW

ALLOWED = ("https://app.test",)


def _request(body: bytes = b"", **headers: str) -> Request:
    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "method": "POST", "headers": raw, "query_string": b"", "path": "/"}, receive)


def test_only_the_exact_origin_is_allowed() -> None:
    assert cors_headers("https://app.test", ALLOWED)["Access-Control-Allow-Origin"] == "https://app.test"
    for origin in ("https://app.test.evil", "http://app.test", "https://APP.test", "null", None):
        assert cors_headers(origin, ALLOWED) == {"Vary": "Origin"}


def test_a_preflight_allows_everything_the_script_sends_and_nothing_to_strangers() -> None:
    allowed = preflight(_request(origin="https://app.test"), ALLOWED)
    assert allowed.headers["access-control-allow-headers"] == ALLOWED_HEADERS
    assert {"Authorization", "Content-Type", "Idempotency-Key"} <= set(ALLOWED_HEADERS.split(", "))
    foreign = preflight(_request(origin="https://evil.test"), ALLOWED)
    assert not [name for name in foreign.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    ("origin", "narrowed", "is_needed", "passes"),
    [
        ("https://app.test", (), True, True),
        ("https://app.test", ("https://app.test",), True, True),
        ("https://app.test", ("https://other.test",), True, False),
        ("https://evil.test", ("https://evil.test",), False, False),
        (None, (), True, False),
        (None, (), False, True),
    ],
)
def test_every_mutation_names_an_allowed_origin(
    origin: str | None, narrowed: tuple[str, ...], *, is_needed: bool, passes: bool
) -> None:
    request = _request(origin=origin) if origin else _request()
    if passes:
        require_origin(request, ALLOWED, narrowed, is_needed=is_needed)
        return
    with pytest.raises(Refusal) as refused:
        require_origin(request, ALLOWED, narrowed, is_needed=is_needed)
    assert refused.value.code is Code.ORIGIN_NOT_ALLOWED


async def test_forms_are_read_and_the_last_field_counts() -> None:
    form = await form_of(
        _request(b"a=1&b=%C3%A4&a=2&c=", content_type="application/x-www-form-urlencoded;charset=UTF-8")
    )
    assert form == {"a": "2", "b": "ä", "c": ""}


@pytest.mark.parametrize(
    ("body", "kind", "code"),
    [
        (b"{}", "application/json", Code.UNSUPPORTED_MEDIA_TYPE),
        (b"a=" + b"x" * 70_000, "application/x-www-form-urlencoded", Code.TOO_LARGE),
        (b"&".join(b"a%d=1" % index for index in range(70)), "application/x-www-form-urlencoded", Code.MALFORMED),
        (b"a=\xff", "application/x-www-form-urlencoded", Code.MALFORMED),
        (b"a=%00", "application/x-www-form-urlencoded", Code.INVALID),
        (b"a=" + b"x" * 20_000, "application/x-www-form-urlencoded", Code.INVALID),
    ],
)
async def test_odd_forms_are_refused(body: bytes, kind: str, code: Code) -> None:
    with pytest.raises(Refusal) as refused:
        await form_of(_request(body, content_type=kind))
    assert refused.value.code is code


def test_the_return_address_is_marked_once_and_keeps_its_query() -> None:
    url = return_address("https://app.test/billing?tab=plan&plangate_return=1#x", "https://app.test")
    assert url == "https://app.test/billing?tab=plan&plangate_return=1#x"
    assert return_address("", "https://app.test") is None


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.test/",
        "javascript:alert(1)",
        "//app.test/",
        "https://app.test@evil.test/",
        "https://app.test/" + "x" * 3000,
    ],
)
def test_nobody_is_sent_back_to_another_site(url: str) -> None:
    with pytest.raises(Refusal) as refused:
        return_address(url, "https://app.test")
    assert refused.value.errors[0].pointer == "/return_url"


def test_attributes_become_plain_words() -> None:
    assert words_of(" pro, starter ,<b>,,a b") == ["pro", "starter"]
    assert len(words_of(",".join(f"a{index}" for index in range(500)))) == 200


@pytest.mark.parametrize(("level", "expected"), [("3", 3), ("9", 4), ("1", 2), ("x", 2), ("", 2), ("٣", 2)])
def test_heading_levels_stay_sensible(level: str, expected: int) -> None:
    assert frame_of({"heading_level": level}, NOW).level == expected
