"""Weights in a file beside the model: what reads them, how often, and that it makes no difference to the result."""

from __future__ import annotations

import csv
import json
import re
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from llama import BILLIONS, Llama, write
from onnxmorph import analyze, expand, scale, shrink, verify, weights
from onnxmorph.cli import run
from onnxmorph.errors import ModelError
from onnxmorph.importance import scores
from onnxmorph.surgery.morph import Morphed
from onnxmorph.surgery.verify import random_inputs, run_session
from onnxmorph.weights import boxes, cut, in_file, pieces
from tiny import MLP, model, save, weight

FORMS = [
    pytest.param(Llama(fused=fused, dtype=dtype), id=f"{TensorProto.DataType.Name(dtype)}{'-fused' * fused}")
    for fused, dtype in [
        (False, TensorProto.FLOAT),
        (True, TensorProto.FLOAT),
        (False, TensorProto.FLOAT16),
        (False, TensorProto.BFLOAT16),
    ]
]

_opened: list[str] | None = None


def _hear(event: str, arguments: tuple[object, ...]) -> None:
    if _opened is not None and event == "open":
        _opened.append(str(arguments[0]))


sys.addaudithook(_hear)  # it cannot be taken away again, so that it is to hear nothing elsewhere


@contextmanager
def opened() -> Iterator[list[str]]:
    """The names of all files that Python opens within, each as often as it is opened."""
    global _opened
    _opened = []
    try:
        yield _opened
    finally:
        _opened = None


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of a few KB count as large, and are read in many pieces."""
    monkeypatch.setattr(weights, "GATHERED", 1000)
    monkeypatch.setattr(weights, "PIECE", 5000)


def in_memory(path: Path) -> onnx.ModelProto:
    return onnx.load(path)


def arrays(found: Morphed) -> dict[str, NDArray[np.generic]]:
    return {name: value.const_value.numpy() for name, value in found.model.graph.initializers.items()}


def assert_same(one: Morphed, other: Morphed) -> None:
    assert one.structure.widths.tolist() == other.structure.widths.tolist()
    first, second = arrays(one), arrays(other)
    assert first.keys() == second.keys()
    for name in first:
        assert first[name].tobytes() == second[name].tobytes() and first[name].shape == second[name].shape, name


# -- what is read --------------------------------------------------------------------------------


@pytest.mark.parametrize("fused", [False, True])
def test_analysis_reads_no_weights(fused: bool, tmp_path: Path) -> None:
    of = replace(BILLIONS, layers=1, fused=fused)
    path = write(of, tmp_path / "m.onnx")
    with opened() as names:
        analysis = analyze(path)
        counted = analysis.count()
    assert [name for name in names if name.startswith(str(tmp_path))] == [str(path)]
    layer = of.width * of.size * (2 * of.heads + 2 * of.groups) + 3 * of.width * of.hidden + 2 * of.width
    assert counted["params"] >= layer + 2 * of.width * of.vocabulary + of.width
    assert of.hidden in [group.width for group in analysis.groups]


@pytest.mark.parametrize("command", ["analyze", "explain"])
def test_the_command_line_reads_no_weights_to_analyse(command: str, tmp_path: Path) -> None:
    path = write(Llama(), tmp_path / "m.onnx")
    with opened() as names:
        assert run([command, str(path), "--json"]) == 0
    assert str(path) in names and f"{path}.data" not in names


@pytest.mark.parametrize("by", ["random", "l2"])
def test_surgery_reads_a_tensor_once_and_scores_once_more(
    by: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "GATHERED", 1000)
    path = write(Llama(), tmp_path / "m.onnx", seed=0)
    analysis = analyze(path)
    count = sum(in_file(v.const_value) for v in analysis.graph.model.graph.initializers.values())
    with opened() as names:
        small = shrink(analysis, budget="params=50%", by=by)
    assert names.count(f"{path}.data") == (0 if by == "random" else count)
    assert sum(in_file(v.const_value) for v in small.model.graph.initializers.values()) == count  # nothing is made yet
    with opened() as names:
        small.save(tmp_path / "o.onnx")
    assert names.count(f"{path}.data") == count  # what is cut and what is copied
    data = [name for name in names if name.endswith("o.onnx.data")]
    assert len(data) == 1  # in one pass


def test_growth_reads_a_tensor_when_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "GATHERED", 1000)
    path = write(Llama(), tmp_path / "m.onnx", seed=0)
    analysis = analyze(path)
    structure = shrink(analysis, budget="params=50%", by="random").structure
    with opened() as names:
        wide = expand(analysis, structure, "params=90%")
    assert f"{path}.data" not in names
    with opened() as names:
        wide.save(tmp_path / "o.onnx")
    assert names.count(f"{path}.data") == sum(in_file(v.const_value) for v in wide.model.graph.initializers.values())


# -- what is written -----------------------------------------------------------------------------


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("of", FORMS)
def test_in_pieces_it_comes_to_the_same(of: Llama, tmp_path: Path) -> None:
    """Chosen, cut, scaled, and grown in both ways, from a file and from memory."""
    path = write(of, tmp_path / "m.onnx", seed=0)
    proto = in_memory(path)
    one, other = shrink(path, budget="params=50%"), shrink(proto, budget="params=50%")
    assert_same(one, other)
    assert_same(scale(path, "params=60%"), scale(proto, "params=60%"))
    for init in ("preserve", "fresh"):
        grown = [expand(source, one.structure, "params=90%", init=init) for source in (path, proto)]
        assert_same(*grown)
    one.save(tmp_path / "o.onnx")
    wanted = arrays(other)
    for name, value in ir.load(tmp_path / "o.onnx").graph.initializers.items():
        assert value.const_value is not None and value.const_value.tobytes() == wanted[name].tobytes()


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("of", FORMS[:2])
def test_from_the_command_line(of: Llama, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Shrunk, verified, applied, and expanded; every result is two files that ONNX Runtime reads."""

    def asked(*argv: object) -> dict[str, object]:
        assert run([*map(str, argv), "--json"]) == 0, capsys.readouterr()
        return dict(json.loads(capsys.readouterr().out))

    path, kept = write(of, tmp_path / "m.onnx", seed=0), tmp_path / "s.json"
    asked("shrink", path, "-o", tmp_path / "o.onnx", "--budget", "params=60%", "--save-structure", kept)
    asked("shrink", path, "-o", tmp_path / "again.onnx", "--structure", kept)
    asked("expand", path, "-o", tmp_path / "wide.onnx", "--structure", kept, "--budget", "params=90%")
    asked("scale", path, "-o", tmp_path / "half.onnx", "--budget", "params=60%")
    with opened() as opens:
        assert asked("verify", path, tmp_path / "o.onnx", "--structure", kept)["ok"] is True
    lent = [Path(name) for name in opens if name.endswith("model.onnx.data")]
    assert len(lent) == 2 and not any(each.parent.exists() for each in lent)  # ONNX Runtime read both from files
    names = {"o.onnx", "again.onnx", "wide.onnx", "half.onnx", "m.onnx"}
    assert {p.name for p in tmp_path.iterdir()} == names | {f"{n}.data" for n in names} | {"s.json"}
    assert (tmp_path / "o.onnx.data").read_bytes() == (tmp_path / "again.onnx.data").read_bytes()
    for name in names:
        proto = onnx.load(tmp_path / name, load_external_data=False)
        places = [{e.key: e.value for e in t.external_data} for t in proto.graph.initializer if t.external_data]
        assert {place["location"] for place in places} == {f"{name}.data"}
        ends = [int(place["offset"]) + int(place["length"]) for place in places]
        assert max(ends) == (tmp_path / f"{name}.data").stat().st_size  # nothing before and nothing between
        if name != "m.onnx":
            assert sum(int(place["length"]) for place in places) == max(ends)
        feeds = random_inputs(analyze(tmp_path / name).graph, np.random.default_rng(0))
        assert run_session(ir.load(tmp_path / name))(feeds)[0].shape[-1] == of.vocabulary


@pytest.mark.usefixtures("small")
def test_a_wrong_model_of_two_files_is_seen(tmp_path: Path) -> None:
    path = write(Llama(), tmp_path / "m.onnx", seed=0)
    small = shrink(path, budget="params=60%")
    small.save(tmp_path / "o.onnx")
    assert verify(path, tmp_path / "o.onnx", small.structure).ok
    data = tmp_path / "o.onnx.data"
    data.write_bytes(np.flip(np.frombuffer(data.read_bytes(), np.float32)).tobytes())
    assert not verify(path, tmp_path / "o.onnx", small.structure).ok


def test_few_weights_beside_the_source_become_one_file(tmp_path: Path) -> None:
    path = write(Llama(), tmp_path / "m.onnx", seed=0)
    (tmp_path / "out").mkdir()
    shrink(path, budget="params=50%").save(tmp_path / "out" / "o.onnx")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["o.onnx"]
    (tmp_path / "m.onnx.data").unlink()
    onnx.checker.check_model(onnx.load(tmp_path / "out" / "o.onnx"), full_check=True)


@pytest.mark.usefixtures("small")
def test_weights_that_are_gone_when_they_are_to_be_written(tmp_path: Path) -> None:
    path = write(Llama(), tmp_path / "m.onnx", seed=0)
    small = shrink(path, budget="params=50%", by="random")
    (tmp_path / "m.onnx.data").unlink()
    with pytest.raises(ModelError, match=r"data of tensor '.*' cannot be read") as e:
        small.save(tmp_path / "o.onnx")
    assert e.value.code == "model-tensor"
    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]


@pytest.mark.parametrize("changed", [False, True])
def test_a_constant_whose_values_lie_beside_the_model_comes_along(changed: bool, tmp_path: Path) -> None:
    """Nodes keep their tensors with them, wherever these lay."""
    first, second = (numpy_helper.to_array(w) for w in (weight("a", 4, 8), weight("b", 8, 3, seed=1)))
    held = TensorProto(name="a", data_type=TensorProto.FLOAT, dims=[4, 8], data_location=TensorProto.EXTERNAL)
    held.external_data.add(key="location", value="a.bin")
    (tmp_path / "a.bin").write_bytes(first.tobytes())
    proto = model([helper.make_node("Constant", [], ["a"], value=held), *MLP], [weight("b", 8, 3, seed=1)])
    path, out = save(proto, tmp_path / "m.onnx"), tmp_path / "o.onnx"
    small = shrink(path, budget="flops=60%" if changed else "flops=100%")
    small.save(out)
    (tmp_path / "a.bin").unlink()
    (kept,) = small.structure.groups
    live = list(kept.keep)
    assert (len(live) < 8) is changed
    x = np.ones((2, 4), np.float32)
    wanted = np.maximum(x @ first[:, live], 0) @ second[live]
    np.testing.assert_allclose(run_session(ir.load(out))({"x": x})[0], wanted, rtol=1e-5)


# -- pieces --------------------------------------------------------------------------------------

SHAPES = [(), (0, 3), (7,), (1500,), (5, 3, 2), (3, 2000), (2, 3, 1000), (1, 2, 2, 1500)]


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_boxes_cover_an_array_once_in_its_order(shape: tuple[int, ...]) -> None:
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape)
    parts = [array[index] for index in boxes(shape, array.itemsize)]
    assert np.concatenate([p.reshape(-1) for p in parts]).tolist() == array.reshape(-1).tolist()
    assert all(part.nbytes <= 5000 for part in parts)


def external(path: Path, array: NDArray[np.generic]) -> ir.ExternalTensor:
    """An array in a file, behind something else."""
    path.write_bytes(b"\xff" * 64 + array.tobytes())
    kind = ir.DataType.from_numpy(array.dtype)
    return ir.ExternalTensor(
        path.name, 64, array.nbytes, kind, shape=ir.Shape(array.shape), name="w", base_dir=path.parent
    )


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("shape", [s for s in SHAPES if s and 0 not in s], ids=str)
def test_positions_are_taken_as_from_the_whole_array(shape: tuple[int, ...], tmp_path: Path) -> None:
    """In any order, more than once, or none of them; from a file and from memory."""
    rng = np.random.default_rng(0)
    array = rng.normal(size=shape).astype(np.float32)
    for tensor in (external(tmp_path / "w", array), ir.tensor(array, name="w")):
        assert all((part == array[index]).all() for index, part in pieces(tensor, "w"))
        for trial in range(20):
            keep = {}
            for axis in rng.permutation(len(shape))[: 1 + trial % len(shape)].tolist():
                old = rng.integers(0, shape[axis], int(rng.integers(0, 2 * shape[axis])))
                keep[axis] = old if trial % 2 else np.unique(old)
            wanted = array
            for axis, old in keep.items():
                wanted = wanted.take(old, axis)
            np.testing.assert_array_equal(cut(tensor, "w", keep), wanted)


@pytest.mark.usefixtures("small")
def test_scores_are_those_of_whole_tensors(tmp_path: Path) -> None:
    path = write(Llama(), tmp_path / "m.onnx", seed=0)
    proto = in_memory(path)
    for by in ("l1", "l2"):
        in_parts = scores(analyze(path), by)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(weights, "PIECE", 1 << 22)
            np.testing.assert_allclose(in_parts, scores(analyze(proto), by), rtol=1e-10)


# -- the page ------------------------------------------------------------------------------------

PAGE = (Path(__file__).parents[1] / "docs" / "big_models.md").read_text(encoding="utf-8")


def test_the_page_does_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(Llama(), tmp_path / "model.onnx", seed=0)
    monkeypatch.chdir(tmp_path)
    commands = re.findall(r"^    onnxmorph (.*)$", PAGE, re.MULTILINE)
    assert len(commands) == 5
    assert [run(shlex.split(command)) for command in commands] == [0] * 5
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(code, {})


def test_numbers_of_the_page_are_those_that_were_measured() -> None:
    with (Path(__file__).parents[1] / "benchmarks" / "results" / "big.csv").open(encoding="utf-8") as file:
        rows = {row["what"]: row for row in csv.DictReader(file)}
    lines = re.findall(r"^\| ([^|]*) \| ([\d.]+) s \| ([\d.]+|–) \| (\d+) MB \| (\d+) MB \|$", PAGE, re.MULTILINE)
    assert len(lines) == 7
    for what, seconds, ratio, peak, most in lines:
        name, task = what.rsplit(": ", 1)
        time, memory = rows[what], rows[f"{name}: peak of {task}"]
        assert f"{float(time['ours']):.1f}" == seconds
        assert ratio == ("–" if time["against"] == "the aim" else f"{float(time['ratio']):.2f}")
        assert (f"{float(memory['ours']):.0f}", f"{float(memory['theirs']):.0f}") == (peak, most)
