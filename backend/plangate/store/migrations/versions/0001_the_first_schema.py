"""The first schema: every table of version 0.1."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0001"
down_revision: str | None = None
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Bring the schema to this revision."""
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("environment_id", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("key_hash", sa.String(), nullable=False),
        sa.Column("hint", sa.String(), nullable=False),
        sa.Column("scopes", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("revoked_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("key_hash"),
    )
    with op.batch_alter_table("api_keys", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_api_keys_environment_id"), ["environment_id"], unique=False)

    op.create_table(
        "app_roles",
        sa.Column("environment_id", sa.String(), nullable=False),
        sa.Column("stripe_user_id", sa.String(), nullable=False),
        sa.Column("role", sa.String(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("environment_id", "stripe_user_id"),
    )
    op.create_table(
        "assignments",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("environment_id", sa.String(), nullable=False),
        sa.Column("company_id", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("quantity", sa.Integer(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("held_from", sa.BigInteger(), nullable=False),
        sa.Column("held_until", sa.BigInteger(), nullable=True),
        sa.Column("recorded_at", sa.BigInteger(), nullable=False),
        sa.Column("superseded_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("assignments", schema=None) as batch_op:
        batch_op.create_index("assignments_by_company", ["environment_id", "company_id"], unique=False)

    op.create_table(
        "audit",
        sa.Column("environment_id", sa.String(), nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("company_id", sa.String(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("before", sa.Text(), nullable=True),
        sa.Column("after", sa.Text(), nullable=True),
        sa.Column("note", sa.String(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("previous_hash", sa.String(), nullable=False),
        sa.Column("entry_hash", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("environment_id", "sequence"),
    )
    with op.batch_alter_table("audit", schema=None) as batch_op:
        batch_op.create_index("audit_by_company", ["environment_id", "company_id", "sequence"], unique=False)

    op.create_table(
        "audit_heads",
        sa.Column("environment_id", sa.String(), nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("entry_hash", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("environment_id"),
    )
    op.create_table(
        "catalog_drafts",
        sa.Column("environment_id", sa.String(), nullable=False),
        sa.Column("etag", sa.String(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("environment_id"),
    )
    op.create_table(
        "catalog_revisions",
        sa.Column("environment_id", sa.String(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.Column("versions", sa.Text(), nullable=False),
        sa.Column("floors", sa.Text(), nullable=True),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("recorded_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("environment_id", "revision"),
    )
    op.create_table(
        "change_feed",
        sa.Column("sequence", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("environment_id", sa.String(), nullable=False),
        sa.Column("company_id", sa.String(), nullable=False),
        sa.Column("origin", sa.String(), nullable=False),
        sa.Column("recorded_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("sequence"),
    )
    op.create_table(
        "companies",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("environment_id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("windows_opened", sa.BigInteger(), nullable=False),
        sa.Column("merged_into", sa.String(), nullable=True),
        sa.Column("merged_at", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("companies", schema=None) as batch_op:
        batch_op.create_index("companies_by_environment", ["environment_id", "id"], unique=False)

    op.create_table(
        "company_keys",
        sa.Column("environment_id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("value", sa.String(), nullable=False),
        sa.Column("company_id", sa.String(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("environment_id", "name", "value"),
    )
    with op.batch_alter_table("company_keys", schema=None) as batch_op:
        batch_op.create_index("company_keys_by_company", ["environment_id", "company_id"], unique=False)

    op.create_table(
        "company_terms",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("environment_id", sa.String(), nullable=False),
        sa.Column("company_id", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("value", sa.Text(), nullable=True),
        sa.Column("recorded_at", sa.BigInteger(), nullable=False),
        sa.Column("superseded_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("company_terms", schema=None) as batch_op:
        batch_op.create_index("company_terms_by_company", ["environment_id", "company_id"], unique=False)

    op.create_table(
        "cursors",
        sa.Column("environment_id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("environment_id", "name"),
    )
    op.create_table(
        "environments",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("stripe_account", sa.String(), nullable=False),
        sa.Column("stripe_mode", sa.String(), nullable=False),
        sa.Column("offset_seconds", sa.Integer(), nullable=False),
        sa.Column("catalog_revision", sa.Integer(), nullable=False),
        sa.Column("time_zones", sa.Text(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("name"),
    )
    with op.batch_alter_table("environments", schema=None) as batch_op:
        batch_op.create_index(
            "environments_by_account",
            ["stripe_account", "stripe_mode"],
            unique=True,
            sqlite_where=sa.text("stripe_account <> ''"),
            postgresql_where=sa.text("stripe_account <> ''"),
        )

    op.create_table(
        "former_keys",
        sa.Column("environment_id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("value", sa.String(), nullable=False),
        sa.Column("company_id", sa.String(), nullable=False),
        sa.Column("held_from", sa.BigInteger(), nullable=False),
        sa.Column("held_until", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("environment_id", "name", "value", "company_id"),
    )
    with op.batch_alter_table("former_keys", schema=None) as batch_op:
        batch_op.create_index("former_keys_by_company", ["environment_id", "company_id"], unique=False)

    op.create_table(
        "former_members",
        sa.Column("environment_id", sa.String(), nullable=False),
        sa.Column("user_id", sa.String(), nullable=False),
        sa.Column("company_id", sa.String(), nullable=False),
        sa.Column("held_from", sa.BigInteger(), nullable=False),
        sa.Column("held_until", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("environment_id", "user_id", "company_id", "held_from"),
    )
    op.create_table(
        "former_stripe_prices",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("environment_id", sa.String(), nullable=False),
        sa.Column("stripe_price_id", sa.String(), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.Column("superseded_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("former_stripe_prices", schema=None) as batch_op:
        batch_op.create_index("former_stripe_prices_by_time", ["environment_id", "superseded_at"], unique=False)

    op.create_table(
        "idempotency",
        sa.Column("environment_id", sa.String(), nullable=False),
        sa.Column("scope", sa.String(), nullable=False),
        sa.Column("key_hash", sa.String(), nullable=False),
        sa.Column("body_hash", sa.String(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("answer", sa.Text(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("environment_id", "scope", "key_hash"),
    )
    op.create_table(
        "inbox",
        sa.Column("environment_id", sa.String(), nullable=False),
        sa.Column("stripe_event_id", sa.String(), nullable=False),
        sa.Column("type", sa.String(), nullable=False),
        sa.Column("stripe_object_id", sa.String(), nullable=True),
        sa.Column("stripe_customer_id", sa.String(), nullable=True),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("available_at", sa.BigInteger(), nullable=False),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.Column("processed_at", sa.BigInteger(), nullable=True),
        sa.Column("last_error", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("environment_id", "stripe_event_id"),
    )
    with op.batch_alter_table("inbox", schema=None) as batch_op:
        batch_op.create_index(
            "inbox_by_state", ["environment_id", "state", "available_at", "received_at"], unique=False
        )

    op.create_table(
        "leases",
        sa.Column("environment_id", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("holder", sa.String(), nullable=True),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("fence", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("environment_id", "subject"),
    )
    op.create_table(
        "meter_outbox",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("environment_id", sa.String(), nullable=False),
        sa.Column("company_id", sa.String(), nullable=False),
        sa.Column("feature", sa.String(), nullable=False),
        sa.Column("meter", sa.String(), nullable=False),
        sa.Column("quantity", sa.BigInteger(), nullable=False),
        sa.Column("occurred_at", sa.BigInteger(), nullable=False),
        sa.Column("recorded_at", sa.BigInteger(), nullable=False),
        sa.Column("available_at", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("stripe_customer_id", sa.String(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("first_sent_at", sa.BigInteger(), nullable=True),
        sa.Column("reason", sa.String(), nullable=True),
        sa.Column("report_id", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("meter_outbox", schema=None) as batch_op:
        batch_op.create_index(
            "meter_outbox_by_customer", ["environment_id", "stripe_customer_id", "meter", "occurred_at"], unique=False
        )
        batch_op.create_index("meter_outbox_by_report", ["report_id"], unique=False)
        batch_op.create_index("meter_outbox_by_turn", ["environment_id", "state", "available_at"], unique=False)

    op.create_table(
        "overage_reports",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("environment_id", sa.String(), nullable=False),
        sa.Column("company_id", sa.String(), nullable=False),
        sa.Column("feature", sa.String(), nullable=False),
        sa.Column("period", sa.String(), nullable=False),
        sa.Column("start_at", sa.BigInteger(), nullable=False),
        sa.Column("reported", sa.BigInteger(), nullable=False),
        sa.Column("seen_used", sa.BigInteger(), nullable=False),
        sa.Column("seen_version", sa.Integer(), nullable=False),
        sa.Column("seen_revision", sa.Integer(), nullable=False),
        sa.Column("is_open", sa.Boolean(), nullable=False),
        sa.Column("look_again_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("overage_reports", schema=None) as batch_op:
        batch_op.create_index(
            "overage_reports_by_window", ["environment_id", "company_id", "feature", "period", "start_at"], unique=False
        )

    op.create_table(
        "overrides",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("environment_id", sa.String(), nullable=False),
        sa.Column("override_id", sa.String(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("company_id", sa.String(), nullable=False),
        sa.Column("user_id", sa.String(), nullable=True),
        sa.Column("feature", sa.String(), nullable=False),
        sa.Column("mode", sa.String(), nullable=False),
        sa.Column("value", sa.Text(), nullable=True),
        sa.Column("period", sa.String(), nullable=True),
        sa.Column("note", sa.String(), nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("starts_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=True),
        sa.Column("revoked_at", sa.BigInteger(), nullable=True),
        sa.Column("recorded_at", sa.BigInteger(), nullable=False),
        sa.Column("superseded_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("overrides", schema=None) as batch_op:
        batch_op.create_index("overrides_by_company", ["environment_id", "company_id"], unique=False)
        batch_op.create_index(
            "overrides_by_expiry",
            ["environment_id", "expires_at"],
            unique=False,
            sqlite_where=sa.text("superseded_at IS NULL AND expires_at IS NOT NULL"),
            postgresql_where=sa.text("superseded_at IS NULL AND expires_at IS NOT NULL"),
        )
        batch_op.create_index("overrides_by_id", ["environment_id", "override_id", "revision"], unique=True)

    op.create_table(
        "plan_changes",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("environment_id", sa.String(), nullable=False),
        sa.Column("company_id", sa.String(), nullable=False),
        sa.Column("quote_id", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("is_scheduled", sa.Boolean(), nullable=False),
        sa.Column("held", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("terms", sa.Text(), nullable=False),
        sa.Column("effective_at", sa.BigInteger(), nullable=False),
        sa.Column("next_action", sa.Text(), nullable=True),
        sa.Column("requested_by", sa.Text(), nullable=False),
        sa.Column("refusal", sa.Text(), nullable=True),
        sa.Column("return_url", sa.String(), nullable=True),
        sa.Column("stripe_customer_id", sa.String(), nullable=True),
        sa.Column("stripe_subscription_id", sa.String(), nullable=True),
        sa.Column("stripe_schedule_id", sa.String(), nullable=True),
        sa.Column("stripe_checkout_session_id", sa.String(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("available_at", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("plan_changes", schema=None) as batch_op:
        batch_op.create_index("plan_changes_by_company", ["environment_id", "company_id"], unique=False)
        batch_op.create_index("plan_changes_by_quote", ["environment_id", "quote_id"], unique=True)
        batch_op.create_index(
            "plan_changes_unfinished",
            ["environment_id", "available_at"],
            unique=False,
            sqlite_where=sa.text(
                "state IN ('requested', 'awaiting_payment', 'requires_action', 'applying', 'cancelling')"
            ),
            postgresql_where=sa.text(
                "state IN ('requested', 'awaiting_payment', 'requires_action', 'applying', 'cancelling')"
            ),
        )

    op.create_table(
        "plan_versions",
        sa.Column("environment_id", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.Column("recorded_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("environment_id", "kind", "key", "version"),
    )
    op.create_table(
        "reservations",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("environment_id", sa.String(), nullable=False),
        sa.Column("company_id", sa.String(), nullable=False),
        sa.Column("user_id", sa.String(), nullable=False),
        sa.Column("feature", sa.String(), nullable=False),
        sa.Column("event", sa.String(), nullable=False),
        sa.Column("quantity", sa.BigInteger(), nullable=False),
        sa.Column("reserved_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("settled", sa.BigInteger(), nullable=True),
        sa.Column("overrun", sa.BigInteger(), nullable=False),
        sa.Column("answer", sa.Text(), nullable=True),
        sa.Column("recorded_at", sa.BigInteger(), nullable=False),
        sa.Column("closed_at", sa.BigInteger(), nullable=True),
        sa.Column("freed_at", sa.BigInteger(), nullable=True),
        sa.Column("moved_from", sa.String(), nullable=True),
        sa.Column("moved_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("reservations", schema=None) as batch_op:
        batch_op.create_index(
            "reservations_by_company", ["environment_id", "company_id", "state", "expires_at"], unique=False
        )
        batch_op.create_index("reservations_by_expiry", ["environment_id", "state", "expires_at"], unique=False)

    op.create_table(
        "reviews",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("environment_id", sa.String(), nullable=False),
        sa.Column("company_id", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("stripe_object_id", sa.String(), nullable=False),
        sa.Column("stripe_charge_id", sa.String(), nullable=False),
        sa.Column("stripe_subscription_id", sa.String(), nullable=True),
        sa.Column("stripe_status", sa.String(), nullable=False),
        sa.Column("amount_minor", sa.Integer(), nullable=False),
        sa.Column("currency", sa.String(), nullable=False),
        sa.Column("is_whole", sa.Boolean(), nullable=False),
        sa.Column("is_withheld", sa.Boolean(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("outcome", sa.String(), nullable=True),
        sa.Column("note", sa.String(), nullable=False),
        sa.Column("resolved_by", sa.Text(), nullable=True),
        sa.Column("opened_at", sa.BigInteger(), nullable=False),
        sa.Column("resolved_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("reviews", schema=None) as batch_op:
        batch_op.create_index("reviews_by_company", ["environment_id", "company_id"], unique=False)
        batch_op.create_index("reviews_by_object", ["environment_id", "stripe_object_id"], unique=True)

    op.create_table(
        "stripe_objects",
        sa.Column("environment_id", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("stripe_id", sa.String(), nullable=False),
        sa.Column("recorded_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("environment_id", "kind", "key"),
    )
    op.create_table(
        "stripe_operations",
        sa.Column("environment_id", sa.String(), nullable=False),
        sa.Column("intent_id", sa.String(), nullable=False),
        sa.Column("step", sa.String(), nullable=False),
        sa.Column("idempotency_key", sa.String(), nullable=False),
        sa.Column("params", sa.Text(), nullable=False),
        sa.Column("result", sa.Text(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("completed_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("environment_id", "intent_id", "step"),
    )
    op.create_table(
        "stripe_prices",
        sa.Column("environment_id", sa.String(), nullable=False),
        sa.Column("stripe_price_id", sa.String(), nullable=False),
        sa.Column("stripe_product_id", sa.String(), nullable=False),
        sa.Column("owner_kind", sa.String(), nullable=False),
        sa.Column("owner_key", sa.String(), nullable=False),
        sa.Column("owner_version", sa.Integer(), nullable=False),
        sa.Column("currency", sa.String(), nullable=False),
        sa.Column("interval", sa.String(), nullable=False),
        sa.Column("interval_count", sa.Integer(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("feature", sa.String(), nullable=True),
        sa.Column("terms", sa.Text(), nullable=True),
        sa.Column("is_active", sa.Boolean(), nullable=False),
        sa.Column("is_adopted", sa.Boolean(), nullable=False),
        sa.Column("company_id", sa.String(), nullable=True),
        sa.Column("recorded_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("environment_id", "stripe_price_id"),
    )
    op.create_table(
        "subscriptions",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("environment_id", sa.String(), nullable=False),
        sa.Column("company_id", sa.String(), nullable=False),
        sa.Column("stripe_customer_id", sa.String(), nullable=False),
        sa.Column("stripe_subscription_id", sa.String(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.Column("state_hash", sa.String(), nullable=False),
        sa.Column("mapped_plan", sa.Text(), nullable=True),
        sa.Column("recorded_at", sa.BigInteger(), nullable=False),
        sa.Column("superseded_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("subscriptions", schema=None) as batch_op:
        batch_op.create_index("subscriptions_by_company", ["environment_id", "company_id"], unique=False)
        batch_op.create_index(
            "subscriptions_current",
            ["environment_id", "stripe_subscription_id"],
            unique=True,
            sqlite_where=sa.text("superseded_at IS NULL"),
            postgresql_where=sa.text("superseded_at IS NULL"),
        )
        batch_op.create_index(
            "subscriptions_past_due",
            ["environment_id", "company_id"],
            unique=False,
            sqlite_where=sa.text("superseded_at IS NULL AND status = 'past_due'"),
            postgresql_where=sa.text("superseded_at IS NULL AND status = 'past_due'"),
        )
        batch_op.create_index(
            "subscriptions_paused",
            ["environment_id", "company_id"],
            unique=False,
            sqlite_where=sa.text("superseded_at IS NULL AND document LIKE '%\"is_collection_paused\"_true%'"),
            postgresql_where=sa.text("superseded_at IS NULL AND document LIKE '%\"is_collection_paused\"_true%'"),
        )

    op.create_table(
        "traits",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("environment_id", sa.String(), nullable=False),
        sa.Column("subject_id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("value", sa.Text(), nullable=True),
        sa.Column("held_from", sa.BigInteger(), nullable=False),
        sa.Column("held_until", sa.BigInteger(), nullable=True),
        sa.Column("recorded_at", sa.BigInteger(), nullable=False),
        sa.Column("superseded_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("traits", schema=None) as batch_op:
        batch_op.create_index("traits_by_subject", ["environment_id", "subject_id", "name"], unique=False)

    op.create_table(
        "unattributed_events",
        sa.Column("event_id", sa.String(), nullable=False),
        sa.Column("environment_id", sa.String(), nullable=False),
        sa.Column("key_name", sa.String(), nullable=False),
        sa.Column("key_value", sa.String(), nullable=False),
        sa.Column("user_keys", sa.Text(), nullable=True),
        sa.Column("event", sa.String(), nullable=False),
        sa.Column("quantity", sa.BigInteger(), nullable=False),
        sa.Column("occurred_at", sa.BigInteger(), nullable=False),
        sa.Column("recorded_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("event_id"),
    )
    with op.batch_alter_table("unattributed_events", schema=None) as batch_op:
        batch_op.create_index("unattributed_by_key", ["environment_id", "key_name", "key_value"], unique=False)

    op.create_table(
        "usage_events",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("environment_id", sa.String(), nullable=False),
        sa.Column("company_id", sa.String(), nullable=False),
        sa.Column("user_id", sa.String(), nullable=False),
        sa.Column("event", sa.String(), nullable=False),
        sa.Column("quantity", sa.BigInteger(), nullable=False),
        sa.Column("occurred_at", sa.BigInteger(), nullable=False),
        sa.Column("recorded_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sqlite_with_rowid=False,
    )
    with op.batch_alter_table("usage_events", schema=None) as batch_op:
        batch_op.create_index(
            "usage_events_by_company", ["environment_id", "company_id", "event", "occurred_at"], unique=False
        )

    op.create_table(
        "usage_key_answers",
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("key_hashes", sa.LargeBinary(), nullable=False),
        sa.Column("answers", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("seq"),
    )
    op.create_table(
        "usage_key_log",
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("merges", sa.BigInteger(), nullable=False),
        sa.Column("is_answered", sa.Boolean(), nullable=False),
        sa.Column("records", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("seq"),
    )
    op.create_table(
        "usage_key_parts",
        sa.Column("part", sa.Integer(), nullable=False),
        sa.Column("merged_to", sa.BigInteger(), nullable=False),
        sa.Column("merged_keys", sa.BigInteger(), nullable=False),
        sa.Column("filter", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("part"),
    )
    op.create_table(
        "usage_keys",
        sa.Column("key_hash", sa.LargeBinary(), nullable=False),
        sa.Column("body_hash", sa.LargeBinary(), nullable=False),
        sa.Column("answer", sa.Text(), nullable=True),
        sa.Column("answered_in", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("key_hash"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "usage_window_bounds",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("environment_id", sa.String(), nullable=False),
        sa.Column("company_id", sa.String(), nullable=False),
        sa.Column("user_id", sa.String(), nullable=False),
        sa.Column("feature", sa.String(), nullable=False),
        sa.Column("period", sa.String(), nullable=False),
        sa.Column("window_id", sa.String(), nullable=False),
        sa.Column("start_at", sa.BigInteger(), nullable=False),
        sa.Column("end_at", sa.BigInteger(), nullable=True),
        sa.Column("recorded_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("usage_window_bounds", schema=None) as batch_op:
        batch_op.create_index("usage_window_bounds_by_company", ["environment_id", "company_id"], unique=False)

    op.create_table(
        "usage_windows",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("environment_id", sa.String(), nullable=False),
        sa.Column("company_id", sa.String(), nullable=False),
        sa.Column("user_id", sa.String(), nullable=False),
        sa.Column("feature", sa.String(), nullable=False),
        sa.Column("period", sa.String(), nullable=False),
        sa.Column("start_at", sa.BigInteger(), nullable=False),
        sa.Column("end_at", sa.BigInteger(), nullable=True),
        sa.Column("used", sa.BigInteger(), nullable=False),
        sa.Column("reserved", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("usage_windows", schema=None) as batch_op:
        batch_op.create_index(
            "usage_windows_by_start",
            ["environment_id", "company_id", "feature", "period", "user_id", "start_at"],
            unique=True,
        )

    op.create_table(
        "user_companies",
        sa.Column("environment_id", sa.String(), nullable=False),
        sa.Column("user_id", sa.String(), nullable=False),
        sa.Column("company_id", sa.String(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("environment_id", "user_id", "company_id"),
    )
    op.create_table(
        "user_keys",
        sa.Column("environment_id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("value", sa.String(), nullable=False),
        sa.Column("user_id", sa.String(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("environment_id", "name", "value"),
    )
    with op.batch_alter_table("user_keys", schema=None) as batch_op:
        batch_op.create_index("user_keys_by_user", ["environment_id", "user_id"], unique=False)

    op.create_table(
        "users",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("environment_id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("users", schema=None) as batch_op:
        batch_op.create_index("users_by_environment", ["environment_id", "id"], unique=False)

    op.create_table(
        "version_migration_companies",
        sa.Column("environment_id", sa.String(), nullable=False),
        sa.Column("migration_id", sa.String(), nullable=False),
        sa.Column("company_id", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("last_error", sa.String(), nullable=True),
        sa.Column("price", sa.String(), nullable=True),
        sa.Column("price_detail", sa.String(), nullable=True),
        sa.Column("available_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("environment_id", "migration_id", "company_id"),
    )
    with op.batch_alter_table("version_migration_companies", schema=None) as batch_op:
        batch_op.create_index(
            "version_migration_companies_pending",
            ["environment_id", "available_at"],
            unique=False,
            sqlite_where=sa.text("state = 'pending'"),
            postgresql_where=sa.text("state = 'pending'"),
        )

    op.create_table(
        "version_migrations",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("environment_id", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("mode", sa.String(), nullable=False),
        sa.Column("selection", sa.Text(), nullable=True),
        sa.Column("is_listed", sa.Boolean(), nullable=False),
        sa.Column("listed_until", sa.String(), nullable=False),
        sa.Column("proration", sa.String(), nullable=True),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("finished_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("version_migrations", schema=None) as batch_op:
        batch_op.create_index("version_migrations_by_environment", ["environment_id", "id"], unique=False)
        batch_op.create_index(
            "version_migrations_running",
            ["environment_id"],
            unique=False,
            sqlite_where=sa.text("finished_at IS NULL"),
            postgresql_where=sa.text("finished_at IS NULL"),
        )

    op.create_table(
        "version_pins",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("environment_id", sa.String(), nullable=False),
        sa.Column("company_id", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("migration_id", sa.String(), nullable=False),
        sa.Column("recorded_at", sa.BigInteger(), nullable=False),
        sa.Column("superseded_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("version_pins", schema=None) as batch_op:
        batch_op.create_index("version_pins_by_company", ["environment_id", "company_id"], unique=False)


def downgrade() -> None:
    """Go back to the revision before."""
    with op.batch_alter_table("version_pins", schema=None) as batch_op:
        batch_op.drop_index("version_pins_by_company")

    op.drop_table("version_pins")
    with op.batch_alter_table("version_migrations", schema=None) as batch_op:
        batch_op.drop_index(
            "version_migrations_running",
            sqlite_where=sa.text("finished_at IS NULL"),
            postgresql_where=sa.text("finished_at IS NULL"),
        )
        batch_op.drop_index("version_migrations_by_environment")

    op.drop_table("version_migrations")
    with op.batch_alter_table("version_migration_companies", schema=None) as batch_op:
        batch_op.drop_index(
            "version_migration_companies_pending",
            sqlite_where=sa.text("state = 'pending'"),
            postgresql_where=sa.text("state = 'pending'"),
        )

    op.drop_table("version_migration_companies")
    with op.batch_alter_table("users", schema=None) as batch_op:
        batch_op.drop_index("users_by_environment")

    op.drop_table("users")
    with op.batch_alter_table("user_keys", schema=None) as batch_op:
        batch_op.drop_index("user_keys_by_user")

    op.drop_table("user_keys")
    op.drop_table("user_companies")
    with op.batch_alter_table("usage_windows", schema=None) as batch_op:
        batch_op.drop_index("usage_windows_by_start")

    op.drop_table("usage_windows")
    with op.batch_alter_table("usage_window_bounds", schema=None) as batch_op:
        batch_op.drop_index("usage_window_bounds_by_company")

    op.drop_table("usage_window_bounds")
    op.drop_table("usage_keys")
    op.drop_table("usage_key_parts")
    op.drop_table("usage_key_log")
    op.drop_table("usage_key_answers")
    with op.batch_alter_table("usage_events", schema=None) as batch_op:
        batch_op.drop_index("usage_events_by_company")

    op.drop_table("usage_events")
    with op.batch_alter_table("unattributed_events", schema=None) as batch_op:
        batch_op.drop_index("unattributed_by_key")

    op.drop_table("unattributed_events")
    with op.batch_alter_table("traits", schema=None) as batch_op:
        batch_op.drop_index("traits_by_subject")

    op.drop_table("traits")
    with op.batch_alter_table("subscriptions", schema=None) as batch_op:
        batch_op.drop_index(
            "subscriptions_paused",
            sqlite_where=sa.text("superseded_at IS NULL AND document LIKE '%\"is_collection_paused\"_true%'"),
            postgresql_where=sa.text("superseded_at IS NULL AND document LIKE '%\"is_collection_paused\"_true%'"),
        )
        batch_op.drop_index(
            "subscriptions_past_due",
            sqlite_where=sa.text("superseded_at IS NULL AND status = 'past_due'"),
            postgresql_where=sa.text("superseded_at IS NULL AND status = 'past_due'"),
        )
        batch_op.drop_index(
            "subscriptions_current",
            sqlite_where=sa.text("superseded_at IS NULL"),
            postgresql_where=sa.text("superseded_at IS NULL"),
        )
        batch_op.drop_index("subscriptions_by_company")

    op.drop_table("subscriptions")
    op.drop_table("stripe_prices")
    op.drop_table("stripe_operations")
    op.drop_table("stripe_objects")
    with op.batch_alter_table("reviews", schema=None) as batch_op:
        batch_op.drop_index("reviews_by_object")
        batch_op.drop_index("reviews_by_company")

    op.drop_table("reviews")
    with op.batch_alter_table("reservations", schema=None) as batch_op:
        batch_op.drop_index("reservations_by_expiry")
        batch_op.drop_index("reservations_by_company")

    op.drop_table("reservations")
    op.drop_table("plan_versions")
    with op.batch_alter_table("plan_changes", schema=None) as batch_op:
        batch_op.drop_index(
            "plan_changes_unfinished",
            sqlite_where=sa.text(
                "state IN ('requested', 'awaiting_payment', 'requires_action', 'applying', 'cancelling')"
            ),
            postgresql_where=sa.text(
                "state IN ('requested', 'awaiting_payment', 'requires_action', 'applying', 'cancelling')"
            ),
        )
        batch_op.drop_index("plan_changes_by_quote")
        batch_op.drop_index("plan_changes_by_company")

    op.drop_table("plan_changes")
    with op.batch_alter_table("overrides", schema=None) as batch_op:
        batch_op.drop_index("overrides_by_id")
        batch_op.drop_index(
            "overrides_by_expiry",
            sqlite_where=sa.text("superseded_at IS NULL AND expires_at IS NOT NULL"),
            postgresql_where=sa.text("superseded_at IS NULL AND expires_at IS NOT NULL"),
        )
        batch_op.drop_index("overrides_by_company")

    op.drop_table("overrides")
    with op.batch_alter_table("overage_reports", schema=None) as batch_op:
        batch_op.drop_index("overage_reports_by_window")

    op.drop_table("overage_reports")
    with op.batch_alter_table("meter_outbox", schema=None) as batch_op:
        batch_op.drop_index("meter_outbox_by_turn")
        batch_op.drop_index("meter_outbox_by_report")
        batch_op.drop_index("meter_outbox_by_customer")

    op.drop_table("meter_outbox")
    op.drop_table("leases")
    with op.batch_alter_table("inbox", schema=None) as batch_op:
        batch_op.drop_index("inbox_by_state")

    op.drop_table("inbox")
    op.drop_table("idempotency")
    with op.batch_alter_table("former_stripe_prices", schema=None) as batch_op:
        batch_op.drop_index("former_stripe_prices_by_time")

    op.drop_table("former_stripe_prices")
    op.drop_table("former_members")
    with op.batch_alter_table("former_keys", schema=None) as batch_op:
        batch_op.drop_index("former_keys_by_company")

    op.drop_table("former_keys")
    with op.batch_alter_table("environments", schema=None) as batch_op:
        batch_op.drop_index(
            "environments_by_account",
            sqlite_where=sa.text("stripe_account <> ''"),
            postgresql_where=sa.text("stripe_account <> ''"),
        )

    op.drop_table("environments")
    op.drop_table("cursors")
    with op.batch_alter_table("company_terms", schema=None) as batch_op:
        batch_op.drop_index("company_terms_by_company")

    op.drop_table("company_terms")
    with op.batch_alter_table("company_keys", schema=None) as batch_op:
        batch_op.drop_index("company_keys_by_company")

    op.drop_table("company_keys")
    with op.batch_alter_table("companies", schema=None) as batch_op:
        batch_op.drop_index("companies_by_environment")

    op.drop_table("companies")
    op.drop_table("change_feed")
    op.drop_table("catalog_revisions")
    op.drop_table("catalog_drafts")
    op.drop_table("audit_heads")
    with op.batch_alter_table("audit", schema=None) as batch_op:
        batch_op.drop_index("audit_by_company")

    op.drop_table("audit")
    with op.batch_alter_table("assignments", schema=None) as batch_op:
        batch_op.drop_index("assignments_by_company")

    op.drop_table("assignments")
    op.drop_table("app_roles")
    with op.batch_alter_table("api_keys", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_api_keys_environment_id"))

    op.drop_table("api_keys")
