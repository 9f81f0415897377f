"""The command that puts two networks side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onnxmorph.cli.application import LOOK, command
from onnxmorph.cli.options import AsJson, DeviceIn, Shapes, Verbose
from onnxmorph.cli.output import show, working
from onnxmorph.cli.steps import compared

ABOUT = "A model or a structure; - reads a model from stdin."


@command("onnxmorph diff resnet18.onnx small.onnx", LOOK)
def diff(
    before: Annotated[Path, typer.Argument(metavar="BEFORE", help=ABOUT, show_default=False)],
    after: Annotated[Path, typer.Argument(metavar="AFTER", help=ABOUT, show_default=False)],
    device: DeviceIn = None,
    shape: Shapes = None,
    verbose: Verbose = False,
    as_json: AsJson = False,
) -> None:
    """Compare two networks: costs, widths, shapes of parameters and topology; or what structures make of them."""
    from onnxmorph import differences, report

    one, other = compared(before, after, shape, device)
    with working("Comparing"):
        found = differences.diff(one, other, names=(str(before), str(after)))
    show(report.difference_document(found) if as_json else report.difference(found, verbose))
