"""What several commands do: read options, analyse, write results. Heavy modules are imported when needed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxmorph.cli.options import UsageError
from onnxmorph.cli.output import show, working

if TYPE_CHECKING:
    from onnxmorph.analysis import Analysis
    from onnxmorph.bounds import Bounds
    from onnxmorph.structure import Structure
    from onnxmorph.surgery import Morphed


def check_outputs(sources: Sequence[Path | None], *outputs: Path | None, force: bool | None = None) -> None:
    """Refuse, before the work, what could not be written or would overwrite what is read.

    With ``force`` the latter may be; None: the command has no such option.
    """
    from onnxmorph.files import check_output, weights_beside

    given = [path for path in outputs if path is not None]
    targets = [check_output(path) for path in given]
    read = [path for path in sources if path is not None and not force]
    for i, (path, target) in enumerate(zip(given, targets, strict=True)):
        if any(_same(each, other) for each in (target, *weights_beside(target)) for other in read):
            also = "" if force is None else ", or say --force"
            raise UsageError(f"{path} would replace a file that is read; give the result a name of its own{also}.")
        if target in targets[:i]:
            raise UsageError(f"{path} is written already; give the result a name of its own.")


def _same(a: Path, b: Path) -> bool:
    return a.resolve() == b.resolve() or (a.exists() and b.exists() and a.samefile(b))


def analyzed(
    model: Path,
    shape: Sequence[str] | None,
    *outputs: Path | None,
    bounds: Bounds | None = None,
    structure: Structure | None = None,
    device: str | None = None,
    force: bool | None = None,
) -> Analysis:
    """Of the model, under the boundaries given or else the structure's; a device's costs are those of the analysis too.

    As in `check_outputs`, no output may overwrite the model's weights or the device.
    """
    if bounds is None and structure is not None:
        bounds = structure.bounds
    shapes = shapes_of(shape)
    with working("Reading the model"):
        from onnxmorph.analysis import analyze
        from onnxmorph.model import files_of

        if device is None:
            analysis = analyze(model, shapes, bounds=bounds)
        else:
            from onnxmorph import latency

            target = latency.load(device)  # a wrong name is known before the work
            analysis = analyze(model, shapes, bounds=bounds)
            analysis = analysis.with_costs(**latency.costs(analysis, target))
    check_outputs([*files_of(analysis.graph), None if device is None else Path(device)], *outputs, force=force)
    return analysis


def shapes_of(given: Sequence[str] | None) -> dict[str, tuple[int, ...]]:
    """Input to sizes, from options."""
    return dict(_shape(text) for text in given or ())


def _shape(text: str) -> tuple[str, tuple[int, ...]]:
    name, _, sizes = text.rpartition(":")  # names may hold colons
    try:
        dims = tuple(int(size) for size in sizes.split(","))
    except ValueError:
        dims = ()
    if not name or not dims or min(dims) < 1:
        raise UsageError(f"--shape {text}: write NAME:DIMS, e.g. input:1,3,224,224.")
    return name, dims


Patterns = Sequence[str] | None
AUTO = "auto"


def bounds_of(
    keep: Patterns,
    only: Patterns,
    freeze_before: Patterns,
    freeze_after: Patterns,
    min_width: Patterns = None,
    round_to: Patterns = None,
) -> Bounds | None:
    """From options; None where none is given. A multiple for all groups is no boundary but an aim of the search."""
    from onnxmorph.bounds import Bounds

    least, multiples = _numbers("--min-width", min_width), _numbers("--round-to", _patterned(round_to))
    multiples.pop("", None)
    if "" in least:
        least = {"*": least.pop(""), **least}
    bounds = Bounds(keep or (), only or (), freeze_before or (), freeze_after or (), least, multiples)
    return bounds if bounds else None


def multiple(round_to: Patterns) -> int | str:
    """What widths are multiples of, where no pattern says otherwise; of several the last counts."""
    whole = [text for text in round_to or () if "=" not in text]
    return AUTO if whole[-1:] == [AUTO] else _numbers("--round-to", whole).get("", 1)


def _patterned(round_to: Patterns) -> Patterns:
    return [text for text in round_to or () if text != AUTO]


def _numbers(option: str, given: Patterns) -> dict[str, int]:
    """Pattern to number; the pattern of a number alone is ""."""
    found = {}
    for text in given or ():
        pattern, equals, number = text.rpartition("=")
        if not number.isdecimal() or int(number) < 1 or bool(equals) != bool(pattern):
            also = ", or auto" if option == "--round-to" else ""
            raise UsageError(f"{option} {text}: write N or PATTERN=N, N a whole number from 1{also}.")
        found[pattern] = int(number)
    return found


def budget_of(text: str) -> Any:
    """From an option; what is malformed is wrong usage."""
    from onnxmorph.budget import Budget
    from onnxmorph.errors import BudgetError

    try:
        return Budget.parse(text)
    except BudgetError as e:
        raise UsageError(str(e)) from None


def gradients_of(path: Path) -> Any:
    """From a file."""
    from onnxmorph.importance import load_gradients

    return load_gradients(path)


def structure_of(path: Path) -> Structure:
    """From a file."""
    from onnxmorph.structure import Structure

    return Structure.load(path)


def deliver(result: Morphed, output: Path, save_structure: Path | None, as_json: bool) -> None:
    """Write a model, and its structure where asked for, and show what was done."""
    from onnxmorph import report

    with working("Writing"):
        result.save(output)
        if save_structure is not None:
            result.structure.save(save_structure)
    if as_json:
        show(report.morphed_document(result, output, save_structure))
    else:
        show(report.morphed(result, output, save_structure))
