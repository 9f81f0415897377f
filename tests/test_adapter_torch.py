"""The PyTorch adapter: DESIGN's traps, resizing, and everything a real training loop does to it."""

from __future__ import annotations

import copy
import io
import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import tomli_w
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import onnxmorph
from exported import exported, grouped
from nets import NETS, Attention, basic_block, conv_bn, head
from onnxmorph.adapters.torch import Morph, load_weights, resize
from onnxmorph.adapters.torch_layers import blocks
from onnxmorph.adapters.torch_resize import tensors
from onnxmorph.analysis import Analysis, analyze
from onnxmorph.converters.torch import export
from onnxmorph.errors import BudgetError, ModelError, StructureError
from onnxmorph.latency.features import kinds
from onnxmorph.latency.kernels import kernels
from onnxmorph.latency.machine import Machine, Network
from onnxmorph.latency.measured import key_of
from onnxmorph.magnitudes import combine
from onnxmorph.penalty import penalty
from onnxmorph.structure import Structure

Build = Callable[[], nn.Module]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def residual() -> nn.Module:
    return nn.Sequential(conv_bn(3, 16), basic_block(16, 16), conv_bn(16, 16, g=16), conv_bn(16, 24, 1), head(24, 4))


def plain() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 24, 3, 2), nn.ReLU(), nn.Conv2d(24, 32, 2), nn.GELU(), nn.Flatten(), nn.Linear(32, 40),
        nn.Tanh(), nn.Linear(40, 4),
    )  # fmt: skip


def perceptron() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(108, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 48), nn.BatchNorm1d(48),
        nn.SiLU(), nn.Linear(48, 4),
    )  # fmt: skip


def data(n: int = 16) -> tuple[Tensor, Tensor]:
    """Which quarter of the image is bright."""
    y = torch.randint(0, 4, (n,))
    x = 0.5 * torch.randn(n, 3, 6, 6)
    for k in range(n):
        i, j = divmod(int(y[k]), 2)
        x[k, :, 3 * i : 3 * i + 3, 3 * j : 3 * j + 3] += 1
    return x, y


def train(module: nn.Module, optimizer: torch.optim.Optimizer, morph: Morph | None, steps: int) -> float:
    module.train()
    loss = torch.tensor(0.0)
    for _ in range(steps):
        x, y = data()
        optimizer.zero_grad()
        loss = F.cross_entropy(module(x), y)
        total = loss + morph.loss_term() if morph is not None and morph.method == "loss" else loss
        total.backward()
        optimizer.step()
        if morph is not None:
            morph.step()
    return float(loss.detach())


def share(morph: Morph, cost: str = "flops") -> float:
    return morph.cost[cost] / morph.analysis.costs[cost].value(morph.analysis.widths)


def run(model: ir.Model, *inputs: Tensor) -> np.ndarray:
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString())
    feeds = {i.name: x.numpy() for i, x in zip(session.get_inputs(), inputs, strict=True)}
    return session.run(None, feeds)[0]


def output(module: nn.Module, *inputs: Tensor) -> np.ndarray:
    module.eval()
    with torch.no_grad():
        return module(*inputs).numpy()


def assert_close(a: np.ndarray, b: np.ndarray, within: float = 1e-5) -> None:
    assert np.abs(a - b).max() <= within * np.abs(b).max()


# ---------------------------------------------------------------- trap 1: prices under Adam

LENGTHS = (1000, 100, 10, 1)  # of the signal that a branch works on: what its channels cost, 1000 : 100 : 10 : 1


class Useless(nn.Module):
    """Four branches that the output does not depend on, beside a linear map that does the work."""

    def __init__(self) -> None:
        super().__init__()
        self.work = nn.Linear(4, 2)
        self.branches = nn.ModuleList(
            nn.Sequential(nn.Conv1d(4, 16, 1), nn.BatchNorm1d(16), nn.ReLU(), nn.Conv1d(16, 2, 1)) for _ in LENGTHS
        )

    def forward(self, x: Tensor) -> Tensor:
        idle = [b(x[:, :, :n]).mean(2) for b, n in zip(self.branches, LENGTHS, strict=True)]
        return self.work(x.mean(2)) + 0 * torch.stack(idle).sum(0)


def shrunk_by_branch(method: str) -> tuple[Useless, Morph, list[float]]:
    """Half of the way to the budget: how much of the scales of each branch is gone."""
    module = Useless()
    optimizer = torch.optim.Adam(module.parameters(), 1e-2)
    x, y = torch.randn(4, 4, 1000), torch.randn(4, 2)
    morph = Morph(module, x, optimizer, "flops=35%", steps=100, method=method, by="magnitude")
    for step in range(100):
        optimizer.zero_grad()
        loss = F.mse_loss(module(x), y)
        (loss + morph.loss_term() if method == "loss" else loss).backward()
        optimizer.step()
        morph.step()
        if step == 19:
            gone = [1 - float(b[1].weight.detach().abs().mean()) for b in module.branches]
    return module, morph, gone


def test_trap_1_under_adam_useless_channels_shrink_in_the_order_of_their_cost() -> None:
    """That is 10 : 1 from branch to branch, over what the branches are worth, parameters included."""
    module, morph, gone = shrunk_by_branch("proximal")
    weight = morph._training.control.weight
    assert np.diff(weight).max() < 0
    for (dear, cheap), (worth, less) in zip(itertools.pairwise(gone), itertools.pairwise(weight), strict=True):
        assert dear / cheap == pytest.approx(10 * less / worth, rel=0.1)
    assert morph.done
    dead = [int((b[1].weight == 0).sum()) for b in module.branches]
    assert dead[0] >= 8
    assert dead[0] > dead[1]  # of which some go where one of the dearest would be too much
    assert dead[2] < 4 and dead[3] == 0  # as the last few of a hundredth of the budget


def test_trap_1_a_penalty_in_the_loss_would_lose_that_order() -> None:
    _, _, gone = shrunk_by_branch("loss")
    assert gone[0] / gone[2] < 2  # where the costs are 100 : 1


@pytest.mark.parametrize(("kind", "square"), [(torch.optim.AdamW, "exp_avg_sq"), (torch.optim.RMSprop, "square_avg")])
def test_where_the_optimizer_divides_gradients_the_penalty_is_divided_alike(kind: type, square: str) -> None:
    module = perceptron()
    optimizer = kind(module.parameters(), 1e-2)
    morph = Morph(module, data(2)[0], optimizer, "flops=50%", steps=50)
    np.testing.assert_allclose(morph._training._rates(*morph._rates.now())[1:], 1e-2)
    train(module, optimizer, morph, 3)
    found = morph._training._rates(*morph._rates.now())
    group = next(g for g in morph.analysis.groups if g.id == "1.weight:0")
    expected = 1e-2 / (optimizer.state[module[2].weight][square].sqrt() + 1e-8)
    np.testing.assert_allclose(found[group.start + 1 : group.start + 65], expected.numpy(), rtol=1e-5)


# ---------------------------------------------------------------- trap 2: nothing is left to say


@pytest.mark.parametrize("build", [residual, plain, perceptron])
def test_trap_2_the_masked_module_is_the_module_in_every_slice(build: Build) -> None:
    module = build()
    with torch.no_grad():
        for m in module.modules():
            if isinstance(m, (nn.BatchNorm2d, nn.BatchNorm1d)):
                m.bias.uniform_(0.5, 1.5)
    optimizer = torch.optim.SGD(module.parameters(), 0.05, momentum=0.9, weight_decay=1e-3)
    morph = Morph(module, data(2)[0], optimizer, "flops=40%", steps=80)
    train(module, optimizer, morph, 80)
    assert morph.done
    train(module, optimizer, morph, 3)  # momentum is still there; the zeros stay
    masked, structure, x = copy.deepcopy(module), morph.structure(), data()[0]
    for name, axes in structure.parameters.items():
        for axis, kept in axes.items():
            tensor = tensors(masked)[name]
            dead = sorted(set(range(tensor.shape[axis])) - set(kept))
            if morph.analysis.roles.get(name) != "state":
                assert not tensor.index_select(axis, torch.tensor(dead, dtype=torch.int64)).any(), name
            tensor.data.index_fill_(axis, torch.tensor(dead, dtype=torch.int64), 0)
    np.testing.assert_array_equal(output(masked, x), output(module, x))
    assert_close(output(resize(module, structure), x), output(module, x))
    shrunk = onnxmorph.shrink(export(module, x), structure)
    assert_close(run(shrunk.model, x), output(module, x))


def test_trap_2_a_shift_is_heard_until_it_has_faded() -> None:
    module = perceptron()
    nn.init.ones_(module[2].bias)
    optimizer = torch.optim.SGD(module.parameters(), 0.05)
    morph = Morph(module, data(2)[0], optimizer, "flops=40%", steps=100)
    shifts, scales = [], []
    for _ in range(100):
        train(module, optimizer, morph, 1)
        shifts.append(module[2].bias.detach().numpy().copy())
        scales.append(module[2].weight.detach().numpy().copy())
        assert not (morph.done and shifts[-1][scales[-1] == 0].any())
    fade = morph._training.control.schedule.fade
    gone = np.flatnonzero(scales[-1] == 0)
    assert len(gone) > 5
    for channel in gone:
        first = 1 + max(k for k in range(100) if scales[k][channel] != 0)  # it may have gone before, and returned
        heard = [shifts[first + k][channel] / shifts[first - 1][channel] for k in range(fade)]
        np.testing.assert_allclose(heard, 1 - np.arange(1, fade + 1) / fade, atol=0.1)
        assert heard[-1] == 0


def test_scales_serve_only_where_they_silence_the_channel() -> None:
    """A second way out that no norm scales: there scale and shift at zero do not silence it."""

    class Bypass(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.norm, self.b = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.a(x)
            return self.b(y + self.norm(y)).mean((2, 3))

    for build, expected in ((Bypass, "lasso"), (residual, "norm")):
        module = build()
        morph = Morph(module, data(2)[0], torch.optim.SGD(module.parameters(), 0.1), "flops=50%", steps=10)
        assert set(morph.magnitudes.values()) == {expected}


def test_magnitudes_can_be_told() -> None:
    module, x = residual(), data(2)[0]
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    morph = Morph(module, x, optimizer, "flops=50%", steps=10, magnitudes={"0.0.weight:0": "lasso"})
    assert morph.magnitudes["0.0.weight:0"] == "lasso"
    assert set(morph.magnitudes.values()) == {"norm", "lasso"}
    with pytest.raises(StructureError, match="neither a group's id nor one of"):
        Morph(module, x, optimizer, "flops=50%", steps=10, magnitudes="bn")
    with pytest.raises(StructureError, match="no method 'prox'"):
        Morph(module, x, optimizer, "flops=50%", steps=10, method="prox")
    with pytest.raises(BudgetError, match="steps"):
        Morph(module, x, optimizer, "flops=50%", steps=0)


# ---------------------------------------------------------------- trap 3: nobody guesses a strength

CASES = [
    (residual, lambda p: torch.optim.SGD(p, 0.1, momentum=0.9)),
    (residual, lambda p: torch.optim.Adam(p, 1e-3)),
    (plain, lambda p: torch.optim.AdamW(p, 3e-3)),
    (plain, lambda p: torch.optim.SGD(p, 0.01)),
    (perceptron, lambda p: torch.optim.RMSprop(p, 1e-3)),
    (perceptron, lambda p: torch.optim.SGD(p, 1e-4, momentum=0.9)),
]


@pytest.mark.parametrize(("build", "optim"), CASES)
def test_trap_3_the_same_call_meets_the_budget_of_any_network_at_any_rate(build: Build, optim: Callable) -> None:
    module = build()
    optimizer = optim(module.parameters())
    morph = Morph(module, data(2)[0], optimizer, "flops=50%", steps=100)
    train(module, optimizer, morph, 100)
    assert morph.done
    assert 0.48 <= share(morph) <= 0.5
    assert morph.strength == 0


def test_trap_3_a_learning_rate_schedule_does_not_matter_down_to_zero() -> None:
    module = residual()
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    morph = Morph(module, data(2)[0], optimizer, "flops=50%", steps=60)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 60)
    for _ in range(60):
        train(module, optimizer, morph, 1)
        cosine.step()
    assert morph.done
    assert 0.48 <= share(morph) <= 0.5


def staircase(analysis: Analysis, path: Path) -> Path:
    """A device on which kernels work in blocks of 16."""
    found = kernels(analysis)
    coefficients = {kind.name: {"start": 1e-6, "work|16": 1e-9} for kind in kinds(analysis, found)}
    network = Network("net", (), coefficients)
    of = Machine("onnxruntime", "CPUExecutionProvider", 1, "blocks", {key_of(analysis, found): network})
    path.write_text(tomli_w.dumps({"version": 1, "measured": of.document()}))
    return path


@pytest.mark.parametrize("kind", ["modelled", "measured"])
def test_a_budget_of_latency_is_met(kind: str, tmp_path: Path) -> None:
    module, device = residual(), "raspberry-pi-5"
    if kind == "measured":
        device = str(staircase(analyze(export(module, (data()[0],))), tmp_path / "here.toml"))
    optimizer = torch.optim.SGD(module.parameters(), 0.05)
    full = Morph(module, data()[0], optimizer, "flops=99%", steps=1, device=device).analysis
    cost, least = full.costs["latency"], np.ones(len(full.groups), np.int64)
    limit = (cost.value(full.widths) + cost.value(least)) / 2
    morph = Morph(module, data()[0], optimizer, f"latency={limit * 1e9:.0f}ns", steps=60, device=device)
    train(module, optimizer, morph, 60)
    assert morph.done and morph.structure().costs["after"]["latency"] <= limit + 1e-9


def test_the_first_weights_are_not_kept() -> None:
    module = plain()
    morph = Morph(module, data()[0], torch.optim.SGD(module.parameters(), 0.1), "flops=50%", steps=9)
    morph.finish()
    with pytest.raises(ModelError, match="export the trained module anew"):
        onnxmorph.shrink(morph.analysis, morph.structure())
    small = onnxmorph.shrink(export(module, data()[0]), morph.structure())
    assert small.structure.widths.tolist() == list(morph.widths.values())


def test_finish_meets_the_budget_of_a_loop_that_ended_early() -> None:
    module = residual()
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    morph = Morph(module, data(2)[0], optimizer, "flops=50%,params=50%", steps=1000)
    train(module, optimizer, morph, 5)
    assert not morph.done
    morph.finish()
    assert morph.done
    assert 0.4 <= max(share(morph), share(morph, "params")) <= 0.5
    x = data()[0]
    assert_close(output(resize(module, morph.structure()), x), output(module, x))


# ---------------------------------------------------------------- the penalty


def magnitudes_of(morph: Morph, arrays: dict[str, np.ndarray], norm: str, lasso: str) -> np.ndarray:
    """Of every channel, from all its slices (or scales) by the dense reference, combined as told for its kind."""
    analysis, found = morph.analysis, np.zeros(morph.analysis.channels + 1)
    for group in analysis.groups:
        by_norm = morph.magnitudes[group.id] == "norm"
        how = norm if by_norm else lasso
        for c in range(group.start + 1, group.start + 1 + group.width):
            slices = []
            for m in group.members:
                role, rows = analysis.roles.get(m.tensor), analysis.rows[m.tensor][m.axis]
                if role == "scale" or (not by_norm and role != "state"):
                    array = np.moveaxis(arrays[m.tensor], m.axis, 0)
                    slices += [array[p].ravel() for p in np.flatnonzero((rows == c).any(1))]
            numbers = np.concatenate(slices) if how == "rms" else np.array([np.linalg.norm(s) for s in slices])
            found[c] = combine(numbers[None], how)[0]
    return found


@pytest.mark.parametrize(
    ("name", "method", "how"),
    [
        ("resnet", "proximal", "rms"),
        ("resnet", "loss", "max"),
        ("mobilenet_v3", "proximal", "rms"),
        ("mlp", "loss", "max"),
    ],
)
def test_the_loss_term_is_the_numpy_reference(name: str, method: str, how: str) -> None:
    module, inputs = NETS[name]()
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    morph = Morph(module, inputs, optimizer, "flops=70%", steps=10, method=method)
    control = morph._training.control
    arrays = {n: t.detach().numpy().astype(float) for n, t in tensors(module).items()}
    found = magnitudes_of(morph, arrays, norm=how, lasso="rms")
    term = morph.loss_term()
    expected = penalty(control.price, found, morph.strength)
    assert expected > 0
    assert float(term.detach()) == pytest.approx(expected, rel=1e-5)
    term.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in module.parameters())


# ---------------------------------------------------------------- resizing


def halved(name: str) -> tuple[nn.Module, Structure]:
    module, _, model = exported(name)
    return module, onnxmorph.shrink(model, budget="flops=60%", by="random", seed=1).structure


def nets(names: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("name", grouped(*names.split()))


@nets(
    "resnet resnext vgg_bn inception densenet mobilenet_v3 unet convnext depthwise_multiplier groupnorm conv1d "
    "transposed_grouped tied_linear glu shared_twice pixel_shuffle"
)
def test_the_resized_module_is_the_shrunk_onnx_model_and_trains(name: str) -> None:
    module, inputs, model = exported(name)
    shrunk = onnxmorph.shrink(model, budget="flops=60%", by="random", seed=1)
    small = resize(module, shrunk.structure)
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in module.parameters())
    for m in small.modules():  # what it says about itself is consistent, too
        if type(m) in (nn.Conv2d, nn.ConvTranspose2d):
            again = type(m)(m.in_channels, m.out_channels, m.kernel_size, groups=m.groups)
            assert again.weight.shape == m.weight.shape
        if type(m) is nn.Linear:
            assert (m.out_features, m.in_features) == m.weight.shape
    left = load_weights(small, shrunk.model)
    assert left == ()
    assert_close(output(small, *inputs), run(shrunk.model, *inputs))
    small.train()(*inputs).square().mean().backward()
    assert all(p.grad is not None and p.grad.shape == p.shape for p in small.parameters())


@nets("resnet resnext mobilenet_v2 densenet groupnorm mlp")
def test_the_expanded_module_is_the_expanded_onnx_model(name: str) -> None:
    module, inputs, model = exported(name)
    structure = onnxmorph.shrink(model, budget="flops=50%", by="random", seed=1).structure
    wide = onnxmorph.expand(model, structure, "flops=110%")
    assert any(len(set(g.keep)) < len(g.keep) for g in wide.structure.groups)
    large = resize(module, wide.structure)
    assert load_weights(large, wide.model) == ()
    assert_close(output(large, *inputs), run(wide.model, *inputs))


def test_tying_frozen_parameters_and_the_module_itself_are_kept() -> None:
    module, structure = halved("tied_linear")
    module = copy.deepcopy(module)
    module.inner.bias.requires_grad = False
    before = {n: t.clone() for n, t in module.state_dict().items()}
    small = resize(module, structure)
    assert small.decoder.weight is small.encoder.weight
    assert not small.inner.bias.requires_grad
    assert small.inner.weight.requires_grad
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_a_structure_of_another_module_is_refused() -> None:
    _, structure = halved("resnet")
    with pytest.raises(StructureError, match="give the module it was made from"):
        resize(nn.Linear(3, 3), structure)
    with pytest.raises(StructureError, match="resize the module"):
        load_weights(residual(), onnxmorph.shrink(export(residual(), data(2)[0]), budget="flops=50%").model)


def test_blocks_of_an_outer_and_an_inner_factor() -> None:
    assert blocks([0, 1, 2, 3], 2) == 2
    assert blocks([0, 2, 4], 2) == 3  # one inner position left
    assert blocks([0, 1, 0, 1, 2, 3], 2) == 3  # an outer one copied
    assert blocks([0, 0, 1, 2, 2, 3], 2) == 2  # an inner one copied
    assert blocks([0, 0, 3], 1) == 3  # depthwise
    assert blocks([1, 1, 3, 5, 5], 2) == 5  # one inner position left: the outer were copied
    for outer, inner in (((0, 0, 2, 2), (1,)), ((0, 2), (1, 1))):  # looks the same on the axis itself
        assert blocks([1, 1, 5, 5], 2, frozenset({(4, outer), (2, inner)})) == len(outer)


# ---------------------------------------------------------------- sizes in the user's own code


def build(name: str, **options: object) -> tuple[nn.Module, tuple[Tensor, ...], Morph]:
    module, inputs = NETS[name]()
    optimizer = torch.optim.SGD(module.parameters(), 0.01)
    return module, inputs, Morph(module, inputs, optimizer, "flops=99%", steps=10, **options)


@nets("vit vit_fused shufflenet_v2 split_uneven")
def test_groups_whose_sizes_stand_in_python_code_are_locked_and_the_rest_is_right(name: str) -> None:
    module, inputs, morph = build(name)
    assert morph.locked
    assert all("resized" in reason for reason in morph.locked.values())
    if name == "vit":  # the scale of its scores follows the width of a head, where that of the graph does not
        assert {"blocks.0.body.1.q.weight:0/2", "blocks.2.body.1.q.weight:0/2"} == morph.locked.keys()
    if name == "vit_fused":  # heads and their width are told from the width of the input, the MLPs beside it are free
        assert {"blocks.1.body.1.weight:0", "blocks.3.body.1.weight:0"} == set(morph.magnitudes)
    assert morph.magnitudes.keys() | morph.locked.keys() == {g.id for g in morph.analysis.groups}
    copies = np.ones(morph.analysis.channels + 1, np.int64)
    for group in morph.analysis.groups:
        if group.id not in morph.locked and group.width > 1:
            copies[group.start + 1 : group.start + 1 + group.width // 3 + 1] = 0
    structure = Structure.of(morph.analysis, copies, **morph.structure().provenance)
    shrunk = onnxmorph.shrink(export(module, inputs), structure)
    assert (copies == 0).any()
    small = resize(module, shrunk.structure)
    load_weights(small, shrunk.model)
    assert_close(output(small, *inputs), run(shrunk.model, *inputs))


class Hidden(Attention):
    """Its number of heads is not where attributes are looked for."""

    def __init__(self, width: int, heads: int) -> None:
        nn.Module.__init__(self)
        self.table = {"heads": heads}
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))

    @property
    def heads(self) -> int:
        return self.table["heads"]


def test_a_hook_that_brings_attributes_up_to_date_unlocks_them() -> None:
    def heads(module: nn.Module, structure: Structure) -> None:
        for name, m in module.named_modules():
            if isinstance(m, Hidden):
                m.table["heads"] = len(next(g for g in structure.groups if g.id == f"{name}.q.weight:0").keep)

    module, inputs = nn.Sequential(nn.Linear(3, 12), Hidden(12, 3)), torch.randn(2, 4, 3)
    optimizer = torch.optim.SGD(module.parameters(), 0.01)
    locked = [Morph(module, inputs, optimizer, "flops=99%", steps=9, on_resize=hook).locked for hook in (None, heads)]
    assert locked[0].keys() - locked[1].keys() == {"1.q.weight:0"}


def test_halves_that_only_fit_when_cut_alike_are_locked() -> None:
    class Halves(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.left, self.right = (nn.Linear(3, 4), nn.Linear(3, 4), nn.Linear(4, 3), nn.Linear(4, 3))

        def forward(self, x: Tensor) -> Tensor:
            left, right = torch.cat([self.a(x), self.b(x)], 1).chunk(2, 1)
            return self.left(left) * self.right(right)

    module = Halves()
    morph = Morph(module, torch.randn(2, 3), torch.optim.SGD(module.parameters(), 0.1), "flops=100%", steps=1)
    assert set(morph.locked) == {"a.weight:0", "b.weight:0"}


# ---------------------------------------------------------------- what real loops do


def test_killed_and_resumed_gives_the_same_structure() -> None:
    def start() -> tuple[nn.Module, torch.optim.Optimizer, Morph]:
        torch.manual_seed(1)
        module = residual()
        optimizer = torch.optim.Adam(module.parameters(), 1e-2)
        return module, optimizer, Morph(module, data(2)[0], optimizer, "flops=50%", steps=60)

    module, optimizer, morph = start()
    train(module, optimizer, morph, 48)
    assert 0.5 < share(morph) < 1
    file = io.BytesIO()
    torch.save({"m": module.state_dict(), "o": optimizer.state_dict(), "morph": morph.state_dict()}, file)
    rng = torch.get_rng_state()
    train(module, optimizer, morph, 12)
    again, optimizer2, resumed = start()
    file.seek(0)
    state = torch.load(file, weights_only=True)
    again.load_state_dict(state["m"])
    optimizer2.load_state_dict(state["o"])
    resumed.load_state_dict(state["morph"])
    torch.set_rng_state(rng)
    train(again, optimizer2, resumed, 12)
    assert morph.done
    assert resumed.structure() == morph.structure()
    assert all(
        torch.equal(a, b) for a, b in zip(module.state_dict().values(), again.state_dict().values(), strict=True)
    )


def test_gradient_accumulation_under_bf16_autocast() -> None:
    module = residual()
    optimizer = torch.optim.SGD(module.parameters(), 0.05, momentum=0.9)
    morph = Morph(module, data(2)[0], optimizer, "flops=50%", steps=40)
    for _ in range(40):
        optimizer.zero_grad()
        for _ in range(2):
            x, y = data(8)
            with torch.autocast("cpu", torch.bfloat16):
                loss = F.cross_entropy(module(x), y) / 2
            loss.backward()
        optimizer.step()
        morph.step()
    assert morph.done
    assert 0.48 <= share(morph) <= 0.5
    x = data()[0]
    assert_close(output(resize(module, morph.structure()), x), output(module, x))


def test_frozen_parameters_are_not_shrunk_and_groups_of_nothing_else_are_locked() -> None:
    module = residual()
    for parameter in (*module[0].parameters(), *module[1].parameters()):
        parameter.requires_grad = False
    module[2][1].weight.requires_grad = True
    before = copy.deepcopy(module[1].state_dict())
    trained = [p for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, 0.05)
    morph = Morph(module, data(2)[0], optimizer, "flops=90%", steps=60)
    inner = "1.body.0.0.weight:0"
    assert morph.locked == {inner: "none of its parameters is trained by the optimizer, among them 1.body.0.0.weight"}
    train(module, optimizer, morph, 60)
    assert morph.done
    alive = list(next(g.keep for g in morph.structure().groups if g.id == "0.0.weight:0"))
    for name, tensor in module[1].named_parameters():
        old = before[name]
        if name.startswith("body.1"):  # out channels of the stream
            tensor, old = tensor[alive], old[alive]
        elif tensor.ndim == 4:
            tensor, old = tensor[:, alive], old[:, alive]
        assert torch.equal(tensor, old)


def test_parameter_groups_with_their_own_rates() -> None:
    module = perceptron()
    scales = [m.weight for m in module if isinstance(m, nn.BatchNorm1d)]
    rest = [p for p in module.parameters() if all(p is not s for s in scales)]
    optimizer = torch.optim.SGD([{"params": scales[:1], "lr": 0.0}, {"params": scales[1:]}, {"params": rest}], 0.1)
    morph = Morph(module, data(2)[0], optimizer, "flops=80%", steps=60)
    train(module, optimizer, morph, 60)
    assert morph.done
    assert morph.widths["1.weight:0"] == 64  # at rate 0 nothing moves
    assert morph.widths["4.weight:0"] < 48


def test_the_published_form_reaches_the_budget_too() -> None:
    module = residual()
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    morph = Morph(module, data(2)[0], optimizer, "flops=60%", steps=150, method="loss")
    train(module, optimizer, morph, 150)
    morph.finish()
    assert 0.55 <= share(morph) <= 0.6


def test_what_morphing_leaves_has_learnt_the_task() -> None:
    module = residual()
    optimizer = torch.optim.Adam(module.parameters(), 1e-2)
    morph = Morph(module, data(2)[0], optimizer, "flops=50%", steps=120)
    train(module, optimizer, morph, 150)
    small = resize(module, morph.structure())
    train(small, torch.optim.Adam(small.parameters(), 1e-2), None, 30)
    x, y = data(200)
    assert (output(small, x).argmax(1) == y.numpy()).mean() > 0.9
