"""Costs that fall in steps: channels go in whole steps, and what goes is what is worth least for its step."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from onnxmorph.blocks import Savings, savings
from onnxmorph.budget import Budget
from onnxmorph.controller import Controller
from onnxmorph.penalty import charges
from onnxmorph.polynomial import Polynomial
from onnxmorph.schedule import Schedule
from test_penalty import EVERY, NONE, Toy

VECTOR = 4


class Stairs:
    """A machine that works on whole vectors, and is slow off them."""

    def __init__(self, of: Polynomial, unit: float = 1.0) -> None:
        self.of, self.unit = of, unit

    def value(self, widths: np.ndarray) -> float:
        return float(self.sweep(np.asarray(widths)[None])[0])

    def sweep(self, many: np.ndarray) -> np.ndarray:
        whole = -(-many // VECTOR) * VECTOR
        slower = 1 + 0.2 * ((many % VECTOR > 0) & (many > 1)).sum(1)
        return self.unit * slower * np.array([float(self.of.value(widths)) for widths in whole])

    def gradient(self, widths: np.ndarray) -> np.ndarray:
        below = np.maximum((widths - 1) // VECTOR * VECTOR, np.minimum(widths - 1, 1))
        fewer = np.where(np.eye(len(widths), dtype=bool), below, widths)
        return np.maximum(self.value(widths) - self.sweep(fewer), 0) / np.maximum(widths - below, 1)

    @property
    def rises(self) -> np.ndarray:
        return np.ones(3, bool)


@pytest.fixture
def toy() -> Toy:
    found = Toy()
    found.costs["latency"] = Stairs(found.costs["flops"])
    return found


@pytest.mark.parametrize("heard", [True, False], ids=["by the loss", "by magnitude"])
@pytest.mark.parametrize("share", [25, 40, 60, 80])
def test_widths_end_on_whole_steps(toy: Toy, share: int, heard: bool) -> None:
    rng = np.random.default_rng(share)
    m, says = rng.uniform(0.5, 1.5, (2, toy.channels + 1))
    control = Controller(toy, Budget.parse(f"latency={share}%"), Schedule.of(100), EVERY, NONE)
    for _ in range(100):
        m *= control.update(m, np.full(len(m), 0.1), says=says if heard else None)[0]
    assert control.met and control.strength == 0
    assert all(width % VECTOR == 0 or width == 1 for width in control.widths.tolist()), control.widths
    assert toy.costs["latency"].value(control.widths) > 0.75 * control.limits["latency"], "more went than had to"


def trained(toy: Toy, budget: str, seed: int = 0, trace: list[float] | None = None) -> Controller:
    rng = np.random.default_rng(seed)
    m, says = rng.uniform(0.5, 1.5, (2, toy.channels + 1))
    control = Controller(toy, Budget.parse(budget), Schedule.of(100), EVERY, NONE)
    for _ in range(100):
        m *= control.update(m, np.full(len(m), 0.1), says=says)[0]
        if trace is not None:
            trace += [control.strength, *control.widths.tolist()]
    return control


def test_the_unit_of_a_cost_changes_nothing(toy: Toy) -> None:
    """Latencies are seconds: far below 1."""
    seconds = Toy()
    seconds.costs["latency"] = Stairs(toy.costs["flops"], unit=2.0**-30)
    one, other = list[float](), list[float]()
    trained(toy, "latency=50%", trace=one)
    trained(seconds, "latency=50%", trace=other)
    np.testing.assert_allclose(one, other, rtol=1e-9)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("budget", ["latency=60%,params=50%", "latency=80%,flops=45%", "latency=100%,flops=50%"])
def test_several_limits_are_met_together(toy: Toy, budget: str, seed: int) -> None:
    control = trained(toy, budget, seed)
    assert control.met
    used = [toy.costs[name].value(control.widths) / most for name, most in control.limits.items()]
    assert max(used) > 0.8, "more went than had to"


def test_groups_whose_costs_fall_with_every_channel_go_one_by_one(toy: Toy) -> None:
    class OnlyFirst(Stairs):
        @property
        def rises(self) -> np.ndarray:
            return np.array([True, False, False])

        def sweep(self, many: np.ndarray) -> np.ndarray:
            whole = np.concatenate([-(-many[:, :1] // VECTOR) * VECTOR, many[:, 1:]], 1)
            return np.array([float(self.of.value(widths)) for widths in whole])

    toy.costs["latency"] = OnlyFirst(toy.costs["flops"])
    control = trained(toy, "latency=50%")
    assert control.met and control.widths[0] % VECTOR == 0
    assert toy.costs["latency"].value(control.widths) > 0.95 * control.limits["latency"]


def test_blocks_take_least_worth_for_what_they_save() -> None:
    """Against all ways to split the points; and the ratios rise, so that no block waits for one behind it."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        gone = np.array([0, 1, 2, 4, 8])
        saved = np.append(0.0, rng.normal(1, 1.5, 4).cumsum())
        worth = np.sort(rng.uniform(0.1, 1, 8))
        parts = Savings(0, 8, gone, saved).parts(worth)
        lost = np.append(0.0, (worth * 8 / np.arange(8, 0, -1)).cumsum())  # who stays says more as siblings go
        ratios = [ratio for *_, ratio in parts]
        assert ratios == sorted(ratios)
        at = {int(k): float(s) for k, s in zip(gone, saved, strict=True)}
        for start, stop, ratio in parts:
            assert ratio == pytest.approx((lost[stop] - lost[start]) / (at[stop] - at[start]))
            for k in gone[gone > start].tolist():
                assert at[k] - at[start] <= (lost[k] - lost[start]) / ratio + 1e-9, "another block saves more for it"
        end = parts[-1][1] if parts else 0
        assert all(at[int(k)] <= at[end] + 1e-12 for k in gone if k > end)


def test_savings_are_differences_of_the_whole_cost(toy: Toy) -> None:
    limits = {"latency": 0.5 * toy.costs["latency"].value(toy.widths), "params": 1.0}
    price, factors = charges(toy, limits, toy.widths, EVERY)
    np.testing.assert_allclose(price, sum(f * toy.costs[n].gradient(toy.widths) for n, f in factors.items()))
    found = savings(toy, factors, toy.widths, EVERY)
    assert [each.group for each in found] == [0, 1, 2]
    for each, k in itertools.product(found, range(3)):
        fewer = toy.widths.copy()
        fewer[each.group] -= each.gone[k]
        cost = sum(f * (toy.costs[n].value(toy.widths) - toy.costs[n].value(fewer)) for n, f in factors.items())
        assert each.saved[k] == pytest.approx(cost)
