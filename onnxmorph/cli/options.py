"""The options of the commands: one name, one word for what it takes and one help for the same thing everywhere.

Commands list what they have of these in this order: what is written, what is asked for, what has to stay, what else
decides, how results are shown.
"""

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


def _costs(given: str) -> list[str]:
    """Completes the name of a cost."""
    done, comma, begun = given.rpartition(",")
    return [f"{done}{comma}{name}=" for name in COSTS if name.startswith(begun)]


def _devices(given: str) -> list[str]:
    """Completes the name of a device that ships."""
    from importlib.resources import files

    names = (file.name.removesuffix(".toml") for file in files("onnxmorph.devices").iterdir())
    return sorted(name for name in names if name.startswith(given) and not name.startswith("_"))


COSTS = (
    "flops", "macs", "params", "param_bytes", "activations", "activation_bytes", "bytes_moved", "peak_memory",
    "classic_flops", "classic_params", "latency", "classic_latency",
)  # fmt: skip
COST = "COST=AMOUNT"
ABOUT_BUDGET = (
    f"At most this: flops=50%, or several: params=1.2M,peak_memory=64MB. Costs: {', '.join(COSTS[:-2])}; with --device "
    "also latency=3ms, classic_latency. Shares are of MODEL."
)
ABOUT_SHRINK = (
    "What a round trains towards; shares are of the network of that round. 60% of each cost in --budget if not given."
)
ABOUT_STRUCTURE = "Which channels live, as --save-structure writes it."
ABOUT_SEED = "Seed of everything random; 0 if not given."
ABOUT_DEVICE = (
    "Add the latency on a device: one that ships with onnxmorph (l4, raspberry-pi-5 …), or a TOML file, as calibrate "
    "writes it."
)


def budget_option(more: str = "") -> Any:
    """The option of a budget, with more to say of it."""
    return typer.Option("--budget", metavar=COST, help=f"{ABOUT_BUDGET}{more}", autocompletion=_costs)


def shrink_option(more: str = "") -> Any:
    """The option of what rounds train towards, with more to say of it."""
    return typer.Option("--shrink", metavar=COST, help=f"{ABOUT_SHRINK}{more}", autocompletion=_costs)


def seed_option(more: str = "") -> Any:
    """The option of a seed, with more to say of it."""
    return typer.Option("--seed", min=0, metavar="N", help=f"{ABOUT_SEED}{more}", show_default=False)


def device_option() -> Any:
    """The option of a device."""
    return typer.Option("--device", metavar="NAME|FILE", help=ABOUT_DEVICE, autocompletion=_devices, show_default=False)


def output_option(what: str, metavar: str = "FILE") -> Any:
    """The option of what is written."""
    return typer.Option("--output", "-o", metavar=metavar, help=what)


Model = Annotated[
    Path, typer.Argument(metavar="MODEL", help="The ONNX model; - reads it from stdin.", show_default=False)
]
Stored = Annotated[Path, typer.Argument(metavar="MODEL", help="The ONNX model.", show_default=False)]
Out = Annotated[Path, output_option("The model to write; - writes it to stdout.")]
StructureIn = Annotated[Path, typer.Option("--structure", metavar="FILE", help=ABOUT_STRUCTURE)]
BudgetIn = Annotated[str, budget_option()]
ByIn = Annotated[
    By | None,
    typer.Option("--by", help="With --budget: how channels are scored, magnitude if not given.", show_default=False),
]
GradientsIn = Annotated[
    Path | None, typer.Option("--gradients", metavar="FILE", help="With --by taylor: gradients by parameter name, NPZ.")
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
InitIn = Annotated[
    Init,
    typer.Option("--init", help="Weights of new channels: preserve copies live ones, fresh draws them."),
]
Seed = Annotated[int, seed_option()]
SaveStructure = Annotated[Path | None, typer.Option(metavar="FILE", help="Write which channels live, as JSON.")]
DeviceIn = Annotated[str | None, device_option()]
Force = Annotated[bool, typer.Option("--force", help="Let a result take the place of a file that is read.")]
Shapes = Annotated[
    list[str] | None,
    typer.Option("--shape", metavar="NAME:DIMS", help="Size of a dynamic input, e.g. input:1,3,224,224. Repeatable."),
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show every row, and why.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object, for programs: docs/json.md.")]
