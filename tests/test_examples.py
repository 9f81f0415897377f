"""Every example runs as a user would run it, and does what it says."""

from __future__ import annotations

import contextlib
import io
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nbclient
import nbformat
import numpy as np
import pytest
import torch

import onnxmorph
from onnxmorph.structure import Structure

EXAMPLES = Path(__file__).parents[1] / "examples"


ONE = pytest.mark.xdist_group("examples")  # what one of them leaves, others begin with


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)  # beside the other tests, more are slower


def run(name: str, *arguments: object) -> str:
    """In this process, where most of what it imports is loaded already."""
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as printed:
        patch.setattr(sys, "argv", [name, *map(str, arguments)])
        try:
            runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        except SystemExit as ended:
            assert not ended.code
    return printed.getvalue()


def run_apart(name: str, *arguments: object) -> str:
    """In a process of its own, on its own backend of Keras."""
    command = [sys.executable, EXAMPLES / name, *map(str, arguments)]
    environment = {k: v for k, v in os.environ.items() if k != "KERAS_BACKEND"} | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("examples")
    printed = run("train_with_budget.py", folder)
    assert "epoch 10" in printed
    return folder


@ONE
def test_training_meets_the_budget(trained: Path) -> None:
    small, structure = onnxmorph.analyze(trained / "small.onnx"), Structure.load(trained / "structure.json")
    flops = small.costs["flops"].value(small.widths)
    assert flops == structure.costs["after"]["flops"]
    assert 0.47 <= flops / structure.costs["before"]["flops"] <= 0.50


@ONE
def test_structure_is_applied_by_indexing(trained: Path, tmp_path: Path) -> None:
    run("apply_structure.py", trained / "structure.json", trained / "weights.pt", tmp_path / "small.pt")
    small = torch.load(tmp_path / "small.pt", weights_only=True)
    parameters = onnxmorph.analyze(trained / "small.onnx").parameters
    assert parameters.keys() <= small.keys()
    for name, parameter in parameters.items():
        assert tuple(small[name].shape) == tuple(parameter.shape), name


@ONE
def test_shrinking_without_training(trained: Path, tmp_path: Path) -> None:
    printed = run("shrink_without_training.py", trained / "small.onnx", tmp_path / "smaller.onnx")
    assert "zero-masked" in printed
    before, after = (onnxmorph.analyze(p) for p in (trained / "small.onnx", tmp_path / "smaller.onnx"))
    share = after.costs["flops"].value(after.widths) / before.costs["flops"].value(before.widths)
    assert 0.6 < share <= 0.7


def test_shrinking_by_taylor(tmp_path: Path) -> None:
    printed = run("shrink_by_taylor.py", tmp_path)
    assert "by taylor: widths" in printed
    with np.load(tmp_path / "gradients.npz") as found:
        assert found.keys() >= onnxmorph.analyze(tmp_path / "model.onnx").parameters.keys()


def test_training_from_onnx(tmp_path: Path) -> None:
    printed = run("train_from_onnx.py", tmp_path)
    assert "parameters: 0.weight, 1.weight" in printed
    before, after = (float(x) for x in re.findall(r"([\d.]+)%", printed))
    assert after > max(before, 85)
    names = onnxmorph.analyze(tmp_path / "model.onnx").parameters.keys()
    assert onnxmorph.analyze(tmp_path / "trained.onnx").parameters.keys() == names


def test_training_with_accelerate(tmp_path: Path) -> None:
    assert "epoch 4" in run("train_with_accelerate.py", tmp_path)
    costs = Structure.load(tmp_path / "structure.json").costs
    assert 0.45 <= costs["after"]["flops"] / costs["before"]["flops"] <= 0.50
    last = (tmp_path / "widths.csv").read_text(encoding="utf-8").splitlines()[-1].split(",")
    weight = torch.load(tmp_path / "small.pt", weights_only=True)["4.weight"]
    assert [str(weight.shape[1]), str(weight.shape[0])] == last[-2:]


def test_the_whole_algorithm(tmp_path: Path) -> None:
    printed = run("algorithm_one.py", tmp_path)
    assert "training the result" in printed and "●" in printed
    before, after = (onnxmorph.analyze(tmp_path / name).count() for name in ("seed.onnx", "final/trained.onnx"))
    assert 0.9 < after["flops"] / before["flops"] <= 1
    assert float(re.findall(r"final .*accuracy ([\d.]+)%", printed)[0]) > 90


@pytest.mark.parametrize(("name", "how"), [("train_jax.py", run), ("train_keras.py", run_apart)])
def test_training_in_another_framework(name: str, how: Callable[..., str], tmp_path: Path) -> None:
    printed = how(name, tmp_path)
    small, structure = onnxmorph.analyze(tmp_path / "small.onnx"), Structure.load(tmp_path / "structure.json")
    flops = small.costs["flops"].value(small.widths)
    assert flops == structure.costs["after"]["flops"]
    assert 0.47 <= flops / structure.costs["before"]["flops"] <= 0.50
    (difference,) = re.findall(r"differs from the large one by (\S+)", printed)
    assert float(difference) <= 1e-4


@pytest.mark.nightly  # as all tests of TensorFlow
def test_shrinking_tensorflow(tmp_path: Path) -> None:
    pytest.importorskip("tensorflow")
    assert "right without further training" in run("shrink_tensorflow.py", tmp_path)
    before, after = (onnxmorph.analyze(tmp_path / name).count()["flops"] for name in ("model.onnx", "small.onnx"))
    assert 0.5 < after / before <= 0.6


def test_the_notebook() -> None:
    notebook = nbformat.read(EXAMPLES / "first_look.ipynb", 4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "keep outputs out of the repository"
    kernel = {**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "module://matplotlib_inline.backend_inline"}
    nbclient.NotebookClient(notebook, kernel_name="python3", timeout=300).execute(env=kernel)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert "largest relative difference" in outputs[-1]["text"]


def test_every_example_is_run_here() -> None:
    text = Path(__file__).read_text(encoding="utf-8")
    assert [p.name for p in EXAMPLES.iterdir() if p.is_file() and p.name not in text] == []
