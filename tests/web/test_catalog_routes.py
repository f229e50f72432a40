"""The catalogue over HTTP where versions are concerned: etags, dry runs, who migrates, and how far that is."""

from typing import Any

from plangate.catalog import carry_on_migrations
from plangate.deployment import Deployment
from tests.web.asked import problem
from tests.web.conftest import Front


def changed(front: Front, limit: int) -> tuple[dict[str, Any], str]:
    """The catalogue in force with another limit on the free plan, and its etag."""
    answer = front.http.get("/v1/catalog")
    document = answer.json()
    key = next(iter(document["plans"]))
    document["plans"][key]["entitlements"]["exports"] = {"limit": limit, "period": "billing_month"}
    return document, answer.headers["etag"]


def test_a_catalogue_made_from_an_older_one_is_refused(front: Front) -> None:
    document, etag = changed(front, 77)
    planned = front.http.put("/v1/catalog?dry_run=true", json=document, headers={"If-Match": etag})
    assert planned.status_code == 200
    assert planned.headers["etag"] == etag
    assert not planned.json()["is_applied"]
    applied = front.http.put("/v1/catalog", json=document, headers={"If-Match": etag})
    assert applied.status_code == 200
    assert applied.headers["etag"] == f'"{applied.json()["revision"]}"' != etag
    revision = int(etag.strip('"'))
    for address, headers in (
        ("/v1/catalog", {"If-Match": etag}),
        (f"/v1/catalog?expected_revision={revision}", {}),
        (f"/v1/catalog?expected_revision={revision}&dry_run=true", {}),
        ("/v1/catalog", {"If-Match": "nonsense"}),
    ):
        refused = front.http.put(address, json=document, headers=headers)
        assert (refused.status_code, problem(refused)["code"]) == (409, "catalog_stale"), address
    both = front.http.put(f"/v1/catalog?expected_revision={revision + 5}", json=document, headers={"If-Match": etag})
    assert (both.status_code, problem(both)["code"]) == (422, "invalid")
    assert front.http.get("/v1/catalog").headers["etag"] == applied.headers["etag"]


def test_who_migrates_is_said_with_the_catalogue_and_read_back(front: Front) -> None:
    document, _ = changed(front, 78)
    key = next(iter(document["plans"]))
    refused = front.http.put("/v1/catalog?migrate=some", json=document)
    assert (refused.status_code, problem(refused)["errors"][0]["pointer"]) == (422, "/migrate")
    applied = front.http.put(f"/v1/catalog?migrate=none;{key}=id=acme,id=nobody", json=document).json()
    assert [change["migrate"] for change in applied["changes"]] == ["some"]
    (newest, *_) = front.http.get("/v1/catalog/migrations").json()["data"]
    assert (newest["key"], newest["mode"], newest["state"]) == (key, "some", "running")

    async def finish(deployment: Deployment) -> None:
        while await carry_on_migrations(deployment.named("default")):
            pass

    front.server.run(finish)
    path = f"/v1/catalog/migrations/{newest['id']}"
    assert front.http.get(path).json()["state"] == "finished"
    listed = front.http.get(f"{path}/companies?state=done").json()
    assert listed["next_cursor"] is None
    assert {one["state"] for one in listed["data"]} <= {"done"}
    assert front.http.get(f"{path}/companies?state=lost").status_code == 422
    assert front.http.post(f"{path}/retry").json()["state"] == "finished"
    page = front.http.get("/v1/catalog/migrations?limit=1").json()
    assert [one["id"] for one in page["data"]] == [newest["id"]]


def test_a_draft_is_edited_diffed_and_published(front: Front) -> None:
    document, _ = changed(front, 91)
    assert front.http.get("/v1/catalog/draft").status_code == 404
    saved = front.http.put("/v1/catalog/draft", json=document)
    assert saved.status_code == 200
    etag = saved.headers["etag"]
    assert front.http.get("/v1/catalog/draft").headers["etag"] == etag == f'"{saved.json()["etag"]}"'
    document["plans"][next(iter(document["plans"]))]["entitlements"]["exports"]["limit"] = 92
    again = front.http.put("/v1/catalog/draft", json=document, headers={"If-Match": etag})
    assert again.status_code == 200
    late = front.http.put("/v1/catalog/draft", json=document, headers={"If-Match": etag})
    assert (late.status_code, problem(late)["code"]) == (412, "etag_mismatch")
    diff = front.http.get("/v1/catalog/draft/diff?migrate=none").json()
    assert [(one["migrate"], one["version"] > 1) for one in diff["changes"]] == [("none", True)]
    assert diff["repriced"] is None
    prices = front.http.get("/v1/catalog/draft/diff?migrate=all&proration=none").json()
    assert prices["repriced"] == {"companies": 0, "is_complete": True}
    lost = front.http.post("/v1/catalog/draft/publish?migrate=none", headers={"If-Match": etag})
    assert lost.status_code == 412
    published = front.http.post("/v1/catalog/draft/publish?migrate=none")
    assert published.json()["is_applied"]
    assert front.http.get("/v1/catalog").headers["etag"] == published.headers["etag"]
    assert front.http.delete("/v1/catalog/draft").status_code == 404
    stale = front.http.put("/v1/catalog/draft?expected_revision=1", json=document)
    assert (stale.status_code, problem(stale)["code"]) == (409, "catalog_stale")

    key = diff["changes"][0]["key"]
    asked = {"key": key, "migrate": "all"}
    planned = front.http.post("/v1/catalog/migrations?dry_run=true", json=asked).json()
    assert (planned["mode"], planned["migration"]) == ("all", None)
    assert planned["impact"]["examined"] > 0
    assert planned["repriced"] is None
    prices = front.http.post("/v1/catalog/migrations?dry_run=true", json={**asked, "proration": "none"}).json()
    assert prices["repriced"] == {"companies": 0, "is_complete": True}
    moved = front.http.post("/v1/catalog/migrations", json=asked).json()
    assert moved["migration"]["state"] == "finished"
    gone = front.http.post("/v1/catalog/migrations", json=asked)
    assert (gone.status_code, problem(gone)["code"]) == (404, "not_found")
