"""Only Stripe's own words pass: exact bytes, a listed secret, and a time within the tolerance both ways."""

import json
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plangate.billing.signatures import sign, verify_app_message, verify_webhook
from plangate.errors import Code, Refusal

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
SECRETS = [("whsec_old", "live"), ("whsec_new", "live"), ("whsec_test", "test")]
BODY = b'{"id":"evt_1","object":"event"}'


def refused(payload: bytes, header: str, secrets: list[tuple[str, str]] | None = None, now: datetime = NOW) -> bool:
    try:
        verify_webhook(payload, header, SECRETS if secrets is None else secrets, now=now)
    except Refusal as refusal:
        return refusal.code is Code.SIGNATURE_INVALID and refusal.status == 400
    return False


@pytest.mark.parametrize(("secret", "owner"), SECRETS)
def test_each_listed_secret_names_its_owner(secret: str, owner: str) -> None:
    assert verify_webhook(BODY, sign(BODY, secret, at=NOW), SECRETS, now=NOW) == owner


def test_a_removed_secret_is_refused() -> None:
    assert refused(BODY, sign(BODY, "whsec_third", at=NOW))


@pytest.mark.parametrize("seconds", [-300, -1, 0, 1, 300])
def test_within_the_tolerance_both_ways(seconds: int) -> None:
    header = sign(BODY, "whsec_new", at=NOW + timedelta(seconds=seconds))
    assert verify_webhook(BODY, header, SECRETS, now=NOW) == "live"


@pytest.mark.parametrize("seconds", [-86_400, -301, 301, 86_400])
def test_outside_the_tolerance_both_ways(seconds: int) -> None:
    assert refused(BODY, sign(BODY, "whsec_new", at=NOW + timedelta(seconds=seconds)))


def test_w23_one_changed_byte_is_refused() -> None:
    header = sign(BODY, "whsec_new", at=NOW)
    assert refused(BODY.replace(b":", b": ", 1), header)
    assert refused(BODY + b"\n", header)


def test_a_body_that_is_not_utf_8_is_verified_as_bytes() -> None:
    payload = b"\xff\xfe\x00"
    assert verify_webhook(payload, sign(payload, "whsec_new", at=NOW), SECRETS, now=NOW) == "live"


def test_a_second_valid_signature_is_enough() -> None:
    timestamp, _, signature = sign(BODY, "whsec_new", at=NOW).partition(",")
    assert verify_webhook(BODY, f"{timestamp},v1={'0' * 64},{signature},v0=abc", SECRETS, now=NOW) == "live"


def test_more_than_ten_signatures_are_refused() -> None:
    timestamp, _, signature = sign(BODY, "whsec_new", at=NOW).partition(",")
    padding = ",".join(f"v1={'0' * 64}" for _ in range(9))
    assert not refused(BODY, f"{timestamp},{padding},{signature}")
    assert refused(BODY, f"{timestamp},{padding},v1={'1' * 64},{signature}")


def test_a_header_over_four_kilobytes_is_refused() -> None:
    header = sign(BODY, "whsec_new", at=NOW)
    assert refused(BODY, header + ",v0=" + "a" * 4096)


def test_an_empty_secret_signs_nothing() -> None:
    header = sign(BODY, "", at=NOW)
    assert refused(BODY, header, [("", "live")])
    assert refused(BODY, header, [])


GOOD = sign(BODY, "whsec_new", at=NOW)
SIGNATURE = GOOD.partition(",")[2]


@pytest.mark.parametrize(
    "header",
    [
        "",
        "t=",
        "v1=",
        "t=abc," + SIGNATURE,
        SIGNATURE,
        GOOD.partition(",")[0],
        "t=-1," + SIGNATURE,
        "t=+1795262400," + SIGNATURE,
        "t=\u0661\u0662," + SIGNATURE,
        "t=1_795_262_400," + SIGNATURE,
        "t= 1795262400," + SIGNATURE,
        "t=1e9," + SIGNATURE,
        "t=" + "9" * 400 + "," + SIGNATURE,
        GOOD.partition(",")[0] + "," + GOOD,
        GOOD.replace("v1", "v0"),
        GOOD.replace("v1", "V1"),
        GOOD[:-1],
        GOOD + "0",
        GOOD[:-1] + "\u00e9",
        GOOD + ",",
        GOOD + ",garbage",
        GOOD.upper(),
        "\x00",
        "t=NaN,v1=NaN",
    ],
)
def test_odd_headers_are_refused(header: str) -> None:
    assert refused(BODY, header)


@settings(max_examples=300, derandomize=True, deadline=None)
@given(header=st.text(max_size=200), payload=st.binary(max_size=200))
def test_arbitrary_headers_are_refused(header: str, payload: bytes) -> None:
    assert refused(payload, header)


def test_mutated_headers_and_bodies_are_refused() -> None:
    """Twenty thousand single mutations of a good message: none is accepted, nothing but the refusal is raised."""
    chance = random.Random(20261120)  # noqa: S311 - repeatable mutations, not secrets.
    alphabet = "0123456789abcdefgtv=,. \x00\u00e9"
    for _ in range(20_000):
        header, payload = list(GOOD), bytearray(BODY)
        if chance.random() < 0.7:
            index = chance.randrange(len(header))
            # The letters before `=` and the digits all matter, so any changed character must break it.
            letter = chance.choice(alphabet)
            if letter == header[index]:
                continue
            header[index] = letter
        else:
            payload[chance.randrange(len(payload))] ^= 1 << chance.randrange(8)
        assert refused(bytes(payload), "".join(header))


def app_body(**members: object) -> bytes:
    return json.dumps(members, separators=(",", ":"), ensure_ascii=False).encode()


def test_an_app_message_gives_its_owner_and_object() -> None:
    body = app_body(customer="cus_1", note="Grüße, 日本", user_id="usr_1", account_id="acct_1")
    owner, message = verify_app_message(body, sign(body, "whsec_test", at=NOW), SECRETS, now=NOW)
    assert owner == "test"
    assert message == {"customer": "cus_1", "note": "Grüße, 日本", "user_id": "usr_1", "account_id": "acct_1"}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b"NaN",
        b'"text"',
        b"{",
        b'{"user_id":"usr_1"}',
        b'{"account_id":"acct_1"}',
        b'{"user_id":1,"account_id":"acct_1"}',
        b'{"user_id":"","account_id":"acct_1"}',
        b'{"user_id":"usr_1","account_id":null}',
        b'{"user_id":"usr_1","account_id":"acct_1","a":NaN}',
        b'{"user_id":"usr_1","account_id":"acct_1"}\xff',
        b'{"user_id":"' + b"u" * 256 + b'","account_id":"acct_1"}',
        b'{"user_id":"usr_1","account_id":"acct_1","a":' + b"[" * 33 + b"]" * 33 + b"}",
        b"[" * 100_000,
        b'{"a":' * 20_000 + b"1" + b"}" * 20_000,
        b" " * (256 * 1024 + 1),
    ],
)
def test_signed_bodies_that_are_no_app_message_are_refused(body: bytes) -> None:
    with pytest.raises(Refusal) as caught:
        verify_app_message(body, sign(body, "whsec_test", at=NOW), SECRETS, now=NOW)
    assert caught.value.code is Code.SIGNATURE_INVALID


def test_a_replayed_app_message_ends_with_the_tolerance() -> None:
    body = app_body(user_id="usr_1", account_id="acct_1")
    header = sign(body, "whsec_test", at=NOW)
    later = NOW + timedelta(seconds=301)
    with pytest.raises(Refusal):
        verify_app_message(body, header, SECRETS, now=later)


@settings(max_examples=200, derandomize=True, deadline=None)
@given(
    message=st.dictionaries(
        st.text(max_size=8), st.recursive(st.none() | st.text(max_size=8), lambda inner: st.lists(inner, max_size=3))
    )
)
def test_whatever_stripe_signs_comes_back_unchanged(message: dict[str, Any]) -> None:
    body = app_body(**{**message, "user_id": "usr_1", "account_id": "acct_1"})
    _, received = verify_app_message(body, sign(body, "whsec_test", at=NOW), SECRETS, now=NOW)
    assert received == {**message, "user_id": "usr_1", "account_id": "acct_1"}
