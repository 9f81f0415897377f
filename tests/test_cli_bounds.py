"""Boundaries on the real command line: every option, on every command that has it."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import numpy_helper

from onnxmorph import Structure
from test_cli import Capture, asked, refused
from tiny import convnet, save

HOLDING = {
    ("--keep", "k1:0"): {"k2:0": 8},
    ("--keep", "first"): {"k2:0": 8},
    ("--keep", "k2"): {},
    ("--keep", "k[12]"): {},
    ("--only", "head"): {"k2:0": 8},
    ("--only", "k1", "--only", "nor*"): {"k1:0": 16},
    ("--freeze-before", "e"): {"k2:0": 8},
    ("--freeze-after", "e"): {},
    ("--freeze-after", "g"): {"k1:0": 16},
}  # the options, and the groups that are left


@pytest.fixture
def net(tmp_path: Path) -> Path:
    return save(convnet(), tmp_path / "net.onnx")


@pytest.mark.parametrize("options", HOLDING, ids=" ".join)
def test_boundaries_hold_in_every_command(options: tuple[str, ...], net: Path, tmp_path: Path, capsys: Capture) -> None:
    left = HOLDING[options]
    found = asked(capsys, "analyze", net, *options)
    assert {g["id"]: g["width"] for g in found["groups"]} == left
    assert {f["code"] for f in found["fixed"]} & {"kept", "not-chosen", "frozen"}
    out, again, wide, kept = (tmp_path / name for name in ("o.onnx", "a.onnx", "w.onnx", "s.json"))
    budget = "flops=95%" if left else "flops=100%"
    for command in ("scale", "shrink"):
        made = asked(capsys, command, net, "-o", out, "--budget", budget, *options, "--save-structure", kept)
        assert made["widths"].keys() == left.keys()
        assert all(width < left[id] for id, width in made["widths"].items())
        assert Structure.load(kept).bounds
        same = unchanged(net, out)
        assert ("k1" in same) == ("k1:0" not in left) and ("w" in same) == ("k2:0" not in left)
    asked(capsys, "shrink", net, "-o", again, "--structure", kept)
    assert again.read_bytes() == out.read_bytes()
    assert asked(capsys, "verify", net, out, "--structure", kept)["ok"]
    grown = asked(capsys, "expand", net, "-o", wide, "--structure", kept, "--budget", "flops=200%")
    assert grown["widths"].keys() == left.keys()
    onnx.checker.check_model(onnx.load(wide), full_check=True)
    other = asked(capsys, "expand", net, "-o", wide, "--structure", kept, "--budget", "flops=200%", "--keep", "x")
    assert other["widths"].keys() == {"k1:0", "k2:0"}


def weights(path: Path) -> dict[str, bytes]:
    return {t.name: numpy_helper.to_array(t).tobytes() for t in onnx.load(path).graph.initializer}


def unchanged(one: Path, other: Path) -> set[str]:
    before, after = weights(one), weights(other)
    return {name for name in before.keys() & after.keys() if before[name] == after[name]}


@pytest.mark.parametrize("command", ["shrink", "scale"])
def test_widths_on_the_command_line(command: str, net: Path, tmp_path: Path, capsys: Capture) -> None:
    def widths(*options: str) -> list[int]:
        made = asked(capsys, command, net, "-o", tmp_path / "o.onnx", "--budget", "flops=30%", *options)
        return list(made["widths"].values())

    assert widths() != widths("--min-width", "k2:0=7")
    assert widths("--min-width", "k2:0=7")[1] >= 7
    assert widths("--min-width", "4", "--min-width", "k2:0=7")[1] >= 7
    assert min(widths("--min-width", "4")) >= 4
    assert all(width % 4 == 0 for width in widths("--round-to", "4"))
    first, second = widths("--round-to", "2", "--round-to", "first=5")
    assert first % 5 == 0 and second % 2 == 0
    first, second = widths("--round-to", "k1:0=5", "--min-width", "k1:0=4")
    assert first in (5, 10, 15)


def test_expand_rounds_and_keeps_least_widths(net: Path, tmp_path: Path, capsys: Capture) -> None:
    kept = tmp_path / "s.json"
    asked(capsys, "shrink", net, "-o", tmp_path / "o.onnx", "--budget", "flops=20%", "--save-structure", kept)
    options = ("--budget", "flops=100%", "--round-to", "k2:0=3", "--min-width", "k1:0=9")
    widths = asked(capsys, "expand", net, "-o", tmp_path / "w.onnx", "--structure", kept, *options)["widths"]
    assert widths["k2:0"] % 3 == 0 and widths["k1:0"] >= 9


def test_a_structure_that_crosses_a_boundary(net: Path, tmp_path: Path, capsys: Capture) -> None:
    kept, out = tmp_path / "s.json", tmp_path / "o.onnx"
    asked(capsys, "shrink", net, "-o", out, "--budget", "flops=20%", "--save-structure", kept)
    argv = ("shrink", net, "-o", tmp_path / "p.onnx", "--structure", kept, "--keep", "k1:0")
    assert "'k1:0'" in refused(capsys, *argv, exit_code=1, code="structure-bounds")
    assert not (tmp_path / "p.onnx").exists()


def test_wrong_boundaries(net: Path, tmp_path: Path, capsys: Capture) -> None:
    shrink = ("shrink", net, "-o", tmp_path / "o.onnx", "--budget", "flops=50%")
    for options, about in {
        ("--keep", "scal"): "'scale'",
        ("--only", "firs"): "'first'",
        ("--freeze-before", "second"): "no tensor",
        ("--freeze-after", "k1:0"): "no tensor",
        ("--min-width", "k1:9=2"): "'k1:0'",
        ("--round-to", "nothing=2"): "round_to",
    }.items():
        assert about in refused(capsys, *shrink, *options, exit_code=1, code="bounds-name"), options
    for options in (("--min-width", "0"), ("--min-width", "a=b"), ("--round-to", "=4"), ("--round-to", "k1:0=-1")):
        assert options[0] in refused(capsys, *shrink, *options, exit_code=2, code="usage")
