"""Whether budgets are met, to the hundredth, by networks of six kinds, without a strength being set.

``python -m benchmarks.budgets [NAME@BUDGET ...]`` runs what is not in the results yet, of those that a pattern names
(``resnet@50``, ``vit@*``; all where none is given). Data lie in ``--data FOLDER`` or $ONNXMORPH_DATA; in place of
what is not there stand the digits that come with scikit-learn. Exit code 1 where a budget is missed.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from fnmatch import fnmatch
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import Progress
from torch import nn

from benchmarks.budget_runs import POINT, key_of, plot, put, read, show
from benchmarks.tasks import TASKS, Data, Task
from benchmarks.timing import RESULTS
from onnxmorph.adapters.demo.training import pace
from onnxmorph.adapters.torch import Morph, resize
from onnxmorph.errors import BudgetError

BUDGETS = (25, 50, 75)  # percent of FLOPs
STEPS = 400  # of the seed, and of every run
NEAR = 0.01
EVERY = 5  # steps, in the curves
TURN = 1.1  # a smaller change of the strength is no turn
CACHE = Path(__file__).parents[1] / "out" / "budgets"
FILE, CURVES, PLOT = (RESULTS / name for name in ("budgets.csv", "budgets_strength.csv", "budgets.svg"))

Curve = list[tuple[int, float, float]]  # step, strength, live share of FLOPs


@dataclass(frozen=True)
class Run:
    """One network at one budget; numbers are empty where it is out of reach.

    Attributes:
        budget: percent of the seed's FLOPs.
        verdict: whether the budget is met, and used but for a hundredth.
        used: FLOPs at the end, as a share of the budget.
        met: the step from which on they are within it.
        steps: planned.
        seed: accuracy before.
        accuracy: of the resized network, after.
        groups: how many.
        locked: those that keep all their channels in this module.
        held: the share of FLOPs that would go with the locked ones alone.
        floor: the least share of FLOPs in reach.
        jump: the largest factor between the strengths of two steps, warmed up.
        turns: how often the strength turned round, by a tenth or more.
    """

    network: str
    data: str
    optimizer: str
    budget: int
    verdict: str
    used: float | None
    met: int | None
    steps: int
    seed: float
    accuracy: float | None
    groups: int
    locked: int
    held: float
    floor: float
    jump: float | None
    turns: int | None


RUN = tuple(field.name for field in fields(Run))


class Trained:
    """A task with its seed, which is trained once and kept."""

    def __init__(self, task: Task, data: Data, again: bool) -> None:
        self.task, self.data = task, data
        mark = zlib.crc32(data.y.contiguous().numpy().tobytes())  # of the data, which may be others some day
        path, module = CACHE / f"{task.name}-{data.name}-{mark:08x}-{STEPS}.pt", self._network()
        if again or not path.exists():
            self._train(module, f"{task.name}, seed")
            torch.save(module.state_dict(), path)
        self.state = torch.load(path, weights_only=True)
        module.load_state_dict(self.state)
        self.accuracy = self._accuracy(module)

    def run(self, budget: int) -> tuple[Run, Curve]:
        """From the seed towards a budget, in percent of FLOPs."""
        task, module = self.task, self._network()
        module.load_state_dict(self.state)
        optimizer = task.optimize(module.parameters())
        curve: Curve = []
        try:
            morph = Morph(module, self.data.x[:2], optimizer, f"flops={budget}%", steps=STEPS)
        except BudgetError:
            morph = Morph(module, self.data.x[:2], optimizer, "flops=100%", steps=STEPS)
            verdict, found = "out of reach", dict.fromkeys(("used", "met", "accuracy", "jump", "turns"))
        else:
            curve = self._train(module, f"{task.name} at {budget} %", optimizer, morph)
            limit, used = budget / 100, curve[-1][2] / budget * 100
            verdict = "met" if 1 - NEAR <= used <= 1 else "missed"
            met = next((step for step, _, live in reversed(curve) if live > limit), 0) + 1
            strengths = [strength for step, strength, _ in curve if strength and step > STEPS / 20]
            morph.finish()
            found = {
                "used": round(used, 4),
                "met": met if used <= 1 else None,
                "accuracy": self._accuracy(resize(module, morph.structure())),
                "jump": round(max((max(a / b, b / a) for a, b in pairwise(strengths)), default=1.0), 3),
                "turns": turns(strengths),
            }
        row = Run(
            task.name, self.data.name, task.optimizer, budget, verdict, steps=STEPS, seed=self.accuracy,
            **standing(morph), **found,
        )  # fmt: skip
        return row, curve

    def _network(self) -> nn.Module:
        torch.manual_seed(0)
        return self.task.build(self.data)

    def _train(
        self,
        module: nn.Module,
        title: str,
        optimizer: torch.optim.Optimizer | None = None,
        morph: Morph | None = None,
    ) -> Curve:
        x, y, curve = self.data.x, self.data.y, []
        optimizer = optimizer or self.task.optimize(module.parameters())
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: pace(step, STEPS))
        console = Console(stderr=True)
        module.train()
        with Progress(console=console, disable=not console.is_terminal) as bars:
            for step in bars.track(range(1, STEPS + 1), description=title):
                chosen = torch.randint(len(x), (self.task.batch,))
                optimizer.zero_grad()
                scores = module(x[chosen])
                F.cross_entropy(scores.flatten(0, -2), y[chosen].flatten()).backward()
                optimizer.step()
                if morph is not None:
                    morph.step()
                    curve.append((step, morph.strength, share(morph)))
                schedule.step()
        return curve

    def _accuracy(self, module: nn.Module) -> float:
        """The share of test samples, or of their steps, whose class comes out."""
        with torch.no_grad():
            answers = torch.cat([module.eval()(x).argmax(-1) for x in self.data.test_x.split(200)])
        return round(float((answers == self.data.test_y).float().mean()), 4)


def share(morph: Morph) -> float:
    """Of FLOPs, at the live widths."""
    cost = morph.analysis.costs["flops"]
    return float(cost.value(np.array(list(morph.widths.values()))) / cost.value(morph.analysis.widths))


def standing(morph: Morph) -> dict[str, Any]:
    """What is locked, what that holds, and what is in reach."""
    analysis, cost = morph.analysis, morph.analysis.costs["flops"]
    locked = np.array([g.id in morph.locked for g in analysis.groups])
    without, floor = (
        float(cost.value(np.where(cut, analysis.minimum, analysis.widths)) / cost.value(analysis.widths))
        for cut in (locked, ~locked)
    )
    held, floor = round(1 - without, 4), round(floor, 4)
    return {"groups": len(locked), "locked": int(locked.sum()), "held": held, "floor": floor}


def turns(strengths: Sequence[float]) -> int:
    """How often they turn round by `TURN` or more from their last extreme.

    >>> turns([1, 2, 4, 3.9, 8, 4, 2]), turns([1, 2, 4, 8])
    (1, 0)
    """
    found, way, extreme = 0, 0.0, strengths[0] if strengths else 1.0
    for strength in strengths:
        change = math.log(strength / extreme)
        if change * way > 0:
            extreme = strength
        elif abs(change) >= math.log(TURN):
            found += way != 0
            way, extreme = change, strength
    return found


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.budgets", description=__doc__.partition("\n")[0])
    parser.add_argument("patterns", nargs="*", default=["*"], metavar="NAME@BUDGET", help="which runs; default all")
    parser.add_argument("--data", type=Path, help="folder of the data; default $ONNXMORPH_DATA")
    parser.add_argument("--again", action="store_true", help="also what is in the results, seeds included")
    given = parser.parse_args(arguments)
    folder = given.data or (Path(os.environ["ONNXMORPH_DATA"]) if "ONNXMORPH_DATA" in os.environ else None)
    torch.set_num_threads(1)
    CACHE.mkdir(parents=True, exist_ok=True)
    shown = []
    for task in TASKS:
        wanted = [b for b in BUDGETS if any(fnmatch(f"{task.name}@{b}", pattern) for pattern in given.patterns)]
        if not wanted:
            continue
        data = task.data(folder, CACHE)
        keys = [(task.name, data.name, str(budget)) for budget in wanted]
        missing = [key for key in keys if given.again or key not in map(key_of, read(FILE))]
        if missing:
            trained = Trained(task, data, given.again)
            for key in missing:
                run, curve = trained.run(int(key[2]))
                points = [(*key, step, f"{strength:.6g}", f"{live:.5f}") for step, strength, live in curve[::EVERY]]
                put(CURVES, POINT, key, points)
                put(FILE, RUN, key, [tuple(asdict(run).values())])  # comes last: then the run is done
        shown += [row for row in read(FILE) if key_of(row) in keys]
    show(shown)
    if curves := read(CURVES):
        plot(curves, PLOT)
    return 0 if all(row["verdict"] == "met" for row in shown) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
