"""Real graphs without their weights, which may lie beside the repository, and the script that fills them."""

from __future__ import annotations

import importlib.util
import lzma
from functools import cache
from math import prod
from pathlib import Path
from types import ModuleType

import onnx
import pytest

FOLDER = Path(__file__).parents[2] / "shared" / "zoo"
PATHS = sorted(FOLDER.rglob("*.onnx.xz"))
needed = pytest.mark.skipif(not PATHS, reason="no folder ../shared/zoo beside the repository: no real exports")


def name_of(path: Path) -> str:
    return f"{path.parent.name}-{path.name.removesuffix('.onnx.xz')}"


@cache
def _script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("skeleton", FOLDER / "skeleton.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def weightless(path: Path) -> onnx.ModelProto:
    """The graph as it lies there: large parameters have a shape and no values."""
    return onnx.ModelProto.FromString(lzma.decompress(path.read_bytes()))


def filled(path: Path) -> onnx.ModelProto:
    """The model with weights drawn from the distributions that they had."""
    return _script().materialize(path.read_bytes())  # type: ignore[no-any-return]


def zeroed(path: Path) -> onnx.ModelProto:
    """The model with zeros for weights, where none is read: drawing them takes long."""
    model = weightless(path)
    constants = [a.t for n in model.graph.node for a in n.attribute if a.type == onnx.AttributeProto.TENSOR]
    for tensor in (*model.graph.initializer, *constants):
        if tensor.doc_string.startswith("skeleton:"):
            tensor.raw_data = bytes(prod(tensor.dims) * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)
    return model


def parameters(path: Path) -> int:
    """How many numbers the initializers hold."""
    return sum(prod(t.dims) for t in weightless(path).graph.initializer)
