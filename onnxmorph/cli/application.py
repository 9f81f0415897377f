"""The program that commands register with, and its own options."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import typer

F = TypeVar("F", bound=Callable[..., Any])

_ABOUT = "Learn the width of every layer of an ONNX model for the resource you target; shrink it, expand it."

LOOK, CHANGE, MEASURE, TRAIN = "Look at networks", "Change networks", "Measure", "Train"  # panels of the help

app = typer.Typer(
    name="onnxmorph",
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def _help(text: str, example: str) -> str:
    """Help with an example, whose line is kept as it is."""
    return f"{text}\n\n\b\nExample:\n  {example}"


def command(example: str, panel: str | None = None) -> Callable[[F], F]:
    """Register a command; its help is its docstring with an example, and its name stands under `panel`."""

    def register(function: F) -> F:
        return app.command(help=_help(inspect.cleandoc(function.__doc__ or ""), example), rich_help_panel=panel)(
            function
        )

    return register


def _version(wanted: bool) -> None:
    if wanted:
        from onnxmorph import __version__

        print(f"onnxmorph {__version__}")
        raise typer.Exit


@app.callback(help=_help(_ABOUT, "onnxmorph shrink resnet18.onnx -o small.onnx --budget flops=50%"))
def _program(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options of the program itself."""
