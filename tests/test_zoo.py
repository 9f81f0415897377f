"""The laws on real graphs from every exporter: deletion, prediction, and how much can be removed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import zoo
from laws import TOLERANCE, counted, random_cut
from onnxmorph.analysis import Analysis, analyze
from onnxmorph.structure import Structure
from onnxmorph.surgery import shrink, verify

SEEDS = range(3)
MIDDLE, LARGE = 1_500_000, 9_000_000  # parameters: one seed above the first, and only at night above the second


@lru_cache(maxsize=1)  # one after the other; they are large
def analysis_of(path: Path) -> Analysis:
    return analyze(zoo.filled(path))


def cases() -> Iterator[Any]:
    """Every graph with three seeds; what takes long, at night."""
    for path in zoo.PATHS:
        size = zoo.parameters(path)
        for seed in SEEDS:
            late = size > LARGE or (size > MIDDLE and seed > 0)
            marks = [pytest.mark.xdist_group(zoo.name_of(path)), *[pytest.mark.nightly] * late]
            yield pytest.param(path, seed, id=f"{zoo.name_of(path)}-{seed}", marks=marks)


@zoo.needed
@pytest.mark.parametrize(("path", "seed"), list(cases()))
def test_half_of_every_group_can_go(path: Path, seed: int) -> None:
    analysis = analysis_of(path)
    small = shrink(analysis, Structure.of(analysis, random_cut(analysis, np.random.default_rng(seed))))
    onnx.checker.check_model(ir.to_proto(small.model), full_check=True)
    assert counted(small.model) == small.structure.costs["after"]
    assert verify(analysis, small.model, small.structure, samples=1, seed=seed).difference <= TOLERANCE


def reasons(analysis: Analysis) -> str:
    """Why parameters stay, commonest first: what cannot go of each, shared out among the codes of its fixed axes."""
    total, held = 0, Counter[str]()
    for name, parameter in analysis.parameters.items():
        codes = [f.code for f in analysis.fixed if f.tensor == name]
        kept = [1 if r is None else float((~r.any(1)).mean()) for r in analysis.rows[name]]
        total += prod(parameter.shape)
        for code in codes:
            held[code] += prod(parameter.shape) * prod(kept) / len(codes)
    return ", ".join(f"{code} {count / total:.1%}" for code, count in held.most_common(4))


@zoo.needed
def test_nearly_all_parameters_can_go(record_property: Callable[[str, object], None]) -> None:
    """99 % of the zoo taken together; what lies under 95 % is told, with its reasons, at the end of the run."""
    total, removable = 0, 0.0
    for path in zoo.PATHS:
        analysis = analyze(zoo.zeroed(path))
        size = sum(prod(p.shape) for p in analysis.parameters.values())
        total, removable = total + size, removable + size * analysis.removable
        if analysis.removable < 0.95:
            record_property("table", f"{zoo.name_of(path):28}{analysis.removable:7.1%}   {reasons(analysis)}")
    assert removable / total >= 0.99
