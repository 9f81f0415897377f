"""Weights in files beside a model: where these may lie, and that they hold what the model says (docs/security.md).

A file names its weights by a path, an offset and a length, and whoever wrote it may have meant harm. What is read lies
in the folder of the model, links followed, and is as long as it has to be; nothing is opened before that is known.
"""

from __future__ import annotations

import math
import stat
from pathlib import Path, PureWindowsPath

import onnx_ir as ir

from onnxmorph.errors import ModelError


def place_external(model: ir.Model, path: Path) -> None:
    """Let the tensors of a model's file be read from its folder.

    Where the file is a link, as in caches that keep files by their hash, what links from the same folder into the
    folder of the file itself is read there.
    """
    folder, real = path.absolute().parent, path.resolve().parent

    def placed(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
        if not isinstance(tensor, ir.ExternalTensor):
            return tensor
        tensor.base_dir = folder
        target = _beyond(folder, real, str(tensor.location)) if real != folder.resolve() else None
        if target is None:
            return tensor
        where = target.relative_to(real)
        return ir.ExternalTensor(
            where, tensor.offset, tensor.length, tensor.dtype, shape=tensor.shape, name=tensor.name, base_dir=real
        )

    for graph in (model.graph, *(f.graph for f in model.functions.values())):
        for each in (graph, *graph.subgraphs()):
            for value in each.initializers.values():
                value.const_value = None if value.const_value is None else placed(value.const_value)
        for node in graph.all_nodes():
            for name, attribute in list(node.attributes.items()):
                if attribute.type == ir.AttributeType.TENSOR and not attribute.is_ref():
                    node.attributes[name] = ir.AttrTensor(name, placed(attribute.as_tensor()))


def _beyond(folder: Path, real: Path, where: str) -> Path | None:
    """The file that a plain name in the folder of a link leads to, where it lies beside what the link leads to."""
    if Path(where).is_absolute() or ".." in Path(where).parts:
        return None
    try:
        target = (folder / where).resolve()
    except (OSError, ValueError, RuntimeError):  # no path at all, which is said where it is checked
        return None
    return target if target.is_relative_to(real) and not target.is_relative_to(folder.resolve()) else None


def check_external(tensor: ir.ExternalTensor, label: str, name: str) -> None:
    """A tensor in another file can be read, and from nowhere but the folder of the model.

    Raises:
        ModelError: it cannot; the message names the tensor, the path, and what to do.
    """
    where = str(tensor.location)
    problem = _problem(tensor, where)
    if problem:
        message = f"{name}: the weights of {label!r} are in {where[:200]!r}, which {problem}"
        raise ModelError(message, code="model-external")


def _problem(tensor: ir.ExternalTensor, where: str) -> str:
    """What is wrong with a tensor's file; "" where nothing is."""
    if tensor.dtype == ir.DataType.STRING:
        return "cannot hold texts; export the model again"
    if "\\" in where or PureWindowsPath(where).drive:  # a path of its own on Windows, a plain name elsewhere
        return "is no path as ONNX writes it; write it relative to the model, with forward slashes"
    folder = Path(tensor.base_dir).resolve()
    try:
        path = (folder / where).resolve()
        if Path(where).is_absolute() or not path.is_relative_to(folder):
            return "lies outside the model's folder; put that file beside the model"
        if not path.exists():
            return "is missing; put that file beside the model"
        found = path.stat()
    except (OSError, ValueError, RuntimeError) as e:  # a NUL in the name, a loop of links
        return f"is no usable path ({e})"
    if not stat.S_ISREG(found.st_mode):
        return "is no regular file; put the weights there"
    if found.st_nlink > 1:
        return "has several hard links, which could lead out of the model's folder; copy it"
    return _range(tensor, found.st_size)


def _range(tensor: ir.ExternalTensor, size: int) -> str:
    """What is wrong with a tensor's place in a file of so many bytes."""
    needed = math.ceil(math.prod(tensor.shape.numpy()) * tensor.dtype.bitwidth / 8)
    offset, length = tensor.offset or 0, needed if tensor.length is None else tensor.length
    if length != needed:
        return f"is to be read for {length:,} bytes where the shape needs {needed:,}; export the model again"
    if offset < 0 or size < offset + needed:
        return f"is cut short: it has {size:,} bytes, and {needed:,} are wanted from {offset:,} on; copy it again"
    return ""
