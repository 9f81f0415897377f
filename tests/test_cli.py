"""The command line as its users meet it: exit codes, one sentence per error, JSON and nothing but JSON."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import typer
from rich.console import Console

import onnxmorph
from documents import read
from onnxmorph import Structure, analyze, cli, report
from onnxmorph.cli import By, Init, run
from onnxmorph.cli_reference import reference
from onnxmorph.importance import METHODS
from onnxmorph.polynomial import Polynomial
from onnxmorph.surgery.morph import INITS
from tiny import convnet, mlp, save

COMMANDS = [
    "analyze",
    "explain",
    "shrink",
    "scale",
    "expand",
    "verify",
    "demo",
    "diff",
    "calibrate",
    "latency",
    "report",
    "morph",
    "sweep",
]


@pytest.fixture
def net(tmp_path: Path) -> Path:
    return save(convnet(), tmp_path / "net.onnx")


Capture = pytest.CaptureFixture[str]


def asked(capsys: Capture, *argv: object, code: int = 0) -> dict[str, Any]:
    """Run with --json; stdout must be one JSON object, stderr empty."""
    capsys.readouterr()
    assert run([*map(str, argv), "--json"]) == code
    out, err = capsys.readouterr()
    assert err == ""
    return read(out)


def shown(capsys: Capture, *argv: object, code: int = 0) -> str:
    """Run without --json; no line over 80 columns but for paths, no control character, nothing on stderr."""
    capsys.readouterr()
    assert run([*map(str, argv)]) == code
    out, err = capsys.readouterr()
    assert err == ""
    assert max(len(text) for text in out.splitlines() if "/" not in text) <= 80
    assert all(c.isprintable() or c == "\n" for c in out)
    return out


def refused(capsys: Capture, *argv: object, exit_code: int, code: str) -> str:
    """Run to an error, with and without --json; the sentence."""
    found = asked(capsys, *argv, code=exit_code)
    assert found["error"]["code"] == code
    assert run([*map(str, argv)]) == exit_code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ") and err.endswith(f"  [{code}]\n") and err.count("\n") == 1
    return str(found["error"]["message"])


# -- analyze -------------------------------------------------------------------------------------


def test_analyze_prints_the_document(net: Path, capsys: Capture) -> None:
    found = asked(capsys, "analyze", net)
    analysis = analyze(net)
    assert found["model"] == str(net)
    assert found["fingerprint"] == analysis.graph.fingerprint
    assert found["costs"] == analysis.count()
    assert [(g["id"], g["width"]) for g in found["groups"]] == [("k1:0", 16), ("k2:0", 8)]
    first = found["groups"][0]
    members = ["k1:0", "scale:0", "shift:0", "mean:0", "variance:0", "k2:1"]
    assert [f"{m['tensor']}:{m['axis']}" for m in first["members"]] == members
    assert first["price"]["params"] == 3 * 9 + 2 + 8 * 9
    assert {"code": "graph-input", "tensor": "k1", "axis": 1}.items() <= found["fixed"][0].items()
    assert {"code", "tensor", "axis", "reason"} == set(found["fixed"][0])
    assert found["removable"] == 1.0


def test_analyze_counts_at_the_given_shape(net: Path, capsys: Capture) -> None:
    once, twice = (asked(capsys, "analyze", net, "--shape", f"x:{n},3,8,8")["costs"]["flops"] for n in (1, 2))
    assert twice == 2 * once


def test_analyze_shows_tables(net: Path, capsys: Capture) -> None:
    text = shown(capsys, "analyze", net)
    for word in ("Conv", "BatchNormalization", "total", "k1:0", "6 axes", "graph-output", "Removable: 100.0%"):
        assert word in text


def test_analyze_tells_of_every_op_and_of_the_peak(net: Path, capsys: Capture) -> None:
    found = asked(capsys, "analyze", net)
    analysis = analyze(net)
    for name in analysis.op_costs:
        assert sum(op[name] for op in found["ops"]) == found["costs"][name]
    assert max(op["alive"] for op in found["ops"]) == found["costs"]["peak_memory"]
    assert [op["op"] for op in found["ops"]] == [plan.node.type for plan in analysis.plans]
    peak = found["peak"]
    assert sum(each["bytes"] for each in peak["alive"]) == found["costs"]["peak_memory"]
    assert {"node": peak["node"], "op": peak["op"]}.items() <= max(found["ops"], key=lambda op: op["alive"]).items()
    assert {name for g in found["groups"] for name in g["price"]} == set(found["costs"])


def test_tables_show_further_costs_in_their_unit_and_fit(net: Path) -> None:
    plain = analyze(net)
    second = Polynomial.of({(): 0.5e-3, (0,): 1e-6})
    analysis = plain.with_costs(latency=Seconds(second), classic_latency=Seconds(second))
    console = Console(width=80, file=io.StringIO())
    for each in report.analysis(analysis):
        console.print(each)
    text = console.file.getvalue()
    assert "516 µs" in text and "1.00 µs" in text and "8.19 kB" in text
    assert max(map(len, text.splitlines())) <= 80
    assert report.document(analysis)["groups"][0]["price"]["latency"] == 1e-6


@dataclass(frozen=True)
class Seconds:
    """A cost that is no whole number."""

    of: Polynomial

    def value(self, widths: Any) -> float:
        return float(self.of.coefficients @ self.of.factors(widths).prod(1))

    def gradient(self, widths: Any) -> Any:
        return self.of.gradient(widths)


def test_analyze_names_what_no_rule_covers(tmp_path: Path, capsys: Capture) -> None:
    proto = mlp()
    proto.graph.node[1].op_type, proto.graph.node[1].domain = "Secret", "acme"
    proto.opset_import.append(onnx.helper.make_opsetid("acme", 1))
    path = save(proto, tmp_path / "m.onnx")
    found = asked(capsys, "analyze", path)
    assert found["uncovered"][0]["op"] == "Secret"
    assert {f["code"] for f in found["fixed"]} >= {"unknown-op"}
    assert "1 Secret" in shown(capsys, "analyze", path)


# -- the main job --------------------------------------------------------------------------------


def test_shrink_verify_expand(net: Path, tmp_path: Path, capsys: Capture) -> None:
    small, kept, big = tmp_path / "small.onnx", tmp_path / "s.json", tmp_path / "big.onnx"
    budget = ("--budget", "flops=50%")
    found = asked(capsys, "shrink", net, "-o", small, *budget, "--save-structure", kept)
    assert found["model"] == str(small) and found["structure"] == str(kept) and found["notes"] == []
    before, after = found["costs"]["before"], found["costs"]["after"]
    assert after["flops"] <= before["flops"] / 2
    assert after == asked(capsys, "analyze", small)["costs"]
    structure = Structure.load(kept)
    assert found["widths"] == {g.id: len(g.keep) for g in structure.groups}
    onnx.checker.check_model(onnx.load(small), full_check=True)

    verdict = asked(capsys, "verify", net, small, "--structure", kept, "--samples", "1")
    assert verdict["ok"] and verdict["difference"] <= verdict["tolerance"] == 1e-4 and verdict["samples"] == 1
    assert "equals the zero-masked original" in shown(capsys, "verify", net, small, "--structure", kept)

    grown = asked(capsys, "expand", net, "--structure", kept, "-o", big, "--budget", "flops=100%")
    assert grown["structure"] is None
    assert after["flops"] < grown["costs"]["after"]["flops"] <= before["flops"]
    onnx.checker.check_model(onnx.load(big), full_check=True)


def test_verify_exits_1_where_the_models_differ(net: Path, tmp_path: Path, capsys: Capture) -> None:
    small, kept = tmp_path / "small.onnx", tmp_path / "s.json"
    asked(capsys, "shrink", net, "-o", small, "--budget", "flops=50%", "--save-structure", kept)
    proto = onnx.load(small)
    proto.graph.initializer[0].CopyFrom(
        onnx.numpy_helper.from_array(
            2 * onnx.numpy_helper.to_array(proto.graph.initializer[0]), proto.graph.initializer[0].name
        )
    )
    save(proto, small)
    assert asked(capsys, "verify", net, small, "--structure", kept, code=1)["ok"] is False
    assert "DIFFERS" in shown(capsys, "verify", net, small, "--structure", kept, code=1)


def test_a_structure_gives_the_same_model_again(net: Path, tmp_path: Path, capsys: Capture) -> None:
    one, two, kept = tmp_path / "one.onnx", tmp_path / "two.onnx", tmp_path / "s.json"
    shown(capsys, "shrink", net, "-o", one, "--budget", "params=60%", "--save-structure", kept)
    shown(capsys, "shrink", net, "-o", two, "--structure", kept)
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize("by", METHODS)
def test_shrink_ranks_by_every_method(by: str, net: Path, tmp_path: Path, capsys: Capture) -> None:
    out, slopes = tmp_path / "o.onnx", tmp_path / "slopes.npz"
    np.savez(slopes, **{t.name: 1 + onnx.numpy_helper.to_array(t) for t in onnx.load(net).graph.initializer})
    more = ("--gradients", slopes) if by == "taylor" else ()
    budget = "flops=50%,param_bytes=1MiB"
    widths = asked(capsys, "shrink", net, "-o", out, "--budget", budget, "--by", by, *more, "--round-to", "4")["widths"]
    assert all(width % 4 == 0 for width in widths.values())


@pytest.mark.parametrize("command", ["shrink", "scale"])
def test_automatic_rounding_is_none_where_no_cost_rewards_it(
    command: str, net: Path, tmp_path: Path, capsys: Capture
) -> None:
    told = [
        asked(capsys, command, net, "-o", tmp_path / "o.onnx", "--budget", "flops=50%", *more)["widths"]
        for more in ((), ("--round-to", "auto"), ("--round-to", "4", "--round-to", "auto"))
    ]
    assert told[0] == told[1] == told[2]


def test_the_seed_decides_what_random_keeps(net: Path, tmp_path: Path, capsys: Capture) -> None:
    written = []
    for seed in (1, 1, 2):
        out = tmp_path / f"{len(written)}.onnx"
        asked(capsys, "shrink", net, "-o", out, "--budget", "flops=50%", "--by", "random", "--seed", seed)
        written.append(out.read_bytes())
    assert written[0] == written[1] != written[2]


@pytest.mark.parametrize("init", INITS)
def test_scale_up_and_down(init: str, net: Path, tmp_path: Path, capsys: Capture) -> None:
    for share, out in ((50, tmp_path / "half.onnx"), (200, tmp_path / "double.onnx")):
        found = asked(capsys, "scale", net, "-o", out, "--budget", f"flops={share}%", "--init", init, "--round-to", "2")
        assert found["costs"]["after"]["flops"] <= found["costs"]["before"]["flops"] * share / 100
        assert all(width % 2 == 0 for width in found["widths"].values())
        onnx.checker.check_model(onnx.load(out), full_check=True)


def test_shrink_shows_before_and_after(net: Path, tmp_path: Path, capsys: Capture) -> None:
    text = shown(
        capsys, "shrink", net, "-o", tmp_path / "o.onnx", "--budget", "flops=50%", "--save-structure", tmp_path / "s"
    )
    for word in ("before", "after", "peak memory", " of 2 channel groups", "o.onnx", "Written"):
        assert word in text


def test_an_output_may_be_replaced(net: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "o.onnx"
    out.write_text("old")
    asked(capsys, "shrink", net, "-o", out, "--budget", "flops=50%")
    onnx.checker.check_model(onnx.load(out))


# -- wrong usage ---------------------------------------------------------------------------------


def test_wrong_usage_exits_2(net: Path, tmp_path: Path, capsys: Capture) -> None:
    out, kept = tmp_path / "o.onnx", tmp_path / "s.json"
    kept.write_text("{}")
    shrink = ("shrink", net, "-o", out)
    for argv, about in {
        shrink: "either --structure or --budget",
        (*shrink, "--budget", "flops=50%", "--structure", kept): "either --structure or --budget",
        (*shrink, "--structure", kept, "--by", "l2"): "--by",
        (*shrink, "--structure", kept, "--seed", "0"): "--seed",
        (*shrink, "--budget", "flops"): "cannot be read",
        (*shrink, "--budget", "flops=-1"): "cannot be read",
        (*shrink, "--budget", "flops=0"): "positive",
        (*shrink, "--budget", "flops=1e999"): "below",
        (*shrink, "--budget", "joules=1"): "no cost 'joules'",
        (*shrink, "--budget", "flops=50%", "--by", "magic"): "magic",
        (*shrink, "--budget", "flops=50%", "--round-to", "0"): "round-to",
        (*shrink, "--budget", "flops=50%", "--round-to", "k1=auto"): "round-to",
        (*shrink, "--budget", "flops=50%", "--by", "taylor"): "--gradients",
        (*shrink, "--budget", "flops=50%", "--gradients", "g.npz"): "--by taylor",
        (*shrink, "--structure", kept, "--gradients", "g.npz"): "--gradients",
        (*shrink, "--budget", "latency=3"): "write a unit",
        ("shrink", net, "--budget", "flops=50%"): "--output",
        ("scale", net, "-o", out): "--budget",
        ("expand", net, "-o", out, "--budget", "flops=1"): "--structure",
        ("analyze",): "MODEL",
        ("analyze", net, "--shape", "x"): "NAME:DIMS",
        ("analyze", net, "--shape", "x:1,a"): "NAME:DIMS",
        ("analyze", net, "--shape", "x:0,3"): "NAME:DIMS",
        ("analyze", net, "--bogus"): "--bogus",
        ("frobnicate",): "frobnicate",
        ("demo", "--data", "cifar10"): "--data-path",
    }.items():
        assert about in refused(capsys, *argv, exit_code=2, code="usage"), argv
    assert not out.exists()


def test_no_command_shows_the_help_and_exits_2(capsys: Capture) -> None:
    assert run([]) == 2
    assert "Usage: onnxmorph" in capsys.readouterr().out


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)], ids=" ".join)
def test_every_help_shows_an_example(command: list[str], capsys: Capture) -> None:
    assert run([*command, "--help"]) == 0
    out, err = capsys.readouterr()
    assert err == "" and "Example:" in out and f"onnxmorph {' '.join(command)}".strip() in out.split("Example:")[1]


def test_version(capsys: Capture) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"onnxmorph {onnxmorph.__version__}\n"


def test_choices_are_those_of_the_library() -> None:
    assert tuple(by.value for by in By) == METHODS
    assert tuple(init.value for init in Init) == INITS


def test_shapes_of_inputs_that_do_not_fit(net: Path, capsys: Capture) -> None:
    for shape, about in {"z:1,3,8,8": "no input 'z'", "x:1,3": "4 axes", "x:1,5,8,8": "fixed size 3"}.items():
        assert about in refused(capsys, "analyze", net, "--shape", shape, exit_code=1, code="model-input")


# -- nothing is overwritten ----------------------------------------------------------------------


def test_no_input_is_overwritten(tmp_path: Path, capsys: Capture) -> None:
    proto = convnet()
    onnx.save(proto, tmp_path / "net.onnx", save_as_external_data=True, location="net.bin", size_threshold=100)
    net, kept = tmp_path / "net.onnx", tmp_path / "s.json"
    asked(capsys, "shrink", net, "-o", tmp_path / "o.onnx", "--budget", "flops=50%", "--save-structure", kept)
    (tmp_path / "link.onnx").symlink_to(net)
    (tmp_path / "hard.onnx").hardlink_to(net)
    files = {path: path.read_bytes() for path in tmp_path.iterdir()}
    share = ("--budget", "flops=50%")
    for argv in (
        ("shrink", net, "-o", net, *share),
        ("shrink", net, "-o", tmp_path / "." / "net.onnx", *share),
        ("shrink", net, "-o", tmp_path / "link.onnx", *share),
        ("shrink", net, "-o", tmp_path / "hard.onnx", *share),
        ("shrink", net, "-o", tmp_path / "net.bin", *share),
        ("shrink", net, "-o", tmp_path / "new.onnx", *share, "--save-structure", net),
        ("shrink", net, "-o", tmp_path / "new.onnx", *share, "--save-structure", tmp_path / "new.onnx"),
        ("scale", net, "-o", net, *share),
        ("expand", net, "-o", net, *share, "--structure", kept),
        ("expand", net, "-o", kept, *share, "--structure", kept),
    ):
        assert "name of its own" in refused(capsys, *argv, exit_code=2, code="usage"), argv
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == files


def test_weights_beside_the_source_come_along(tmp_path: Path, capsys: Capture) -> None:
    source, other = tmp_path / "net.onnx", tmp_path / "other"
    other.mkdir()
    onnx.save(convnet(), source, save_as_external_data=True, location="net.bin", size_threshold=100)
    asked(capsys, "scale", source, "-o", other / "o.onnx", "--budget", "flops=100%")
    (tmp_path / "net.bin").unlink()
    onnx.checker.check_model(onnx.load(other / "o.onnx"), full_check=True)


# -- what goes wrong on our side -----------------------------------------------------------------


def failing(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("onnxmorph.analysis.load", fail)


def test_a_bug_is_one_sentence_without_a_traceback(net: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, RuntimeError("a\x1b[31m\nb"))
    message = refused(capsys, "analyze", net, exit_code=1, code="bug")
    assert "bug of onnxmorph" in message and "report it" in message and "ONNXMORPH_DEBUG=1" in message
    monkeypatch.setenv("ONNXMORPH_DEBUG", "1")
    assert run(["analyze", str(net)]) == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"),
    [(MemoryError(), "memory"), (RecursionError(), "depth"), (OSError(28, "No space left on device"), "system")],
)
def test_the_machine_s_limits(
    error: Exception, code: str, net: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, error)
    refused(capsys, "analyze", net, exit_code=1, code=code)


def test_interrupted(net: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, KeyboardInterrupt())
    refused(capsys, "analyze", net, exit_code=130, code="interrupted")


def test_progress_goes_to_a_terminal_on_stderr(net: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert run(["analyze", str(net), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["removable"] == 1.0


def test_demo_passes_its_options_on(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, object] = {}
    monkeypatch.setattr("onnxmorph.adapters.demo.main", lambda **options: given.update(options) or 0)
    assert run(["demo", "--data", "cifar10", "--data-path", "f", "--output", "d", "--seed", "3", "--json"]) == 0
    assert given == {"data": "cifar10", "data_path": Path("f"), "out": Path("d"), "seed": 3, "as_json": True}


def test_demo_without_its_extra(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxmorph.adapters.demo", None)
    monkeypatch.delattr("onnxmorph.adapters.demo", raising=False)
    assert "onnxmorph[demo]" in refused(capsys, "demo", exit_code=1, code="demo-extra")


# -- as a real program ---------------------------------------------------------------------------


def program(*argv: object, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "onnxmorph.cli", *map(str, argv)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)


def test_the_program_exits_with_the_code(net: Path, tmp_path: Path) -> None:
    fine = program("analyze", net, "--json")
    assert fine.returncode == 0 and fine.stderr == "" and json.loads(fine.stdout)["model"] == str(net)
    cannot = program("analyze", tmp_path / "none.onnx")
    assert (cannot.returncode, cannot.stdout) == (1, "")
    assert cannot.stderr == f"error: {tmp_path / 'none.onnx'}: there is no such file  [model-missing]\n"
    assert program("shrink", net).returncode == 2


def test_a_terminal_without_unicode(net: Path) -> None:
    result = program("analyze", net, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert result.returncode == 0 and result.stderr == "" and result.stdout.isascii()


def test_a_reader_that_stops_reading(net: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "onnxmorph.cli", "analyze", str(net)]
    result = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, timeout=120)
    os.close(writing)
    assert (result.returncode, result.stderr) == (141, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_under_stdout(net: Path) -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "onnxmorph.cli", "analyze", str(net)]
        result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=120)
    assert result.returncode == 1
    assert result.stderr.startswith("error: ") and result.stderr.endswith("[system]\n")


# -- the pieces ----------------------------------------------------------------------------------


def test_the_reference_is_up_to_date() -> None:
    written = Path(__file__).parents[1] / "docs" / "cli.md"
    assert written.read_text(encoding="utf-8") == reference(), "run: python -m onnxmorph.cli_reference > docs/cli.md"


def test_every_command_is_in_the_reference() -> None:
    commands = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined] # a group of commands
    assert list(commands) == COMMANDS


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (7, "7"), (999, "999"), (1000, "1.00 k"), (999_999, "1.00 M"), (12_345_678, "12.3 M"), (1e18, "1.00 E")],
)
def test_amounts(number: float, text: str) -> None:
    assert report.amount(number) == text


@pytest.mark.parametrize(
    ("name", "number", "text"),
    [
        ("peak_memory", 512, "512 B"),
        ("param_bytes", 6_422_528, "6.42 MB"),
        ("bytes_moved", 1.5, "1.5 B"),
        ("latency", 0, "0.00 s"),
        ("latency", 3.5e-8, "35.0 ns"),
        ("latency", 9.999e-4, "1.00 ms"),
        ("classic_latency", 2.5, "2.50 s"),
        ("latency", 120, "120 s"),
        ("flops", 12_345, "12.3 k"),
    ],
)
def test_quantities_have_the_unit_of_their_cost(name: str, number: float, text: str) -> None:
    assert report.quantity(name, number) == text
