"""The commands that call the user's own train function."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from math import inf
from pathlib import Path
from typing import Annotated

import typer

from onnxmorph.cli.application import command
from onnxmorph.cli.options import (
    AsJson,
    BudgetIn,
    DeviceIn,
    FreezeAfter,
    FreezeBefore,
    Init,
    InitIn,
    Keep,
    MinWidth,
    Model,
    Only,
    RoundTo,
    Seed,
    Shapes,
    UsageError,
)
from onnxmorph.cli.output import Meter, show, telling
from onnxmorph.cli.steps import bounds_of, budget_of, multiple, shapes_of

Function = Annotated[
    str,
    typer.Argument(
        metavar="FILE.py:FUNCTION",
        help="Your train function: it gets a round, and gives the trained model and its structure.",
        show_default=False,
    ),
]
OutFolder = Annotated[
    Path, typer.Option(metavar="DIR", help="The folder of the run; one that was stopped goes on there.")
]
Rounds = Annotated[int, typer.Option(min=1, metavar="N", help="How often to train, shrink and expand at most.")]
Tolerance = Annotated[
    float,
    typer.Option(
        min=0.0, max=0.99, metavar="SHARE", help="Stop where a round moved no more of the channels than this."
    ),
]
ABOUT_SHRINK = (
    "What a round trains towards; shares are of the network of that round. 60% of each cost in --budget if not given."
)


@command("onnxmorph morph train.py:train model.onnx --budget flops=100% --shrink flops=60% --out run")
def morph(
    train: Function,
    model: Model,
    budget: BudgetIn,
    out: OutFolder,
    shrink: Annotated[str | None, typer.Option(metavar="COST=AMOUNT", help=ABOUT_SHRINK)] = None,
    rounds: Rounds = 3,
    tolerance: Tolerance = 0.05,
    round_to: RoundTo = None,
    min_width: MinWidth = None,
    keep: Keep = None,
    only: Only = None,
    freeze_before: FreezeBefore = None,
    freeze_after: FreezeAfter = None,
    init: InitIn = Init.preserve,
    seed: Seed = 0,
    device: DeviceIn = None,
    shape: Shapes = None,
    as_json: AsJson = False,
) -> None:
    """Train, shrink and expand until the widths settle, with your own train function.

    What the function prints goes to stderr.
    """
    _check(budget, shrink)
    from onnxmorph import algorithm, report
    from onnxmorph.bounds import Bounds
    from onnxmorph.rounds import Plan

    plan = Plan(
        budget=budget,
        shrink=shrink,
        rounds=rounds,
        tolerance=tolerance,
        seed=seed,
        init=init.value,
        round_to=multiple(round_to),
        bounds=bounds_of(keep, only, freeze_before, freeze_after, min_width, round_to) or Bounds(),
        device=device,
        shapes=shapes_of(shape),
    )
    with redirect_stdout(sys.stderr):
        found = algorithm.morph(train, model, plan, out, progress=telling)
    show(report.run_document(found) if as_json else report.run(found, plan))


@command(
    "onnxmorph sweep train.py:train model.onnx --budget flops=100% --shrink flops=60% --seed 0 --seed 1 --out runs"
)
def sweep(
    train: Function,
    model: Model,
    budget: Annotated[list[str], typer.Option(metavar="COST=AMOUNT", help="As for morph. Repeatable.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="The folder of the sweep, with a folder per job.")],
    shrink: Annotated[list[str] | None, typer.Option(metavar="COST=AMOUNT", help=f"{ABOUT_SHRINK} Repeatable.")] = None,
    seed: Annotated[list[int] | None, typer.Option(min=0, metavar="N", help="Seed of a job; 0. Repeatable.")] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="How many jobs at a time, as processes of this machine; 1.")
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Run the jobs on Ray: local (a cluster here), auto (the one that runs), or an address.",
        ),
    ] = None,
    cpus: Annotated[float, typer.Option(min=0.0, metavar="N", help="With --ray: CPUs of one job.")] = 1.0,
    gpus: Annotated[float, typer.Option(min=0.0, metavar="N", help="With --ray: GPUs of one job.")] = 0.0,
    rounds: Rounds = 3,
    tolerance: Tolerance = 0.05,
    round_to: RoundTo = None,
    min_width: MinWidth = None,
    keep: Keep = None,
    only: Only = None,
    freeze_before: FreezeBefore = None,
    freeze_after: FreezeAfter = None,
    init: InitIn = Init.preserve,
    device: DeviceIn = None,
    shape: Shapes = None,
    as_json: AsJson = False,
) -> int:
    """Run morph for every combination of budgets, targets and seeds; exit 1 if a job failed.

    A job is a process, and prints into its folder. Jobs that are done are not run again.
    """
    if ray is not None and jobs is not None:
        raise UsageError("--jobs is for processes of this machine; on Ray --cpus and --gpus say what a job takes.")
    _check(*budget, *(shrink or ()))
    from onnxmorph import report, sweeps
    from onnxmorph.bounds import Bounds
    from onnxmorph.rounds import Plan

    plan = Plan(
        rounds=rounds,
        tolerance=tolerance,
        init=init.value,
        round_to=multiple(round_to),
        bounds=bounds_of(keep, only, freeze_before, freeze_after, min_width, round_to) or Bounds(),
        device=device,
        shapes=shapes_of(shape),
    )
    plans = sweeps.grid(plan, budget, shrink or [None], seed or [0])
    with redirect_stdout(sys.stderr), Meter("Running", inf, len(plans), "jobs") as meter:
        found = sweeps.sweep(
            train, model, plans, out, jobs=jobs or 1, ray=ray, cpus=cpus, gpus=gpus, progress=meter.advance
        )
    show(report.sweep_document(found) if as_json else report.sweep(found))
    return 1 if found.failed else 0


def _check(*budgets: str | None) -> None:
    """What is malformed is wrong usage."""
    for budget in budgets:
        if budget is not None:
            budget_of(budget)
