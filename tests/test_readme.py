"""What the README shows runs as it stands there."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import onnx_ir as ir
import pytest
import torch
from typer.testing import CliRunner

from exported import exported
from onnxmorph.cli import app
from onnxmorph.surgery.verify import relative, run_session

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
COMMANDS = re.findall(r"^    onnxmorph (.*)$", README.read_text(encoding="utf-8"), re.MULTILINE)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    ir.save(exported("resnet").model, tmp_path / "model.onnx")
    shutil.copy(Path(__file__).parent / "functions" / "chosen.py", tmp_path / "train.py")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_commands(here: Path) -> None:
    assert len(COMMANDS) >= 6
    for command in COMMANDS:
        result = CliRunner().invoke(app, shlex.split(command))
        assert result.exit_code == 0, f"{command}: {result.output}"
    assert {"small.onnx", "wide.onnx", "half.onnx", "s.json"} <= {p.name for p in here.iterdir()}


def test_python(here: Path) -> None:
    module, inputs, _ = exported("resnet")
    module = torch.nn.Sequential(*[module]).train()
    images = torch.cat([inputs[0]] * 2)
    names = {
        "model": module,
        "example_inputs": inputs,
        "optimizer": torch.optim.SGD(module.parameters(), 0.01),
        "loss": torch.nn.CrossEntropyLoss(),
        "loader": [(images, torch.zeros(len(images), dtype=torch.long))] * 3,
    }
    assert len(BLOCKS) == 4
    for block in BLOCKS:
        exec(block, names)
    costs = names["found"].structure.costs
    assert 0.95 < costs["after"]["flops"] / costs["before"]["flops"] <= 1
    assert names["small"](images).shape == module(images).shape
    with torch.no_grad():
        ours = names["wide"].eval()(images).numpy()
    theirs = run_session(names["found"].model)({names["found"].model.graph.inputs[0].name: images.numpy()})[0]
    assert relative(theirs, ours) <= 1e-5
