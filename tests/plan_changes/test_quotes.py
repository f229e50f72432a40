"""A quote is what is charged: signed, for one company, for fifteen minutes, and confirmed once."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import msgspec
import pytest

from plangate import plan_changes
from plangate.engine.holding import Holding
from plangate.engine.values import Interval
from plangate.errors import Code, Refusal
from plangate.plan_changes import ChangeRequest, Force, quotes
from plangate.plan_changes.quotes import Promise, read, refuse_if_over, signed
from plangate.plan_changes.request import checked, target_holding
from plangate.shapes import ChangeState
from plangate.store.usage import UsageWindowRow
from tests.conftest import SECRET_KEY
from tests.shop import CUSTOMER, RETURN_URL, STAFF, Shop, new_company

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
OTHER_SECRET = "another-secret-0123456789abcdef0123456789"
PROMISE = Promise(
    quote_id="quo_1",
    environment_id="env_1",
    company_id="comp_1",
    request=ChangeRequest(plan="pro", interval=Interval.YEAR),
    proration_at=1_795_262_400,
    fingerprint="f",
    kind="upgrade",
    effective_at=0,
    due_minor=4900,
    credit_minor=0,
    currency="usd",
)


def understood(text: str, *secrets: str, environment_id: str = "env_1", company_id: str = "comp_1") -> Promise:
    return read(text, secrets=secrets or (SECRET_KEY,), environment_id=environment_id, company_id=company_id)[0]


def test_a_quote_says_what_was_signed() -> None:
    text, expires_at = signed(PROMISE, secrets=(SECRET_KEY,), wall_now=NOW)
    assert expires_at == NOW + timedelta(minutes=15)
    assert understood(text) == PROMISE


def test_an_older_secret_still_verifies_and_a_removed_one_does_not() -> None:
    text, _ = signed(PROMISE, secrets=(OTHER_SECRET,), wall_now=NOW)
    assert understood(text, SECRET_KEY, OTHER_SECRET) == PROMISE
    with pytest.raises(Refusal):
        understood(text)


def test_fifteen_minutes() -> None:
    _, expires_at = signed(PROMISE, secrets=(SECRET_KEY,), wall_now=NOW)
    refuse_if_over(expires_at, wall_now=NOW + timedelta(minutes=14, seconds=59))
    with pytest.raises(Refusal) as caught:
        refuse_if_over(expires_at, wall_now=NOW + timedelta(minutes=15))
    assert caught.value.code is Code.QUOTE_EXPIRED


def forged(**changes: Any) -> str:  # noqa: ANN401 - claims of any type
    claims = {"aud": quotes.AUDIENCE, "sub": "comp_1", "jti": "quo_1", "exp": 2_000_000_000, **changes}
    return jwt.encode({name: value for name, value in claims.items() if value is not None}, SECRET_KEY, "HS256")


def test_foreign_and_altered_quotes_look_alike() -> None:
    text, _ = signed(PROMISE, secrets=(SECRET_KEY,), wall_now=NOW)
    promise = msgspec.to_builtins(PROMISE)
    header, body, signature = text.split(".")
    unsigned = jwt.encode({"aud": quotes.AUDIENCE, "promise": promise}, None, algorithm="none")
    for bad in (
        "",
        "x",
        "a.b.c",
        "\u00e9" * 10,
        "x" * 9_000,
        unsigned,
        f"{header}.{body}.{signature[::-1]}",
        f"{header}.{body[:-2]}.{signature}",
        forged(promise=promise, aud="plangate-component"),
        forged(promise=promise, jti=None),
        forged(promise={**promise, "due_minor": "free"}),
        forged(promise=[]),
        forged(),
        forged(promise=promise, exp="soon"),
    ):
        with pytest.raises(Refusal) as caught:
            understood(bad)
        assert (caught.value.code, caught.value.errors[0].pointer) == (Code.INVALID, "/quote")
    # Another algorithm is refused, even with the right key.
    text_512 = jwt.encode(jwt.decode(text, options={"verify_signature": False}), SECRET_KEY * 2, "HS512")
    with pytest.raises(Refusal):
        understood(text_512, SECRET_KEY * 2)
    for named in ({"environment_id": "env_2"}, {"company_id": "comp_2"}):
        with pytest.raises(Refusal) as caught:
            understood(text, **named)
        assert caught.value.code is Code.INVALID


@pytest.mark.parametrize(
    ("asked", "pointer"),
    [
        ({}, ""),
        ({"plan": "pro", "cancel": "now"}, "/cancel"),
        ({"resume": True, "cancel": "now"}, "/cancel"),
        ({"add_ons": {"extra-exports": -1}}, "/add_ons/extra-exports"),
        ({"add_ons": {"a/b": 1_000_001}}, "/add_ons/a~1b"),
        ({"quantities": {str(n): 1 for n in range(51)}}, "/quantities"),
        ({"plan": "pro", "force": {"reason": " "}}, "/force/reason"),
        ({"plan": "pro", "force": {"reason": "x" * 501}}, "/force/reason"),
        ({"trial_end": datetime(2026, 12, 1)}, "/trial_end"),  # noqa: DTZ001 - the missing zone is the point
    ],
)
def test_requests_out_of_bounds(asked: dict[str, Any], pointer: str) -> None:
    with pytest.raises(Refusal) as caught:
        checked(msgspec.convert(asked, ChangeRequest))
    assert (caught.value.status, caught.value.errors[0].pointer) == (422, pointer)


def test_unknown_fields_are_no_request() -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"plan": "pro", "price": 1}, ChangeRequest)


async def test_what_is_not_mentioned_stays(shop: Shop) -> None:
    catalog = await shop.env.catalog()
    held = Holding(
        plan="pro", version=1, interval=Interval.YEAR, currency="usd", quantity=3, add_ons={"extra-exports": 2}
    )
    same = target_holding(catalog, held, ChangeRequest(add_ons={"extra-exports": 5}))
    assert same == msgspec.structs.replace(held, add_ons={"extra-exports": 5})
    assert target_holding(catalog, held, ChangeRequest(quantities={"plan": 4})).quantity == 4
    assert target_holding(catalog, held, ChangeRequest(add_ons={"extra-exports": 0})).add_ons == {}
    other = target_holding(catalog, held, ChangeRequest(plan="starter"))
    assert (other.version, other.interval, other.quantity) == (None, Interval.YEAR, 1)
    with pytest.raises(Refusal):
        target_holding(catalog, held, ChangeRequest(plan="platinum"))
    with pytest.raises(Refusal):
        target_holding(catalog, held, ChangeRequest(quantities={"chairs": 4}))


async def test_an_old_quote_is_answered_with_a_new_one(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    quote = await shop.preview(plan="pro")
    monkeypatch.setattr(plan_changes.journey, "wall_now", lambda: quote.expires_at)
    with pytest.raises(Refusal) as caught:
        await shop.confirm(quote)
    assert caught.value.code is Code.QUOTE_EXPIRED
    newest = caught.value.extra["quote"]
    assert isinstance(newest, dict)
    assert newest["quote"] != quote.quote
    assert await shop.rows() == []


async def test_a_quote_that_no_longer_holds_charges_nothing(shop: Shop) -> None:
    stripe_subscription_id = await shop.subscribed(plan="starter")
    quote = await shop.preview(plan="pro")
    # Somebody adds to the subscription in the dashboard; no webhook has come.
    price = (await shop.env.catalog()).add_ons["extra-exports"].prices[0].stripe_price_id or ""
    shop.stripe.subscriptions.update(stripe_subscription_id, {"items": [{"price": price, "quantity": 1}]})
    invoices = len(shop.objects("invoice"))
    with pytest.raises(Refusal) as caught:
        await shop.confirm(quote)
    assert caught.value.code is Code.QUOTE_STALE
    newest = caught.value.extra["quote"]
    assert isinstance(newest, dict)
    assert len(shop.objects("invoice")) == invoices
    again = await plan_changes.confirm(shop.env, shop.company_id, newest["quote"], actor=CUSTOMER)
    assert again.state is ChangeState.APPLIED


async def test_a_discount_given_meanwhile_makes_the_quote_stale(shop: Shop) -> None:
    stripe_subscription_id = await shop.subscribed(plan="starter")
    shop.advance("P10D")
    await shop.sync()
    quote = await shop.preview(plan="pro")
    coupon = shop.stripe.coupons.create({"percent_off": 50, "duration": "forever"})
    shop.stripe.subscriptions.update(stripe_subscription_id, {"discounts": [{"coupon": coupon.id}]})
    with pytest.raises(Refusal) as caught:
        await shop.confirm(quote)
    assert caught.value.code is Code.QUOTE_STALE


async def test_a_quote_worked_out_on_an_older_catalogue_is_stale(shop: Shop) -> None:
    await shop.customer()
    quote = await shop.preview(plan="pro")
    from plangate import catalog
    from tests.shop import DOCUMENT

    pro = {**DOCUMENT["plans"]["pro"], "prices": [{"currency": "usd", "interval": "month", "amount_minor": 5900}]}
    dearer = {**DOCUMENT, "plans": {**DOCUMENT["plans"], "pro": pro}}
    await catalog.apply(shop.env, dearer, actor=STAFF)
    with pytest.raises(Refusal) as caught:
        await shop.confirm(quote)
    assert caught.value.code is Code.QUOTE_STALE
    assert shop.objects("subscription") == []


@pytest.mark.parametrize("asked", [{"plan": "pro"}, {"interval": "year"}, {"add_ons": {"extra-exports": 3}}])
async def test_a_double_click_makes_one_change(shop: Shop, asked: dict[str, Any]) -> None:
    await shop.subscribed(plan="starter")
    quote = await shop.preview(**asked)
    invoices = len(shop.objects("invoice"))
    changes = await asyncio.gather(*(shop.confirm(quote) for _ in range(4)))
    assert len({change.id for change in changes}) == 1
    assert {change.state for change in changes} == {ChangeState.APPLIED}
    assert len(shop.objects("invoice")) == invoices + 1


async def test_two_tabs_with_quotes_of_their_own_make_one_change(shop: Shop) -> None:
    await shop.subscribed(plan="starter")
    tabs = [await shop.preview(plan="pro"), await shop.preview(plan="pro")]
    invoices = len(shop.objects("invoice"))
    results = await asyncio.gather(*(shop.confirm(quote) for quote in tabs), return_exceptions=True)
    assert sum(not isinstance(result, Refusal) for result in results) == 1
    assert len(shop.objects("invoice")) == invoices + 1


async def test_another_companys_quote_is_refused(shop: Shop) -> None:
    quote = await shop.preview(plan="pro")
    stranger = await new_company(shop.env, "stranger")
    with pytest.raises(Refusal) as caught:
        await plan_changes.confirm(shop.env, stranger, quote.quote, actor=CUSTOMER, return_url=RETURN_URL)
    assert caught.value.code is Code.INVALID


async def use(shop: Shop, quantity: int) -> None:
    """Count usage in the running window of the exports."""
    period = (await shop.snapshot()).periods
    window = next(value for kind, value in period.items() if kind.value == "billing_month")
    assert window.start is not None
    async with shop.env.writing() as session:
        await session.add(
            UsageWindowRow(
                id=f"win_{quantity}",
                environment_id=shop.env.id,
                company_id=shop.company_id,
                feature="exports",
                period="billing_month",
                user_id="",
                start_at=window.start,
                end_at=window.resets_at,
                used=quantity,
            )
        )
        await shop.env.touch(session, shop.company_id)


async def test_d19_over_the_limit(shop: Shop) -> None:
    await shop.subscribed()
    await use(shop, 101)
    with pytest.raises(Refusal) as caught:
        await shop.preview(plan="starter", when="now")
    assert caught.value.code is Code.OVER_LIMIT
    assert caught.value.extra["violations"] == [{"feature": "exports", "name": "Exports", "used": 101, "limit": 100}]
    with pytest.raises(Refusal):
        await shop.preview(plan="starter", when="now", actor=STAFF)
    # At the period's end the counter has begun anew, so there is nothing to refuse.
    assert (await shop.preview(plan="starter")).violations == ()
    forced = await shop.preview(plan="starter", when="now", actor=STAFF, force={"reason": "agreed by telephone"})
    assert [one.used for one in forced.violations] == [101]
    assert (await shop.confirm(forced, actor=STAFF)).state is ChangeState.APPLIED
    with pytest.raises(Refusal) as self_service:
        await shop.preview(plan="starter", force={"reason": "please"})
    assert self_service.value.code is Code.FORBIDDEN
    assert Force(reason="x").reason == "x"


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert(1)",
        "/billing",
        "http://",
        "ftp://shop.test/",
        "http://user@shop.test/",
        "http://evil.test/",
        "http://shop.test.evil.test/",
        "http://shop.test/" + "x" * 3_000,
    ],
)
async def test_addresses_to_come_back_to(shop: Shop, url: str) -> None:
    quote = await shop.preview(plan="pro")
    with pytest.raises(Refusal) as caught:
        await plan_changes.confirm(shop.env, shop.company_id, quote.quote, actor=CUSTOMER, return_url=url)
    assert caught.value.errors[0].pointer == "/return_url"
    assert await shop.rows() == []


async def test_stripe_being_slow_leaves_a_change_that_is_finished_later(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    await shop.subscribed(plan="starter")
    quote = await shop.preview(plan="pro")
    monkeypatch.setattr(plan_changes.journey, "_ANSWER_SECONDS", 1.5)
    fault = {"fault": "timeout", "method": "POST", "path": "/v1/subscriptions/*", "seconds": 4, "when": "after"}
    shop.sandbox.control("POST", "faults", fault)
    began = asyncio.get_running_loop().time()
    change = await shop.confirm(quote)
    assert asyncio.get_running_loop().time() - began < 4
    assert change.state in {ChangeState.APPLYING, ChangeState.APPLIED}
    monkeypatch.undo()
    assert (await shop.confirm(quote)).state is ChangeState.APPLIED
    assert len(shop.objects("invoice")) == 2


@pytest.mark.parametrize(
    ("asked", "pointer"),
    [
        ({"cancel": "now", "when": "period_end"}, "/when"),
        ({"cancel": "period_end", "when": "now"}, "/when"),
        ({"resume": True, "when": "now"}, "/when"),
        ({"cancel": "now", "promotion_code": "SAVE10"}, "/promotion_code"),
        ({"resume": True, "promotion_code": "SAVE10"}, "/promotion_code"),
    ],
)
async def test_what_contradicts_itself_or_says_nothing_is_refused(
    shop: Shop, asked: dict[str, Any], pointer: str
) -> None:
    with pytest.raises(Refusal) as caught:
        await shop.preview(**asked)
    assert (caught.value.code, caught.value.errors[0].pointer) == (Code.INVALID, pointer)
