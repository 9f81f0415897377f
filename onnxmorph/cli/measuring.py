"""The commands that run models on the user's machine to learn how long they take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onnxmorph.cli.application import MEASURE, command
from onnxmorph.cli.options import AsJson, Model, Seed, Shapes, Verbose, device_option, output_option
from onnxmorph.cli.output import Meter, show, working
from onnxmorph.cli.steps import analyzed, check_outputs, check_stream

Provider = Annotated[
    str, typer.Option(metavar="NAME", help="Execution provider of ONNX Runtime, e.g. CUDAExecutionProvider.")
]
Threads = Annotated[int, typer.Option(min=0, metavar="N", help="Threads of an op; 0 leaves it to ONNX Runtime.")]


@command("onnxmorph calibrate resnet18.onnx -o my-machine.toml --minutes 2", MEASURE)
def calibrate(
    model: Model,
    output: Annotated[Path, output_option("The device file; one that exists is added to.")],
    minutes: Annotated[float, typer.Option(min=0.0, metavar="N", help="How long to measure at most.")] = 3.0,
    runs: Annotated[int | None, typer.Option(min=1, metavar="N", help="How many widths to measure at most.")] = None,
    provider: Provider = "CPUExecutionProvider",
    threads: Threads = 0,
    seed: Seed = 0,
    shape: Shapes = None,
    verbose: Verbose = False,
    as_json: AsJson = False,
) -> None:
    """Measure how long a network takes here, at many widths; the file then serves as --device.

    What is measured is kept while it runs: call it again to go on, or with another network to teach it more.
    """
    check_stream(None, as_json, output)
    check_outputs([model], output)
    from onnxmorph import calibration, report

    analysis = analyzed(model, shape)
    most = calibration.MOST if runs is None else runs
    with Meter("Measuring", minutes * 60, most) as meter:
        found = calibration.calibrate(
            analysis,
            output,
            calibration.Place(provider, threads),
            minutes=minutes,
            most=most,
            seed=seed,
            progress=meter.advance,
        )
    show(report.calibration_document(found, output) if as_json else report.calibration(found, output, verbose))


@command("onnxmorph latency small.onnx --device my-machine.toml", MEASURE)
def latency(
    model: Model,
    *,
    measure: Annotated[
        bool,
        typer.Option("--measure/--no-measure", help="Measure too, where the file is of this machine; or predict only."),
    ] = True,
    seed: Seed = 0,
    device: Annotated[str, device_option()],
    shape: Shapes = None,
    verbose: Verbose = False,
    as_json: AsJson = False,
) -> None:
    """Compare how long a network should take with how long it does, kernel by kernel and in total."""
    from onnxmorph import calibration, report

    analysis = analyzed(model, shape, device=device)
    place, notes = calibration.place_of(device) if measure else (None, ())
    with working("Measuring"):
        found = calibration.compare(analysis, place, seed, notes)
    show(report.comparison_document(found) if as_json else report.comparison(found, verbose))
