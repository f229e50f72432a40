"""Component tokens: what is accepted, for how long, and that nothing else is."""

from datetime import timedelta
from typing import Any

import jwt
import pytest

from plangate.errors import Code, Refusal
from plangate.web.tokens import is_origin, key_id, mint_component_token, read_component_token
from tests.components.canned import NOW

FIRST, SECOND, FOREIGN = ("a" * 64, "b" * 64, "c" * 64)


def _mint(keys: tuple[str, ...] = (FIRST, SECOND), **changes: Any) -> str:  # noqa: ANN401 - any claim may be changed
    values: dict[str, Any] = {"environment_id": "env_1", "company": "comp_1", "now": NOW, **changes}
    return mint_component_token(keys, **values)[0]


def _forged(key: str = FIRST, *, algorithm: str = "HS256", **changes: object) -> str:
    now = int(NOW.timestamp())
    claims: dict[str, object] = {
        "aud": "plangate-component",
        "env": "env_1",
        "company": "comp_1",
        "scopes": ["view"],
        "iat": now,
        "exp": now + 900,
        "jti": "x",
        **changes,
    }
    claims = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(claims, key, algorithm=algorithm, headers={"kid": key_id(FIRST)})


def test_a_token_says_what_it_was_minted_for() -> None:
    text = _mint(user="usr_9", scopes=["pay"], origins=["https://app.test"], ttl_seconds=60)
    token = read_component_token((FIRST,), text, now=NOW + timedelta(seconds=59))
    assert (token.environment_id, token.company, token.user) == ("env_1", "comp_1", "usr_9")
    assert token.scopes == {"view", "pay"}
    assert token.origins == ("https://app.test",)
    assert token.expires_at == NOW + timedelta(seconds=60)


def test_the_first_key_signs_and_all_verify() -> None:
    assert read_component_token((SECOND, FIRST), _mint(), now=NOW).company == "comp_1"
    with pytest.raises(Refusal) as refused:
        read_component_token((SECOND,), _mint(), now=NOW)
    assert refused.value.code is Code.UNAUTHENTICATED


def test_a_token_ends_at_its_instant() -> None:
    with pytest.raises(Refusal) as refused:
        read_component_token((FIRST,), _mint(ttl_seconds=60), now=NOW + timedelta(seconds=60))
    assert refused.value.code is Code.TOKEN_EXPIRED


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        "a.b.c",
        "x" * 5000,
        _forged(FOREIGN),
        _forged(algorithm="HS512"),
        _forged(aud="plangate-quote"),
        _forged(exp=int(NOW.timestamp()) + 90_000),
        _forged(scopes=["admin"]),
        _forged(company=None),
        _forged(jti=None),
        _forged(exp="soon"),
        _mint()[:-3] + "abc",
        jwt.encode({"aud": "plangate-component"}, "", algorithm="none"),
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(Refusal) as refused:
        read_component_token((FIRST,), text, now=NOW)
    assert refused.value.code is Code.UNAUTHENTICATED


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"ttl_seconds": 901}, "/ttl_seconds"),
        ({"ttl_seconds": 0}, "/ttl_seconds"),
        ({"scopes": ["view", "admin"]}, "/scopes/1"),
        ({"origins": ["https://app.test/path"]}, "/origins/0"),
    ],
)
def test_minting_refuses_what_no_token_may_say(changes: dict[str, Any], pointer: str) -> None:
    with pytest.raises(Refusal) as refused:
        _mint(**changes)
    assert refused.value.errors[0].pointer == pointer


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://app.test", True),
        ("http://127.0.0.1:8000", True),
        ("http://[::1]:80", True),
        ("*", False),
        ("https://", False),
        ("ftp://a.test", False),
        ("https://a.test/", False),
        ("https://a.test?x", False),
        ("https://ä.test", False),
    ],
)
def test_origins_are_exact(text: str, *, expected: bool) -> None:
    assert is_origin(text) is expected
