"""How slices make up magnitudes, against the dense reference; which kind is chosen, and why."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import onnxmorph
from nets import conv_bn, head
from onnxmorph.adapters.torch import Gating, Morph, resize
from onnxmorph.adapters.torch_resize import tensors
from onnxmorph.controller import gap
from onnxmorph.converters.torch import export
from onnxmorph.errors import StructureError, TrainingError
from onnxmorph.magnitudes import COMBINATIONS, Slices, Sources, combine
from onnxmorph.penalty import penalty, proximal
from test_adapter_torch import assert_close, data, magnitudes_of, output, perceptron, plain, residual, run, share, train


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def sources_at_random(how: str, seed: int) -> Sources:
    """Three axes; some positions belong to two channels, some to none."""
    rng = np.random.default_rng(seed)
    parts = {
        (f"w{n}", 0): rng.integers(0, 8, (size, columns)) for n, (size, columns) in enumerate([(9, 1), (7, 2), (5, 1)])
    }
    for rows in parts.values():
        rows[:, 1:][rows[:, 1:] == rows[:, :1]] = 0
    slices = Slices.joined(parts)
    return Sources(slices, rng.integers(1, 4, slices.positions), {how: np.ones(8, bool)}, 8)


def dense(sources: Sources, norms: np.ndarray, how: str) -> np.ndarray:
    """Every channel by itself. For rms a norm stands for as many numbers as it is of."""
    found = np.zeros(sources.channels)
    for c in range(1, sources.channels):
        at = np.flatnonzero((sources.slices.rows == c).any(1))
        if len(at):
            each = [
                np.full(n, norms[p] / np.sqrt(n)) if how == "rms" else norms[p : p + 1]
                for p, n in zip(at, sources.elements[at], strict=True)
            ]
            found[c] = combine(np.concatenate(each)[None], how)[0]
    return found


@pytest.mark.parametrize("how", COMBINATIONS)
@pytest.mark.parametrize("seed", range(3))
def test_slices_combine_as_the_reference_says(how: str, seed: int) -> None:
    sources = sources_at_random(how, seed)
    norms = np.random.default_rng(seed).uniform(0, 1.2, sources.slices.positions)
    found = sources.combine(norms)
    np.testing.assert_allclose(found[1:], dense(sources, norms, how)[1:], rtol=1e-12)
    assert found.max() > 0.5


@pytest.mark.parametrize("how", COMBINATIONS)
def test_slopes_are_the_gradient(how: str) -> None:
    sources = sources_at_random(how, 1)
    rng = np.random.default_rng(1)
    norms, weights = rng.uniform(0.1, 0.9, sources.slices.positions), rng.uniform(size=8)
    weights[0] = 0
    slopes, tiny = sources.slopes(norms, weights), 1e-6
    for p in range(sources.slices.positions):
        more = norms.copy()
        more[p] += tiny
        change = weights @ (sources.combine(more) - sources.combine(norms)) / tiny
        assert slopes[p] == pytest.approx(change, abs=1e-4)
    assert not sources.slopes(np.zeros(len(norms)), weights).any()


@pytest.mark.parametrize("how", COMBINATIONS)
@pytest.mark.parametrize("kind", ["norm", "lasso"])
def test_a_step_and_the_loss_term_are_the_reference(how: str, kind: str) -> None:
    module = residual()
    with torch.no_grad():
        for m in module.modules():
            if isinstance(m, nn.BatchNorm2d):
                m.weight.uniform_(0.2, 0.9)
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    morph = Morph(module, data(2)[0], optimizer, "flops=50%", steps=50, magnitudes=kind, combine=how, by="magnitude")
    before = {n: t.detach().numpy().copy() for n, t in tensors(module).items()}
    found, control = magnitudes_of(morph, before, norm=how, lasso=how), morph._training.control
    assert float(morph.loss_term().detach()) == pytest.approx(penalty(control.price, found, morph.strength), rel=1e-5)
    optimizer.step()  # no gradient: nothing moves
    price = control.price.copy()
    morph.step()
    charged = control._charged(np.divide(found, 0.1 * price, out=np.full(len(found), np.inf), where=price > 0))
    thresholds = np.where(charged, 0.1 * morph.strength * price, 0.0)
    assert charged[1:].all() == (kind == "norm") and charged[1:].any()
    after = {n: t.detach().numpy() for n, t in tensors(module).items()}
    for group in morph.analysis.groups:
        names = [m for m in group.members if morph.analysis.roles.get(m.tensor) == "scale"]
        own = slice(group.start + 1, group.start + 1 + group.width)
        for m in names:
            whole = proximal(np.ones((group.width, 1)), thresholds[own] / found[own])  # one factor for all its slices
            np.testing.assert_allclose(after[m.tensor], before[m.tensor] * whole[:, 0], rtol=1e-5)
    assert morph.strength > 0


def test_auto_says_what_it_chose_and_why() -> None:
    module = nn.Sequential(conv_bn(3, 8), nn.Conv2d(8, 8, 1), nn.ReLU(), head(8, 4))
    morph = Morph(module, data(2)[0], torch.optim.SGD(module.parameters(), 0.1), "flops=80%", steps=10)
    assert sorted(morph.magnitudes.values()) == ["lasso", "norm"]
    assert morph.reasons["0.0.weight:0"] == "zero scale, shift and bias silence it (0.1.weight)"
    assert morph.reasons["1.weight:0"] == "no norm scales it"


@pytest.mark.parametrize("combination", ["mean", {"scale": "max"}])
def test_unknown_combinations_are_refused(combination: object) -> None:
    module = perceptron()
    with pytest.raises(StructureError, match=r"combine: '(mean|scale)' is neither") as caught:
        Morph(module, data(2)[0], torch.optim.SGD(module.parameters(), 0.1), "flops=80%", steps=9, combine=combination)
    assert caught.value.code == "combine"


def test_a_gap_parts_the_dead_from_the_living() -> None:
    rng = np.random.default_rng(0)
    living, dead = rng.uniform(0.3, 1, 50), rng.uniform(0.001, 0.004, 30)
    middle = gap(np.concatenate([living, dead, [0.0]]))
    assert dead.max() < middle < living.min()
    assert gap(living) == 0  # no gap is a decade wide
    assert gap(np.zeros(5)) == 0


# ---------------------------------------------------------------- gates


@pytest.mark.parametrize("build", [residual, plain, perceptron])
@pytest.mark.parametrize("gating", [Gating(), Gating(straight_through=False, temperature=1.0)], ids=["hard", "soft"])
def test_gates_meet_the_budget_and_leave_the_network_that_they_trained(build: object, gating: Gating) -> None:
    module = build()
    names = module.state_dict().keys()
    optimizer = torch.optim.Adam(module.parameters(), 1e-2)
    morph = Morph(module, data(2)[0], optimizer, "flops=40%", steps=100, magnitudes="gate", gating=gating)
    assert set(morph.magnitudes.values()) == {"gate"}
    train(module, optimizer, morph, 100)
    assert morph.done and 0.38 <= share(morph) <= 0.4
    assert module.state_dict().keys() == names and not module._forward_pre_hooks and not module._forward_hooks
    x, structure = data()[0], morph.structure()
    assert_close(output(resize(module, structure), x), output(module, x))
    assert_close(run(onnxmorph.shrink(export(module, x), structure).model, x), output(module, x))
    assert train(module, optimizer, morph, 20) < 1.0


def test_a_gate_stands_behind_the_activation() -> None:
    """Only the weights that read a channel are gated, so that a sigmoid of nothing is not heard."""
    module = nn.Sequential(nn.Flatten(), nn.Linear(108, 8), nn.Sigmoid(), nn.Linear(8, 4))
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    morph = Morph(module, data(2)[0], optimizer, "flops=80%", steps=10, magnitudes="gate", gating=Gating(open=0.3))
    x, gates = data()[0], morph._gates
    hidden = module[2](module[1](module[0](x)))
    with torch.no_grad():
        gates.logits["gate of 1.weight:0"].copy_(torch.tensor([9.0, -9.0] * 4))
    module.eval()
    expected = F.linear(hidden * torch.tensor([1.0, 0.0] * 4), module[3].weight, module[3].bias)
    torch.testing.assert_close(module(x), expected)
    module.train()
    with torch.no_grad():
        gates.logits["gate of 1.weight:0"].zero_()
        open_ = torch.stack([gates.values()[1:] for _ in range(400)])
    assert set(open_.unique().tolist()) == {0.0, 1.0}
    assert float(open_.mean()) == pytest.approx(0.5, abs=0.05)


def test_gates_learn_which_channels_serve() -> None:
    """Half of the channels are noise to the output."""
    module = nn.Sequential(nn.Linear(8, 8, bias=False), nn.Linear(8, 1, bias=False))
    with torch.no_grad():
        module[0].weight.copy_(torch.eye(8))
        module[1].weight.copy_(torch.tensor([[1.0] * 4 + [0.3] * 4]))
    for p in module.parameters():
        p.requires_grad_(True)
    optimizer = torch.optim.SGD([{"params": module.parameters(), "lr": 1e-6}])
    x = torch.randn(256, 8)
    morph = Morph(module, x, optimizer, "params=50%", steps=200, magnitudes="gate", gating=Gating(rate=1.0))
    for _ in range(200):
        optimizer.zero_grad()
        F.mse_loss(module(x)[:, 0], x[:, :4].sum(1)).backward()
        optimizer.step()
        morph.step()
    assert next(g for g in morph.structure().groups if g.id == "0.weight:0").keep == (0, 1, 2, 3)


def test_gates_killed_and_resumed_give_the_same_structure() -> None:
    def start() -> tuple[nn.Module, torch.optim.Optimizer, Morph]:
        torch.manual_seed(1)
        module = perceptron()
        optimizer = torch.optim.Adam(module.parameters(), 1e-2)
        return module, optimizer, Morph(module, data(2)[0], optimizer, "flops=40%", steps=60, magnitudes="gate")

    def go(module: nn.Module, optimizer: torch.optim.Optimizer, morph: Morph, steps: range) -> None:
        for step in steps:
            torch.manual_seed(step)
            train(module, optimizer, morph, 1)

    whole = start()
    go(*whole, range(60))
    first = start()
    go(*first, range(31))
    saved = [part.state_dict() for part in first]
    second = start()
    for part, state in zip(second, saved, strict=True):
        part.load_state_dict(state)
    go(*second, range(31, 60))
    assert whole[2].structure() == second[2].structure()
    for a, b in zip(whole[0].parameters(), second[0].parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_the_weights_of_recurrent_layers_cannot_be_gated() -> None:
    class Tagger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.out = nn.LSTM(4, 8, batch_first=True), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.lstm(x)[0])

    module = Tagger()
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    with pytest.raises(TrainingError, match="of LSTM cannot be gated") as caught:
        Morph(module, torch.randn(2, 5, 4), optimizer, "flops=50%", steps=10, magnitudes="gate")
    assert caught.value.code == "gates-recurrent"
