"""A server that is started in another time zone still answers for the past in the one that held then."""

from typing import Any

from plangate import catalog, companies
from plangate.deployment import Deployment
from plangate.settings import Settings
from tests.conftest import SECRET_KEY, environment_settings
from tests.plangate_server import PlangateServer
from tests.world import ACTOR, DOCUMENT

ACME = {"id": "acme"}


def _server(database_url: str, time_zone: str) -> PlangateServer:
    environment = environment_settings(time_zone=time_zone)
    return PlangateServer(Settings(database_url=database_url, secret_keys=(SECRET_KEY,), environments=(environment,)))


async def _furnish(deployment: Deployment) -> None:
    environment = deployment.named(None)
    await catalog.apply(environment, DOCUMENT, actor=ACTOR)
    await companies.upsert(environment, keys=ACME, actor=ACTOR)


def _asked(server: PlangateServer, at: str | None = None) -> dict[str, Any]:
    with server.client(server.key()) as http:
        question = {"company": ACME, "feature": "api-calls", **({} if at is None else {"at": at})}
        answer: dict[str, Any] = http.post("/v1/check", json=question).json()
        return answer


def test_the_past_keeps_the_zone_it_was_answered_in(database_url: str) -> None:
    given: list[dict[str, Any]] = []
    # Nothing is ever used, so no stored window holds the zone of its day. A zone that comes back is told apart as well.
    for time_zone, hour in (("Asia/Tokyo", 15), ("Asia/Kolkata", 18), ("Asia/Tokyo", 15)):
        with _server(database_url, time_zone) as server:
            if not given:
                server.run(_furnish)
            given.append(_asked(server))
            assert given[-1]["period"]["start"].split("T")[1].startswith(f"{hour}:")
            assert [_asked(server, one["at"]) for one in given] == given
    with _server(database_url, "UTC") as server:
        assert [_asked(server, one["at"]) for one in given] == given
