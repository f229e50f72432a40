"""One valid request for every operation of the API, and what the store holds, for tests that go over all routes."""

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx
from sqlalchemy import func, select

from plangate.clock import wall_now
from plangate.deployment import Deployment
from plangate.store.tables import metadata
from plangate.web.api import OPERATIONS
from plangate.web.operations import Operation
from tests.web.conftest import Front

_QUERIES = {"getUsage": "?feature=exports"}


@dataclass(frozen=True, slots=True)
class Asked:
    """A valid request, as an operation documents it."""

    operation: Operation
    path: str
    body: Any

    def send(self, client: httpx.Client, **changes: Any) -> httpx.Response:  # noqa: ANN401 - whatever httpx takes
        """Send it with a client; keyword arguments replace what is sent."""
        headers = {"If-Match": "*"} if self.operation.takes_if_match else {}
        arguments: dict[str, Any] = {} if self.body is None else {"json": self.body}
        if "content" in changes or "json" in changes:
            arguments = {}
        if "content" in changes:
            headers["Content-Type"] = "application/json"
        headers |= changes.pop("headers", {})
        return client.request(
            self.operation.method, changes.pop("path", self.path), headers=headers, **arguments, **changes
        )


def every_request(front: Front, *, override: str, change: str = "chg_00000000000000000000000000") -> list[Asked]:
    """A request for every operation, about the company `acme`."""
    held = front.http.post("/v1/reservations", json={"company": {"id": "acme"}, "feature": "exports"}).json()
    asked = []
    for operation in OPERATIONS:
        path = operation.path.format(
            company_id=front.acme,
            override_id=override,
            user_id="user_00000000000000000000000000",
            change_id=change,
            reservation_id=held["id"],
            migration_id="mig_00000000000000000000000000",
            review_id="rev_00000000000000000000000000",
        )
        body = copy.deepcopy(operation.example)
        if operation.name == "putCatalog":
            body = {"version": 1, "features": {}, "plans": {}}
        asked.append(Asked(operation, path + _QUERIES.get(operation.name, ""), body))
    return asked


def grant(front: Front, **changes: Any) -> dict[str, Any]:  # noqa: ANN401 - fields of an override
    """An override of acme."""
    body = {"feature": "exports", "mode": "add", "value": 5, "note": "for a test", **changes}
    answer = front.http.post(f"/v1/companies/{front.acme}/overrides", json=body)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def holdings(front: Front) -> Mapping[str, int]:
    """How many rows each table holds, but for bookkeeping that any request may leave."""

    async def counted(deployment: Deployment) -> dict[str, int]:
        async with deployment.database.reading("every", wall_now()) as session:
            return {
                table.name: int(await session.scalar(select(func.count()).select_from(table)) or 0)
                for table in metadata.sorted_tables
                if table.name not in {"change_feed", "idempotency", "leases"}
            }

    return front.server.run(counted)


def problem(answer: httpx.Response) -> dict[str, Any]:
    """The answer's problem without what differs between two requests, after checking its shape."""
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    body: dict[str, Any] = json.loads(answer.content)
    assert {"type", "title", "status", "code", "detail", "errors", "request_id"} <= set(body), body
    assert body["status"] == answer.status_code
    assert body["request_id"] == answer.headers["x-request-id"]
    assert body["type"].endswith("#" + body["code"])
    assert body["detail"].endswith((".", "…", "`"))
    return {name: value for name, value in body.items() if name != "request_id"}
