"""What `pull` writes is read back as the same catalogue, and written again to the same bytes, whatever it says."""

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from plangate.catalog_document import document_value
from plangate.catalog_file import catalog_text, parse_catalog, read_catalog

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
PRICES = st.lists(
    st.fixed_dictionaries(
        {
            "currency": st.sampled_from(["usd", "eur", "jpy"]),
            "interval": st.sampled_from(["month", "year"]),
            "amount_minor": st.integers(0, 10**6),
        },
        optional={"interval_count": st.integers(1, 3)},
    ),
    min_size=1,
    max_size=3,
    unique_by=lambda price: (price["currency"], price["interval"], price.get("interval_count", 1)),
)
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
            optional={"pro": st.fixed_dictionaries({"name": NAMES, "prices": PRICES}, optional=SOLD)},
        ),
    },
    optional={
        "initial_plan": st.just("free"),
        "add_ons": st.fixed_dictionaries(
            {}, optional={"more": st.fixed_dictionaries({"name": NAMES, "prices": PRICES}, optional=SOLD)}
        ),
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
