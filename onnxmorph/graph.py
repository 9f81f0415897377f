"""A model as analysis sees it: read-only, without the file format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import networkx as nx
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxmorph.errors import ModelError

Shape = tuple[int, ...]
Known = NDArray[Any]


@dataclass(frozen=True)
class Crossing:
    """How a value passes the border of a body.

    ``meet`` says how many inputs become one (the branches of an If; a state before and after an iteration); what
    decides about them follows. With an ``axis`` one position of it passes per iteration: ``inward`` into the body,
    else out of it. A ``state`` passes from one iteration to the next.
    """

    meet: int
    axis: int | None = None
    inward: bool = False
    state: bool = False


@dataclass(frozen=True)
class Node:
    """One op as the rules see it, or one value that passes the border of its bodies (``crossing``).

    ``attributes`` holds the schema's defaults too; ``formal`` the names of the schema's inputs. ``known`` holds the
    value of each input that is a constant of integers, booleans or a few numbers, else None; ``partial`` also
    holds those with dynamic entries. Absent inputs have the name "" and the shape None. ``counted`` is False for
    arithmetic on sizes, indices and constants, which costs nothing. ``captured`` are outer tensors read by bodies that
    analysis does not enter. ``dynamic`` holds the axes of each output whose size is not known before running.
    ``others`` are the shapes of all inputs and outputs, by name, at another choice of dynamic sizes: a batch of one
    shows nothing of where it goes.
    ``around`` names the nodes in whose bodies it is, or whose border it passes, outermost first; ``times`` is how
    often it runs.
    """

    type: str
    domain: str
    version: int
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    formal: tuple[str, ...]
    in_shapes: tuple[Shape | None, ...]
    out_shapes: tuple[Shape | None, ...]
    known: tuple[Known | None, ...]
    partial: tuple[Known | None, ...] = ()
    captured: tuple[str, ...] = ()
    counted: bool = True
    dynamic: tuple[frozenset[int], ...] = ()
    others: Mapping[str, Shape | None] = field(default_factory=dict)
    times: int = 1
    around: tuple[str, ...] = ()
    crossing: Crossing | None = None

    def input_index(self, parameter: str) -> int | None:
        """Where the schema has `parameter` as an input, if this node gives one there."""
        if parameter not in self.formal:
            return None
        index = self.formal.index(parameter)
        return index if index < len(self.inputs) and self.inputs[index] else None

    def parameter(self, name: str) -> Any:
        """The value of an attribute, or of a constant input of that name; None if absent or not constant."""
        index = self.input_index(name)
        return self.attributes.get(name) if index is None else self.known[index]

    def sizes(self, name: str) -> Any:
        """As `parameter`, but with the values that dynamic entries have at the sizes analysis took."""
        index = self.input_index(name)
        return self.attributes.get(name) if index is None else self.partial[index]

    @property
    def key(self) -> str:
        """Its type and its first output, which no other node has."""
        return f"{self.type}:{next(o for o in self.outputs if o)}"

    @property
    def inner(self) -> bool:
        """Whether it is in a body, or passes the border of one."""
        return bool(self.around)

    @property
    def tensors(self) -> tuple[str, ...]:
        """All that it reads and writes, each once."""
        return tuple(dict.fromkeys(n for n in (*self.inputs, *self.captured, *self.outputs) if n))

    def __str__(self) -> str:
        return f"node {self.name or self.outputs[0]!r} ({self.type})"


def holds_data(dtype: ir.DataType) -> bool:
    """Whether tensors of a type hold what a network computes: floats, and integers too narrow for sizes and indices."""
    return dtype.is_floating_point() or (dtype.is_integer() and dtype.bitwidth <= 16)


@dataclass(frozen=True)
class Parameter:
    """An initializer that holds data, not sizes or indices: its shape and ONNX dtype name."""

    name: str
    shape: Shape
    dtype: str

    @property
    def quantised(self) -> bool:
        """Whether it holds integers."""
        return ir.DataType[self.dtype].is_integer()


@dataclass(frozen=True)
class Graph:
    """A model as analysis sees it. ``model`` is the ONNX IR that surgery clones; nobody else looks inside.

    ``parameters`` are the initializers of floating-point and of narrow integer types; ``sums`` those of int32, which
    are parameters only where a rule reads them as quantised (a bias), and sizes or indices elsewhere.
    ``constants`` are the parameters that the file holds as Constant nodes: cut like others, but not counted.
    ``dtypes`` are the types of tensors, where known.
    ``static`` gives, for each computed integer tensor that is known in part, which entries do not depend on a
    dynamic dimension. ``dynamic`` gives the dynamic axes of a tensor. ``derived`` names the known tensors that
    come from the shape of another tensor, and so would change with a cut.
    """

    model: ir.Model
    nodes: tuple[Node, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    shapes: Mapping[str, Shape | None]
    dtypes: Mapping[str, ir.DataType]
    parameters: Mapping[str, Parameter]
    sums: Mapping[str, Parameter]
    constants: frozenset[str]
    known: Mapping[str, Known]
    static: Mapping[str, NDArray[np.bool_]]
    dynamic: Mapping[str, frozenset[int]]
    derived: frozenset[str]
    fingerprint: str
    source: str = "model"
    notes: tuple[str, ...] = ()

    def tensor(self, name: str) -> ir.TensorProtocol:
        """A parameter as it is stored: reading it is left to the caller."""
        tensor = self.model.graph.initializers[name].const_value
        assert tensor is not None
        return tensor

    def weights(self, name: str) -> NDArray[Any]:
        """The values of a parameter; read from the file when asked for."""
        return read(self.tensor(name), name)

    def forget_weights(self) -> None:
        """Let go of the values of the parameters, where only the structure is needed from here on.

        Whatever asks for them afterwards gets a ModelError.
        """
        for name in self.parameters:
            value = self.model.graph.initializers[name]
            tensor = value.const_value
            assert tensor is not None
            value.const_value = Forgotten(_forgotten, tensor.dtype, ir.Shape(tensor.shape.numpy()), name=name)


class Forgotten(ir.LazyTensor):
    """In place of weights that were let go."""


def _forgotten() -> ir.TensorProtocol:
    raise ModelError("the weights of this model were let go; export the trained module anew", code="model-weights")


def op_graph(graph: Graph) -> nx.DiGraph[str]:
    """Ops, inputs and outputs of a model as nodes, tensors between them as edges (attribute ``tensor``).

    Nodes carry ``op``: the op type, or ``input``, ``output``, ``parameter``. Reaches what the outputs need and
    nothing else.
    """
    result: nx.DiGraph[str] = nx.DiGraph()
    producer = {}
    for kind, names in (("input", graph.inputs), ("parameter", graph.parameters)):
        for name in names:
            result.add_node(name, op=kind)
            producer[name] = name
    for node in graph.nodes:
        result.add_node(node.key, op=node.type)
        for tensor in (*node.inputs, *node.captured):
            if tensor in producer:
                result.add_edge(producer[tensor], node.key, tensor=tensor)
        producer |= {o: node.key for o in node.outputs if o}
    for name in graph.outputs:
        result.add_node(f"output:{name}", op="output")
        if name in producer:
            result.add_edge(producer[name], f"output:{name}", tensor=name)
    result.remove_nodes_from([n for n in graph.parameters if not result.degree(n)])
    return result


def read(tensor: ir.TensorProtocol, name: str) -> NDArray[Any]:
    """The values of a tensor. Raises ModelError where the data do not fit its shape and type.

    Those in a file are mapped for this array alone: what is read of them is let go of with it.
    """
    try:
        return np.asarray(unread(tensor).numpy())
    except (ValueError, TypeError, OSError) as e:
        message = f"the data of tensor {name!r} cannot be read ({e}); copy or export the model again"
        raise ModelError(message, code="model-tensor") from None


def unread(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    """The tensor, of which nothing is in memory yet if it lies in a file, nor is once it is let go of."""
    return window(tensor, 0, tensor.shape.numpy()) if isinstance(tensor, ir.ExternalTensor) else tensor


def window(tensor: ir.ExternalTensor, start: int, shape: Shape) -> ir.ExternalTensor:
    """A part of a tensor in a file, `start` bytes from its beginning; nothing is mapped yet."""
    return ir.ExternalTensor(
        tensor.location,
        (tensor.offset or 0) + start,
        None,
        tensor.dtype,
        shape=ir.Shape(shape),
        name=tensor.name,
        base_dir=tensor.base_dir,
    )
