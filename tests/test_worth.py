"""What channels are worth together, against the logarithm written out; and what comes of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from benchmarks.accuracy.networks import resnet as resnet_of
from onnxmorph import Analysis, analyze
from onnxmorph.budget import Budget
from onnxmorph.knapsack import Knapsack, select
from onnxmorph.polynomial import Polynomial
from onnxmorph.widths import Grid
from onnxmorph.worth import LAST, weights, worth
from test_penalty import Toy

CHANNELS = sum(Toy().width)
SAYS = arrays(float, CHANNELS + 1, elements=st.floats(1e-3, 1e3))
LIVE = arrays(bool, CHANNELS + 1)


@given(SAYS, LIVE, st.lists(st.floats(0.1, 10), min_size=3, max_size=3))
def test_what_a_group_keeps_is_the_logarithm_of_the_share_that_it_keeps(
    says: np.ndarray, live: np.ndarray, weight: list[float]
) -> None:
    toy = Toy()
    found = worth(toy, says, live, np.array(weight))
    for g in range(3):
        own = np.flatnonzero((toy.group_of == g) & live)
        own = own[np.argsort(-found[own], kind="stable")]
        assert (np.diff(says[own]) <= 0).all()
        for n in range(1, len(own) + 1):
            kept, first = says[own[:n]].sum(), says[own[0]]
            assert found[own[:n]].sum() == pytest.approx(weight[g] * (LAST + np.log(kept / first)), rel=1e-9)
        for k in np.flatnonzero((toy.group_of == g) & ~live):
            more = np.log1p(says[k] / says[own].sum()) if len(own) else np.inf
            assert not len(own) or found[k] == pytest.approx(weight[g] * more)


@given(SAYS, st.lists(st.floats(1e-3, 1e3), min_size=3, max_size=3))
def test_the_unit_of_what_a_group_says_does_not_matter(says: np.ndarray, units: list[float]) -> None:
    toy, live, weight = Toy(), np.ones(CHANNELS + 1, bool), np.ones(3)
    other = says * np.append(units, 1.0)[toy.group_of]
    np.testing.assert_allclose(worth(toy, says, live, weight)[1:], worth(toy, other, live, weight)[1:], rtol=1e-6)


@pytest.fixture(scope="module")
def resnet() -> Analysis:
    import torch

    from onnxmorph.converters.torch import export

    return analyze(export(resnet_of(2).eval(), torch.zeros(2, 3, 32, 32)))


def left(analysis: Analysis, weight: np.ndarray, budget: str) -> np.ndarray:
    """The share of every group that stays, where all channels say the same."""
    alike = np.ones(analysis.channels + 1)
    copies = select(analysis, worth(analysis, alike, alike > 0, weight), Budget.parse(budget))
    kept = np.bincount(analysis.group_of[1:][copies[1:] > 0], minlength=len(analysis.groups))
    return kept / analysis.widths


def test_where_all_say_the_same_and_costs_are_products_of_two_widths_all_widths_shrink_alike() -> None:
    """The width multiplier, whatever each product costs."""
    toy = Toy(width=(64, 96, 128))
    toy.costs["flops"] = Polynomial.of({(0, 1): 700, (1, 2): 30, (0, 2): 5})
    alike = np.ones(toy.channels + 1)
    each = worth(toy, alike, alike > 0, weights(toy, ("flops",)))
    grid = Grid(np.ones_like(toy.widths), toy.minimum, toy.widths)
    widths = Knapsack.of(toy, each, Budget.parse("flops=25%"), grid).descend()
    np.testing.assert_allclose(widths, toy.widths / 2, atol=2)


def test_what_costs_more_in_the_target_than_in_general_is_narrowed_first(resnet: Analysis) -> None:
    flops, params = (left(resnet, weights(resnet), f"{cost}=40%") for cost in ("flops", "params"))
    early, late = 0, len(flops) - 1
    assert flops[early] < flops[late] - 0.2
    assert params[late] < params[early] - 0.2
    assert min(flops.min(), params.min()) > 0.1
