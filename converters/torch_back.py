"""ONNX models as PyTorch modules: trainable, with the model's names, and their weights back into the model.

The module runs the graph node by node, each as `torch_ops` and its neighbours say. It is what a shrunk or expanded
network is trained with where there is no module to `resize`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from onnx_ir import tensor_adapters
from torch import Tensor, nn

from onnxmorph.converters import BUFFERS
from onnxmorph.converters.torch_ops import POINTWISE, REDUCTIONS, Op, Run, Unsupported, torch_type
from onnxmorph.converters.torch_ops_layers import LAYERS
from onnxmorph.converters.torch_ops_moves import MOVES
from onnxmorph.converters.torch_ops_picking import PICKING
from onnxmorph.converters.torch_ops_recurrent import RECURRENT
from onnxmorph.converters.torch_ops_resize import RESIZE
from onnxmorph.errors import ConversionError
from onnxmorph.graph import Graph, Known, Node, read
from onnxmorph.infer import as_node
from onnxmorph.model import Source, load

OPS: dict[str, Op] = {**POINTWISE, **REDUCTIONS, **MOVES, **PICKING, **LAYERS, **RECURRENT, **RESIZE}
_FEW = 16  # numbers: the bounds, scales and ratios that a node may read when it is built
_OLDEST = 7  # opset: before, ops broadcast on request
_NAMED = 5  # of the nodes without a form, in a message


def to_module(source: Source, *, buffers: Sequence[str] = ()) -> OnnxModule:
    """A trainable module that computes what the model does, with its inputs in their order.

    Parameters are the floating-point initializers that have axes, under their own names: ``named_parameters()`` and
    ``state_dict()`` have the names of the ONNX file. Everything else is a buffer: integers, single numbers, running
    statistics, bounds and scales, and what ``export`` knows to be no parameter of the original. Integers and
    Constant nodes are buffers that ``state_dict()`` leaves out: training does not change them.

    In training, BatchNormalization uses the batch's statistics and updates the running ones, and Dropout drops.

    Args:
        source: a path, an ``onnx.ModelProto`` or an ``onnx_ir.Model``; it is not changed.
        buffers: names of initializers, or globs, that are not to be trained: a table of positions, a mask.

    Raises:
        ModelError: the model cannot be read.
        ConversionError: ``torch-op``: nodes have no counterpart here; the message names them.
    """
    graph = load(source)
    return OnnxModule(graph, (*_recorded(graph), *buffers))


def _recorded(graph: Graph) -> list[str]:
    """The names that ``export`` left in the file of what is no parameter."""
    try:
        names = json.loads(graph.model.metadata_props.get(BUFFERS, "[]"))
    except (ValueError, RecursionError):
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        message = f"{graph.source}: metadata {BUFFERS!r}: expected a list of names; export the model again"
        raise ConversionError(message, code="model-metadata")
    return names


def from_module(module: nn.Module, model: Source) -> ir.Model:
    """A copy of the model with the module's parameters and buffers in its floating-point initializers, by name.

    What the module does not have stays as it is; types stay those of the model. Any module with these names will do.

    Raises:
        ModelError: the model cannot be read.
        ConversionError: ``torch-weights``: a shape differs, or no name is in both.
    """
    result = model.clone() if isinstance(model, ir.Model) else load(model).model
    state, found = module.state_dict(), False
    for name, value in result.graph.initializers.items():
        old, new = value.const_value, state.get(name)
        if old is None or new is None or not old.dtype.is_floating_point():
            continue
        if tuple(old.shape) != tuple(new.shape):
            shapes = f"{tuple(old.shape)} in the model and {tuple(new.shape)} in the module"
            message = f"{name} is {shapes}; give the model that the module was made from"
            raise ConversionError(message, code="torch-weights")
        array = new.detach().cpu().to(torch_type(old.dtype)).contiguous()
        value.const_value = ir.tensor(tensor_adapters.TorchTensor(array).numpy().copy(), dtype=old.dtype, name=name)
        found = True
    if not found:
        message = "no initializer of the model is in the module; give the model that the module was made from"
        raise ConversionError(message, code="torch-weights")
    return result


@dataclass(frozen=True)
class _Step:
    """One node: what runs, the names of what it reads ("" where absent) and writes, and of what is read no more."""

    run: Run
    modal: bool
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    done: tuple[str, ...]


class OnnxModule(nn.Module):
    """An ONNX graph as a module; `to_module` makes it. ``inputs`` and ``outputs`` are the names of the graph's."""

    def __init__(self, graph: Graph, buffers: Sequence[str]) -> None:
        super().__init__()
        settled = _settled(graph)
        nodes = list(_needed(graph, settled))
        self.inputs, self.outputs = graph.inputs, graph.outputs
        self._owners: dict[str, tuple[nn.Module, str]] = {}
        runs = _build(nodes, graph.outputs)
        fixed = {n.inputs[i] for n in nodes for i in OPS[n.type].values if i < len(n.inputs)} | graph.constants
        read_names = dict.fromkeys((*(i for n in nodes for i in n.inputs if i), *graph.outputs))
        for name in read_names:
            value = graph.model.graph.initializers.get(name)
            if value is not None and value.const_value is not None:
                tensor = _tensor(value.const_value, name)
                named = any(fnmatchcase(name, b) for b in buffers)
                weight = tensor.is_floating_point() and tensor.ndim > 0 and name not in fixed and not named
                lasting = tensor.is_floating_point() and name not in graph.constants
                self._own(name, nn.Parameter(tensor) if weight else tensor, lasting)
            elif name in settled:
                self._own(name, torch.from_numpy(np.array(settled[name])), persistent=False)
        self._steps = tuple(_steps(nodes, runs, {*self._owners, *self.outputs}))

    def _own(self, name: str, tensor: Tensor, persistent: bool = True) -> None:
        """Register a tensor under its name, dots and all. ONNX's names are free: they may be those of a method."""
        owner: nn.Module = self
        *path, leaf = name.split(".")
        for part in path:
            owner = owner._modules.setdefault(part, nn.Module())  # type: ignore[assignment]  # none of them is None
        if isinstance(tensor, nn.Parameter):
            owner._parameters[leaf] = tensor
        else:
            owner._buffers[leaf] = tensor
            if not persistent:
                owner._non_persistent_buffers_set.add(leaf)
        self._owners[name] = (owner, leaf)

    def _read(self, name: str, live: Mapping[str, Tensor]) -> Tensor:
        if name not in self._owners:
            return live[name]
        owner, leaf = self._owners[name]
        table: Mapping[str, Tensor | None] = owner._parameters if leaf in owner._parameters else owner._buffers
        tensor = table[leaf]
        assert tensor is not None
        return tensor

    def forward(self, *inputs: Tensor) -> Any:
        """The graph's output, or a tuple where there are several, from its inputs in order."""
        if len(inputs) != len(self.inputs):
            raise TypeError(f"the model takes {len(self.inputs)} inputs ({', '.join(self.inputs)}), not {len(inputs)}")
        live = dict(zip(self.inputs, inputs, strict=True))
        for step in self._steps:
            values = [self._read(name, live) if name else None for name in step.reads]
            found = step.run(self.training, *values) if step.modal else step.run(*values)
            found = found if isinstance(found, tuple | list) else (found,)
            live.update((name, value) for name, value in zip(step.writes, found, strict=False) if name)
            for name in step.done:
                live.pop(name, None)  # an output that nobody reads may not have been computed
        results = tuple(self._read(name, live) for name in self.outputs)
        return results[0] if len(results) == 1 else results


def _tensor(value: ir.TensorProtocol, name: str) -> Tensor:
    """The values as a tensor of their own."""
    try:
        dtype = torch_type(value.dtype)
    except Unsupported as reason:
        message = f"no PyTorch counterpart for {name!r}: {reason}; export without it"
        raise ConversionError(message, code="torch-op") from None
    array = np.array(read(value, name), order="C")
    return torch.from_numpy(array.view(f"i{array.itemsize}")).view(dtype)  # not every type of one is known to the other


def _settled(graph: Graph) -> dict[str, Known]:
    """Integers and truth values that are the same whatever the input: shape arithmetic, mostly."""
    return {k: v for k, v in graph.known.items() if v.dtype.kind in "iub" and graph.static[k].all()}


def _needed(graph: Graph, settled: Mapping[str, Known]) -> Iterator[Node]:
    """The nodes that the outputs depend on, in order, with their constants; what is settled is not computed again."""
    wanted, kept = set(graph.outputs), list[ir.Node]()
    for node in reversed(graph.model.graph):
        names = {v.name for v in node.outputs if v.name}
        if names & wanted and not names <= settled.keys():
            kept.append(node)
            wanted |= {v.name for v in node.inputs if v is not None and v.name not in settled and v.name is not None}
    few = {
        name: graph.weights(name)
        for name, parameter in graph.parameters.items()
        if not parameter.quantised and math.prod(parameter.shape) <= _FEW
    }
    for node in reversed(kept):
        yield as_node(graph.model, node, graph.shapes, {**few, **settled})


def _build(nodes: Sequence[Node], outputs: Sequence[str]) -> list[Run]:
    """What computes each node. Raises ConversionError with all nodes for which there is nothing."""
    runs, missing = list[Run](), list[str]()
    needed = {name for node in nodes for name in node.inputs} | set(outputs)
    for node in nodes:
        op = OPS.get(node.type) if node.domain in ("", "ai.onnx") else None
        if op is None:
            missing.append(str(node))
            continue
        more = [] if op.outputs is None else [o for o in node.outputs[op.outputs :] if o in needed - {""}]
        try:
            if more:
                raise Unsupported(f"the output {more[0]!r}")
            if node.version < _OLDEST:
                raise Unsupported(f"opset {node.version}")
            runs.append(op.build(node))
        except Unsupported as reason:
            missing.append(f"{node}: {reason}")
    if missing:
        rest = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
        message = f"no PyTorch counterpart for {'; '.join(missing[:_NAMED])}{rest}"
        action = "train the original module, resized by the structure, or export without these ops"
        raise ConversionError(f"{message}; {action}", code="torch-op")
    return runs


def _steps(nodes: Sequence[Node], runs: Sequence[Run], stays: set[str]) -> Iterator[_Step]:
    """The nodes with what each is the last to read; ``stays`` are the names that are not forgotten."""
    last = {name: i for i, node in enumerate(nodes) for name in (*node.outputs, *node.inputs) if name}
    for i, (node, run) in enumerate(zip(nodes, runs, strict=True)):
        names = dict.fromkeys((*node.inputs, *node.outputs))
        done = tuple(n for n in names if n and last[n] == i and n not in stays)
        modal = OPS[node.type].modal
        yield _Step(run, modal, node.inputs, node.outputs, done)
