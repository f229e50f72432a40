"""The OpenAPI document is valid, complete, and true: what the server answers fits the schemas it publishes."""

from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator

from plangate.web.api import OPERATIONS
from tests.web.asked import every_request, grant
from tests.web.conftest import Front


def _schema(document: dict[str, Any], schema: dict[str, Any]) -> Draft202012Validator:
    """A validator of one schema that can refer to the document's components."""
    return Draft202012Validator({**schema, "components": document["components"]})


def _resolved(document: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in node:
        return node
    found: Any = document
    for part in node["$ref"].removeprefix("#/").split("/"):
        found = found[part]
    return dict(found)


@pytest.fixture
def document(front: Front) -> dict[str, Any]:
    found: dict[str, Any] = front.http.get("/openapi.json").json()
    return found


def test_it_describes_every_operation_and_nothing_else(document: dict[str, Any]) -> None:
    assert document["openapi"] == "3.1.0"
    described = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    service = {("GET", path) for path in ("/healthz", "/readyz", "/metrics", "/openapi.json")}
    assert described == {(one.method, one.path) for one in OPERATIONS} | service
    names = [one["operationId"] for methods in document["paths"].values() for one in methods.values()]
    assert len(names) == len(set(names))


def test_every_schema_is_valid_and_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    def walk(node: object) -> None:
        if isinstance(node, dict):
            if "$ref" in node and isinstance(node["$ref"], str):
                assert _resolved(document, node)
            for value in node.values():
                walk(value)
        elif isinstance(node, list):
            for value in node:
                walk(value)

    walk(document)
    for name, schema in document["components"]["schemas"].items():
        Draft202012Validator.check_schema(schema)
        assert schema.get("title") == name or "enum" in schema or "anyOf" in schema, name


def test_examples_fit_their_schemas(document: dict[str, Any]) -> None:
    seen = 0
    for methods in document["paths"].values():
        for operation in methods.values():
            content = operation.get("requestBody", {}).get("content", {}).get("application/json")
            if content is None:
                continue
            assert operation["summary"]
            assert "example" in content or operation["operationId"] == "putCatalog"
            if "example" in content:
                _schema(document, content["schema"]).validate(content["example"])
                seen += 1
    assert seen >= 13


def _assert_documented(document: dict[str, Any], path: str, method: str, answer: httpx.Response) -> None:
    responses = document["paths"][path][method.lower()]["responses"]
    assert str(answer.status_code) in responses, (method, path, answer.status_code, answer.text)
    content = _resolved(document, responses[str(answer.status_code)])["content"]
    kind = answer.headers["content-type"].partition(";")[0]
    told = answer.text if kind == "application/x-ndjson" else answer.json()
    _schema(document, content[kind]["schema"]).validate(told)


def test_answers_fit_what_is_documented(front: Front, document: dict[str, Any]) -> None:
    front.http.post("/v1/consume", json={"company": {"id": "acme"}, "feature": "exports", "idempotency_key": "1"})
    override = grant(front, value=7, feature="api-calls")["id"]
    statuses = set()
    for asked in every_request(front, override=override):
        answer = asked.send(front.http)
        _assert_documented(document, asked.operation.path, asked.operation.method, answer)
        statuses.add(answer.status_code)
        with front.server.client() as nobody:
            _assert_documented(document, asked.operation.path, asked.operation.method, asked.send(nobody))
        if asked.body is not None:
            unread = asked.send(front.http, content=b"{")
            _assert_documented(document, asked.operation.path, asked.operation.method, unread)
    assert {200, 201} <= statuses
    for path in ("/healthz", "/readyz", "/openapi.json"):
        _assert_documented(document, path, "get", front.http.get(path))
