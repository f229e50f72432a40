"""The OpenAPI 3.1 document, generated from the operations themselves: msgspec and pydantic schemas side by side."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from plangate import __version__
from plangate.errors import CATALOGUE, Code
from plangate.web.operations import Documented, Operation
from plangate.web.problems import CONTENT_TYPE, TYPE_BASE, Problem
from plangate.web.versions import HEADER as VERSION_HEADER

_REF: Final = "#/components/schemas/{name}"
_ALWAYS: Final = (Code.RATE_LIMITED, Code.INTERNAL)
_WITH_KEY: Final = (Code.UNAUTHENTICATED, Code.FORBIDDEN)
_WITH_BODY: Final = (Code.MALFORMED, Code.TOO_LARGE, Code.UNSUPPORTED_MEDIA_TYPE, Code.INVALID, Code.UNKNOWN_FIELD)
_WITH_QUERY: Final = (Code.MALFORMED, Code.INVALID, Code.UNKNOWN_FIELD)
_HEADER_TEXTS: Final[Mapping[str, str]] = {
    VERSION_HEADER: "How far this write got. Send it back with a read of the company, which then is never older.",
    "ETag": "Send it in If-Match with an edit.",
}
_DESCRIPTION: Final = (
    "May this company do this, right now, and why. Instants are RFC 3339 in UTC, quantities 64-bit integers in the "
    "feature's base unit, amounts integer minor units. Every refusal is `application/problem+json` with a `code` of "
    "one closed list. Every answer carries `X-Request-Id`."
)


def openapi_document(operations: Sequence[Operation]) -> dict[str, Any]:
    """The document of these operations."""
    schemas = _Schemas(operations)
    problems = _Problems(schemas)
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _described(operation, schemas, problems)
    tags = list(dict.fromkeys(operation.tag for operation in operations))
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Plangate",
            "version": __version__,
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": tag} for tag in tags],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(schemas.components.items())),
            "responses": problems.components,
            "securitySchemes": {
                "secretKey": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A secret key, `pgt_sk_…`, with the scope the operation names. For backends only.",
                },
                "publishableKey": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A publishable key, `pgt_pk_…`: lists what is on sale.",
                },
            },
        },
    }


class _Schemas:
    """The schemas of all types the operations name, and the components they refer to."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        types: list[Any] = [Problem]
        for operation in operations:
            types += [
                documented
                for documented in (
                    operation.body_schema or operation.body,
                    *(response.type for response in operation.responses.values()),
                )
                if documented is not None
            ]
        models = [kind for kind in types if _is_model(kind)]
        others = [kind for kind in types if not _is_model(kind)]
        written, self.components = msgspec.json.schema_components(others, ref_template=_REF)
        self._others = list(zip(others, written, strict=True))
        references, definitions = models_json_schema(
            [(model, "validation") for model in dict.fromkeys(models)], ref_template=_REF.replace("{name}", "{model}")
        )
        self._models = {model: schema for (model, _), schema in references.items()}
        found = definitions.get("$defs", {})
        if twice := set(found) & set(self.components):
            raise LookupError(f"two schemas have the same name: {', '.join(sorted(twice))}")
        self.components |= found

    def of(self, kind: Any) -> dict[str, Any]:  # noqa: ANN401 - any type
        if _is_model(kind):
            return dict(self._models[kind])
        return dict(next(schema for known, schema in self._others if known is kind or known == kind))


class _Problems:
    """The refusals of operations. Those with the same status and codes are written once, as a component."""

    def __init__(self, schemas: _Schemas) -> None:
        self.components: dict[str, Any] = {}
        self._schema = schemas.of(Problem)
        self._names: dict[tuple[Code, ...], str] = {}

    def of(self, operation: Operation) -> dict[str, Any]:
        codes = [*_ALWAYS, *operation.problems]
        if operation.scope is not None:
            codes += _WITH_KEY[:1] if operation.scope == "public" else _WITH_KEY
        if operation.body is not None:
            codes += _WITH_BODY
        if operation.query is not None:
            codes += _WITH_QUERY
        by_status: dict[int, list[Code]] = {}
        for code in sorted(set(codes), key=list(CATALOGUE).index):
            by_status.setdefault(CATALOGUE[code].status, []).append(code)
        return {
            str(status): {"$ref": f"#/components/responses/{self._name(status, tuple(found))}"}
            for status, found in sorted(by_status.items())
        }

    def _name(self, status: int, codes: tuple[Code, ...]) -> str:
        if codes not in self._names:
            alike = sum(name.startswith(f"Problem{status}") for name in self.components)
            name = f"Problem{status}" if alike == 0 else f"Problem{status}_{alike + 1}"
            self._names[codes] = name
            self.components[name] = {
                "description": "; ".join(f"`{code.value}`: {CATALOGUE[code].title}" for code in codes) + ".",
                "content": {CONTENT_TYPE.decode(): {"schema": self._schema, "example": _example(codes[0])}},
            }
        return self._names[codes]


def _described(operation: Operation, schemas: _Schemas, problems: _Problems) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation.name,
        "tags": [operation.tag],
        "summary": operation.summary,
        "description": operation.text + _scope_text(operation),
        "security": _security(operation),
    }
    if parameters := _parameters(operation):
        described["parameters"] = parameters
    body = operation.body_schema or operation.body
    if body is not None:
        content: dict[str, Any] = {"schema": schemas.of(body)}
        if operation.example is not None:
            content["example"] = operation.example
        described["requestBody"] = {
            "required": not operation.is_body_optional,
            "content": {"application/json": content},
        }
    described["responses"] = {
        **{str(status): _response(documented, schemas) for status, documented in operation.responses.items()},
        **problems.of(operation),
    }
    return described


def _scope_text(operation: Operation) -> str:
    if operation.scope in {None, "public"}:
        return ""
    return f" Needs the scope `{operation.scope}`."


def _security(operation: Operation) -> list[dict[str, list[str]]]:
    if operation.scope is None:
        return []
    if operation.scope == "public":
        return [{"publishableKey": []}, {"secretKey": []}]
    return [{"secretKey": []}]


def _parameters(operation: Operation) -> list[dict[str, Any]]:
    parameters = [
        {"name": part[1:-1], "in": "path", "required": True, "schema": {"type": "string"}}
        for part in operation.path.split("/")
        if part.startswith("{")
    ]
    if operation.query is not None:
        schema = operation.query.model_json_schema()
        required = set(schema.get("required", ()))
        parameters += (
            [
                {"name": name, "in": "query", "required": name in required, "schema": member}
                for name, member in schema["properties"].items()
            ]
            if "properties" in schema
            else []
        )
    if operation.takes_idempotency_key:
        parameters.append(
            _header("Idempotency-Key", "The same key and body give the same answer and one effect.", maximum=255)
        )
    if operation.takes_if_match:
        parameters.append(_header("If-Match", "The etag that was read, or `*`.", is_required=True, maximum=120))
    if operation.takes_version:
        parameters.append(
            _header(VERSION_HEADER, "What an earlier write answered with: this read is never older.", maximum=40)
        )
    return parameters


def _header(name: str, text: str, *, is_required: bool = False, maximum: int) -> dict[str, Any]:
    return {
        "name": name,
        "in": "header",
        "required": is_required,
        "description": text,
        "schema": {"type": "string", "minLength": 1, "maxLength": maximum},
    }


def _response(documented: Documented, schemas: _Schemas) -> dict[str, Any]:
    response: dict[str, Any] = {"description": documented.text}
    if documented.headers:
        response["headers"] = {
            name: {"description": _HEADER_TEXTS[name], "schema": {"type": "string"}} for name in documented.headers
        }
    schema = {} if documented.type is None else schemas.of(documented.type)
    response["content"] = {documented.kind: {"schema": schema}}
    response["content"] |= {kind: {"schema": {"type": "string"}} for kind in documented.other_kinds}
    return response


def _example(code: Code) -> dict[str, Any]:
    kind = CATALOGUE[code]
    return {
        "type": TYPE_BASE + code.value,
        "title": kind.title,
        "status": kind.status,
        "code": code.value,
        "detail": f"{kind.title}.",
        "errors": [],
        "request_id": "req_0f1e2d3c4b00000001",
    }


def _is_model(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)
