"""``--device``: latency among the costs of analyze, shrink, scale and expand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from test_cli import Capture, asked, refused, shown
from tiny import convnet, save

BOX = 'version = 1\ntitle = "Box"\nbandwidth = 1e9\noverhead = 1e-5\n[peak]\nfloat32 = 1e9\n'


@pytest.fixture
def net(tmp_path: Path) -> Path:
    return save(convnet(), tmp_path / "net.onnx")


@pytest.fixture
def box(tmp_path: Path) -> Path:
    path = tmp_path / "box.toml"
    path.write_text(BOX, encoding="utf-8")
    return path


def test_analyze_lists_latency_and_every_kernel(net: Path, box: Path, capsys: Capture) -> None:
    found, plain = asked(capsys, "analyze", net, "--device", box), asked(capsys, "analyze", net)
    assert found["costs"].keys() - plain["costs"].keys() == {"latency", "classic_latency"}
    assert "kernels" not in plain
    first, *_ = found["kernels"]
    assert first["nodes"] == ["first", "norm", "act"]
    assert first["ops"] == ["Conv", "BatchNormalization", "Relu"]
    assert (first["dtype"], first["binds"]) == ("FLOAT", "compute")
    assert sum(k["seconds"] for k in found["kernels"]) == pytest.approx(found["costs"]["latency"])
    assert all(g["price"]["latency"] > 0 for g in found["groups"])


def test_analyze_shows_what_takes_the_time(net: Path, box: Path, capsys: Capture) -> None:
    text = shown(capsys, "analyze", net, "--device", box)
    assert "Modelled latency by kernel" in text
    row = next(line for line in text.splitlines() if line.startswith("Conv + BatchNormalization + Relu"))
    assert row.split()[5:9] == ["1", "68.4", "µs", "compute"]
    assert "Modelled latency" not in shown(capsys, "analyze", net)


def test_what_is_cut_has_its_latency_in_the_structure(
    net: Path,
    box: Path,
    tmp_path: Path,
    capsys: Capture,
) -> None:
    structure = tmp_path / "s.json"
    for command in (["shrink"], ["scale"], ["expand", "--structure", structure]):
        out = tmp_path / f"{command[0]}.onnx"
        save = [] if command[0] == "expand" else ["--save-structure", structure]
        asked(capsys, *command, net, "-o", out, "--budget", "flops=50%", "--device", box, *save)
        costs = json.loads(structure.read_text(encoding="utf-8"))["costs"]
        assert 0 < costs["after"]["latency"] < costs["before"]["latency"]
    again = asked(capsys, "analyze", tmp_path / "scale.onnx", "--device", box)
    assert again["costs"]["latency"] == pytest.approx(costs["after"]["latency"])


@pytest.mark.parametrize("command", ["analyze", "shrink", "scale"])
def test_a_wrong_device(command: str, net: Path, tmp_path: Path, capsys: Capture) -> None:
    more = [] if command == "analyze" else ["-o", tmp_path / "o.onnx", "--budget", "flops=50%"]
    text = refused(capsys, command, net, *more, "--device", "rtx409", exit_code=1, code="device-name")
    assert "the nearest are rtx4090" in text and "raspberry-pi-5" in text
    missing = tmp_path / "no.toml"
    refused(capsys, command, net, *more, "--device", missing, exit_code=1, code="device-file")
