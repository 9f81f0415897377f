"""A graph that grows node by node, with the shapes of its tensors at two batch sizes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from weighing import initializer, weigh

T = TypeVar("T")
Sizes = tuple[int, ...]
BATCHES = (2, 3)
MOST = 3000  # elements of a tensor
SIZES = (6, 4, 8, 3, 12, 2, 5)
LONGEST = 24  # positions of an axis


class Choices:
    """What a generator decides: ``draw(n)`` gives a number below n, the simplest choice being 0."""

    def __init__(self, draw: Callable[[int], int]) -> None:
        self.draw = draw

    def of(self, options: Sequence[T]) -> T:
        return options[self.draw(len(options))]

    def flag(self) -> bool:
        return self.draw(2) == 1

    def between(self, low: int, high: int) -> int:
        return low + self.draw(high - low + 1)

    def subset(self, options: Sequence[T]) -> list[T]:
        """At least one of them, in order."""
        first = self.draw(len(options))
        return [each for i, each in enumerate(options) if i == first or self.draw(3) == 1]


class Sketch:
    """``pool`` holds the tensors that moves may continue from; ``shapes`` those of all, at both batch sizes."""

    def __init__(self, choose: Choices, opset: int) -> None:
        self.choose, self.opset = choose, opset
        self.graph = onnx.GraphProto(name="random")
        self.pool: list[str] = []
        self.types: dict[str, tuple[onnx.TypeProto, onnx.TypeProto]] = {}
        self.values: dict[str, onnx.TensorProto] = {}
        self.weights: list[str] = []
        self.rng = np.random.default_rng(0)

    # -- shapes ------------------------------------------------------------------------------

    def shape(self, name: str) -> Sizes:
        return self._sizes(name)[0]

    def dynamic(self, name: str) -> list[bool]:
        return [a != b for a, b in zip(*self._sizes(name), strict=True)]

    def static_axes(self, name: str, least: int = 1) -> list[int]:
        """The axes of a fixed size, of so many positions at least."""
        shape = self.shape(name)
        return [t for t, moving in enumerate(self.dynamic(name)) if not moving and shape[t] >= least]

    def _sizes(self, name: str) -> list[Sizes]:
        return [tuple(d.dim_value for d in t.tensor_type.shape.dim) for t in self.types[name]]

    def fits(self, *shapes: Sequence[int]) -> bool:
        """Whether tensors of these shapes are small enough, and of no more than five axes."""
        return all(len(s) <= 5 and np.prod(s) <= MOST and max(s, default=1) <= LONGEST for s in shapes)

    def settle(self, name: str, axes: Sequence[tuple[int, bool]]) -> None:
        """Say what inference cannot: the sizes of a tensor, and which of them grow with the batch."""
        first, second = BATCHES
        sizes = [[s for s, _ in axes], [s * second // first if moving else s for s, moving in axes]]
        one, other = (helper.make_tensor_type_proto(TensorProto.FLOAT, of) for of in sizes)
        self.types[name] = one, other

    # -- nodes -------------------------------------------------------------------------------

    def start(self, rank: int, batch: str | int) -> str:
        """A graph input; one of an element is multiplied with a parameter, so that every axis has channels."""
        shape = [BATCHES[0], *(self.choose.of(SIZES if t == 0 else SIZES[: 8 - rank]) for t in range(rank - 1))]
        bare = self.choose.flag()
        dims: list[int | str] = [batch, *(shape[1:] if bare else [1] * (rank - 1))]
        name = f"x{len(self.graph.input)}"
        self.graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, dims))
        self.settle(
            name, [(s if isinstance(d, str) else d, isinstance(d, str)) for s, d in zip(shape, dims, strict=True)]
        )
        return name if bare else self.add("Mul", name, self.weight(1 if isinstance(batch, str) else batch, *shape[1:]))

    def constant(self, array: NDArray[Any]) -> str:
        """An initializer with these values."""
        name = initializer(self.graph, f"c{len(self.graph.initializer)}", array)
        tensor = self.graph.initializer[-1]
        kind = helper.make_tensor_type_proto(tensor.data_type, tensor.dims)
        self.types[name] = kind, kind
        if tensor.data_type == TensorProto.INT64:
            self.values[name] = tensor
        return name

    def ints(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))

    def weight(self, *shape: int, fan_in: int = 0) -> str:
        """A parameter: sums over ``fan_in`` positions stay near 1. Sometimes one that is there already."""
        same = [w for w in self.weights if self.shape(w) == shape]
        if same and self.choose.draw(4) == 1:
            return self.choose.of(same)
        if fan_in:
            array = self.rng.normal(size=shape) / np.sqrt(fan_in)
        else:
            array = self.rng.uniform(0.5, 1.5, shape) * self.rng.choice([-1, 1], shape)
        self.weights.append(self.constant(array.astype(np.float32)))
        return self.weights[-1]

    def add(self, op: str, *inputs: str, **attributes: object) -> str:
        """A node with one output."""
        return self.add_many(op, 1, *inputs, **attributes)[0]

    def add_many(self, op: str, outputs: int, *inputs: str, **attributes: object) -> list[str]:
        names = [f"t{len(self.graph.node)}" + (f"_{j}" if outputs > 1 else "") for j in range(outputs)]
        node = helper.make_node(op, inputs, names, **attributes)
        found = [
            onnx.shape_inference.infer_node_outputs(
                onnx.defs.get_schema(op, self.opset),
                node,
                {i: self.types[i][at] for i in inputs if i},
                {i: self.values[i] for i in inputs if i in self.values},
                opset_imports=[helper.make_opsetid("", self.opset)],
            )
            for at in range(len(BATCHES))
        ]
        self.graph.node.append(node)
        self.types |= {n: (found[0][n], found[1][n]) for n in names}
        return names

    # -- the end -----------------------------------------------------------------------------

    def model(self, most: int = 4) -> onnx.ModelProto:
        """The model; its outputs are what nothing reads, as it is or weighed with a parameter."""
        read = {i for node in self.graph.node for i in node.input}
        for name in [n for n in reversed(self.pool) if n not in read][:most]:
            if self.choose.draw(12) == 11 and len(self.graph.node):
                sizes = [
                    f"d{t}_{name}" if m else s
                    for t, (m, s) in enumerate(zip(self.dynamic(name), self.shape(name), strict=True))
                ]
                self.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, sizes))
            else:
                shape = [1 if m else s for m, s in zip(self.dynamic(name), self.shape(name), strict=True)]
                weigh(self.graph, self.rng, name, TensorProto.FLOAT, shape, self.opset)
        return helper.make_model(self.graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=10)


def describe(model: onnx.ModelProto) -> str:
    """The graph in a few lines."""
    shapes = {t.name: list(t.dims) for t in model.graph.initializer}
    ints = {
        t.name: numpy_helper.to_array(t).tolist() for t in model.graph.initializer if t.data_type == TensorProto.INT64
    }
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        shapes[value.name] = [d.dim_value or d.dim_param for d in value.type.tensor_type.shape.dim]
    lines = [f"opset {model.opset_import[0].version}"]
    for node in model.graph.node:
        reads = ", ".join(f"{n}{ints.get(n, shapes.get(n, '?'))}" for n in node.input)
        options = "".join(f" {a.name}={helper.get_attribute_value(a)}" for a in node.attribute)
        lines.append(f"{', '.join(node.output)}{shapes.get(node.output[0], '?')} = {node.op_type}({reads}){options}")
    return "\n".join([*lines, f"outputs {', '.join(v.name for v in model.graph.output)}"])
