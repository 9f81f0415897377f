"""How the time of analysis grows: with layers, with blocks of attention, with channels. Also a plot.

A row compares the largest network with the smallest, times as many nodes or channels as it has more.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.timing import RESULTS, Row, in_turns
from onnxmorph.analysis import analyze_graph
from onnxmorph.model import load

SLACK = 1.3  # over linear growth


@dataclass(frozen=True)
class Series:
    """Networks of growing size: ``build(n, folder)`` writes the one of size n."""

    what: str
    unit: str
    sizes: Sequence[int]
    build: Callable[[int, Path], Path]


class Net:
    """A graph that is written node by node; weights are a sparse file of zeros that takes no room on the disk."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def weight(self, *shape: int) -> str:
        name = f"w{len(self.weights)}"
        tensor = TensorProto(name=name, dims=shape, data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
        entries = {"location": "zeros", "offset": "0", "length": str(4 * int(np.prod(shape)))}
        tensor.external_data.extend(onnx.StringStringEntryProto(key=k, value=v) for k, v in entries.items())
        self.weights.append(tensor)
        return name

    def integers(self, *values: int) -> str:
        self.weights.append(numpy_helper.from_array(np.array(values, np.int64), f"w{len(self.weights)}"))
        return self.weights[-1].name

    def add(self, op: str, *inputs: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(op, inputs, [f"t{len(self.nodes)}"], **attributes))
        return self.nodes[-1].output[0]

    def save(self, path: Path, shape: Sequence[int], last: str, out: Sequence[int]) -> Path:
        first, final = (helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", shape), (last, out)))
        graph = helper.make_graph(self.nodes, "net", [first], [final], self.weights)
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
        with (path.parent / "zeros").open("ab") as file:
            file.truncate(max(file.tell(), 4 * max(int(np.prod(w.dims)) for w in self.weights)))
        return path


def residual(layers: int, folder: Path) -> Path:
    """Residual blocks of two convolutions with norms."""
    net, c = Net(), 64
    x = net.add("Conv", "x", net.weight(c, 3, 3, 3), pads=[1, 1, 1, 1])
    for _ in range(layers // 2):
        y = x
        for _ in range(2):
            y = net.add("Conv", y, net.weight(c, c, 3, 3), pads=[1, 1, 1, 1])
            y = net.add("BatchNormalization", y, *(net.weight(c) for _ in range(4)))
            y = net.add("Relu", y)
        x = net.add("Add", x, y)
    x = net.add("Flatten", net.add("GlobalAveragePool", x))
    return net.save(folder / f"residual{layers}.onnx", (1, 3, 16, 16), net.add("Gemm", x, net.weight(c, 10)), (1, 10))


def transformer(blocks: int, folder: Path) -> Path:
    """Pre-norm blocks of attention with eight heads, and MLPs."""
    width, heads, tokens = 512, 8, 64
    net = Net()
    split, join = net.integers(1, tokens, heads, width // heads), net.integers(1, tokens, width)
    x = net.add("MatMul", "x", net.weight(32, width))
    for _ in range(blocks):
        y = net.add("LayerNormalization", x, net.weight(width), net.weight(width))
        q, k, v = (
            net.add("Transpose", net.add("Reshape", net.add("MatMul", y, net.weight(width, width)), split), perm=order)
            for order in ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3])
        )
        y = net.add("MatMul", net.add("Softmax", net.add("MatMul", q, k)), v)
        y = net.add("Reshape", net.add("Transpose", y, perm=[0, 2, 1, 3]), join)
        x = net.add("Add", x, net.add("MatMul", y, net.weight(width, width)))
        y = net.add("LayerNormalization", x, net.weight(width), net.weight(width))
        y = net.add("Gelu", net.add("MatMul", y, net.weight(width, 4 * width)))
        x = net.add("Add", x, net.add("MatMul", y, net.weight(4 * width, width)))
    last = net.add("MatMul", x, net.weight(width, 10))
    return net.save(folder / f"transformer{blocks}.onnx", (1, tokens, 32), last, (1, tokens, 10))


def wide(width: int, folder: Path) -> Path:
    """An MLP with a gate, eight layers of `width`."""
    net = Net()
    x = net.add("MatMul", "x", net.weight(32, width))
    for _ in range(8):
        gate, up = (net.add("MatMul", x, net.weight(width, width)) for _ in range(2))
        x = net.add("Add", x, net.add("Mul", net.add("Sigmoid", gate), up))
    last = net.add("MatMul", x, net.weight(width, 10))
    return net.save(folder / f"wide{width}.onnx", (1, 32), last, (1, 10))


SERIES = (
    Series("convolutions", "layers", (125, 250, 500, 1000), residual),
    Series("transformer", "blocks", (12, 24, 48, 96), transformer),
    Series("gated MLP", "channels", (2048, 4096, 8192, 16384), wide),
)


def run() -> list[Row]:
    rows, curves = [], {}
    with tempfile.TemporaryDirectory() as folder:
        for series in SERIES:
            graphs = {n: load(series.build(n, Path(folder))) for n in series.sizes}
            tasks = {str(n): lambda g=g: analyze_graph(g).costs for n, g in graphs.items()}
            taken = list(in_turns(tasks, rounds=3).values())
            few, many = series.sizes[0], series.sizes[-1]
            row = Row(
                f"{series.what}: {many:,} {series.unit}", taken[-1], f"{many // few} × that of {few:,}",
                taken[0] * many / few, SLACK,
            )  # fmt: skip
            rows.append(row)
            curves[series] = taken
    _plot(curves)
    return rows


def _plot(curves: dict[Series, list[float]]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(curves), figsize=(4 * len(curves), 3.2), layout="constrained")
    for ax, (series, taken) in zip(axes, curves.items(), strict=True):
        ax.loglog(series.sizes, [1e3 * t for t in taken], "o-", label="analysis")
        ax.loglog(series.sizes, [1e3 * taken[0] * n / series.sizes[0] for n in series.sizes], "--", label="linear")
        ax.set(title=series.what, xlabel=series.unit, ylabel="ms", xticks=series.sizes, xticklabels=series.sizes)
        ax.minorticks_off()
        ax.legend()
    figure.savefig(RESULTS / "growth.svg", metadata={"Date": None})
