"""Usage over HTTP: reservations, one feature over time, and the ledger as CSV and NDJSON."""

import csv
import io
import json
from typing import Any

import httpx

from plangate.metering import UsageRecord
from plangate.web.exporting import csv_lines
from tests.web.asked import problem
from tests.web.conftest import Front

ACME = {"id": "acme"}


def _reserve(front: Front, quantity: int, **more: Any) -> httpx.Response:  # noqa: ANN401 - what httpx takes
    body = {"company": ACME, "feature": "exports", "quantity": quantity}
    return front.http.post("/v1/reservations", json=body, **more)


def _record(front: Front, *events: dict[str, Any]) -> None:
    told = [{"type": "track", "event": "export", "company": ACME, **event} for event in events]
    assert front.http.post("/v1/events", json=told).status_code == 200


def test_a_reservation_from_hold_to_settlement(front: Front) -> None:
    held = _reserve(front, 6, headers={"Idempotency-Key": "job-1"})
    assert held.status_code == 201
    assert held.json()["decision"]["reserved"] == 6
    again = _reserve(front, 6, headers={"Idempotency-Key": "job-1"})
    assert (again.json(), again.headers["idempotent-replayed"]) == (held.json(), "true")
    explained = front.http.post(
        "/v1/reservations", json={"company": ACME, "feature": "exports", "quantity": 5, "trace": True}
    ).json()
    assert (explained["id"], explained["decision"]["trace"] is None) == (None, False)
    refused = _reserve(front, 5)
    assert (refused.status_code, refused.json()["id"], refused.json()["expires_at"]) == (200, None, None)
    address = f"/v1/reservations/{held.json()['id']}"
    settled = front.http.post(f"{address}/settle", json={"quantity": 4})
    assert settled.status_code == 200
    assert settled.json() | {"decision": None} == {
        "id": held.json()["id"],
        "state": "settled",
        "reserved": 6,
        "quantity": 4,
        "overrun": 0,
        "decision": None,
    }
    assert front.http.post(f"{address}/settle", json={"quantity": 4}).json() == settled.json()
    for answer in (
        front.http.post(f"{address}/settle", json={"quantity": 5}),
        front.http.post(f"{address}/release"),
    ):
        assert (answer.status_code, problem(answer)["code"]) == (409, "reservation_closed")
    check = front.http.post("/v1/check", json={"company": ACME, "feature": "exports"}).json()
    assert (check["used"], check["reserved"], check["remaining"]) == (4, 0, 6)


def test_u14_quantities_are_whole_numbers_from_end_to_end(front: Front) -> None:
    for quantity in ("0.1", "1.0", "1e3", "1e400", "NaN", '"1"', "true", "-0.5", "9223372036854775808"):
        for path, body in (
            ("/v1/events", '{"type": "track", "event": "export", "company": {"id": "acme"}, "quantity": %s}'),
            (
                "/v1/consume",
                '{"feature": "exports", "company": {"id": "acme"}, "idempotency_key": "q", "quantity": %s}',
            ),
            ("/v1/reservations", '{"feature": "exports", "company": {"id": "acme"}, "quantity": %s}'),
        ):
            answer = front.http.post(
                path, content=(body % quantity).encode(), headers={"Content-Type": "application/json"}
            )
            assert answer.status_code in {400, 422}, (path, quantity, answer.text)
    _record(front, *({"quantity": 1} for _ in range(10)))
    _record(front, {"quantity": 2**62})
    usage = front.http.get(f"/v1/companies/{front.acme}/usage?feature=exports&by=month").json()
    assert usage["points"][-1]["quantity"] == 2**62 + 10


def test_another_environments_reservation_is_not_there(front: Front) -> None:
    held = _reserve(front, 1).json()["id"]
    for name, body in (("settle", {"quantity": 1}), ("release", None)):
        foreign = front.other.post(f"/v1/reservations/{held}/{name}", json=body)
        assert foreign.status_code == 404
        made_up = front.other.post(f"/v1/reservations/resv_{'0' * 26}/{name}", json=body)
        assert problem(foreign) == problem(made_up)
    assert front.http.post(f"/v1/reservations/{held}/release").json()["state"] == "released"


def test_out_of_bounds_reservations_name_the_field(front: Front) -> None:
    for field, value in (("ttl_seconds", 0), ("ttl_seconds", 86_401), ("quantity", 0), ("quantity", 2**63)):
        answer = front.http.post("/v1/reservations", json={"company": ACME, "feature": "exports", field: value})
        assert (answer.status_code, problem(answer)["errors"][0]["pointer"]) == (422, f"/{field}")


def test_a_series_as_csv_and_ndjson(front: Front) -> None:
    _record(front, {"quantity": 3}, {"quantity": -1})
    address = f"/v1/companies/{front.acme}/usage?feature=exports&by=hour"
    points = front.http.get(address).json()["points"]
    assert (len(points), points[-1]["quantity"] + points[-2]["quantity"]) == (48, 2)
    table = front.http.get(address + "&format=csv")
    assert table.headers["content-type"] == "text/csv; charset=utf-8"
    rows = list(csv.DictReader(io.StringIO(table.text)))
    assert [(row["feature"], int(row["quantity"])) for row in rows] == [("exports", p["quantity"]) for p in points]
    lines = front.http.get(address, headers={"Accept": "text/html;q=0.9, application/x-ndjson"})
    assert lines.headers["content-type"] == "application/x-ndjson"
    assert [json.loads(line)["start"] for line in lines.text.splitlines()] == [point["start"] for point in points]


def test_series_put_end_to_end_share_no_step(front: Front) -> None:
    address = f"/v1/companies/{front.acme}/usage"
    first, second, third = "2026-10-01T00:00:00Z", "2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z"
    starts: list[str] = []
    for since, until in ((first, second), (second, third)):
        asked = {"feature": "exports", "by": "day", "since": since, "until": until}
        points = front.http.get(address, params=asked).json()["points"]
        assert (points[0]["start"], points[-1]["end"]) == (since, until)
        starts += [point["start"] for point in points]
    assert len(starts) == len(set(starts)) == 31 + 30
    for since, until in ((second, first), (first, first)):
        refused = front.http.get(address, params={"feature": "exports", "since": since, "until": until})
        assert (refused.status_code, problem(refused)["errors"][0]["pointer"]) == (422, "?until")


def test_the_ledger_is_exported_as_it_is_read(front: Front) -> None:
    for start in range(0, 2_500, 500):
        _record(front, *({"quantity": start + number + 1} for number in range(500)))
    front.http.put("/v1/companies", json={"keys": {"id": "beta"}})
    _record(front, {"company": {"id": "beta"}, "quantity": 9}, {"event": "=cmd|' /C calc'!A1", "quantity": -7})
    with front.http.stream("GET", "/v1/usage/export") as answer:
        assert answer.headers["content-type"] == "application/x-ndjson"
        assert "content-length" not in answer.headers
        records = [json.loads(line) for line in answer.iter_lines()]
    assert len(records) == 2_502
    assert sum(one["quantity"] for one in records) == 2_500 * 2_501 // 2 + 9 - 7
    assert len({one["id"] for one in records}) == 2_502
    own = front.http.get(f"/v1/usage/export?company={front.acme}&feature=exports&format=csv")
    rows = list(csv.DictReader(io.StringIO(own.text)))
    assert sorted(int(row["quantity"]) for row in rows) == list(range(1, 2_501))
    assert tuple(rows[0]) == UsageRecord.__struct_fields__
    everything = front.http.get("/v1/usage/export", headers={"Accept": "text/csv"}).text
    # A spreadsheet must not compute a name, and must not take a correction for a text.
    assert "'=cmd|' /C calc'!A1,-7," in everything
    since = records[-1]["occurred_at"]
    late = front.http.get("/v1/usage/export", params={"since": since}).text.splitlines()
    assert 1 <= len(late) <= 2
    assert front.http.get("/v1/usage/export", params={"until": records[0]["occurred_at"]}).text == ""
    assert front.http.head("/v1/usage/export").status_code == 200
    assert front.other.get("/v1/usage/export").text == ""


def test_what_an_export_cannot_find_is_a_problem(front: Front) -> None:
    for query, status in (
        (f"company={front.rival}", 404),
        ("company=acme", 422),
        ("feature=sso", 422),
        ("feature=nothing&format=csv", 422),
        ("format=json", 422),
        ("since=yesterday", 422),
    ):
        answer = front.http.get(f"/v1/usage/export?{query}")
        assert (answer.status_code, problem(answer)["status"]) == (status, status), query
    assert problem(front.http.get("/v1/usage/export?feature=sso"))["errors"][0]["pointer"] == "?feature"


def test_cells_that_a_spreadsheet_would_compute_are_defused() -> None:
    assert csv_lines([["=1+1", "+a", "-b", "@c", "\td", 'e "f", g', None, -5, "h"]]) == (
        b'\'=1+1,\'+a,\'-b,\'@c,\'\td,"e ""f"", g",,-5,h\r\n'
    )
