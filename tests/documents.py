"""JSON that the program prints, held against its schema; fields that no schema lists are errors here."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from onnxmorph.json_reference import schema
from onnxmorph.report import VERSIONS


def strict(of: Any) -> Any:
    """The schema, without room for fields it does not list."""
    if isinstance(of, list):
        return [strict(each) for each in of]
    if not isinstance(of, dict):
        return of
    closed = {"additionalProperties": False} if isinstance(of.get("properties"), dict) and "type" in of else {}
    return {**closed, **{key: strict(each) for key, each in of.items()}}


@cache
def validator(name: str) -> Draft202012Validator:
    schemas = [strict(schema(each)) for each in VERSIONS]
    registry = Registry().with_resources([(each["$id"], Resource.from_contents(each)) for each in schemas])
    return Draft202012Validator(strict(schema(name)), registry=registry)


def read(text: str, name: str | None = None) -> dict[str, Any]:
    """The document in `text`, which follows its schema, the one of that name if one is given."""
    found = json.loads(text)
    _, kind, version = found["schema"].split("/")
    assert name in (None, kind) and VERSIONS[kind] == int(version)
    validator(kind).validate(found)
    return dict(found)
