"""Files from strangers: where weights may lie, what is too much, which place in a document is wrong, and no pickle."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

import onnxmorph
from onnxmorph import Structure, analyze, axes, checks, expand, shrink
from onnxmorph.algorithm import begin
from onnxmorph.errors import DeviceError, ModelError, OnnxMorphError, RunError, StructureError
from onnxmorph.importance import load_gradients
from onnxmorph.latency import load
from onnxmorph.rounds import Plan
from onnxmorph.visited import visited
from tiny import MLP, integers, mlp, model, node, save, value, weight

ROOT = Path(onnxmorph.__file__).parents[1]

# -- weights beside the model ----------------------------------------------------------------------


def beside(location: str, *, offset: int = 0, length: int | None = 128) -> onnx.ModelProto:
    """The MLP, whose first weight is in a file."""
    tensor = TensorProto(name="a", data_type=TensorProto.FLOAT, dims=[4, 8], data_location=TensorProto.EXTERNAL)
    entries = {"location": location, "offset": str(offset), **({} if length is None else {"length": str(length)})}
    for key, entry in entries.items():
        tensor.external_data.add(key=key, value=entry)
    return model(MLP, [tensor, weight("b", 8, 3)])


def refused(path: Path) -> str:
    with pytest.raises(ModelError) as e:
        analyze(path)
    assert e.value.code == "model-external"
    return str(e.value)


CONTENT = np.arange(64, dtype=np.float32)


@pytest.mark.parametrize("length", [128, None])
def test_a_tensor_is_read_from_its_place_in_the_file(length: int | None, tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(CONTENT.tobytes())
    path = save(beside("w.bin", offset=16, length=length), tmp_path / "m.onnx")
    np.testing.assert_array_equal(analyze(path).graph.weights("a"), CONTENT[4:36].reshape(4, 8))


@pytest.mark.parametrize(
    ("offset", "length", "what"),
    [
        (0, 127, "read for 127 bytes where the shape needs 128"),
        (0, 132, "read for 132 bytes where the shape needs 128"),
        (0, 2**62, "where the shape needs 128"),
        (132, 128, "cut short: it has 256 bytes, and 128 are wanted from 132 on"),
        (2**62, 128, "cut short"),
    ],
)
def test_the_length_has_to_be_that_of_the_shape(offset: int, length: int, what: str, tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(CONTENT.tobytes())
    assert what in refused(save(beside("w.bin", offset=offset, length=length), tmp_path / "m.onnx"))


@pytest.mark.parametrize("where", ["..\\secret.bin", "sub\\w.bin", "C:\\w.bin", "C:w.bin", "\\\\host\\share\\w.bin"])
def test_paths_of_windows_are_refused_everywhere(where: str, tmp_path: Path) -> None:
    (tmp_path / where).write_bytes(CONTENT.tobytes())  # a plain name on other systems
    assert "with forward slashes" in refused(save(beside(where), tmp_path / "m.onnx"))


def cache(tmp_path: Path, at: str = "w.bin") -> Path:
    """A folder of links into a folder of files by hash, as model hubs keep them; the path of the model."""
    blobs, shown = tmp_path / "blobs", tmp_path / "snapshots" / "main"
    blobs.mkdir()
    shown.mkdir(parents=True)
    save(beside("w.bin"), blobs / "0123")
    (blobs / at).write_bytes(CONTENT.tobytes())
    (shown / "m.onnx").symlink_to(blobs / "0123")
    (shown / "w.bin").symlink_to(blobs / at)
    return shown / "m.onnx"


def test_a_model_that_is_a_link_is_read_with_what_lies_beside_either(tmp_path: Path) -> None:
    path = cache(tmp_path, "4567")
    analysis = analyze(path)
    np.testing.assert_array_equal(analysis.graph.weights("a"), CONTENT[:32].reshape(4, 8))
    shrink(analysis, budget="params=50%").save(tmp_path / "small.onnx")
    assert analyze(tmp_path / "small.onnx").count()["params"] <= analysis.count()["params"] / 2


def test_a_model_that_is_a_link_reads_nothing_from_elsewhere(tmp_path: Path) -> None:
    path = cache(tmp_path)
    (tmp_path / "secret.bin").write_bytes(CONTENT.tobytes())
    (path.parent / "w.bin").unlink()
    (path.parent / "w.bin").symlink_to(tmp_path / "secret.bin")
    assert "outside" in refused(path)


def test_weights_of_functions_are_bound_to_the_folder_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "w.bin").write_bytes(CONTENT.tobytes())
    constant = helper.make_node("Constant", [], ["w"], value=beside("w.bin").graph.initializer[0])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("f", 1)]
    function = helper.make_function("f", "F", ["a"], ["b"], [constant, node("MatMul", "a w", "b")], opsets)
    nodes = [node("F", "x", "r", domain="f"), node("Gemm", "r b", "y")]
    path = save(model(nodes, [weight("b", 8, 3)], domains=["f"], functions=[function]), tmp_path / "model" / "m.onnx")
    monkeypatch.chdir(tmp_path)  # where a relative path would find the file
    assert "missing" in refused(path)


# -- too much --------------------------------------------------------------------------------------


def in_functions(levels: int) -> onnx.ModelProto:
    """Every function holds an If that calls the one before: each is flat, together they are deep."""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("f", 1)]
    functions = [helper.make_function("f", "F0", ["a", "c"], ["b"], [node("Relu", "a", "b")], opsets)]
    for i in range(1, levels):
        result = [onnx.ValueInfoProto(name="o")]
        one = helper.make_graph([node(f"F{i - 1}", "a c", "o", domain="f")], "one", [], result)
        two = helper.make_graph([node("Abs", "a", "o")], "two", [], result)
        choice = node("If", "c", "b", then_branch=one, else_branch=two)
        functions.append(helper.make_function("f", f"F{i}", ["a", "c"], ["b"], [choice], opsets))
    inputs = [value("x", [1, 4]), value("c", [], TensorProto.BOOL)]
    nodes = [node(f"F{levels - 1}", "x c", "y", domain="f")]
    return model(nodes, [], inputs, [value("y", [1, 4])], domains=["f"], functions=functions)


def test_functions_that_nest_without_end_are_refused() -> None:
    analyze(in_functions(checks.MOST_DEPTH // 2))
    with pytest.raises(ModelError, match="64 deep") as e:
        analyze(in_functions(2000))
    assert e.value.code == "model-extent"


def test_functions_that_call_each_other_are_refused() -> None:
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("f", 1)]
    pair = [
        helper.make_function("f", name, ["a"], ["b"], [node(other, "a", "b", domain="f")], opsets)
        for name, other in (("F", "G"), ("G", "F"))
    ]
    with pytest.raises(ModelError) as e:
        analyze(model([node("F", "x", "y", domain="f")], domains=["f"], functions=pair))
    assert e.value.code == "model-functions"


def test_more_nodes_than_can_be_gone_through_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "MOST_NODES", 2)
    with pytest.raises(ModelError, match="more than 2 nodes") as e:
        analyze(mlp())
    assert e.value.code == "model-extent"


@pytest.mark.parametrize("often", [2**60, 2**63 - 1])
def test_a_loop_is_not_gone_through(often: int) -> None:
    body = helper.make_graph(
        [node("Identity", "c", "d"), node("MatMul", "s w", "t")],
        "body",
        [value("i", [], TensorProto.INT64), value("c", [], TensorProto.BOOL), value("s", ["n", 8])],
        [value("d", [], TensorProto.BOOL), value("t", ["n", 8])],
    )
    nodes = [node("Gemm", "x a", "h"), node("Loop", "often go h", "k", body=body), node("Gemm", "k b", "y")]
    weights = [weight("a", 4, 8), weight("w", 8, 8), weight("b", 8, 3)]
    weights += [helper.make_tensor("often", TensorProto.INT64, [], [often]), helper.make_tensor("go", 9, [], [True])]
    analysis = analyze(model(nodes, weights))
    shrink(analysis, budget="params=60%")
    assert any("how often it runs" in note for note in analysis.graph.notes)


def test_a_weight_that_holds_nothing_has_no_channels() -> None:
    none = [TensorProto(name=n, data_type=1, dims=dims) for n, dims in (("e", [2**24, 0]), ("z", [0, 4]))]
    nodes = [node("MatMul", "e z", "m"), node("ReduceSum", "m", "t", keepdims=0), node("Add", "x t", "y")]
    assert analyze(model(nodes, none, outputs=[value("y", ["n", 4])])).channels == 0


def test_axes_together_are_held_as_far_as_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [node("Gemm", f"{'x' if not i else f'h{i}'} w{i}", f"h{i + 1}") for i in range(9)]
    weights = [weight("w0", 4, 64), *(weight(f"w{i}", 64, 64) for i in range(1, 8)), weight("w8", 64, 3)]
    proto = model(nodes, weights, outputs=[value("h9", ["n", 3])])
    assert [g.width for g in analyze(proto).groups] == [64] * 8
    monkeypatch.setattr(axes, "MOST", 500)
    analysis = analyze(proto)
    assert 0 < analysis.channels < 500 and "too-long" in {r.code for r in analysis.trace.reasons}
    shrink(analysis, budget="params=95%")


@pytest.mark.parametrize(("more", "left"), [(100, "Constant"), (2**24, "Pad")])
def test_what_would_be_huge_is_not_worked_out_ahead(more: int, left: str) -> None:
    nodes = [
        node("Gemm", "x a", "h"), node("ReduceSum", "h one", "z"), node("Pad", "z s", "p"),
        node("Softmax", "p", "e", axis=1), node("ReduceMax", "e", "m", axes=[1]), node("Add", "x m", "y"),
    ]  # fmt: skip
    constants = [weight("a", 4, 8), integers("one", 1), integers("s", 0, 0, 0, more)]
    analysis = analyze(model(nodes, constants, [value("x", [1, 4])], [value("y", [1, 4])]))
    copies = np.zeros(analysis.channels + 1, np.int64)
    copies[0] = 1
    ops = {n.op_type for n in shrink(analysis, Structure.of(analysis, copies)).model.graph}
    assert left in ops and "Gemm" not in ops and ("Pad" in ops) == (left == "Pad")


def test_what_costs_nothing_does_not_grow_without_end() -> None:
    nodes, outputs = [node("Mul", "x w", "h"), node("Shape", "h", "y")], [value("y", [3], TensorProto.INT64)]
    proto = model(nodes, [weight("w", 1, 4, 6)], [value("x", ["n", 1, 1])], outputs)
    analysis = analyze(proto)
    assert [g.width for g in analysis.groups] == [4, 6]
    copies = np.array([1, 0, 0, 0, 0, *[1] * 6])  # of the product that is charged nothing is left
    wide = expand(analysis, Structure.of(analysis, copies), "params=120%")
    assert wide.structure.widths.tolist() == [0, 6]


# -- documents -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    found = shrink(mlp(), budget="params=50%").structure.to_json()
    return dict(json.loads(found))


Edit = Callable[[dict[str, Any]], object]
WRONG: dict[str, tuple[Edit, str]] = {
    "version": (lambda d: d.update(version=True), "version: expected a whole number"),
    "no version": (lambda d: d.pop("version"), "version: missing"),
    "model": (lambda d: d.update(model=5), "model: expected a text, found 5"),
    "no groups": (lambda d: d.pop("groups"), "groups: missing; expected a list of groups"),
    "group": (lambda d: d["groups"].append(3), "groups[1]: expected a table, found 3"),
    "id": (lambda d: d["groups"][0].update(id=None), "groups[0].id: expected a text, found None"),
    "width": (lambda d: d["groups"][0].update(width=0), "groups[0].width: expected a whole number from 1 to"),
    "keep": (lambda d: d["groups"][0].update(keep="all"), "groups[0].keep: expected a list of whole numbers"),
    "index": (lambda d: d["groups"][0].update(keep=[0, 8]), "groups[0].keep[1]: expected a whole number from 0 to 7"),
    "huge": (lambda d: d["groups"][0].update(width=10**30), "groups[0].width: expected a whole number from 1 to"),
    "parameters": (lambda d: d.update(parameters=[]), "parameters: expected a table, found []"),
    "axis": (lambda d: d["parameters"]["a"].update(x=[0]), "parameters.a.x: expected the number of an axis"),
    "axis ²": (lambda d: d["parameters"]["a"].update({"²": [0]}), "parameters.a.²: expected the number of an axis"),
    "kept": (lambda d: d["parameters"]["a"].update({"1": [0, -1]}), "parameters.a.1[1]: expected a whole number"),
    "costs": (lambda d: d["costs"].update(after=7), "costs.after: expected a table, found 7"),
    "cost": (lambda d: d["costs"]["after"].update(flops="few"), "costs.after.flops: expected a number"),
    "provenance": (lambda d: d.update(provenance="me"), "provenance: expected a table"),
    "bounds": (lambda d: d.update(bounds={"keep": "a"}), "bounds.keep: expected a list of names, found 'a'"),
    "pattern": (lambda d: d.update(bounds={"keep": ["a", 1]}), "bounds.keep[1]: expected a text, found 1"),
    "number": (lambda d: d.update(bounds={"min_width": {"*": 2**70}}), "bounds: min_width is a whole number from 1 to"),
}


@pytest.mark.parametrize("name", WRONG)
def test_an_error_names_the_place_in_a_structure(name: str, document: dict[str, Any], tmp_path: Path) -> None:
    edit, expected = WRONG[name]
    changed = json.loads(json.dumps(document))
    edit(changed)
    path = tmp_path / "s.json"
    path.write_text(json.dumps(changed))
    with pytest.raises(StructureError) as e:
        Structure.load(path)
    assert e.value.code == "structure" and str(e.value).startswith(f"{path}: ")
    assert expected in str(e.value)


def test_a_structure_is_read_back_as_it_was(document: dict[str, Any]) -> None:
    assert json.loads(Structure.from_json(json.dumps(document)).to_json()) == document


NUMBERS = st.one_of(st.integers(), st.sampled_from([2**31, 2**63, 10**400, -(2**63)]), st.floats())
ANY = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=8)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)),
    max_leaves=8,
)
KEYS = ("version", "model", "groups", "parameters", "costs", "provenance", "bounds")


@settings(deadline=None, max_examples=150)
@given(changes=st.dictionaries(st.sampled_from(KEYS), ANY, min_size=1, max_size=3))
def test_any_document_is_a_structure_or_an_error(changes: dict[str, Any], document: dict[str, Any]) -> None:
    try:
        found = Structure.from_json(json.dumps({**document, **changes}))
    except StructureError as e:
        assert e.code in ("structure", "structure-version")
    else:
        assert Structure.from_json(found.to_json()) == found


@pytest.mark.parametrize("text", ["nan", "1e400", str(10**400), "-1", "true", '"fast"', "[]"])
def test_numbers_of_devices_are_numbers(text: str, tmp_path: Path) -> None:
    path = tmp_path / "d.toml"
    path.write_text(f"version = 1\nbandwidth = {text}\noverhead = 0\n[peak]\nfloat32 = 1e12\n")
    with pytest.raises(DeviceError, match="bandwidth: expected a number from 1 to 1e24"):
        load(path)


def test_coefficients_are_for_what_kernels_have(tmp_path: Path) -> None:
    rates = "overhead = 0.0\nmedian = 0.0\nlargest = 0.0\nspread = 0.0"
    path = tmp_path / "d.toml"
    path.write_text(
        'version = 1\n[measured]\nruntime = "1"\nprovider = "P"\nthreads = 1\nprocessor = "p"\n'
        f'[measured.networks.x]\nname = "n"\nruns = []\n{rates}\n[measured.networks.x.kinds."*"]\nspeed = 1.0\n'
    )
    with pytest.raises(DeviceError, match="have no 'speed'"):
        onnxmorph.latency.costs(analyze(mlp()), load(path))


RUN: dict[str, tuple[str, Edit]] = {
    "round": ("provenance.round", lambda d: d["provenance"].update(round="one")),
    "no round": ("provenance.round", lambda d: d["provenance"].pop("round")),
    "metric": ("provenance.metric", lambda d: d["provenance"].update(metric=[1])),
    "no costs": ("costs.after", lambda d: d["costs"].pop("after")),
}


@pytest.mark.parametrize("name", RUN)
def test_an_error_names_the_place_in_the_folder_of_a_run(name: str, document: dict[str, Any], tmp_path: Path) -> None:
    place, edit = RUN[name]
    changed = json.loads(json.dumps({**document, "provenance": {"round": 1, "metric": 0.5}}))
    path = tmp_path / "round-1" / "shrunk.json"
    path.parent.mkdir()
    path.write_text(json.dumps(changed))
    assert [each.round for each in visited(tmp_path, ["flops"])] == [1]
    edit(changed)
    path.write_text(json.dumps(changed))
    with pytest.raises(RunError) as e:
        visited(tmp_path, ["flops"])
    assert e.value.code == "run-file" and f"{path}: {place}: " in str(e.value)


@pytest.mark.parametrize("text", ["", "[" * 100_000, "[1]", '{"version": 1', "null"])
def test_the_folder_of_a_run_without_a_document(text: str, tmp_path: Path) -> None:
    begin(tmp_path, mlp(), Plan())
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(RunError):
        begin(tmp_path, mlp(), Plan())


# -- no pickle, no code ----------------------------------------------------------------------------

PICKLES = {"pickle", "cPickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "yaml"}
READERS = {"numpy.load": "allow_pickle", "np.load": "allow_pickle", "torch.load": "weights_only"}
SAFE = {"allow_pickle": False, "weights_only": True}
RUNS = {"eval", "exec", "register_custom_ops_library"}
LOADS_CODE = {"functions.py"}  # of the user's own train function, which is what it is for
SOURCES = [p for folder in ("onnxmorph", "converters", "benchmarks", "examples") for p in (ROOT / folder).rglob("*.py")]


def unsafe(source: str) -> Iterator[str]:
    """What could run code that a file holds."""
    for each in ast.walk(ast.parse(source)):
        if isinstance(each, ast.Import | ast.ImportFrom):
            names = [a.name for a in each.names] if isinstance(each, ast.Import) else [each.module or ""]
            yield from (n for n in names if n.split(".")[0] in PICKLES)
        if not isinstance(each, ast.Call):
            continue
        called = ast.unparse(each.func)
        if called in RUNS or called.rpartition(".")[2] in RUNS - {"eval", "exec"}:
            yield called
        if called.endswith(("spec_from_file_location", "run_path", "exec_module")):
            yield "module"
        option = READERS.get(called)
        given = {k.arg: k.value.value for k in each.keywords if isinstance(k.value, ast.Constant)}
        if option is not None and given.get(option) is not SAFE[option]:
            yield called


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_file_is_unpickled_or_run(path: Path) -> None:
    found = set(unsafe(path.read_text(encoding="utf-8")))
    assert found <= ({"module"} if path.name in LOADS_CODE else set())


@pytest.mark.parametrize(
    "source",
    [
        "import pickle", "from pickle import loads", "import joblib", "np.load(p)", "np.load(p, allow_pickle=True)",
        "numpy.load(p, allow_pickle=x)", "torch.load(p)", "torch.load(p, weights_only=False)", "eval(text)",
        "options.register_custom_ops_library(path)",
    ],
)  # fmt: skip
def test_what_is_unsafe_is_found(source: str) -> None:
    assert list(unsafe(source))


def test_analysis_loads_no_runtime(tmp_path: Path) -> None:
    path = save(mlp(), tmp_path / "m.onnx")
    script = f"import onnxmorph, sys; onnxmorph.analyze({str(path)!r}); assert 'onnxruntime' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


@pytest.mark.parametrize("at", [6, 8])  # flags: encrypted; a version or method of zip that nobody has
def test_an_archive_of_another_kind_holds_no_gradients(at: int, tmp_path: Path) -> None:
    path = tmp_path / "g.npz"
    np.savez(path, a=np.ones(3))
    content = bytearray(path.read_bytes())
    directory = content.rindex(b"PK\1\2")
    content[directory + at : directory + at + 2] = b"\x56\x01"
    path.write_bytes(content)
    with pytest.raises(OnnxMorphError) as e:
        load_gradients(path)
    assert e.value.code == "gradients-file"


def test_gradients_are_no_pickles(tmp_path: Path) -> None:
    path = tmp_path / "g.npz"
    np.savez(path, a=np.array([Path("x")], object))
    with pytest.raises(OnnxMorphError) as e:
        load_gradients(path)
    assert e.value.code == "gradients-file" and "allow_pickle" in str(e.value)
