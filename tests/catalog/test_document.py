"""The document: read from YAML with its faults and lines, written back alike, and compiled for the engine."""

import json
import re
from pathlib import Path

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from plangate.catalog_compiled import compile_catalog, offered_version
from plangate.catalog_document import CatalogDocument, document_value
from plangate.catalog_file import catalog_text, parse_catalog, read_catalog
from plangate.engine.catalog import Entitlement
from plangate.engine.values import UNLIMITED, FeatureType, Interval, PeriodKind, Stacking
from plangate.errors import Code, Refusal

DEMO = Path(__file__).parents[2] / "fixtures" / "catalogs" / "demo.yaml"
SCHEMA = Path(__file__).parents[2] / "docs" / "reference" / "catalog.schema.json"
REFERENCE = SCHEMA.with_name("catalog.md")
FEATURES = """
features:
  exports: {name: Exports, type: event}
  sso: {name: SSO, type: boolean}
  seats: {name: Seats, type: seat, trait: seats}
  upload: {name: Upload, type: config, config_type: number}
"""


def _plan(entitlements: str, more: str = "") -> str:
    return f"version: 1{FEATURES}plans:\n  pro:\n    name: Pro\n    entitlements: {{{entitlements}}}\n{more}"


def _refusal(text: str) -> Refusal:
    with pytest.raises(Refusal) as caught:
        read_catalog(text)
    return caught.value


def test_the_demo_catalogue_is_written_in_its_canonical_form() -> None:
    text = DEMO.read_text("utf-8")
    assert catalog_text(read_catalog(text)) == text


def test_the_demo_catalogue_has_what_the_demo_tells() -> None:
    document = read_catalog(DEMO.read_text("utf-8"))
    assert list(document.plans) == ["free", "starter", "pro", "enterprise"]
    assert (document.initial_plan, document.fallback_plan) == ("free", "free")
    assert {feature.type for feature in document.features.values()} == {kind.value for kind in FeatureType}
    exports = {
        key: next(one for one in offered_version(document, "plan", key).entitlements if one.feature == "exports")
        for key in document.plans
    }
    assert [exports[key].limit for key in document.plans] == [10, 100, 1_000, UNLIMITED]
    assert {one.period for one in exports.values()} == {PeriodKind.BILLING_MONTH}
    for key in ("starter", "pro"):
        prices = {(price.currency, price.interval) for price in document.plans[key].prices}
        assert prices == {(currency, interval) for currency in ("usd", "eur") for interval in ("month", "year")}
    assert "sso" not in document.plans["starter"].entitlements
    assert document.plans["pro"].entitlements["sso"] is True


@pytest.mark.parametrize(
    ("entitlement", "expected"),
    [
        ("sso: true", Entitlement(feature="sso", enabled=True)),
        ("sso: {enabled: false}", Entitlement(feature="sso", enabled=False)),
        ("exports: 10", Entitlement(feature="exports", limit=10, period=PeriodKind.BILLING_MONTH)),
        ("exports: unlimited", Entitlement(feature="exports", limit=UNLIMITED, period=PeriodKind.BILLING_MONTH)),
        (
            "exports: {limit: 10, period: day, stacking: sum}",
            Entitlement(feature="exports", limit=10, period=PeriodKind.DAY, stacking=Stacking.SUM),
        ),
        (
            "exports: {soft_limit: 10, period: day}",
            Entitlement(feature="exports", limit=UNLIMITED, soft_limit=10, period=PeriodKind.DAY),
        ),
        ("seats: {limit_trait: seats_bought}", Entitlement(feature="seats", limit_trait="seats_bought")),
        ("seats: 0", Entitlement(feature="seats", limit=0)),
        ("upload: 2.5", Entitlement(feature="upload", config=2.5)),
    ],
)
def test_short_and_long_forms_mean_one_entitlement(entitlement: str, expected: Entitlement) -> None:
    document = read_catalog(_plan(entitlement))
    assert offered_version(document, "plan", "pro").entitlements == (expected,)


@pytest.mark.parametrize(
    ("text", "pointer", "line"),
    [
        (_plan("sso: 10"), "/plans/pro/entitlements/sso", 10),
        (_plan("sso: {limit: 10}"), "/plans/pro/entitlements/sso/limit", 10),
        (_plan("exports: {limit: -1}"), "/plans/pro/entitlements/exports/limit", 10),
        (_plan("exports: {limit: 1.5}"), "/plans/pro/entitlements/exports/limit", 10),
        (_plan("exports: {limit: 9223372036854775808}"), "/plans/pro/entitlements/exports/limit", 10),
        (_plan("exports: {limit: 10, soft_limit: 10}"), "/plans/pro/entitlements/exports/soft_limit", 10),
        (_plan("exports: {limit: 10, period: fortnight}"), "/plans/pro/entitlements/exports/period", 10),
        (_plan("exports: {limit: 10, enabled: true}"), "/plans/pro/entitlements/exports/enabled", 10),
        (_plan("exports: [10]"), "/plans/pro/entitlements/exports", 10),
        (_plan("seats: {limit: 1, period: day}"), "/plans/pro/entitlements/seats/period", 10),
        (_plan("upload: big"), "/plans/pro/entitlements/upload", 10),
        (_plan("upload: .inf"), "/plans/pro/entitlements/upload", 10),
        (_plan("exprots: 10"), "/plans/pro/entitlements/exprots", 10),
        (_plan("", "initial_plan: fre"), "/initial_plan", 11),
        (
            _plan("", "    prices: [{currency: us, interval: month, amount_minor: 1}]"),
            "/plans/pro/prices/0/currency",
            11,
        ),
        (
            _plan("", "    prices: [{currency: usd, interval: month, amount_minor: 1.5}]"),
            "/plans/pro/prices/0/amount_minor",
            11,
        ),
        (
            _plan("", "    prices: [{currency: usd, interval: week, interval_count: 157, amount_minor: 1}]"),
            "/plans/pro/prices/0/interval_count",
            11,
        ),
        (
            _plan("", "    prices: [{currency: usd, interval: month, amount_minor: 1, stripe_price: 'a b'}]"),
            "/plans/pro/prices/0/stripe_price",
            11,
        ),
        (_plan("", "    trial_days: 14"), "/plans/pro/trial_days", 11),
        (_plan("", "    contact_us: true\n    contact_url: 'javascript:alert(1)'"), "/plans/pro/contact_url", 12),
        (_plan("", "add_ons:\n  more: {name: More, fits: [gone]}"), "/add_ons/more/fits/0", 12),
        ("version: 2\nfeatures: {}\nplans: {}", "/version", 1),
        ("version: 1\nfeatures:\n  Exports: {name: E, type: event}\nplans: {}", "/features/Exports", 3),
        ("version: 1\nfeatures:\n  a: {name: A, type: seat}\nplans: {}", "/features/a", 3),
        ("version: 1\nfeatures:\n  a: {name: A, type: config}\nplans: {}", "/features/a", 3),
        ("version: 1\nfeatures:\n  a: {name: '', type: event}\nplans: {}", "/features/a/name", 3),
        ('version: 1\nfeatures:\n  a: {name: "A\\0", type: event}\nplans: {}', "/features/a/name", 3),
        ("version: 1\nplans: [pro]\nfeatures: {}", "/plans", 2),
        ("- version: 1", "", 1),
    ],
)
def test_a_fault_is_told_with_its_pointer_and_line(text: str, pointer: str, line: int) -> None:
    refusal = _refusal(text)
    assert refusal.code is Code.INVALID
    assert [error.pointer for error in refusal.errors] == [pointer]
    assert f"{pointer or '/'} (line {line}) " in refusal.detail


def test_unknown_fields_have_their_own_code() -> None:
    refusal = _refusal("version: 1\nfeatures: {}\nplans: {}\nplanz: {}")
    assert refusal.code is Code.UNKNOWN_FIELD
    assert [error.pointer for error in refusal.errors] == ["/planz"]


def test_every_fault_is_listed() -> None:
    refusal = _refusal(_plan("sso: 10, exports: true, upload: yes please"))
    assert [error.pointer.rpartition("/")[2] for error in refusal.errors] == ["sso", "exports", "upload"]
    assert "There are 2 more faults in it." in refusal.detail


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty"),
        ("a: [", "line 1"),
        ("version: 1\nversion: 1", "line 2: version is given twice"),
        ("a: &a [1]\nb: *a", "aliases"),
        ("plans:\n  no: {name: Norway}", "line 2: the key no is not text; put it in quotes"),
        ("plans:\n  2026-01-01: {name: New}", "line 2: the key 2026-01-01 is not text"),
        ("plans:\n  [a]: {name: A}", "line 2: a key is not text"),
        ("a: !!python/object/apply:os.system [true]", "line 1"),
        ("a: " + "[" * 40 + "]" * 40, "levels deep"),
        ("[" * 5_000, "not valid YAML"),
    ],
)
def test_text_that_cannot_be_read_is_malformed(text: str, said: str) -> None:
    refusal = _refusal(text)
    assert refusal.code is Code.MALFORMED
    assert said in refusal.detail


def test_a_huge_file_is_too_large() -> None:
    assert _refusal("#" * 1_048_577).code is Code.TOO_LARGE


def test_the_recommended_plan_is_one() -> None:
    text = "version: 1\nfeatures: {}\nplans:\n  a: {name: A, recommended: true}\n  b: {name: B, recommended: true}"
    assert [error.pointer for error in _refusal(text).errors] == ["/plans/b/recommended"]


def test_a_role_is_not_given_to_a_plan_with_prices() -> None:
    text = _plan("", "    prices: [{currency: usd, interval: month, amount_minor: 100}]\ninitial_plan: pro")
    assert [error.pointer for error in _refusal(text).errors] == ["/initial_plan"]


@pytest.mark.parametrize(
    ("condition", "is_valid"),
    [
        ("{kind: plan, values: [pro]}", True),
        ("{kind: plan, values: [gone]}", False),
        ("{kind: trait, trait: region, value: eu}", True),
        ("{kind: trait, trait: region}", False),
        ("{kind: trait, trait: region, value: eu, other_trait: home}", False),
        ("{kind: usage, feature: exports, operator: gte, value: 10}", True),
        ("{kind: usage, feature: sso, operator: gte, value: 10}", False),
        ("{kind: company, values: [id=acme]}", True),
        ("{kind: company}", False),
    ],
)
def test_the_conditions_of_rules_name_what_exists(condition: str, *, is_valid: bool) -> None:
    text = (
        "version: 1\nplans:\n  pro: {name: Pro}\nfeatures:\n  exports: {name: Exports, type: event}\n  sso:\n"
        f"    name: SSO\n    type: boolean\n    flag: {{rules: [{{key: some, groups: [[{condition}]]}}]}}\n"
    )
    if is_valid:
        read_catalog(text)
    else:
        assert _refusal(text).errors[0].pointer.startswith("/features/sso/flag/rules/0/groups/0/0")


def test_before_the_first_revision_nothing_is_on_offer() -> None:
    catalog = compile_catalog(None, [], [], {}, {}, time_zone="Europe/Berlin")
    assert (catalog.revision, catalog.plans, catalog.features) == (0, {}, {})
    assert catalog.settings.time_zone == "Europe/Berlin"


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=10,
)
NEAR_MISSES = st.fixed_dictionaries(
    {},
    optional={
        "version": st.sampled_from([1, 2, "1"]) | JSON_VALUES,
        "settings": JSON_VALUES,
        "initial_plan": JSON_VALUES,
        "features": st.dictionaries(
            st.sampled_from(["a", "b", "B c"]),
            st.fixed_dictionaries(
                {"name": st.sampled_from(["A", ""]), "type": st.sampled_from(["event", "boolean", "config", "x"])},
                optional={"flag": JSON_VALUES, "config_type": st.sampled_from(["number", "json"]), "unit": JSON_VALUES},
            )
            | JSON_VALUES,
            max_size=3,
        ),
        "plans": st.dictionaries(
            st.sampled_from(["a", "b"]),
            st.fixed_dictionaries(
                {"name": st.just("A")},
                optional={
                    "entitlements": st.dictionaries(st.sampled_from(["a", "b"]), JSON_VALUES),
                    "prices": JSON_VALUES,
                },
            ),
            max_size=2,
        ),
    },
)


def _read(value: object) -> CatalogDocument | Refusal:
    try:
        return parse_catalog(value)
    except Refusal as refusal:
        return refusal


@given(NEAR_MISSES | JSON_VALUES)
def test_any_value_is_a_catalogue_or_a_refusal(value: object) -> None:
    document = _read(value)
    if isinstance(document, Refusal):
        assert document.status == 422
        assert all(error.pointer == "" or error.pointer.startswith("/") for error in document.errors)
    else:
        assert document_value(read_catalog(catalog_text(document))) == document_value(document)


def test_the_published_schema_is_the_models() -> None:
    assert json.loads(SCHEMA.read_text("utf-8")) == CatalogDocument.model_json_schema(), (
        "write it again with: plangate catalog schema > docs/reference/catalog.schema.json"
    )


def test_the_reference_names_every_field() -> None:
    text = REFERENCE.read_text("utf-8")
    schema = CatalogDocument.model_json_schema()
    parts = {name: part["properties"] for name, part in schema["$defs"].items() if "properties" in part}
    inner = {"ConditionDocument"}  # conditions are described where targeting is
    for name in {field for part in parts.keys() - inner for field in parts[part]} | set(schema["properties"]):
        assert re.search(rf"\b{name}\b", text), name


def test_the_published_schema_accepts_the_demo_catalogue() -> None:
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text("utf-8")))
    document = yaml.safe_load(DEMO.read_text("utf-8"))
    validator.validate(document)
    document["plans"]["pro"]["entitlements"]["sso"] = []
    assert not validator.is_valid(document)


def test_intervals_are_the_engines() -> None:
    text = _plan("", "    prices: [{currency: USD, interval: month, interval_count: 3, amount_minor: 5700}]")
    (price,) = offered_version(read_catalog(text), "plan", "pro").prices
    assert (price.currency, price.interval, price.interval_count) == ("usd", Interval.MONTH, 3)


@pytest.mark.parametrize("text", ["{}", "version: 1", "features: {}", "plans: {}"])
def test_features_and_plans_are_required_so_that_nothing_is_archived_by_accident(text: str) -> None:
    refusal = _refusal(text)
    assert {error.pointer for error in refusal.errors} <= {"/features", "/plans"}
    assert refusal.code is Code.INVALID
    assert document_value(read_catalog("features: {}\nplans: {}")) == {"version": 1, "features": {}, "plans": {}}


@pytest.mark.parametrize(("code", "is_known"), [("usd", True), ("JPY", True), ("xyz", False), ("dem", False)])
def test_a_price_is_in_a_currency_that_is_in_use(code: str, is_known: bool) -> None:
    text = _plan("", f"    prices:\n      - {{currency: {code}, interval: month, amount_minor: 100}}\n")
    if is_known:
        assert read_catalog(text).plans["pro"].prices[0].currency == code.lower()
        return
    refusal = _refusal(text)
    assert [error.pointer for error in refusal.errors] == ["/plans/pro/prices/0/currency"]
    assert "ISO 4217" in refusal.errors[0].detail
