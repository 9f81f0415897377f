"""What is found out by trying, with random weights in ONNX Runtime: those of 0 or 1 would hide a wrong cut."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxmorph.analysis import Analysis
from onnxmorph.axes import Array, Mask
from onnxmorph.magnitudes import Place
from onnxmorph.surgery.emit import emit
from onnxmorph.surgery.run import run_session

Outputs = list[NDArray[Any]]
Test = Callable[[frozenset[int]], str | None]

SAME = 1e-3  # relative; networks that differ in a channel differ by far more, by rounding far less
EXACT = 1e-5  # relative; zeroing what is silent already changes only the order of sums


def passing(test: Test, candidates: Sequence[int]) -> tuple[frozenset[int], dict[int, str]]:
    """The largest set found by bisection that passes a test together, and why each of the others does not.

    n candidates of which k fail cost about 1 + 2·k·log2(n/k) tests; none failing costs one.
    """
    reasons: dict[int, str] = {}

    def extend(base: frozenset[int], more: Sequence[int]) -> frozenset[int]:
        if not more:
            return base
        reason = test(base | frozenset(more))
        if reason is None:
            return base | frozenset(more)
        if len(more) == 1:
            reasons[more[0]] = reason
            return base
        half = len(more) // 2
        return extend(extend(base, more[:half]), more[half:])

    return extend(frozenset(), list(candidates)), reasons


def agree(one: Outputs, other: Outputs, within: float = SAME) -> bool:
    """Whether all outputs are the same, relative to the largest value of each."""
    return len(one) == len(other) and all(
        a.shape == b.shape and bool(np.abs(a - b).max(initial=0) <= within * np.abs(b).max(initial=0))
        for a, b in zip(one, other, strict=True)
    )


def random_weights(analysis: Analysis) -> dict[str, NDArray[np.float32]]:
    """Parameters by name: matrices and kernels that keep the scale of what they read, vectors about 1."""
    rng = np.random.default_rng(0)

    def draw(shape: Sequence[int]) -> NDArray[np.float32]:
        if len(shape) < 2:
            return rng.uniform(0.5, 1.5, shape).astype(np.float32)
        fan_in = max(1, int(np.prod(shape[1:])))
        return np.asarray(rng.normal(size=shape) / fan_in**0.5, np.float32)

    return {name: draw(p.shape) for name, p in analysis.parameters.items() if not p.quantised}


def random_cut(analysis: Analysis, groups: Iterable[int], trial: int) -> Array:
    """Copies that take some channels of these groups, ``[channels + 1]``; which is random.

    Trial 0 leaves one channel of each, trial 1 takes one, trial 2 any number. Then each trial cuts those whose number
    (among them) has a certain bit, or those that have it not: of two groups that only fit when cut alike (halves of a
    split), each is so cut without the other once.
    """
    rng = np.random.default_rng(trial)
    copies = np.ones(analysis.channels + 1, np.int64)
    bit, polarity = divmod(trial - 3, 2)
    for number, g in enumerate(sorted(groups)):
        if trial < 3 or number >> bit & 1 == polarity:
            group = analysis.groups[g]
            lost = {0: group.width - 1, 1: 1}.get(trial, int(rng.integers(1, group.width)))
            copies[group.start + 1 + rng.permutation(group.width)[:lost]] = 0
    return copies


def silenced_groups(
    analysis: Analysis,
    feeds: Mapping[str, NDArray[Any]],
    candidates: Sequence[int],
    quiet: Mapping[int, Sequence[Place]],
    whole: Mapping[int, Sequence[Place]],
) -> frozenset[int]:
    """Groups whose channels are silent once the `quiet` places alone are zero: zeroing the `whole` changes nothing.

    Args:
        analysis: of the network.
        feeds: its inputs.
        candidates: the numbers of the groups to try.
        quiet: places by group: scales, shifts, biases.
        whole: all places by group.
    """
    wide = [g for g in candidates if analysis.groups[g].width > 1]
    if not wide:
        return frozenset()
    weights = {name: w.astype(analysis.graph.dtypes[name].numpy()) for name, w in random_weights(analysis).items()}
    model = emit(analysis, np.ones(analysis.channels + 1, np.int64), weights)
    open_ = {name for g in wide for name, _ in whole[g]}
    model.graph.inputs.extend(model.graph.initializers[name] for name in sorted(open_) if name not in feeds)
    run = run_session(model)

    def masked(places: Iterable[Place], alive: Mask) -> Outputs:
        changed: dict[str, NDArray[Any]] = {}
        for name, axis in places:
            rows = analysis.rows[name][axis]
            assert rows is not None
            array = changed.setdefault(name, weights[name].copy())
            np.moveaxis(array, axis, 0)[~alive[rows].all(1)] = 0
        outputs: Outputs = run({**feeds, **changed})
        return outputs

    def test(groups: frozenset[int]) -> str | None:
        alive = random_cut(analysis, groups, 2) > 0
        one, other = (masked([p for g in groups for p in places[g]], alive) for places in (quiet, whole))
        return None if agree(one, other, EXACT) else "it is heard"

    return passing(test, wide)[0]
