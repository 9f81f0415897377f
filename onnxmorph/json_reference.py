"""docs/json.md, made from the JSON Schemas: ``python -m onnxmorph.json_reference > docs/json.md``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from importlib.resources import files
from typing import Any

from onnxmorph.report import VERSIONS

Schema = Mapping[str, Any]

HEAD = """# JSON for programs

Made by `python -m onnxmorph.json_reference > docs/json.md`.

Every command prints one JSON object on stdout when it is given `--json`, and nothing else there. Each names its schema,
`"schema": "onnxmorph/NAME/VERSION"`, and what is described here is shipped with the package as a JSON Schema (draft
2020-12), `onnxmorph/schemas/NAME.json`:

```python
import json
from importlib.resources import files

schema = json.loads(files("onnxmorph.schemas").joinpath("verify.json").read_text(encoding="utf-8"))
```

A version stays while fields are added, so that programs should pass over fields they do not know. A field that goes, or
comes to mean something else, makes a new version. Costs are numbers by name: latencies in seconds, `*_bytes`,
`bytes_moved` and `peak_memory` in bytes, the others are counts. The files that onnxmorph writes have versions of their
own: [structure.md](structure.md), [devices.md](devices.md)."""


def schema(name: str) -> Schema:
    """The schema of a document."""
    found = json.loads(files("onnxmorph.schemas").joinpath(f"{name}.json").read_text(encoding="utf-8"))
    return found  # type: ignore[no-any-return] # an object, as a test holds


def reference() -> str:
    """The reference as Markdown."""
    return "\n\n".join([HEAD, *map(_section, VERSIONS)]) + "\n"


def _section(name: str) -> str:
    found = schema(name)
    rows = "\n".join(f"| `{path}` | {kind} | {about} |" for path, kind, about in _fields(found, "", found))
    return f"## {name}\n\n`onnxmorph/{name}/{VERSIONS[name]}`: {found['title']}\n\n| | | |\n|---|---|---|\n{rows}"


def _fields(of: Schema, path: str, root: Schema) -> Iterator[tuple[str, str, str]]:
    """Every field below `of`: its path, its type, what it means."""
    of = _followed(of, root)
    required = of.get("required", ())
    for key, each in of.get("properties", {}).items():
        inner = _followed(each, root)
        optional = "" if key in required else ", optional"
        yield f"{path}{key}", _kind(inner) + optional, each.get("description", inner.get("description", ""))
        yield from _fields(each, f"{path}{key}.", root)
    within = of.get("additionalProperties")
    if isinstance(within, dict) and _followed(within, root).get("properties"):
        yield from _fields(within, f"{path}*.", root)
    if isinstance(of.get("items"), dict):
        yield from _fields(of["items"], f"{path.removesuffix('.')}[].", root)


def _followed(of: Schema, root: Schema) -> Schema:
    """What a reference within the schema stands for; one to another schema stays."""
    at = of.get("$ref", "")
    return root["$defs"][at.rpartition("/")[2]] if at.startswith("#/$defs/") else of


def _kind(of: Schema) -> str:
    """The type of a value as people write it."""
    if "const" in of:
        return f"`{of['const']}`"
    if "enum" in of:
        return " or ".join(f"`{each}`" for each in of["enum"])
    if "anyOf" in of:
        return " or ".join(map(_kind, of["anyOf"]))
    if "$ref" in of:
        return f"a document, `{of['$ref'].split(':')[2]}`"
    kinds = of.get("type", "any")
    if isinstance(kinds, list):
        return " or ".join(_kind({**of, "type": kind}) for kind in kinds)
    if kinds == "array" and "prefixItems" in of:
        return "array of " + " and ".join(map(_kind, of["prefixItems"]))
    if kinds == "array" and of["items"].get("type") != "object":
        return f"array of {_kind(of['items'])}"
    return str(kinds)


if __name__ == "__main__":
    print(reference(), end="")
