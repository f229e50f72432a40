"""Rate limits and logs of a running server: hot clients are slowed down, and no log line holds a secret."""

from pathlib import Path

import httpx
import pytest

from plangate.settings import Settings
from tests.conftest import APP_SECRET, SECRET_KEY, WEBHOOK_SECRET, environment_settings
from tests.plangate_server import PlangateServer


def _settings(file: Path, **changes: object) -> Settings:
    return Settings.model_validate(
        {
            "database_url": f"sqlite:///{file}",
            "secret_keys": (SECRET_KEY,),
            "environments": (environment_settings().model_dump(),),
            **changes,
        }
    )


@pytest.fixture
def file(sqlite_template: Path, tmp_path: Path) -> Path:
    """A migrated SQLite file: limits live in memory and do not care about the database."""
    copy = tmp_path / "plangate.sqlite3"
    copy.write_bytes(sqlite_template.read_bytes())
    return copy


def _statuses(client: httpx.Client, method: str, path: str, count: int, **sent: object) -> list[int]:
    answers = [client.request(method, path, **sent) for _ in range(count)]  # type: ignore[arg-type]  # httpx's own
    for answer in answers:
        if answer.status_code == 429:
            assert answer.headers["retry-after"] == "1"
            assert answer.json()["code"] == "rate_limited"
    return [answer.status_code for answer in answers]


def test_a_key_and_an_address_have_limits_of_their_own(file: Path) -> None:
    settings = _settings(file, rate_limit_per_second=20, address_rate_limit_per_second=10)
    with PlangateServer(settings) as server:
        first, second = server.key(), server.key()
        with server.client(first) as one, server.client(second) as two, server.client() as nobody:
            assert 429 in _statuses(one, "GET", "/v1/catalog", 40)
            assert _statuses(two, "GET", "/v1/catalog", 10) == [200] * 10
            assert 429 in _statuses(nobody, "GET", "/healthz", 30)
            assert _statuses(two, "GET", "/v1/catalog", 5) == [200] * 5


def test_guessing_keys_is_slowed_down(file: Path) -> None:
    with PlangateServer(_settings(file, address_rate_limit_per_second=10)) as server, server.client() as nobody:
        found = []
        for number in range(30):
            headers = {"Authorization": f"Bearer pgt_sk_guess{number}"}
            found += _statuses(nobody, "GET", "/v1/catalog", 1, headers=headers)
        assert set(found) == {401, 429}


def test_bad_signatures_are_limited_and_good_ones_are_not(file: Path) -> None:
    import json

    from plangate.billing.signatures import sign
    from plangate.clock import wall_now

    with PlangateServer(_settings(file, address_rate_limit_per_second=10)) as server, server.client() as nobody:
        bad = {"Stripe-Signature": "t=1,v1=" + "0" * 64}
        assert set(_statuses(nobody, "POST", "/webhooks/stripe", 30, content=b"{}", headers=bad)) == {400, 429}
        for number in range(20):
            event = {"id": f"evt_{number}", "type": "invoice.paid", "livemode": False, "created": 1_795_000_000}
            event["data"] = {"object": {}}
            body = json.dumps(event).encode()
            good = {"Stripe-Signature": sign(body, WEBHOOK_SECRET, at=wall_now())}
            assert _statuses(nobody, "POST", "/webhooks/stripe", 1, content=body, headers=good) == [200]


def test_a_listed_proxy_is_believed_about_the_address(file: Path) -> None:
    settings = _settings(file, address_rate_limit_per_second=5, trusted_proxies=("127.0.0.0/8",))
    with PlangateServer(settings) as server, server.client() as proxy:
        hot = {"X-Forwarded-For": "203.0.113.9"}
        assert 429 in _statuses(proxy, "GET", "/healthz", 20, headers=hot)
        assert _statuses(proxy, "GET", "/healthz", 1, headers={"X-Forwarded-For": "203.0.113.10"}) == [200]


def test_no_log_line_holds_a_secret(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with PlangateServer(_settings(file)) as server:
        key = server.key()
        visitor = server.key(is_publishable=True)
        with server.client(key) as http, server.client() as nobody:
            http.put("/v1/companies", json={"keys": {"id": "acme"}})
            minted = http.post("/v1/component-tokens", json={"company": {"id": "acme"}, "scopes": ["view"]})
            token = minted.json()["token"]
            http.get(f"/v1/companies?search={key}")
            http.get(f"/v1/{key}/{token}")
            nobody.get(f"/components/v1/pricing-table?key={visitor}")
            nobody.get("/components/v1/usage", headers={"Authorization": f"Bearer {token}"})
            nobody.post("/webhooks/stripe", content=b"{}", headers={"Stripe-Signature": f"t=1,v1={'ab' * 32}"})
            nobody.get("/v1/catalog", headers={"Authorization": f"Bearer {SECRET_KEY}"})
    logged = "".join(capsys.readouterr())
    assert logged.count('"event":"request"') >= 8
    for secret in (key, visitor, token, SECRET_KEY, WEBHOOK_SECRET, APP_SECRET, "ab" * 32, "pgt_sk_", "pgt_pk_"):
        assert secret not in logged
