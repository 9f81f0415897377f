"""ONNX's Resize on torch tensors: axis by axis, every output position a mixture of input positions."""

from __future__ import annotations

import torch
from torch import Tensor

from onnxmorph.converters.torch_ops import Op, Run, Unsupported, listed
from onnxmorph.graph import Node

# From an output position (o) to the input's, by scale (s) and the sizes before (i) and after (n).
COORDINATES = {
    "align_corners": lambda o, s, i, n: o * ((i - 1) / (n - 1)) if n > 1 else o * 0,
    "asymmetric": lambda o, s, i, n: o / s,
    "half_pixel": lambda o, s, i, n: (o + 0.5) / s - 0.5,
    "pytorch_half_pixel": lambda o, s, i, n: (o + 0.5) / s - 0.5 if n > 1 else o * 0,
}
NEAREST = {
    "ceil": torch.ceil,
    "floor": torch.floor,
    "round_prefer_ceil": lambda at: torch.floor(at + 0.5),
    "round_prefer_floor": lambda at: torch.ceil(at - 0.5),
}
Taps = list[tuple[Tensor, Tensor | None]]  # input positions for every output position, with their weights


def resize(node: Node) -> Run:
    """By scales or to sizes, nearest, linear or cubic. Upsample, its ancestor, is asymmetric and rounds down."""
    old = node.version < 11  # of Resize, and Upsample, which ends with opset 10
    mode = node.attributes["mode"]
    place = "asymmetric" if old else node.attributes["coordinate_transformation_mode"]
    rounding = "floor" if old else node.attributes["nearest_mode"]
    a = node.attributes.get("cubic_coeff_a", -0.75)
    for key, covered in (("mode", KINDS), ("coordinate_transformation_mode", COORDINATES)):
        if node.attributes.get(key, place) not in covered:
            raise Unsupported(f"{key}={node.attributes[key]}")
    for key in ("antialias", "exclude_outside"):
        if node.attributes.get(key):
            raise Unsupported(f"{key}=1")
    if node.attributes.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise Unsupported(f"keep_aspect_ratio_policy={node.attributes['keep_aspect_ratio_policy']}")
    sizes, axes = listed(node, "sizes"), node.attributes.get("axes")
    factors, index = node.parameter("scales"), node.input_index("scales")

    def run(*inputs: Tensor) -> Tensor:
        x, wanted = inputs[0], sizes(inputs)
        scales = factors if index is None or factors is not None else inputs[index].tolist()
        for k, axis in enumerate(axes or range(x.ndim)):
            before = x.shape[axis]
            after = wanted[k] if wanted else int(before * float(scales[k]))
            scale = after / before if wanted else float(scales[k])
            if scale != 1:
                at = COORDINATES[place](torch.arange(after, dtype=torch.float32, device=x.device), scale, before, after)
                x = mixed(x, axis, KINDS[mode](at, before, rounding, a))
        return x

    return run


def mixed(x: Tensor, axis: int, taps: Taps) -> Tensor:
    """Positions of an axis, weighted and summed."""
    result: Tensor | None = None
    for at, weight in taps:
        part = x.index_select(axis, at.long().clamp(0, x.shape[axis] - 1))
        if weight is not None:
            part = part * weight.to(x.dtype).reshape(-1, *[1] * (x.ndim - 1 - axis % x.ndim))
        result = part if result is None else result + part
    assert result is not None
    return result


def nearest(at: Tensor, size: int, rounding: str, a: float) -> Taps:
    return [(NEAREST[rounding](at), None)]


def linear(at: Tensor, size: int, rounding: str, a: float) -> Taps:
    at = at.clamp(0, size - 1)
    low = at.floor()
    return [(low, 1 - (at - low)), (low + 1, at - low)]


def cubic(at: Tensor, size: int, rounding: str, a: float) -> Taps:
    """Keys' kernel of four positions (IEEE TASSP 1981, equation 15), with the coefficient a."""
    low = at.floor()
    taps: Taps = []
    for step in (-1, 0, 1, 2):
        d = (at - low - step).abs()
        near = ((a + 2) * d - (a + 3)) * d * d + 1
        far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
        taps.append((low + step, near if step in (0, 1) else far))
    return taps


KINDS = {"nearest": nearest, "linear": linear, "cubic": cubic}
RESIZE: dict[str, Op] = {"Resize": Op(resize, values=(1, 2)), "Upsample": Op(resize, values=(1,))}
