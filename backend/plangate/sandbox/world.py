"""One sandbox account: its store, its clock and its stream of events, passed to everything that acts on it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from .clock import Clock
from .config import API_VERSION, SandboxConfig
from .errors import missing
from .state import Store, copied, new_id

if TYPE_CHECKING:
    from collections.abc import Iterator

Obj = dict[str, Any]

NOUNS = {
    "checkout.session": "checkout.session",
    "payment_method": "PaymentMethod",
    "subscription_schedule": "subscription schedule",
    "billing.meter": "meter",
    "promotion_code": "promotion code",
    "webhook_endpoint": "webhook endpoint",
    "tax_rate": "tax rate",
    "entitlements.feature": "feature",
}

_SETTLED = frozenset({"paid", "void", "canceled", "incomplete_expired", "released", "completed"})


class World:
    """The account. ``is_rehearsal`` marks a copy in which previews are acted out: it tells nobody."""

    def __init__(self, config: SandboxConfig, *, store: Store | None = None, clock: Clock | None = None) -> None:
        self.config = config
        self.store = store or Store()
        self.clock = clock or Clock()
        self.is_rehearsal = False
        self.request: Obj = {"id": None, "idempotency_key": None}
        self.on_event: Callable[[Obj], None] = lambda _event: None
        self.previews: dict[str, Obj] = {}
        self._fresh_events: list[Obj] = []

    def now(self) -> int:
        """The sandbox's present, in unix seconds."""
        return self.clock.now()

    def require(self, kind: str, stripe_id: str | None, *, param: str | None = None) -> Obj:
        """An object by id. Raises 404 when it was named in the path, 400 when ``param`` names it."""
        found = self.store.get(kind, stripe_id)
        if found is None:
            noun = NOUNS.get(kind, kind)
            if param is None:
                raise missing(noun, stripe_id or "")
            raise missing(noun, stripe_id or "", param=param, status=400)
        return found

    def add(self, obj: Obj, event: str | None = None) -> Obj:
        """Keep a new object and tell the world with an event."""
        self.store.add(obj)
        if event is not None:
            self.emit(event, obj)
        return obj

    @contextmanager
    def changing(self, obj: Obj, event: str | None) -> Iterator[Obj]:
        """Change an object; when something visible changed, an event says what it was before."""
        from .render import view  # noqa: PLC0415 - views look objects up in the world they belong to.

        before = view(self, obj) if event and not self.is_rehearsal else None
        self.store.touch(obj)
        yield obj
        if event is None or before is None:
            return
        after = view(self, obj)
        previous = {k: before.get(k) for k in {*before, *after} if before.get(k) != after.get(k)}
        if previous:
            self.emit(event, obj, previous=previous)

    def emit(self, type_: str, obj: Obj, *, previous: Obj | None = None) -> None:
        """Record an event about an object as it is now."""
        if self.is_rehearsal:
            return
        from .render import view  # noqa: PLC0415 - see above.

        about: Obj = {"object": view(self, obj)}
        if previous is not None:
            about["previous_attributes"] = previous
        event = {
            "id": new_id("evt"),
            "object": "event",
            "account": None,
            "api_version": API_VERSION,
            "context": None,
            "created": self.now(),
            "data": about,
            "livemode": False,
            "pending_webhooks": 0,
            "request": dict(self.request),
            "type": type_,
            "_deliveries": {},
        }
        self.store.add(event)
        self._fresh_events.append(event)

    def release_events(self) -> None:
        """Hand events of a finished step to the deliverer."""
        fresh, self._fresh_events = self._fresh_events, []
        for event in fresh:
            if self.store.get("event", event["id"]) is event:
                self.on_event(event)

    def drop_events(self) -> None:
        """Forget events of a refused step."""
        self._fresh_events = []

    def rehearsal(self, stripe_customer_id: str | None) -> World:
        """A copy in which one customer's affairs may be acted out without consequences."""
        store = Store()
        shared = ("price", "product", "billing.meter", "billing.meter_event", "coupon", "promotion_code", "tax_rate")
        for kind in shared:
            store.tables[kind] = self.store.tables.get(kind, {})
        # A price that a preview describes is gone with it.
        store.tables["price"] = dict(store.tables["price"])
        for kind in ("payment_method", "subscription", "subscription_schedule", "invoiceitem", "discount", "invoice"):
            store.tables[kind] = {
                # What is over and done with is only read, so it need not be copied.
                key: obj if obj.get("status") in _SETTLED else copied(obj)
                for key, obj in self.store.tables.get(kind, {}).items()
                if obj.get("customer") == stripe_customer_id
            }
        customer = self.store.get("customer", stripe_customer_id)
        store.tables["customer"] = {customer["id"]: copied(customer)} if customer else {}
        world = World(self.config, store=store, clock=Clock(self.clock.offset_seconds))
        world.is_rehearsal = True
        return world
