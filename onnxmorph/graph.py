"""A model as analysis sees it: read-only, without the file format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxmorph.errors import ModelError

Shape = tuple[int, ...]
Known = NDArray[Any]


@dataclass(frozen=True)
class Node:
    """One op as the rules see it.

    ``attributes`` holds the schema's defaults too; ``formal`` the names of the schema's inputs. ``known`` holds the
    value of each input that is a constant of integers, booleans or a single number, else None; ``partial`` also
    holds those with dynamic entries. Absent inputs have the name "" and the shape None. ``counted`` is False for
    arithmetic on integers and constants, which costs nothing. ``captured`` are outer tensors that bodies read.
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

    def __str__(self) -> str:
        return f"node {self.name or self.outputs[0]!r} ({self.type})"


@dataclass(frozen=True)
class Parameter:
    """A floating-point initializer: its shape and ONNX dtype name."""

    name: str
    shape: Shape
    dtype: str


@dataclass(frozen=True)
class Graph:
    """A model as analysis sees it. ``model`` is the ONNX IR that surgery clones; nobody else looks inside.

    ``kinds`` are the element types of the tensors. ``constants`` are the parameters that the file holds as Constant
    nodes: cut like others, but not counted. ``static`` gives, for each computed integer tensor that is known in part,
    which entries do not depend on a dynamic dimension. ``dynamic`` gives the dynamic axes of a tensor. ``derived``
    names the known tensors that come from the shape of another tensor, and so would change with a cut.
    """

    model: ir.Model
    nodes: tuple[Node, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    shapes: Mapping[str, Shape | None]
    kinds: Mapping[str, ir.DataType]
    parameters: Mapping[str, Parameter]
    constants: frozenset[str]
    known: Mapping[str, Known]
    static: Mapping[str, NDArray[np.bool_]]
    dynamic: Mapping[str, frozenset[int]]
    derived: frozenset[str]
    fingerprint: str
    source: str = "model"
    notes: tuple[str, ...] = ()

    def weights(self, name: str) -> NDArray[Any]:
        """The values of a parameter; read from the file when asked for."""
        tensor = self.model.graph.initializers[name].const_value
        assert tensor is not None
        return read(tensor, name)


def read(tensor: ir.TensorProtocol, name: str) -> NDArray[Any]:
    """The values of a tensor. Raises ModelError where the data do not fit its shape and type."""
    try:
        return np.asarray(tensor.numpy())
    except (ValueError, TypeError, OSError) as e:
        message = f"the data of tensor {name!r} cannot be read ({e}); copy or export the model again"
        raise ModelError(message, code="model-tensor") from None
