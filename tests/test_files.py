"""Nothing is lost: files are whole, inputs stay, the killed go on, and a folder has one process (docs/files.md)."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest

from functions import chosen
from nets import NETS
from onnxmorph import Plan, analyze, model, morph, shrink, weights
from onnxmorph.calibration import Place, calibrate
from onnxmorph.cli import run
from onnxmorph.converters.torch import export
from onnxmorph.errors import OnnxMorphError, OutputError
from onnxmorph.files import alone, free_name, scratch, weights_beside, whole, write_text
from onnxmorph.sweeps import grid, sweep
from test_cli import Capture, asked, refused
from tiny import convnet, mlp, save

HERE = Path(__file__).parent
CHOOSE = f"{HERE / 'functions' / 'chosen.py'}:choose"
WAIT = f"{HERE / 'functions' / 'chosen.py'}:wait"
SHARE = ("--budget", "flops=50%")


@pytest.fixture
def net(tmp_path: Path) -> Path:
    return save(convnet(), tmp_path / "net.onnx")


def state(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# ---------------------------------------------------------------- whole or not at all


@pytest.mark.parametrize("before", [None, "old"])
def test_what_fails_on_the_way_leaves_what_was_there(before: str | None, tmp_path: Path) -> None:
    path = tmp_path / "file"
    if before is not None:
        path.write_text(before)
    with pytest.raises(ValueError, match="no more"), whole(path) as place:
        place.write_text("ha")
        raise ValueError("no more")
    assert [each.read_text() for each in tmp_path.iterdir()] == ([] if before is None else [before])


def test_a_link_is_written_through(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "file")
    write_text("new", tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "file").read_text() == "new"


def test_folders_that_killed_processes_left_go_and_others_stay(tmp_path: Path) -> None:
    for name in ("old", "new", "empty", "yours"):
        folder = tmp_path / f".onnxmorph-{name}"
        folder.mkdir()
        for file in {"empty": (), "yours": ("half",)}.get(name, ("half", ".lock")):
            (folder / file).write_text("half")
        if name != "new":
            os.utime(folder, (0, 0))
    with scratch(tmp_path) as busy:
        os.utime(busy, (0, 0))
        write_text("text", tmp_path / "file")
        stay = {".onnxmorph-new", ".onnxmorph-yours", "file", busy.name}
        assert {each.name for each in tmp_path.iterdir()} == stay


def large(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model that keeps its weights in a file beside it, as large ones do."""
    for limit in ("SINGLE_FILE", "GATHERED"):
        monkeypatch.setattr(weights, limit, 0)
    model.save(model.load(convnet()).model, folder / "big.onnx")
    return folder / "big.onnx"


def test_a_model_that_is_replaced_takes_its_weights_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = large(tmp_path, monkeypatch)
    other = tmp_path / "big.onnx.data.bak"
    other.write_bytes(b"mine")
    for name in ("big.onnx.2.data", "big.onnx.data"):
        model.save(model.load(convnet()).model, net)
        assert [path.name for path in weights_beside(net)] == [name]
        assert onnx.load(net, load_external_data=False).graph.initializer[0].external_data[0].value == name
        np.testing.assert_array_equal(analyze(net).graph.weights("w"), analyze(convnet()).graph.weights("w"))
    assert other.read_bytes() == b"mine" and free_name(other) == "big.onnx.data.bak.data"


KILLED = [
    pytest.param("shrink", 1, 2, id="shrink"),
    pytest.param("morph", 5, 29, id="morph"),
    pytest.param("shrink", 1, 1, id="shrink-everywhere", marks=pytest.mark.nightly),
    pytest.param("morph", 1, 1, id="morph-everywhere", marks=pytest.mark.nightly),
]


@pytest.mark.parametrize(("work", "first", "step"), KILLED)
def test_what_is_killed_leaves_what_was_there_and_goes_on(work: str, first: int, step: int, tmp_path: Path) -> None:
    """A kill before every touch of the folder, or every few; the loop inside ends where nothing is left to kill."""
    command = [sys.executable, str(HERE / "killing.py"), work, str(tmp_path), str(first), str(step)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=900, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout.split()[-1]) > 4 * step  # so many touches were met


# ---------------------------------------------------------------- never over what is read


def test_a_result_replaces_what_was_read_only_when_told_to(net: Path, tmp_path: Path, capsys: Capture) -> None:
    expected = shrink(net, budget="flops=50%").structure.costs["after"]
    kept = tmp_path / "s.json"
    asked(capsys, "shrink", net, "-o", tmp_path / "small.onnx", *SHARE, "--save-structure", kept)
    before = state(tmp_path)
    cases: list[tuple[object, ...]] = [
        ("shrink", net, "-o", net, *SHARE),
        ("shrink", net, "-o", tmp_path / "o.onnx", "--structure", kept, "--save-structure", kept),
        ("scale", net, "-o", net, *SHARE),
        ("expand", net, "-o", net, *SHARE, "--structure", kept),
        ("explain", net, "k1", "--svg", net),
    ]
    for argv in cases:
        assert "or say --force" in refused(capsys, *argv, exit_code=2, code="usage"), argv
        assert state(tmp_path) == before
    for argv in reversed(cases):  # the first last: it changes the network
        if argv[0] != "explain":
            save(convnet(), net)
            asked(capsys, *argv, "--force")
    assert analyze(net).count() == expected


def test_two_results_in_one_place_are_refused_whatever_is_said(net: Path, tmp_path: Path, capsys: Capture) -> None:
    argv = ("shrink", net, "-o", tmp_path / "o", *SHARE, "--save-structure", tmp_path / "." / "o", "--force")
    assert "written already" in refused(capsys, *argv, exit_code=2, code="usage")
    argv = ("calibrate", net, "-o", net)
    assert "--force" not in refused(capsys, *argv, exit_code=2, code="usage")


def test_weights_in_files_and_devices_are_inputs_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    net = large(tmp_path, monkeypatch)
    shutil.copy(net, tmp_path / "copy.onnx")  # reads big.onnx.data as well
    (tmp_path / "box.toml").write_text("version = 1\nbandwidth = 1e9\noverhead = 0.0\n[peak]\nfloat32 = 1e9\n")
    os.link(tmp_path / "box.toml", tmp_path / "hard.toml")
    before = state(tmp_path)
    device = ("--device", tmp_path / "hard.toml")
    for argv in (
        ("shrink", tmp_path / "copy.onnx", "-o", net, *SHARE),  # would remove them
        ("shrink", net, "-o", tmp_path / "big.onnx.data", *SHARE),
        ("shrink", net, "-o", tmp_path / "box.toml", *SHARE, *device),
    ):
        refused(capsys, *argv, exit_code=2, code="usage")
        assert state(tmp_path) == before


@pytest.mark.parametrize("budget", ["flops=50%", "flops=200%"])
def test_a_large_model_is_replaced_by_what_is_made_of_it(
    budget: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    net = large(tmp_path, monkeypatch)
    expected = onnx.load(save(convnet(), tmp_path / "net.onnx"))
    asked(capsys, "scale", tmp_path / "net.onnx", "-o", tmp_path / "other.onnx", "--budget", budget)
    expected = onnx.load(tmp_path / "other.onnx")
    asked(capsys, "scale", net, "-o", net, "--budget", budget, "--force")
    found = onnx.load(net)
    assert len(weights_beside(net)) == 1
    for one, other in zip(found.graph.initializer, expected.graph.initializer, strict=True):
        np.testing.assert_array_equal(onnx.numpy_helper.to_array(one), onnx.numpy_helper.to_array(other))


def test_a_run_does_not_write_over_its_model(net: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    shutil.copy(net, tmp_path / "run" / "seed.onnx")
    before = (tmp_path / "run" / "seed.onnx").read_bytes()
    with pytest.raises(OnnxMorphError, match="would keep its copy") as caught:
        morph(chosen.choose, tmp_path / "run" / ".." / "run" / "seed.onnx", Plan(rounds=1), tmp_path / "run")
    assert caught.value.code == "run-other" and (tmp_path / "run" / "seed.onnx").read_bytes() == before
    morph(chosen.choose, net, Plan(rounds=1), tmp_path / "run")
    morph(chosen.choose, tmp_path / "run" / "seed.onnx", Plan(rounds=1), tmp_path / "run")  # nothing is written there


def test_the_demo_does_not_write_where_its_images_lie(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "images.npz").write_bytes(b"images")
    os.link(tmp_path / "images.npz", tmp_path / "cifar10_decoded.npz")
    before = state(tmp_path)
    argv = ("demo", "--data", "cifar10", "--data-path", tmp_path / "images.npz", "--output", tmp_path)
    assert "where the demo writes" in refused(capsys, *argv, exit_code=1, code="demo-data-path")
    assert state(tmp_path) == before


# ---------------------------------------------------------------- one process at a time


def waiting(net: Path, out: Path) -> subprocess.Popen[bytes]:
    """A run that trains for ever, in a process that has a child."""
    command = [sys.executable, "-m", "onnxmorph.cli", "morph", WAIT, str(net), *SHARE, "--output", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (out / "round-1" / "work" / "waiting").exists():
        assert process.poll() is None
        time.sleep(0.05)
    return process


def test_a_folder_in_use_is_refused_and_taken_over_from_the_dead(net: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "run"
    process = waiting(net, out)
    child = int((out / "round-1" / "work" / "waiting").read_text())
    try:
        for argv in (("morph", CHOOSE, net, *SHARE, "--output", out), ("sweep", CHOOSE, net, *SHARE, "--output", out)):
            message = refused(capsys, *argv, exit_code=1, code="locked")
            assert f"in use by process {process.pid} on " in message and "choose another place" in message
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert run(["morph", CHOOSE, str(net), *SHARE, "--output", str(out)]) == 0  # though the child lives
        os.kill(child, 0)
    finally:
        process.kill()
        os.kill(child, signal.SIGKILL)


def test_a_process_meets_itself(net: Path, tmp_path: Path) -> None:
    def again(round: object) -> object:
        return morph(chosen.choose, net, Plan(rounds=1), tmp_path / "run")

    with pytest.raises(OutputError, match=f"in use by process {os.getpid()}"):
        morph(again, net, Plan(rounds=1), tmp_path / "run")  # type: ignore[arg-type] # it never returns
    assert morph(chosen.choose, net, Plan(rounds=1), tmp_path / "run").rounds == 1


def test_jobs_are_held_as_well(net: Path, tmp_path: Path) -> None:
    plans = grid(Plan(rounds=1), ["flops=100%"], ["flops=60%"], [0])
    first = sweep(CHOOSE, net, plans, tmp_path / "runs")
    folder = tmp_path / "runs" / first.jobs[0]
    shutil.rmtree(folder / "final")
    with alone(folder):
        (failed,) = sweep(CHOOSE, net, plans, tmp_path / "runs").failed
    assert failed.code == "locked" and f"process {os.getpid()}" in failed.message
    assert sweep(CHOOSE, net, plans, tmp_path / "runs").rows == first.rows


def test_devices_and_the_demo_are_held_as_well(net: Path, tmp_path: Path, capsys: Capture) -> None:
    with alone(tmp_path):
        assert f"process {os.getpid()}" in refused(capsys, "demo", "--output", tmp_path, exit_code=1, code="locked")
    path = tmp_path / "here.toml"
    with alone(path), pytest.raises(OutputError, match=rf"here.toml is in use by process {os.getpid()}"):
        calibrate(analyze(net), path, Place("CPUExecutionProvider", 1), most=1)
    assert not path.exists()


# ---------------------------------------------------------------- the same for a seed, wherever it runs

MADE = """
import sys
from pathlib import Path
from functions import chosen
from onnxmorph import Plan, morph
from onnxmorph.cli import run

share = ["--budget", "flops=50%", "--seed", "7"]
for net in sys.argv[1:]:
    at = f"{Path(net).stem}-"
    assert run(["analyze", net, "--json"]) == 0
    for by in ("magnitude", "random"):
        small = [at + by + ".onnx", "--save-structure", at + by + ".json", "--by", by]
        assert run(["shrink", net, "-o", *small, *share, "--round-to", "auto"]) == 0
    budget = ["--budget", "params=130%", "--seed", "7", "--init", "fresh"]
    assert run(["expand", net, "-o", at + "wide.onnx", "--structure", at + "random.json", *budget]) == 0
    assert run(["scale", net, "-o", at + "half.onnx", *share]) == 0
    assert run(["explain", net, "--json"]) == 0
    morph(chosen.choose, net, Plan(rounds=1, seed=7), at + "run")
"""


def test_a_seed_gives_the_same_bytes_in_every_process_and_with_any_threads(tmp_path: Path) -> None:
    nets = [save(mlp(700), tmp_path / "mlp.onnx"), save(convnet(), tmp_path / "convnet.onnx")]
    module, inputs = NETS["vit_fused"]()
    export(module, inputs, tmp_path / "vit.onnx")
    found = []
    for seed, threads in (("0", "1"), ("1", "2")):
        folder = tmp_path / seed
        folder.mkdir()
        variables = {"PYTHONHASHSEED": seed, "OMP_NUM_THREADS": threads, "PYTHONPATH": str(HERE)}
        command = [sys.executable, "-c", MADE, *map(str, nets), str(tmp_path / "vit.onnx")]
        done = subprocess.run(command, cwd=folder, capture_output=True, timeout=600, env={**os.environ, **variables})
        assert done.returncode == 0, done.stderr[-2000:]
        held = {".lock"}
        found.append({path.relative_to(folder): data for path, data in state(folder).items() if path.name not in held})
        found[-1][Path("printed")] = done.stdout
    one, other = found
    assert one.keys() == other.keys() and len(one) > 40
    assert [path for path in one if one[path] != other[path]] == []


def test_errors_are_json_too(net: Path, tmp_path: Path, capsys: Capture) -> None:
    with alone(tmp_path):
        capsys.readouterr()
        assert run(["morph", CHOOSE, str(net), *SHARE, "--output", str(tmp_path), "--json"]) == 1
        assert json.loads(capsys.readouterr().out)["error"]["code"] == "locked"
