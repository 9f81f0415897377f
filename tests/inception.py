"""Inception V2 as TF-Slim defines it, for the numbers that the original published for it."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from tiny import model, node, value

# Every branch of a module is its convolutions, as (width, kernel); 0 stands for a pooling of 3 by 3. The last op of a
# branch has the module's stride. Source: arXiv 1502.03167, and slim's inception_v2_base.
MODULES: dict[str, tuple[int, list[list[tuple[int, int]]]]] = {
    "3b": (1, [[(64, 1)], [(64, 1), (64, 3)], [(64, 1), (96, 3), (96, 3)], [(0, 3), (32, 1)]]),
    "3c": (1, [[(64, 1)], [(64, 1), (96, 3)], [(64, 1), (96, 3), (96, 3)], [(0, 3), (64, 1)]]),
    "4a": (2, [[(128, 1), (160, 3)], [(64, 1), (96, 3), (96, 3)], [(0, 3)]]),
    "4b": (1, [[(224, 1)], [(64, 1), (96, 3)], [(96, 1), (128, 3), (128, 3)], [(0, 3), (128, 1)]]),
    "4c": (1, [[(192, 1)], [(96, 1), (128, 3)], [(96, 1), (128, 3), (128, 3)], [(0, 3), (128, 1)]]),
    "4d": (1, [[(160, 1)], [(128, 1), (160, 3)], [(128, 1), (160, 3), (160, 3)], [(0, 3), (96, 1)]]),
    "4e": (1, [[(96, 1)], [(128, 1), (192, 3)], [(160, 1), (192, 3), (192, 3)], [(0, 3), (96, 1)]]),
    "5a": (2, [[(128, 1), (192, 3)], [(192, 1), (256, 3), (256, 3)], [(0, 3)]]),
    "5b": (1, [[(352, 1)], [(192, 1), (320, 3)], [(160, 1), (224, 3), (224, 3)], [(0, 3), (128, 1)]]),
    "5c": (1, [[(352, 1)], [(192, 1), (320, 3)], [(192, 1), (224, 3), (224, 3)], [(0, 3), (128, 1)]]),
}


class _Net:
    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.width = {"x": 3}

    def zeros(self, name: str, *shape: int) -> str:
        self.weights.append(numpy_helper.from_array(np.zeros(shape, np.float32), name))
        return name

    def conv(self, x: str, name: str, width: int, kernel: int, stride: int = 1, groups: int = 1) -> str:
        w = self.zeros(f"{name}.weight", width, self.width[x] // groups, kernel, kernel)
        strides = [stride, stride]
        self.nodes.append(node("Conv", f"{x} {w}", name, strides=strides, auto_pad="SAME_UPPER", group=groups))
        self.width[name] = width
        return name

    def conv_norm_relu(self, x: str, name: str, width: int, kernel: int, stride: int = 1) -> str:
        y = self.conv(x, name, width, kernel, stride)
        norm = " ".join(self.zeros(f"{name}.{part}", width) for part in ("scale", "shift", "mean", "variance"))
        self.nodes.append(node("BatchNormalization", f"{y} {norm}", f"{name}.norm"))
        self.nodes.append(node("Relu", f"{name}.norm", f"{name}.relu"))
        self.width[f"{name}.relu"] = width
        return f"{name}.relu"

    def pool(self, x: str, name: str, stride: int, op: str = "MaxPool") -> str:
        strides = [stride, stride]
        self.nodes.append(node(op, x, name, kernel_shape=[3, 3], strides=strides, auto_pad="SAME_UPPER"))
        self.width[name] = self.width[x]
        return name

    def branch(self, x: str, name: str, layers: list[tuple[int, int]], stride: int) -> str:
        for i, (width, kernel) in enumerate(layers):
            step = stride if i == len(layers) - 1 else 1
            layer = f"{name}.{i}"
            x = self.conv_norm_relu(x, layer, width, kernel, step) if width else self.pool(x, layer, step)
        return x

    def module(self, x: str, name: str, stride: int, branches: list[list[tuple[int, int]]]) -> str:
        ends = [self.branch(x, f"{name}.{i}", layers, stride) for i, layers in enumerate(branches)]
        self.nodes.append(node("Concat", " ".join(ends), name, axis=1))
        self.width[name] = sum(self.width[end] for end in ends)
        return name


def inception_v2(classes: int = 1001) -> onnx.ModelProto:
    """For images of 224 by 224; the first convolution is separable, with eight filters on each colour."""
    net = _Net()
    x = net.conv("x", "1a.depthwise", 24, 7, 2, groups=3)
    x = net.pool(net.conv_norm_relu(x, "1a", 64, 1), "2a", 2)
    x = net.conv_norm_relu(net.conv_norm_relu(x, "2b", 64, 1), "2c", 192, 3)
    x = net.pool(x, "3a", 2)
    for name, (stride, branches) in MODULES.items():
        x = net.module(x, name, stride, branches)
    head = [
        node("GlobalAveragePool", x, "pooled"),
        node("Flatten", "pooled", "flat"),
        node(
            "Gemm", f"flat {net.zeros('logits.weight', net.width[x], classes)} {net.zeros('logits.bias', classes)}", "y"
        ),
    ]
    return model([*net.nodes, *head], net.weights, [value("x", [1, 3, 224, 224])], [value("y", [1, classes])])
