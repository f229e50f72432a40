"""The view models of every fragment, and their rendering: what a template may show is exactly what is typed here.

Texts arrive finished and in the reader's language; templates only place them. Everything is escaped.
"""

from functools import cache
from typing import ClassVar, Literal
from urllib.parse import urlsplit

import msgspec
from jinja2 import Environment as Templates
from jinja2 import FileSystemLoader, StrictUndefined

from plangate.resources import components_folder
from plangate.web.wording import PriceText, Reader

Tone = Literal["", "good", "warn", "bad"]
Icon = Literal["check", "clock", "info", "alert", "minus", "plus"]


class Frame(msgspec.Struct, frozen=True, kw_only=True):
    """Whom a fragment speaks to. `level` is the heading level (2 to 6) the component starts at."""

    reader: Reader
    level: int = 2


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """What just happened, in a sentence; announced once."""

    text: str
    tone: Tone = "good"


class Fragment(msgspec.Struct, frozen=True, kw_only=True):
    """The common part of all fragments: its frame, and a notice above it."""

    template: ClassVar[str] = ""
    frame: Frame
    notice: Notice | None = None


class Action(msgspec.Struct, frozen=True, kw_only=True):
    """A button: a POST of `fields` to a component route, a GET of one, or a link when `url` is set.

    `key` is the idempotency key of this rendering of the form, so that a double click makes one change.
    """

    label: str
    post: str = ""
    get: str = ""
    url: str = ""
    fields: dict[str, str] = {}
    key: str = ""
    style: Literal["", "primary", "plain"] = ""
    spoken: str = ""
    element_id: str = ""


class Banner(msgspec.Struct, frozen=True, kw_only=True):
    """A calm note about something that waits or went wrong, with the way on."""

    text: str
    hint: str = ""
    tone: Tone = ""
    icon: Icon = "info"
    action: Action | None = None


# --- the pricing table -----------------------------------------------------------------------------


class PlanButton(msgspec.Struct, frozen=True, kw_only=True):
    """The one button of a card: choose it, contact somebody, or only a word such as "Your plan"."""

    kind: Literal["choose", "contact", "word"]
    label: str
    url: str = ""
    is_primary: bool = False


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """What a card says for one choice of how often to pay, by its key; "" when it is the same for all of them."""

    interval: str
    price: PriceText | None
    headline: str
    per: str
    note: str
    saving: str
    button: PlanButton | None


class FeatureLine(msgspec.Struct, frozen=True, kw_only=True):
    """One granted feature: "1,000 exports a month", with what it was in the plan before, and its explanation.

    `texts` say it for each interval instead, by its key, where what it costs depends on that.
    """

    text: str
    texts: tuple[tuple[str, str], ...] = ()
    hint: str = ""
    description: str = ""


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """One plan. `gains` is what it has beyond the plan before it, `everything` all of it (empty when the same)."""

    key: str
    name: str
    description: str
    badge: str
    is_recommended: bool
    is_current: bool
    offers: tuple[Offer, ...]
    gains_title: str
    gains: tuple[FeatureLine, ...]
    everything_title: str
    everything: tuple[FeatureLine, ...]


class IntervalChoice(msgspec.Struct, frozen=True, kw_only=True):
    key: str
    label: str
    saving: str
    is_chosen: bool


class PricingView(Fragment, frozen=True, kw_only=True):
    """The pricing table; of its offers those at `interval` are shown, the others hidden until they are chosen.

    `sign_up_url` is None with a token; without one, buttons lead there (or only to the event).
    """

    template: ClassVar[str] = "pricing_table.html"
    title: str
    intervals: tuple[IntervalChoice, ...]
    interval: str
    currencies: tuple[str, ...]
    currency: str
    cards: tuple[Card, ...]
    banners: tuple[Banner, ...] = ()
    sign_up_url: str | None = None
    is_title_shown: bool = False
    back: Action | None = None


# --- the plan manager --------------------------------------------------------------------------------


class Fact(msgspec.Struct, frozen=True, kw_only=True):
    """One thing to know at a glance: "Next payment" — "$49.00 on December 3"."""

    label: str
    text: str
    hint: str = ""


class AddOnLine(msgspec.Struct, frozen=True, kw_only=True):
    """One add-on, held or on offer. `quantity` is what is held; `update`/`remove`/`add` are the ways to change it."""

    key: str
    name: str
    description: str
    price: str
    quantity: int
    held: str
    quantity_label: str
    update: Action | None
    remove: Action | None
    add: Action | None


class PlanManagerView(Fragment, frozen=True, kw_only=True):
    """What the company has, what it costs, when it pays next, what waits, and the ways to change it."""

    template: ClassVar[str] = "plan_manager.html"
    plan: str
    badge: str
    badge_tone: Tone
    facts: tuple[Fact, ...]
    banners: tuple[Banner, ...]
    units: tuple[AddOnLine, ...] = ()
    add_ons: tuple[AddOnLine, ...]
    actions: tuple[Action, ...]
    poll_seconds: int = 0


# --- usage -------------------------------------------------------------------------------------------


class Meter(msgspec.Struct, frozen=True, kw_only=True):
    """One feature's usage. `maximum` 0 means no bar; `value` and `maximum` are in base units."""

    id: str
    name: str
    text: str
    spoken: str
    value: int
    maximum: int
    tone: Tone
    sentence: str
    hint: str
    action: Action | None = None


class UsageView(Fragment, frozen=True, kw_only=True):
    template: ClassVar[str] = "usage.html"
    meters: tuple[Meter, ...]


# --- receipts, refusals, problems ---------------------------------------------------------------------


class ReceiptLine(msgspec.Struct, frozen=True, kw_only=True):
    text: str
    amount: str


class ReceiptView(Fragment, frozen=True, kw_only=True):
    """A quote as a small receipt; the confirm button repeats the amount or the date.

    The amounts of `lines` come to that of `due`; `tax_note` says what tax is in them.
    `usage` says what is billed as it is used, beside the next payment that `following` names.
    With `is_ending` the way back is offered first, and the key Enter does not cancel a subscription.
    """

    template: ClassVar[str] = "receipt.html"
    title: str
    lead: str
    lines: tuple[ReceiptLine, ...]
    due: ReceiptLine
    tax_note: str = ""
    following: str
    usage: tuple[str, ...] = ()
    gained: tuple[str, ...]
    lost: tuple[str, ...]
    warnings: tuple[str, ...]
    hint: str
    confirm: Action
    cancel_label: str
    is_ending: bool = False


class RefusalView(Fragment, frozen=True, kw_only=True):
    """A documented "no" inside a dialog: what is in the way, and the way out.

    `is_outdated` says that what stands behind the dialog is no longer so: closing it loads that again.
    """

    template: ClassVar[str] = "refusal.html"
    title: str
    text: str
    reasons: tuple[str, ...]
    hint: str
    action: Action | None
    close_label: str
    is_outdated: bool = False


class ProblemView(Fragment, frozen=True, kw_only=True):
    """A component that cannot be shown: a sentence, what to do, and perhaps a retry."""

    template: ClassVar[str] = "problem.html"
    text: str
    hint: str
    can_retry: bool


class LeavingView(Fragment, frozen=True, kw_only=True):
    """Shown while the browser goes to the payment page; the link is for hosts that stopped the redirect."""

    template: ClassVar[str] = "leaving.html"
    text: str
    action: Action


# --- invoices and portal --------------------------------------------------------------------------------


class InvoiceLine(msgspec.Struct, frozen=True, kw_only=True):
    date: str
    amount: str
    status: str
    tone: Tone
    link: Action | None


class InvoicesView(Fragment, frozen=True, kw_only=True):
    template: ClassVar[str] = "invoices.html"
    lines: tuple[InvoiceLine, ...]


class PortalView(Fragment, frozen=True, kw_only=True):
    template: ClassVar[str] = "portal.html"
    text: str
    action: Action | None


# --- rendering -------------------------------------------------------------------------------------------


def render(view: Fragment) -> str:
    """The HTML of one fragment. An unknown name in a template is a bug and raises."""
    return _templates().get_template(view.template).render(view=view, frame=view.frame, say=view.frame.reader.say)


def web_address(url: str | None) -> str:
    """The URL if it is an http(s) one (or a path on the host's page), else "": a `javascript:` link never gets out."""
    if not url:
        return ""
    try:
        parts = urlsplit(url.strip())
    except ValueError:
        return ""
    if parts.scheme in {"http", "https"} and parts.netloc:
        return url.strip()
    is_path = not parts.scheme and not parts.netloc and url.startswith("/") and not url.startswith(("//", "/\\"))
    return url if is_path or (parts.scheme == "mailto" and parts.path) else ""


@cache
def _templates() -> Templates:
    return Templates(
        loader=FileSystemLoader(components_folder() / "fragments"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
