"""Latency as MorphNet models it, for comparing with what was published.

Every op by itself takes ``max(flops / peak, bytes / bandwidth)``. Convolutions and matrix products compute, and move
what they read, their weights and what they write; functions of single positions, norms with running statistics and
concatenations move what they read and write; nothing else counts, and no parameter but those weights does.

Source: the code of MorphNet (arXiv 1711.06798), ``network_regularizers/resource_function.py``.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxmorph.analysis import Analysis
from onnxmorph.latency.device import Device
from onnxmorph.latency.kernels import Kernel, follows
from onnxmorph.latency.roofline import Roofline, stack
from onnxmorph.notation import Sum, factors
from onnxmorph.polynomial import Terms, add, multiply
from onnxmorph.propagate import Plan


def classic(analysis: Analysis, device: Device) -> Roofline:
    """The original's latency on a device, in seconds."""
    found = tuple(_kernel(analysis, step) for step, plan in enumerate(analysis.plans) if _counts(plan))
    return Roofline(
        kernels=found,
        flops=stack([k.flops for k in found]),
        bytes=stack([k.bytes for k in found]),
        peak=np.full(len(found), device.classic_peak),
        bandwidth=device.classic_bandwidth,
        overhead=np.zeros(len(found)),
        multiples=np.ones(len(analysis.groups), np.int64),
    )


def _counts(plan: Plan) -> bool:
    if plan.rule is None or plan.equation is None or not plan.node.counted or plan.rule.view:
        return False
    joins = any(isinstance(term, Sum) for axes in plan.equation.outputs for term in axes or ())
    return bool(plan.rule.weights) or follows(plan) or joins


def _kernel(analysis: Analysis, step: int) -> Kernel:
    plan = analysis.plans[step]
    node = plan.node
    assert plan.rule is not None
    given = [*zip(node.inputs, node.in_shapes, strict=True), (node.outputs[0], node.out_shapes[0])]
    moved = [
        analysis.tensors.bytes_of(name, shape)
        for name, shape in given
        if shape is not None and name in analysis.rows and name not in analysis.parameters
    ]
    weights = [i for i in plan.rule.weights if i < len(node.inputs) and node.inputs[i] in analysis.parameters]
    moved += [_weight(analysis, step, i) for i in weights]
    flops = analysis.op_costs["classic_flops"][step].terms()
    dtype = analysis.graph.dtypes.get(node.outputs[0], ir.DataType.FLOAT)
    return Kernel((step,), dtype, flops, multiply(add(moved), {(): node.times}), node.times)


def _weight(analysis: Analysis, step: int, i: int) -> Terms:
    """The bytes of a weight; of a convolution in groups as if every output read all inputs, for so they counted."""
    plan, rows = analysis.plans[step], analysis.factor_rows[step]
    shape, equation = plan.node.in_shapes[i], plan.equation
    assert shape is not None and equation is not None
    data, weight, result = (
        {f.name for term in axes or () for f in factors(term)}
        for axes in (equation.inputs[0], equation.inputs[i], equation.outputs[0])
    )
    terms = analysis.tensors.bytes_of(plan.node.inputs[i], shape)
    for name in sorted(data & weight & result):
        terms = multiply(terms, analysis.sizes(rows.get(name), plan.sizes[name]))
    return terms
