"""What `pull` writes is read back as the same catalogue, and written again to the same bytes, whatever it says."""

from collections.abc import Mapping, Sequence
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from plangate.catalog.stripe_objects import price_from_stripe, price_params, wanted_in_stripe
from plangate.catalog_compiled import offered_version, price_terms
from plangate.catalog_document import document_value
from plangate.catalog_file import catalog_text, parse_catalog, read_catalog
from tests.sandbox_inside import InsideSandbox

# Texts that YAML would read as something else, or that need care on one line.
AWKWARD = [
    "yes",
    "null",
    "~",
    "1e3",
    "0x1F",
    "2026-11-20",
    "a: b",
    "# no",
    "- x",
    "{a}",
    "'",
    '"',
    "é\u2028ü",
    "\t",
    "=",
    "!x",
]
WORDS = st.sampled_from(AWKWARD) | st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=12)
NAMES = WORDS.filter(lambda text: bool(text.strip())).map(lambda text: f"{text}.")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.sampled_from([0.5, 1.0, -2.25]) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=6,
)
ABOUT_COMPANIES = st.one_of(
    st.fixed_dictionaries({"kind": st.just("company"), "values": st.lists(WORDS, min_size=1, max_size=3)}),
    st.fixed_dictionaries({"kind": st.just("product"), "values": st.lists(WORDS, min_size=1, max_size=3)}),
    st.fixed_dictionaries(
        {
            "kind": st.just("trait"),
            "trait": NAMES,
            "operator": st.sampled_from(["eq", "ne", "gte"]),
            "value": st.integers(0, 9) | WORDS,
        }
    ),
    st.fixed_dictionaries(
        {
            "kind": st.just("trait"),
            "trait": NAMES,
            "operator": st.just("in"),
            "value": st.lists(WORDS, min_size=1, max_size=2),
            "value_type": st.just("string"),
        }
    ),
)
GROUPS = st.lists(st.lists(ABOUT_COMPANIES, min_size=1, max_size=2), min_size=1, max_size=2)
MIGRATE = st.sampled_from(["all", "none"]) | st.fixed_dictionaries(
    {"groups": GROUPS}, optional={"companies": st.lists(NAMES)}
)
LIMITS = st.integers(0, 2**63 - 1) | st.just("unlimited")
ENTITLED = {
    "flag": st.booleans(),
    "exports": LIMITS
    | st.fixed_dictionaries(
        {"limit": LIMITS}, optional={"period": st.sampled_from(["day", "all_time"]), "per": st.just("user")}
    )
    | st.fixed_dictionaries({"soft_limit": st.integers(0, 100)}, optional={"overage": st.just("free")}),
    "seats": LIMITS | st.fixed_dictionaries({"limit_trait": NAMES}),
    "theme": WORDS,
    "layout": JSON.filter(lambda value: value is not None).map(lambda value: {"config": value}),
}
DECIMALS = st.sampled_from(["0.25", "0.50", "12", "0.000000000001", "99999999.5", "007.10"])
FLAT = st.fixed_dictionaries({"amount_minor": st.integers(0, 10**6)})


@st.composite
def tiered(draw: st.DrawFn) -> dict[str, Any]:
    """Amounts that rise by tiers."""
    ends = sorted(draw(st.sets(st.integers(1, 10**6), max_size=3)))
    flat = st.fixed_dictionaries({"flat_amount_minor": st.integers(1, 100)})
    amounts = FLAT | st.fixed_dictionaries({"amount_decimal": DECIMALS}) | flat
    return {
        "tiers_mode": draw(st.sampled_from(["graduated", "volume"])),
        "tiers": [{"up_to": end, **draw(amounts)} for end in (*ends, None)],
    }


PACKAGES = st.fixed_dictionaries(
    {"size": st.integers(2, 2**63 - 1)}, optional={"round": st.sampled_from(["up", "down"])}
)
PLAIN = st.builds(
    lambda amount, package: {**amount, **package},
    FLAT | st.fixed_dictionaries({"amount_decimal": DECIMALS}),
    st.fixed_dictionaries({}, optional={"package": PACKAGES}),
)


@st.composite
def prices(draw: st.DrawFn, *, terms: Sequence[Mapping[str, Any]], amounts: st.SearchStrategy[Any]) -> list[Any]:
    """A price for each currency and interval."""
    return [{**one, **draw(amounts)} for one in terms]


TERMS = st.lists(
    st.fixed_dictionaries(
        {"currency": st.sampled_from(["usd", "eur", "jpy"]), "interval": st.sampled_from(["month", "year"])},
        optional={"interval_count": st.integers(1, 3)},
    ),
    min_size=1,
    max_size=3,
    unique_by=lambda price: (price["currency"], price["interval"], price.get("interval_count", 1)),
)


@st.composite
def sold(draw: st.DrawFn) -> dict[str, Any]:
    """A plan or add-on with prices, and with what it charges for beside them in the same currencies."""
    terms = draw(TERMS)
    said: dict[str, Any] = draw(st.fixed_dictionaries({"name": NAMES}, optional=SOLD))
    said["prices"] = draw(prices(terms=terms, amounts=PLAIN | tiered()))
    charged = {
        "exports": st.sampled_from(
            [
                ({"price_behaviour": "pay_as_you_go"}, PLAIN),
                ({"price_behaviour": "tiers", "limit": 5}, tiered()),
                ({"price_behaviour": "overage", "soft_limit": 3, "period": "day"}, PLAIN | tiered()),
            ]
        ),
        "seats": st.just(({"price_behaviour": "pay_in_advance", "limit": 2}, PLAIN | tiered())),
    }
    for feature in draw(st.sets(st.sampled_from(["exports", "seats"]))):
        behaviour, amounts = draw(charged[feature])
        own = draw(prices(terms=terms, amounts=amounts))
        said.setdefault("entitlements", {})[feature] = {**behaviour, "prices": own}
    return said


SOLD: dict[str, Any] = {
    "entitlements": st.fixed_dictionaries({}, optional=ENTITLED),
    "migrate": MIGRATE,
    "description": WORDS,
}
DOCUMENTS = st.fixed_dictionaries(
    {
        "version": st.just(1),
        "features": st.fixed_dictionaries(
            {
                "flag": st.fixed_dictionaries(
                    {"name": NAMES, "type": st.just("boolean")},
                    optional={
                        "flag": st.fixed_dictionaries(
                            {
                                "rules": st.lists(
                                    st.fixed_dictionaries({"key": st.just("r"), "groups": GROUPS}), max_size=1
                                )
                            },
                            optional={"forced": st.booleans(), "default": st.booleans()},
                        )
                    },
                ),
                "exports": st.fixed_dictionaries(
                    {"name": NAMES, "type": st.just("event")},
                    optional={"unit": WORDS, "stripe_meter": st.just("exports")},
                ),
                "seats": st.fixed_dictionaries({"name": NAMES, "type": st.just("seat"), "trait": NAMES}),
                "theme": st.fixed_dictionaries(
                    {"name": NAMES, "type": st.just("config"), "config_type": st.just("string")}
                ),
                "layout": st.fixed_dictionaries(
                    {"name": NAMES, "type": st.just("config"), "config_type": st.just("json")},
                    optional={"config_schema": st.just({"title": "yes"})},
                ),
            }
        ),
        "plans": st.fixed_dictionaries(
            {"free": st.fixed_dictionaries({"name": NAMES}, optional=SOLD)},
            optional={"pro": sold()},
        ),
    },
    optional={
        "initial_plan": st.just("free"),
        "add_ons": st.fixed_dictionaries({}, optional={"more": sold()}),
        "audiences": st.fixed_dictionaries(
            {}, optional={"large": st.fixed_dictionaries({"plan": st.just("free"), "groups": GROUPS})}
        ),
        "settings": st.fixed_dictionaries({}, optional={"migrate": st.just("none"), "past_due_grace_days": st.just(3)}),
    },
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(DOCUMENTS)
def test_a_pulled_catalogue_is_the_same_and_stays_the_same_bytes(value: dict[str, Any]) -> None:
    document = parse_catalog(value)
    text = catalog_text(document)
    again = read_catalog(text)
    assert document_value(again) == document_value(document)
    assert catalog_text(again).encode() == text.encode()
    for kind, key, _ in document.sold():
        assert offered_version(again, kind, key) == offered_version(document, kind, key)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(sold())
def test_a_price_made_in_stripe_says_there_what_it_says_here(value: dict[str, Any]) -> None:
    """Through the stand-in, which checks parameters against the official package's types."""
    value = {**value, "entitlements": {}, "migrate": "all"}
    document = parse_catalog({"version": 1, "features": {}, "plans": {"pro": value}})
    sandbox = InsideSandbox()
    (product,) = wanted_in_stripe(document, {"plan:pro": 1}).products
    sandbox.call("POST", "/v1/products", id=product.stripe_product_id, name="Pro")
    for wanted in wanted_in_stripe(document, {"plan:pro": 1}).prices:
        made = sandbox.call("POST", "/v1/prices", lookup_key=wanted.lookup_key, **price_params(wanted, None))
        found = sandbox.call("GET", f"/v1/prices/{made['id']}", expand=["tiers"])
        said = price_from_stripe(found, {})
        assert not isinstance(said, str), said
        assert price_terms(said) == price_terms(wanted.price)
