"""The command that writes a report to look at."""

from __future__ import annotations

from math import inf
from pathlib import Path
from typing import Annotated

import typer

from onnxmorph.cli.application import LOOK, command
from onnxmorph.cli.options import AsJson, DeviceIn, Shapes, UsageError, Verbose
from onnxmorph.cli.output import Meter, show, working
from onnxmorph.cli.steps import check_outputs, shapes_of


@command("onnxmorph report run -o report.html --figures figures", LOOK)
def report(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="SOURCE",
            help="Folders of morph, sweep and demo, structures (.json), models (.onnx), and tables (.csv): a log "
            "belongs to what stands before it. A structure finds its model here or beside itself.",
            show_default=False,
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The report to write: HTML.")],
    cost: Annotated[
        str,
        typer.Option(
            metavar="COST", help="What is shown first: flops, params, peak_memory … With a device also latency."
        ),
    ] = "flops",
    figures: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write each figure as SVG and PNG too (pip install 'onnxmorph[report]')."),
    ] = None,
    device: DeviceIn = None,
    shape: Shapes = None,
    verbose: Verbose = False,
    as_json: AsJson = False,
) -> None:
    """Write a report to look at: one HTML file with all there is to see of networks, structures and runs.

    Layers with their widths before and after, trade-offs, cost shares, training, what stays and why, and what went.
    """
    if output.suffix not in (".html", ".htm"):  # nor, then, anything that a folder among the sources holds
        raise UsageError(f"{output}: the report is HTML; give it a name that ends in .html.")
    check_outputs(sources, output)
    from onnxmorph.files import write_text
    from onnxmorph.report import page, reported, reported_document

    if figures is not None:
        from onnxmorph.report.page import figures as drawing
    paths = page.expanded(sources)
    with Meter("Reading", inf, len(paths), "sources") as meter:
        found = page.subjects(paths, page.Reader(shapes_of(shape), device, meter.advance))
    with working("Drawing"):
        document = page.document(found, cost)
        write_text(page.page(document), output)
        drawn = [] if figures is None else drawing.save_figures(document, figures)
    show(reported_document(document, output, drawn) if as_json else reported(document, output, drawn, verbose))
