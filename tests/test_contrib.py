"""Networks as ONNX Runtime rewrites them: its own fused ops change neither groups nor products."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnxruntime.transformers import optimizer
from onnxruntime.transformers.fusion_options import FusionOptions
from torch import Tensor, nn

from exported import exported, grouped
from onnxmorph import analyze, shrink, verify
from onnxmorph.analysis import Analysis
from onnxmorph.structure import Structure
from quantised_nets import optimised
from tiny import model, node, weight

TOLERANCE = 1e-5


class Encoder(nn.Module):
    """Two blocks of BERT, with the norm after the sum."""

    def __init__(self, wide: int = 24, heads: int = 3) -> None:
        super().__init__()
        self.heads = heads
        self.words, self.places, self.kinds = nn.Embedding(20, wide), nn.Embedding(16, wide), nn.Embedding(2, wide)
        self.norm, self.head = nn.LayerNorm(wide), nn.Linear(wide, 5)
        parts = {"q": (wide, wide), "k": (wide, wide), "v": (wide, wide), "out": (wide, wide), "up": (wide, 40)}
        self.blocks = nn.ModuleList()
        for _ in range(2):
            block = nn.ModuleDict({name: nn.Linear(*sizes) for name, sizes in parts.items()})
            block.update({"down": nn.Linear(40, wide), "first": nn.LayerNorm(wide), "second": nn.LayerNorm(wide)})
            self.blocks.append(block)

    def forward(self, ids: Tensor, kinds: Tensor) -> Tensor:
        n, s = ids.shape
        x = self.norm(self.words(ids) + self.kinds(kinds) + self.places(torch.arange(s)))
        for block in self.blocks:
            q, k, v = (block[name](x).view(n, s, self.heads, -1).transpose(1, 2) for name in "qkv")
            scores = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
            x = block["first"](x + block["out"]((scores @ v).transpose(1, 2).reshape(n, s, -1)))
            x = block["second"](x + block["down"](nn.functional.gelu(block["up"](x))))
        return self.head(x[:, 0])


@cache
def encoder() -> onnx.ModelProto:
    """Exported by TorchScript: the tools recognise its patterns."""
    torch.manual_seed(0)
    ids, kinds = torch.randint(0, 20, (2, 6)), torch.randint(0, 2, (2, 6))
    with TemporaryDirectory() as folder, pytest.warns(DeprecationWarning):
        path = Path(folder) / "encoder.onnx"
        names = ["ids", "kinds"]
        torch.onnx.export(Encoder().eval(), (ids, kinds), str(path), dynamo=False, opset_version=17, input_names=names)
        return onnx.load(path)


@cache
def fused_encoder(attention: str) -> onnx.ModelProto:
    options = FusionOptions("bert")
    options.use_multi_head_attention = attention == "MultiHeadAttention"
    with TemporaryDirectory() as folder:
        path = f"{folder}/encoder.onnx"
        onnx.save(encoder(), path)
        fused = optimizer.optimize_model(
            path, "bert", num_heads=3, hidden_size=24, opt_level=0, optimization_options=options
        )
        fused.save_model_to_file(path)  # which also imports the domain of the fused ops
        return onnx.load(path)


def check(plain: Analysis, fused: Analysis, ops: set[str]) -> None:
    """The same groups and products; half of every group removed is the masked original."""
    assert ops <= {n.type for n in fused.graph.nodes if n.domain == "com.microsoft"}
    assert sorted(fused.widths) == sorted(plain.widths)
    assert "unknown-op" not in {f.code for f in fused.fixed}
    assert fused.costs["macs"].value(fused.widths) == plain.costs["macs"].value(plain.widths)
    for seed in range(3):
        rng, copies = np.random.default_rng(seed), np.ones(fused.channels + 1, np.int64)
        for group in fused.groups:
            copies[group.start + 1 + rng.permutation(group.width)[: group.width // 2]] = 0
        small = shrink(fused, Structure.of(fused, copies))
        onnx.checker.check_model(ir.to_proto(small.model), full_check=True)
        assert verify(fused, small.model, small.structure, samples=1, seed=seed).difference <= TOLERANCE
        after = analyze(small.model)
        assert after.count() == small.structure.costs["after"]


OPTIMISED = {
    "resnet": "FusedConv",
    "efficientnet": "FusedConv QuickGelu",
    "shufflenet_v2": "FusedConv",
    "mlp": "FusedGemm",
    "vit_torch": "FusedMatMul BiasGelu SkipLayerNormalization",
}


@pytest.mark.parametrize("name", grouped(*OPTIMISED))
def test_a_network_that_the_runtime_has_optimised(name: str) -> None:
    plain = exported(name).model
    fused = optimised(ir.to_proto(plain), "EXTENDED")
    check(analyze(plain), analyze(fused), set(OPTIMISED[name].split()))


@pytest.mark.parametrize("attention", ["Attention", "MultiHeadAttention"])
def test_a_transformer_with_fused_attention(attention: str) -> None:
    """Heads, head dimensions, the MLP and the residual width are the groups that they are before fusing."""
    plain, fused = analyze(encoder()), analyze(fused_encoder(attention))
    check(plain, fused, {attention, "SkipLayerNormalization", "BiasGelu"})
    for cost in ("params", "classic_params"):
        assert fused.costs[cost].value(fused.widths) == plain.costs[cost].value(plain.widths)


def test_the_scale_of_the_scores_keeps_its_value_when_heads_get_smaller() -> None:
    analysis = analyze(fused_encoder("MultiHeadAttention"))
    copies = np.ones(analysis.channels + 1, np.int64)
    dimension = next(g for g in analysis.groups if g.width == 8)
    copies[dimension.start + 1 : dimension.start + 5] = 0
    small = shrink(analysis, Structure.of(analysis, copies)).model
    scales = [n.attributes.get_float("scale", 0.0) for n in small.graph if n.op_type == "MultiHeadAttention"]
    assert sorted(scales) == pytest.approx([0, 8**-0.5])  # the other block's heads are as they were


def test_ops_that_run_on_gpus_only_are_fixed_and_say_so() -> None:
    nodes = [
        node("MatMul", "x a", "h"),
        node("BiasSplitGelu", "h b", "g", domain="com.microsoft"),
        node("MatMul", "g c", "y"),
    ]
    weights = [weight("a", 4, 8), weight("b", 8), weight("c", 4, 3)]
    analysis = analyze(model(nodes, weights, domains=["com.microsoft"]))
    assert not analysis.groups
    assert {f.code for f in analysis.fixed if f.tensor == "b"} == {"gpu-only"}
