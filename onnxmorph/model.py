"""The one place that knows ONNX files: reading, the read-only view that analysis sees, and writing.

Shapes are inferred node by node without touching a weight. Integer arithmetic on shapes is evaluated on the
way, so a shape computed in the graph is as good as a constant one. Where the model has dynamic dimensions,
everything is inferred twice at different sizes: what agrees is static, what differs is dynamic.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes import common as passes

from onnxmorph.arithmetic import evaluate
from onnxmorph.errors import ModelError, OutputError

Shape = tuple[int, ...]
Known = NDArray[Any]

SMALL = 1 << 16  # elements; a computed constant above this is left in the graph
IR_VERSION = 10  # written where the source says less; every supported ONNX Runtime reads it


@dataclass(frozen=True)
class Node:
    """One op as the rules see it.

    ``attributes`` holds the schema's defaults too. ``known`` holds the value of each input that is a constant
    of integers, booleans or a single number, else None. Absent inputs have the name "" and the shape None.
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

    ``constants`` are the parameters that the file holds as Constant nodes: cut like others, but not counted.
    ``static`` gives, for each computed integer tensor that is known in part, which entries do not depend on a
    dynamic dimension. ``dynamic`` gives the dynamic axes of a tensor. ``derived`` names the known tensors that
    come from the shape of another tensor, and so would change with a cut.
    """

    model: ir.Model
    nodes: tuple[Node, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    shapes: Mapping[str, Shape | None]
    parameters: Mapping[str, Parameter]
    constants: frozenset[str]
    known: Mapping[str, Known]
    static: Mapping[str, NDArray[np.bool_]]
    dynamic: Mapping[str, frozenset[int]]
    derived: frozenset[str]
    fingerprint: str
    source: str = "model"
    notes: tuple[str, ...] = field(default=())

    def weights(self, name: str) -> NDArray[Any]:
        """The values of a parameter; read from the file when asked for."""
        tensor = self.model.graph.initializers[name].const_value
        assert tensor is not None
        return tensor.numpy()


Source = str | os.PathLike[str] | onnx.ModelProto | ir.Model


def load(source: Source, shapes: Mapping[str, Sequence[int]] | None = None) -> Graph:
    """Read a model.

    Args:
        source: a path, an ``onnx.ModelProto`` or an ``onnx_ir.Model`` (neither is changed).
        shapes: sizes for dynamic inputs, e.g. ``{"input": (1, 3, 224, 224)}``.

    Raises:
        ModelError: the file cannot be read, its opset is unknown, weights are missing, or the graph is broken.
    """
    model, name = _read(source)
    _check_versions(model, name)
    model = passes.InlinePass()(model).model
    constants = frozenset(v.name or "" for n in model.graph if n.op_type == "Constant" for v in n.outputs)
    lift = passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)
    model = passes.RemoveUnusedNodesPass()(lift(model).model).model
    try:
        model.graph.sort()
    except ValueError as e:
        raise ModelError(
            f"{name}: the graph has a cycle ({e}); export it again", code="model-cycle"
        ) from None
    _check_values(model, name)
    _check_external(model, name)
    return _view(model, name, shapes or {}, constants)


def _read(source: Source) -> tuple[ir.Model, str]:
    if isinstance(source, ir.Model):
        return source.clone(), "model"
    if isinstance(source, onnx.ModelProto):
        return ir.from_proto(source), "model"
    path = Path(source)
    if not path.is_file():
        raise ModelError(f"{path}: there is no such file", code="model-missing")
    try:
        model = ir.load(path)
    except Exception as e:  # protobuf, IR and I/O errors share no base class
        reason = " ".join(str(e).split())[:200]
        message = f"{path}: not a readable ONNX model ({reason or type(e).__name__}); export or copy it again"
        raise ModelError(message, code="model-unreadable") from None
    if not len(model.graph) or not model.graph.outputs:
        raise ModelError(f"{path}: not an ONNX model, or an empty one", code="model-empty")
    return model, str(path)


def _check_versions(model: ir.Model, name: str) -> None:
    version, newest = model.opset_imports.get("", 0), onnx.defs.onnx_opset_version()
    if not 7 <= version <= newest:
        message = f"{name}: opset {version} is not supported (7 to {newest}); export with one of these"
        raise ModelError(message, code="model-opset")


def _check_values(model: ir.Model, name: str) -> None:
    seen: set[str] = set()
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        seen.add(value.name or "")
    for node in model.graph:
        for value in node.inputs:
            if value is not None and value.name not in seen:
                message = (
                    f"{name}: node {node.name!r} ({node.op_type}) reads {value.name!r}, which nothing writes"
                )
                raise ModelError(message, code="model-undefined")
        for value in node.outputs:
            if value.name and value.name in seen:
                raise ModelError(f"{name}: tensor {value.name!r} is written twice", code="model-twice")
            seen.add(value.name or "")


def _check_external(model: ir.Model, name: str) -> None:
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if isinstance(tensor, ir.ExternalTensor):
            path = Path(tensor.path)
            needed = (tensor.offset or 0) + (tensor.length or 0)
            if not path.is_file():
                message = f"{name}: the weights of {value.name!r} are in {path.name!r}, which is missing; put it beside the model"
                raise ModelError(message, code="model-external")
            if path.stat().st_size < needed:
                message = f"{name}: {path.name!r} is cut short (weights of {value.name!r}); copy it again"
                raise ModelError(message, code="model-external")


# -- the view ------------------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def _schema(domain: str, op: str, version: int) -> tuple[Any, tuple[str, ...], dict[str, Any]] | None:
    try:
        schema = onnx.defs.get_schema(op, version, domain)
    except onnx.defs.SchemaError:
        return None
    defaults = {}
    for key, attribute in schema.attributes.items():
        if attribute.default_value.type:
            value = onnx.helper.get_attribute_value(attribute.default_value)
            defaults[key] = value.decode() if isinstance(value, bytes) else value
    return schema, tuple(p.name for p in schema.inputs), defaults


def _names(values: Sequence[ir.Value | None]) -> tuple[str, ...]:
    return tuple(v.name or "" if v is not None else "" for v in values)


def _captured(node: ir.Node) -> tuple[str, ...]:
    """Names of outer tensors that the node's bodies read."""
    found = []
    for attribute in node.attributes.values():
        bodies = {ir.AttributeType.GRAPH: [attribute.value], ir.AttributeType.GRAPHS: attribute.value}
        for body in bodies.get(attribute.type, []):
            inner = {v.name for n in body.all_nodes() for v in n.outputs} | {v.name for v in body.inputs}
            inner |= set(body.initializers)
            found += [
                v.name for n in body.all_nodes() for v in n.inputs if v is not None and v.name not in inner
            ]
            found += [v.name for v in body.outputs if v.name not in inner]
    return tuple(dict.fromkeys(n for n in found if n))


def _view(model: ir.Model, name: str, given: Mapping[str, Sequence[int]], constants: frozenset[str]) -> Graph:
    notes: list[str] = []
    first = _bind_inputs(model, name, given, notes, grow=False)
    pass_one = _infer(model, name, first)
    second = _bind_inputs(model, name, given, [], grow=True)
    pass_two = pass_one if second == first else _infer(model, name, second)
    static, dynamic = {}, {}
    for key, value in pass_one.known.items():
        other = pass_two.known.get(key)
        same = other is not None and other.shape == value.shape
        static[key] = (other == value) if same else np.zeros(value.shape, bool)
    for key, shape in pass_one.shapes.items():
        other_shape = pass_two.shapes.get(key)
        if (
            shape is not None
            and other_shape is not None
            and shape != other_shape
            and len(shape) == len(other_shape)
        ):
            dynamic[key] = frozenset(
                i for i, (a, b) in enumerate(zip(shape, other_shape, strict=True)) if a != b
            )
    initializers = model.graph.initializers
    known = {k: v for k, v in pass_one.known.items() if k in initializers or static[k].any()}
    parameters = {
        key: Parameter(key, tuple(int(d) for d in v.const_value.shape), v.const_value.dtype.name)
        for key, v in initializers.items()
        if v.const_value is not None and v.const_value.dtype.is_floating_point()
    }
    graph = Graph(
        model=model,
        nodes=(),
        inputs=_names(model.graph.inputs),
        outputs=_names(model.graph.outputs),
        shapes=pass_one.shapes,
        parameters=parameters,
        constants=constants & parameters.keys(),
        known=known,
        static=static,
        dynamic=dynamic,
        derived=frozenset(pass_one.derived & known.keys()),
        fingerprint=_fingerprint(model),
        source=name,
        notes=tuple(notes),
    )
    return replace(graph, nodes=tuple(_nodes(model, graph, pass_one.floats)))


def _nodes(model: ir.Model, graph: Graph, floats: set[str]) -> Iterator[Node]:
    """The nodes that the outputs depend on, settled arithmetic on shapes left out: its results are constants."""
    settled = {key: key in graph.derived for key in graph.known if graph.static[key].all()}
    needed, kept = set(graph.outputs), []
    for node in reversed(model.graph):
        outputs = [o for o in _names(node.outputs) if o]
        if needed.isdisjoint(outputs) or all(settled.get(o) for o in outputs):
            continue
        kept.append(node)
        needed.update(n for n in (*_names(node.inputs), *_captured(node)) if not settled.get(n))
    for node in reversed(kept):
        version = node.version or model.opset_imports.get(node.domain, 0)
        entry = _schema(node.domain, node.op_type, version)
        attributes = dict(entry[2]) if entry else {}
        attributes.update({k: a.value for k, a in node.attributes.items()})
        inputs, outputs = _names(node.inputs), _names(node.outputs)
        yield Node(
            type=node.op_type,
            domain=node.domain,
            version=version,
            name=node.name or "",
            inputs=inputs,
            outputs=outputs,
            attributes=attributes,
            formal=entry[1] if entry else (),
            in_shapes=tuple(graph.shapes.get(i) if i else None for i in inputs),
            out_shapes=tuple(graph.shapes.get(o) if o else None for o in outputs),
            known=tuple(graph.known.get(i) if i else None for i in inputs),
            captured=_captured(node),
            counted=any(o in floats and o not in settled for o in outputs),
        )


def _bind_inputs(
    model: ir.Model, name: str, given: Mapping[str, Sequence[int]], notes: list[str], *, grow: bool
) -> dict[str, Shape]:
    """A size for every dynamic dimension: as given, else 1 for the first axis and a guess for the others."""
    unknown = set(given) - {v.name for v in model.graph.inputs}
    if unknown:
        names = ", ".join(v.name or "" for v in model.graph.inputs)
        message = f"{name}: there is no input {sorted(unknown)[0]!r}; the inputs are {names}"
        raise ModelError(message, code="model-input")
    sizes: dict[str, int] = {}
    bound = {}
    for value in model.graph.inputs:
        if value.name in model.graph.initializers:
            continue
        shape = list(value.shape) if value.shape is not None else []
        want = given.get(value.name or "")
        if want is not None and len(want) != len(shape):
            message = f"{name}: input {value.name!r} has {len(shape)} axes, the given shape has {len(want)}"
            raise ModelError(message, code="model-input")
        dims = []
        for axis, dim in enumerate(shape):
            if isinstance(dim, int):
                dims.append(dim)
                continue
            key = str(dim.value) if dim.value is not None else f"{value.name}.{axis}"
            if want is not None:
                sizes.setdefault(key, int(want[axis]))
            elif key not in sizes:
                sizes[key] = 1 if axis == 0 else 224 if len(shape) >= 4 else 16
                if axis:
                    notes.append(
                        f"input {value.name!r}, axis {axis} ({key}) is dynamic: costs are for {sizes[key]}"
                    )
            dims.append(sizes[key] + (0 if not grow else 1 if axis == 0 else 32))
        bound[value.name or ""] = tuple(dims)
    return bound


@dataclass
class _Inferred:
    shapes: dict[str, Shape | None]
    known: dict[str, Known]
    floats: set[str]
    derived: set[str]


def _infer(model: ir.Model, name: str, inputs: Mapping[str, Shape]) -> _Inferred:
    """Shapes of all tensors, and values of integer tensors, for one choice of input sizes."""
    types: dict[str, onnx.TypeProto] = {}
    found = _Inferred({}, {}, set(), set())
    protos: dict[str, onnx.TensorProto] = {}

    def record(key: str, kind: onnx.TypeProto) -> None:
        types[key] = kind
        tensor = kind.tensor_type
        dims = tensor.shape.dim if kind.HasField("tensor_type") and tensor.HasField("shape") else None
        known = dims is not None and all(d.HasField("dim_value") for d in dims)
        found.shapes[key] = tuple(d.dim_value for d in dims) if known and dims is not None else None
        if ir.DataType(tensor.elem_type).is_floating_point():
            found.floats.add(key)

    for value in model.graph.inputs:
        if value.name in inputs and value.dtype is not None:
            record(value.name, onnx.helper.make_tensor_type_proto(int(value.dtype), inputs[value.name]))
    for key, value in model.graph.initializers.items():
        tensor = value.const_value
        if tensor is None:
            raise ModelError(f"{name}: initializer {key!r} has no value", code="model-initializer")
        shape = [int(d) for d in tensor.shape]
        record(key, onnx.helper.make_tensor_type_proto(int(tensor.dtype), shape))
        if not tensor.dtype.is_floating_point() or tensor.size <= 1:
            found.known[key] = tensor.numpy()
        elif tensor.size <= 16:  # e.g. the scales of a Resize: a shape depends on them
            protos[key] = onnx.numpy_helper.from_array(tensor.numpy(), key)
    for node in model.graph:
        version = node.version or model.opset_imports.get(node.domain, 0)
        entry = _schema(node.domain, node.op_type, version)
        outputs = [o for o in _names(node.outputs) if o]
        settled = _settle(node, found)
        if settled is not None:
            from_shape = node.op_type in _SHAPE_READERS or any(
                n in found.derived for n in _names(node.inputs)
            )
            for key, array in zip(outputs, settled, strict=False):
                found.known[key] = array
                if from_shape:
                    found.derived.add(key)
                record(key, onnx.helper.make_tensor_type_proto(_dtype(array), array.shape))
            continue
        proto = ir.to_proto(node)
        needed = [i for i in proto.input if i] + list(_captured(node))
        for key in needed:
            if key in found.known and key not in protos and found.known[key].size <= SMALL:
                protos[key] = onnx.numpy_helper.from_array(found.known[key], key)
        result: Mapping[str, onnx.TypeProto] = {}
        if entry is not None and all(key in types for key in needed):
            opsets = [onnx.helper.make_opsetid(d, v) for d, v in model.opset_imports.items()]
            try:
                result = onnx.shape_inference.infer_node_outputs(
                    entry[0],
                    proto,
                    {k: types[k] for k in needed},
                    {k: protos[k] for k in needed if k in protos},
                    None,
                    opsets,
                )
            except Exception as e:
                shapes = ", ".join(f"{k} {found.shapes.get(k)}" for k in needed)
                reason = " ".join(str(e).split())[:160]
                message = (
                    f"{name}: node {node.name!r} ({node.op_type}) does not fit its inputs {shapes}: {reason}"
                )
                raise ModelError(message, code="model-shape") from None
        for value in node.outputs:
            if value.name:
                declared = (
                    ir.serde.serialize_value(value).type if value.type is not None else onnx.TypeProto()
                )
                record(value.name, result.get(value.name, declared))
    return found


def _dtype(array: Known) -> int:
    return int(onnx.helper.np_dtype_to_tensor_dtype(array.dtype))


_SHAPE_READERS = ("Shape", "Size")  # the two ops that read a shape and not a value


def _settle(node: ir.Node, found: _Inferred) -> list[Known] | None:
    """The values of a node's outputs where they follow from shapes and integer constants."""
    if node.domain not in ("", "ai.onnx"):
        return None
    names = [n for n in _names(node.inputs) if n]
    if node.op_type in _SHAPE_READERS:
        shape = found.shapes.get(names[0])
        if shape is None:
            return None
        if node.op_type == "Size":
            return [np.array(int(np.prod(shape)), np.int64)]
        start, end = node.attributes.get_int("start", 0), node.attributes.get_int("end", len(shape))
        return [np.array(shape, np.int64)[start:end]]
    if not names or not all(n in found.known and found.known[n].size <= SMALL for n in names):
        return None
    return evaluate(node, [found.known[n] if n else None for n in _names(node.inputs)])


def _fingerprint(model: ir.Model) -> str:
    """A hash of the ops, their wiring and the parameters' shapes; weights do not enter it."""
    digest = hashlib.sha256()
    for node in model.graph:
        digest.update(
            f"{node.domain}:{node.op_type}({','.join(_names(node.inputs))})->{_names(node.outputs)};".encode()
        )
    for key in sorted(model.graph.initializers):
        tensor = model.graph.initializers[key].const_value
        digest.update(f"{key}:{tuple(tensor.shape) if tensor is not None else ''};".encode())
    return digest.hexdigest()[:16]


# -- writing -------------------------------------------------------------------------------------


def save(model: ir.Model, path: str | os.PathLike[str]) -> None:
    """Write a model whole or not at all: to a temporary name in the same folder, then renamed.

    Models over 1.5 GB keep their weights in ``<name>.data`` beside them.

    Raises:
        OutputError: the folder is missing or cannot be written.
    """
    target = Path(path)
    size = sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value is not None)
    try:
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".onnxmorph-") as folder:
            whole = Path(folder) / target.name
            weights = f"{target.name}.data" if size > 1_500_000_000 else None
            ir.save(model, whole, external_data=weights)
            if weights:
                os.replace(Path(folder) / weights, target.parent / weights)
            os.replace(whole, target)
    except OSError as e:
        raise OutputError(
            f"{target}: cannot be written ({e.strerror}); choose another place", code="output"
        ) from None


def write_text(text: str, path: str | os.PathLike[str]) -> None:
    """Write a text file whole or not at all. Raises OutputError as `save` does."""
    target = Path(path)
    try:
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".onnxmorph-") as folder:
            whole = Path(folder) / target.name
            whole.write_text(text, encoding="utf-8")
            os.replace(whole, target)
    except OSError as e:
        raise OutputError(
            f"{target}: cannot be written ({e.strerror}); choose another place", code="output"
        ) from None
