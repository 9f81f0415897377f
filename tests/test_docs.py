"""What README and docs show runs as it stands there, and the site is whole: every link, every name."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest
import torch
import typer
from torch import nn

import onnxmorph
from doc_blocks import PAGES, ROOT, Reader, blocks
from exported import exported
from onnxmorph.cli import app

# Pages whose blocks need networks of their own, and where they run.
ELSEWHERE = {
    "docs/algorithm.md": "test_sweeps.py",
    "docs/frameworks.md": "test_frameworks.py",
    "docs/resizing.md": "test_resizing.py",
    "docs/training.md": "test_loops.py",
}
MADE = {"CONTRIBUTING.md", "docs/cli.md"}  # what they show is source: compared below
HERE = [page for page in PAGES if blocks(page) and page not in ELSEWHERE and page not in MADE]
LANGUAGES = {"", "python", "sh", "text", "toml", "json"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network and what a training of it has, as the pages call them."""
    folder = tmp_path_factory.mktemp("docs")
    ir.save(exported("resnet").model, folder / "model.onnx")
    small = onnxmorph.shrink(folder / "model.onnx", budget="flops=50%")
    small.structure.save(folder / "structure.json")
    return folder


def names() -> dict[str, Any]:
    module, inputs, model = exported("resnet")
    module = nn.Sequential(*[module]).train()
    images = torch.cat([inputs[0]] * 2)
    loss, batch = nn.CrossEntropyLoss(), (images, torch.zeros(len(images), dtype=torch.long))
    return {
        **{"module": exported("resnet").module, "model": module, "loss": loss},
        **{"loader": [batch] * 3, "batches": [batch] * 2, "example_inputs": inputs},
        "optimizer": torch.optim.SGD(module.parameters(), 0.01),
        "weights": {name: value.const_value.numpy() for name, value in model.graph.initializers.items()},
    }


@pytest.mark.parametrize("page", HERE)
def test_the_blocks_of_a_page_run_as_they_stand(
    page: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.syspath_prepend(str(tmp_path))
    torch.manual_seed(0)
    before = set(sys.modules)
    try:
        Reader(capsys, names()).read(blocks(page))
    finally:
        for module in set(sys.modules) - before:
            if str(tmp_path) in str(getattr(sys.modules[module], "__file__", "")):
                del sys.modules[module]  # of another page, which may have one of the same name


def test_every_block_is_accounted_for() -> None:
    found = [block for page in PAGES for block in blocks(page)]
    assert {b.language for b in found if b.page != "docs/cli.md"} <= LANGUAGES, "say what language a block is in"
    left = [(b.page, b.line, b.reason) for b in found if b.reason]
    assert len(left) <= 12, f"few blocks may be left out: {left}"
    assert not [b for b in found if b.reason and b.page in ELSEWHERE and b.language == "python"]
    for page, file in ELSEWHERE.items():
        assert f'"{Path(page).name}"' in (ROOT / "tests" / file).read_text(encoding="utf-8"), f"{page} is not run"


def test_what_contributing_shows_is_what_stands_there() -> None:
    sources = [
        p.read_text(encoding="utf-8") for f in ("onnxmorph/rules", "tests/rows") for p in (ROOT / f).glob("*.py")
    ]
    python = [block for block in blocks("CONTRIBUTING.md") if block.language == "python"]
    assert len(python) == 3
    for block in python:
        assert any(block.text.strip() in text for text in sources), block.text


def test_the_examples_of_the_command_line_are_well_formed() -> None:
    program = typer.main.get_command(app)
    found = [block for block in blocks("docs/cli.md") if block.text.startswith("onnxmorph ")]
    assert len(found) == len(program.commands)  # type: ignore[attr-defined]
    for block in found:
        _, name, *arguments = block.text.split()
        program.commands[name].make_context(name, arguments)  # type: ignore[attr-defined]
