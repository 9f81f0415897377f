"""One table row, or several, for every rule: a node, and which of its factors must come out free.

A row becomes a network in which every axis of every input carries channels of its own: see ``weighing``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from onnxmorph.surgery.verify import run_session
from weighing import activation, initializer, weigh


@dataclass(frozen=True)
class Act:
    """An activation: values in [low, high], cast to `kind`."""

    shape: tuple[int, ...]
    low: float = -2.0
    high: float = 2.0
    kind: int = TensorProto.FLOAT


@dataclass(frozen=True)
class Weight:
    """An initializer with values in [low, high], of the type `kind`."""

    shape: tuple[int, ...]
    low: float = -1.0
    high: float = 1.0
    kind: int = TensorProto.FLOAT


Constant = NDArray[Any]
Input = Act | Weight | Constant | None


@dataclass(frozen=True)
class Row:
    """A node of one op.

    ``free`` are the factors of its rule that must be free to go, in the rule's own names. ``reference`` is True where
    ONNX Runtime cannot run the node: onnx's reference evaluator does so instead. The last ``captured`` inputs are read
    by the node's bodies, by their names ``a0 a1 …``. ``shapes`` are those of the outputs, where onnx infers less.
    """

    op: str
    inputs: tuple[Input, ...]
    free: str
    attributes: Mapping[str, Any] = field(default_factory=dict)
    opset: int = 17
    outputs: int = 1
    note: str = ""
    batch: int | str = 1
    domain: str = ""
    reference: bool = False
    captured: int = 0
    shapes: tuple[tuple[int, ...], ...] = ()
    absent: tuple[int, ...] = ()  # outputs that are left out

    @property
    def opsets(self) -> list[onnx.OperatorSetIdProto]:
        return [helper.make_opsetid("", self.opset), *([helper.make_opsetid(self.domain, 1)] if self.domain else [])]

    def __str__(self) -> str:
        return f"{self.op}-{self.opset}" + (f"-{self.note}" if self.note else "")

    def session(self, model: ir.Model) -> Any:
        """A function from inputs by name to the list of outputs."""
        if not self.reference:
            return run_session(model)
        evaluator = ReferenceEvaluator(ir.to_proto(model))
        return lambda feeds: evaluator.run(None, dict(feeds))

    def network(self, rng: np.random.Generator) -> onnx.ModelProto:
        """Activations a0 a1 …, weights w0 w1 …, constants c0 c1 …, the node's outputs y0 y1 …; see ``weighing``."""
        graph, names = onnx.GraphProto(name="row"), []
        for i, given in enumerate(self.inputs):
            if isinstance(given, Act):
                values = rng.uniform(given.low, given.high, given.shape).astype(np.float32)
                names.append(activation(graph, f"a{i}", values, given.kind, self.batch))
            elif isinstance(given, Weight):
                values = rng.uniform(given.low, given.high, given.shape).astype(np.float32)
                if given.kind != TensorProto.FLOAT:
                    values = np.rint(values).astype(helper.tensor_dtype_to_np_dtype(given.kind))
                names.append(initializer(graph, f"w{i}", values))
            else:
                names.append("" if given is None else initializer(graph, f"c{i}", given))
        outputs = ["" if j in self.absent else f"y{j}" for j in range(self.outputs)]
        names = names[: len(names) - self.captured]
        graph.node.append(
            helper.make_node(self.op, names, outputs, name="subject", domain=self.domain, **self.attributes)
        )
        model = helper.make_model(graph, opset_imports=self.opsets, ir_version=10)
        like = ["a0"] if self.op == "GroupNormalization" else outputs  # for which onnx infers nothing
        there = [name for name in outputs if name]
        types = [(TensorProto.FLOAT, list(s)) for s in self.shapes] or _types(model, [n for n in like if n])
        for name, (kind, shape) in zip(there, types, strict=True):
            if self.op in ("Shape", "Size"):  # sizes have no channels to weigh; they stay the original's
                model.graph.output.append(helper.make_tensor_value_info(name, kind, shape))
            else:
                weigh(model.graph, rng, name, kind, shape, self.opset)
        return model


def _types(model: onnx.ModelProto, names: list[str]) -> list[tuple[int, list[int]]]:
    """Element type and shape of tensors; a dynamic size counts 1. What onnx cannot tell, ONNX Runtime shows."""
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    found = {v.name: v.type.tensor_type for v in inferred.graph.value_info}
    if any(not found[n].elem_type if n in found else True for n in names):
        shown = onnx.ModelProto()
        shown.CopyFrom(model)
        shown.graph.output.extend(onnx.ValueInfoProto(name=n) for n in names)
        arrays = run_session(ir.from_proto(shown))({v.name: np.ones(_ones(v), np.float32) for v in model.graph.input})
        return [(helper.np_dtype_to_tensor_dtype(a.dtype), list(a.shape)) for a in arrays]
    return [(found[n].elem_type, [d.dim_value or 1 for d in found[n].shape.dim]) for n in names]


def _ones(value: onnx.ValueInfoProto) -> list[int]:
    return [1] * len(value.type.tensor_type.shape.dim)


# ---------------------------------------------------------------- what the table is written with

IMAGE = Act((2, 6, 5, 4))
MATRIX = Act((4, 6))
POSITIVE = Act((4, 6), 1, 3)
BOOL = Act((4, 6), kind=TensorProto.BOOL)
BYTES = Act((4, 6), 0, 7, TensorProto.UINT8)
INTS = Act((4, 6), -9, 9, TensorProto.INT64)


def ints(*values: int) -> Constant:
    return np.array(values, np.int64)


def floats(*values: float) -> Constant:
    return np.array(values, np.float32)


def rows(ops: str, *inputs: Input, free: str, **options: Any) -> list[Row]:
    return [Row(op, inputs, free, **options) for op in ops.split()]
