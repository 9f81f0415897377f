"""Modelled latency: each kernel takes as long as its arithmetic or its traffic, whichever takes longer, and a start.

Source: Williams, Waterman, Patterson, "Roofline: an insightful visual performance model", CACM 52(4), 2009.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxmorph.analysis import Analysis
from onnxmorph.axes import Array, Floats
from onnxmorph.latency.device import Device
from onnxmorph.latency.kernels import Kernel, kernels
from onnxmorph.polynomial import Polynomials, Terms, Widths

SIDES = ("compute", "memory", "overhead")


@dataclass(frozen=True, eq=False)
class Roofline:
    """Seconds of a network: the sum over kernels of ``max(flops / peak, bytes / bandwidth) + overhead``.

    ``peak`` (per second) and ``overhead`` (seconds) are per kernel, ``[kernels]``. A kernel that moves nothing does not
    run. ``multiples`` are the widths that the device rewards, ``[groups]``; 1 where it has no preference.
    """

    kernels: tuple[Kernel, ...]
    flops: Polynomials
    bytes: Polynomials
    peak: Floats
    bandwidth: float
    overhead: Floats
    multiples: Widths

    def sides(self, widths: Widths) -> Floats:
        """Seconds of arithmetic, of traffic and of starting, ``[3, kernels]``; `widths` is ``[groups]``."""
        moved, compute = self.bytes.values(widths), self.flops.values(widths) / self.peak
        return np.stack([compute, moved / self.bandwidth, self.overhead * (moved > 0)])

    def per_kernel(self, widths: Widths) -> tuple[Floats, Array]:
        """Seconds of every kernel, ``[kernels]``, and which of ``SIDES`` takes most of them, ``[kernels]``."""
        sides = self.sides(widths)
        return sides[:2].max(0) + sides[2], sides.argmax(0)

    def value(self, widths: Widths) -> float:
        """Seconds at these widths, ``[groups]``."""
        return float(self.per_kernel(widths)[0].sum())

    def sweep(self, many: Widths) -> Floats:
        """Seconds at several widths, ``[variants, groups]`` to ``[variants]``."""
        moved = self.bytes.values(many)
        slower = np.maximum(self.flops.values(many) / self.peak, moved / self.bandwidth)
        return np.asarray((slower + self.overhead * (moved > 0)).sum(-1), float)

    def gradient(self, widths: Widths) -> Floats:
        """Seconds that one channel of every group takes on the sides that bind, ``[groups]``."""
        compute, memory, _ = self.sides(widths)
        bound = compute > memory
        flops = self.flops.gradient(widths, bound / self.peak)
        moved = self.bytes.gradient(widths, ~bound / self.bandwidth)
        return np.asarray(flops + moved, float)


def roofline(analysis: Analysis, device: Device) -> Roofline:
    """The modelled latency of a network on a device. Raises DeviceError where a type to compute in has no peak."""
    found = kernels(analysis)
    return Roofline(
        kernels=found,
        flops=stack([k.flops for k in found]),
        bytes=stack([k.bytes for k in found]),
        peak=np.array([device.peak(k.dtype) if k.flops else 1 for k in found], float),
        bandwidth=device.bandwidth,
        overhead=np.array([device.overhead * k.times for k in found], float),
        multiples=_multiples(analysis, device, found),
    )


def stack(many: Sequence[Terms]) -> Polynomials:
    """In floats: at the widths that a search tries, integers may overflow."""
    return Polynomials.of([{m: float(c) for m, c in terms.items()} for terms in many])


def _multiples(analysis: Analysis, device: Device, found: tuple[Kernel, ...]) -> Widths:
    """Per group, the multiple that the kernels with its weights reward; 1 for outer factors (heads, norm groups)."""
    result = np.ones(len(analysis.groups), np.int64)
    for kernel in found:
        plan = analysis.plans[kernel.steps[0]]
        for i in plan.rule.weights if plan.rule is not None else ():
            for rows in analysis.rows.get(plan.node.inputs[i], ()) if i < len(plan.node.inputs) else ():
                if rows is not None:
                    inner = np.unique(analysis.group_of[rows[:, -1][rows[:, -1] > 0]])
                    result[inner] = np.maximum(result[inner], device.multiple(kernel.dtype))
    result[analysis.outer] = 1
    return result
