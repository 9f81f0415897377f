"""The options of the commands, in the order that the help shows them."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

# The base of every complaint about arguments. typer has carried its own copy of click since 0.2x; both have this.
UsageError: Any = typer.BadParameter.__mro__[1]


class By(StrEnum):
    """Ways to score channels."""

    magnitude = "magnitude"
    l1 = "l1"
    l2 = "l2"
    bn = "bn"
    taylor = "taylor"
    random = "random"


class Init(StrEnum):
    """Weights of new channels."""

    preserve = "preserve"
    fresh = "fresh"


class Data(StrEnum):
    """Images of the demo."""

    digits = "digits"
    cifar10 = "cifar10"


Model = Annotated[Path, typer.Argument(metavar="MODEL", help="The ONNX model.", show_default=False)]
Out = Annotated[Path, typer.Option("--output", "-o", metavar="OUT", help="The model to write.")]
StructureIn = Annotated[
    Path, typer.Option("--structure", metavar="S.json", help="Which channels live, as shrink saved it.")
]
BudgetIn = Annotated[
    str,
    typer.Option(
        metavar="COST=AMOUNT",
        help="At most this: flops=50%, or several: params=1.2M,peak_memory=64MB. Costs: flops, macs, params, "
        "param_bytes, activations, activation_bytes, bytes_moved, peak_memory, classic_flops, classic_params; "
        "with --device also latency=3ms, classic_latency. Shares are of MODEL.",
    ),
]
ByIn = Annotated[
    By | None, typer.Option(help="With --budget: how channels are scored, magnitude if not given.", show_default=False)
]
GradientsIn = Annotated[
    Path | None, typer.Option(metavar="FILE.npz", help="With --by taylor: gradients by parameter name.")
]
RoundTo = Annotated[
    list[str] | None,
    typer.Option(
        metavar="[PATTERN=]N|auto",
        help="Make widths multiples of N, or with auto of what the costs in the budget reward; PATTERN= those of the "
        "groups of tensors, nodes or groups that match. Repeatable. Heads, norm groups and convolution groups go whole "
        "in any case.",
    ),
]
MinWidth = Annotated[
    list[str] | None,
    typer.Option(metavar="[PATTERN=]N", help="Leave every group at least N channels, or those that match. Repeatable."),
]
Keep = Annotated[
    list[str] | None,
    typer.Option(metavar="PATTERN", help="Keep all channels of matching tensors, nodes or groups. Repeatable."),
]
Only = Annotated[
    list[str] | None,
    typer.Option(metavar="PATTERN", help="Cut channels of matching tensors, nodes or groups only. Repeatable."),
]
FreezeBefore = Annotated[
    list[str] | None, typer.Option(metavar="TENSOR", help="Keep all that this tensor depends on. Repeatable.")
]
FreezeAfter = Annotated[
    list[str] | None, typer.Option(metavar="TENSOR", help="Keep all that depends on this tensor. Repeatable.")
]
DeviceIn = Annotated[
    str | None,
    typer.Option(
        "--device",
        metavar="NAME|FILE",
        help="Add the latency on a device: one that ships with onnxmorph (l4, raspberry-pi-5 …), or a TOML file.",
        show_default=False,
    ),
]
InitIn = Annotated[
    Init,
    typer.Option(help="Weights of new channels: preserve copies live ones, fresh draws them."),
]
Seed = Annotated[int, typer.Option(min=0, metavar="N", help="Seed of everything random.")]
SaveStructure = Annotated[Path | None, typer.Option(metavar="S.json", help="Write which channels live, as JSON.")]
Force = Annotated[bool, typer.Option("--force", help="Let a result take the place of a file that is read.")]
Shapes = Annotated[
    list[str] | None,
    typer.Option("--shape", metavar="NAME:DIMS", help="Size of a dynamic input, e.g. input:1,3,224,224. Repeatable."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object, for machines.")]
