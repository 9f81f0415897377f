"""Many runs as jobs: the same results wherever they run, and no job that stops another."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from documents import read
from functions import chosen
from onnxmorph import Plan, morph
from onnxmorph.cli import run as program
from onnxmorph.errors import BudgetError, ModelError, RunError
from onnxmorph.sweeps import PRINTED, Sweep, grid, sweep
from tiny import convnet, save

CHOOSE = f"{Path(__file__).parent / 'functions' / 'chosen.py'}:choose"
FAIL = CHOOSE.replace(":choose", ":fail")
Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def sparing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")  # no telephone in a test


@pytest.fixture
def net(tmp_path: Path) -> Path:
    return save(convnet(), tmp_path / "net.onnx")


def printed(found: Sweep, job: str) -> str:
    return (found.folder / job / PRINTED).read_text()


def test_a_grid_is_every_combination() -> None:
    plans = grid(Plan(rounds=2), ["flops=100%", "params=50%"], [None, "flops=50%"], [0, 7])
    assert len({(p.budget, p.shrink, p.seed) for p in plans}) == len(plans) == 8
    assert {p.rounds for p in plans} == {2}
    assert {p.shrink for p in plans if p.budget == "params=50%"} == {"params=60%", "flops=50%"}


PLANS = grid(Plan(rounds=2), ["flops=100%"], ["flops=50%", "params=70%"], [0])


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    """A sweep in local processes."""
    folder = tmp_path_factory.mktemp("sweep")
    found = sweep(CHOOSE, save(convnet(), folder / "net.onnx"), PLANS, folder / "here", jobs=2)
    assert not found.failed and len(found.jobs) == 2
    return found


# What Ray leaves open when it stops, and says of itself when it starts.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")  # Ray forks; JAX, where it is loaded, says so
def test_ray_gives_what_local_processes_do(here: Sweep, net: Path, tmp_path: Path) -> None:
    there = sweep(CHOOSE, net, PLANS, tmp_path / "there", ray="local", cpus=0.5)
    assert not there.failed and here.rows == there.rows
    for row in here.rows:
        for folder in (here.folder, there.folder):
            assert (folder / row["structure"]).exists() and (folder / row["model"]).exists()
        assert (here.folder / row["structure"]).read_bytes() == (there.folder / row["structure"]).read_bytes()


def test_a_job_is_the_run_that_it_would_be_alone(here: Sweep, net: Path, tmp_path: Path) -> None:
    paths = ("structure", "model", "network")
    for job, plan in zip(here.jobs, PLANS, strict=True):
        alone = morph(chosen.choose, net, plan, tmp_path / job)
        asked = {"job": job, "budget": plan.budget, "shrink": plan.shrink, "seed": 0}
        for row, each in zip((row for row in here.rows if row["job"] == job), alone.visited, strict=True):
            expected = asked | {k: v for k, v in each.row().items() if k != "pareto"}
            expected |= {k: f"{job}/{expected[k]}" for k in paths if expected[k] is not None}
            assert {k: v for k, v in row.items() if k != "pareto"} == expected


def test_a_failing_job_stops_no_other_and_is_done_when_called_again(net: Path, tmp_path: Path) -> None:
    plans, ended = grid(Plan(rounds=1), ["flops=90%"], [None], [0, 1, 2]), []
    first = sweep(FAIL, net, plans, tmp_path / "sweep", jobs=2, progress=ended.append)
    assert ended == [0, 1, 2, 3]
    assert {(each.job[-1], each.code) for each in first.failed} == {("1", "train-function"), ("2", "job-died")}
    assert {row["seed"] for row in first.rows if row["kind"] == "final"} == {0}
    assert any("no data for seed 1" in each.message for each in first.failed)
    assert any("signal 9" in each.message for each in first.failed)
    assert 'raise ValueError("no data for seed 1")' in printed(first, first.jobs[1])

    again = sweep(FAIL, net, plans, tmp_path / "sweep", progress=ended.append)
    assert ended[4:] == [1, 2, 3]  # of two jobs that were not done
    assert [each.job[-1] for each in again.failed] == ["1"]
    assert {row["seed"] for row in again.rows if row["kind"] == "final"} == {0, 2}
    assert printed(again, again.jobs[0]).count("choosing in round 1") == 1


def test_all_jobs_are_judged_together(here: Sweep) -> None:
    assert json.loads((here.folder / "pareto.json").read_text()) == list(here.rows)
    with (here.folder / "pareto.csv").open(newline="") as file:
        assert [row["job"] for row in csv.DictReader(file)] == [row["job"] for row in here.rows]
    assert here.costs == ["flops", "params"]
    known = [row for row in here.rows if row["metric"] is not None]
    points = [(row["flops"], row["params"], -row["metric"]) for row in known]
    for row, point in zip(known, points, strict=True):
        others = [other for other in points if other != point]
        assert row["pareto"] == (not any((np.array(other) <= point).all() for other in others))
    assert {row["job"] for row in known} == set(here.jobs)


def test_what_cannot_start_is_said_before_any_job(net: Path, tmp_path: Path) -> None:
    plans = grid(Plan(rounds=1), ["flops=90%"], [None], [0])
    with pytest.raises(RunError, match="has no function 'nothing'"):
        sweep(CHOOSE.replace(":choose", ":nothing"), net, plans, tmp_path / "sweep")
    with pytest.raises(ModelError, match="there is no such file"):
        sweep(CHOOSE, tmp_path / "other.onnx", plans, tmp_path / "sweep")
    with pytest.raises(BudgetError):
        grid(Plan(), ["flops"], [None], [0])
    with pytest.raises(RunError, match=r"there is no Ray at 'nonsense'") as caught:
        sweep(CHOOSE, net, plans, tmp_path / "sweep", ray="nonsense")
    assert caught.value.code == "sweep-ray"
    assert not list((tmp_path / "sweep").rglob(PRINTED))


def test_without_ray(net: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(RunError, match=r"onnxmorph\[ray\]"):
        sweep(CHOOSE, net, [Plan(rounds=1)], tmp_path / "sweep", ray="local")


def test_jobs_of_another_plan_are_refused(net: Path, tmp_path: Path) -> None:
    sweep(CHOOSE, net, [Plan(rounds=1)], tmp_path)
    with pytest.raises(RunError, match="another rounds: 1 there, 2 here"):
        sweep(CHOOSE, net, [Plan(rounds=2)], tmp_path)


# ---------------------------------------------------------------- the command


def test_the_command(net: Path, tmp_path: Path, capsys: Capture) -> None:
    argv = ["sweep", FAIL, str(net), "--budget", "flops=90%", "--output", str(tmp_path / "s"), "--rounds", "1"]
    seeds = ["--seed", "0", "--seed", "1", "--jobs", "2"]
    assert program([*argv, *seeds, "--json"]) == 1
    found = read(capsys.readouterr().out, "sweep")
    assert [each["code"] for each in found["failed"]] == ["train-function"]
    assert found["visited"] == json.loads((tmp_path / "s" / "pareto.json").read_text())
    assert program([*argv, "--seed", "0"]) == 0
    out, err = capsys.readouterr()
    assert "The networks of 1 job" in out and "●" in out and err == ""
    assert max(len(line) for line in out.splitlines() if "/" not in line) <= 80
    assert program([*argv, "--ray", "local", "--jobs", "2"]) == 2
    assert "--cpus and --gpus" in capsys.readouterr().err


def test_an_interrupt_stops_the_jobs_and_keeps_what_they_did(net: Path, tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(
        "import time\nfrom pathlib import Path\n"
        "def train(round):\n    (round.folder / 'begun').touch()\n    time.sleep(600)\n"
    )
    argv = ["sweep", f"{tmp_path / 'slow.py'}:train", net, "--budget", "flops=90%", "--output", tmp_path / "s"]
    seeds = ["--seed", "0", "--seed", "1", "--json"]
    command = [sys.executable, "-m", "onnxmorph.cli", *map(str, argv), *seeds]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    while not list(tmp_path.rglob("begun")):
        assert process.poll() is None
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and json.loads(out)["error"]["code"] == "interrupted"
    assert len(list(tmp_path.rglob("begun"))) == 1  # the second job was not started
    assert "call again to go on" in (next(tmp_path.rglob("failed.json"))).read_text()


# ---------------------------------------------------------------- what docs/algorithm.md shows

DOCUMENT = (Path(__file__).parents[1] / "docs" / "algorithm.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)
COMMANDS = re.findall(r"^    onnxmorph (.*)$", DOCUMENT, re.MULTILINE)


def test_the_blocks_of_the_document_run_as_they_stand(
    net: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "train"}
    function, call, many = BLOCKS
    for block in (function, call):
        exec(block, names)
    assert names["run"].visited[-1].metric > 0.2
    assert {each.kind for each in names["run"].visited} == {"milestone", "shrunk", "expanded", "final"}
    shutil.copy(CHOOSE.rpartition(":")[0], "train.py")  # trains nothing, and needs no framework
    net.rename("model.onnx")
    exec(many, names)
    assert not names["found"].failed and names["found"].rows[-1]["kind"] == "final"


def test_the_commands_of_the_document_run(net: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(CHOOSE.rpartition(":")[0], "train.py")
    net.rename("model.onnx")
    alone, local, ray = COMMANDS
    assert program(shlex.split(alone)) == program(shlex.split(local)) == 0
    assert "--ray auto" in ray and program(shlex.split(ray.replace("auto", "nonsense"))) == 1
    assert (tmp_path / "runs" / "pareto.csv").exists() and (tmp_path / "run" / "round-1" / "shrunk.json").exists()
