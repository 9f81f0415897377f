"""Running models, and single nodes, in ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx_ir as ir
from numpy.typing import NDArray

from onnxmorph.errors import ModelError

NEWEST_IR = 13  # onnxruntime 1.31 reads no newer files, and the graph itself does not depend on it


def run_session(model: ir.Model) -> Any:
    """A function from inputs by name to the list of outputs."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    model.ir_version = min(model.ir_version or 8, NEWEST_IR)
    proto = ir.to_proto(ir.external_data.load_to_model(model))
    try:
        session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as e:  # its errors share no base class
        raise _cannot_run(e) from None

    def run(feeds: Mapping[str, NDArray[Any]]) -> Any:
        try:
            return session.run(None, feeds)
        except Exception as e:
            raise _cannot_run(e) from None

    return run


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
