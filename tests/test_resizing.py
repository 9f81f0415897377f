"""Getting the network back: sizes in the module's own code, checkpoints, optimizers, growth, what goes as a whole."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn

import onnxmorph
from nets import NETS, TorchAttention, ViT
from onnxmorph.adapters.torch import Morph, grow, kept_indices, load_weights, resize, resize_optimizer, resize_state
from onnxmorph.adapters.torch_attention import ResizedAttention
from onnxmorph.adapters.torch_probe import Probe, followed
from onnxmorph.adapters.torch_sizes import set_sizes
from onnxmorph.analysis import analyze
from onnxmorph.converters.torch import export
from onnxmorph.converters.torch_back import from_module, to_module
from onnxmorph.errors import StructureError
from onnxmorph.structure import Structure
from test_adapter_torch import assert_close, data, output, plain, residual, run

Example = tuple[nn.Module, tuple[Tensor, ...]]
IMAGE = (torch.randn(2, 3, 16, 16),)
WORDS = (torch.randint(0, 50, (2, 6)),)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


# ---------------------------------------------------------------- networks whose sizes are attributes


class Attention(nn.Module):
    """One projection for queries, keys and values, and all sizes as attributes, as in newer timm."""

    def __init__(self, width: int, heads: int, dim: int = 4) -> None:
        super().__init__()
        self.heads, self.dim, self.inner, self.scale = heads, dim, heads * dim, dim**-0.5
        self.qkv, self.out = nn.Linear(width, 3 * self.inner), nn.Linear(self.inner, width)

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, self.dim).permute(2, 0, 3, 1, 4).unbind(0)
        return self.out(((q @ k.mT * self.scale).softmax(-1) @ v).transpose(1, 2).reshape(b, n, self.inner))


class Projection(nn.Module):
    """A linear map that says its own size, as in transformers' GPT-2."""

    def __init__(self, i: int, o: int) -> None:
        super().__init__()
        self.size, self.weight, self.bias = o, nn.Parameter(torch.randn(i, o) / i**0.5), nn.Parameter(torch.rand(o))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, x.view(-1, x.shape[-1]), self.weight).view(*x.shape[:-1], self.size)


class Causal(nn.Module):
    """Sizes in a list and in a config that all blocks share; keys and values have heads of different widths."""

    def __init__(self, width: int, heads: int, config: SimpleNamespace) -> None:
        super().__init__()
        self.config, self.parts = config, [2 * heads * config.dim, heads * config.dim]
        self.heads, self.project, self.out = heads, Projection(width, sum(self.parts)), Projection(self.parts[1], width)
        self.norm, self.up, self.down = nn.LayerNorm(width), Projection(width, 4 * width), Projection(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        qk, v = self.project(self.norm(x)).split(self.parts, -1)
        q, k = qk.view(b, n, 2, self.heads, self.config.dim).permute(2, 0, 3, 1, 4).unbind(0)
        v = v.view(b, n, self.heads, -1).transpose(1, 2)
        scores = (q @ k.mT / 2).masked_fill(torch.ones(n, n, dtype=torch.bool).triu(1), -1e9)
        x = x + self.out((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(x)))


class GPT(nn.Module):
    """Blocks with different numbers of heads."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        config = SimpleNamespace(dim=5, name="tiny")
        self.words, self.head = nn.Embedding(50, width), nn.Linear(width, 8)
        self.blocks = nn.Sequential(Causal(width, 2, config), Causal(width, 4, config))

    def forward(self, words: Tensor) -> Tensor:
        return self.head(self.blocks(self.words(words)).mean(1))


class Output(nn.Module):
    """The first output of a model of transformers."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)[0]


SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 32}
WORDY = {"vocab_size": 50, "bos_token_id": 1, "eos_token_id": 2}


def bert() -> nn.Module:
    return transformers.BertForSequenceClassification(
        transformers.BertConfig(**SIZES, **WORDY, max_position_embeddings=8)
    )


def gpt2() -> nn.Module:
    return transformers.GPT2LMHeadModel(
        transformers.GPT2Config(**WORDY, n_positions=8, n_embd=16, n_layer=1, n_head=4, use_cache=False)
    )


def image_classifier() -> nn.Module:
    return transformers.ViTForImageClassification(transformers.ViTConfig(**SIZES, image_size=16, patch_size=8))


class Tagger(nn.Module):
    """A recurrent network."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.lstm = nn.Embedding(50, 12), nn.LSTM(12, 16, batch_first=True)
        self.gru, self.head = nn.GRU(16, 10, batch_first=True), nn.Linear(10, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.gru(self.lstm(self.words(x))[0])[0])


def unflatten() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 24), nn.Unflatten(-1, (4, 6)), nn.ReLU(), nn.Flatten(-2), nn.Linear(24, 3))


def encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
    return nn.Sequential(nn.Linear(6, 16), nn.TransformerEncoder(layer, 2, enable_nested_tensor=False))


NETWORKS: dict[str, tuple[Callable[[], Example], int]] = {  # and how many of its groups stay locked
    "vit": (lambda: (ViT(Attention, 16, 4, 1), IMAGE), 0),  # as many heads as each is wide
    "vit of nn.MultiheadAttention": (NETS["vit_torch"], 0),
    "nn.TransformerEncoder": (lambda: (nn.Sequential(encoder(), nn.Linear(16, 3)), (torch.randn(2, 5, 6),)), 0),
    "gpt": (lambda: (GPT(), WORDS), 0),
    "bert of transformers": (lambda: (Output(bert()), WORDS), 2),  # one attribute for the width of keys and values
    "gpt2 of transformers": (lambda: (Output(gpt2()), WORDS), 2),
    "vit of transformers": (lambda: (Output(image_classifier()), IMAGE), 2),
    "lstm": (lambda: (Tagger(), WORDS), 0),
    "nn.Unflatten": (lambda: (unflatten(), (torch.randn(2, 6),)), 0),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_half_of_a_network_is_left_and_computes_what_the_onnx_model_does(name: str) -> None:
    build, locked = NETWORKS[name]
    module, inputs = build()
    module.eval()
    morph = Morph(module, inputs, torch.optim.SGD(module.parameters(), 0.1), "flops=50%", steps=1)
    assert len(morph.locked) == locked
    morph.finish()
    assert 0.4 <= morph.cost["flops"] / morph.analysis.costs["flops"].value(morph.analysis.widths) <= 0.5
    saved = Structure.from_json(morph.structure().to_json())  # as another process has it
    assert saved == morph.structure()
    small, shrunk = resize(module, saved), onnxmorph.shrink(export(module, inputs), saved)
    load_weights(small, shrunk.model)
    assert_close(output(small, *inputs), run(shrunk.model, *inputs))
    small.train()(*inputs).square().mean().backward()
    assert all(p.grad is None or p.grad.shape == p.shape for p in small.parameters())


def test_a_config_or_list_that_modules_share_is_copied_before_it_is_changed() -> None:
    module = GPT()
    shared = module.blocks[1].parts = module.blocks[0].parts
    sizes = {"blocks.0.config.dim": [[1, ["a"]]], "blocks.0.parts.1": [[2, ["a", "b"]], [1, ["b"]]]}
    set_sizes(module, sizes, {"a": 3, "b": 4})
    assert [block.config.dim for block in module.blocks] == [3, 5]
    assert [block.parts for block in module.blocks] == [[20, 28], [20, 10]]
    assert shared == [20, 10] and module.blocks[0].config.name == "tiny"


class Taken(nn.Module):
    """The width of a head is told from the width of the input: nothing that could be set."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.qkv, self.out = 4, nn.Linear(16, 48), nn.Linear(16, 16)
        self.embed, self.head, self.shape = nn.Linear(3, 16), nn.Linear(16, 5), Shape()

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, x.shape[-1] // self.heads)).permute(2, 0, 3, 1, 4)
        return self.head(self.out(self.shape((q @ k.mT / 2).softmax(-1) @ v)))


class Shape(nn.Module):
    """A size in a module without parameters, and one that is no width though it is as large."""

    def __init__(self) -> None:
        super().__init__()
        self.axes = [2, 3]

    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2).flatten(*self.axes)


def test_what_cannot_be_followed_is_said_and_refused() -> None:
    module, inputs = Taken(), torch.randn(2, 4, 3)
    morph = Morph(module, inputs, torch.optim.SGD(module.parameters(), 0.1), "flops=100%", steps=1)
    assert set(morph.locked) == {g.id for g in morph.analysis.groups} - {"out.weight:0"}
    copies = np.ones(morph.analysis.channels + 1, np.int64)
    copies[1] = 0
    cut = Structure.of(morph.analysis, copies, **morph.structure().provenance)
    with pytest.raises(StructureError, match=r"does not follow group 'embed.weight:0'.*Bounds\(keep="):
        resize(module, cut)


def test_a_size_that_the_module_has_not_is_an_error() -> None:
    module = unflatten()
    structure = onnxmorph.shrink(export(module, torch.randn(2, 6)), budget="flops=60%").structure
    strange = ("0.forward", "1.training", "0.__class__", "0.weight")  # no whole numbers: not for a file to change
    for path in ("1.unflattened_size.7", "1.heads", "9.heads", "0.weight.heads", *strange):
        wrong = replace(structure, provenance={"attributes": {path: [[2, ["0.weight:0"]]]}})
        with pytest.raises(StructureError, match=path) as caught:
            resize(module, wrong)
        assert caught.value.code == "structure-module"
    bound = replace(structure, provenance={"attributes": {"1.unflattened_size.0": [[2, ["kept.weight:0"]]]}})
    with pytest.raises(StructureError, match="give Morph these boundaries"):
        resize(module, bound)


def test_a_class_that_does_not_bear_being_watched_is_locked() -> None:
    class Strict(Attention):
        def forward(self, x: Tensor) -> Tensor:
            assert type(self) is Strict
            return super().forward(x)

    module = nn.Sequential(nn.Linear(3, 6), Strict(6, 3))
    morph = Morph(module, torch.randn(2, 4, 3), torch.optim.SGD(module.parameters(), 0.1), "flops=100%", steps=1)
    assert {"1.qkv.weight:0", "1.qkv.weight:0/2"} == morph.locked.keys()


def test_nothing_more_is_tried_where_nothing_is_locked(monkeypatch: pytest.MonkeyPatch) -> None:
    module, inputs = NETS["mlp"]()
    tried = []
    wrongly = Probe.resized_wrongly
    monkeypatch.setattr(Probe, "resized_wrongly", lambda self, *args: (tried.append(args), wrongly(self, *args))[1])
    probe = Probe.of(module, inputs, analyze(export(module, inputs)), None)
    assert followed(probe) == ({}, {})
    assert [trial for _, trial in tried] == list(range(5))


MASKS = {
    "none": {},
    "weights": {"need_weights": True},
    "of each head": {"need_weights": True, "average_attn_weights": False},
    "truth values": {"attn_mask": torch.ones(5, 5, dtype=torch.bool).triu(1)},
    "causal": {"attn_mask": torch.ones(5, 5, dtype=torch.bool).triu(1), "is_causal": True},
    "numbers": {"attn_mask": torch.randn(5, 5), "need_weights": True},
    "of samples": {"attn_mask": torch.randn(8, 5, 5)},
    "padding": {"key_padding_mask": torch.tensor([[False] * 5, [False] * 3 + [True] * 2])},
    "both": {
        "attn_mask": torch.randn(5, 5),
        "key_padding_mask": torch.tensor([[0.0] * 5, [0.0] * 3 + [-float("inf")] * 2]),
    },
}


@pytest.mark.parametrize("what", MASKS)
@pytest.mark.parametrize("options", [{}, {"batch_first": True, "bias": False}, {"kdim": 6, "vdim": 7}], ids=str)
def test_resized_attention_is_pytorchs_where_nothing_is_cut(options: dict[str, object], what: str) -> None:
    module = nn.MultiheadAttention(8, 4, dropout=0.2, **options)
    if module.in_proj_bias is not None:
        nn.init.normal_(module.in_proj_bias)
    own = resize(module, whole(module))
    assert type(own) is ResizedAttention
    widths = (8, options.get("kdim", 8), options.get("vdim", 8))
    inputs = [torch.randn(*((2, 5) if module.batch_first else (5, 2)), n) for n in widths]
    for mode in (True, False):
        found = []
        for each in (module.train(mode), own.train(mode)):
            torch.manual_seed(1)
            found.append(each(*inputs, **{"need_weights": False, **MASKS[what]}))
        for one, other in zip(*found, strict=True):
            if one is not None and not (mode and not MASKS[what].get("need_weights")):
                torch.testing.assert_close(one, other)
    if what in ("none", "weights"):
        single = [x[0] if module.batch_first else x[:, 0] for x in inputs]
        for one, other in zip(module(*single), own(*single), strict=True):
            torch.testing.assert_close(one, other)


def whole(module: nn.MultiheadAttention) -> Structure:
    """A structure that keeps everything, and says so."""
    names = [name for name, tensor in module.named_parameters() if tensor.shape[0] in (8, 24)]
    kept = {name: {0: tuple(range(len(module.get_parameter(name))))} for name in names}
    return Structure("", (), kept, {})


def test_attention_that_adds_keys_of_its_own_stays_whole() -> None:
    class Cross(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.attention = nn.Linear(3, 8), nn.MultiheadAttention(8, 2, add_zero_attn=True)

        def forward(self, x: Tensor) -> Tensor:
            y = self.embed(x)
            return self.attention(y, y, y, need_weights=False)[0].mean(-1)

    module = Cross()
    morph = Morph(module, torch.randn(4, 4, 3), torch.optim.SGD(module.parameters(), 0.1), "flops=100%", steps=1)
    raising = {group for group, reason in morph.locked.items() if "resized, the module raises" in reason}
    assert {"embed.weight:0", "attention.in_proj_weight:0"} <= raising


# ---------------------------------------------------------------- checkpoints


class Tied(nn.Module):
    """A tensor with two names."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.norm, self.down = nn.Linear(6, 12), nn.BatchNorm1d(12), nn.Linear(12, 12)
        self.again, self.out = nn.Linear(12, 12), nn.Linear(12, 2)
        self.again.weight = self.down.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.again(self.down(self.norm(self.up(x)))))


@pytest.mark.parametrize("wrap", ["", "module.", "module._orig_mod."])
def test_a_state_on_disk_is_cut_as_the_module_is(wrap: str) -> None:
    module = Tied()
    structure = onnxmorph.shrink(export(module, torch.randn(2, 6)), budget="flops=50%").structure
    state = {wrap + name: tensor.clone() for name, tensor in module.state_dict().items()}  # no longer tied
    cut = resize_state({**state, "step": 7}, kept_indices(module, structure))
    small = resize(module, structure)
    assert cut.pop("step") == 7
    assert list(cut) == [wrap + name for name in small.state_dict()]
    assert all(torch.equal(cut[wrap + name], tensor) for name, tensor in small.state_dict().items())
    assert cut[wrap + "again.weight"].shape < (12, 12)


def test_a_state_of_another_module_is_refused() -> None:
    module = Tied()
    kept = kept_indices(module, onnxmorph.shrink(export(module, torch.randn(2, 6)), budget="flops=50%").structure)
    with pytest.raises(StructureError, match="nor any other name that is cut"):
        resize_state(nn.Linear(3, 3).state_dict(), kept)
    with pytest.raises(StructureError, match=r"up.weight has the shape \(3, 6\)"):
        resize_state({"up.weight": torch.ones(3, 6)}, kept)


# ---------------------------------------------------------------- optimizers


def groups_of(module: nn.Module) -> list[dict[str, object]]:
    """Weight decay on matrices only, at a rate of their own."""
    matrices = [p for p in module.parameters() if p.ndim > 1]
    return [
        {"params": matrices, "weight_decay": 0.05, "lr": 2e-3},
        {"params": [p for p in module.parameters() if p.ndim < 2]},
    ]


OPTIMIZERS: dict[str, Callable[[nn.Module], torch.optim.Optimizer]] = {
    "momentum": lambda m: torch.optim.SGD(m.parameters(), 0.05, momentum=0.9, nesterov=True, weight_decay=1e-3),
    "adam": lambda m: torch.optim.Adam(m.parameters(), 2e-3, amsgrad=True, weight_decay=1e-2),
    "adamw": lambda m: torch.optim.AdamW(groups_of(m), 3e-3),
    "rmsprop": lambda m: torch.optim.RMSprop(m.parameters(), 1e-3, momentum=0.9, centered=True),
    "adagrad": lambda m: torch.optim.Adagrad(m.parameters(), 1e-2),
    "fused momentum": lambda m: torch.optim.SGD(last(m).parameters(), 0.05, momentum=0.9, fused=True),
    "fused adamw": lambda m: torch.optim.AdamW(last(m).parameters(), 3e-3, fused=True),
}


def last(module: nn.Module) -> nn.Module:
    """With channels last in memory, as convolutions on a GPU want them."""
    return module.to(memory_format=torch.channels_last)


def step(module: nn.Module, optimizer: torch.optim.Optimizer, batch: tuple[Tensor, Tensor]) -> float:
    optimizer.zero_grad()
    loss = F.cross_entropy(module(batch[0]), batch[1])
    loss.backward()
    optimizer.step()
    return float(loss.detach())


@pytest.mark.parametrize(("build", "name"), [*((residual, name) for name in OPTIMIZERS), (plain, "adamw")])
def test_training_goes_on_as_that_of_the_masked_module(build: Callable[[], nn.Module], name: str) -> None:
    module = build().train()
    optimizer = OPTIMIZERS[name](module)
    morph = Morph(module, data(2)[0], optimizer, "flops=50%", steps=30)
    for _ in range(30):
        step(module, optimizer, data())
        morph.step()
    assert morph.done
    masked, own = copy.deepcopy((module, optimizer))
    structure = morph.structure()
    small = resize(module, structure)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 8)
    settings = [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups]
    resize_optimizer(optimizer, module, small, structure)
    assert [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups] == settings
    assert {id(p) for g in optimizer.param_groups for p in g["params"]} == {id(p) for p in small.parameters()}
    for whole, cut in zip(masked.parameters(), small.parameters(), strict=True):
        states = (v for v in optimizer.state[cut].values() if v is not None and v.shape == cut.shape)
        assert {cut.stride(), *(v.stride() for v in states)} == {cut.stride()}
        assert cut.ndim < 4 or cut.is_contiguous(memory_format=torch.channels_last) or whole.is_contiguous()
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(own, 8)
    for _ in range(6):
        batch = data()
        losses = step(masked, own, batch), step(small, optimizer, batch)
        assert losses[0] == pytest.approx(losses[1], rel=2e-6)
        schedule.step()
        cosine.step()
    for one, other in zip(resize(masked, structure).parameters(), small.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_what_the_optimizer_remembers_makes_the_difference() -> None:
    """The law above can fail: without momentum the next steps are others."""
    module = plain().train()
    optimizer = OPTIMIZERS["momentum"](module)
    for _ in range(5):
        step(module, optimizer, data())
    structure = onnxmorph.shrink(export(module, data(2)[0]), budget="flops=50%").structure
    small, batch = resize(module, structure), data()
    again = copy.deepcopy(small)
    resize_optimizer(optimizer, module, small, structure)
    fresh = OPTIMIZERS["momentum"](again)
    assert step(small, optimizer, batch) == step(again, fresh, batch)
    assert step(small, optimizer, batch) != pytest.approx(step(again, fresh, batch), rel=1e-3)


def test_parameters_of_other_modules_stay_and_numbers_per_row_are_cut() -> None:
    module, other = plain().train(), nn.Parameter(torch.ones(3))
    optimizer = torch.optim.Adafactor([*module.parameters(), other], 1e-2)
    step(module, optimizer, data())
    structure = onnxmorph.shrink(export(module, data(2)[0]), budget="flops=50%").structure
    small, before = resize(module, structure), dict(optimizer.state[module[5].weight])
    resize_optimizer(optimizer, module, small, structure)
    assert optimizer.param_groups[0]["params"][-1] is other
    rows = torch.tensor(structure.parameters["5.weight"][0])
    torch.testing.assert_close(optimizer.state[small[5].weight]["row_var"], before["row_var"][rows])
    assert module[5].weight not in optimizer.state
    step(small, optimizer, data())


def test_an_optimizer_that_remembers_something_else_is_left_as_it_was() -> None:
    module = plain()
    optimizer = torch.optim.LBFGS(module.parameters())
    batch = data()

    def loss() -> Tensor:
        optimizer.zero_grad()
        found = F.cross_entropy(module(batch[0]), batch[1])
        found.backward()
        return found

    optimizer.step(loss)
    structure = onnxmorph.shrink(export(module, data(2)[0]), budget="flops=50%").structure
    small = resize(module, structure)
    with pytest.raises(StructureError, match="start a new optimizer") as caught:
        resize_optimizer(optimizer, module, small, structure)
    assert caught.value.code == "optimizer-state"
    with pytest.raises(StructureError, match="give what `resize` made of it"):
        resize_optimizer(optimizer, module, module, structure)
    assert optimizer.param_groups[0]["params"] == list(module.parameters())
    optimizer.step(loss)


# ---------------------------------------------------------------- growth


@pytest.mark.parametrize("build", [NETS["resnext"], lambda: (ViT(TorchAttention, 12, 3, 1), IMAGE)])
def test_the_grown_module_computes_what_the_small_one_does_and_trains_on(build: Callable[[], Example]) -> None:
    module, inputs = build()
    module.eval()
    morph = Morph(module, inputs, torch.optim.SGD(module.parameters(), 0.1), "flops=60%", steps=1)
    morph.finish()
    structure = morph.structure()
    small = resize(module, structure)
    wide, found = grow(module, inputs, "flops=100%", structure)
    assert structure.costs["after"]["flops"] < found.structure.costs["after"]["flops"]
    assert found.structure.costs["after"]["flops"] <= structure.costs["before"]["flops"]
    assert_close(output(wide, *inputs), output(small, *inputs))
    assert_close(output(wide, *inputs), run(found.model, *inputs))
    target, losses, optimizer = torch.randn(2, 10), [], torch.optim.SGD(wide.parameters(), 1e-3)
    for _ in range(4):
        loss = F.mse_loss(wide(*inputs), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[0] == pytest.approx(float(F.mse_loss(small(*inputs), target).detach()), rel=1e-4)
    assert losses == sorted(losses, reverse=True)
    assert apart(wide, found.structure)


def apart(wide: nn.Module, structure: Structure) -> bool:
    """Whether the copies of a channel are different, or are about to become so, wherever they learn."""
    pairs = [
        [(tensor.select(axis, k), tensor.grad.select(axis, k)) for k in (first, first + 1)]
        for name, tensor in wide.named_parameters()
        for axis, kept in structure.parameters[name].items()
        for first in range(len(kept) - 1)
        if kept[first] == kept[first + 1] and tensor.grad is not None
    ]
    return bool(pairs) and not any(
        torch.equal(a, b) and torch.equal(of_a, of_b) and of_a.any() for (a, of_a), (b, of_b) in pairs
    )


def test_a_module_that_was_resized_and_trained_grows_from_there() -> None:
    module, inputs = unflatten().eval(), (torch.randn(2, 6),)
    morph = Morph(module, inputs, torch.optim.SGD(module.parameters(), 0.1), "flops=60%", steps=1)
    morph.finish()
    small = resize(module, morph.structure())
    with torch.no_grad():
        for p in small.parameters():
            p.mul_(1.1)
    wide, found = grow(small, inputs, "flops=250%")
    assert_close(output(wide, *inputs), output(small, *inputs))
    assert 1.5 <= found.structure.costs["after"]["flops"] / found.structure.costs["before"]["flops"] <= 2.5


def test_copies_remember_what_their_original_did() -> None:
    module, batch = plain().train(), data()
    optimizer = OPTIMIZERS["momentum"](module)
    for _ in range(3):
        step(module, optimizer, batch)
    wide, found = grow(module, batch[0], "flops=130%")
    reading, before = module[5].weight, optimizer.state[module[5].weight]["momentum_buffer"]
    kept = torch.tensor(found.structure.parameters["5.weight"][1])
    assert len(kept) > reading.shape[1]
    resize_optimizer(optimizer, module, wide, found.structure)
    state = optimizer.state[wide[5].weight]["momentum_buffer"]
    rows = torch.tensor(found.structure.parameters["5.weight"][0])
    torch.testing.assert_close(state, before[rows][:, kept])
    losses = [step(wide, optimizer, batch) for _ in range(3)]
    assert losses == sorted(losses, reverse=True)


def test_what_a_module_does_not_follow_does_not_grow() -> None:
    module, inputs = NETS["mlp"]()
    model = export(module, inputs)
    small = onnxmorph.shrink(model, budget="flops=50%").structure
    locked, other = (g.id for g in small.groups)
    held = replace(small, provenance={"locked": [locked]})
    before, free, wide = (
        {g.id: len(g.keep) for g in s.groups}
        for s in (small, *(onnxmorph.expand(model, structure, "flops=100%").structure for structure in (small, held)))
    )
    assert wide[locked] == before[locked] < free[locked]
    assert wide[other] > free[other]


def test_growth_that_is_not_exact_says_so_and_goes_further() -> None:
    module = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 3))
    inputs = (torch.randn(4, 6),)
    exact, found = grow(module, inputs, "flops=150%")
    uniform, other = grow(module, inputs, "flops=150%", exact=False)
    assert found.inexact == frozenset() and not found.notes
    assert "0.weight:0" in other.inexact
    kept = {g.id: len(g.keep) for g in found.structure.groups}
    assert kept["0.weight:0"] == 8 < len(other.structure.groups[0].keep)
    assert_close(output(exact, *inputs), output(module, *inputs))
    assert np.abs(output(uniform, *inputs) - output(module, *inputs)).max() > 1e-3


# ---------------------------------------------------------------- groups that go as a whole


def test_a_branch_that_goes_is_trained_as_the_onnx_graph() -> None:
    module, example_inputs = residual(), (data()[0],)
    analysis = analyze(export(module, example_inputs))
    copies = np.ones(analysis.channels + 1, np.int64)
    branch = next(g for g in analysis.groups if g.id == "1.body.0.0.weight:0")
    copies[branch.start + 1 : branch.start + 1 + branch.width] = 0
    structure = Structure.of(analysis, copies)
    with pytest.raises(StructureError) as caught:
        resize(module, structure)
    assert caught.value.code == "structure-empty"
    call = re.search(r"to_module\(.*?\.model\)", str(caught.value))
    assert call is not None
    names = {"module": module, "example_inputs": example_inputs, "structure": structure}
    small = eval(call[0], {**names, "onnxmorph": onnxmorph, "export": export, "to_module": to_module})
    model = onnxmorph.shrink(export(module, example_inputs), structure).model
    assert_close(output(small, *example_inputs), run(model, *example_inputs))
    optimizer = torch.optim.SGD(small.train().parameters(), 1e-2)
    batch = data()
    losses = [step(small, optimizer, batch) for _ in range(5)]
    assert losses[-1] < losses[0]
    again = from_module(small.eval(), model)
    assert_close(output(small, *example_inputs), run(again, *example_inputs))


# ---------------------------------------------------------------- what docs/resizing.md shows

DOCUMENT = Path(__file__).parents[1] / "docs" / "resizing.md"
BLOCKS = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)


def test_the_blocks_of_the_document_run_as_they_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(BLOCKS) == 6
    module = residual().train()
    optimizer = torch.optim.SGD(module.parameters(), 0.05, momentum=0.9)
    x, y = data(4)
    names = {"module": module, "example_inputs": x, "optimizer": optimizer, "loss": nn.CrossEntropyLoss()}
    names |= {"loader": [(x, y)] * 2}
    for block in BLOCKS:
        exec(block, names)
        if "grow" in block:
            assert_close(output(names["wide"], x), output(names["small"], x))
        assert names["small"](x).shape == (4, 4)
