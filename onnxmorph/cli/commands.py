"""The commands: each reads its options, calls the package and shows the result."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from onnxmorph.cli.application import command
from onnxmorph.cli.options import (
    AsJson,
    BudgetIn,
    By,
    ByIn,
    Data,
    DeviceIn,
    Force,
    FreezeAfter,
    FreezeBefore,
    GradientsIn,
    Init,
    InitIn,
    Keep,
    MinWidth,
    Model,
    Only,
    Out,
    RoundTo,
    SaveStructure,
    Seed,
    Shapes,
    StructureIn,
    UsageError,
)  # fmt: skip
from onnxmorph.cli.output import show, working
from onnxmorph.cli.steps import (
    analyzed,
    bounds_of,
    budget_of,
    check_outputs,
    deliver,
    gradients_of,
    multiple,
    structure_of,
)
from onnxmorph.errors import OnnxMorphError


@command("onnxmorph analyze resnet18.onnx --shape input:1,3,224,224")
def analyze(
    model: Model,
    keep: Keep = None,
    only: Only = None,
    freeze_before: FreezeBefore = None,
    freeze_after: FreezeAfter = None,
    device: DeviceIn = None,
    shape: Shapes = None,
    as_json: AsJson = False,
) -> None:
    """Show what a model costs, which channels can go, and what one of each costs."""
    from onnxmorph import report

    analysis = analyzed(model, shape, bounds=bounds_of(keep, only, freeze_before, freeze_after), device=device)
    with working("Counting"):
        if as_json:
            result: Any = {**report.document(analysis), **report.latency_document(analysis)}
        else:
            result = [*report.analysis(analysis), *report.latency(analysis)]
    show(result)


@command("onnxmorph explain resnet18.onnx layer1.0.conv1.weight --svg why.svg")
def explain(
    model: Model,
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]",
            help="A group, a tensor, one of its axes (TENSOR:AXIS) or a node; without it the groups are listed.",
            show_default=False,
        ),
    ] = None,
    dot: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a diagram, as text for graphviz.")] = None,
    svg: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a diagram, as a picture.")] = None,
    keep: Keep = None,
    only: Only = None,
    freeze_before: FreezeBefore = None,
    freeze_after: FreezeAfter = None,
    shape: Shapes = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Say what is cut together and by which ops, what it costs, and why the rest stays."""
    if name is None and (dot is not None or svg is not None):
        raise UsageError("--dot and --svg draw what a NAME stands for; give one.")
    check_outputs([model], dot, svg, force=force)
    from onnxmorph import report

    bounds = bounds_of(keep, only, freeze_before, freeze_after)
    analysis = analyzed(model, shape, dot, svg, bounds=bounds, force=force)
    if name is None:
        return show(report.names_document(analysis) if as_json else report.names(analysis))
    from onnxmorph import diagram
    from onnxmorph.explain import explain as explained
    from onnxmorph.files import write_text

    with working("Explaining"):
        found = explained(analysis, name)
        for path, form in ((dot, diagram.dot), (svg, diagram.svg)):
            if path is not None:
                write_text(form(diagram.diagram(analysis, found)), path)
    return show(report.explanation_document(found) if as_json else report.explanation(found))


@command("onnxmorph shrink resnet18.onnx -o small.onnx --budget flops=50%")
def shrink(
    model: Model,
    output: Out,
    structure: Annotated[
        Path | None, typer.Option(metavar="S.json", help="Which channels live; or else --budget.")
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            metavar="COST=AMOUNT",
            help="Remove the channels that matter least for their cost until this holds: flops=50%, or several as "
            "params=1.2M,peak_memory=64MB.",
        ),
    ] = None,
    by: ByIn = None,
    gradients: GradientsIn = None,
    seed: Annotated[int | None, typer.Option(min=0, metavar="N", help="With --budget: seed of --by random.")] = None,
    round_to: RoundTo = None,
    min_width: MinWidth = None,
    keep: Keep = None,
    only: Only = None,
    freeze_before: FreezeBefore = None,
    freeze_after: FreezeAfter = None,
    allow_empty: Annotated[
        bool,
        typer.Option("--allow-empty", help="With --budget: remove whole groups too, where no output hangs on them."),
    ] = False,
    save_structure: SaveStructure = None,
    device: DeviceIn = None,
    shape: Shapes = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Remove channels and keep the trained weights of the others."""
    if (structure is None) == (budget is None):
        raise UsageError("Give either --structure or --budget.")
    if structure is not None and (by is not None or gradients is not None or seed is not None or allow_empty):
        message = (
            "--by, --gradients, --seed and --allow-empty choose channels for a --budget; a --structure chose them."
        )
        raise UsageError(message)
    if (by is By.taylor) != (gradients is not None):
        raise UsageError(
            "--by taylor and --gradients FILE.npz go together: docs/choosing.md says how to write the file."
        )
    check_outputs([model, structure, gradients], output, save_structure, force=force)
    from onnxmorph import surgery

    wanted = None if budget is None else budget_of(budget)
    lives = None if structure is None else structure_of(structure)
    bounds = bounds_of(keep, only, freeze_before, freeze_after, min_width, round_to)
    analysis = analyzed(
        model, shape, output, save_structure, bounds=bounds, structure=lives, device=device, force=force
    )
    with working("Shrinking"):
        result = surgery.shrink(
            analysis,
            lives,
            budget=wanted,
            by=(by or By.magnitude).value,
            seed=seed or 0,
            gradients=None if gradients is None else gradients_of(gradients),
            round_to=multiple(round_to),
            allow_empty=allow_empty,
        )
    deliver(result, output, save_structure, as_json)


@command("onnxmorph scale resnet18.onnx -o half.onnx --budget flops=50% --round-to 8")
def scale(
    model: Model,
    output: Out,
    budget: BudgetIn,
    round_to: RoundTo = None,
    min_width: MinWidth = None,
    keep: Keep = None,
    only: Only = None,
    freeze_before: FreezeBefore = None,
    freeze_after: FreezeAfter = None,
    init: InitIn = Init.preserve,
    seed: Seed = 0,
    save_structure: SaveStructure = None,
    device: DeviceIn = None,
    shape: Shapes = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Multiply all widths by one number, the largest that the budget allows."""
    check_outputs([model], output, save_structure, force=force)
    from onnxmorph import surgery

    wanted = budget_of(budget)
    bounds = bounds_of(keep, only, freeze_before, freeze_after, min_width, round_to)
    analysis = analyzed(model, shape, output, save_structure, bounds=bounds, device=device, force=force)
    with working("Scaling"):
        result = surgery.scale(analysis, wanted, round_to=multiple(round_to), init=init.value, seed=seed)
    deliver(result, output, save_structure, as_json)


@command("onnxmorph expand resnet18.onnx -o big.onnx --structure s.json --budget flops=100%")
def expand(
    model: Model,
    structure: StructureIn,
    output: Out,
    budget: BudgetIn,
    round_to: RoundTo = None,
    min_width: MinWidth = None,
    keep: Keep = None,
    only: Only = None,
    freeze_before: FreezeBefore = None,
    freeze_after: FreezeAfter = None,
    init: InitIn = Init.preserve,
    seed: Seed = 0,
    save_structure: SaveStructure = None,
    device: DeviceIn = None,
    shape: Shapes = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Widen the live channels of a structure uniformly until the budget is full again.

    MODEL is the original that the structure was made from.
    """
    check_outputs([model, structure], output, save_structure, force=force)
    from onnxmorph import surgery

    wanted, lives = budget_of(budget), structure_of(structure)
    bounds = bounds_of(keep, only, freeze_before, freeze_after, min_width, round_to)
    analysis = analyzed(
        model, shape, output, save_structure, bounds=bounds, structure=lives, device=device, force=force
    )
    with working("Expanding"):
        result = surgery.expand(analysis, lives, wanted, round_to=multiple(round_to), init=init.value, seed=seed)
    deliver(result, output, save_structure, as_json)


@command("onnxmorph verify resnet18.onnx small.onnx --structure s.json")
def verify(
    model: Model,
    small: Annotated[Path, typer.Argument(metavar="SMALL", help="The shrunk model.", show_default=False)],
    structure: StructureIn,
    samples: Annotated[int, typer.Option(min=1, metavar="N", help="How many random inputs to run.")] = 2,
    seed: Seed = 0,
    shape: Shapes = None,
    as_json: AsJson = False,
) -> int:
    """Run a shrunk model against the original with the removed channels at zero; exit 1 if they differ."""
    from onnxmorph import report, surgery

    lives = structure_of(structure)
    analysis = analyzed(model, shape, structure=lives)
    with working("Running both models"):
        found = surgery.verify(analysis, small, lives, samples=samples, seed=seed)
    show(report.verification_document(found) if as_json else report.verification(found, small))
    return 0 if found.ok else 1


@command("onnxmorph demo --out out/demo")
def demo(
    data: Annotated[Data, typer.Option(help="Which images to train on; digits need no download.")] = Data.digits,
    data_path: Annotated[Path | None, typer.Option(metavar="FILE", help="The file with the images of cifar10.")] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="The folder that everything is written to.")] = Path(
        "out/demo"
    ),
    seed: Seed = 0,
    as_json: AsJson = False,
) -> int:
    """Train a small network, shrink it to half its FLOPs, expand it again, and compare."""
    if data is Data.cifar10 and data_path is None:
        raise UsageError("--data cifar10 needs --data-path FILE, the file with its images.")
    try:
        from onnxmorph.adapters import demo as job
    except ImportError as e:
        message = f"the demo needs {e.name or 'its extra'}, which is not installed; pip install 'onnxmorph[demo]'"
        raise OnnxMorphError(message, code="demo-extra") from None
    return job.main(data=data.value, data_path=data_path, out=out, seed=seed, as_json=as_json)
