"""Proves which config values a feature takes, beside a full JSON Schema validator."""

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plangate.engine.catalog import Feature
from plangate.engine.config_values import MAX_DEPTH, Fault, schema_faults, value_faults
from plangate.engine.values import FeatureType, Json


def config(config_type: str = "json", schema: Json = None) -> Feature:
    return Feature(
        key="limits",
        name="Limits",
        type=FeatureType.CONFIG,
        config_type=config_type,  # type: ignore[arg-type]  # Tests pass the few texts it may be.
        config_schema=schema,
    )


@pytest.mark.parametrize(
    ("config_type", "value", "faults"),
    [
        ("string", "text", []),
        ("string", 5, [Fault("", "must be text")]),
        ("number", 5, []),
        ("number", 0.5, []),
        ("number", True, [Fault("", "must be a number")]),
        ("number", "5", [Fault("", "must be a number")]),
        ("number", float("nan"), [Fault("", "must be a number")]),
        ("number", float("inf"), [Fault("", "must be a number")]),
        ("json", {"any": [1, None]}, []),
    ],
)
def test_the_type_of_a_value(config_type: str, value: Json, faults: list[Fault]) -> None:
    assert value_faults(config(config_type), value) == faults


SIZES = {
    "type": "object",
    "properties": {
        "width": {"type": "integer", "minimum": 1, "maximum": 100},
        "names": {"type": "array", "items": {"type": "string", "minLength": 1, "maxLength": 5}, "maxItems": 2},
        "mode": {"enum": ["fast", "slow", 1]},
        "a/b~c": {"const": {"on": True}},
        "nothing": {"type": ["null", "boolean"]},
    },
    "required": ["width"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("value", "faults"),
    [
        ({"width": 1}, []),
        ({"width": 100, "names": ["a", "12345"], "mode": "fast", "nothing": None}, []),
        ({"width": 2.0}, []),
        ([], [Fault("", "must be object")]),
        ({}, [Fault("/width", "is missing")]),
        ({"width": 0}, [Fault("/width", "must be at least 1")]),
        ({"width": 101}, [Fault("/width", "must be at most 100")]),
        ({"width": 1.5}, [Fault("/width", "must be integer")]),
        ({"width": True}, [Fault("/width", "must be integer")]),
        (
            {"width": 1, "names": ["", "123456"]},
            [
                Fault("/names/0", "must be at least 1 characters"),
                Fault("/names/1", "must be at most 5 characters"),
            ],
        ),
        ({"width": 1, "names": ["a", "b", "c"]}, [Fault("/names", "must be at most 2 items")]),
        ({"width": 1, "mode": True}, [Fault("/mode", "is not one of the values that are allowed")]),
        ({"width": 1, "a/b~c": {"on": 1}}, [Fault("/a~1b~0c", "is not the value that is allowed")]),
        ({"width": 1, "a/b~c": {"on": True}}, []),
        ({"width": 1, "nothing": 0}, [Fault("/nothing", "must be null or boolean")]),
        ({"width": 1, "height": 2}, [Fault("/height", "is not a field that is known")]),
    ],
)
def test_values_against_a_schema(value: Json, faults: list[Fault]) -> None:
    assert schema_faults(SIZES) == []
    assert value_faults(config(schema=SIZES), value) == faults


@pytest.mark.parametrize(
    ("schema", "fault"),
    [
        (True, Fault("", "must be a schema, an object of keywords")),
        ({"type": "text"}, Fault("/type", "must name JSON types")),
        ({"type": []}, Fault("/type", "must name JSON types")),
        ({"type": [1]}, Fault("/type", "must name JSON types")),
        ({"enum": []}, Fault("/enum", "must be a list of values")),
        ({"minimum": "1"}, Fault("/minimum", "must be a number")),
        ({"maxLength": -1}, Fault("/maxLength", "must be a whole number, not negative")),
        ({"minItems": True}, Fault("/minItems", "must be a whole number, not negative")),
        ({"required": "width"}, Fault("/required", "must be a list of names")),
        ({"additionalProperties": {}}, Fault("/additionalProperties", "must be true or false")),
        ({"properties": []}, Fault("/properties", "must map names to schemas")),
        ({"properties": {"a/b": {"items": 3}}}, Fault("/properties/a~1b/items", "must be a schema")),
        ({"properties": {"width": 3}}, Fault("/properties/width", "must be a schema, an object of keywords")),
        ({"pattern": "^a+$"}, Fault("/pattern", "is not a keyword that is understood")),
        ({"$ref": "#"}, Fault("/$ref", "is not a keyword that is understood")),
    ],
)
def test_schemas_that_cannot_be_used(schema: Json, fault: Fault) -> None:
    assert schema_faults(schema) == [fault]


def test_schemas_are_not_endless() -> None:
    schema: Json = {}
    for _ in range(MAX_DEPTH):
        schema = {"items": schema}
    assert schema_faults(schema["items"]) == []
    assert [fault.detail for fault in schema_faults(schema)] == [f"is nested deeper than {MAX_DEPTH} schemas"]


scalars = st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from([0.5, 1.0]) | st.text("ab", max_size=3)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("xyz"), inner, max_size=3)
)
small = st.integers(0, 3)


def schemas() -> st.SearchStrategy[dict[str, Json]]:
    plain = st.fixed_dictionaries(
        {},
        optional={
            "type": st.sampled_from(["null", "boolean", "integer", "number", "string", "array", "object"])
            | st.just(["string", "array", "object"]),
            "enum": st.lists(values, min_size=1, max_size=3),
            "const": values,
            "minimum": small,
            "maximum": small,
            "minLength": small,
            "maxLength": small,
            "minItems": small,
            "maxItems": small,
            "required": st.lists(st.sampled_from("xyz"), max_size=2),
            "additionalProperties": st.booleans(),
            "title": st.just("Title"),
        },
    )
    return st.recursive(
        plain,
        lambda inner: st.builds(
            lambda base, items, properties: {**base, "items": items, "properties": properties},
            plain,
            inner,
            st.dictionaries(st.sampled_from("xyz"), inner, max_size=2),
        ),
        max_leaves=4,
    )


@given(schemas(), values)
def test_it_agrees_with_json_schema(schema: dict[str, Json], value: Json) -> None:
    assert schema_faults(schema) == []
    is_valid = jsonschema.Draft202012Validator(schema).is_valid(value)
    assert (value_faults(config(schema=schema), value) == []) is is_valid


@pytest.mark.parametrize(
    ("wanted", "value", "is_one"),
    [
        ([1, 2], [1, 2], True),
        ([1, 2], [2, 1], False),
        ([1, 2], [1, 2, 3], False),
        ([1], [True], False),
        ([[0]], [[False]], False),
        ({"on": 1}, {"on": True}, False),
        ({"on": [1]}, {"on": [1]}, True),
        ({"on": 1}, {"on": 1, "off": 0}, False),
        (True, True, True),
        (True, 1, False),
        (1, 1.0, True),
    ],
)
def test_values_are_the_same_only_as_json_has_it(wanted: Json, value: Json, *, is_one: bool) -> None:
    for schema in ({"const": wanted}, {"enum": [None, wanted]}):
        assert (value_faults(config(schema=schema), value) == []) is is_one
