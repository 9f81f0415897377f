"""docs/diagnostics.md describes every code that the package can give, and no other."""

from __future__ import annotations

import ast
import pickle
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import onnxmorph
from onnxmorph.errors import TopologyError

ROOT = Path(onnxmorph.__file__).parents[1]
DOCUMENT = ROOT / "docs" / "diagnostics.md"
SOURCES = [p for folder in ("onnxmorph", "converters") for p in sorted((ROOT / folder).rglob("*.py"))]

# Calls that state a reason for staying, and which of their arguments is the code.
STATES = {"add": 0, "refuse": 0, "fixed": 1, "hold": 1, "fix": 1}
CODE = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
NO_REASON = {"free"}  # what the table of reasons calls number 0


def written(tree: ast.AST) -> Iterator[str]:
    """The codes in ``…Error(…, code="…")`` and in calls that give a reason."""
    for call in ast.walk(tree):
        if not isinstance(call, ast.Call):
            continue
        name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        given = [k.value for k in call.keywords if k.arg == "code"]
        if name in STATES and len(call.args) > STATES[name] + 1:
            given += call.args[STATES[name] :]  # a node may come first: refuse(node, code, reason)
        texts = [each.value for each in given if isinstance(each, ast.Constant) and isinstance(each.value, str)]
        if texts and CODE.fullmatch(texts[0]):
            yield texts[0]


def codes() -> set[str]:
    found = {c for path in SOURCES for c in written(ast.parse(path.read_text(encoding="utf-8")))}
    return found - NO_REASON


def described() -> list[str]:
    return re.findall(r"^\| `([a-z0-9-]+)` \|", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)


def test_every_code_is_described_and_none_that_is_not_there() -> None:
    assert set(described()) == codes(), "add a row to docs/diagnostics.md, or take one out"


def test_no_code_is_described_twice() -> None:
    found = described()
    assert len(found) == len(set(found)) > 40


def test_every_row_says_what_it_means_and_what_to_do() -> None:
    rows = [line for line in DOCUMENT.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    for row in rows:
        cells = [c.strip() for c in row.strip("|").split("|")]
        assert len(cells) == 3 and all(cells), row


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ('raise ModelError("text", code="a-b")', {"a-b"}),
        ('refuse("dynamic", "its axes")', {"dynamic"}),
        ('return self.refuse(node, "unknown-op", "no rule", rule)', {"unknown-op"}),
        ('self.reasons.add("tied", f"{node} ties", at)', {"tied"}),
        ('self.fix(labels, "value", f"{node}")', {"value"}),
        ('fixed("A B", "random", "draws", Cost("a"))', {"random"}),
        ('found.hold(name, "positions", f"{node}")', {"positions"}),
        ("raise ModelError(text, code=e.code)", set()),
        ('names.add("x")', set()),
        ('refuse(code, "a reason")', set()),
    ],
)
def test_codes_are_found_wherever_they_are_stated(source: str, found: set[str]) -> None:
    assert set(written(ast.parse(source))) == found


def test_errors_reach_another_process_whole() -> None:
    error = TopologyError("what to do", code="topology", groups=("a", "b"))
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is TopologyError
    assert (str(again), again.code, again.groups) == ("what to do", "topology", ("a", "b"))
