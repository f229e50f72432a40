"""Whether our prices are still on sale in Stripe, where people archive and restore them beside the catalogue."""

from plangate.environment import Environment
from plangate.settling import STRIPE
from plangate.store.audit import append_audit
from plangate.store.catalog import all_stripe_prices, save_stripe_price


async def learn_of_price(env: Environment, stripe_price_id: str) -> bool:
    """Look at a price again and keep whether it is on sale; False when it is none of ours.

    Whoever holds an archived price keeps what it grants; nobody buys it until applying the catalogue restores it.
    Raises StripeFailure, or Refusal while another process looks at the same price.
    """
    async with env.reading() as session:
        if not any(row.stripe_price_id == stripe_price_id for row in await all_stripe_prices(session)):
            return False
    async with env.lease(stripe_price_id, wait_seconds=2):
        found = await env.gateway.catalog.fetch_price(stripe_price_id)
        is_active = found is not None and bool(found["active"])
        async with env.writing() as session:
            (row,) = (one for one in await all_stripe_prices(session) if one.stripe_price_id == stripe_price_id)
            if row.is_active != is_active:
                await save_stripe_price(session, row.model_copy(update={"is_active": is_active}))
                await append_audit(
                    session,
                    actor=STRIPE,
                    action="price.restored" if is_active else "price.archived",
                    subject=stripe_price_id,
                    before={"is_active": row.is_active},
                    after={"is_active": is_active},
                )
                env.touch_catalog(session)
    return True
