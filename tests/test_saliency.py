"""Channels go by what the loss says of them: measured as if each had a gate, and obeyed as the plan has it."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nets import conv_bn, head
from onnxmorph.adapters.torch import Morph
from onnxmorph.errors import StructureError
from onnxmorph.saliency import Saliency
from test_adapter_torch import residual
from test_penalty import EVERY, Toy, controller, magnitudes


class Gated(nn.Module):
    """Two layers with a factor of 1 on every channel between them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = conv_bn(3, 8), nn.Sequential(conv_bn(8, 6), head(6))
        self.gate: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x)
        return self.second(hidden if self.gate is None else hidden * self.gate.view(1, -1, 1, 1))


def batch(n: int = 16) -> tuple[Tensor, Tensor]:
    return torch.randn(n, 3, 8, 8), torch.randint(4, (n,))


def morphed(module: nn.Module, rate: float = 0.05, **options: object) -> tuple[Morph, torch.optim.Optimizer]:
    optimizer = torch.optim.SGD(module.parameters(), rate, 0.9)
    return Morph(module, batch(2)[0], optimizer, "flops=50%", steps=60, **options), optimizer


def test_a_channel_says_what_the_gradient_of_its_gate_says() -> None:
    """Once where it is made, by scale and shift, and once where it is read."""
    module = Gated()
    morph, optimizer = morphed(module, rate=0.0)
    x, y = batch()
    module.gate = torch.ones(8, requires_grad=True)
    F.cross_entropy(module(x), y).backward()
    optimizer.step()
    morph.step()
    analysis, saliency = morph.analysis, morph._training.saliency
    group = next(g for g in analysis.groups if g.id == "first.0.weight:0")
    expected = 2 * module.gate.grad.abs().numpy()
    found = saliency.says[group.start + 1 : group.start + 9]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5 * expected.max())


def test_single_batches_are_squared_before_they_are_averaged_and_overflows_are_left_out() -> None:
    analysis = SimpleNamespace(
        parameters={"w": None}, roles={}, rows={"w": (np.array([[1], [2], [2]]), None)}, channels=2,
        groups=[None], group_of=np.array([-1, 0, 0]),
    )  # fmt: skip
    saliency = Saliency(analysis, ["w"])
    assert saliency.says is None
    for sums in ([3.0, 1.0, 1.0], [-3.0, np.inf, 0.0], [-3.0, 0.0, 0.0]):
        saliency.measure(np.array(sums))
    np.testing.assert_allclose(saliency.says, [0.0, 3.0, np.sqrt((2**2 + 0) / 2)])
    again = Saliency(analysis, ["w"])
    again.restore(json.loads(json.dumps(saliency.state())))
    for each in (saliency, again):
        each.measure(np.array([1.0, 5.0, 0.0]))
    np.testing.assert_array_equal(again.says, saliency.says)


@pytest.mark.parametrize("pull", [0.0, 0.3])
def test_those_go_that_say_least_for_their_price_whatever_their_magnitude_and_in_time(pull: float) -> None:
    toy = Toy(width=(64, 96, 32))
    control, m = controller(toy, steps=200, lingers=EVERY), magnitudes(toy)
    says = np.random.default_rng(1).uniform(0.5, 1.5, toy.channels + 1)
    m[says < 0.7] *= 100  # the largest say least
    first = m.copy()
    for step in range(1, 201):
        m += pull * (first - m)
        m *= control.update(m, np.full(len(m), 0.1), says=says)[0]
        assert toy.costs["flops"].value(control.widths) <= control._planned(step - 1)["flops"]
    assert control.done
    for g in range(3):  # one group has one price: the order within it is that of what its channels say
        of = toy.group_of == g
        gone = of & ~control.alive
        if gone.any():
            assert says[gone].max() <= np.sort(says[of & control.alive])[1]


def test_only_those_shrink_that_are_due() -> None:
    toy = Toy(width=(64, 96, 32))
    control, m = controller(toy, lingers=EVERY), magnitudes(toy)
    says = np.random.default_rng(1).uniform(0.5, 1.5, toy.channels + 1)
    factors, _ = control.update(m, np.full(len(m), 0.1), says=says)
    np.testing.assert_array_equal(factors < 1, control._due())
    assert 0 < control._due().sum() < toy.channels


def test_finish_keeps_a_part_of_every_group() -> None:
    """Squares: of what the loss says as it is, the knapsack would take whole groups first."""
    toy = Toy(width=(64, 96, 32))
    control, m = controller(toy, "flops=25%"), magnitudes(toy)
    says = np.random.default_rng(1).lognormal(size=toy.channels + 1)
    control.finish(m, np.full(len(m), 0.1), says)
    assert control.met
    assert (control.widths > toy.widths / 10).all()


@pytest.mark.parametrize("zeroed", [False, True])
def test_gradients_are_seen_whenever_the_loop_zeroes_them(zeroed: bool) -> None:
    torch.manual_seed(0)
    module = residual()
    morph, optimizer = morphed(module)
    for _ in range(60):
        x, y = batch()
        F.cross_entropy(module(x), y).backward()
        optimizer.step()
        if zeroed:
            optimizer.zero_grad()
        morph.step()
        if not zeroed:
            optimizer.zero_grad()
    assert morph.by == "taylor" and morph.done
    assert (morph._training.saliency.says[1:] > 0).any()


def test_the_published_form_and_gates_go_by_magnitudes() -> None:
    assert morphed(residual(), method="loss")[0].by == "magnitude"
    assert morphed(residual(), magnitudes="gate")[0].by == "magnitude"
    assert morphed(residual(), magnitudes="gate", by="taylor")[0].by == "taylor"
    with pytest.raises(StructureError, match="one of auto, taylor, magnitude"):
        morphed(residual(), by="luck")
