"""Every field of a section and of the sections below it, with values that it must not take."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, TypeAdapter

WRONG_TYPES: dict[str, list[Any]] = {
    "string": [5, 1.5, True, None, [], {}, ["a"], {"a": 1}, "\0", "\ud800"],
    "integer": ["3", "many", 1.5, True, None, [1], {}, 10**30, float("nan"), float("inf")],
    "number": ["0.1", "much", True, None, [0.1], {}, float("nan"), float("inf"), 10**400],
    "boolean": ["yes", 1, 0.0, None, [], {}],
    "array": ["a", 5, True, None, {}, {"a": 1}, [None], [[]], [{"no such key": 1}]],
    "object": ["a", 5, True, None, [], ["a"], {"no such key": 1}],
    "null": [],
    "choice": ["no such choice", "", 5, True, None, [], {}],
}


def walk_sections(section: type[BaseModel]) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    """Yield the place of every field, dotted keys as a tuple, and its JSON schema, references resolved."""
    whole = TypeAdapter(section).json_schema()
    yield from _walk(whole, whole.get("$defs", {}), ())


def _walk(
    schema: Mapping[str, Any], named: Mapping[str, Any], place: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    for name, field in schema.get("properties", {}).items():
        resolved = _resolve(field, named)
        yield (*place, name), resolved
        yield from _walk(resolved, named, (*place, name))


def _resolve(field: Mapping[str, Any], named: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a schema with references of its own level and of its alternatives followed."""
    if "$ref" in field:
        return {**named[field["$ref"].rpartition("/")[2]], **{k: v for k, v in field.items() if k != "$ref"}}
    for several in ("anyOf", "oneOf", "allOf"):
        if several in field:
            return {**field, several: [_resolve(one, named) for one in field[several]]}
    return field


def wrong_values(schema: Mapping[str, Any]) -> list[Any]:
    """Return values of other types and values out of range, none of which any alternative of the schema takes."""
    alternatives = list(_alternatives(schema))
    kinds = {_kind(one) for one in alternatives}
    if kinds & {None}:
        return []
    wrong = [value for kind in sorted(kinds) for value in WRONG_TYPES[kind]]
    wrong += [value for one in alternatives for value in _out_of_range(one)]
    return [value for value in wrong if not any(_takes(one, value) for one in alternatives)]


def _alternatives(schema: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    several = schema.get("anyOf") or schema.get("oneOf")
    if several is None:
        yield schema
    else:
        for one in several:
            yield from _alternatives(one)


def _kind(schema: Mapping[str, Any]) -> str | None:
    return "choice" if "enum" in schema or "const" in schema else schema.get("type")


def _out_of_range(schema: Mapping[str, Any]) -> Iterator[Any]:
    """Yield values just outside each bound that the schema states."""
    step = 1 if schema.get("type") == "integer" else 1e-9
    for bound, beyond in (("minimum", -step), ("exclusiveMinimum", 0), ("maximum", step), ("exclusiveMaximum", 0)):
        if bound in schema:
            yield schema[bound] + beyond
    if schema.get("minItems", 0) > 0:
        yield []
    if schema.get("minLength", 0) > 0:
        yield ""
    if "pattern" in schema:
        yield from ("../etc/passwd", "A B", "-x")


def _takes(schema: Mapping[str, Any], value: Any) -> bool:
    """Return whether a value is one that this alternative allows on purpose."""
    kind = _kind(schema)
    if kind == "null":
        return value is None
    if kind == "choice":
        return value in schema.get("enum", [schema.get("const")]) and not isinstance(value, bool)
    if kind == "string":
        plain = isinstance(value, str) and "\0" not in value and not any("\ud800" <= char <= "\udfff" for char in value)
        return plain and len(value) >= schema.get("minLength", 0) and "pattern" not in schema
    if kind in ("integer", "number"):
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        fits = is_number and abs(value) <= 2**53 and (kind == "number" or float(value).is_integer())
        return fits and not (
            value < schema.get("minimum", value)
            or value > schema.get("maximum", value)
            or value <= schema.get("exclusiveMinimum", -math.inf)
            or value >= schema.get("exclusiveMaximum", math.inf)
        )
    if kind == "boolean":
        return isinstance(value, bool)
    if kind == "array":
        return value == [] and schema.get("minItems", 0) == 0
    is_free = bool(schema.get("additionalProperties"))
    return kind == "object" and isinstance(value, dict) and (is_free or (value == {} and not schema.get("required")))
