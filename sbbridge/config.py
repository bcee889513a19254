"""Frozen dataclasses as configurations: strict parsing, full writing, overrides by path, digests, column types.

A frozen dataclass is both the mathematical object and its configuration. A choice among several is written
`{"kind": …}`. Unknown keys, wrong types and impossible values raise `ConfigurationError`, which names the field and
what is allowed. This module knows pydantic, so that no other has to.
"""

import dataclasses
import functools
import hashlib
import json
import math
import types
import typing
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any, TypeVar

import pydantic
import yaml

T = TypeVar("T")


class ConfigurationError(ValueError):
    """A configuration that cannot be used; the message is one line that names the field and what is allowed."""


class Forbid:
    """Base of configurations: keys that are not fields are errors, not noise."""

    __pydantic_config__ = pydantic.ConfigDict(extra="forbid", allow_inf_nan=False)


def require(condition: bool, message: str) -> None:
    """Raises ValueError(message) unless the condition holds; for `__post_init__`."""
    if not condition:
        raise ValueError(message)


def require_finite(config: Any) -> None:
    """Raises ValueError where a number of this dataclass is NaN or infinite; for `__post_init__`."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        require(not isinstance(value, float) or math.isfinite(value), f"{field.name} must be finite, got {value}")


def parse(type_: Any, data: Mapping[str, Any]) -> Any:
    """The object of this type that the data describe.

    Raises:
        ConfigurationError: an unknown key, a wrong type or an impossible value.
    """
    try:
        text = json.dumps(data)
    except (TypeError, ValueError, RecursionError) as error:  # a date, bytes, a set, a key that is no word
        reason = " ".join(str(error).split())
        raise ConfigurationError(f"configuration: {reason} (allowed: numbers, words, true, false, null, lists, "
                                 "trees of them)") from None  # fmt: skip
    try:
        return _adapter(type_).validate_json(text, strict=True)
    except pydantic.ValidationError as error:
        raise ConfigurationError(_one_line(type_, error.errors()[0])) from None


def dump(config: Any) -> dict[str, Any]:
    """The whole configuration as plain JSON data, defaults included."""
    kind: Any = type(config)
    result: dict[str, Any] = _adapter(kind).dump_python(config, mode="json")
    return result


def digest(data: Any) -> str:
    """Twelve hexadecimal digits that identify a configuration (SHA-256 of its canonical JSON)."""
    tree = dump(data) if dataclasses.is_dataclass(data) else data
    return hashlib.sha256(json.dumps(tree, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:12]


def override(tree: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of the tree with values replaced by path; a changed `kind` starts its branch afresh.

    Raises:
        ConfigurationError: a path leads through something that is not a branch.
    """
    result: dict[str, Any] = json.loads(json.dumps(tree))
    for path in sorted(changes, key=_level):
        *parents, leaf = path.split(".")
        branch = result
        for depth, key in enumerate(parents):
            if not isinstance(branch.get(key), dict):
                allowed = ", ".join(k for k, v in branch.items() if isinstance(v, dict))
                raise ConfigurationError(f"{_named(parents[: depth + 1])}: no such branch (allowed: {allowed})")
            branch = branch[key]
        if leaf == "kind" and branch.get("kind") != changes[path]:
            branch.clear()
        branch[leaf] = deepcopy(changes[path])
    return result


def _level(path: str) -> tuple[int, bool]:
    """Outer branches come first, a branch before its kind, which decides what other keys it may have."""
    parts = path.split(".")
    is_kind = parts[-1] == "kind"
    return len(parts) - is_kind, is_kind


def parse_assignments(assignments: Sequence[str]) -> dict[str, Any]:
    """`["reference.beta_max=4", …]` as {path: value}; values are read as YAML scalars or lists.

    Raises:
        ConfigurationError: a text is no assignment, or its value nothing that a configuration can hold.
    """
    changes = {}
    for text in assignments:
        path, separator, value = text.partition("=")
        if not separator or not path:
            raise ConfigurationError(f"--set {text!r}: expected key=value, e.g. reference.beta_max=4")
        try:
            changes[path.strip()] = read = _number_or_same(yaml.safe_load(value))
            json.dumps(read)
        except (yaml.YAMLError, TypeError, ValueError, RecursionError):  # 2020-13-45, a date, a set, too many digits
            raise ConfigurationError(f"--set {text!r}: the value is not a number, word or list") from None
    return changes


def _number_or_same(value: Any) -> Any:
    """YAML reads 1e-3, without a point, as a word."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def columns(type_: Any) -> dict[str, str]:
    """{path: double | int64 | string | bool} for every leaf that a configuration of this type can have."""
    result: dict[str, str] = {}
    for variant in _variants(type_):
        for name, annotation in typing.get_type_hints(variant).items():
            if name.startswith("__"):
                continue
            if any(dataclasses.is_dataclass(v) for v in _variants(annotation)):
                result |= {f"{name}.{path}": kind for path, kind in columns(annotation).items()}
            else:
                kind = _column_kind(annotation)
                # the same name may be an integer in one variant and a float in another
                result[name] = kind if result.get(name, kind) == kind else "double"
    return result


@functools.cache
def _adapter(type_: Any) -> pydantic.TypeAdapter[Any]:
    return pydantic.TypeAdapter(type_)


def _variants(annotation: Any) -> list[Any]:
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _variants(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return [v for a in typing.get_args(annotation) if a is not type(None) for v in _variants(a)]
    return [annotation]


def _column_kind(annotation: Any) -> str:
    kinds = set()
    for variant in _variants(annotation):
        if typing.get_origin(variant) is typing.Literal:
            kinds.add("string")
        else:
            kinds.add({bool: "bool", int: "int64", float: "double"}.get(variant, "string"))
    return kinds.pop() if len(kinds) == 1 else ("double" if kinds <= {"int64", "double"} else "string")


def _one_line(type_: Any, error: Any) -> str:
    location, variants, path = error["loc"], _variants(type_), []
    for key in location:
        tagged = [v for v in variants if dataclasses.is_dataclass(v) and _kind_of(v) == key]
        if len(variants) > 1 and tagged:  # pydantic puts the chosen kind into the location
            variants = tagged
            continue
        path.append(str(key))
        if error["type"] in ("unexpected_keyword_argument", "extra_forbidden") and key == location[-1]:
            break
        hints = [typing.get_type_hints(v).get(key) for v in variants if dataclasses.is_dataclass(v)]
        variants = [v for hint in hints if hint is not None for v in _variants(hint)]
    name = _named(path) if path else "configuration"
    if error["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        allowed = sorted({f.name for v in variants if dataclasses.is_dataclass(v) for f in dataclasses.fields(v)})
        return f"{name}: unknown key (allowed: {', '.join(allowed)})"
    if error["type"] == "union_tag_invalid":
        return f"{name}.kind: {error['ctx']['tag']!r} is unknown (allowed: {error['ctx']['expected_tags']})"
    message = error["msg"].removeprefix("Value error, ")
    given = error.get("input")
    suffix = "" if isinstance(given, dict | list) or error["type"] == "value_error" else f" (got {given!r})"
    return " ".join(f"{name}: {message}{suffix}".split())


def _named(path: Sequence[str]) -> str:
    """A path as it is shown; keys that nobody could read are quoted."""
    return ".".join(key if key.strip() and key.isprintable() else repr(key) for key in path)


def _kind_of(variant: Any) -> str | None:
    for field in dataclasses.fields(variant):
        if field.name == "kind":
            return str(field.default)
    return None
