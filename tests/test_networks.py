"""The laws of surgery on every network of ``nets``: deletion, prediction, identity, composition, growth, folding."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from numpy.typing import NDArray
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from exported import NAMES, exported, sized
from laws import TOLERANCE, counted, random_cut
from onnxmorph.analysis import Analysis, analyze
from onnxmorph.axes import Array
from onnxmorph.budget import Budget
from onnxmorph.structure import Structure
from onnxmorph.surgery import Morphed, expand, scale, shrink, verify
from onnxmorph.surgery.emit import emit
from onnxmorph.surgery.verify import random_inputs, relative, run_session
from onnxmorph.widths import steps

ENDS = "graph-input graph-output"
CONV = f"{ENDS} positions"  # kernel windows and images
# A convolution's inner factor of one position, a scalar, a class token's row: tied to what has to stay.
TIED = f"{CONV} tied"

# The widths of the channel groups in order of appearance, and why other positions have to stay.
GOLDEN: Mapping[str, tuple[list[int], str]] = {
    "channel_softmax": ([8, 12, 6], CONV),
    "conv1d": ([2, 4, 3], CONV),  # 8 = 4 groups of 2 (the groups of the next convolution), 12 = 4 groups of 3
    "conv3d": ([6, 8], CONV),
    "convnext": ([8, 24, 12, 36], f"broadcast {TIED}"),
    "densenet": ([8, 8, 4, 8, 4, 8, 8, 4, 8, 4], CONV),
    "depthwise_multiplier": ([8, 2, 12], TIED),  # 16 = 8 groups, 2 filters each
    "efficientnet": ([8, 16, 4, 18, 4, 12], TIED),
    "gather_constant": ([3, 1, 4, 6], CONV),  # picked once, picked twice, never picked
    "glu": ([8, 6], CONV),  # the halves gate each other
    "groupnorm": ([3, 4, 4, 2], CONV),  # 12 = 3 groups of 4, 8 = 4 groups of 2
    "inception": ([8, 4, 4, 5, 6, 6, 6, 3, 6, 3, 4, 5, 5, 5, 5], CONV),
    "instancenorm": ([8, 6], CONV),
    "mlp": ([24, 12], ENDS),
    "mobilenet_v2": ([8, 16, 16, 12, 24], TIED),
    "mobilenet_v3": ([8, 16, 6, 18, 6, 12, 16], TIED),
    "padded_shortcut": ([8, 12, 2, 2, 12], CONV),  # 12 = 2 padded + 8 + 2 padded
    "pixel_shuffle": ([8, 6], CONV),
    "resnet": ([8, 8, 12, 12, 12], CONV),
    "resnet_bottleneck": ([8, 4, 4, 16, 4, 4, 6, 6, 20], CONV),
    "resnext": ([8, 2, 4, 2, 16, 2, 4, 2, 4, 3, 4, 24], CONV),  # inside a block: width, groups, width
    "shared_twice": ([8], f"broadcast {CONV}"),
    "shufflenet_v2": ([12, 6, 1, 3, 6, 6, 1, 16], TIED),
    "sliced_halves": ([1], CONV),  # i ~ i + 6 ~ 2 i, and a slice with a stride takes its neighbours along
    "split_uneven": ([5, 4, 3, 6], CONV),
    "squeeze_excite": ([8, 5, 12, 6], CONV),
    "tied_linear": ([12], ENDS),
    "transposed_grouped": ([3, 4, 2], CONV),
    "two_inputs": ([8, 12], CONV),
    "unet": ([6, 10, 14, 10, 10, 5, 6], CONV),
    "vgg_bn": ([8, 12, 12, 20], CONV),
    "vit": ([12, 3, 4, 4, 20, 3, 4, 4, 20], TIED),  # stream; per block heads, query/key, value, MLP
    "vit_fused": ([12, 3, 4, 20, 3, 4, 20], f"broadcast {TIED}"),
    "vit_torch": ([12, 3, 4, 20, 3, 4, 20], f"broadcast {TIED}"),
}

# Where no weights can be found that keep the function of a widened network, it has to say so.
NOT_PRESERVED = {
    "channel_softmax": "averages over channels",
    "groupnorm": "averages over channels",
    "tied_linear": "one weight summed over along both axes",
    "vit": "a product of activations sums over channels",
    "vit_fused": "a product of activations sums over channels",
    "vit_torch": "a product of activations sums over channels",
}

# Scales of 1 and shifts of 0 of norms without parameters of their own; the scales of attention.
ADDED_BY_THE_EXPORT = {"groupnorm": 2 * (3 + 4), "instancenorm": 2 * 6, "vit_fused": 4, "vit_torch": 4}

# Where muting normalised channels says nothing afterwards.
NOTHING_TO_FOLD = {
    "groupnorm": "its scale is a plain factor in the export",
    "instancenorm": "the next norm takes the mean out",
    "sliced_halves": "nothing can go",
    "tied_linear": "has no norm",
}


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@cache
def halved(name: str) -> Morphed:
    analysis = sized(name)
    return shrink(analysis, Structure.of(analysis, random_cut(analysis, np.random.default_rng(1))))


def outputs(model: ir.Model, feeds: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    (found,) = run_session(model)(feeds)
    return np.asarray(found)


def feeds_of(name: str, batch: int = 2) -> dict[str, NDArray[Any]]:
    return random_inputs(sized(name, batch).graph, np.random.default_rng(batch))


def test_the_groups_are_those_that_a_person_would_find(name: str) -> None:
    analysis = sized(name)
    codes = " ".join(sorted({f.code for f in analysis.fixed}))
    assert ([g.width for g in analysis.groups], codes) == GOLDEN[name]
    assert analysis.removable >= 0.95


@pytest.mark.parametrize("batch", [1, 3])
def test_a_removed_channel_is_a_silent_one(name: str, batch: int) -> None:
    small = halved(name)
    found = verify(sized(name, batch), small.model, small.structure, samples=1, seed=batch)
    assert found.difference <= TOLERANCE
    assert found.folded == 0


def test_the_polynomial_is_the_count(name: str) -> None:
    analysis, small = sized(name), halved(name)
    after = counted(small.model)
    assert analysis.count(small.structure.widths) == after
    assert small.structure.costs["after"] == after
    assert small.structure.costs["before"] == counted(exported(name).model)


def test_costs_are_those_that_pytorch_counts(name: str) -> None:
    """2 FLOPs per multiply-accumulate, for convolutions and matrix products; parameters without statistics."""
    analysis, case = sized(name), exported(name)
    inputs = [x[:1] for x in case.inputs]
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        case.module(*inputs)
    assert analysis.costs["classic_flops"].value(analysis.widths) == counter.get_total_flops()
    assert 2 * analysis.costs["macs"].value(analysis.widths) == counter.get_total_flops()
    params = sum(p.numel() for p in case.module.parameters()) + ADDED_BY_THE_EXPORT.get(name, 0)
    assert analysis.costs["params"].value(analysis.widths) == params


def test_the_checker_accepts_what_is_written(name: str) -> None:
    onnx.checker.check_model(ir.to_proto(halved(name).model), full_check=True)


def test_the_batch_stays_dynamic(name: str) -> None:
    before, after = exported(name).model.graph, halved(name).model.graph
    for old, new in zip((*before.inputs, *before.outputs), (*after.inputs, *after.outputs), strict=True):
        assert old.shape is not None and new.shape is not None
        assert list(old.shape) == list(new.shape) and not isinstance(new.shape[0], int)


def test_layers_of_different_heads_run() -> None:
    """The exporter records ``3*batch`` where heads and batch merge; ONNX Runtime shares memory by such names."""
    analysis = analyze(exported("vit_torch").model)
    for seed in range(20):
        rng, copies = np.random.default_rng(seed), np.ones(analysis.channels + 1, np.int64)
        for group in analysis.groups:
            copies[group.start + 1 + rng.permutation(group.width)[: rng.integers(0, group.width)]] = 0
        (found,) = run_session(emit(analysis, copies))(random_inputs(analysis.graph, rng))
        assert np.isfinite(found).all()


def test_the_full_structure_changes_nothing(name: str) -> None:
    analysis, model = sized(name), exported(name).model
    whole = shrink(analysis, Structure.of(analysis, np.ones(analysis.channels + 1, np.int64)))
    assert whole.notes == ()
    for key in analysis.parameters.keys() & model.graph.initializers.keys():
        old, new = (m.graph.initializers[key].const_value for m in (model, whole.model))
        assert old is not None and new is not None and old.tobytes() == new.tobytes()
    np.testing.assert_array_equal(outputs(whole.model, feeds_of(name)), outputs(model, feeds_of(name)))


def test_two_cuts_are_one_cut_by_both(name: str) -> None:
    analysis = sized(name)
    first = random_cut(analysis, np.random.default_rng(2), share=0.3)
    once = shrink(analysis, Structure.of(analysis, first))
    between = analyze(once.model)
    assert [(g.id, g.width) for g in between.groups] == [(k.id, len(k.keep)) for k in once.structure.groups]
    second = random_cut(between, np.random.default_rng(3))
    both = np.zeros_like(first)
    both[np.flatnonzero(first)] = second  # the channels of `between` are the live ones, in their order
    twice = shrink(between, Structure.of(between, second))
    direct = shrink(analysis, Structure.of(analysis, both))
    assert twice.structure.widths.tolist() == direct.structure.widths.tolist()
    assert counted(twice.model) == counted(direct.model)
    assert relative(*(outputs(m.model, feeds_of(name)) for m in (direct, twice))) <= 1e-6


def check_budget(analysis: Analysis, grown: Morphed, budget: str, round_to: int) -> None:
    limits = Budget.parse(budget).absolute(analysis)
    costs, predicted = counted(grown.model), grown.structure.costs["after"]
    assert costs == predicted
    assert all(costs[n] <= most for n, most in limits.items())
    step, widths = steps(analysis, round_to), grown.structure.widths
    assert ((widths % step == 0) | (widths < step) | (widths == analysis.widths)).all()


@pytest.mark.parametrize("round_to", [1, 4])
def test_a_network_that_is_widened_again_starts_where_it_stopped(name: str, round_to: int) -> None:
    analysis, small = sized(name), halved(name)
    wide = expand(analysis, small.structure, "flops=100%", round_to=round_to, init="preserve", seed=4)
    check_budget(analysis, wide, "flops=100%", round_to)
    onnx.checker.check_model(ir.to_proto(wide.model), full_check=True)
    found = relative(*(outputs(m.model, feeds_of(name)) for m in (small, wide)))
    if name in NOT_PRESERVED and found > TOLERANCE:
        assert [n for n in wide.notes if "copied" in n]
    else:
        assert found <= TOLERANCE


@pytest.mark.parametrize("budget", ["flops=50%", "params=200%,flops=300%"])
def test_scaled_networks_satisfy_the_budget(name: str, budget: str) -> None:
    analysis = sized(name)
    if not Budget.parse(budget).met(analysis, np.minimum(analysis.widths, 1)):
        pytest.skip("one channel of each group costs more")
    for init in ("preserve", "fresh"):
        scaled = scale(analysis, budget, init=init)
        check_budget(analysis, scaled, budget, 1)
        assert np.isfinite(outputs(scaled.model, feeds_of(name))).all()


# ---------------------------------------------------------------- scale 0, shift not 0


def muted(name: str) -> tuple[Analysis, Array]:
    """The network with the scale of every third normalised channel at 0, and the cut that removes those."""
    analysis, model = sized(name), exported(name).model.clone()
    trained = exported(name).module.state_dict().keys()
    scales = [n for n, role in analysis.roles.items() if role == "scale" and n in trained]
    normalised = {int(c) for n in scales for r in analysis.rows[n] if r is not None for c in r.reshape(-1)} - {0}
    copies = np.ones(analysis.channels + 1, np.int64)
    copies[sorted(normalised)[1::3]] = 0
    for group in analysis.groups:
        if not copies[group.start + 1 : group.start + 1 + group.width].any():
            copies[group.start + 1] = 1
    for key in scales:
        value = model.graph.initializers[key]
        assert value.const_value is not None
        array = value.const_value.numpy().copy()
        for axis, rows in enumerate(analysis.rows[key]):
            if rows is not None:
                np.moveaxis(array, axis, 0)[~copies[rows].all(1)] = 0
        value.const_value = ir.tensor(array, name=key)
    return analyze(model), copies


def test_what_muted_channels_say_is_folded(name: str) -> None:
    """A scale of 0 is not a channel of 0: its shift speaks on. Exactly kept, unless a note says where not."""
    analysis, copies = muted(name)
    small = shrink(analysis, Structure.of(analysis, copies))
    found = verify(analysis, small.model, small.structure, samples=1)
    assert found.difference <= TOLERANCE
    assert (found.folded > 1e-3) == (name not in NOTHING_TO_FOLD)
    moved = relative(*(outputs(m, feeds_of(name)) for m in (analysis.graph.model, small.model)))
    assert moved <= TOLERANCE or small.notes


@pytest.mark.parametrize(
    "name", [p for p in NAMES if p.values[0] in ("conv1d", "conv3d", "glu", "mlp", "mobilenet_v2")], indirect=True
)
def test_folding_is_exact_where_nothing_is_padded(name: str) -> None:
    analysis, copies = muted(name)
    small = shrink(analysis, Structure.of(analysis, copies))
    assert small.notes == ()
    model = analysis.graph.model
    assert relative(*(outputs(m, feeds_of(name)) for m in (model, small.model))) <= TOLERANCE
