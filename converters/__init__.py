"""One module per framework: models to ONNX with every parameter name kept, and back.

Installed as ``onnxmorph.converters``. Importing this package loads no framework;
``onnxmorph.converters.torch`` loads PyTorch.
"""

from __future__ import annotations

import json
from collections.abc import Collection

import onnx_ir as ir

#: Key in ``model.metadata_props``: JSON, the floating-point initializers that the framework does not train.
BUFFERS = "onnxmorph.buffers"


def record_buffers(model: ir.Model, trained: Collection[str]) -> None:
    """Write down, in place, which floating-point initializers are not among the trained ones."""
    floating = (n for n, v in model.graph.initializers.items() if v.dtype is not None and v.dtype.is_floating_point())
    buffers = [name for name in floating if name not in trained]
    if buffers:
        model.metadata_props[BUFFERS] = json.dumps(buffers)
