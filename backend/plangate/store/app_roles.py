"""Who may do what in the Stripe App, set from the command line; these replace what the settings say."""

from datetime import datetime

from sqlalchemy import delete, select
from sqlmodel import Field, SQLModel

from plangate.store.columns import Instant
from plangate.store.database import StoreSession, table_of


class AppRoleRow(SQLModel, table=True):
    """The role of one dashboard user, or of everybody else (`*`)."""

    __tablename__ = "app_roles"

    environment_id: str = Field(primary_key=True)
    stripe_user_id: str = Field(primary_key=True)
    role: str
    created_at: datetime = Field(sa_type=Instant)


app_roles = table_of(AppRoleRow)


async def stored_roles(session: StoreSession) -> dict[str, str]:
    """The roles set in this environment, by dashboard user or `*`."""
    rows = await session.all(
        select(app_roles.c.stripe_user_id, app_roles.c.role)
        .where(app_roles.c.environment_id == session.environment_id)
        .order_by(app_roles.c.stripe_user_id)
    )
    return {row["stripe_user_id"]: row["role"] for row in rows}


async def store_role(session: StoreSession, stripe_user_id: str, role: str | None) -> None:
    """Set one user's role; None leaves it to the settings again."""
    await session.run(
        delete(app_roles).where(
            app_roles.c.environment_id == session.environment_id, app_roles.c.stripe_user_id == stripe_user_id
        )
    )
    if role is not None:
        await session.add(
            AppRoleRow(
                environment_id=session.environment_id,
                stripe_user_id=stripe_user_id,
                role=role,
                created_at=session.now,
            )
        )
