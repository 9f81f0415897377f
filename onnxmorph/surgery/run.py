"""Running models, and single nodes, in ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxmorph.errors import ModelError
from onnxmorph.graph import read
from onnxmorph.model import save
from onnxmorph.weights import made, stay_beside

TOLERANCE = 1e-4
HALF = 1e-2  # a few units in the last place of float16, some layers on
OTHER_FLOATS = {ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE}
NEWEST_IR = 13  # onnxruntime 1.31 reads no newer files, and the graph itself does not depend on it


def run_session(model: ir.Model) -> Any:
    """A function from inputs by name to the list of outputs."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what fails is raised
    # No fusion: of two models that compute the same, one can be fused into integer arithmetic that rounds otherwise.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    model.ir_version = min(model.ir_version or 8, NEWEST_IR)
    with runnable(model) as source:
        try:
            session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        except Exception as e:  # its errors share no base class
            raise _cannot_run(e) from None

    def run(feeds: Mapping[str, NDArray[Any]]) -> Any:
        try:
            return session.run(None, feeds)
        except Exception as e:
            raise _cannot_run(e) from None

    return run


@contextmanager
def runnable(model: ir.Model) -> Iterator[bytes | str]:
    """What a runtime reads a model from: its bytes, or, where its weights stay beside it, a file for the time being."""
    if not stay_beside(model):
        yield ir.to_proto(ir.external_data.load_to_model(model)).SerializeToString()
        return
    # The runtime maps what it reads, and where that cannot be deleted meanwhile it is left to the system.
    with TemporaryDirectory(prefix="onnxmorph-", ignore_cleanup_errors=True) as folder:
        save(model, path := str(Path(folder) / "model.onnx"))
        yield path


def run_alike(
    models: Sequence[ir.Model], samples: Sequence[Mapping[str, NDArray[Any]]], dtypes: set[ir.DataType]
) -> tuple[list[list[Any]], float]:
    """Run models that are to be compared, one after another: in their own types if they can, else all in float32.

    Args:
        models: of one origin.
        samples: inputs by name.
        dtypes: the types of their tensors.

    Returns:
        for each model its outputs for each sample, and the relative difference that these types explain.
    """

    def results(of: Callable[[ir.Model], Any]) -> list[list[Any]]:
        return [list(map(of(model), samples)) for model in models]  # each is let go of before the next is made ready

    if ir.DataType.BFLOAT16 not in dtypes:
        try:
            return results(run_session), HALF if ir.DataType.FLOAT16 in dtypes else TOLERANCE
        except ModelError:
            if dtypes.isdisjoint(OTHER_FLOATS):
                raise
    return results(lambda model: _taking_float(run_session(in_float(model)))), TOLERANCE


def in_float(model: ir.Model) -> ir.Model:
    """A copy that computes in float32 whatever the original does in other floating-point types."""
    model = model.clone()

    def plain(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
        if tensor.dtype not in OTHER_FLOATS:
            return tensor
        return made(
            tensor, tensor.shape.numpy(), lambda: read(tensor, tensor.name or "").astype(np.float32), ir.DataType.FLOAT
        )

    for graph in (model.graph, *model.graph.subgraphs()):
        for value in graph.initializers.values():
            if value.const_value is not None:
                value.const_value = plain(value.const_value)
        for value in (*graph.inputs, *graph.initializers.values(), *(v for node in graph for v in node.outputs)):
            if value.dtype in OTHER_FLOATS:
                value.dtype = ir.DataType.FLOAT
        for node in graph:
            for name, attribute in list(node.attributes.items()):
                if isinstance(attribute.value, ir.TensorProtocol):
                    node.attributes[name] = ir.AttrTensor(name, plain(attribute.as_tensor()))
                elif name in ("to", "dtype", "output_dtype") and attribute.value in OTHER_FLOATS:
                    node.attributes[name] = ir.AttrInt64(name, ir.DataType.FLOAT)
    return model


def _taking_float(run: Any) -> Any:
    def narrowed(array: NDArray[Any]) -> NDArray[Any]:
        return array if array.dtype.kind in "biu" else array.astype(np.float32)

    return lambda feeds: run({name: narrowed(array) for name, array in feeds.items()})


def run_node(
    model: ir.Model,
    of: ir.Node,
    attributes: Mapping[str, ir.Attr],
    feeds: Mapping[int, NDArray[Any]],
    outputs: Sequence[str],
) -> list[NDArray[Any]]:
    """Run one node of a model on arrays.

    Args:
        model: gives the versions of the operator sets.
        of: the node.
        attributes: instead of its own.
        feeds: its inputs by number; the others are absent.
        outputs: the names of its outputs, "" for one that is not asked for.
    """
    inputs: list[ir.Value | None] = [None] * (max(feeds, default=-1) + 1)
    for i, array in feeds.items():
        kind = ir.TensorType(ir.DataType.from_numpy(array.dtype))
        inputs[i] = ir.Value(name=f"input {i}", shape=ir.Shape(array.shape), type=kind)
    node = ir.Node(of.domain, of.op_type, inputs, list(attributes.values()), num_outputs=len(outputs))
    for value, name in zip(node.outputs, outputs, strict=True):
        value.name = name
    ends = [v for v in inputs if v is not None], [v for v in node.outputs if v.name]
    graph = ir.Graph(*ends, nodes=[node], opset_imports=dict(model.opset_imports), name="node")
    session = run_session(ir.Model(graph, ir_version=model.ir_version or NEWEST_IR))
    results: list[NDArray[Any]] = session({f"input {i}": array for i, array in feeds.items()})
    return results


def _cannot_run(e: Exception) -> ModelError:
    reason = " ".join(str(e).split())[:200]
    return ModelError(f"ONNX Runtime cannot run the model ({reason}); check that it runs there at all", code="runtime")
