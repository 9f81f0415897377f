"""Counts against PyTorch's FlopCounterMode and onnx-tool, each difference taken into account: what is left is equal.

Both sides count the same network; onnx-tool, which does not read shapes that are computed while running, gets the file
after ONNX Runtime's constant folding. What each counts otherwise stands in docs/costs.md.
"""

from __future__ import annotations

from math import prod

import onnx
import onnx_ir as ir
import onnx_tool
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.networks import IMAGE, network
from benchmarks.timing import Row
from exported import exported
from onnxmorph.analysis import Analysis, analyze
from onnxmorph.converters.torch import export
from quantised_nets import optimised

SMALL = ("resnet", "mobilenet_v2", "densenet", "vit", "vit_torch")
UNSEEN = {"vit_torch": "MatMul", "lstm": "LSTM"}  # what PyTorch fuses: FlopCounterMode does not see into it
BIASED = ("Conv", "Gemm")  # onnx-tool adds one multiply-accumulate per number written for a bias
PER_ELEMENT = {"Relu": 1, "Add": 1, "Mul": 1, "Clip": 2, "Div": 4, "BatchNormalization": 31, "Gelu": 34, "Softmax": 36}


def run() -> list[Row]:
    rows = []
    for name in SMALL:
        case = exported(name)
        rows += _compared(name, case.module, case.inputs, case.model)
    module = network("resnet18").eval()
    rows += _compared("resnet18, 224²", module, (IMAGE,), export(module, (IMAGE,)))
    lstm, steps = nn.LSTM(8, 16, batch_first=True).eval(), (torch.zeros(2, 5, 8),)
    return rows + _flops("lstm", lstm, steps, analyze(_fixed(export(lstm, steps), steps)))


def _compared(name: str, module: nn.Module, inputs: tuple[torch.Tensor, ...], model: ir.Model) -> list[Row]:
    proto = optimised(_fixed(model, inputs), "BASIC")
    analysis = analyze(proto)
    return [*_flops(name, module, inputs, analysis), *_macs(name, proto, analysis)]


def _fixed(model: ir.Model, inputs: tuple[torch.Tensor, ...]) -> onnx.ModelProto:
    """The model at the sizes of these inputs."""
    proto = ir.to_proto(model)
    for value, array in zip(proto.graph.input, inputs, strict=True):
        for dim, size in zip(value.type.tensor_type.shape.dim, array.shape, strict=True):
            dim.dim_value = size
    return proto


def _flops(name: str, module: nn.Module, inputs: tuple[torch.Tensor, ...], analysis: Analysis) -> list[Row]:
    """Matrix products and convolutions only, and not those of fused ops."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(*inputs)
    kind = UNSEEN.get(name, "")
    ours = analysis.count()["classic_flops"] - sum(_costs(analysis, "classic_flops", kind))
    left = f" without {kind}" if kind else ""
    return [Row(f"{name}: classic_flops{left}", ours, "FlopCounterMode", counter.get_total_flops(), exact=True)]


def _macs(name: str, proto: onnx.ModelProto, analysis: Analysis) -> list[Row]:
    """Biases as multiply-accumulates, other ops by a weight per number written; every array as a parameter."""
    peer = onnx_tool.Model(proto).graph
    peer.shape_infer()
    peer.profile()
    kinds = {n.op_type for n in proto.graph.node}
    theirs = {kind: sum(int(n.macs[0]) for n in peer.nodemap.values() if n.op_type == kind) for kind in kinds}
    heavy = (*BIASED, "MatMul")
    macs = sum(sum(_costs(analysis, "macs", kind)) for kind in heavy)
    biases = sum(
        cost.value(analysis.widths)
        for plan, cost in zip(analysis.plans, analysis.op_costs["activations"], strict=True)
        if plan.node.type in BIASED and len(plan.node.inputs) > 2
    )
    constants = sum(prod(t.dims) for t in proto.graph.initializer if t.dims)
    return [
        Row(f"{name}: macs and biases", macs + biases, "onnx-tool", sum(theirs.get(k, 0) for k in heavy), exact=True),
        *(
            Row(f"{name}: {kind}, {each} per number", each * written, "onnx-tool", theirs[kind], exact=True)
            for kind, each in PER_ELEMENT.items()
            if (written := sum(_costs(analysis, "activations", kind)))
        ),
        Row(f"{name}: all arrays in the file", constants, "onnx-tool", int(peer.params), exact=True),
    ]


def _costs(analysis: Analysis, name: str, kind: str) -> list[int]:
    """What the ops of one type cost."""
    return [
        cost.value(analysis.widths)
        for plan, cost in zip(analysis.plans, analysis.op_costs[name], strict=True)
        if plan.node.type == kind
    ]
