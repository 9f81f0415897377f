"""Algorithm 1 of MorphNet over the user's own train function: train, shrink, expand, until the widths stay.

A run is a folder. What is done is a file there, so that a run that was killed goes on by being called again:

    run.json                                what was asked for
    seed.onnx                               the network that it began with
    round-1/ trained.onnx shrunk.onnx expanded.onnx     as they came out; shrunk.json and expanded.json say how
             milestone-001.json …           structures that the train function visited on the way
             work/                          the train function's own
    final/   trained.onnx final.json work/  the last expanded network, trained plainly
    pareto.csv pareto.json                  all structures with their costs
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from onnxmorph import latency
from onnxmorph.analysis import Analysis, analyze
from onnxmorph.budget import Budget, Limit, written
from onnxmorph.errors import RunError
from onnxmorph.files import alone, write_text
from onnxmorph.formats import refusal, version_of
from onnxmorph.functions import called, load_function
from onnxmorph.graph import unread
from onnxmorph.model import Source, copy, load
from onnxmorph.reading import shown
from onnxmorph.rounds import Plan, Round, Trained, keep
from onnxmorph.structure import Structure
from onnxmorph.surgery import expand, shrink
from onnxmorph.visited import FINAL, Visited, visited, write_tables

VERSION = 1  # of run.json, and of what lies beside it
MODELS = ("model", "weights")  # of run.json: the network that a run began with


@dataclass(frozen=True)
class Run:
    """A run that is done: its folder, how many rounds it took, whether the widths had settled, what it visited."""

    folder: Path
    rounds: int
    stable: bool
    visited: tuple[Visited, ...]

    @property
    def model(self) -> Path:
        """The trained result."""
        return self.folder / FINAL / "trained.onnx"

    def to_records(self) -> list[dict[str, Any]]:
        """A row per network that was visited, as in ``pareto.csv``: ``pandas.DataFrame`` takes them as they are."""
        return [each.row() for each in self.visited]


Train = Callable[[Round], Trained]
Tell = Callable[[str], None]


def morph(train: Train | str, model: Source, plan: Plan, out: str | Path, *, progress: Tell = lambda said: None) -> Run:
    """Train, shrink and expand until the widths settle, then train the result.

    What is in the folder already is not done again: a run that was stopped goes on in the round it was in.

    Args:
        train: what trains, or ``FILE.py:FUNCTION``.
        model: the network to begin with.
        plan: the budgets, and the rest.
        out: the folder of the run.
        progress: is told in words how far it is.

    Raises:
        OnnxMorphError: what the parts raise, from a budget out of reach to a structure of another model.
        OutputError: another process is at work in the folder, or nothing can be written there.
        RunError: the folder holds another run; the train function failed (its error is the cause), or gave something
            else than was asked for.

    Source: MorphNet (arXiv 1711.06798), Algorithm 1.
    """
    function = load_function(train) if isinstance(train, str) else train
    out = Path(out)
    asked = _asked(model, plan)
    out.mkdir(parents=True, exist_ok=True)
    try:
        with alone(out):
            _begin(out, model, asked)
            return _run(function, plan, out, progress)
    except KeyboardInterrupt:
        message = f"interrupted; the rounds that are done are kept in {out}: call again to go on"
        raise RunError(message, code="interrupted") from None


def _run(function: Train, plan: Plan, out: Path, tell: Tell) -> Run:
    path = out / "seed.onnx"
    before = _analysis(path, plan)
    limits = Budget.parse(plan.budget).absolute(before)
    whole = Budget(tuple(Limit(name, most, False) for name, most in limits.items()))
    grown: list[Structure] = []
    moved = 1.0
    while moved > plan.tolerance and len(grown) < plan.rounds:
        round = _round(out / f"round-{len(grown) + 1}", path, plan, plan.shrink, grown)
        if not (round.folder.parent / "shrunk.json").exists():
            tell(f"round {round.number} of at most {plan.rounds}: training towards {round.budget}")
            _shrink(function, round, plan)
        path = round.folder.parent / "expanded.onnx"
        if not path.with_suffix(".json").exists():
            _expand(round, plan, whole)
        grown.append(Structure.load(path.with_suffix(".json")))
        after = _analysis(path, plan)
        moved, before = _moved(before, after), after
        tell(f"round {round.number}: {_told(round, plan)}; {moved:.1%} of the channels moved")
        write_tables(out, "pareto", [each.row() for each in visited(out, plan.costs)])
    round = _round(out / FINAL, path, plan, None, grown)
    if not (out / FINAL / "final.json").exists():
        tell("training the result")
        _finish(function, round, plan)
    found = visited(out, plan.costs)
    write_tables(out, "pareto", [each.row() for each in found])
    return Run(out, len(grown), moved <= plan.tolerance, found)


# -- the steps of a round ------------------------------------------------------------------------


def _round(here: Path, model: Path, plan: Plan, budget: str | None, grown: Sequence[Structure]) -> Round:
    work = here / "work"
    work.mkdir(parents=True, exist_ok=True)
    bounds = replace(plan.bounds, round_to={})  # widths in training are free
    return Round(len(grown) + 1, model, budget, work, plan.seed, bounds, plan.device, tuple(grown))


def _shrink(function: Train, round: Round, plan: Plan) -> None:
    """Steps 1 and 2: train towards the budget, and read which channels live."""
    trained, here = _trained(function, round), round.folder.parent
    small = shrink(_analysis(here / "trained.onnx", plan), trained.structure)
    small.save(here / "shrunk.onnx")
    keep(small.structure, here / "shrunk.json", round, "shrunk", trained.metric)


def _expand(round: Round, plan: Plan, whole: Budget) -> None:
    """Step 3: the largest width multiplier that the budget allows."""
    here = round.folder.parent
    structure = Structure.load(here / "shrunk.json")
    analysis = _analysis(here / "trained.onnx", plan)
    big = expand(analysis, structure, whole, round_to=plan.round_to, init=plan.init, seed=plan.seed)
    big.save(here / "expanded.onnx")
    keep(big.structure, here / "expanded.json", round, "expanded", None)


def _finish(function: Train, round: Round, plan: Plan) -> None:
    """Step 5: train what came out."""
    trained, here = _trained(function, round), round.folder.parent
    analysis = _analysis(here / "trained.onnx", plan)
    full = Structure.of(analysis, np.ones(analysis.channels + 1, np.int64))
    keep(full, here / "final.json", round, FINAL, trained.metric)


def _trained(function: Train, round: Round) -> Trained:
    """What the user's function gives, its model kept."""
    when = "when training the result" if round.last else f"in round {round.number}"
    found = called(function, round, when=when)
    if not isinstance(found, Trained):
        message = f"the train function gave {type(found).__name__} {when}; give onnxmorph.Trained(model, structure, …)"
        raise RunError(message, code="train-result")
    if (found.structure is None) != round.last:
        asked = "no structure" if round.last else f"a structure, for {round.budget} was asked for"
        raise RunError(f"the train function has to give {asked}, {when}", code="train-result")
    try:
        metric = None if found.metric is None else float(found.metric)
    except (TypeError, ValueError):
        message = f"the train function gave {found.metric!r} for a metric {when}; give a number or None"
        raise RunError(message, code="train-result") from None
    copy(found.model, round.folder.parent / "trained.onnx")
    return replace(found, metric=metric)


def _analysis(path: Path, plan: Plan) -> Analysis:
    found = analyze(path, plan.shapes, bounds=plan.bounds)
    return found if plan.device is None else found.with_costs(**latency.costs(found, latency.load(plan.device)))


def _moved(before: Analysis, after: Analysis) -> float:
    """The share of channels that came or went; 1 where the groups are others."""
    old, new = ({g.id: g.width for g in each.groups} for each in (before, after))
    if old.keys() != new.keys():
        return 1.0
    return sum(abs(new[id] - width) for id, width in old.items()) / max(sum(old.values()), 1)


def _told(round: Round, plan: Plan) -> str:
    parts = []
    for kind in ("shrunk", "expanded"):
        costs = Structure.load(round.folder.parent / f"{kind}.json").costs["after"]
        parts.append(f"{kind} to {', '.join(f'{name}={written(name, costs[name])}' for name in plan.costs)}")
    return ", ".join(parts)


# -- the folder ----------------------------------------------------------------------------------


def begin(out: Path, model: Source, plan: Plan) -> bool:
    """Make the folder of a run, or find it; whether the run is done.

    The weights are compared where the model is a file: a script that makes it in memory may begin with others when it
    is called again, and goes on with those of the folder.

    Raises:
        RunError: there is another run, or one of a newer onnxmorph.
    """
    out.mkdir(parents=True, exist_ok=True)
    return _begin(out, model, _asked(model, plan))


def _asked(model: Source, plan: Plan) -> dict[str, Any]:
    """What `run.json` says of a run."""
    graph = load(model, plan.shapes)
    digest = None if isinstance(model, onnx.ModelProto | ir.Model) else _digest(graph.model)
    return {"version": VERSION, "model": graph.fingerprint, "weights": digest, **plan.document()}


def _begin(out: Path, model: Source, asked: Mapping[str, Any]) -> bool:
    file = out / "run.json"
    if not file.exists():
        if any(out.glob("round-*")) or (out / FINAL).exists():
            raise RunError(f"{out} holds rounds but no run.json; give another folder", code="run-other")
        seed = out / "seed.onnx"
        if seed.exists() and isinstance(model, str | os.PathLike) and seed.samefile(model):
            raise RunError(f"{model} stands where the run would keep its copy; give another folder", code="run-other")
        copy(model, seed)
        write_text(json.dumps(asked, indent=1) + "\n", file)
        return False
    there = _there(file)
    known = asked if asked["weights"] and there.get("weights") else asked.keys() - {"weights"}
    for key in (key for key in asked if key in known and there.get(key) != asked[key]):
        values = "" if key in MODELS else f": {shown(there.get(key))} there, {shown(asked[key])} here"
        message = f"{out} holds a run with another {key}{values}; give another folder, or call it as before"
        raise RunError(message, code="run-other")
    return (out / FINAL / "final.json").exists()


def _there(file: Path) -> dict[str, Any]:
    """What `run.json` says; what an earlier version did not ask is as by default, what a later one adds is left."""
    try:
        there = dict(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError) as e:
        raise RunError(f"{file} cannot be read ({e}); give another folder", code="run-other") from None
    major, _ = version_of(there.get("version")) or (None, None)
    if major != VERSION:
        raise RunError(refusal(str(file), there.get("version"), VERSION), code="run-version")
    return {**Plan().document(), **there, "version": VERSION}


def _digest(model: ir.Model) -> str:
    """Of all weights."""
    found = hashlib.sha256()
    for name, value in sorted(model.graph.initializers.items()):
        if value.const_value is not None:
            found.update(name.encode() + b"\0")
            found.update(unread(value.const_value).tobytes())
    return found.hexdigest()[:16]
