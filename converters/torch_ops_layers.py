"""ONNX layers on torch tensors: convolutions, pools and norms; the table ``LAYERS``."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from onnxmorph.converters.torch_ops import Op, Run, Unsupported, plain
from onnxmorph.graph import Node

# By the number of spatial axes.
CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
CONV_TRANSPOSE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
MAX_POOL = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
AVG_POOL = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}

Sides = list[tuple[int, int]]  # what is added before and after, per spatial axis


def padded(x: Tensor, sides: Sides, value: float = 0.0) -> Tensor:
    """The last axes with `value` before and after; negative sides cut."""
    amounts = [n for side in reversed(sides) for n in side]
    return F.pad(x, amounts, value=value) if any(amounts) else x


class Window:
    """How a window moves over the spatial axes: strides, dilations and pads of a node."""

    def __init__(self, node: Node) -> None:
        self.strides: list[int] | None = node.attributes.get("strides")
        self.dilations: list[int] | None = node.attributes.get("dilations")
        self.pads: list[int] | None = node.attributes.get("pads")
        self.auto: str = node.attributes.get("auto_pad", "NOTSET")
        self.ceil = bool(node.attributes.get("ceil_mode"))

    def stride(self, rank: int) -> list[int]:
        """The strides, 1 unless given."""
        return list(self.strides or [1] * rank)

    def dilation(self, rank: int) -> list[int]:
        """The dilations, 1 unless given."""
        return list(self.dilations or [1] * rank)

    def spans(self, kernel: Sequence[int]) -> list[int]:
        """How far a window reaches."""
        return [(k - 1) * d + 1 for k, d in zip(kernel, self.dilation(len(kernel)), strict=True)]

    def sides(self, sizes: Sequence[int], kernel: Sequence[int]) -> Sides:
        """The padding, explicit or so that ``SAME`` gives ceil(size / stride) positions."""
        rank = len(kernel)
        if self.auto.startswith("SAME"):
            moves = zip(sizes, self.stride(rank), self.spans(kernel), strict=True)
            return [halves(max((-(-size // s) - 1) * s + span - size, 0), self.auto) for size, s, span in moves]
        pads = self.pads if self.pads and self.auto == "NOTSET" else [0] * 2 * rank
        return list(zip(pads[:rank], pads[rank:], strict=True))

    def beyond(self, sizes: Sequence[int], kernel: Sequence[int], sides: Sides) -> Sides:
        """The padding up to the end of the last window. With ``ceil_mode`` that may lie outside, but starts inside."""
        ends = []
        for size, s, span, (a, b) in zip(sizes, self.stride(len(sizes)), self.spans(kernel), sides, strict=True):
            steps = (size + a + b - span) / s
            last = math.ceil(steps) if self.ceil else math.floor(steps)
            if self.ceil and last * s >= size + a:
                last -= 1
            ends.append((a, last * s + span - size - a))
        return ends


def halves(total: int, auto: str) -> tuple[int, int]:
    """Padding on both sides; the odd one goes to the end for ``SAME_UPPER``, else to the start."""
    small, large = total // 2, total - total // 2
    return (small, large) if auto == "SAME_UPPER" else (large, small)


def conv(node: Node) -> Run:
    window, groups = Window(node), node.attributes["group"]

    def run(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        rank = x.ndim - 2
        sides = window.sides(x.shape[2:], weight.shape[2:])
        inside = [a for a, b in sides] if all(a == b for a, b in sides) else [0] * rank
        if not any(inside):
            x = padded(x, sides)
        return CONV[rank](x, weight, bias, window.stride(rank), inside, window.dilation(rank), groups)

    return run


def conv_transpose(node: Node) -> Run:
    """The whole result, cut to what the pads leave of it; the bias comes last, for positions that nothing reaches."""
    window, groups = Window(node), node.attributes["group"]
    sizes, extra = node.attributes.get("output_shape"), node.attributes.get("output_padding")

    def run(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        rank = x.ndim - 2
        strides, more = window.stride(rank), list(extra or [0] * rank)
        y = CONV_TRANSPOSE[rank](x, weight, None, strides, 0, 0, groups, window.dilation(rank))
        wanted = sizes
        if wanted is None and window.auto.startswith("SAME"):
            wanted = [size * s for size, s in zip(x.shape[2:], strides, strict=True)]
        if wanted is None:
            sides = window.sides(x.shape[2:], weight.shape[2:])
        else:
            cuts = zip(y.shape[2:], more, wanted[-rank:], strict=True)
            sides = [halves(size + e - want, window.auto) for size, e, want in cuts]
        y = padded(y, [(-a, e - b) for (a, b), e in zip(sides, more, strict=True)])
        return y if bias is None else y + bias.reshape(-1, *[1] * rank)

    return run


def gemm(node: Node) -> Run:
    alpha, beta = node.attributes["alpha"], node.attributes["beta"]
    first, second = bool(node.attributes["transA"]), bool(node.attributes["transB"])

    def run(a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
        y = (a.T if first else a) @ (b.T if second else b)
        y = y if alpha == 1 else alpha * y
        return y if c is None else y + (c if beta == 1 else beta * c)

    return run


# -- pools -----------------------------------------------------------------------------------------


def max_pool(node: Node) -> Run:
    window, kernel = Window(node), node.attributes["kernel_shape"]
    rank = len(kernel)

    def run(x: Tensor) -> Tensor:
        sides = window.beyond(x.shape[2:], kernel, window.sides(x.shape[2:], kernel))
        return MAX_POOL[rank](padded(x, sides, -math.inf), kernel, window.stride(rank), 0, window.dilation(rank))

    return run


def average_pool(node: Node) -> Run:
    """The sum over a window by how many positions of it count."""
    window, kernel = Window(node), node.attributes["kernel_shape"]
    rank, whole = len(kernel), bool(node.attributes["count_include_pad"])
    if set(window.dilation(rank)) != {1}:
        raise Unsupported("dilations")

    def run(x: Tensor) -> Tensor:
        given = window.sides(x.shape[2:], kernel)
        sides = window.beyond(x.shape[2:], kernel, given)
        y = AVG_POOL[rank](padded(x, sides), kernel, window.stride(rank))
        if not any(n for side in sides for n in side):
            return y
        counts = padded(x.new_ones(1, 1, *x.shape[2:]), given, float(whole))
        rest = [(a - c, b - d) for (a, b), (c, d) in zip(sides, given, strict=True)]
        return y / AVG_POOL[rank](padded(counts, rest), kernel, window.stride(rank))

    return run


# -- norms -----------------------------------------------------------------------------------------


def batch_norm(node: Node) -> Run:
    """With batch statistics in training, and the running ones then updated as PyTorch does; else with those."""
    momentum, epsilon = 1 - node.attributes["momentum"], node.attributes["epsilon"]
    if node.attributes.get("training_mode"):
        raise Unsupported("training_mode=1; export in eval mode")

    def run(training: bool, x: Tensor, scale: Tensor, shift: Tensor, mean: Tensor, var: Tensor) -> Tensor:
        return F.batch_norm(x, mean, var, scale, shift, training, momentum, epsilon)

    return run


def dropout(node: Node) -> Run:
    ratio = node.parameter("ratio")
    share = 0.5 if ratio is None else float(ratio)
    return lambda training, x, *_: F.dropout(x, share, training)


def layer_norm(node: Node) -> Run:
    axis, epsilon = node.attributes["axis"], node.attributes["epsilon"]

    def run(x: Tensor, scale: Tensor, shift: Tensor | None = None) -> Tensor:
        over = x.shape[axis:]
        if scale.shape == over and (shift is None or shift.shape == over):
            return F.layer_norm(x, over, scale, shift, epsilon)
        y = F.layer_norm(x, over, eps=epsilon) * scale
        return y if shift is None else y + shift

    return run


def rms_norm(node: Node) -> Run:
    axis, epsilon = node.attributes["axis"], node.attributes["epsilon"]
    return lambda x, scale: F.rms_norm(x, x.shape[axis:], eps=epsilon) * scale


def per_channel(value: Tensor, x: Tensor) -> Tensor:
    return value.reshape(-1, *[1] * (x.ndim - 2))


def instance_norm(node: Node) -> Run:
    epsilon = node.attributes["epsilon"]

    def run(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        over = list(range(2, x.ndim))
        centred = x - x.mean(over, True)
        y = centred * torch.rsqrt(centred.square().mean(over, True) + epsilon)
        return y * per_channel(scale, x) + per_channel(shift, x)

    return run


def group_norm(node: Node) -> Run:
    """Scale and shift are per channel; before opset 21 per group."""
    groups, epsilon, per_group = node.attributes["num_groups"], node.attributes["epsilon"], node.version < 21

    def run(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        if per_group:
            each = x.shape[1] // groups
            scale, shift = scale.repeat_interleave(each), shift.repeat_interleave(each)
        return F.group_norm(x, groups, scale, shift, epsilon)

    return run


def lrn(node: Node) -> Run:
    size, alpha = node.attributes["size"], node.attributes["alpha"]
    beta, bias = node.attributes["beta"], node.attributes["bias"]
    if size % 2 == 0:
        raise Unsupported("an even size")
    return lambda x: F.local_response_norm(x, size, alpha, beta, bias)


LAYERS: dict[str, Op] = {
    "AveragePool": Op(average_pool),
    "BatchNormalization": Op(batch_norm, values=(3, 4), modal=True),
    "Conv": Op(conv),
    "ConvTranspose": Op(conv_transpose),
    "Dropout": Op(dropout, values=(1, 2), modal=True),
    "Gemm": Op(gemm),
    "GlobalAveragePool": plain(lambda x: x.mean(list(range(2, x.ndim)), True)),
    "GlobalMaxPool": plain(lambda x: x.amax(list(range(2, x.ndim)), True)),
    "GroupNormalization": Op(group_norm),
    "InstanceNormalization": Op(instance_norm),
    "LRN": Op(lrn),
    "LayerNormalization": Op(layer_norm),
    "MaxPool": Op(max_pool),
    "RMSNormalization": Op(rms_norm),
}
