"""Costs in bytes against a count that knows nothing of them: every node run by itself, loops iteration by iteration."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from exported import exported
from onnxmorph.analysis import Analysis, analyze
from onnxmorph.memory import Peak
from onnxmorph.polynomial import Polynomial
from onnxmorph.surgery.emit import emit
from onnxmorph.surgery.verify import random_inputs
from quantised_nets import quantised
from tiny import convnet, integer, mlp, model, node, value, weight

VIEWS = {
    "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout", "Cast", "QuantizeLinear", "DequantizeLinear",
}  # fmt: skip
BYTES = ("param_bytes", "activation_bytes", "bytes_moved", "peak_memory")
PICKS = {"Gather", "Slice"}  # read no more than they write


@dataclass(eq=False)
class Buffer:
    """What is held from tick `start` to tick `end`: ``count`` numbers of ``each`` bytes.

    ``reads`` are the bytes in which its numbers are read, where what stands in the file or is given is not at stake.
    """

    count: int
    each: int
    start: int
    end: int
    given: bool = False
    reads: set[int] = field(default_factory=set)

    @property
    def size(self) -> int:
        return self.count * (self.each if self.given else min(self.each, max(self.reads, default=self.each)))


@dataclass(frozen=True)
class Tensor:
    """An array, where it is held, and the narrowest type that its numbers passed on the way from there."""

    array: Any
    buffer: Buffer
    narrow: int
    data: bool = True


@dataclass
class Count:
    """Runs a model node by node, a loop iteration by iteration, and counts what it moves and holds."""

    proto: onnx.ModelProto
    feeds: Mapping[str, Any]
    tick: int = 0
    written: list[Buffer] = field(default_factory=list)
    moved: list[tuple[int, Buffer]] = field(default_factory=list)  # numbers, and where they are held
    held: list[Buffer] = field(default_factory=list)

    def run(self) -> dict[str, int]:
        graph = self.proto.graph
        given = {n: self.hold(a, given=True) for n, a in self.feeds.items()}
        found = self.follow(graph, given)
        for out in graph.output:
            self.read(found[out.name]).end = self.tick
        counts = (
            sum(b.size for b in self.written),
            sum(n * b.size // b.count for n, b in self.moved),
            max(sum(b.size for b in self.held if b.start <= t <= b.end) for t in range(1, self.tick + 1)),
        )
        return dict(zip(("activation_bytes", "bytes_moved", "peak_memory"), counts, strict=True))

    def hold(self, array: Any, given: bool = False) -> Tensor:
        data = array.dtype not in (np.int64, np.bool_)  # sizes and indices are none
        buffer = Buffer(array.size, array.itemsize if data else 0, self.tick, self.tick, given)
        self.held.append(buffer)
        return Tensor(array, buffer, array.itemsize, data)

    def read(self, tensor: Tensor) -> Buffer:
        tensor.buffer.reads.add(tensor.narrow)
        tensor.buffer.end = max(tensor.buffer.end, self.tick)
        return tensor.buffer

    def follow(self, graph: onnx.GraphProto, known: Mapping[str, Tensor]) -> dict[str, Tensor]:
        found = dict(known)
        for name, array in ((t.name, numpy_helper.to_array(t)) for t in graph.initializer):
            data = array.ndim > 0 and array.dtype not in (np.int64, np.bool_)
            found[name] = Tensor(array, Buffer(array.size, array.itemsize, 0, 0, given=True), array.itemsize, data)
        for each in graph.node:
            (self.loop if each.op_type == "Loop" else self.step)(each, found)
        return found

    def step(self, of: onnx.NodeProto, found: dict[str, Tensor]) -> None:
        results = run_alone(of, {n: found[n].array for n in of.input if n}, self.proto)
        self.tick += 1
        read = {n: found[n] for n in of.input if n}
        if of.op_type == "Constant":
            found[of.output[0]] = Tensor(results[0], Buffer(0, 0, 0, 0), 0, data=False)
        elif of.op_type == "Shape":
            found[of.output[0]] = self.hold(results[0])
        elif of.op_type in VIEWS and found[of.input[0]].data:
            source = found[of.input[0]]
            source.buffer.end = max(source.buffer.end, self.tick)
            found[of.output[0]] = Tensor(results[0], source.buffer, min(source.narrow, results[0].itemsize))
        else:
            news = [self.hold(array) for array in results]
            found.update(zip(of.output, news, strict=True))
            buffers = [(t, self.read(t)) for t in read.values()]
            if any(t.data for t in news):
                first = news[0].array.size if of.op_type in PICKS else 0
                self.moved += [(first or b.count, b) for t, b in buffers[:1] if t.data]
                self.moved += [(b.count, b) for t, b in buffers[1:] if t.data]
                self.moved += [(t.buffer.count, t.buffer) for t in news]
                self.written += [t.buffer for t in news]

    def loop(self, of: onnx.NodeProto, found: dict[str, Tensor]) -> None:
        """States have memory of their own; what is read from outside stays until the end; results stack up in place."""
        body = of.attribute[0].g
        times, states = int(found[of.input[0]].array), [found[n] for n in of.input[2:]]
        self.tick += 1
        started, now = self.tick, [self.hold(s.array) for s in states]
        stacks: list[list[Any]] = [[] for _ in body.output[1 + len(states) :]]
        for i in range(times):
            count = [Tensor(np.asarray(v), Buffer(0, 0, 0, 0), 0, data=False) for v in (np.int64(i), np.bool_(True))]
            inside = dict(zip((v.name for v in body.input), [*count, *now], strict=True))
            after = self.follow(body, {**found, **inside})
            results = [after[v.name] for v in body.output[1:]]
            self.tick += 1
            for r in results:
                self.read(r)
            now = results[: len(states)]
            for stack, r in zip(stacks, results[len(states) :], strict=True):
                stack.append(r.array)
        for tensor in (*states, *(found[n] for n in set(names_in(body)) if n in found)):
            self.read(tensor)
        found.update(zip(of.output, now, strict=False))
        for name, stack in zip(of.output[len(states) :], stacks, strict=True):
            found[name] = self.hold(np.stack(stack))
            found[name].buffer.start = started


def names_in(graph: onnx.GraphProto) -> Iterator[str]:
    """All names that a body and the bodies in it read."""
    for each in graph.node:
        yield from each.input
        for attribute in each.attribute:
            yield from names_in(attribute.g)


def run_alone(of: onnx.NodeProto, feeds: Mapping[str, Any], proto: onnx.ModelProto) -> Sequence[Any]:
    """One node in ONNX Runtime."""
    ends = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape) for n, a in feeds.items()
    ]
    graph = helper.make_graph([of], "alone", ends, [onnx.ValueInfoProto(name=n) for n in of.output])
    alone = helper.make_model(graph, opset_imports=proto.opset_import, ir_version=proto.ir_version)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(alone.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, dict(feeds))


def counted_by_running(analysis: Analysis) -> dict[str, int]:
    feeds = random_inputs(analysis.graph, np.random.default_rng(0))
    return Count(ir.to_proto(analysis.graph.model), feeds).run()


def in_type(proto: onnx.ModelProto, kind: Any) -> onnx.ModelProto:
    """The model with its floats in another type, from entry to end."""
    result = onnx.ModelProto()
    result.CopyFrom(proto)
    graph, of = result.graph, helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    for each in graph.initializer:
        array = numpy_helper.to_array(each)
        if array.dtype == np.float32:
            each.CopyFrom(numpy_helper.from_array(array.astype(kind), each.name))
    for each in (*graph.input, *graph.output):
        each.type.tensor_type.elem_type = of
    del graph.value_info[:]
    return result


def two_loops() -> onnx.ModelProto:
    """A loop in a loop and one behind it. What the outer reads from outside is read early; a state is read again."""
    again = [node("Identity", "goes", "goes_on")]
    flags = [value("i", [], TensorProto.INT64), value("goes", [], TensorProto.BOOL)]
    inner_flags = [value("j", [], TensorProto.INT64), value("on", [], TensorProto.BOOL)]
    h, s = value("h", [2, 8]), value("s", [2, 8])
    inner = helper.make_graph(
        [node("Identity", "on", "on_2"), node("Add", "s wide", "grown"), node("Tanh", "grown", "s_2")],
        "inner",
        [*inner_flags, s],
        [value("on_2", [], TensorProto.BOOL), value("s_2", [2, 8]), value("grown", [2, 8])],
    )
    outer = helper.make_graph(
        [
            *again,
            node("MatMul", "h w", "wide"),
            node("Add", "wide early", "u"),
            node("Loop", "three true u", "v stack", body=inner),
            node("ReduceSum", "stack zero", "sum", keepdims=0),
            node("Add", "sum v", "h_2"),
        ],
        "outer",
        [*flags, h],
        [value("goes_on", [], TensorProto.BOOL), value("h_2", [2, 8]), value("v", [2, 8])],
    )
    last = helper.make_graph(
        [node("Identity", "on", "on_2"), node("Mul", "s late", "p"), node("Relu", "p", "s_2")],
        "last",
        [*inner_flags, s],
        [value("on_2", [], TensorProto.BOOL), value("s_2", [2, 8])],
    )
    nodes = [
        node("MatMul", "x first", "start"),
        node("Relu", "start", "early"),
        node("Loop", "two true start", "end rows", body=outer),
        node("ReduceMax", "rows zero", "late", keepdims=0),
        node("Loop", "three true end", "done", body=last),
        node("Add", "done start", "sum_up"),
        node("MatMul", "sum_up head", "y"),
    ]
    weights = [weight("first", 4, 8), weight("w", 8, 8), weight("head", 8, 3), integer("two", 2), integer("three", 3)]
    true = numpy_helper.from_array(np.array(True), "true")
    zero = numpy_helper.from_array(np.array([0], np.int64), "zero")
    return model(nodes, [*weights, true, zero], [value("x", [2, 4])], [value("y", [2, 3])], opset=20)


def converted() -> onnx.ModelProto:
    """Narrow inside: one tensor is read converted only, one both ways, one goes up and down again."""
    nodes = [
        node("MatMul", "x a", "h"),
        node("Cast", "h", "half", to=TensorProto.FLOAT16),
        node("Relu", "half", "r"),
        node("Cast", "r", "back", to=TensorProto.FLOAT),
        node("Sigmoid", "back", "s"),
        node("Cast", "s", "s_half", to=TensorProto.FLOAT16),
        node("Add", "s_half r", "t"),
        node("Cast", "t", "u", to=TensorProto.FLOAT),
        node("Mul", "s u", "v"),
        node("MatMul", "v b", "y"),
    ]
    weights = [weight("a", 4, 8), weight("b", 8, 3)]
    return model(nodes, weights, [value("x", [2, 4])], [value("y", [2, 3])], opset=20)


NETWORKS = {
    **{
        name: lambda name=name: exported(name).model
        for name in ("resnet", "densenet", "unet", "mobilenet_v2", "squeeze_excite", "shufflenet_v2", "vit")
    },
    **{
        f"quantised {scheme}": lambda scheme=scheme: quantised("convolutions", scheme)
        for scheme in ("qdq_tensor", "qdq_channel", "operators_channel")
    },
    "half": lambda: in_type(convnet(), np.float16),
    "converted": converted,
    "loops": two_loops,
}


@pytest.mark.parametrize("name", NETWORKS)
def test_bytes_are_those_of_a_count_node_by_node(name: str) -> None:
    analysis = analyze(NETWORKS[name]())
    wanted = counted_by_running(analysis)
    found = analysis.count()
    assert {n: found[n] for n in wanted} == wanted


# -- laws ----------------------------------------------------------------------------------------


def derivative(values: Sequence[int]) -> Fraction:
    """Of a polynomial at 0, from its values at 0, 1, 2 … (as many as its degree and one more): Newton's series."""
    rows = [np.array(values, dtype=object)]
    while len(rows[-1]) > 1:
        rows.append(np.diff(rows[-1]))
    return sum((Fraction(int(row[0]) * (-1) ** (k + 1), k) for k, row in enumerate(rows) if k), Fraction(0))


def powers(cost: Polynomial | Peak) -> int:
    """A bound on its degree."""
    whole = cost.bytes.whole if isinstance(cost, Peak) else cost
    return whole.variables.shape[1]


@pytest.mark.parametrize("name", ["resnet", "densenet", "vit", "quantised qdq_channel", "half", "loops"])
def test_gradients_are_the_differences(name: str) -> None:
    analysis = analyze(NETWORKS[name]())
    rng, compared = np.random.default_rng(0), Counter[str]()
    for g in rng.permutation(len(analysis.groups))[:6]:
        widths = rng.integers(1, 2 * analysis.widths + 1)
        for kind, cost in analysis.costs.items():
            near = [widths + k * np.eye(len(widths), dtype=np.int64)[g] for k in range(powers(cost) + 1)]
            if isinstance(cost, Peak) and len({cost.step(at) for at in near}) > 1:
                continue  # the peak moves to another op
            compared[kind] += 1
            found = derivative([cost.value(at) for at in near])
            assert found == cost.gradient(widths)[g], (kind, analysis.groups[g].id)
    assert all(compared[kind] for kind in analysis.costs)


def fullest(cost: Peak, widths: Any) -> list[int]:
    """All steps at which most is alive."""
    alive = cost.alive(widths)
    return np.flatnonzero(alive == alive.max()).tolist()


def test_a_step_alone_at_the_peak_tells_what_the_next_channel_takes() -> None:
    analysis = analyze(mlp(hidden=8))
    cost, widths = analysis.memory, analysis.widths
    (step,) = fullest(cost, widths)
    assert analysis.plans[step].node.type == "Relu"
    assert dict(cost.live_set(widths)) == {"h": 8 * 4, "r": 8 * 4}
    assert cost.gradient(widths).tolist() == [2 * 4] == [cost.value(widths + 1) - cost.value(widths)]
    narrow = np.array([2])  # here the input is larger than what is made of it
    assert dict(cost.live_set(narrow)) == {"x": 4 * 4, "h": 2 * 4}
    assert cost.gradient(narrow).tolist() == [4]


@pytest.mark.parametrize(("kind", "halves"), [(np.float16, 1), (np.float64, 4)])
def test_bytes_follow_the_type(kind: Any, halves: int) -> None:
    plain, other = (analyze(m).count() for m in (convnet(), in_type(convnet(), kind)))
    for name, number in plain.items():
        assert other[name] * 2 == number * (halves if name in BYTES else 2), name


def test_four_bits_are_half_a_byte_in_the_file_and_where_they_are_read() -> None:
    packed = helper.make_tensor("a", TensorProto.INT4, [4, 6], np.arange(24) % 7)
    nodes = [node("DequantizeLinear", "a scale", "w"), node("MatMul", "x w", "h"), node("MatMul", "h b", "y")]
    weights = [packed, weight("scale"), weight("b", 6, 3)]
    analysis = analyze(model(nodes, weights, [value("x", [2, 4])], [value("y", [2, 3])], opset=21))
    first = {name: costs[1].value(analysis.widths) for name, costs in analysis.op_costs.items()}
    assert analysis.costs["param_bytes"].value(analysis.widths) == 24 // 2 + 18 * 4
    assert first["bytes_moved"] == 2 * 4 * 4 + 24 // 2 + 2 * 6 * 4
    assert analysis.costs["param_bytes"].gradient(analysis.widths).tolist() == [4 / 2 + 3 * 4]


def test_a_lookup_reads_the_rows_that_it_picks() -> None:
    nodes = [node("Gather", "table ids", "rows"), node("MatMul", "rows b", "y")]
    ids = [value("ids", [5], TensorProto.INT64)]
    analysis = analyze(model(nodes, [weight("table", 1000, 8), weight("b", 8, 3)], ids, [value("y", [5, 3])]))
    assert analysis.op_costs["bytes_moved"][0].value(analysis.widths) == 5 * 8 + 2 * 5 * 8 * 4
    assert analysis.op_costs["param_bytes"][0].value(analysis.widths) == 1000 * 8 * 4


def test_branches_count_both_and_what_they_give_is_held() -> None:
    def branch(name: str, op: str) -> onnx.GraphProto:
        return helper.make_graph([node(op, "h", name)], name, [], [value(name, [2, 8])])

    nodes = [
        node("MatMul", "x a", "h"),
        node("If", "flag", "o", then_branch=branch("p", "Relu"), else_branch=branch("q", "Tanh")),
        node("MatMul", "o b", "y"),
    ]
    inputs = [value("x", [2, 4]), value("flag", [], TensorProto.BOOL)]
    analysis = analyze(model(nodes, [weight("a", 4, 8), weight("b", 8, 3)], inputs, [value("y", [2, 3])]))
    assert dict(analysis.memory.live_set(analysis.widths)) == {"h": 64, "p": 64, "q": 64, "flag": 1}


@pytest.mark.parametrize(
    ("inside", "alive"),
    [
        (["Concat h h h h", "Relu", "MatMul narrow", "Add h"], {"start", "h", "t0", "t1"}),
        (["Relu", "Add h"], {"start", "t1", "cat"}),
    ],
    ids=["in the body", "behind it"],
)
def test_a_state_is_held_beside_the_one_that_it_starts_from(inside: list[str], alive: set[str]) -> None:
    """Each op of the body reads what the one before wrote, or the state, and what else is named."""
    steps, last = [node("Identity", "goes", "goes_on")], "h"
    for i, text in enumerate(inside):
        op, *others = text.split()
        attributes = {"axis": 1} if op == "Concat" else {}
        steps.append(node(op, " ".join(others if op == "Concat" else [last, *others]), f"t{i}", **attributes))
        last = f"t{i}"
    flags = [value("i", [], TensorProto.INT64), value("goes", [], TensorProto.BOOL), value("h", [2, 8])]
    body = helper.make_graph(steps, "body", flags, [value("goes_on", [], TensorProto.BOOL), value(last, [2, 8])])
    nodes = [
        node("MatMul", "x first", "start"),
        node("Loop", "three true start", "end", body=body),
        node("Concat", "end start start", "cat", axis=1),
        node("MatMul", "cat head", "y"),
    ]
    weights = [weight("first", 4, 8), weight("narrow", 32, 8), weight("head", 24, 3), integer("three", 3)]
    weights += [numpy_helper.from_array(np.array(True), "true")]
    analysis = analyze(model(nodes, weights, [value("x", [2, 4])], [value("y", [2, 3])]))
    assert {name for name, _ in analysis.memory.live_set(analysis.widths)} == alive
    wanted, found = counted_by_running(analysis), analysis.count()
    assert {n: found[n] for n in wanted} == wanted


def test_a_network_without_ops_holds_its_inputs() -> None:
    proto = model([node("Identity", "x", "y")], [], [value("x", [2, 4])], [value("y", [2, 4])])
    assert analyze(proto).count()["peak_memory"] == 32
    shape = analyze(model([node("Shape", "x", "y")], [], [value("x", [2, 4])], [value("y", [2], TensorProto.INT64)]))
    assert not shape.plans and shape.count()["peak_memory"] == 32
    unread = model([node("Identity", "c", "y")], [weight("c", 2, 3)], [value("x", [2, 4])], [value("y", [2, 3])])
    assert analyze(unread).count()["peak_memory"] == 32


@pytest.mark.parametrize("name", ["quantised qdq_tensor", "half", "converted", "loops"])
def test_predicted_is_what_is_counted_by_running(name: str) -> None:
    analysis = analyze(NETWORKS[name]())
    copies = np.ones(analysis.channels + 1, np.int64)
    for g in analysis.groups:
        copies[g.start + 1 : g.start + 1 + g.width // 2] = 0
    widths = np.array([copies[g.start + 1 : g.start + 1 + g.width].sum() for g in analysis.groups])
    assert len(widths)
    found, wanted = analysis.count(widths), counted_by_running(analyze(emit(analysis, copies)))
    assert {n: found[n] for n in wanted} == wanted
