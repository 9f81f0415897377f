"""The command line. Results go to stdout, progress and errors to stderr; nothing heavy is imported for ``--help``.

Exit codes: 0 fine, 1 cannot do it, 2 wrong usage, 130 interrupted, 141 the reader of stdout has gone.
"""

from __future__ import annotations

import inspect
import json
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import typer

from onnxmorph.errors import OnnxMorphError

if TYPE_CHECKING:
    from onnxmorph.analysis import Analysis
    from onnxmorph.structure import Structure
    from onnxmorph.surgery import Morphed

# The base of every complaint about arguments. typer has carried its own copy of click since 0.2x; both have this.
UsageError: Any = typer.BadParameter.__mro__[1]


class By(StrEnum):
    """Ways to rank channels."""

    l1 = "l1"
    l2 = "l2"
    bn = "bn"
    random = "random"


class Init(StrEnum):
    """Weights of new channels."""

    preserve = "preserve"
    fresh = "fresh"


class Data(StrEnum):
    """Images of the demo."""

    digits = "digits"
    cifar10 = "cifar10"


F = TypeVar("F", bound=Callable[..., Any])

_ABOUT = "Learn the width of every layer of an ONNX model for the resource you target; shrink it, expand it."

app = typer.Typer(
    name="onnxmorph",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def _help(text: str, example: str) -> str:
    """Help with an example, whose line is kept as it is."""
    return f"{text}\n\n\b\nExample:\n  {example}"


def _command(example: str) -> Callable[[F], F]:
    """Register a command; its help is its docstring with an example."""

    def register(function: F) -> F:
        return app.command(help=_help(inspect.cleandoc(function.__doc__ or ""), example))(function)

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


Model = Annotated[Path, typer.Argument(metavar="MODEL", help="The ONNX model.", show_default=False)]
Out = Annotated[Path, typer.Option("--output", "-o", metavar="OUT", help="The model to write.")]
StructureIn = Annotated[
    Path, typer.Option("--structure", metavar="S.json", help="Which channels live, as shrink saved it.")
]
BudgetIn = Annotated[
    str,
    typer.Option(
        metavar="COST=AMOUNT",
        help="At most this: flops=50%, or params=1.2M,flops=1G. Costs: flops, macs, params, activations, "
        "classic_flops, classic_params. Shares are of MODEL.",
    ),
]
RoundTo = Annotated[int, typer.Option(min=1, metavar="N", help="Make widths multiples of N.")]
InitIn = Annotated[
    Init,
    typer.Option(help="Weights of new channels: preserve copies live ones, fresh draws them."),
]
Seed = Annotated[int, typer.Option(min=0, metavar="N", help="Seed of everything random.")]
SaveStructure = Annotated[Path | None, typer.Option(metavar="S.json", help="Write which channels live, as JSON.")]
Shapes = Annotated[
    list[str] | None,
    typer.Option("--shape", metavar="NAME:DIMS", help="Size of a dynamic input, e.g. input:1,3,224,224. Repeatable."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object, for machines.")]


@_command("onnxmorph analyze resnet18.onnx --shape input:1,3,224,224")
def analyze(model: Model, shape: Shapes = None, as_json: AsJson = False) -> None:
    """Show what a model costs, which channels can go, and what one of each costs."""
    from onnxmorph import report

    analysis = _analyze(model, shape)
    with _working("Counting"):
        result = report.document(analysis) if as_json else report.analysis(analysis)
    _show(result)


@_command("onnxmorph shrink resnet18.onnx -o small.onnx --budget flops=50%")
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
            help="Remove the channels that matter least until this holds, e.g. flops=50% or params=1.2M,flops=1G.",
        ),
    ] = None,
    by: Annotated[
        By | None, typer.Option(help="With --budget: how channels are ranked, l1 if not given.", show_default=False)
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, metavar="N", help="With --budget: seed of --by random.")] = None,
    round_to: RoundTo = 1,
    save_structure: SaveStructure = None,
    shape: Shapes = None,
    as_json: AsJson = False,
) -> None:
    """Remove channels and keep the trained weights of the others."""
    if (structure is None) == (budget is None):
        raise UsageError("Give either --structure or --budget.")
    if structure is not None and (by is not None or seed is not None):
        raise UsageError("--by and --seed choose channels for a --budget; with --structure they are chosen.")
    _check_outputs([model, structure], output, save_structure)
    from onnxmorph import surgery

    wanted = None if budget is None else _budget(budget)
    lives = None if structure is None else _structure(structure)
    analysis = _analyze(model, shape, output, save_structure)
    with _working("Shrinking"):
        how = (by or By.l1).value
        result = surgery.shrink(analysis, lives, budget=wanted, by=how, seed=seed or 0, round_to=round_to)
    _deliver(result, output, save_structure, as_json)


@_command("onnxmorph scale resnet18.onnx -o half.onnx --budget flops=50% --round-to 8")
def scale(
    model: Model,
    output: Out,
    budget: BudgetIn,
    round_to: RoundTo = 1,
    init: InitIn = Init.preserve,
    seed: Seed = 0,
    save_structure: SaveStructure = None,
    shape: Shapes = None,
    as_json: AsJson = False,
) -> None:
    """Multiply all widths by one number, the largest that the budget allows."""
    _check_outputs([model], output, save_structure)
    from onnxmorph import surgery

    wanted = _budget(budget)
    analysis = _analyze(model, shape, output, save_structure)
    with _working("Scaling"):
        result = surgery.scale(analysis, wanted, round_to=round_to, init=init.value, seed=seed)
    _deliver(result, output, save_structure, as_json)


@_command("onnxmorph expand resnet18.onnx -o big.onnx --structure s.json --budget flops=100%")
def expand(
    model: Model,
    structure: StructureIn,
    output: Out,
    budget: BudgetIn,
    round_to: RoundTo = 1,
    init: InitIn = Init.preserve,
    seed: Seed = 0,
    save_structure: SaveStructure = None,
    shape: Shapes = None,
    as_json: AsJson = False,
) -> None:
    """Widen the live channels of a structure uniformly until the budget is full again.

    MODEL is the original that the structure was made from.
    """
    _check_outputs([model, structure], output, save_structure)
    from onnxmorph import surgery

    wanted, lives = _budget(budget), _structure(structure)
    analysis = _analyze(model, shape, output, save_structure)
    with _working("Expanding"):
        result = surgery.expand(analysis, lives, wanted, round_to=round_to, init=init.value, seed=seed)
    _deliver(result, output, save_structure, as_json)


@_command("onnxmorph verify resnet18.onnx small.onnx --structure s.json")
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

    lives = _structure(structure)
    analysis = _analyze(model, shape)
    with _working("Running both models"):
        found = surgery.verify(analysis, small, lives, samples=samples, seed=seed)
    _show(report.verification_document(found) if as_json else report.verification(found, small))
    return 0 if found.ok else 1


@_command("onnxmorph demo --out out/demo")
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


# -- steps of the commands -----------------------------------------------------------------------


def _check_outputs(sources: Sequence[Path | None], *outputs: Path | None) -> None:
    """Refuse, before the work, what could not be written or would overwrite what is read."""
    from onnxmorph.model import check_output

    given = [path for path in outputs if path is not None]
    taken = [path for path in sources if path is not None]
    for path in given:
        if any(_same(path, other) for other in taken):
            raise UsageError(f"{path} is read or written already; give the result a name of its own.")
        taken.append(path)
    for path in given:
        check_output(path)


def _same(a: Path, b: Path) -> bool:
    return a.resolve() == b.resolve() or (a.exists() and b.exists() and a.samefile(b))


def _analyze(model: Path, shape: Sequence[str] | None, *outputs: Path | None) -> Analysis:
    shapes = dict(_shape(text) for text in shape or ())
    with _working("Reading the model"):
        from onnxmorph.analysis import analyze
        from onnxmorph.model import files_of

        analysis = analyze(model, shapes)
    _check_outputs(files_of(analysis.graph), *outputs)
    return analysis


def _shape(text: str) -> tuple[str, tuple[int, ...]]:
    name, _, sizes = text.rpartition(":")  # names may hold colons
    try:
        dims = tuple(int(size) for size in sizes.split(","))
    except ValueError:
        dims = ()
    if not name or not dims or min(dims) < 1:
        raise UsageError(f"--shape {text}: write NAME:DIMS, e.g. input:1,3,224,224.")
    return name, dims


def _budget(text: str) -> Any:
    from onnxmorph.budget import Budget
    from onnxmorph.errors import BudgetError

    try:
        return Budget.parse(text)
    except BudgetError as e:
        raise UsageError(str(e)) from None


def _structure(path: Path) -> Structure:
    from onnxmorph.structure import Structure

    return Structure.load(path)


def _deliver(result: Morphed, output: Path, save_structure: Path | None, as_json: bool) -> None:
    from onnxmorph import report

    with _working("Writing"):
        result.save(output)
        if save_structure is not None:
            result.structure.save(save_structure)
    if as_json:
        _show(report.morphed_document(result, output, save_structure))
    else:
        _show(report.morphed(result, output, save_structure))


# -- output --------------------------------------------------------------------------------------


def _show(result: Any) -> None:
    """A JSON object, or a list of what rich can draw; in one piece, so that a closed pipe is met here."""
    if isinstance(result, dict):
        _write(json.dumps(result, indent=2, allow_nan=False) + "\n")
        return
    from rich.console import Console

    console = Console(highlight=False, markup=False, emoji=False)
    console.width = min(console.width, 100)
    with console.capture() as drawn:
        for each in result:
            console.print(each, soft_wrap=isinstance(each, str))  # a path is not broken into lines
    _write(drawn.get())


class ReaderGone(Exception):
    """Nobody reads stdout any more; not an OSError, of which typer would make exit code 1."""


def _write(text: str) -> None:
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise ReaderGone from None


@contextmanager
def _working(what: str) -> Iterator[None]:
    """A spinner on stderr, where that is a terminal."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(f"{what} …"):
        yield


def _explain(e: BaseException) -> tuple[int, str, str]:
    """Exit code, error code and sentence."""
    if isinstance(e, OnnxMorphError):
        return 1, e.code, str(e)
    if isinstance(e, UsageError):
        return 2, "usage", e.format_message()
    if isinstance(e, MemoryError):
        return 1, "memory", "there is not enough memory for this model; use a machine with more"
    if isinstance(e, RecursionError):
        return 1, "depth", "the model is nested too deeply to be read; export it flat"
    if isinstance(e, OSError):
        return 1, "system", f"{e.filename or 'the system'}: {e.strerror or e}; free it or choose another place"
    reason = f"{type(e).__name__}: {e}"
    advice = "please report it with the model; ONNXMORPH_DEBUG=1 shows the traceback"
    return 1, "bug", f"this is a bug of onnxmorph ({reason[:300]}): {advice}"


def _complain(code: str, message: str, as_json: bool) -> None:
    from onnxmorph.report import plain

    if as_json:
        print(json.dumps({"error": {"code": code, "message": message}}))
    else:
        print(f"error: {plain(message)}  [{code}]", file=sys.stderr)


def run(argv: Sequence[str]) -> int:
    """Run one command and give the exit code; every failure ends as one sentence."""
    as_json = "--json" in argv
    logging.getLogger("onnx_ir").setLevel(logging.CRITICAL)  # what it warns of ends as an error here
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            code = app(list(argv) or ["--help"], prog_name="onnxmorph", standalone_mode=False) or 0
        code = code if argv else 2
        sys.stdout.flush()
    except (ReaderGone, BrokenPipeError):
        _drop_stdout()
        return 141
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    except Exception as e:
        if os.environ.get("ONNXMORPH_DEBUG"):
            import traceback

            traceback.print_exc()
        code, name, message = _explain(e)
        _complain(name, message, as_json)
        return _flushed(code)
    if code == 130:
        _complain("interrupted", "interrupted; nothing was written", as_json)
    return _flushed(int(code))


def _flushed(code: int) -> int:
    try:
        sys.stdout.flush()
    except OSError:  # a full disk, or nobody reads: there is nowhere left to say so
        _drop_stdout()
    return code


def _drop_stdout() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main() -> NoReturn:
    """The entry point."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr] # a terminal without UTF-8
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
