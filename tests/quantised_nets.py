"""Quantised models as ONNX Runtime's own tools write them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static
from torch import Tensor, nn

from onnxmorph.converters.torch import export

Scheme = Callable[[Path, Path, "Samples"], None]


class Convolutions(nn.Module):
    """A residual, a depthwise convolution, a concatenation, and a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.each, self.last = nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.Conv2d(32, 24, 1)
        self.head = nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        x = torch.sigmoid(self.second(x)) + x
        x = torch.cat([x, torch.sigmoid(self.each(x))], 1)
        x = torch.sigmoid(self.last(nn.functional.max_pool2d(x, 2)))
        return self.head(x.mean((2, 3)))


class Attention(nn.Module):
    """One block of a transformer with fused queries, keys and values."""

    def __init__(self, wide: int = 32) -> None:
        super().__init__()
        self.embed, self.norm, self.qkv = nn.Linear(8, wide), nn.LayerNorm(wide), nn.Linear(wide, 3 * wide)
        self.out, self.up, self.down = nn.Linear(wide, wide), nn.Linear(wide, 64), nn.Linear(64, wide)
        self.head = nn.Linear(wide, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        n, s, c = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(n, s, 3, 4, c // 4).permute(2, 0, 3, 1, 4).unbind(0)
        scores = (q @ k.transpose(-1, -2) * (c // 4) ** -0.5).softmax(-1)
        x = x + self.out((scores @ v).transpose(1, 2).reshape(n, s, c))
        return self.head((x + self.down(torch.sigmoid(self.up(x)))).mean(1))


NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "convolutions": (Convolutions, (2, 3, 12, 12)),
    "attention": (Attention, (2, 6, 8)),
}


class Samples(CalibrationDataReader):  # type: ignore[misc]
    """A few inputs for the ranges of activations."""

    def __init__(self, name: str, shape: tuple[int, ...]) -> None:
        rng = np.random.default_rng(0)
        self.left: Iterator[Any] = iter([{name: rng.normal(size=shape).astype(np.float32)} for _ in range(4)])

    def get_next(self) -> Any:
        return next(self.left, None)


def _static(form: QuantFormat, weight: QuantType, activation: QuantType, *, per_channel: bool) -> Scheme:
    def quantise(source: Path, target: Path, samples: Samples) -> None:
        quantize_static(
            source,
            target,
            samples,
            quant_format=form,
            weight_type=weight,
            activation_type=activation,
            per_channel=per_channel,
        )

    return quantise


def _dynamic(weight: QuantType, *, per_channel: bool) -> Scheme:
    return lambda source, target, samples: quantize_dynamic(source, target, weight_type=weight, per_channel=per_channel)


I8, U8 = QuantType.QInt8, QuantType.QUInt8
SCHEMES: dict[str, Scheme] = {
    "qdq_tensor": _static(QuantFormat.QDQ, I8, U8, per_channel=False),
    "qdq_channel": _static(QuantFormat.QDQ, I8, I8, per_channel=True),
    "operators_tensor": _static(QuantFormat.QOperator, U8, U8, per_channel=False),
    "operators_channel": _static(QuantFormat.QOperator, I8, U8, per_channel=True),
    "dynamic_tensor": _dynamic(U8, per_channel=False),
    "dynamic_channel": _dynamic(I8, per_channel=True),
}


@cache
def plain(name: str) -> ir.Model:
    build, shape = NETS[name]
    torch.manual_seed(0)
    return export(build().eval(), (torch.randn(shape),))


def optimised(proto: onnx.ModelProto, level: str) -> onnx.ModelProto:
    """What ONNX Runtime makes of a model before it runs it."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, f"ORT_ENABLE_{level}")
    with TemporaryDirectory() as folder:
        options.optimized_model_filepath = f"{folder}/optimised.onnx"
        onnxruntime.InferenceSession(proto.SerializeToString(), options)
        return onnx.load(options.optimized_model_filepath)


@cache
def quantised(name: str, scheme: str) -> onnx.ModelProto:
    logging.disable(logging.WARNING)  # they advise a preparation that only fuses
    try:
        with TemporaryDirectory() as folder:
            source, target = Path(folder) / "plain.onnx", Path(folder) / "quantised.onnx"
            proto = optimised(ir.to_proto(plain(name)), "BASIC")
            del proto.graph.value_info[:]  # the tools want to infer it themselves
            onnx.save(proto, source)
            SCHEMES[scheme](source, target, Samples(proto.graph.input[0].name, NETS[name][1]))
            return onnx.load(target)
    finally:
        logging.disable(logging.NOTSET)
