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
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes import common as passes

from onnxmorph.checks import check_functions, check_tensors, check_values, check_versions
from onnxmorph.errors import ModelError, OutputError
from onnxmorph.graph import Graph, Node, Parameter, Shape
from onnxmorph.infer import captured_by, infer, names_of, root_cause, schema_of

SINGLE_FILE = 1_500_000_000  # bytes of weights; a protobuf ends at 2 GB

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
    check_tensors(model, name)
    check_functions(model, name)
    model = passes.InlinePass()(model).model
    constants = frozenset(v.name or "" for n in model.graph if n.op_type == "Constant" for v in n.outputs)
    lift = passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)
    model = passes.RemoveUnusedNodesPass()(lift(model).model).model
    try:
        model.graph.sort()
    except ValueError as e:
        raise ModelError(f"{name}: the graph has a cycle ({e}); export it again", code="model-cycle") from None
    check_values(model, name)
    return _view(model, name, shapes or {}, constants)


def _read(source: Source) -> tuple[ir.Model, str]:
    if isinstance(source, ir.Model):
        return source.clone(), "model"
    proto = isinstance(source, onnx.ModelProto)
    path = Path("model" if isinstance(source, onnx.ModelProto) else source)
    if not proto and not path.is_file():
        raise ModelError(f"{path}: there is no such file", code="model-missing")
    try:
        # An absolute path names the folder beyond which onnx-ir reads no weights.
        model = ir.from_proto(source) if isinstance(source, onnx.ModelProto) else ir.load(path.absolute())
    except MemoryError:
        raise
    except Exception as e:  # protobuf, IR and I/O errors share no base class
        message = f"{path}: not a readable ONNX model ({root_cause(e)}); export or copy it again"
        raise ModelError(message, code="model-unreadable") from None
    if not len(model.graph) or not model.graph.outputs:
        raise ModelError(f"{path}: not an ONNX model, or an empty one", code="model-empty")
    return model, str(path)


# -- the view ------------------------------------------------------------------------------------


def _view(model: ir.Model, name: str, given: Mapping[str, Sequence[int]], constants: frozenset[str]) -> Graph:
    notes: list[str] = []
    first = _bind_inputs(model, name, given, notes, grow=False)
    pass_one = infer(model, name, first)
    second = _bind_inputs(model, name, given, [], grow=True)
    pass_two = pass_one if second == first else infer(model, name, second)
    static, dynamic = {}, {}
    for key, value in pass_one.known.items():
        other = pass_two.known.get(key)
        same = other is not None and other.shape == value.shape
        static[key] = np.asarray(other == value) if same else np.zeros(value.shape, bool)
    for key, shape in pass_one.shapes.items():
        other_shape = pass_two.shapes.get(key)
        if shape is not None and other_shape is not None and shape != other_shape and len(shape) == len(other_shape):
            dynamic[key] = frozenset(i for i, (a, b) in enumerate(zip(shape, other_shape, strict=True)) if a != b)
    initializers = model.graph.initializers
    known = {k: v for k, v in pass_one.known.items() if k in initializers or static[k].any()}
    parameters = {
        key: Parameter(key, tuple(v.const_value.shape.numpy()), v.const_value.dtype.name)
        for key, v in initializers.items()
        if v.const_value is not None and v.const_value.dtype.is_floating_point()
    }
    graph = Graph(
        model=model,
        nodes=(),
        inputs=names_of(model.graph.inputs),
        outputs=names_of(model.graph.outputs),
        shapes=pass_one.shapes,
        kinds=pass_one.kinds,
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
    return replace(graph, nodes=tuple(_nodes(model, graph)))


def _nodes(model: ir.Model, graph: Graph) -> Iterator[Node]:
    """The nodes that the outputs depend on, settled arithmetic on shapes left out: its results are constants."""
    settled = {key: key in graph.derived for key in graph.known if graph.static[key].all()}
    needed, kept = set(graph.outputs), []
    for node in reversed(model.graph):
        written = [o for o in names_of(node.outputs) if o]
        if needed.isdisjoint(written) or all(settled.get(o) for o in written):
            continue
        kept.append(node)
        needed.update(n for n in (*names_of(node.inputs), *captured_by(node)) if not settled.get(n))
    for node in reversed(kept):
        version = node.version or model.opset_imports.get(node.domain, 0)
        entry = schema_of(node.domain, node.op_type, version)
        attributes = dict(entry[2]) if entry else {}
        attributes.update({k: a.value for k, a in node.attributes.items()})
        inputs, outputs = names_of(node.inputs), names_of(node.outputs)
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
            known=tuple(graph.known[i] if i in graph.known and graph.static[i].all() else None for i in inputs),
            partial=tuple(graph.known.get(i) if i else None for i in inputs),
            captured=captured_by(node),
            counted=any(o not in settled and graph.kinds[o].is_floating_point() for o in outputs if o in graph.kinds),
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
            dims.append(sizes[key] + (0 if not grow else 16 if axis == 0 else 32))
        bound[value.name or ""] = tuple(dims)
    return bound


def _fingerprint(model: ir.Model) -> str:
    """A hash of the ops, their wiring and the parameters' shapes; weights do not enter it."""
    digest = hashlib.sha256()
    for node in model.graph:
        digest.update(
            f"{node.domain}:{node.op_type}({','.join(names_of(node.inputs))})->{names_of(node.outputs)};".encode()
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
    target = check_output(path)
    size = sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value is not None)
    try:
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".onnxmorph-") as folder:
            whole = Path(folder) / target.name
            weights = f"{target.name}.data" if size > SINGLE_FILE else None
            if weights is None:  # whatever still lies in files beside the source
                ir.external_data.load_to_model(model)
            ir.save(model, whole, external_data=weights)
            if weights:
                os.replace(Path(folder) / weights, target.parent / weights)
            os.replace(whole, target)
    except ir.serde.SerdeError as e:
        raise OutputError(
            f"{target}: cannot be written ({root_cause(e)}); export the model again", code="output"
        ) from None
    except OSError as e:
        raise OutputError(f"{target}: cannot be written ({e.strerror}); choose another place", code="output") from None


def check_output(path: str | os.PathLike[str]) -> Path:
    """Where a result will stand, links followed. Raises OutputError if nothing can be written there."""
    target = Path(path).resolve()
    reason = ""
    if target.exists() and not target.is_file():  # a folder, or a device, which a rename would replace
        reason = "it is no regular file"
    elif not target.parent.is_dir():
        reason = f"there is no folder {target.parent}"
    elif not os.access(target.parent, os.W_OK):
        reason = f"the folder {target.parent} is read-only"
    if reason:
        raise OutputError(f"{path}: cannot be written ({reason}); choose another place", code="output")
    return target


def files_of(graph: Graph) -> tuple[Path, ...]:
    """The files beside the model that hold its weights."""
    tensors = (v.const_value for v in graph.model.graph.initializers.values())
    return tuple({Path(t.path): None for t in tensors if isinstance(t, ir.ExternalTensor)})


def write_text(text: str, path: str | os.PathLike[str]) -> None:
    """Write a text file whole or not at all. Raises OutputError as `save` does."""
    target = check_output(path)
    try:
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".onnxmorph-") as folder:
            whole = Path(folder) / target.name
            whole.write_text(text, encoding="utf-8")
            os.replace(whole, target)
    except OSError as e:
        raise OutputError(f"{target}: cannot be written ({e.strerror}); choose another place", code="output") from None
