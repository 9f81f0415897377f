"""The adapter where the module is on a GPU; skipped where there is none."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nets import basic_block, conv_bn, head
from onnxmorph import analyze
from onnxmorph.adapters.torch import Morph, resize, resize_optimizer
from onnxmorph.converters.torch import export

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


def network() -> nn.Module:
    return nn.Sequential(conv_bn(3, 16), basic_block(16, 16), basic_block(16, 32, 2), head(32)).cuda()


def images(n: int) -> torch.Tensor:
    return torch.randn(n, 3, 16, 16, device="cuda")


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("autocast", [False, True])
def test_shrinking_on_a_gpu_meets_the_budget_and_the_small_network_trains_on(
    layout: torch.memory_format, autocast: bool
) -> None:
    torch.manual_seed(0)
    module = network().to(memory_format=layout)
    optimizer = torch.optim.SGD(module.parameters(), 0.05, momentum=0.9)
    morph = Morph(module, images(2), optimizer, "flops=50%", steps=60)
    assert not morph.locked

    def step() -> None:
        with torch.autocast("cuda", torch.bfloat16, enabled=autocast):
            loss = F.cross_entropy(module(images(8)), torch.randint(10, (8,), device="cuda"))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    for _ in range(60):
        step()
        morph.step()
    morph.finish()
    structure = morph.structure()
    small = resize(module, structure)
    resize_optimizer(optimizer, module, small, structure)
    assert {p.device.type for p in small.parameters()} == {"cuda"}
    module.eval(), small.eval()
    with torch.no_grad(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        x = images(4)
        torch.testing.assert_close(small(x), module(x), rtol=1e-4, atol=1e-4)
    whole = analyze(export(network(), images(2))).count()["flops"]
    assert 0.45 * whole < analyze(export(small, images(2))).count()["flops"] <= 0.5 * whole
    module = small.train()
    step()
