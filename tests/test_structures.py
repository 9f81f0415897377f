"""The laws of surgery on every network of ``structures``: groups, deletion, prediction, growth."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from exported import analysis_of, grouped
from laws import TOLERANCE, counted, random_cut
from onnxmorph.structure import Structure
from onnxmorph.surgery import shrink, verify
from onnxmorph.surgery.emit import emit
from onnxmorph.surgery.grow import grown
from onnxmorph.surgery.verify import random_inputs, relative, run_session
from structures import STRUCTURES

EXPECTED = {"graph-input", "graph-output", "positions", "tied", "broadcast"}


@pytest.fixture(params=grouped(*sorted(STRUCTURES)))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_the_groups_are_those_that_a_person_would_find(name: str) -> None:
    wanted, analysis = STRUCTURES[name], analysis_of(name)
    assert tuple(sorted(g.width for g in analysis.groups)) == wanted.widths
    assert {f.code for f in analysis.fixed} - EXPECTED == set(wanted.stays.split())
    assert analysis.removable >= wanted.removable


@pytest.mark.parametrize("seed", range(3))
def test_a_removed_channel_is_a_silent_one(name: str, seed: int) -> None:
    analysis = analysis_of(name)
    small = shrink(analysis, Structure.of(analysis, random_cut(analysis, np.random.default_rng(seed))))
    onnx.checker.check_model(ir.to_proto(small.model), full_check=True)
    assert verify(analysis, small.model, small.structure, samples=1, seed=seed).difference <= TOLERANCE
    assert counted(small.model) == small.structure.costs["after"]


def test_copies_of_channels_change_nothing_unless_a_note_says_so(name: str) -> None:
    analysis = analysis_of(name)
    copies = np.ones(analysis.channels + 1, np.int64)
    for group in (g for g in analysis.groups if g.width > 1):  # the others never grow
        copies[group.start + 1 : group.start + 1 + group.width] = 2
    weights, notes = grown(analysis, copies, "preserve", seed=0)
    feeds = random_inputs(analysis.graph, np.random.default_rng(2))
    before, after = analysis.graph.model, emit(analysis, copies, weights)
    pairs = zip(run_session(before)(feeds), run_session(after)(feeds), strict=True)
    assert notes or max(relative(a, b) for a, b in pairs) <= TOLERANCE


def test_a_widened_network_runs(name: str) -> None:
    analysis = analysis_of(name)
    copies = np.append(1, np.random.default_rng(0).integers(1, 3, analysis.channels))
    wide = emit(analysis, copies)
    onnx.checker.check_model(ir.to_proto(wide), full_check=True)
    for found in run_session(wide)(random_inputs(analysis.graph, np.random.default_rng(1))):
        for array in found if isinstance(found, list) else [found]:
            assert array.dtype.kind == "O" or np.isfinite(array).all()  # O: text
