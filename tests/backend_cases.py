"""onnx's own node tests as networks that can be cut.

Every float input carries channels. There are three ways to give them, and each shows other rules another side:

    parameters    the first float input is an activation, the others are initializers
    activations   all float inputs are activations
    computed      integers and booleans are cast from activations too: no index and no size is known
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from laws import Run, in_runtime
from onnxmorph.surgery.run import NEWEST_IR
from weighing import activation, initializer, ones, weigh

FORMS = ("parameters", "activations", "computed")
OPSETS = (7, 26)  # that onnxmorph and ONNX Runtime both read; ops that are the same there are tried there

# Ops that are not functions of their inputs.
RANDOM = frozenset(
    ["Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"]
)

# Cases that are left out, and why.
EXCLUDED = {
    "resize_downsample_sizes_nearest_not_smaller": "onnx infers another shape than its reference computes",
    "stft": "onnx infers another shape than its reference computes",
    "stft_with_window": "onnx infers another shape than its reference computes",
}
# Cases of which only the analysis is tried, and why.
NOT_RUN = {
    "div_int16": "at zero it divides integers by zero",
    "div_int32_trunc": "at zero it divides integers by zero",
    "hardmax_one_hot": "of equal numbers the first wins: their order counts",
    "onehot_negative_indices": "its depth is a float: times something, it is another depth",
}


@dataclass(frozen=True)
class Backend:
    """One of the cases in one of the forms."""

    model: onnx.ModelProto
    given: Mapping[str, Any]

    def feeds(self, seed: int) -> dict[str, Any]:
        return {**self.given, **ones(self.model.graph, seed)}


@cache
def cases() -> Mapping[str, Any]:
    """Onnx's cases by name, made once per process."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return {case.name.removeprefix("test_"): case for case in collect_testcases(None)}


def backend(name: str, form: str) -> Backend:
    case = cases()[name]
    source = case.model
    inputs, outputs = (
        [numpy_helper.to_array(each) if isinstance(each, TensorProto) else each for each in side]
        for side in case.data_sets[0]
    )
    graph, given = onnx.GraphProto(name=name), dict[str, Any]()
    graph.initializer.extend(source.graph.initializer)
    for value, array in zip(source.graph.input, inputs, strict=False):
        kind = value.type.tensor_type.elem_type
        if not isinstance(array, np.ndarray | np.generic):  # a sequence, or nothing
            graph.input.append(value)
            given[value.name] = array
        elif np.size(array) and _is_active(kind, form, first=not graph.input):
            activation(graph, value.name, np.asarray(array), kind)
        else:
            plain = np.asarray(array)
            initializer(graph, value.name, plain.astype(object) if plain.dtype.kind in "SU" else plain)
    graph.node.extend(source.graph.node)
    rng = np.random.default_rng(len(name))
    for value, array in zip(source.graph.output, outputs, strict=True):
        kind = value.type.tensor_type.elem_type
        if isinstance(array, np.ndarray | np.generic) and _can_be_cast(kind):
            weigh(graph, rng, value.name, kind, list(np.shape(array)), _opset(source))
        else:
            graph.output.append(value)
    model = helper.make_model(graph, opset_imports=_opsets(source), ir_version=min(source.ir_version, NEWEST_IR))
    model.functions.extend(source.functions)
    return Backend(model, given)


def _is_active(kind: int, form: str, first: bool) -> bool:
    if not ir.DataType(kind).is_floating_point():
        return form == "computed" and _can_be_cast(kind)
    return first or form != "parameters"


def _can_be_cast(kind: int) -> bool:
    others = (TensorProto.UNDEFINED, TensorProto.STRING, TensorProto.COMPLEX64, TensorProto.COMPLEX128)
    return kind not in others


def _opset(model: onnx.ModelProto) -> int:
    return next((i.version for i in model.opset_import if i.domain in ("", "ai.onnx")), OPSETS[1])


def _opsets(model: onnx.ModelProto) -> list[onnx.OperatorSetIdProto]:
    """Those of the model, or the nearest that can be read where its ops are the same."""
    opset = _opset(model)
    own = [n.op_type for n in model.graph.node if n.domain in ("", "ai.onnx")]
    wanted = min(max(opset, OPSETS[0]), OPSETS[1])
    same = all(onnx.defs.get_schema(op, max(opset, wanted)).since_version <= min(opset, wanted) for op in own)
    others = [i for i in model.opset_import if i.domain not in ("", "ai.onnx")]
    return [helper.make_opsetid("", wanted if same else opset), *others]


def unable(of: Backend) -> bool:
    """Whether nothing can be compared: it draws numbers, or has no zero-masked original."""
    nodes = of.model.graph.node
    training = any(n.op_type == "Dropout" and len(n.input) > 2 and n.input[2] for n in nodes)
    return training or any(n.op_type in RANDOM for n in nodes) or of.model.graph.name in NOT_RUN


def runner(of: Backend) -> Run | None:
    """What can run it: ONNX Runtime, else onnx's reference implementation, else nothing."""
    for run in (in_runtime, in_reference):
        try:
            run(ir.from_proto(of.model), of.feeds(0))
        except Exception:  # the reference implementation raises whatever NumPy raises
            continue
        return run
    return None


def in_reference(model: ir.Model, feeds: Mapping[str, NDArray[Any]]) -> list[Any]:
    """The outputs by onnx's reference implementation."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found: list[Any] = ReferenceEvaluator(ir.to_proto(model)).run(None, dict(feeds))
    return found
