"""Running models in ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Mapping
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


def _cannot_run(e: Exception) -> ModelError:
    reason = " ".join(str(e).split())[:200]
    return ModelError(f"ONNX Runtime cannot run the model ({reason}); check that it runs there at all", code="runtime")
