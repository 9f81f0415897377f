"""What every JSON document begins with: which schema it follows, in which version.

The schemas are in ``onnxmorph/schemas``. A field more leaves a version as it is; a field less, or another meaning, is a
new one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Document = dict[str, Any]

VERSIONS = {
    "analyze": 1,
    "calibrate": 1,
    "demo": 1,
    "diff": 1,
    "error": 1,
    "explain": 1,
    "groups": 1,
    "latency": 1,
    "morph": 1,
    "morphed": 1,
    "report": 1,
    "sweep": 1,
    "verify": 1,
}


def document(name: str, fields: Mapping[str, Any]) -> Document:
    """A document that names its schema.

    >>> document("verify", {"ok": True})
    {'schema': 'onnxmorph/verify/1', 'ok': True}
    """
    return {"schema": f"onnxmorph/{name}/{VERSIONS[name]}", **fields}
