"""The laws of surgery, for any network: cuts and permutations to try them with, and what must come out.

Each law raises AssertionError. They know no op and no network: tests hand them an analysis and inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from onnxmorph.analysis import Analysis, analyze
from onnxmorph.axes import Array
from onnxmorph.latency import Device, costs
from onnxmorph.rules import Take
from onnxmorph.surgery.emit import emit
from onnxmorph.surgery.reference import masked
from onnxmorph.surgery.verify import relative, run_session

TOLERANCE = 1e-5
NOISE = 0.1

Feeds = Mapping[str, NDArray[Any]]
Run = Callable[[ir.Model, Feeds], Sequence[Any]]


def in_runtime(model: ir.Model, feeds: Feeds) -> Sequence[Any]:
    """The outputs in ONNX Runtime."""
    found: Sequence[Any] = run_session(model)(feeds)
    return found


def random_cut(analysis: Analysis, rng: np.random.Generator, share: float = 0.5) -> Array:
    """That share of every group removed, rounded down."""
    copies = np.ones(analysis.channels + 1, np.int64)
    for group in analysis.groups:
        gone = rng.permutation(group.width)[: int(group.width * share)]
        copies[group.start + 1 + gone] = 0
    return copies


def counted(model: ir.Model) -> dict[str, int]:
    """Every cost of a model, by counting."""
    found = analyze(model)
    return found.count()


def predicted(analysis: Analysis, copies: Array) -> dict[str, int]:
    """Every cost of what a structure leads to, by the polynomials of the original."""
    widths = np.array([copies[g.start + 1 : g.start + 1 + g.width].sum() for g in analysis.groups])
    return analysis.count(widths)


def assert_same(wanted: Sequence[Any], found: Sequence[Any], law: str, tolerance: float = TOLERANCE) -> None:
    for i, (a, b) in enumerate(zip(wanted, found, strict=True)):
        if isinstance(a, list):  # a sequence of tensors
            assert_same(a, b, law, tolerance)
        elif not (np.array_equal(a, b) or (_is_numeric(a) and np.array_equal(a, b, equal_nan=True))):
            difference = distance(np.asarray(a), np.asarray(b)) if _is_numeric(a) else np.inf
            assert difference <= tolerance, f"{law}: output {i} differs by {difference:.1e} of its largest value"


def distance(a: NDArray[Any], b: NDArray[Any]) -> float:
    """As `relative`, but an output that cancels to nearly nothing is compared with ``NOISE`` and not with itself."""
    scale = float(np.abs(a.astype(np.float64)).max(initial=0))
    if scale >= NOISE or not np.isfinite(scale):
        return relative(a, b)
    return float(np.abs(a.astype(np.float64) - b).max()) / NOISE if a.shape == b.shape else float("inf")


def _is_numeric(array: NDArray[Any]) -> bool:
    return array.dtype.kind not in "OSU"


# ---------------------------------------------------------------- permutation


def shuffled(analysis: Analysis, rng: np.random.Generator) -> Array:
    """Where each channel goes when those of every group change places, ``[channels + 1]``."""
    image = np.arange(analysis.channels + 1)
    for group in analysis.groups:
        own = slice(group.start + 1, group.start + 1 + group.width)
        image[own] = rng.permutation(image[own])
    return image


def moved(array: NDArray[Any], rows: Sequence[Array | None], image: Array) -> NDArray[Any]:
    """The array with every channel c at the place of ``image[c]``; of several places the same in order."""
    for axis, labels in enumerate(rows):
        if labels is not None:
            here, there = (_places(each) for each in (labels, image[labels]))
            array = array.take([there[key] for key in here], axis)
    return array


def _places(labels: Array) -> dict[tuple[Any, ...], int]:
    """Position by (its channels, how many positions before it have the same)."""
    seen: dict[tuple[int, ...], int] = {}
    places = {}
    for position, row in enumerate(np.sort(labels, 1).tolist()):
        n = seen[tuple(row)] = seen.get(tuple(row), -1) + 1
        places[(*row, "at", n)] = position
    return places


def permuted(analysis: Analysis, image: Array) -> ir.Model:
    """The model with the channels of all parameters at other places, and nothing else changed."""
    model = analysis.graph.model.clone()
    for name in analysis.parameters:
        value = model.graph.initializers[name]
        array = moved(analysis.graph.weights(name), analysis.rows[name], image)
        assert value.const_value is not None
        value.const_value = ir.Tensor(np.asarray(array, order="C"), dtype=value.const_value.dtype, name=name)
    return model


def _takes(analysis: Analysis) -> Iterator[tuple[Take, Mapping[str, Array | None]]]:
    for plan, rows in zip(analysis.plans, analysis.factor_rows, strict=True):
        for take in plan.spec.takes:
            yield take, rows


def _is_picked_apart(rows: Array | None) -> bool:
    return rows is not None and len(np.unique(rows, axis=0)) < len(rows)


# ---------------------------------------------------------------- the laws


def permutation(
    analysis: Analysis, feeds: Feeds, seed: int, run: Run = in_runtime, tolerance: float = TOLERANCE
) -> None:
    """Channels that change places in all parameters change nothing: what is interchangeable, and all its ties.

    It uses nothing of the surgery, and fails wherever a tie is missing. It says nothing where an op picks single
    positions of a channel that has several: such channels cost the same, but are not interchangeable.
    """
    if any(_is_picked_apart(rows.get(take.of)) for take, rows in _takes(analysis)):
        return
    other = permuted(analysis, shuffled(analysis, np.random.default_rng(seed)))
    assert_same(run(analysis.graph.model, feeds), run(other, feeds), "permuted channels", tolerance)


def deletion(
    analysis: Analysis,
    feeds: Feeds,
    copies: Array,
    run: Run = in_runtime,
    tolerance: float = TOLERANCE,
    at: Analysis | None = None,
) -> None:
    """What is left computes what the original does with the removed channels at zero; the checker accepts it.

    ``at`` is the analysis for the sizes of `feeds`, where that of the cut is for others: masks have a size.
    """
    small = emit(analysis, copies)
    if _accepted(analysis.graph.model) is None:
        refusal = _accepted(small)
        assert refusal is None, f"the checker refuses what is left: {refusal}"
    assert_same(run(masked(at or analysis, copies), feeds), run(small, feeds), "removed channels", tolerance)


def _accepted(model: ir.Model) -> Exception | None:
    """What the checker has against a model."""
    try:
        onnx.checker.check_model(ir.to_proto(model), full_check=True)
    except Exception as e:  # of the checker and of shape inference: they share no base class
        return e
    return None


def prediction(analysis: Analysis, copies: Array) -> None:
    """The polynomials give what is counted afterwards, for every cost."""
    wanted, found = predicted(analysis, copies), counted(emit(analysis, copies))
    assert wanted == found, f"prediction: {wanted} is not what is counted, {found}"


def latency_prediction(analysis: Analysis, copies: Array, device: Device) -> None:
    """The modelled latency of what a structure leads to is that of the model which it leads to."""
    small = analyze(emit(analysis, copies))
    widths = np.array([copies[g.start + 1 : g.start + 1 + g.width].sum() for g in analysis.groups])
    for name, cost in costs(analysis, device).items():
        wanted, found = cost.value(widths), costs(small, device)[name].value(small.widths)
        assert np.isclose(wanted, found, rtol=1e-9, atol=0), f"prediction: {name} {wanted} is not {found}"


def identity(analysis: Analysis, feeds: Feeds, run: Run = in_runtime) -> None:
    """Emitting the full structure changes no weight and no output."""
    whole = emit(analysis, np.ones(analysis.channels + 1, np.int64))
    for name in analysis.parameters.keys() & whole.graph.initializers.keys():
        old, new = (m.graph.initializers[name].const_value for m in (analysis.graph.model, whole))
        assert old is not None and new is not None and old.tobytes() == new.tobytes(), f"identity: {name} changed"
    assert_same(run(analysis.graph.model, feeds), run(whole, feeds), "identity", 0)


def growth(analysis: Analysis, feeds: Feeds, copies: Array, run: Run = in_runtime) -> None:
    """A network with copies of channels runs, and costs what was predicted."""
    prediction(analysis, copies)
    for i, found in enumerate(run(emit(analysis, copies), feeds)):
        assert np.isfinite(found).all(), f"growth: output {i} is not finite"


def single(analysis: Analysis, feeds: Feeds, channel: int, run: Run = in_runtime, tolerance: float = TOLERANCE) -> None:
    """In a network that keeps zeros, a channel whose slices are zero everywhere is one that is not there.

    It asks nothing of the surgery's own zero-masked original: the parameters alone are changed.
    """
    copies = np.ones(analysis.channels + 1, np.int64)
    copies[channel] = 0
    silent = analysis.graph.model.clone()
    for name in analysis.parameters:
        value, array = silent.graph.initializers[name], analysis.graph.weights(name).copy()
        for axis, rows in enumerate(analysis.rows[name]):
            if rows is not None:
                np.moveaxis(array, axis, 0)[(rows == channel).any(1)] = 0
        value.const_value = ir.tensor(array, name=name)
    assert_same(run(silent, feeds), run(emit(analysis, copies), feeds), f"channel {channel} alone", tolerance)
