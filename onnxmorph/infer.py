"""Shapes of all tensors and values of integer tensors, node by node, without touching a weight.

Bodies are gone through like the rest; the body of a loop until the shapes of its states no longer change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, reduce
from math import prod
from typing import Any, NoReturn

import numpy as np
import onnx
import onnx_ir as ir

from onnxmorph.arithmetic import LARGEST, evaluate
from onnxmorph.bodies import Frame, bodies_of, frame_of
from onnxmorph.errors import ModelError, RuleError
from onnxmorph.graph import Known, Node, Shape, holds_data, read
from onnxmorph.kinds import guess_sizes, meet, shapeless, with_axis, without_axis, without_negatives
from onnxmorph.notation import result_shapes
from onnxmorph.progress import told
from onnxmorph.rules import TABLE, Schema

MOST_ELEMENTS = 1 << 48  # of one tensor
GUESS = 17  # positions where the data decide how many there are; a prime, so that nothing divides it by accident
MOST_TIMES = 1 << 31  # iterations that are counted; exporters write the largest integer for "as long as it takes"
MOST_PASSES = 3  # over a body, before the shapes of all its states are given up
MOST_LOOPS = 3  # around a body; in more, the shapes of states are given up at once: each pass repeats those inside


@lru_cache(maxsize=4096)
def schema_of(domain: str, op: str, version: int) -> tuple[Any, tuple[str, ...], Mapping[str, Any]]:
    """The schema of an op, the names of its inputs and the defaults of its attributes.

    The schema is onnx's; else the one that our rule carries; else None.
    """
    try:
        schema = onnx.defs.get_schema(op, version, domain)
    except (onnx.defs.SchemaError, TypeError):  # or a version that is no 32-bit number, a name that is no text
        rule = TABLE.get(("" if domain == "ai.onnx" else domain, op))
        known = rule.schema if rule is not None else None
        return (known, known.inputs, known.defaults) if known is not None else (None, (), {})
    defaults = {}
    for key, attribute in schema.attributes.items():
        if attribute.default_value.type:
            value = onnx.helper.get_attribute_value(attribute.default_value)
            defaults[key] = value.decode() if isinstance(value, bytes) else value
    return schema, tuple(p.name for p in schema.inputs), defaults


def root_cause(e: BaseException) -> str:
    """What went wrong, in one line: what onnx-ir was doing meanwhile says less."""
    while isinstance(e.__cause__, (ValueError, ir.serde.SerdeError)):
        e = e.__cause__
    return " ".join(str(e).split())[:200] or type(e).__name__


def names_of(values: Sequence[ir.Value | None]) -> tuple[str, ...]:
    """The names of tensors; "" for one that is absent."""
    return tuple(v.name or "" if v is not None else "" for v in values)


def captured_by(node: ir.Node) -> tuple[str, ...]:
    """Names of outer tensors that the node's bodies read."""
    found = []
    for body in bodies_of(node):
        inner = {v.name for n in body.all_nodes() for v in n.outputs}
        inner |= {v.name for each in (body, *body.subgraphs()) for v in (*each.inputs, *each.initializers.values())}
        found += [v.name for n in body.all_nodes() for v in n.inputs if v is not None and v.name not in inner]
        found += [v.name for v in body.outputs if v.name not in inner]
    return tuple(dict.fromkeys(n for n in found if n))


def as_node(
    model: ir.Model,
    node: ir.Node,
    shapes: Mapping[str, Shape | None],
    known: Mapping[str, Known],
    inputs: Sequence[str] | None = None,
    outputs: Sequence[str] | None = None,
) -> Node:
    """A node as the rules see it, with the given tensors instead of its own where it has bodies."""
    version = version_of(node, model)
    _, formal, defaults = schema_of(node.domain, node.op_type, version)
    reads = tuple(names_of(node.inputs) if inputs is None else inputs)
    writes = tuple(names_of(node.outputs) if outputs is None else outputs)
    return Node(
        type=node.op_type,
        domain=node.domain,
        version=version,
        name=node.name or "",
        inputs=reads,
        outputs=writes,
        attributes={**defaults, **{k: a.value for k, a in node.attributes.items()}},
        formal=formal,
        in_shapes=tuple(shapes.get(i) if i else None for i in reads),
        out_shapes=tuple(shapes.get(o) if o else None for o in writes),
        known=tuple(known.get(i) if i else None for i in reads),
        partial=tuple(known.get(i) if i else None for i in reads),
    )


@dataclass
class Inferred:
    """What is known of every tensor of the model and its bodies.

    Shapes and types, known values, which tensors hold data, and which values derive from shapes. ``short`` are
    floating-point constants of a few elements, which may be weights or values. ``moved`` are the known values whose
    entries are those of shapes and constants, only moved. ``guessed`` are tensors with sizes that depend on the data,
    in the order of the graph, and all that is computed from them. ``times`` says how often the body of a node runs,
    and ``sampled`` where that is only a sample.
    """

    shapes: dict[str, Shape | None] = field(default_factory=dict)
    known: dict[str, Known] = field(default_factory=dict)
    short: dict[str, Known] = field(default_factory=dict)
    guessed: dict[str, None] = field(default_factory=dict)
    dtypes: dict[str, ir.DataType] = field(default_factory=dict)
    data: set[str] = field(default_factory=set)
    derived: set[str] = field(default_factory=set)
    moved: set[str] = field(default_factory=set)
    times: dict[ir.Node, int] = field(default_factory=dict)
    sampled: dict[ir.Node, None] = field(default_factory=dict)


def infer(
    model: ir.Model, name: str, inputs: Mapping[str, Shape], times: int | None = 1, guess: int = GUESS
) -> Inferred:
    """Shapes of all tensors, and values of integer tensors, for one choice of input sizes.

    Where the data decide how many positions an axis has (the ones that are not zero, the boxes that are left), there
    are `guess` of them. ``times`` is taken for the iterations of a loop where they are not known before running; with
    None, a size that depends on them is unknown.
    """
    inference = _Inference(model, name, times, guess)
    inference.inputs(inputs)
    inference.graph(model.graph)
    return inference.found


class _Inference:
    """One pass over the model."""

    def __init__(self, model: ir.Model, name: str, times: int | None, guess: int) -> None:
        self.model, self.name, self.times, self.guess = model, name, times, guess
        self.found = Inferred()
        self.types: dict[str, onnx.TypeProto] = {}
        self.protos: dict[str, onnx.TensorProto] = {}
        self.opsets = [onnx.helper.make_opsetid(d, v) for d, v in model.opset_imports.items()]
        self.depth = 0  # of loops

    def record(self, key: str, kind: onnx.TypeProto) -> None:
        kind = self.types[key] = without_negatives(kind)
        tensor = kind.tensor_type
        dims = tensor.shape.dim if kind.HasField("tensor_type") and tensor.HasField("shape") else None
        known = dims is not None and all(d.HasField("dim_value") for d in dims)
        shape = self.found.shapes[key] = tuple(d.dim_value for d in dims) if known and dims is not None else None
        if shape is not None and prod(shape) > MOST_ELEMENTS:
            size = "×".join(map(str, shape))
            message = f"{self.name}: tensor {key!r} has the size {size}, more than any machine holds; check the shapes"
            raise ModelError(message, code="model-size")
        dtype = self.found.dtypes[key] = ir.DataType(tensor.elem_type)
        if holds_data(dtype):
            self.found.data.add(key)

    def forget(self, key: str) -> None:
        """What an earlier pass over a body found."""
        for table in (self.types, self.protos, self.found.shapes, self.found.known):
            table.pop(key, None)
        self.found.derived.discard(key)
        self.found.moved.discard(key)

    def inputs(self, given: Mapping[str, Shape]) -> None:
        """Graph inputs and initializers."""
        for value in self.model.graph.inputs:
            shape = given.get(value.name or "")
            if isinstance(value.type, ir.TensorType) and shape is not None:
                self.record(value.name or "", onnx.helper.make_tensor_type_proto(int(value.type.dtype), shape))
            elif value.type is not None and value.name not in self.model.graph.initializers:  # a sequence has none
                self.record(value.name or "", ir.serde.serialize_value(value).type)
        for key, value in self.model.graph.initializers.items():
            tensor = value.const_value
            if tensor is None:
                raise ModelError(f"{self.name}: initializer {key!r} has no value", code="model-initializer")
            self.record(key, onnx.helper.make_tensor_type_proto(int(tensor.dtype), list(tensor.shape.numpy())))
            if tensor.dtype == ir.DataType.STRING:
                continue
            if not holds_data(tensor.dtype) or not tensor.shape.rank():  # no cut makes a number of a longer one
                self.found.known[key] = read(tensor, key)
                self.found.moved.add(key)
            elif tensor.size <= 16:  # e.g. the scales of a Resize: a shape depends on them
                self.found.short[key] = read(tensor, key)
                self.protos[key] = onnx.numpy_helper.from_array(self.found.short[key], key)

    def graph(self, graph: ir.Graph) -> None:
        """The nodes of a graph, in order."""
        whole = graph is self.model.graph  # not a body
        for node in told("Inferring shapes", list(graph)) if whole else graph:
            for value in node.outputs:
                self.forget(value.name or "")
            if any(n in self.found.guessed for n in (*names_of(node.inputs), *captured_by(node))):
                self.found.guessed.update(dict.fromkeys(n for n in names_of(node.outputs) if n))
            frame = frame_of(node, version_of(node, self.model))
            if frame is not None:
                self.enter(node, frame)
            elif not self.settle(node):
                self.infer(node)

    # -- one node ----------------------------------------------------------------------------------

    def settle(self, node: ir.Node) -> bool:
        """Evaluate a node whose outputs follow from shapes and constants; False where they do not."""
        values = _settle(node, self.found)
        if values is None:
            return False
        names = [n for n in names_of(node.inputs) if n]
        reads_shape = node.op_type in _SHAPE_READERS
        outputs = [o for o in names_of(node.outputs) if o]
        for key, array in zip(outputs, values, strict=False):
            self.found.known[key] = array
            if reads_shape or any(n in self.found.derived for n in names):
                self.found.derived.add(key)
            if reads_shape or (node.op_type in _MOVERS and all(n in self.found.moved for n in names)):
                self.found.moved.add(key)
            self.record(key, onnx.helper.make_tensor_type_proto(_dtype(array), array.shape))
        return True

    def infer(self, node: ir.Node) -> None:
        """The types of a node's outputs, from ONNX's own inference for this op, else as the file declares them."""
        schema, _, _ = schema_of(node.domain, node.op_type, version_of(node, self.model))
        try:
            proto = ir.serde.serialize_node(node)
        except ir.serde.SerdeError as e:
            message = f"{self.name}: node {node.name!r} is not readable ({root_cause(e)}); export or copy it again"
            raise ModelError(message, code="model-unreadable") from None
        found, needed = self.found, [i for i in proto.input if i] + list(captured_by(node))
        for key in needed:
            if key in found.known and key not in self.protos and found.known[key].size <= LARGEST:
                self.protos[key] = onnx.numpy_helper.from_array(found.known[key], key)
        result: Mapping[str, onnx.TypeProto] = {}
        known_to_onnx = schema is not None and not isinstance(schema, Schema) and not schema.deprecated
        if known_to_onnx and all(_typed(self.types.get(k)) for k in needed):
            types = {k: self.types[k] for k in needed}
            known = {k: self.protos[k] for k in needed if k in self.protos}
            try:
                result = self.outputs(node, schema, proto, types, known)
            except Exception as e:
                shapes = ", ".join(f"{k} {found.shapes.get(k)}" for k in needed)
                self.misfit(node, f"its inputs {shapes}: {' '.join(str(e).split())[:160]}")
        elif isinstance(schema, Schema):
            result = self.by_rule(node, schema)
        for value in node.outputs:
            if value.name:
                declared = ir.serde.serialize_value(value).type if value.type is not None else onnx.TypeProto()
                kind = result.get(value.name, declared)
                if value.name in result and guess_sizes(kind, self.guess):
                    found.guessed[value.name] = None
                self.record(value.name, self.types.get(needed[0], kind) if node.op_type in _LIKE_INPUT else kind)
                if found.dtypes[value.name] == ir.DataType.INT32 and any(_narrow(found, k) for k in needed):
                    found.data.add(value.name)  # a sum of products of narrow integers

    def by_rule(self, node: ir.Node, schema: Schema) -> Mapping[str, onnx.TypeProto]:
        """The types of the outputs of an op that onnx does not know: its rule's equation gives the shapes."""
        found, seen = self.found, as_node(self.model, node, self.found.shapes, self.found.known)
        spec = TABLE["" if node.domain == "ai.onnx" else node.domain, node.op_type].bind(seen)
        shapes: Sequence[Shape | None] = ()
        if not spec.refuse:
            try:
                shapes = result_shapes(spec.equation, seen.in_shapes, spec.sizes, str(seen))
            except RuleError:  # analysis says so where it fixes the node
                shapes = ()
        result = {}
        for j, name in enumerate(seen.outputs):
            kinds = schema.like[min(j, len(schema.like) - 1)]
            given = [found.dtypes.get(seen.inputs[k]) for k in kinds if isinstance(k, int) and k < len(seen.inputs)]
            dtype = next((d for d in (*given, *kinds) if isinstance(d, ir.DataType)), None)
            if name and dtype is not None:
                result[name] = onnx.helper.make_tensor_type_proto(int(dtype), shapes[j] if j < len(shapes) else None)
        return result

    def outputs(
        self,
        node: ir.Node,
        schema: onnx.defs.OpSchema,
        proto: onnx.NodeProto,
        types: dict[str, onnx.TypeProto],
        known: dict[str, onnx.TensorProto],
    ) -> Mapping[str, onnx.TypeProto]:
        """The types of a node's outputs; once more without shapes where a guessed size does not fit."""
        try:
            return onnx.shape_inference.infer_node_outputs(schema, proto, types, known, None, self.opsets)
        except Exception:
            if all(o not in self.found.guessed for o in names_of(node.outputs)):
                raise
            bare = {k: shapeless(kind) for k, kind in types.items()}
            return onnx.shape_inference.infer_node_outputs(schema, proto, bare, None, None, self.opsets)

    def misfit(self, node: ir.Node, what: str) -> NoReturn:
        message = f"{self.name}: node {node.name!r} ({node.op_type}) does not fit {what}"
        raise ModelError(message, code="model-shape") from None

    # -- a node with bodies ------------------------------------------------------------------------

    def type_of(self, value: ir.Value) -> onnx.TypeProto:
        return self.types.get(value.name or "", onnx.TypeProto())

    def enter(self, node: ir.Node, frame: Frame) -> None:
        """Infer inside the bodies, until the shapes of states are the same before and after an iteration."""
        for strip in frame.taken:
            kind = without_axis(self.type_of(strip.whole), strip.axis)
            if kind is None:
                self.misfit(node, f"its input {strip.whole.name!r}, which has no axis {strip.axis}")
            self.record(strip.part.name or "", kind)
        self.scalars(frame)
        kinds = [self.type_of(s.before) for s in frame.states]
        deep = self.depth >= MOST_LOOPS
        for again in range(MOST_PASSES + 1):
            if deep or again == MOST_PASSES:
                kinds = [shapeless(kind) for kind in kinds]
            for state, kind in zip(frame.states, kinds, strict=True):
                self.record(state.inside.name or "", kind)
            self.depth += not frame.choices
            self.bodies(frame)
            self.depth -= not frame.choices
            after = [meet(kind, self.type_of(s.after)) for s, kind in zip(frame.states, kinds, strict=True)]
            if after == kinds:
                break
            kinds = after
        self.leave(node, frame)

    def scalars(self, frame: Frame) -> None:
        """The number of the iteration, and the condition: true wherever the body runs."""
        condition, inside = frame.goes_on[:2] if frame.goes_on else (None, None)
        for value, kind in ((frame.count, onnx.TensorProto.INT64), (inside, onnx.TensorProto.BOOL)):
            if value is not None:
                declared = value.shape.numpy() if value.shape is not None and value.shape.is_static() else ()
                self.record(value.name or "", onnx.helper.make_tensor_type_proto(kind, declared))
        shape = self.found.shapes.get(inside.name or "") if inside is not None else None
        if inside is not None and condition is not None and prod(shape or ()) <= LARGEST:
            self.found.known[inside.name or ""] = np.ones(shape or (), bool)
            self.found.moved.add(inside.name or "")

    def bodies(self, frame: Frame) -> None:
        """A branch that does not fit is no error while another does: exporters guard one with the other."""
        errors = []
        taken = self.taken(frame)
        for i, body in enumerate(frame.bodies):
            try:
                self.graph(body)
            except ModelError as e:
                if e.code != "model-shape" or not frame.choices or taken == i:
                    raise
                errors.append(e)
                for value in (v for n in body.all_nodes() for v in n.outputs):
                    self.forget(value.name or "")
        if frame.bodies and len(errors) == len(frame.bodies):
            raise errors[0]

    def taken(self, frame: Frame) -> int | None:
        """The branch that runs, where that is known."""
        condition = self.found.known.get(frame.decides[0].name or "") if frame.choices and frame.decides else None
        return None if condition is None or condition.size != 1 else int(not condition.item())

    def leave(self, node: ir.Node, frame: Frame) -> None:
        """The types of the node's outputs."""
        taken = self.taken(frame)
        for choice in frame.choices:
            kinds = [self.type_of(v) for v in choice.branches]
            self.record(choice.outside.name or "", reduce(meet, kinds) if taken is None else kinds[taken])
        for state in frame.states:
            self.record(state.outside.name or "", meet(self.type_of(state.before), self.type_of(state.inside)))
        if frame.choices:
            return
        times = self.iterations(node, frame)
        self.found.times[node] = 1 if times is None else times
        for strip in frame.stacked:
            kind = with_axis(self.type_of(strip.part), strip.axis, times)
            if kind is None:
                self.misfit(node, f"its output {strip.whole.name!r}, which has no axis {strip.axis}")
            self.record(strip.whole.name or "", kind)

    def iterations(self, node: ir.Node, frame: Frame) -> int | None:
        """How often a body runs; a sample where that is not known, and noted as one."""
        found = self.found
        for strip in frame.taken:
            shape = found.shapes.get(strip.whole.name or "")
            if shape is not None:
                return shape[strip.axis]
        if frame.goes_on is not None:
            condition, _, after = frame.goes_on
            first, then, most = (found.known.get(v.name or "") if v else None for v in (condition, after, frame.limit))
            if first is not None and not first.all():
                return 0
            goes_on = condition is None or (then is not None and then.all())
            if goes_on and most is not None and most.size == 1 and most.item() <= MOST_TIMES:
                return max(int(most.item()), 0)
        found.sampled[node] = None
        return self.times


def version_of(node: ir.Node, model: ir.Model) -> int:
    """The opset that a node belongs to."""
    return node.version or model.opset_imports.get(node.domain, 0)


def _narrow(found: Inferred, key: str) -> bool:
    """Whether a tensor holds data that are integers."""
    return key in found.data and not found.dtypes[key].is_floating_point()


def _typed(kind: onnx.TypeProto | None) -> bool:
    """Whether a type is known; behind an op that no schema covers it is not."""
    if kind is None or kind.WhichOneof("value") is None:
        return False
    return not kind.HasField("tensor_type") or kind.tensor_type.elem_type != onnx.TensorProto.UNDEFINED


def _dtype(array: Known) -> int:
    return int(onnx.helper.np_dtype_to_tensor_dtype(array.dtype))


# For these onnx infers nothing, or fails where an attribute has its default: the result is like the first input.
_LIKE_INPUT = ("GroupNormalization", "MeanVarianceNormalization")
_SHAPE_READERS = ("Shape", "Size")  # the two ops that read a shape and not a value
_MOVERS = ("Concat", "Expand", "Gather", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze")


def _settle(node: ir.Node, found: Inferred) -> list[Known] | None:
    """The values of a node's outputs where they follow from shapes and integer constants."""
    if node.domain not in ("", "ai.onnx"):
        return None
    names = [n for n in names_of(node.inputs) if n]
    if node.op_type in _SHAPE_READERS:
        shape = found.shapes.get(names[0])
        if shape is None:
            return None
        if node.op_type == "Size":
            return [np.array(int(np.prod(shape)), np.int64)]
        start, end = node.attributes.get_int("start", 0), node.attributes.get_int("end", len(shape))
        return [np.array(shape, np.int64)[start:end]]
    if not names or not all(n in found.known and found.known[n].size <= LARGEST for n in names):
        return None
    return evaluate(node, [found.known[n] if n else None for n in names_of(node.inputs)])
