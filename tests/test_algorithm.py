"""The whole algorithm: what a run promises, whatever trains in it."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

import onnxmorph
from documents import read
from functions import chosen, digits
from onnxmorph import Bounds, Plan, Round, Run, Structure, Trained, analyze, morph
from onnxmorph.adapters.torch import Morph
from onnxmorph.adapters.torch_algorithm import module_of, trains
from onnxmorph.cli import run as program
from onnxmorph.converters.torch import export
from onnxmorph.errors import BudgetError, OnnxMorphError, RunError, StructureError
from onnxmorph.functions import load_function
from onnxmorph.surgery.verify import relative, run_session
from onnxmorph.visited import Visited, marked
from tiny import convnet, mlp, save

pytestmark = pytest.mark.xdist_group("algorithm")  # what takes long to set up is made once

FUNCTIONS = Path(__file__).parent / "functions"
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def net(tmp_path: Path) -> Path:
    return save(convnet(), tmp_path / "net.onnx")


@pytest.fixture(scope="module")
def seed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network that learns digits."""
    path = tmp_path_factory.mktemp("digits") / "model.onnx"
    export(digits.network(), digits.images[:2], path)
    return path


PLAN = Plan(budget="flops=90%", shrink="flops=60%", rounds=5, tolerance=0.05)


@pytest.fixture(scope="module")
def learnt(seed: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return morph(digits.train, seed, PLAN, tmp_path_factory.mktemp("learnt") / "run")


@pytest.fixture(scope="module", params=["learnt", "chosen"])
def done(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Plan]:
    """A run that trained, and one that chose."""
    if request.param == "learnt":
        return request.getfixturevalue("learnt"), PLAN
    plan, folder = (
        Plan(budget="params=70%,flops=60%", rounds=3, tolerance=0.0, seed=3),
        tmp_path_factory.mktemp("chosen"),
    )
    return morph(chosen.choose, save(convnet(), folder / "net.onnx"), plan, folder / "run"), plan


def widths(model: Path) -> dict[str, int]:
    return {g.id: g.width for g in analyze(model).groups}


def folders(run: Run) -> list[Path]:
    return [run.folder / f"round-{number + 1}" for number in range(run.rounds)]


# ---------------------------------------------------------------- what a run promises


def test_it_stops_where_the_widths_settle_and_not_before(done: tuple[Run, Plan]) -> None:
    run, plan = done
    models = [run.folder / "seed.onnx", *(folder / "expanded.onnx" for folder in folders(run))]
    moved = [
        sum(abs(width - after[id]) for id, width in before.items()) / sum(before.values())
        for before, after in pairwise(map(widths, models))
    ]
    assert all(share > plan.tolerance for share in moved[:-1])
    assert run.stable == (moved[-1] <= plan.tolerance)
    assert run.stable or run.rounds == plan.rounds
    assert not (run.folder / f"round-{run.rounds + 1}").exists()


def test_training_settles(learnt: Run) -> None:
    assert learnt.stable and 1 < learnt.rounds < PLAN.rounds
    assert learnt.visited[-1].kind == "final" and learnt.visited[-1].metric is not None
    assert learnt.visited[-1].metric > 0.8


def test_every_expansion_fills_the_budget(done: tuple[Run, Plan]) -> None:
    run, plan = done
    before = analyze(run.folder / "seed.onnx").count()
    limits = {limit.cost: limit.amount for limit in onnxmorph.Budget.parse(plan.budget).limits}
    for folder in folders(run):
        costs = analyze(folder / "expanded.onnx").count()
        shares = [costs[name] / before[name] / share for name, share in limits.items()]
        assert 0.9 < max(shares) <= 1


def test_every_round_trains_towards_a_share_of_its_own_network(learnt: Run) -> None:
    for folder in folders(learnt):
        costs = Structure.load(folder / "shrunk.json").costs
        assert 0.5 < costs["after"]["flops"] / costs["before"]["flops"] <= 0.6
    assert widths(folders(learnt)[1] / "trained.onnx") == widths(folders(learnt)[0] / "expanded.onnx")


def test_every_structure_applies_to_its_model_and_costs_what_it_says(done: tuple[Run, Plan]) -> None:
    run, _ = done
    kinds = [each.kind for each in run.visited]
    assert kinds.count("shrunk") == kinds.count("expanded") == run.rounds and kinds.count("final") == 1
    for each in run.visited:
        structure, of = Structure.load(run.folder / each.structure), analyze(run.folder / each.model)
        structure.copies(of)
        assert of.count(structure.widths) == each.costs
        if each.network is not None:
            assert analyze(run.folder / each.network).count() == each.costs


def test_milestones_are_kept_once(learnt: Run) -> None:
    for number in range(1, learnt.rounds + 1):
        own = [each for each in learnt.visited if each.round == number and each.kind in ("milestone", "shrunk")]
        flops = [each.costs["flops"] for each in own]
        assert len(own) > 2 and flops == sorted(set(flops), reverse=True)


def test_a_structure_that_is_visited_again_gets_the_metric_of_then(net: Path, tmp_path: Path) -> None:
    def train(round: Round) -> Trained:
        found = chosen.choose(round)
        if found.structure is not None:
            full = onnxmorph.shrink(round.model, budget="flops=100%").structure
            for metric in (None, 0.5, 0.25):
                round.visit(full, metric)
        return found

    run = morph(train, net, Plan(rounds=1), tmp_path / "run")
    assert [each.metric for each in run.visited if each.kind == "milestone"] == [0.25]


def test_the_tables_hold_what_was_visited(done: tuple[Run, Plan]) -> None:
    run, plan = done
    rows = [each.row() for each in run.visited]
    assert json.loads((run.folder / "pareto.json").read_text()) == rows
    with (run.folder / "pareto.csv").open(newline="") as file:
        assert [row["flops"] for row in csv.DictReader(file)] == [str(row["flops"]) for row in rows]
    assert any(row["pareto"] for row in rows)
    assert marked(run.visited, plan.costs) == run.visited


def test_the_module_of_a_round_is_its_model(learnt: Run) -> None:
    grown = tuple(Structure.load(folder / "expanded.json") for folder in folders(learnt))
    path = learnt.folder / f"round-{learnt.rounds}" / "expanded.onnx"
    last = Round(learnt.rounds + 1, path, None, learnt.folder, 0, Bounds(), None, grown)
    module = module_of(digits.network(), last).eval()
    with torch.no_grad():
        ours = module(digits.images[:8]).numpy()
    model = onnxmorph.model.load(path).model
    assert relative(run_session(model)({model.graph.inputs[0].name: digits.images[:8].numpy()})[0], ours) < 1e-5
    shrunk = onnxmorph.model.load(path.with_name("shrunk.onnx")).model  # growth starts where training stopped
    assert relative(run_session(shrunk)({shrunk.graph.inputs[0].name: digits.images[:8].numpy()})[0], ours) < 1e-4


@pytest.mark.parametrize("trial", range(20))
def test_pareto_is_what_no_other_dominates(trial: int) -> None:
    rng = np.random.default_rng(trial)
    rows = [
        Visited(1, "shrunk", "", "", None, {"flops": a, "params": b}, None if m == 4 else m)
        for a, b, m in rng.integers(0, 5, (12, 3)).tolist()
    ]

    def dominates(one: Visited, other: Visited) -> bool:
        assert one.metric is not None and other.metric is not None
        no_worse = one.metric >= other.metric and all(one.costs[c] <= other.costs[c] for c in one.costs)
        return no_worse and (one.metric, one.costs) != (other.metric, other.costs)

    known = [row for row in rows if row.metric is not None]
    for row in marked(rows, ["flops", "params"]):
        expected = None if row.metric is None else not any(dominates(other, row) for other in known)
        assert row.pareto is expected


# ---------------------------------------------------------------- stopped, and going on


def test_a_killed_run_goes_on_and_visits_what_an_uninterrupted_one_does(
    seed: Path, learnt: Run, tmp_path: Path
) -> None:
    options = {"budget": PLAN.budget, "shrink": PLAN.shrink, "rounds": PLAN.rounds, "tolerance": PLAN.tolerance}
    argv = ["morph", f"{FUNCTIONS / 'digits.py'}:train", seed, "--output", tmp_path]
    argv += [part for name, value in options.items() for part in (f"--{name}", value)]
    command = [sys.executable, "-m", "onnxmorph.cli", *map(str, argv)]
    killed = subprocess.run(command, timeout=300, env={**os.environ, "DIE_AFTER": "2 1"})
    assert killed.returncode == -signal.SIGKILL
    there = {path: path.stat().st_mtime_ns for path in (tmp_path / "round-1").glob("*.*")}
    assert len(there) > 5 and not (tmp_path / "round-2" / "shrunk.json").exists()
    resumed = morph(digits.train, seed, PLAN, tmp_path)
    assert {path: path.stat().st_mtime_ns for path in there} == there
    for folder in folders(resumed):  # nor was an epoch of the killed round trained again
        assert (folder / "work" / "epochs").read_text().split() == [*"0123"]
    assert resumed.visited == learnt.visited
    for each in learnt.visited:
        assert (tmp_path / each.structure).read_text() == (learnt.folder / each.structure).read_text()


def test_a_run_that_is_done_trains_nothing(net: Path, tmp_path: Path) -> None:
    rounds: list[int] = []

    def counting(round: Round) -> Trained:
        rounds.append(round.number)
        return chosen.choose(round)

    first = morph(counting, net, Plan(), tmp_path / "run")
    assert rounds == list(range(1, first.rounds + 2))
    assert morph(counting, net, Plan(), tmp_path / "run") == first
    assert morph(counting, onnx.load(net), Plan(), tmp_path / "run") == first  # in memory: by its graph
    assert len(rounds) == first.rounds + 1


@pytest.mark.parametrize("name", ["shrunk.json", "expanded.json", "expanded.onnx"])
def test_what_is_missing_of_a_round_is_done_again(name: str, net: Path, tmp_path: Path) -> None:
    first = morph(chosen.choose, net, Plan(rounds=2), tmp_path / "run")
    before = (tmp_path / "run" / "round-1" / "expanded.onnx").read_bytes()
    (tmp_path / "run" / "round-1" / "expanded.json").unlink()
    (tmp_path / "run" / "round-1" / name).unlink(missing_ok=True)
    assert morph(chosen.choose, net, Plan(rounds=2), tmp_path / "run") == first
    assert (tmp_path / "run" / "round-1" / "expanded.onnx").read_bytes() == before


def test_an_interrupt_keeps_what_is_done(net: Path, tmp_path: Path) -> None:
    def stopped(round: Round) -> Trained:
        if round.number == 2:
            raise KeyboardInterrupt
        return chosen.choose(round)

    with pytest.raises(RunError, match="call again to go on") as caught:
        morph(stopped, net, Plan(), tmp_path / "run")
    assert caught.value.code == "interrupted"
    assert (tmp_path / "run" / "round-1" / "expanded.json").exists()


def other_weights(net: Path) -> Path:
    model = onnx.load(net)
    model.graph.initializer[0].raw_data = bytes(len(model.graph.initializer[0].raw_data))
    return save(model, net.with_name("other.onnx"))


@pytest.mark.parametrize(
    ("plan", "model", "message"),
    [
        (Plan(budget="flops=90%", shrink="flops=60%"), None, "another budget: 'flops=100%' there, 'flops=90%' here"),
        (Plan(shrink="flops=50%"), None, "another shrink: 'flops=60%' there"),
        (Plan(seed=1), None, "another seed: 0 there, 1 here"),
        (Plan(bounds=Bounds(keep=["k1"])), None, "another bounds"),
        (Plan(), other_weights, "another weights; give another folder"),
        (Plan(), lambda net: save(mlp(), net.with_name("mlp.onnx")), "another model; give another folder"),
    ],
    ids=["budget", "shrink", "seed", "bounds", "weights", "model"],
)
def test_a_folder_of_another_run_is_refused(
    plan: Plan, model: Callable[[Path], Path] | None, message: str, net: Path, tmp_path: Path
) -> None:
    morph(chosen.choose, net, Plan(), tmp_path / "run")
    there = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*.*")}
    with pytest.raises(RunError, match=message) as caught:
        morph(chosen.choose, net if model is None else model(net), plan, tmp_path / "run")
    assert caught.value.code == "run-other"
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*.*")} == there


@pytest.mark.parametrize("text", [None, "{", "[1]"])
def test_rounds_without_their_plan_are_refused(text: str | None, net: Path, tmp_path: Path) -> None:
    morph(chosen.choose, net, Plan(rounds=1), tmp_path)
    (tmp_path / "run.json").unlink()
    if text is not None:
        (tmp_path / "run.json").write_text(text)
    with pytest.raises(RunError, match="give another folder"):
        morph(chosen.choose, net, Plan(rounds=1), tmp_path)


# ---------------------------------------------------------------- what stays


def test_what_is_kept_stays_in_every_round(net: Path, tmp_path: Path) -> None:
    run = morph(chosen.choose, net, Plan(rounds=2, tolerance=0.0, bounds=Bounds(keep=["k1"])), tmp_path / "run")
    for each in run.visited:
        assert widths(run.folder / (each.network or each.model))["k1:0"] == 16


def test_multiples_are_for_growing(net: Path, tmp_path: Path) -> None:
    free: list[bool] = []

    def train(round: Round) -> Trained:
        free.append(not round.bounds.round_to)
        return chosen.choose(round)

    plan = Plan(rounds=1, budget="flops=150%", bounds=Bounds(round_to={"k1": 8}, min_width={"k2": 6}))
    run = morph(train, net, plan, tmp_path / "run")
    grown, shrunk = (widths(run.folder / "round-1" / f"{kind}.onnx") for kind in ("expanded", "shrunk"))
    assert all(free) and grown["k1:0"] % 8 == 0 and shrunk["k1:0"] % 8 and shrunk["k2:0"] >= 6


@pytest.mark.parametrize("locked", [(), ("k2:0",)])
def test_locked_groups_do_not_grow(locked: tuple[str, ...], net: Path, tmp_path: Path) -> None:
    def train(round: Round) -> Trained:
        found = chosen.choose(round)
        if found.structure is None:
            return found
        return replace(found, structure=replace(found.structure, provenance={"locked": list(locked)}))

    plan = Plan(budget="flops=200%", shrink="flops=100%", rounds=1)  # nothing goes, so that all could grow
    grown = widths(morph(train, net, plan, tmp_path / "run").model)
    assert grown["k1:0"] > 16 and (grown["k2:0"] == 8) == bool(locked)


class Viewed(nn.Module):
    """The sizes of a view stand in the code, or in attributes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.head = nn.Linear(6, 16), nn.Linear(16, 12), nn.Linear(4, 3)
        self.parts, self.size = 3, 4

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.second(torch.relu(self.first(x))))
        return self.head(x.view(x.shape[0], self.parts, self.size).mean(1))


class Fixed(Viewed):
    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.second(torch.relu(self.first(x))))
        return self.head(x.view(x.shape[0], 3, 4).mean(1))


@pytest.mark.parametrize("kind", [Viewed, Fixed])
def test_what_a_module_cannot_follow_stays_and_its_attributes_follow(kind: type[Viewed], tmp_path: Path) -> None:
    module, x = kind(), torch.randn(8, 6, generator=torch.Generator().manual_seed(0))
    locked: list[str] = []
    sizes: list[tuple[int, int]] = []

    @trains(module, x)
    def train(own: Viewed, round: Round) -> tuple[Morph | None, None]:
        optimizer = torch.optim.SGD(own.parameters(), 0.05)
        morph = None if round.budget is None else Morph(own, x, optimizer, round.budget, steps=4)
        for _ in range(4):
            optimizer.zero_grad()
            own(x).square().mean().backward()
            optimizer.step()
            if morph is not None:
                morph.step()
        locked.extend(morph.locked if morph is not None else ())
        sizes.append((own.parts, own.size))
        return morph, None

    run = morph(train, export(module, x), Plan(budget="flops=250%", shrink="flops=90%", rounds=2), tmp_path / "run")
    assert {each.metric for each in run.visited} == {each.pareto for each in run.visited} == {None}
    assert module.first.weight.shape == (16, 6) and (module.parts, module.size) == (3, 4)  # the user's is as it was
    before, after = widths(run.folder / "seed.onnx"), widths(run.model)
    assert all(after[group] == before[group] for group in locked)
    assert after["first.weight:0"] > 16
    assert bool(locked) == (kind is Fixed) == (set(sizes) == {(3, 4)})


def test_latency_is_a_budget_like_any_other(net: Path, tmp_path: Path) -> None:
    plan = Plan(budget="latency=98%", shrink="latency=95%", rounds=1, device="raspberry-pi-5")
    run = morph(chosen.choose, net, plan, tmp_path / "run")
    before = Structure.load(run.folder / "round-1" / "shrunk.json").costs["before"]["latency"]
    shrunk, expanded, final = (each.costs["latency"] / before for each in run.visited)
    assert shrunk <= 0.95 < expanded == final <= 0.98


# ---------------------------------------------------------------- what goes wrong


def nothing(round: Round) -> Any:
    return None


def no_structure(round: Round) -> Trained:
    return Trained(round.model)


def too_much(round: Round) -> Trained:
    found = chosen.choose(replace(round, budget="flops=60%"))
    return found


def words(round: Round) -> Trained:
    return replace(chosen.choose(round), metric="good")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("train", "message"),
    [
        (nothing, "gave NoneType in round 1; give onnxmorph.Trained"),
        (no_structure, "has to give a structure, for flops=60% was asked for, in round 1"),
        (too_much, "has to give no structure, when training the result"),
        (words, "gave 'good' for a metric in round 1"),
    ],
)
def test_a_function_that_gives_something_else(train: Any, message: str, net: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=message) as caught:
        morph(train, net, Plan(rounds=1), tmp_path / "run")
    assert caught.value.code == "train-result"


def test_a_module_function_that_gives_something_else(seed: Path, tmp_path: Path) -> None:
    train = trains(digits.network(), digits.images[:2])(lambda module, round: 0.9)  # type: ignore[arg-type,return-value]
    with pytest.raises(RunError, match="gave float; return the Morph, or None, and a metric"):
        morph(train, seed, Plan(), tmp_path / "run")


def test_a_model_of_another_module(net: Path, tmp_path: Path) -> None:
    with pytest.raises(StructureError, match=r"no parameter of .*seed.onnx is in the module"):
        morph(digits.train, net, Plan(), tmp_path / "run")


def test_a_structure_of_another_model(net: Path, tmp_path: Path) -> None:
    structure = onnxmorph.shrink(mlp(), budget="flops=50%").structure
    with pytest.raises(StructureError, match="the structure is for another model"):
        morph(lambda round: Trained(round.model, structure), net, Plan(), tmp_path / "run")


def test_a_metric_that_is_no_number_is_none(net: Path, tmp_path: Path) -> None:
    run = morph(lambda round: replace(chosen.choose(round), metric=np.nan), net, Plan(rounds=1), tmp_path / "run")
    assert {each.metric for each in run.visited} == {None}


def test_our_own_errors_come_as_they_are(net: Path, tmp_path: Path) -> None:
    with pytest.raises(BudgetError, match="cannot be met"):
        morph(chosen.choose, net, Plan(shrink="flops=0.1%"), tmp_path / "run")


@pytest.mark.parametrize(
    ("options", "error", "code"),
    [
        ({"budget": "flop=1%"}, BudgetError, "budget-cost"),
        ({"shrink": "flops"}, BudgetError, "budget"),
        ({"rounds": 0}, RunError, "run-plan"),
        ({"tolerance": 1.0}, RunError, "run-plan"),
    ],
)
def test_a_plan_that_cannot_be(options: dict[str, Any], error: type[OnnxMorphError], code: str) -> None:
    with pytest.raises(error) as caught:
        Plan(**options)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("written", "named", "message"),
    [
        ("", "train.py", "write FILE.py:FUNCTION"),
        ("", "train.txt:train", "write FILE.py:FUNCTION"),
        ("", "other.py:train", "there is no such file"),
        ("def train(round): ...", "train.py:trains", "has no function 'trains'; near names are 'train'"),
        ("train = 3", "train.py:train", "has no function 'train'"),
        ("import nonsense", "train.py:train", "failed while train.py was loaded .ModuleNotFoundError"),
        ("def train(", "train.py:train", "failed while train.py was loaded .SyntaxError"),
        ("raise SystemExit(3)", "train.py:train", "failed while train.py was loaded .SystemExit: 3"),
    ],
)
def test_a_function_that_cannot_be_loaded(written: str, named: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(written)
    with pytest.raises(RunError, match=message):
        load_function(str(tmp_path / named))


def test_a_function_may_import_what_lies_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "beside_it.py").write_text("def train(round): return 7")
    (tmp_path / "using_it.py").write_text("from beside_it import train")
    assert load_function(f"{tmp_path}/using_it.py:train")(None) == 7


# ---------------------------------------------------------------- the command


def test_the_command_shows_the_networks(net: Path, tmp_path: Path, capsys: Capture) -> None:
    argv = ["morph", f"{FUNCTIONS / 'chosen.py'}:choose", net, "--budget", "flops=100%", "--output", tmp_path / "run"]
    assert program([*map(str, argv), "--rounds", "2"]) == 0
    out, err = capsys.readouterr()
    assert "choosing in round 1" in err and "choosing" not in out  # what the function prints
    assert "The networks of the run" in out and "●" in out and "The widths settled after 1 round." in out
    assert max(len(line) for line in out.splitlines() if "/" not in line) <= 80
    assert program([*map(str, argv), "--rounds", "2", "--json"]) == 0
    out, err = capsys.readouterr()
    assert err == "" and read(out, "morph")["model"] == str(tmp_path / "run" / "final" / "trained.onnx")


def test_the_command_shows_where_the_users_code_failed(net: Path, tmp_path: Path, capsys: Capture) -> None:
    argv = [
        "morph",
        f"{FUNCTIONS / 'chosen.py'}:fail",
        net,
        "--budget",
        "flops=90%",
        "--output",
        tmp_path,
        "--seed",
        "1",
    ]
    assert program([*map(str, argv)]) == 1
    out, err = capsys.readouterr()
    assert out == "" and 'raise ValueError("no data for seed 1")' in err
    assert err.endswith("(ValueError: no data for seed 1); mend it and call again  [train-function]\n")
    files = [line for line in err.splitlines() if line.startswith("  File")]
    assert len(files) == 1 and "chosen.py" in files[0]  # ours are of no use to them
    assert program([*map(str, argv), "--json"]) == 1
    error = read(capsys.readouterr().out, "error")["error"]
    assert error["code"] == "train-function" and "no data" in error["traceback"]


@pytest.mark.parametrize("option", ["--budget", "--shrink"])
def test_a_malformed_budget_is_wrong_usage(option: str, net: Path, tmp_path: Path) -> None:
    argv = ["morph", f"{FUNCTIONS / 'chosen.py'}:choose", net, "--budget", "flops=90%", "--output", tmp_path / "run"]
    assert program([*map(str, argv), option, "flops"]) == 2
    assert not (tmp_path / "run").exists()
