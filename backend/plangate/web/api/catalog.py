"""The catalogue over HTTP: read it, plan or apply a new one, and list what is on sale."""

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from plangate import catalog
from plangate.catalog_document import CatalogDocument, Migrate
from plangate.errors import Code, FieldError, Refusal, invalid
from plangate.web.operations import Answer, Call, Documented, Operation
from plangate.web.queries import (
    CatalogQuery,
    DraftQuery,
    DryRunQuery,
    MigratingQuery,
    NoQuery,
    PageQuery,
    PublishQuery,
)
from plangate.web.schemas import MigrateBody

_TAG: Final = "Catalogue"
_REVISION: Final = re.compile(rb'(?:W/)?"(\d{1,18})"')


class PublicPlanList(msgspec.Struct, frozen=True, kw_only=True):
    """Plans, then add-ons, in the catalogue's order."""

    data: list[catalog.PublicPlan]
    next_cursor: None = None


class MigrationList(msgspec.Struct, frozen=True, kw_only=True):
    """Who got each new version of a plan or add-on, the newest first."""

    data: list[catalog.Migration]
    next_cursor: str | None


class MigratingCompanyList(msgspec.Struct, frozen=True, kw_only=True):
    """The companies of a migration, by id."""

    data: list[catalog.MigratingCompany]
    next_cursor: str | None


async def get_catalog(call: Call[None, None]) -> Answer:
    """The catalogue in force."""
    revision, document = await catalog.current_revision(call.environment)
    return Answer(document, headers=_etag(revision))


async def put_catalog(call: Call[Mapping[str, Any], CatalogQuery]) -> Answer:
    """Apply a catalogue, or say what applying it would change."""
    document = _document(call.body)
    query = call.query
    migrate = _migrations(query.migrate)
    expected = _expected(query.expected_revision, call.exchange.if_match)
    if query.dry_run:
        diff = await catalog.plan(
            call.environment, document, migrate=migrate, proration=query.proration, expected_revision=expected
        )
    else:
        diff = await catalog.apply(
            call.environment,
            document,
            actor=call.actor,
            migrate=migrate,
            proration=query.proration,
            expected_revision=expected,
        )
    return Answer(diff, headers=_etag(diff.revision))


async def get_draft(call: Call[None, None]) -> Answer:
    """The draft."""
    return _draft(await catalog.current_draft(call.environment))


async def put_draft(call: Call[Mapping[str, Any], DraftQuery]) -> Answer:
    """Save the draft."""
    saved = await catalog.save_draft(
        call.environment,
        _document(call.body),
        actor=call.actor,
        expected_revision=call.query.expected_revision,
        expected_etag=_draft_etag(call.exchange.if_match),
    )
    return _draft(saved)


async def delete_draft(call: Call[None, None]) -> Answer:
    """Discard the draft."""
    found = await catalog.discard_draft(
        call.environment, actor=call.actor, expected_etag=_draft_etag(call.exchange.if_match)
    )
    return _draft(found)


async def diff_draft(call: Call[None, PublishQuery]) -> Answer:
    """What publishing the draft would change."""
    migrate = _migrations(call.query.migrate)
    return Answer(await catalog.diff_draft(call.environment, migrate=migrate, proration=call.query.proration))


async def publish_draft(call: Call[None, PublishQuery]) -> Answer:
    """Publish the draft."""
    diff = await catalog.publish_draft(
        call.environment,
        actor=call.actor,
        migrate=_migrations(call.query.migrate),
        proration=call.query.proration,
        expected_etag=_draft_etag(call.exchange.if_match),
    )
    return Answer(diff, headers=_etag(diff.revision))


async def migrate_kept(call: Call[MigrateBody, DryRunQuery]) -> Answer:
    """Give the newest version to those left on an older one."""
    body = call.body
    if call.query.dry_run:
        planned = await catalog.plan_migration(call.environment, body.key, body.migrate, proration=body.proration)
        return Answer(planned)
    done = await catalog.migrate_kept(
        call.environment, body.key, body.migrate, actor=call.actor, proration=body.proration
    )
    return Answer(done)


async def list_migrations(call: Call[None, PageQuery]) -> Answer:
    """One page of migrations."""
    found, cursor = await catalog.migrations(call.environment, before=call.query.cursor, limit=call.query.limit)
    return Answer(MigrationList(data=found, next_cursor=cursor))


async def get_migration(call: Call[None, None]) -> Answer:
    """One migration."""
    return Answer(await catalog.migration(call.environment, call.path["migration_id"]))


async def list_migrating(call: Call[None, MigratingQuery]) -> Answer:
    """One page of a migration's companies."""
    query = call.query
    found, cursor = await catalog.migrating_companies(
        call.environment, call.path["migration_id"], state=query.state, after=query.cursor, limit=query.limit
    )
    return Answer(MigratingCompanyList(data=found, next_cursor=cursor))


async def retry_migration(call: Call[None, None]) -> Answer:
    """Try failed companies again."""
    return Answer(await catalog.retry_migration(call.environment, call.path["migration_id"], actor=call.actor))


async def public_plans(call: Call[None, None]) -> Answer:
    """What is on sale."""
    return Answer(PublicPlanList(data=await catalog.public_plans(call.environment)))


def _document(body: object) -> Mapping[str, Any]:
    if not isinstance(body, dict):
        raise Refusal(
            Code.INVALID,
            "The body must be a catalogue document.",
            errors=[FieldError("", Code.INVALID, "The body must be a JSON object.")],
        )
    return body


def _migrations(said: str | None) -> Mapping[str, Migrate] | None:
    return None if said is None else catalog.read_migrations(said.split(";"))


def _draft(draft: catalog.CatalogDraft) -> Answer:
    return Answer(draft, headers={"ETag": f'"{draft.etag}"'})


def _draft_etag(if_match: bytes | None) -> str | None:
    """The draft's etag in If-Match, None without one."""
    if if_match is None:
        return None
    return if_match.strip().removeprefix(b"W/").strip(b'"').decode("latin-1")


def _etag(revision: int) -> dict[str, str]:
    return {"ETag": f'"{revision}"'}


def _expected(expected_revision: int | None, if_match: bytes | None) -> int | None:
    """The revision the caller started from; the query's and If-Match's must agree. Raises Refusal (409, 422)."""
    if if_match is None or if_match.strip() == b"*":
        return expected_revision
    found = _REVISION.fullmatch(if_match.strip())
    if found is None:
        raise Refusal(Code.CATALOG_STALE, "If-Match does not hold an etag of the catalogue. Read it again.")
    if expected_revision is not None and expected_revision != int(found[1]):
        raise invalid("/expected_revision", "If-Match names another revision: send one of them.")
    return int(found[1])


OPERATIONS: Final = (
    Operation(
        method="GET",
        path="/v1/catalog",
        name="getCatalog",
        tag=_TAG,
        summary="The catalogue",
        text="The document that `plangate catalog pull` writes as a file.",
        scope="read",
        answer=get_catalog,
        query=NoQuery,
        responses={200: Documented("The document.", CatalogDocument, headers=("ETag",))},
    ),
    Operation(
        method="PUT",
        path="/v1/catalog",
        name="putCatalog",
        tag=_TAG,
        summary="Plan or apply a catalogue",
        text="With `dry_run=true`, only says what would change and whom it would reach. Applying creates or updates "
        "products and prices in Stripe, then publishes new versions. `migrate` says who gets them; without it the "
        "document does. With `If-Match` (the `ETag` of what was read) or `expected_revision`, it is a 409 when another "
        "catalogue is in force.",
        scope="admin",
        answer=put_catalog,
        body=dict,
        body_schema=CatalogDocument,
        query=CatalogQuery,
        responses={200: Documented("What changes, or changed.", catalog.CatalogDiff, headers=("ETag",))},
        takes_if_match=True,
        problems=(Code.CATALOG_STALE, Code.STRIPE_REFUSED, Code.STRIPE_BUSY),
    ),
    Operation(
        method="GET",
        path="/v1/catalog/draft",
        name="getDraft",
        tag=_TAG,
        summary="The draft of the catalogue",
        text="The document being edited beside the one in force, and the revision it was begun from.",
        scope="read",
        answer=get_draft,
        query=NoQuery,
        responses={200: Documented("The draft.", catalog.CatalogDraft, headers=("ETag",))},
        problems=(Code.NOT_FOUND,),
    ),
    Operation(
        method="PUT",
        path="/v1/catalog/draft",
        name="putDraft",
        tag=_TAG,
        summary="Save the draft",
        text="Nothing of it is in force before it is published. An edited draft stays based on the revision it was "
        "begun from; `expected_revision` bases it on the one in force. With `If-Match` it is a 412 when the draft is "
        "another.",
        scope="admin",
        answer=put_draft,
        body=dict,
        body_schema=CatalogDocument,
        example={"version": 1, "features": {}, "plans": {"free": {"name": "Free"}}},
        query=DraftQuery,
        responses={200: Documented("The draft.", catalog.CatalogDraft, headers=("ETag",))},
        takes_if_match=True,
        problems=(Code.CATALOG_STALE, Code.ETAG_MISMATCH),
    ),
    Operation(
        method="DELETE",
        path="/v1/catalog/draft",
        name="deleteDraft",
        tag=_TAG,
        summary="Discard the draft",
        text="Answers what it was.",
        scope="admin",
        answer=delete_draft,
        query=NoQuery,
        responses={200: Documented("What was discarded.", catalog.CatalogDraft, headers=("ETag",))},
        takes_if_match=True,
        problems=(Code.NOT_FOUND, Code.ETAG_MISMATCH),
    ),
    Operation(
        method="GET",
        path="/v1/catalog/draft/diff",
        name="diffDraft",
        tag=_TAG,
        summary="What the draft changes",
        text="The difference from the catalogue in force, the calls in Stripe, and whom it would reach; with "
        "`proration` also how many would pay another price (`repriced`).",
        scope="read",
        answer=diff_draft,
        query=PublishQuery,
        responses={200: Documented("What would change.", catalog.CatalogDiff)},
        problems=(Code.NOT_FOUND, Code.CATALOG_STALE),
    ),
    Operation(
        method="POST",
        path="/v1/catalog/draft/publish",
        name="publishDraft",
        tag=_TAG,
        summary="Publish the draft",
        text="As applying its document would, `migrate` included; a 409 when another catalogue was applied since it "
        "was begun. Afterwards there is no draft.",
        scope="admin",
        answer=publish_draft,
        query=PublishQuery,
        responses={200: Documented("What changed.", catalog.CatalogDiff, headers=("ETag",))},
        takes_if_match=True,
        takes_idempotency_key=True,
        problems=(
            Code.NOT_FOUND,
            Code.CATALOG_STALE,
            Code.ETAG_MISMATCH,
            Code.CHANGE_IN_PROGRESS,
            Code.STRIPE_REFUSED,
            Code.STRIPE_BUSY,
        ),
    ),
    Operation(
        method="POST",
        path="/v1/catalog/migrations",
        name="migrateKept",
        tag=_TAG,
        summary="Migrate those left on older versions",
        text="Gives the newest version of a plan or add-on to those whom earlier publications left on an older one: "
        "all of them at once, or some in the background. With `dry_run=true`, only says what would change "
        "for whom, and with `proration` how many would pay another price.",
        scope="admin",
        answer=migrate_kept,
        body=MigrateBody,
        example={"key": "pro", "migrate": "all"},
        query=DryRunQuery,
        responses={200: Documented("Who gets it.", catalog.KeptMigration)},
        takes_idempotency_key=True,
        problems=(Code.NOT_FOUND, Code.CHANGE_IN_PROGRESS),
    ),
    Operation(
        method="GET",
        path="/v1/catalog/migrations",
        name="listMigrations",
        tag=_TAG,
        summary="Migrations to new versions",
        text="Who got each new version of a plan or add-on: everybody at once, nobody, or some in the background.",
        scope="read",
        answer=list_migrations,
        query=PageQuery,
        responses={200: Documented("One page.", MigrationList)},
    ),
    Operation(
        method="GET",
        path="/v1/catalog/migrations/{migration_id}",
        name="getMigration",
        tag=_TAG,
        summary="One migration",
        text="How far it is, in companies.",
        scope="read",
        answer=get_migration,
        query=NoQuery,
        responses={200: Documented("The migration.", catalog.Migration)},
        problems=(Code.NOT_FOUND,),
    ),
    Operation(
        method="GET",
        path="/v1/catalog/migrations/{migration_id}/companies",
        name="listMigratingCompanies",
        tag=_TAG,
        summary="A migration's companies",
        text="What became of each, and what went wrong the last time.",
        scope="read",
        answer=list_migrating,
        query=MigratingQuery,
        responses={200: Documented("One page.", MigratingCompanyList)},
        problems=(Code.NOT_FOUND,),
    ),
    Operation(
        method="POST",
        path="/v1/catalog/migrations/{migration_id}/retry",
        name="retryMigration",
        tag=_TAG,
        summary="Retry a migration",
        text="Tries the companies that failed again, in the background.",
        scope="admin",
        answer=retry_migration,
        query=NoQuery,
        responses={200: Documented("The migration.", catalog.Migration)},
        problems=(Code.NOT_FOUND,),
        takes_idempotency_key=True,
    ),
    Operation(
        method="GET",
        path="/v1/public/plans",
        name="listPublicPlans",
        tag=_TAG,
        summary="What is on sale",
        text="Plans in their order with prices, entitlements and add-ons. A publishable key is enough.",
        scope="public",
        answer=public_plans,
        query=NoQuery,
        responses={200: Documented("The plans.", PublicPlanList)},
    ),
)
