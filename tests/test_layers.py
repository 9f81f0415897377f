"""Imports run one way, and no deep-learning framework is loaded on the way."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import onnxmorph

PACKAGE = Path(onnxmorph.__file__).parent
TRAINERS = {"lightning", "transformers", "accelerate"}
FRAMEWORKS = {"torch", "tensorflow", "tf2onnx", "keras", "jax", "flax", "paddle", "mxnet", "sklearn", *TRAINERS}

# Each layer may import the layers above it in this list, and itself where it is a package.
LAYERS = """
errors devices formats words progress schemas
display
files reading
axes polynomial arithmetic
notation positions graph
rules weights
bodies kinds
infer scopes
external
checks sparse states view
model
propagate
buffers grouping
cost
memory walk
bounds groups
records
analysis
quantised
budget structure importance graphs latency
differences widths
search knapsack magnitudes schedule worth
saliency
penalty blocks
controller
surgery ties
visited functions rounds
algorithm
sweeps
trials
channel_map
training
calibration
alive explain
diagram
report
adapters
cli
__main__ cli_reference json_reference ops_reference
""".strip().splitlines()
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names.split()}


def modules() -> list[Path]:
    return [p for p in sorted(PACKAGE.rglob("*.py")) if p != PACKAGE / "__init__.py"]


def layer_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """The dotted names that a file imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def own(path: Path) -> set[str]:
    """The layers of this package that a file imports."""
    found = {name.split(".")[1] for name in imported(path) if name.startswith("onnxmorph.")}
    return found - set(onnxmorph.__all__) - {"__version__", "converters"}


def test_every_module_has_a_layer() -> None:
    assert {layer_of(path) for path in modules()} == set(LEVEL)


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_run_one_way(path: Path) -> None:
    mine = layer_of(path)
    package = (PACKAGE / mine).is_dir()
    against = {name for name in own(path) if LEVEL[name] >= LEVEL[mine] and not (package and name == mine)}
    assert not against, f"{mine} imports {against}"


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_only_the_demo_command_reads_an_adapter(path: Path) -> None:
    if layer_of(path) == "adapters":
        return
    readers = {name for name in imported(path) if name.startswith(("onnxmorph.adapters", "onnxmorph.converters"))}
    assert readers <= ({"onnxmorph.adapters.demo"} if layer_of(path) == "cli" else set())


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_frameworks_are_imported_by_adapters_only(path: Path) -> None:
    if layer_of(path) != "adapters":
        assert not FRAMEWORKS & {name.split(".")[0] for name in imported(path)}


def test_every_exported_name_resolves() -> None:
    assert sorted(onnxmorph.__all__) == sorted(set(onnxmorph.__all__))
    for name in onnxmorph.__all__:
        assert getattr(onnxmorph, name).__name__ == name


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        onnxmorph.nonsense  # noqa: B018 - the access is the test


def loaded(code: str) -> set[str]:
    """The top-level packages that are loaded after `code`."""
    script = f"{code}\nimport sys; print(*{{name.split('.')[0] for name in sys.modules}})"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    return set(result.stdout.split())


def test_import_loads_no_framework() -> None:
    names = ", ".join(onnxmorph.__all__)
    assert not FRAMEWORKS & loaded(f"import onnxmorph\nfrom onnxmorph import {names}")
    assert "onnx" not in loaded("import onnxmorph")


def test_help_loads_neither_onnx_nor_a_framework() -> None:
    found = loaded("from onnxmorph.cli import run\nassert run(['--help']) == 0 and run(['shrink', '--help']) == 0")
    assert not (FRAMEWORKS | {"onnx", "onnx_ir", "onnxruntime", "networkx", "numpy"}) & found


# -- op types ------------------------------------------------------------------------------------

# The rule table, and the loader: whoever else looks at the type of an op knows what its rule should say.
KNOW_OPS = {
    "rules", "model", "view", "infer", "arithmetic", "checks", "external", "bodies", "scopes", "sparse", "states",
}  # fmt: skip
TYPE = ("type", "op_type")
LOOK_UP = ("get", "pop", "setdefault", "startswith", "endswith", "index", "count")


def op_types(tree: ast.AST) -> set[str]:
    """Names of variables that are assigned the type of an op."""
    return {
        target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign | ast.NamedExpr) and node.value is not None and is_type(node.value, set())
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    }


def is_type(node: ast.AST, names: set[str]) -> bool:
    """Whether an expression is the type of an op, or a tuple with one."""
    if isinstance(node, ast.Tuple):
        return any(is_type(each, names) for each in node.elts)
    if isinstance(node, ast.NamedExpr):
        return is_type(node.value, names)
    return (isinstance(node, ast.Attribute) and node.attr in TYPE) or (isinstance(node, ast.Name) and node.id in names)


def decisions(source: str) -> list[int]:
    """The lines that compare the type of an op with anything but None, or look something up by it."""
    tree, found = ast.parse(source), []
    names = op_types(tree)
    for node in ast.walk(tree):
        looks: list[ast.AST] = []
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            if not any(isinstance(side, ast.Constant) and side.value is None for side in sides):
                looks = list(sides)
        elif isinstance(node, ast.Subscript):
            looks = [node.slice]
        elif isinstance(node, ast.Match):
            looks = [node.subject]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LOOK_UP:
            looks = [node.func.value, *node.args]
        found += [node.lineno for each in looks if is_type(each, names)]
    return sorted(found)


def the_table_is_read(path: Path) -> int:
    """How often a module looks an op up in the rule table, which is what the table is for."""
    return path.read_text(encoding="utf-8").count("TABLE.get(") if layer_of(path) == "walk" else 0


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_only_rules_and_the_loader_know_ops(path: Path) -> None:
    if layer_of(path) not in KNOW_OPS:
        assert len(decisions(path.read_text(encoding="utf-8"))) == the_table_is_read(path)


@pytest.mark.parametrize(
    "source",
    [
        "node.type == 'Conv'",
        "'Conv' != plan.node.op_type",
        "node.type in ('Conv', 'Gemm')",
        "node.op_type not in CONVS",
        "WIDTHS[node.type]",
        "WIDTHS.get(plan.node.type, 3)",
        "WIDTHS[node.domain, node.type]",
        "kind = node.type\nif kind == 'Conv': pass",
        "if (kind := node.type) in CONVS: pass",
        "match node.type:\n    case 'Conv': pass",
        "node.type.startswith('Global')",
    ],
)
def test_looking_at_the_type_of_an_op_is_found(source: str) -> None:
    assert len(decisions(source)) == 1
