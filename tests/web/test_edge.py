"""The edge's own parts, without a server: odd JSON, rate limits, proxies, problems, redaction."""

import io
import json
import logging
import time
from datetime import UTC, datetime

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from plangate.errors import CATALOGUE, Code, Refusal
from plangate.web.exchange import DEPTH_MAX, refuse_odd_json
from plangate.web.limits import ProxyList, RateLimit
from plangate.web.logs import AccessLine, AccessLog, configure_logging, redact, redacted_text
from plangate.web.metrics import RequestMetrics
from plangate.web.operations import parse_body
from plangate.web.problems import problem_of
from plangate.web.schemas import OverrideBody

SECRETS = [
    "pgt_sk_abcdefghijklmnop",
    "pgt_pk_abcdefghijklmnop",
    "sk_test_51Habc",
    "rk_live_51Habc",
    "whsec_abc123",
    "absec_abc123",
    "eyJhbGciOiJIUzI1NiJ9.eyJhdWQiOiJ4In0.c2lnbmF0dXJl",
]


@given(
    st.recursive(
        st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_json_passes_exactly_when_it_is_shallow_and_free_of_nul(value: object) -> None:
    def depth(one: object) -> int:
        if isinstance(one, dict):
            return 1 + max(map(depth, one.values()), default=0)
        return 1 + max(map(depth, one), default=0) if isinstance(one, list) else 0

    def has_nul(one: object) -> bool:
        if isinstance(one, dict):
            return any(has_nul(key) or has_nul(inner) for key, inner in one.items())
        return any(map(has_nul, one)) if isinstance(one, list) else isinstance(one, str) and "\0" in one

    is_refused = False
    try:
        refuse_odd_json(json.dumps(value).encode())
    except Refusal:
        is_refused = True
    assert is_refused == (depth(value) > DEPTH_MAX or has_nul(value))


@pytest.mark.parametrize("pair", [(b"[", b"]"), (b'{"a":', b"}"), (b'[{"[":', b"}]")])
def test_the_depth_limit_is_exact(pair: tuple[bytes, bytes]) -> None:
    per_pair = pair[0].count(b"[") + pair[0].count(b"{") - pair[0].count(b'"[')
    fitting = DEPTH_MAX // per_pair
    # Brackets inside texts do not count, and many shallow ones do not add up.
    text = b'"' + b"[{" * 50 + b'\\"]"'
    refuse_odd_json(pair[0] * fitting + text + pair[1] * fitting)
    refuse_odd_json(b"[" + b",".join([b"[]"] * 500) + b"]")
    with pytest.raises(Refusal, match="deeper than 32") as caught:
        refuse_odd_json(pair[0] * (fitting + 1) + text + pair[1] * (fitting + 1))
    assert caught.value.code is Code.MALFORMED


@pytest.mark.parametrize(
    "body",
    [b"[" * 1_000_000, b'"\\' * 500_000, b"[]" * 500_000, b'{"a":' * 200_000, b'"' * 1_000_000, b"[{}" * 300_000],
)
def test_no_body_of_a_mebibyte_costs_much(body: bytes) -> None:
    started = time.perf_counter()
    with pytest.raises(Refusal):
        refuse_odd_json(b"[" * 33 + body)
    assert time.perf_counter() - started < 1.5


def test_nul_is_found_only_where_it_is_one() -> None:
    for body in (rb'"\u0000"', rb'"a\\\u0000"'):
        with pytest.raises(Refusal, match=r"U\+0000"):
            refuse_odd_json(body)
    for body in (rb'"\\u0000"', rb'"\u0001"'):
        refuse_odd_json(body)


def test_a_bucket_fills_up_again() -> None:
    limit = RateLimit(10)
    for _ in range(10):
        limit.spend("one", 100.0)
    with pytest.raises(Refusal) as caught:
        limit.spend("one", 100.0)
    assert (caught.value.status, caught.value.headers["Retry-After"]) == (429, "1")
    limit.spend("two", 100.0)
    limit.spend("one", 100.11)
    with pytest.raises(Refusal):
        limit.spend("one", 100.11)
    for _ in range(10):
        limit.spend("one", 500.0)


def test_buckets_are_bounded_in_memory() -> None:
    limit = RateLimit(1)
    for number in range(60_000):
        limit.spend(str(number), 0.0)
    assert len(limit._buckets) <= 50_000  # noqa: SLF001 - the bound is the point


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("10.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["1.1.1.1, 203.0.113.9, 10.0.0.7"], "203.0.113.9"),
        ("10.0.0.1", ["1.1.1.1", "203.0.113.9"], "203.0.113.9"),
        ("198.51.100.2", ["203.0.113.9"], "198.51.100.2"),
        ("10.0.0.1", ["nonsense"], "10.0.0.1"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("10.0.0.1", [", ".join(["10.0.0.2"] * 5_000)], "10.0.0.2"),
        ("::1", ["203.0.113.9"], "203.0.113.9"),
        ("", ["203.0.113.9"], ""),
    ],
)
def test_only_listed_proxies_are_believed(peer: str, forwarded: list[str], client: str) -> None:
    assert ProxyList(["10.0.0.0/8", "::1"]).client(peer, forwarded) == client


def test_every_code_makes_a_problem() -> None:
    for code, kind in CATALOGUE.items():
        told = problem_of(Refusal(code, "A sentence.", extra={"more": 1}), "req_1")
        assert (told["status"], told["title"], told["code"], told["more"]) == (kind.status, kind.title, code.value, 1)


def test_pointers_name_what_the_client_sent() -> None:
    body = b'{"feature": 5, "mode": "x", "user": {"a": 1}, "note": "", "expires_at": "soon", "more~/": 1}'
    with pytest.raises(Refusal) as caught:
        parse_body(OverrideBody, body)
    pointers = [error.pointer for error in caught.value.errors]
    assert sorted(pointers) == ["/expires_at", "/feature", "/mode", "/more~0~1", "/note", "/user", "/user/a"]
    assert caught.value.code is Code.INVALID


@pytest.mark.parametrize("secret", SECRETS)
def test_secrets_are_removed_wherever_they_stand(secret: str) -> None:
    event = redact(
        None,
        "info",
        {
            "event": f"saw {secret} here",
            "nested": {"list": [f"x {secret}"], "bytes": secret.encode()},
            "Authorization": f"Bearer {secret}",
            "stripe-signature": "t=1,v1=" + "0" * 64,
            "header": "t=1,v1=" + "ab" * 32,
            "url": "postgresql://plangate:hunter2@db/x",
            "client_secret": "anything",
        },
    )
    text = str(event)
    assert secret not in text
    for hidden in ("hunter2", "anything", "ab" * 32, "0" * 64):
        assert hidden not in text
    assert "saw [redacted] here" in text


def test_both_kinds_of_loggers_write_redacted_json() -> None:
    stream = io.StringIO()
    try:
        configure_logging("info", stream=stream)
        structlog.get_logger("a").info("started", key=SECRETS[0])
        logging.getLogger("b").warning("said %s", SECRETS[2])
        try:
            int(SECRETS[3])
        except ValueError:
            structlog.get_logger("c").exception("failed")
        structlog.get_logger("a").debug("not shown")
    finally:
        structlog.reset_defaults()
        logging.getLogger().handlers[:] = []
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["event"] for line in lines] == ["started", "said [redacted]", "failed"]
    assert not any(secret in stream.getvalue() for secret in SECRETS)


async def test_the_access_log_writes_in_batches() -> None:
    written: list[str] = []
    log, quiet = AccessLog(write=written.append), AccessLog("warning", write=written.append)
    for number in range(3):
        line = AccessLine(
            "GET", "/v1/catalog", 200, 1.23, f"req_{number}", "127.0.0.1", "key_1", "default", datetime.now(UTC)
        )
        log.note(line)
        quiet.note(line)
    assert written == []
    quiet.flush()
    assert written == []
    log.flush()
    lines = [json.loads(line) for line in written[0].splitlines()]
    assert [line["request_id"] for line in lines] == ["req_0", "req_1", "req_2"]
    assert redacted_text("/v1/" + SECRETS[0]) == "/v1/[redacted]"


def test_metrics_add_up() -> None:
    metrics = RequestMetrics()
    for seconds in (0.0005, 0.003, 20.0):
        metrics.answered("GET", "/v1/x", 200, seconds)
    text = metrics.render({"plangate_g": ("A gauge.", {("default", "pending"): 3.0})}).decode()
    assert 'plangate_requests_total{method="GET",route="/v1/x",status="200"} 3.0' in text
    assert 'plangate_request_seconds_bucket{le="0.001",route="/v1/x"} 1.0' in text
    assert 'plangate_request_seconds_bucket{le="+Inf",route="/v1/x"} 3.0' in text
    assert 'plangate_g{environment="default",state="pending"} 3.0' in text
