"""Choosing channels under limits, against every combination of widths, and on costs that have steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import pairwise, product

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from onnxmorph.analysis import Analysis, analyze
from onnxmorph.axes import Array, Floats
from onnxmorph.bounds import Bounds
from onnxmorph.budget import Budget
from onnxmorph.errors import BudgetError
from onnxmorph.knapsack import select
from onnxmorph.polynomial import Polynomial, Stepped, Swept, sweep
from onnxmorph.search import multiply
from onnxmorph.widths import Grid, slices, steps
from tiny import model, node, value, weight

WIDTHS = (12, 20, 9)


def chain(widths: Sequence[int]) -> onnx.ModelProto:
    """Matrix products one after the other, with these widths between them, and a skip around the middle."""
    sizes, nodes, last = [4, *widths, 5], [], "x"
    for i in range(len(sizes) - 1):
        nodes += [node("MatMul", f"{last} w{i}", f"h{i}"), node("Relu", f"h{i}", f"r{i}")]
        last = f"r{i}"
    nodes += [node("MatMul", "r0 skip", "s"), node("Add", f"{last} s", "y")]
    weights = [weight(f"w{i}", a, b, seed=i) for i, (a, b) in enumerate(pairwise(sizes))]
    return model(nodes, [*weights, weight("skip", sizes[1], 5)], outputs=[value("y", ["n", 5])])


@cache
def network(bounds: bool = False) -> Analysis:
    return analyze(chain(WIDTHS), bounds=Bounds(min_width={"w0:1": 5, "w2:1": 3}) if bounds else None)


@dataclass(frozen=True)
class Staircase:
    """Seconds of a chain on a device whose kernels work on 16 channels, and slower where they are no multiple of 4."""

    areas: tuple[float, ...] = (3.0, 2.0, 1.0)
    multiples: NDArray[np.int64] = field(default_factory=lambda: np.array([16, 16, 16]))

    def value(self, widths: Array) -> float:
        blocks = -(-np.asarray(widths) // 16)
        slow = 1 + 0.3 * (np.asarray(widths) % 4 != 0)
        return float(1e-3 * (np.array(self.areas) * blocks * slow).sum() + 1e-4 * blocks.prod())

    def gradient(self, widths: Array) -> Floats:
        below = np.maximum(widths - 16, 0)
        return np.array(
            [(self.value(widths) - self.value(_with(widths, g, below[g]))) / 16 for g in range(len(widths))]
        )


@cache
def on_device() -> Analysis:
    return analyze(chain((64, 96, 48))).with_costs(latency=Staircase())


def _with(widths: Array, group: int, width: int) -> Array:
    result = np.array(widths)
    result[group] = width
    return result


def widths_of(analysis: Analysis, copies: Array) -> Array:
    return np.array([copies[own].sum() for own in slices(analysis)])


def kept(analysis: Analysis, scores: Floats, widths: Array) -> float:
    """The highest scores of every group."""
    return sum(float(np.sort(scores[own])[::-1][:w].sum()) for own, w in zip(slices(analysis), widths, strict=True))


def random_scores(analysis: Analysis, seed: int) -> Floats:
    rng = np.random.default_rng(seed)
    level = np.append(0, rng.uniform(0.2, 3, len(analysis.groups))[analysis.group_of[1:]])
    return level * rng.uniform(size=analysis.channels + 1) ** rng.integers(1, 4)


def all_within(analysis: Analysis, grid: Grid, budget: Budget) -> Array:
    """Every combination of widths that satisfies the budget, ``[n, groups]``."""
    every = np.array(list(product(*(grid.blocks(g).tolist() for g in range(len(grid.low))))))
    limits = budget.absolute(analysis).items()
    return every[np.all([sweep(analysis.costs[n], every) <= most for n, most in limits], 0)]


def most_kept(analysis: Analysis, scores: Floats, many: Array) -> float:
    """The most that any of these widths keep."""
    sums = [np.append(0.0, np.cumsum(np.sort(scores[own])[::-1])) for own in slices(analysis)]
    return float(sum(s[many[:, g]] for g, s in enumerate(sums)).max())


def check_full(analysis: Analysis, budget: Budget, grid: Grid, widths: Array) -> None:
    """Within the budget, on the grid, and no group could be one step wider."""
    assert budget.met(analysis, widths)
    assert all(w in grid.blocks(g) for g, w in enumerate(widths.tolist()))
    for g, wider in enumerate(grid.up(widths).tolist()):
        assert wider == widths[g] or not budget.met(analysis, _with(widths, g, wider))


SHARES = st.integers(12, 95)
BUDGETS = st.one_of(
    SHARES.map(lambda a: f"flops={a}%"),
    st.tuples(SHARES, SHARES).map(lambda ab: f"flops={ab[0]}%,activation_bytes={ab[1]}%"),
    st.tuples(SHARES, SHARES).map(lambda ab: f"params={ab[0]}%,peak_memory={ab[1]}%,macs=2k"),
)


@settings(max_examples=60, deadline=None)
@given(BUDGETS, st.integers(0, 10**6), st.sampled_from([1, 1, 4]), st.booleans(), st.booleans())
def test_what_is_kept_is_worth_what_the_best_of_all_widths_is(
    text: str, seed: int, round_to: int, bounds: bool, empty: bool
) -> None:
    analysis, budget = network(bounds), Budget.parse(text)
    scores = random_scores(analysis, seed)
    may_empty = np.array([False, empty and not bounds, False])
    grid = Grid.of(analysis, steps(analysis, round_to), may_empty)
    reach = all_within(analysis, grid, budget)
    if not len(reach):
        with pytest.raises(BudgetError, match="cannot go below") as caught:
            select(analysis, scores, budget, round_to, may_empty)
        assert caught.value.code == "budget-reach"
        return
    copies = select(analysis, scores, budget, round_to, may_empty)
    widths = widths_of(analysis, copies)
    check_full(analysis, budget, grid, widths)
    assert kept(analysis, scores, widths) >= 0.93 * most_kept(analysis, scores, reach)
    assert kept(analysis, scores, widths) == pytest.approx(scores[1:][copies[1:] == 1].sum())


def test_over_many_networks_little_is_lost_against_the_best() -> None:
    shares = []
    for seed in range(30):
        scores, budget = random_scores(network(), seed), Budget.parse(f"flops={20 + 2 * seed}%")
        grid = Grid.of(network(), steps(network()))
        best = most_kept(network(), scores, all_within(network(), grid, budget))
        shares.append(kept(network(), scores, widths_of(network(), select(network(), scores, budget))) / best)
    assert np.mean(shares) > 0.995


def test_each_channel_pays_for_itself() -> None:
    """Of channels that are worth the same, those go that save most."""
    analysis = network()
    scores, price = np.ones(analysis.channels + 1), analysis.costs["flops"].gradient(analysis.widths)
    widths = widths_of(analysis, select(analysis, scores, Budget.parse("flops=80%")))
    assert np.argmin(widths / analysis.widths) == np.argmax(price)


def test_a_full_network_within_the_budget_stays() -> None:
    analysis = network()
    assert select(analysis, np.ones(analysis.channels + 1), Budget.parse("flops=100%")).all()


def test_what_scores_nothing_goes_first() -> None:
    """A trained network's zeros are the structure, where they meet the budget."""
    analysis = network()
    rng = np.random.default_rng(0)
    alive = np.append(True, rng.uniform(size=analysis.channels) < 0.6)
    widths = np.bincount(analysis.group_of[1:], alive[1:], len(analysis.groups)).astype(int)
    budget = Budget.parse(f"flops={analysis.costs['flops'].value(widths)}")
    np.testing.assert_array_equal(select(analysis, alive * rng.uniform(1, 2, len(alive)), budget)[1:], alive[1:])


# ---------------------------------------------------------------- steps


@settings(max_examples=40, deadline=None)
@given(st.integers(25, 95), st.integers(0, 10**6), st.booleans())
def test_widths_land_on_the_ends_of_plateaus(share: int, seed: int, params: bool) -> None:
    analysis, latency = on_device(), on_device().costs["latency"]
    budget = Budget.parse(f"latency={share}%{',params=70%' if params else ''}")
    scores = random_scores(analysis, seed) + 0.01
    grid = Grid.of(analysis, steps(analysis))
    try:
        widths = widths_of(analysis, select(analysis, scores, budget))
    except BudgetError:
        assert not any(budget.met(analysis, np.array(w)) for w in product((4, 16, 32, 48), repeat=3))
        return
    check_full(analysis, budget, grid, widths)
    for g, wide in enumerate(analysis.widths.tolist()):
        for wider in range(int(widths[g]) + 1, wide + 1):
            more = _with(widths, g, wider)
            assert not budget.met(analysis, more) or latency.value(more) > latency.value(widths)
    if not params:
        assert (widths % 16 == 0).all()
        ends = all_within(analysis, Grid.of(analysis, np.full(3, 16)), budget)
        assert kept(analysis, scores, widths) >= 0.95 * most_kept(analysis, scores, ends)


def test_automatic_rounding_takes_what_the_costs_in_the_budget_reward() -> None:
    analysis = on_device()
    assert isinstance(Staircase(), Stepped) and not isinstance(analysis.costs["flops"], Stepped)
    assert steps(analysis, "auto", Budget.parse("latency=50%")).tolist() == [16, 16, 16]
    assert steps(analysis, "auto", Budget.parse("flops=50%")).tolist() == [1, 1, 1]
    both = analysis.with_costs(classic_latency=Staircase(multiples=np.array([1, 32, 8])))
    assert steps(both, "auto", Budget.parse("latency=50%,classic_latency=1s")).tolist() == [16, 32, 16]
    assert steps(replace(both, multiple=np.array([0, 0, 6])), "auto", Budget.parse("latency=9ms")).tolist() == [
        16,
        16,
        6,
    ]
    for budget in map(Budget.parse, ("latency=60%", "latency=70%,params=50%")):
        widths = widths_of(analysis, select(analysis, random_scores(analysis, 0), budget, "auto"))
        check_full(analysis, budget, Grid.of(analysis, np.full(3, 16)), widths)
        assert (widths % 16 == 0).all()


@pytest.mark.parametrize("grow", [False, True])
@pytest.mark.parametrize("share", [30, 55, 80, 100, 170])
def test_a_multiplier_takes_what_is_free(share: int, grow: bool) -> None:
    analysis, latency = on_device(), on_device().costs["latency"]
    budget = Budget.parse(f"latency={share}%")
    _, widths = multiply(analysis, analysis.widths, budget, grow=grow)
    assert budget.met(analysis, widths)
    for g, width in enumerate(widths.tolist()):
        end = -(-width // 16) * 16
        if grow or end <= analysis.widths[g]:
            assert width == end or latency.value(_with(widths, g, end)) > latency.value(widths)


def test_a_cost_that_falls_when_channels_come_is_met_there() -> None:
    """The narrowest network is not the cheapest: 1 channel is slower than 4."""
    analysis = on_device()
    least = min(Staircase().value(np.array(w)) for w in product((1, 4, 16), repeat=3))
    assert Staircase().value(np.array([1, 1, 1])) > least
    widths = widths_of(
        analysis, select(analysis, np.ones(analysis.channels + 1), Budget.parse(f"latency={least + 1e-9}s"))
    )
    assert widths.tolist() == [16, 16, 16]
    _, widths = multiply(analysis, analysis.widths, Budget.parse(f"latency={least + 1e-9}s"), "auto")
    assert widths.tolist() == [16, 16, 16]


# ---------------------------------------------------------------- out of reach


def test_what_comes_closest_to_all_limits_together_is_said() -> None:
    analysis = network(bounds=True)
    with pytest.raises(BudgetError) as caught:
        select(analysis, np.ones(analysis.channels + 1), Budget.parse("flops=10%,params=90%"), 2)
    low = Grid.of(analysis, steps(analysis, 2)).low
    message, flops, params = str(caught.value), *(analysis.costs[n].value(low) for n in ("flops", "params"))
    assert f"flops cannot go below {flops:,} " in message and f"params would be {params:,} " in message
    assert "least widths of w0:1, w2:1" in message and "rounding of w0:1, w1:1, w2:1" in message
    with pytest.raises(BudgetError, match="without which it can"):
        select(analysis, np.ones(analysis.channels + 1), Budget.parse("flops=20%"), 8)
    with pytest.raises(BudgetError) as caught:
        select(network(), np.ones(analysis.channels + 1), Budget.parse("flops=1%"))
    assert "held up" not in str(caught.value)


# ---------------------------------------------------------------- many widths at once


@given(st.integers(0, 10**6))
def test_a_sweep_is_every_value(seed: int) -> None:
    analysis = network()
    many = np.random.default_rng(seed).integers(0, 30, (7, len(analysis.groups)))
    for cost in (*analysis.costs.values(), Polynomial.of({}), Polynomial.of({(): 3})):
        assert isinstance(cost, Swept)
        assert sweep(cost, many).tolist() == [cost.value(widths) for widths in many]
    assert sweep(Staircase(), many).tolist() == [Staircase().value(widths) for widths in many]
    assert sweep(Staircase(), many[:0]).shape == (0,) == sweep(analysis.costs["flops"], many[:0]).shape
