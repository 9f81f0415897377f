"""Costs that fall in steps: channels go in whole steps, and what goes is what is worth least for its step."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from onnxmorph.blocks import Savings, savings
from onnxmorph.budget import Budget
from onnxmorph.controller import Controller
from onnxmorph.penalty import charges, prices
from onnxmorph.polynomial import Polynomial
from onnxmorph.schedule import Schedule
from test_penalty import EVERY, NONE, Toy

VECTOR = 4


class Stairs:
    """A machine that works on whole vectors, and is slow off them."""

    def __init__(self, of: Polynomial) -> None:
        self.of = of

    def value(self, widths: np.ndarray) -> float:
        return float(self.sweep(np.asarray(widths)[None])[0])

    def sweep(self, many: np.ndarray) -> np.ndarray:
        whole = -(-many // VECTOR) * VECTOR
        slower = 1 + 0.2 * ((many % VECTOR > 0) & (many > 1)).sum(1)
        return slower * np.array([float(self.of.value(widths)) for widths in whole])

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
    assert control.met
    assert all(width % VECTOR == 0 or width == 1 for width in control.widths.tolist()), control.widths
    wider = [control.widths + each for each in np.diag(np.minimum(VECTOR, toy.widths - control.widths)) if each.any()]
    assert control.strength == 0
    cost = toy.costs["latency"].value(control.widths)
    assert all(toy.costs["latency"].value(w) > cost for w in wider), "a step was given away"


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
    np.testing.assert_array_equal(price, prices(toy, limits, toy.widths, EVERY))
    np.testing.assert_allclose(price, sum(f * toy.costs[n].gradient(toy.widths) for n, f in factors.items()))
    found = savings(toy, factors, toy.widths, EVERY)
    assert [each.group for each in found] == [0, 1, 2]
    for each, k in itertools.product(found, range(3)):
        fewer = toy.widths.copy()
        fewer[each.group] -= each.gone[k]
        cost = sum(f * (toy.costs[n].value(toy.widths) - toy.costs[n].value(fewer)) for n, f in factors.items())
        assert each.saved[k] == pytest.approx(cost)
