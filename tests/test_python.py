"""The package as Python users meet it: its names, how results print, what they tabulate."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import onnxmorph
from exported import exported
from onnxmorph import Analysis, Structure, analyze, shrink
from onnxmorph.structure import Kept
from tiny import convnet, deep, mlp

DOCUMENT = (Path(__file__).parents[1] / "docs" / "python.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    return analyze(deep(30))


# -- the names -----------------------------------------------------------------------------------


def test_the_public_names() -> None:
    assert set(onnxmorph.__all__) == {
        *("analyze", "Analysis", "Structure", "Budget", "Bounds", "shrink", "expand", "scale", "verify", "Morphed"),
        *("Verification", "diff", "Difference", "morph", "Plan", "Round", "Trained", "Run", "OnnxMorphError"),
    }
    assert set(onnxmorph.__all__) <= set(dir(onnxmorph))
    for name in onnxmorph.__all__:
        assert f"`{name}`" in re.sub(r"`(\w+)(?:, |`)", r"`\1` `", DOCUMENT), f"{name} is not in docs/python.md"


def test_what_the_document_shows_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ir.save(exported("resnet").model, tmp_path / "model.onnx")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    blocks = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        exec(block, names)
    assert repr(names["analysis"]) in DOCUMENT
    assert names["flops"].after < names["flops"].before and names["narrower"]


# -- how results print ---------------------------------------------------------------------------


def test_an_analysis_prints_itself(analysis: Analysis) -> None:
    assert repr(analysis) == "<Analysis of model: 31 ops, 30 channel groups of 960 channels>"
    text = str(analysis)
    assert text.startswith("model: 31 ops, 30 channel groups of 960 channels\n\nCosts\n")
    assert "w1:0" in text and "18 more rows: to_records" in text and "graph-output" in text
    assert max(map(len, text.splitlines())) <= 80


def test_a_structure_prints_itself(analysis: Analysis) -> None:
    small = shrink(analysis, budget="flops=50%")
    kept = sum(small.structure.widths)
    heading = f"{small.structure.model}: {kept} of 960 channels in 30 groups, shrink by magnitude"
    assert repr(small.structure) == f"<Structure of {heading}>" and repr(small) == f"<Morphed by {small.structure!r}>"
    text = str(small.structure)
    assert text.startswith(heading) and "of before" in text and "kept" in text
    costs = small.structure.costs
    assert f"{costs['after']['flops'] / costs['before']['flops']:.1%}" in text
    assert str(small).startswith(text)


def test_a_structure_of_another_program_prints_itself() -> None:
    bare = Structure("m", (Kept("a:0", 4, (0, 2)), Kept("b:0", 2, ())), {}, {})
    assert repr(bare) == "<Structure of m: 2 of 6 channels in 2 groups>"
    lines = str(bare).splitlines()
    assert lines[-2].split() == ["b:0", "2", "0", "0.0%"] and lines[-1].split() == ["a:0", "4", "2", "50.0%"]


def test_what_stays_whole_prints_itself() -> None:
    assert "Channel groups" not in str(analyze(deep(0)))


class Tags(HTMLParser):
    """Checks that tags are closed in order, and collects the text and the styles."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.text = ""
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += f"{data} " if "style" not in self.open else ""


def test_results_render_in_notebooks(analysis: Analysis) -> None:
    small = shrink(analysis, budget="flops=50%")
    for each in (analysis, small.structure, small):
        html = each._repr_html_()
        found = Tags(html)
        assert found.seen.count("table") >= 2 and re.search(r"w\d+:0", str(each)) and re.search(r"w\d+:0", found.text)
        style = html.partition("<style>")[2].partition("</style>")[0]
        assert not re.search(r"#[0-9a-f]{3}|rgb|black|white|grey|gray", style)  # the page's colours, light or dark
        assert "inherit" in style and "script" not in found.seen


def test_names_from_files_are_escaped() -> None:
    proto = mlp()
    evil = "<script>alert('x')</script>\x1b[31m&\n"
    for name in (proto.graph.initializer[0], proto.graph.node[0].input):
        if isinstance(name, onnx.TensorProto):
            name.name = evil
        else:
            name[1] = evil
    analysis = analyze(proto)
    assert analysis.groups[0].id.startswith(evil)
    structure = shrink(analysis, budget="params=60%").structure
    for each in (analysis, structure):
        found = Tags(each._repr_html_())
        assert "script" not in found.seen and "<script>alert('x')</script>" in found.text
        assert "\x1b" not in str(each) + each._repr_html_() and "\\x1b[31m" in str(each)


# -- what they tabulate --------------------------------------------------------------------------


@pytest.mark.parametrize("of", ["groups", "ops", "layers", "parameters", "fixed"])
def test_records_of_an_analysis_are_flat_and_alike(of: Any) -> None:
    check(analyze(convnet()).to_records(of))


@pytest.mark.parametrize("of", ["groups", "parameters"])
def test_records_of_a_structure_are_flat_and_alike(of: Any) -> None:
    check(shrink(convnet(), budget="flops=70%").structure.to_records(of))


def check(rows: list[dict[str, Any]]) -> None:
    assert rows and all(row.keys() == rows[0].keys() for row in rows)
    assert {type(value) for row in rows for value in row.values()} <= {str, int, float, bool, type(None)}


def test_records_say_what_the_analysis_says() -> None:
    analysis = analyze(convnet())
    groups, ops, layers, axes, fixed = map(analysis.to_records, ("groups", "ops", "layers", "parameters", "fixed"))
    assert [(row["group"], row["width"], row["axes"]) for row in groups] == [
        (g.id, g.width, len(g.members)) for g in analysis.groups
    ]
    for name, cost in analysis.costs.items():
        np.testing.assert_allclose([row[name] for row in groups], cost.gradient(analysis.widths))
    for name in analysis.op_costs:
        assert sum(row[name] for row in ops) == analysis.count()[name]
    assert sum(row["params"] for row in layers) == analysis.count()["params"]
    first = layers[0]
    assert (first["parameter"], first["shape"], first["groups"], first["channels"]) == ("k1", "16×3×3×3", "k1:0", 16)
    by_axis = {(row["tensor"], row["axis"]): row for row in axes}
    assert by_axis["k1", 0]["groups"] == "k1:0" and by_axis["k1", 0]["stays"] is None
    assert by_axis["k1", 1]["groups"] == "" and by_axis["k1", 1]["stays"] == "graph-input"
    assert len(fixed) == sum(row["stays"] is not None for row in axes) == len(analysis.fixed)


def test_records_of_a_structure_say_what_lives() -> None:
    structure = shrink(convnet(), budget="flops=70%").structure
    assert [row["kept"] for row in structure.to_records()] == structure.widths.tolist()
    kept = {(row["tensor"], row["axis"]): row["kept"] for row in structure.to_records("parameters")}
    assert kept == {(n, axis): len(live) for n, axes in structure.parameters.items() for axis, live in axes.items()}


@pytest.mark.parametrize("of", [analyze(mlp()), Structure("m", (), {}, {})])
def test_records_of_something_else(of: Any) -> None:
    with pytest.raises(ValueError, match="no records of 'nodes'; there are groups"):
        of.to_records("nodes")
