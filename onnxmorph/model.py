"""The one place that knows ONNX files: reading, the read-only view that analysis sees, and writing.

Shapes are inferred node by node without touching a weight. Integer arithmetic on shapes is evaluated on the
way, so a shape computed in the graph is as good as a constant one. Where the model has dynamic dimensions,
everything is inferred twice at different sizes: what agrees is static, what differs is dynamic.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import onnx
import onnx_ir as ir
from onnx_ir.passes import common as passes

from onnxmorph.checks import (
    check_bodies,
    check_equations,
    check_extent,
    check_functions,
    check_tensors,
    check_values,
    check_versions,
)
from onnxmorph.errors import ModelError, OutputError
from onnxmorph.external import place_external
from onnxmorph.files import check_output, free_name, scratch, weights_beside
from onnxmorph.graph import Graph, Parameter, Shape, holds_data
from onnxmorph.infer import GUESS, names_of, root_cause
from onnxmorph.scopes import lift_weights, make_unique, settle_outputs
from onnxmorph.sparse import dense
from onnxmorph.states import drop_zero_states
from onnxmorph.view import infer_twice, nodes_of, static_entries, take_branches
from onnxmorph.weights import load_attributes, stay_beside

SAMPLED = "how often it runs its body is not known: that is counted once"
GROWTH = 60  # of a dynamic first axis, from 1 to a prime: few sizes of a network are multiples of that

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
    check_versions(model, name)
    check_extent(model, name)
    check_tensors(model, name)
    check_functions(model, name)
    settle_outputs(model)
    _apply(passes.InlinePass(), model, name, "model-functions")  # functions in the place of their calls
    # A value that a caller could replace is a weight all the same; before IR 4 every initializer had to be an input.
    _apply(passes.RemoveInitializersFromInputsPass(), model, name)
    model.ir_version = max(model.ir_version or 0, 4)
    make_unique(model)
    constants = frozenset(v.name or "" for n in model.graph.all_nodes() if n.op_type == "Constant" for v in n.outputs)
    _apply(passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0), model, name)
    lift_weights(model)
    drop_zero_states(model, constants)
    _apply(passes.RemoveUnusedNodesPass(), model, name)
    try:
        model.graph.sort()
    except ValueError as e:
        raise ModelError(f"{name}: the graph has a cycle ({e}); export it again", code="model-cycle") from None
    check_equations(model, name)
    check_values(model, name)
    check_bodies(model, name)
    return _view(model, name, shapes or {}, constants)


def _read(source: Source) -> tuple[ir.Model, str]:
    if isinstance(source, ir.Model):
        try:
            return source.clone(), "model"
        except RuntimeError as e:  # a value that is read before it is written
            message = f"model: not a readable ONNX model ({root_cause(e)}); sort its nodes, or export it again"
            raise ModelError(message, code="model-unreadable") from None
    proto = isinstance(source, onnx.ModelProto)
    path = Path("model" if isinstance(source, onnx.ModelProto) else source)
    if not proto and not path.is_file():
        raise ModelError(f"{path}: there is no such file", code="model-missing")
    try:
        whole = source if isinstance(source, onnx.ModelProto) else onnx.load(path, load_external_data=False)
        model = ir.from_proto(dense(whole, str(path)))
        if not proto:
            place_external(model, path)
    except (MemoryError, ModelError):
        raise
    except Exception as e:  # protobuf, IR and I/O errors share no base class
        message = f"{path}: not a readable ONNX model ({root_cause(e)}); export or copy it again"
        raise ModelError(message, code="model-unreadable") from None
    if not len(model.graph) or not model.graph.outputs:
        raise ModelError(f"{path}: not an ONNX model, or an empty one", code="model-empty")
    return model, str(path)


def _apply(step: ir.passes.InPlacePass, model: ir.Model, name: str, code: str = "model-unreadable") -> None:
    """Rewrite the model by a pass of onnx-ir, whose errors share no base class."""
    try:
        step(model)
    except MemoryError:
        raise
    except Exception as e:  # an attribute of another type, an opset of its own, a graph as an attribute
        advice = "without functions" if code == "model-functions" else "again"
        raise ModelError(f"{name}: the model cannot be read ({root_cause(e)}); export it {advice}", code=code) from None


# -- the view ------------------------------------------------------------------------------------


def _view(model: ir.Model, name: str, given: Mapping[str, Sequence[int]], constants: frozenset[str]) -> Graph:
    notes: list[str] = []
    first = _bind_inputs(model, name, given, notes, grow=False)
    second = _bind_inputs(model, name, given, [], grow=True)
    one, two = infer_twice(model, name, first, second)
    while take_branches(model, one, static := static_entries(model, one, two)):
        passes.RemoveUnusedNodesPass()(model)
        one, two = infer_twice(model, name, first, second)
    dynamic = {}
    for key, shape in one.shapes.items():
        other = two.shapes.get(key)
        if shape is not None and other is not None and shape != other and len(shape) == len(other):
            dynamic[key] = frozenset(i for i, (a, b) in enumerate(zip(shape, other, strict=True)) if a != b)
    if one.guessed:
        notes.append(f"the data decide how large {next(iter(one.guessed))!r} is: costs are for {GUESS} positions")
    initializers = model.graph.initializers
    known = {k: v for k, v in one.known.items() if k in initializers or static[k].any()}
    parameters, sums = (
        {
            key: Parameter(key, tuple(v.const_value.shape.numpy()), v.const_value.dtype.name)
            for key, v in initializers.items()
            if v.const_value is not None and wanted(v.const_value.dtype)
        }
        for wanted in (holds_data, lambda dtype: dtype == ir.DataType.INT32)
    )
    for node in one.sampled:
        notes.append(f"node {node.name or node.outputs[0].name!r} ({node.op_type}): {SAMPLED}")
    graph = Graph(
        model=model,
        nodes=(),
        inputs=names_of(model.graph.inputs),
        outputs=names_of(model.graph.outputs),
        shapes={k: shape if _alike(shape, two.shapes.get(k)) else None for k, shape in one.shapes.items()},
        dtypes=one.dtypes,
        parameters=parameters,
        sums=sums,
        constants=constants & (parameters.keys() | sums.keys()),
        known=known,
        static=static,
        dynamic=dynamic,
        derived=frozenset(one.derived & known.keys()),
        fingerprint=_fingerprint(model),
        source=name,
        notes=tuple(notes),
    )
    return replace(graph, nodes=tuple(nodes_of(graph, one, two)))


def _alike(a: Shape | None, b: Shape | None) -> bool:
    """Whether both are known and have one rank."""
    return a is not None and b is not None and len(a) == len(b)


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
        want = given.get(value.name or "")
        if value.shape is None and want is None and isinstance(value.type, ir.TensorType):
            message = f"{name}: input {value.name!r} has no shape; give one, e.g. --shape {value.name}:1,3,224,224"
            raise ModelError(message, code="model-input")
        shape = list(value.shape) if value.shape is not None else [ir.SymbolicDim(None)] * len(want or ())
        if want is not None and len(want) != len(shape):
            message = f"{name}: input {value.name!r} has {len(shape)} axes, the given shape has {len(want)}"
            raise ModelError(message, code="model-input")
        dims = []
        for axis, dim in enumerate(shape):
            if isinstance(dim, int) and dim >= 0:
                if want is not None and want[axis] != dim:
                    message = f"{name}: input {value.name!r} has the fixed size {dim} on axis {axis}, not {want[axis]}"
                    raise ModelError(message, code="model-input")
                dims.append(dim)
                continue
            free = dim.value if isinstance(dim, ir.SymbolicDim) else None  # older exporters write -1 for dynamic
            key = str(free) if free is not None else f"{value.name}.{axis}"
            if want is not None:
                sizes.setdefault(key, int(want[axis]))
            elif key not in sizes:
                sizes[key] = 1 if axis == 0 else 224 if len(shape) >= 4 else 16
                if axis:
                    notes.append(f"input {value.name!r}, axis {axis} ({key}) is dynamic: costs are for {sizes[key]}")
            dims.append(sizes[key] + (0 if not grow else GROWTH if axis == 0 else 32))
        bound[value.name or ""] = tuple(dims)
    return bound


def _fingerprint(model: ir.Model) -> str:
    """A hash of the ops, their wiring and the parameters' shapes; weights do not enter it."""
    digest = hashlib.sha256()
    for node in model.graph.all_nodes():
        digest.update(
            f"{node.domain}:{node.op_type}({','.join(names_of(node.inputs))})->{names_of(node.outputs)};".encode()
        )
    for key in sorted(model.graph.initializers):
        tensor = model.graph.initializers[key].const_value
        digest.update(f"{key}:{tuple(tensor.shape) if tensor is not None else ''};".encode())
    return digest.hexdigest()[:16]


# -- writing -------------------------------------------------------------------------------------


def save(model: ir.Model, path: str | os.PathLike[str]) -> None:
    """Write a model whole or not at all: under another name, then renamed.

    Models over 1.5 GB keep their weights in ``<name>.data`` beside them, written tensor by tensor; of a model that was
    read with its weights in a file, those over 50 MB do. Where that is taken, they are in ``<name>.2.data`` and so on:
    what stands is never mixed with what is new. Files so named that no longer count are removed.

    Raises:
        OutputError: the folder is missing or cannot be written.
    """
    target = check_output(path)
    apart = stay_beside(model)
    try:
        with scratch(target.parent) as folder:
            weights = free_name(target) if apart else None
            load_attributes(model)
            if weights is None:  # whatever still lies in files beside the source
                ir.external_data.load_to_model(model)
            ir.save(model, folder / target.name, external_data=weights)
            if weights:
                os.replace(folder / weights, target.parent / weights)
            os.replace(folder / target.name, target)  # until here the old model stands, and the weights that it reads
            for old in weights_beside(target):
                if old.name != weights:
                    old.unlink()
    except ir.serde.SerdeError as e:
        raise OutputError(
            f"{target}: cannot be written ({root_cause(e)}); export the model again", code="output"
        ) from None
    except OSError as e:
        raise OutputError(
            f"{target}: cannot be written ({e.strerror or e}); choose another place", code="output"
        ) from None


def copy(source: Source, path: str | os.PathLike[str]) -> None:
    """Write a model as it is, its weights along with it. Raises ModelError and, as `save`, OutputError."""
    save(_read(source)[0], path)


def files_of(graph: Graph) -> tuple[Path, ...]:
    """The files beside the model that hold its weights."""
    tensors = (v.const_value for v in graph.model.graph.initializers.values())
    return tuple({Path(t.path): None for t in tensors if isinstance(t, ir.ExternalTensor)})
