"""The commands that call the user's own train function."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from math import inf
from pathlib import Path
from typing import Annotated

import typer

from onnxmorph.cli.application import TRAIN, command
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
    Only,
    RoundTo,
    Seed,
    Shapes,
    Stored,
    UsageError,
    Verbose,
    budget_option,
    output_option,
    seed_option,
    shrink_option,
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
    Path, output_option("The folder of the results; what was stopped goes on in the one that it has.", "DIR")
]
REPEATABLE = " Repeatable."
Rounds = Annotated[int, typer.Option(min=1, metavar="N", help="How often to train, shrink and expand at most.")]
Tolerance = Annotated[
    float,
    typer.Option(
        min=0.0, max=0.99, metavar="SHARE", help="Stop where a round moved no more of the channels than this."
    ),
]


@command("onnxmorph morph train.py:train model.onnx --budget flops=100% --shrink flops=60% -o run", TRAIN)
def morph(
    train: Function,
    model: Stored,
    output: OutFolder,
    budget: BudgetIn,
    shrink: Annotated[str | None, shrink_option()] = None,
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
    verbose: Verbose = False,
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
        found = algorithm.morph(train, model, plan, output, progress=telling)
    show(report.run_document(found) if as_json else report.run(found, plan, verbose))


@command(
    "onnxmorph sweep train.py:train model.onnx --budget flops=100% --shrink flops=60% --seed 0 --seed 1 -o runs", TRAIN
)
def sweep(
    train: Function,
    model: Stored,
    output: OutFolder,
    budget: Annotated[list[str], budget_option(REPEATABLE)],
    shrink: Annotated[list[str] | None, shrink_option(REPEATABLE)] = None,
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
    seed: Annotated[list[int] | None, seed_option(REPEATABLE)] = None,
    device: DeviceIn = None,
    shape: Shapes = None,
    verbose: Verbose = False,
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
            train, model, plans, output, jobs=jobs or 1, ray=ray, cpus=cpus, gpus=gpus, progress=meter.advance
        )
    show(report.sweep_document(found) if as_json else report.sweep(found, verbose))
    return 1 if found.failed else 0


def _check(*budgets: str | None) -> None:
    """What is malformed is wrong usage."""
    for budget in budgets:
        if budget is not None:
            budget_of(budget)
