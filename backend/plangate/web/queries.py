"""What callers may ask for in a query string: strict and closed, as bodies are (`web.schemas`)."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from plangate.engine.values import INT64_MAX
from plangate.web.schemas import BodyFeature, BodyInstant, Note


class Query(BaseModel):
    """A closed query; its texts are read as their types."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class NoQuery(Query):
    """No parameters."""


class PageQuery(Query):
    """One page of a list: start after `cursor`, at most `limit` entries."""

    cursor: Annotated[str, Field(min_length=1, max_length=500)] | None = None
    limit: Annotated[int, Field(ge=1, le=100)] = 50


class CompaniesQuery(PageQuery):
    """Companies whose name, key or id contains `search`."""

    search: Annotated[str, Field(max_length=200)] | None = None


class UsersQuery(PageQuery):
    """Users whose name or key contains `search`, of one `company` when its id is given."""

    search: Annotated[str, Field(max_length=200)] | None = None
    company: Annotated[str, Field(min_length=1, max_length=100)] | None = None


class EntitlementsQuery(Query):
    """As known at `at` (default: now); `trace` adds why."""

    at: BodyInstant | None = None
    trace: bool = False


class UsageQuery(Query):
    """One feature's usage in steps of `by`; of one user when `user` is one of their keys, such as `id=ada`."""

    feature: BodyFeature
    by: Literal["hour", "day", "month"] = "day"
    user: Annotated[str, Field(pattern=r"^[^=]{1,64}=.{1,255}$")] | None = None
    since: BodyInstant | None = None
    until: BodyInstant | None = None
    format: Literal["json", "csv", "ndjson"] | None = None

    def user_keys(self) -> Mapping[str, str] | None:
        """The user's key as a mapping."""
        if self.user is None:
            return None
        name, _, value = self.user.partition("=")
        return {name: value}


class ExportQuery(Query):
    """What occurred in `[since, until)`: of one company (its id) and one feature when they are named."""

    company: Annotated[str, Field(pattern=r"^[a-z]{2,8}_[0-9a-z]{1,64}$")] | None = None
    feature: BodyFeature | None = None
    since: BodyInstant | None = None
    until: BodyInstant | None = None
    format: Literal["csv", "ndjson"] | None = None


class HistoryQuery(Query):
    """The newest `limit` entries, or those before `cursor`."""

    cursor: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    limit: Annotated[int, Field(ge=1, le=500)] = 100


class OverridesQuery(PageQuery):
    """Overrides of all companies in a `state`, of one `feature`, or those that end before `expires_before`."""

    state: Literal["scheduled", "active", "expired", "revoked"] | None = None
    expires_before: BodyInstant | None = None
    feature: BodyFeature | None = None


class ReviewsQuery(PageQuery):
    """Refunds and disputes to review: in a `state`, of one company."""

    state: Literal["open", "resolved"] | None = None
    company: Annotated[str, Field(min_length=1, max_length=100)] | None = None


class RevokeQuery(Query):
    """Why the override ends, for clients that send no body with DELETE."""

    note: Note | None = None


class CatalogQuery(Query):
    """`dry_run` only answers what would change; `expected_revision` refuses when another one is in force.

    `migrate` says who gets new versions of what they hold: `all`, `none`, or parts such as `none;pro=id=acme`.
    With `proration` the prices they pay in Stripe move along, prorated so; without it they stay.
    """

    dry_run: bool = False
    expected_revision: Annotated[int, Field(ge=0, le=INT64_MAX)] | None = None
    migrate: Annotated[str, Field(min_length=1, max_length=4_000)] | None = None
    proration: Literal["none", "next_invoice", "charge_now"] | None = None


class DryRunQuery(Query):
    """`dry_run` only answers what would change."""

    dry_run: bool = False


class DraftQuery(Query):
    """`expected_revision` bases the draft on the revision in force, and refuses when it is another one."""

    expected_revision: Annotated[int, Field(ge=0, le=INT64_MAX)] | None = None


class PublishQuery(Query):
    """`migrate` says who gets new versions of what they hold: `all`, `none`, or parts such as `none;pro=id=acme`.

    With `proration` the prices paid in Stripe move along, prorated so.
    """

    migrate: Annotated[str, Field(min_length=1, max_length=4_000)] | None = None
    proration: Literal["none", "next_invoice", "charge_now"] | None = None


class MigratingQuery(PageQuery):
    """Companies of a migration, of one `state` when it is named."""

    state: Literal["pending", "done", "not_held", "failed"] | None = None
