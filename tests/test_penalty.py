"""Prices, the proximal step and the controller, on toy networks that are nothing but cost polynomials."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxmorph.budget import Budget
from onnxmorph.controller import Controller
from onnxmorph.errors import BudgetError, StructureError
from onnxmorph.magnitudes import combine
from onnxmorph.penalty import penalty, prices, proximal
from onnxmorph.polynomial import Polynomial
from onnxmorph.schedule import Schedule
from onnxmorph.worth import weights, worth


@dataclass
class Toy:
    """What the penalty reads of an Analysis: a chain in -> w0 -> w1 -> w2 -> out, each layer with its own area."""

    unit: int = 1
    width: tuple[int, ...] = (16, 24, 8)
    fingerprint: str = "toy"
    least: tuple[int, ...] = (1, 1, 1)
    costs: dict[str, Polynomial] = field(default_factory=dict)

    def __post_init__(self) -> None:
        areas = {(0,): 3 * 64, (0, 1): 64, (1, 2): 16, (2,): 10}
        self.costs["flops"] = Polynomial.of({m: 2 * a * self.unit for m, a in areas.items()})
        self.costs["params"] = Polynomial.of({(0,): 3, (0, 1): 1, (1, 2): 1, (2,): 10})
        starts = np.cumsum([0, *self.width])
        self.groups = [
            SimpleNamespace(id=f"g{i}", width=w, start=int(s))
            for i, (w, s) in enumerate(zip(self.width, starts, strict=False))
        ]
        self.group_of = np.concatenate([[-1], np.repeat(np.arange(len(self.width)), self.width)])
        self.widths, self.minimum = np.array(self.width), np.array(self.least)
        self.channels = len(self.group_of) - 1
        self.graph = SimpleNamespace(fingerprint=self.fingerprint)


EVERY = np.ones(3, bool)
NONE = np.zeros(3, bool)


def controller(toy: Toy, budget: str = "flops=50%", steps: int = 100, lingers: np.ndarray = NONE) -> Controller:
    return Controller(toy, Budget.parse(budget), Schedule.of(steps), EVERY, lingers)


def magnitudes(toy: Toy, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0.5, 1.5, toy.channels + 1)


def train(control: Controller, m: np.ndarray, steps: int, rate: float = 0.1, pull: float = 0.0) -> list[float]:
    """A loss that pulls every live magnitude back to where it began; returns the strengths."""
    first, strengths = m.copy(), []
    for _ in range(steps):
        m += pull * (first - m)
        factors, _ = control.update(m, np.full(len(m), rate))
        m *= factors
        strengths.append(control.strength)
    return strengths


# ---------------------------------------------------------------- prices and penalty


def test_the_penalty_is_morphnets_regulariser() -> None:
    """C·(alive_in·Σ|γ_out| + alive_out·Σ|γ_in|) for the layer w0 -> w1 (arXiv 1711.06798, equation 5)."""
    toy, rng = Toy(), np.random.default_rng(0)
    toy.costs["flops"] = Polynomial.of({(0, 1): 128})
    gamma = [rng.normal(size=w) for w in toy.width]
    widths = np.array([5, 7, 8])
    price = prices(toy, {"flops": 1}, widths, EVERY)
    ours = penalty(np.repeat(price[:2], [5, 7]), np.concatenate([gamma[0][:5], gamma[1][:7]]))
    published = 128 * (5 * np.abs(gamma[1][:7]).sum() + 7 * np.abs(gamma[0][:5]).sum())
    unit = 128 * 5 * 7 * 2 / (5 + 7 + 8)  # of mean price 1 over 20 live channels
    assert ours == pytest.approx(published / unit)


@given(st.lists(st.integers(1, 8), min_size=3, max_size=3), st.integers(1, 10**6))
def test_prices_have_mean_one_whatever_the_unit(live: list[int], unit: int) -> None:
    widths, toy = np.array(live), Toy(unit)
    price = prices(toy, {"flops": unit}, widths, EVERY)
    assert price @ widths / widths.sum() == pytest.approx(1)
    np.testing.assert_allclose(price, prices(Toy(), {"flops": 1}, widths, EVERY))


def test_a_limit_that_is_met_charges_nothing() -> None:
    toy = Toy()
    only = prices(toy, {"params": 100}, toy.widths, EVERY)
    both = prices(toy, {"flops": 10**9, "params": 100}, toy.widths, EVERY)
    np.testing.assert_allclose(only, both)
    assert not prices(toy, {"flops": 10**9}, toy.widths, EVERY).any()


def test_a_group_that_may_not_shrink_is_free_of_charge() -> None:
    toy = Toy()
    price = prices(toy, {"flops": 100}, toy.widths, np.array([True, False, True]))
    assert price[1] == 0
    assert price[[0, 2]] @ toy.widths[[0, 2]] == pytest.approx(toy.widths[[0, 2]].sum())


@given(st.floats(-3, 3), st.floats(0, 2))
def test_one_source_is_the_plain_soft_threshold(s: float, t: float) -> None:
    found = proximal(np.array([[s]]), np.array([t]))[0, 0]
    assert found == pytest.approx(np.sign(s) * max(abs(s) - t, 0), abs=1e-12)


@given(st.integers(0, 10**6), st.floats(0.01, 2))
def test_the_proximal_step_minimises_distance_plus_penalty(seed: int, t: float) -> None:
    rng = np.random.default_rng(seed)
    s = rng.normal(size=(1, 4))
    found = proximal(s, np.array([t]))

    def objective(x: np.ndarray) -> float:
        return float(((x - s) ** 2).mean() / 2 + t * combine(x)[0])

    for _ in range(20):
        assert objective(found) <= objective(found + rng.normal(size=s.shape) * 0.1) + 1e-12


def test_sources_combine_by_rms_or_by_the_published_maximum() -> None:
    sources = np.array([[3.0, -4.0]])
    assert combine(sources)[0] == pytest.approx(np.sqrt(12.5))
    assert combine(sources, "max")[0] == 4


# ---------------------------------------------------------------- the controller


@pytest.mark.parametrize("pull", [0.0, 0.02, 0.1])
@pytest.mark.parametrize("steps", [60, 400])
def test_the_budget_is_met_by_the_planned_step_and_by_one_channel(pull: float, steps: int) -> None:
    toy = Toy()
    control = controller(toy, steps=steps)
    train(control, magnitudes(toy), steps, pull=pull)
    assert control.done
    assert control.strength == 0
    limit = control.limits["flops"]
    value = toy.costs["flops"].value
    assert value(control.widths) <= limit
    # with one channel more of some group that lost some, it would not be
    more = [control.widths + np.eye(3, dtype=int)[g] for g in range(3) if control.widths[g] < toy.width[g]]
    assert min(value(w) for w in more) > limit - max(toy.costs["flops"].gradient(toy.widths))
    assert any(value(w) > limit for w in more)


@pytest.mark.parametrize("unit", [1, 7000])
@pytest.mark.parametrize("scale", [1e-4, 1e4])
@pytest.mark.parametrize("rate", [1e-5, 1.0])
def test_no_scale_enters(unit: int, scale: float, rate: float) -> None:
    plain, other = controller(Toy()), controller(Toy(unit))
    train(plain, magnitudes(Toy()), 100, pull=0.03)
    train(other, magnitudes(Toy()) * scale, 100, rate=rate, pull=0.03)
    np.testing.assert_array_equal(plain.fading, other.fading)


def test_resistance_raises_the_strength() -> None:
    weak, strong = (max(train(controller(Toy()), magnitudes(Toy()), 100, pull=p)) for p in (0.0, 0.1))
    assert strong > 1.5 * weak


def test_nothing_goes_while_the_strength_ramps_up_and_one_channel_of_a_group_always_stays() -> None:
    toy = Toy()
    control = controller(toy, "flops=6%", steps=100)
    m = magnitudes(toy)
    m[1:9] = 0.0  # e.g. scales that start at 0
    train(control, m, control.schedule.warmup)
    assert control.alive.all()
    train(control, m, 100)
    assert control.met
    assert control.widths.min() == 1


def test_when_many_would_go_at_once_only_as_many_go_as_the_plan_needs() -> None:
    toy = Toy(width=(64, 96, 32))
    control = controller(toy)
    m, full = np.ones(toy.channels + 1), toy.costs["flops"].value(toy.widths)
    dearest = toy.costs["flops"].gradient(toy.widths).max()
    for step in range(1, 101):
        m *= control.update(m, np.ones(len(m)))[0]
        due = control._planned(control.schedule.target(step))["flops"]
        assert toy.costs["flops"].value(control.widths) >= due - dearest
        assert step >= control.schedule.first - control.schedule.window or control.alive.all()
    assert control.done and full > control.limits["flops"]


@pytest.mark.parametrize("pull", [0.0, 0.02, 0.1])
def test_the_strength_does_not_swing(pull: float) -> None:
    toy = Toy(width=(64, 96, 32))
    control, m = controller(toy, steps=400, lingers=EVERY), magnitudes(toy)
    strengths = train(control, m, 400, pull=pull)
    steady = [s for s in strengths[20:] if s]
    assert control.done
    assert max(max(a / b, b / a) for a, b in itertools.pairwise(steady)) < 2


def test_slices_of_what_stays_are_left_alone_and_scales_shrink_together() -> None:
    toy = Toy(width=(64, 96, 32))
    for lingers in (NONE, EVERY):
        control, m = controller(toy, lingers=lingers), magnitudes(toy)
        first = m.copy()
        train(control, m, 100)
        stays = control.alive[1:]
        assert ((m < first)[1:][stays].mean() > 0.9) == lingers.all()
        assert lingers.all() or (m == first)[1:][stays].mean() > 0.9


def test_a_filler_far_back_in_the_order_does_not_drive_the_strength() -> None:
    """Single channels of the dear groups are more than what is left of the budget; cheap ones fill it up."""
    toy = Toy(width=(16, 24, 64))
    control, m = controller(toy, "flops=30%", steps=200, lingers=EVERY), magnitudes(toy)
    m[toy.group_of == 2] *= 1e4
    strengths = train(control, m, 200)
    assert control.done
    assert max(strengths) < 100 * np.median([s for s in strengths if s])


def test_what_lingers_fades_in_a_straight_line_and_then_is_silent() -> None:
    toy = Toy()
    control = controller(toy, steps=100, lingers=EVERY)
    m, shift = magnitudes(toy), np.ones(toy.channels + 1)
    for _ in range(100):
        factors, rest = control.update(m, np.ones(len(m)))
        m *= factors
        shift *= rest
        gone = ~control.alive
        np.testing.assert_allclose(shift[gone], control.fading[gone] / control.schedule.fade, atol=1e-12)
        assert (shift[control.alive] == 1).all()
    assert control.done
    assert not shift[~control.alive].any()


@pytest.mark.parametrize(("pull", "returns"), [(0.5, True), (0.002, False)])
def test_a_channel_that_the_loss_pulls_back_returns_and_noise_does_not(pull: float, returns: bool) -> None:
    toy = Toy(width=(64, 96, 32))
    control, m = controller(toy, steps=200, lingers=EVERY), magnitudes(toy)
    rates = np.full(len(m), 0.1)
    while control.progress <= control.schedule.progress(control.step + 1) + 0.03:  # so far there is room to return
        m *= control.update(m, rates)[0]
    gone = np.flatnonzero(~control.alive)
    before = control.widths.copy()
    m[gone] = pull  # what the optimizer's step made of nothing
    control.update(m, rates)
    assert control.alive[gone].any() == returns == (control.returned > 0)
    if returns:
        assert control.widths.sum() > before.sum() - len(gone)
        due = control._planned(control.step)
        assert all(toy.costs[n].value(control.widths) <= most for n, most in due.items())
    else:
        for _ in range(control.schedule.fade):
            control.update(m, rates)
        assert (control.fading[gone] == 0).all()
        m[gone] = 100.0  # dead for good
        control.update(m, rates)
        assert not control.alive[gone].any()


def test_what_returns_never_undoes_what_is_due() -> None:
    toy = Toy(width=(64, 96, 32))
    control, m = controller(toy, steps=200, lingers=EVERY), magnitudes(toy)
    rates = np.full(len(m), 0.1)
    rng = np.random.default_rng(0)
    for _ in range(200):
        before = control.progress
        m *= control.update(m, rates)[0]
        m[control.fading > 0] = rng.uniform(0, 2, int((control.fading > 0).sum()))
        assert control.progress >= min(before, control.schedule.progress(control.step))
    assert control.done and control.returned > 10


def test_several_steps_at_once_reach_what_single_steps_reach() -> None:
    toy = Toy(width=(64, 96, 32))
    widths = []
    for each in (1, 5):
        control, m = controller(toy, steps=1000, lingers=EVERY), magnitudes(toy)
        for _ in range(1000 // each):
            m *= control.update(m, np.full(len(m), 0.1), each)[0]
        assert control.done and control.step == 1000
        widths.append(control.widths)
    assert np.abs(widths[0] - widths[1]).max() <= 3


def test_a_group_that_nearly_vanishes_is_told_before() -> None:
    toy = Toy(width=(16, 24, 64))
    control, m = controller(toy, "flops=20%"), magnitudes(toy)
    m[2:17] *= 1e-3  # one channel says it all
    warned = None
    while not control.met:
        m *= control.update(m, np.full(len(m), 0.1))[0]
        if warned is None and control.warnings:
            warned = control.warnings[0], control.widths[0]
    assert warned is not None and "group 'g0' is about to be left with 1 of its 16 channels" in warned[0]
    assert control.widths[0] == 1 < warned[1]
    assert sum("'g0'" in w for w in control.warnings) == 1


@pytest.mark.parametrize("still", [0.0, 0.1])
def test_a_budget_that_cannot_be_met_is_told_before_the_end(still: float) -> None:
    """Learning rates that end the journey early, or a loss that holds on to everything."""
    toy = Toy()
    control, m = controller(toy, "flops=20%"), magnitudes(toy)
    first, told = m.copy(), []
    for step in range(96):
        if still:
            m[:] = first
        control.update(m, np.full(len(m), still if step > 20 else 0.1))
        told += control.warnings
        control.warnings.clear()
    found = [w for w in told if "may not be met in time" in w]
    assert (len(found) == 1) == (not control.met)
    assert still or "learning rate 0, as in 'g0'" in found[0]


def test_once_met_everything_stays() -> None:
    control = controller(Toy())
    m = magnitudes(Toy())
    train(control, m, 100)
    before = control.fading.copy()
    m[:] = 1e-9
    factors, _ = control.update(m, np.ones(len(m)))
    np.testing.assert_array_equal(control.fading, before)
    np.testing.assert_array_equal(factors, control.alive)


@pytest.mark.parametrize("seed", range(8))
def test_the_budget_is_used_up_although_single_channels_cost_more_than_what_is_left(seed: int) -> None:
    toy = Toy()
    full = toy.costs["flops"].value(toy.widths)
    assert toy.costs["flops"].gradient(toy.widths).max() > 0.04 * full
    control = controller(toy)
    train(control, magnitudes(toy, seed), 100, pull=0.03)
    assert 0.98 <= toy.costs["flops"].value(control.widths) / control.limits["flops"] <= 1


def test_several_limits_hold_together() -> None:
    toy = Toy()
    control = controller(toy, "flops=60%,params=40%")
    train(control, magnitudes(toy), 100, pull=0.03)
    assert all(toy.costs[n].value(control.widths) <= most for n, most in control.limits.items())


@pytest.mark.parametrize("early", [False, True])
def test_no_group_becomes_narrower_than_it_may(early: bool) -> None:
    toy = Toy(least=(10, 2, 8))
    control, m = controller(toy, "flops=30%"), magnitudes(toy)
    m[1:17] /= 1000  # the first group would go first
    train(control, m, 20 if early else 110)
    control.finish(m, np.full(len(m), 0.1))
    assert control.met and control.widths[0] == 10 and control.widths[2] == 8
    with pytest.raises(BudgetError, match="cannot go below"):
        controller(Toy(least=(16, 24, 8)), "flops=99%")


@pytest.mark.parametrize("rate", [0.1, 0.0])
def test_finish_keeps_what_is_worth_most_together(rate: float) -> None:
    toy = Toy(width=(64, 96, 32))
    control = controller(toy)
    m = magnitudes(toy)
    already = np.array([3, 70, 180])
    control._remove(already)
    each = worth(toy, m, control.alive, weights(toy))
    control.aim(m, np.ones(len(m)))
    in_order = np.concatenate(control._leaving(control._first, control.limits))
    plain = each[control.alive][1:].sum() - each[in_order].sum()
    control.finish(m, np.full(len(m), rate))
    assert control.done and not control.alive[already].any()
    alive, gone = control.alive, ~control.alive
    gone[already] = False
    for g in range(3):
        own = toy.group_of == g
        assert m[own & gone].max(initial=0.0) <= m[own & alive].min()
    assert each[alive][1:].sum() >= plain
    left = control.limits["flops"] - toy.costs["flops"].value(control.widths)
    assert toy.costs["flops"].gradient(control.widths)[control.widths < toy.widths].min() > left


def test_a_checkpoint_continues_as_if_nothing_had_happened() -> None:
    toy = Toy()
    whole, m = controller(toy, lingers=EVERY), magnitudes(toy)
    train(whole, m, 45, pull=0.02)
    state, again, m2 = whole.state(), controller(toy, lingers=EVERY), m.copy()
    again.restore(state)
    train(whole, m, 55)
    train(again, m2, 55)
    np.testing.assert_array_equal(whole.fading, again.fading)
    np.testing.assert_array_equal(m, m2)
    with pytest.raises(StructureError, match="another model"):
        controller(Toy(fingerprint="other")).restore(state)


def test_a_budget_out_of_reach_says_what_is_reachable() -> None:
    with pytest.raises(BudgetError, match=r"cannot go below 564 "):
        controller(Toy(), "flops=0.1%")
