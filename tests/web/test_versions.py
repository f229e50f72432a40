"""Proves that whoever wrote reads it back: the version a write answered with is never read older, by any process."""

import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx

from plangate.deployment import Deployment
from plangate.settings import Settings
from tests.web.asked import problem
from tests.web.conftest import Front

ACME = {"company": {"id": "acme"}}


def test_a_read_with_the_version_of_a_write_is_never_older(front: Front) -> None:
    """The process's memory is made stale behind its back, as another process's write would."""
    front.http.post("/v1/check", json={**ACME, "feature": "sso"})

    async def behind(deployment: Deployment) -> str:
        env = deployment.named("default")
        held = env.standings.held(front.acme)
        assert held is not None
        other = await Deployment.open(deployment.settings)
        try:
            from plangate import overrides
            from tests.world import ACTOR

            there = other.named("default")
            await overrides.grant(there, front.acme, feature="sso", value=True, note="elsewhere", actor=ACTOR)
            standing = await there.standings.of(front.acme)
        finally:
            await other.close()
        assert standing is not None
        env.standings._keep(front.acme, held, (("id", "acme"),))  # noqa: SLF001 - put the old state back
        return str(standing.facts.version)

    version = {"Plangate-Version": front.server.run(behind)}
    fresh = front.http.post("/v1/check", json={**ACME, "feature": "sso"}, headers=version)
    assert fresh.json()["allowed"] is True
    for bad in ("x", "-1", "1.5", "9" * 30, "7~", "7~x"):
        answer = front.http.post("/v1/check", json={**ACME, "feature": "sso"}, headers={"Plangate-Version": bad})
        assert problem(answer)["status"] == 400


def test_usage_counted_by_another_process_is_seen_with_its_version(front: Front) -> None:
    """A second process on the same database, which has not heard of the first one's counting yet."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = front.server.run(_settings_of)
    arguments = [sys.executable, "-m", "tests.web.deaf_server", settings.model_dump_json(), str(port)]
    process = subprocess.Popen(arguments, cwd=Path(__file__).parents[2])  # noqa: S603 - our own module
    try:
        headers = {"Authorization": f"Bearer {front.key}"}
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, trust_env=False) as other:
            _wait_for(other)
            body = {**ACME, "feature": "api-calls"}
            other.post("/v1/check", json=body)
            for number in range(1, 11):
                told = {"type": "track", "event": "api-calls", **ACME}
                answer = (
                    front.http.post("/v1/events", json=told)
                    if number % 2
                    else front.http.post("/v1/consume", json={**body, "idempotency_key": str(number)})
                )
                version = {"Plangate-Version": answer.headers["plangate-version"]}
                assert other.post("/v1/check", json=body, headers=version).json()["used"] == number
                many = other.post("/v1/checks", json=ACME, headers=version).json()["decisions"]
                assert many["api-calls"]["used"] == number
    finally:
        process.terminate()
        process.wait(10)


async def _settings_of(deployment: Deployment) -> Settings:
    return deployment.settings


def _wait_for(client: httpx.Client) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            if client.get("/healthz").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.05)
    raise TimeoutError("the second server did not start")


def test_every_write_about_a_company_says_its_version(front: Front) -> None:
    said = [
        front.http.put("/v1/companies", json={"keys": {"id": "acme"}, "traits": {"seats": 1}}),
        front.http.post(f"/v1/companies/{front.acme}/overrides", json={"feature": "sso", "value": True, "note": "n"}),
        front.http.put("/v1/users", json={"keys": {"id": "ada"}, "companies": [{"id": "acme"}]}),
        front.http.put("/v1/users", json={"keys": {"id": "ada"}, "left": [{"id": "acme"}]}),
        front.http.post("/v1/consume", json={**ACME, "feature": "exports", "idempotency_key": "1"}),
    ]
    versions = [int(answer.headers["plangate-version"].partition("~")[0]) for answer in said]
    assert versions == sorted(versions)
    assert versions[1] > versions[0]
