"""Bodies: branches, loops and scans, written by hand and as PyTorch exports them; functions of the model."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch._higher_order_ops.scan import scan
from torch._higher_order_ops.while_loop import while_loop

from structures.registry import graph, module
from tiny import Shape, integer, model, node, value, weight

BOOL, INT = TensorProto.BOOL, TensorProto.INT64
FLAG = value("flag", [], BOOL)
X = value("x", ["n", 4])
TIME = value("x", [5, "n", 4])


def body(
    nodes: Sequence[onnx.NodeProto],
    outputs: Sequence[onnx.ValueInfoProto],
    inputs: Sequence[onnx.ValueInfoProto] = (),
    weights: Sequence[TensorProto] = (),
) -> onnx.GraphProto:
    return helper.make_graph(list(nodes), "body", list(inputs), list(outputs), list(weights))


def branch(nodes: Sequence[onnx.NodeProto], output: str, *weights: TensorProto, shape: Shape = ()) -> onnx.GraphProto:
    return body(nodes, [value(output, shape or ["n", 8])], weights=weights)


def truth(name: str, true: bool = True) -> TensorProto:
    return numpy_helper.from_array(np.array(true), name)


TWO_BRANCHES = {
    "then_branch": branch([node("MatMul", "h a", "t"), node("Relu", "t", "o")], "o", weight("a", 8, 8)),
    "else_branch": branch(
        [node("MatMul", "h shared", "t"), node("Tanh", "t", "u"), node("MatMul", "u a", "o")],
        "o",
        weight("a", 6, 8, seed=1),
    ),
}
ENDS = [weight("first", 4, 8, seed=2), weight("shared", 8, 6, seed=3), weight("last", 8, 3, seed=4)]


@graph("if_two_branches", widths=[6, 8, 8])
def if_two_branches() -> onnx.ModelProto:
    """Both read a weight outside, and have weights of one name inside; what they give is cut alike."""
    nodes = [
        node("MatMul", "x first", "h"),
        node("If", "flag", "z", "choice", **TWO_BRANCHES),
        node("MatMul", "h shared", "s"),
        node("ReduceMean", "s", "m", axes=[1]),
        node("MatMul", "z last", "k"),
        node("Add", "k m", "y"),
    ]
    return model(nodes, ENDS, [X, FLAG])


@graph("if_constant", widths=[6, 8, 8])
def if_constant() -> onnx.ModelProto:
    """The branch that is not taken goes, and its weights with it."""
    nodes = [
        node("Constant", "", "flag", value=truth("", False)),
        node("MatMul", "x first", "h"),
        node("If", "flag", "z", "choice", **TWO_BRANCHES),
        node("MatMul", "z last", "y"),
    ]
    return model(nodes, ENDS, [X])


@graph("if_shape", widths=[8, 8])
def if_shape() -> onnx.ModelProto:
    """A condition on a size that is static, found beside one that is not."""
    nodes = [
        node("MatMul", "x first", "h"),
        node("Shape", "h", "s"),
        node("Gather", "s one", "c"),
        node("Greater", "c four", "flag"),
        node("If", "flag", "z", "choice", **TWO_BRANCHES),
        node("MatMul", "z last", "y"),
    ]
    return model(nodes, [*ENDS, integer("one", 1), integer("four", 4)], [X])


@graph("if_dynamic_size", widths=[6, 8, 8])
def if_dynamic_size() -> onnx.ModelProto:
    """A condition on a size that is dynamic stays, whatever it comes to at the sizes that are tried."""
    nodes = [
        node("MatMul", "x first", "h"),
        node("Shape", "h", "s"),
        node("Gather", "s none", "c"),
        node("Greater", "c many", "flag"),
        node("If", "flag", "z", "choice", **TWO_BRANCHES),
        node("MatMul", "z last", "y"),
    ]
    return model(nodes, [*ENDS, integer("none", 0), integer("many", 1000)], [X])


@graph("if_nested", widths=[5, 6, 8, 8])
def if_nested() -> onnx.ModelProto:
    inner = node("If", "other", "o", "inner", **TWO_BRANCHES)
    outer = {
        "then_branch": branch([node("Abs", "h", "h2"), inner], "o"),
        "else_branch": branch(
            [node("MatMul", "x a", "t"), node("Relu", "t", "r"), node("MatMul", "r b", "h")],  # a name from outside
            "h",
            weight("a", 4, 5),
            weight("b", 5, 8),
        ),
    }
    nodes = [
        node("MatMul", "x first", "h"),
        node("If", "flag", "z", "outer", **outer),
        node("MatMul", "z last", "y"),
    ]
    return model(nodes, ENDS, [X, FLAG, value("other", [], BOOL)])


@graph("if_two_shapes", widths=[6], removable=0.1, stays="body-shape")
def if_two_shapes() -> onnx.ModelProto:
    """Branches of different widths: what they give cannot be cut; what is inside one of them can."""
    branches = {
        "then_branch": branch([node("MatMul", "x a", "o")], "o", weight("a", 4, 8), shape=["n", 8]),
        "else_branch": branch(
            [node("MatMul", "x a", "t"), node("Relu", "t", "r"), node("MatMul", "r b", "o")],
            "o",
            weight("a", 4, 6),
            weight("b", 6, 10),
            shape=["n", 10],
        ),
    }
    nodes = [node("If", "flag", "z", "choice", **branches), node("ReduceMean", "z", "y", axes=[1])]
    return model(nodes, [], [X, FLAG], [value("y", ["n", 1])])


# -- loops ---------------------------------------------------------------------------------------

STEP = [value("i", [], INT), value("on", [], BOOL), value("h", ["n", 8])]
GOES_ON = node("Identity", "on", "still")
AGAIN = value("still", [], BOOL)
CELL = [node("MatMul", "h w", "u"), node("Add", "u v", "s"), node("Tanh", "s", "next")]
RNN = [weight("into", 4, 8), weight("w", 8, 8, seed=1), weight("out", 8, 3, seed=2)]
START = node("MatMul", "x into", "start")
LAST = node("MatMul", "end out", "y")


@graph("loop_rnn", widths=[7, 8])
def loop_rnn() -> onnx.ModelProto:
    """A cell over its own state: weights outside, and a hidden layer with weights inside."""
    hidden = [
        node("MatMul", "h a", "p"),
        node("Relu", "p", "q"),
        node("MatMul", "q b", "v"),
    ]
    inside = body(
        [GOES_ON, *hidden, *CELL],
        [AGAIN, value("next", ["n", 8])],
        STEP,
        [weight("a", 8, 7, seed=3), weight("b", 7, 8, seed=4)],
    )
    nodes = [START, node("Loop", "times true start", "end", "loop", body=inside), LAST]
    return model(nodes, [*RNN, integer("times", 3), truth("true")], [X])


@graph("loop_scan_outputs", widths=[7, 8])
def loop_scan_outputs() -> onnx.ModelProto:
    """What every iteration writes is stacked, and mixed afterwards."""
    inside = body(
        [GOES_ON, node("MatMul", "x into", "v"), *CELL, node("MatMul", "next a", "each")],
        [AGAIN, value("next", ["n", 8]), value("each", ["n", 7])],
        STEP,
        [weight("a", 8, 7, seed=3)],
    )
    nodes = [
        START,
        node("Loop", "times true start", "end all", "loop", body=inside),
        node("ReduceSum", "all axes", "total", keepdims=0),
        node("MatMul", "total mix", "y"),
    ]
    weights = [*RNN[:2], weight("mix", 7, 3), integer("times", 3), truth("true")]
    return model(nodes, [*weights, numpy_helper.from_array(np.array([0]), "axes")], [X])


@graph("loop_dynamic", widths=[7, 8])
def loop_dynamic() -> onnx.ModelProto:
    """Neither the number of iterations nor the condition is known; a shape is read inside."""
    inside = body(
        [
            node("MatMul", "x into", "v"),
            *CELL,
            node("MatMul", "next a", "each"),
            node("Shape", "each", "sizes"),
            node("Reshape", "each sizes", "same"),
            node("ReduceSum", "x", "sum", keepdims=0),
            node("Less", "sum much", "still"),
        ],
        [AGAIN, value("next", ["n", 8]), value("same", ["n", 7])],
        STEP,
        [weight("a", 8, 7, seed=3), numpy_helper.from_array(np.array(1e6, np.float32), "much")],
    )
    nodes = [
        START,
        node("Loop", "times flag start", "end all", "loop", body=inside),
        node("MatMul", "all mix", "m"),
        node("MatMul", "end out", "e"),
        node("Add", "m e", "y"),
    ]
    inputs = [X, value("times", [], INT), FLAG]
    return model(nodes, [*RNN, weight("mix", 7, 3)], inputs, [value("y", [None, "n", 3])])


@graph("loop_condition", widths=[1, 1, 8])
def loop_condition() -> onnx.ModelProto:
    """Channels decide how often the body runs, and which branch: the weights that they are read with are cut too."""
    inside = body(
        [
            node("MatMul", "h w", "u"),
            node("Relu", "u", "next"),
            node("MatMul", "next gate", "g"),
            node("ReduceSum", "g", "sum", keepdims=0),
            node("Less", "sum limit", "still"),
        ],
        [AGAIN, value("next", ["n", 8])],
        STEP,
        [weight("gate", 8, 1, seed=3), numpy_helper.from_array(np.array(50, np.float32), "limit")],
    )
    choice = {
        "then_branch": branch([node("Relu", "end", "o")], "o"),
        "else_branch": branch([node("Abs", "end", "o")], "o"),
    }
    nodes = [
        START,
        node("Loop", "times true start", "end", body=inside),
        node("MatMul", "end which", "g"),
        node("ReduceSum", "g", "sum", keepdims=0),
        node("Less", "sum none", "flag"),
        node("If", "flag", "z", **choice),
        node("MatMul", "z out", "y"),
    ]
    numbers = [integer("times", 20), truth("true"), numpy_helper.from_array(np.array(0, np.float32), "none")]
    return model(nodes, [*RNN, weight("which", 8, 1, seed=4), *numbers], [X])


@graph("loop_in_loop", widths=[6, 8])
def loop_in_loop() -> onnx.ModelProto:
    """Two states that share a width, and an If in a Loop in a Loop, all under the same names."""
    choice = {
        "then_branch": branch([node("MatMul", "h w", "u")], "u"),
        "else_branch": branch(
            [node("MatMul", "h a", "t"), node("Relu", "t", "r"), node("MatMul", "r b", "u")],
            "u",
            weight("a", 8, 6),
            weight("b", 6, 8),
        ),
    }
    inner = body(
        [GOES_ON, node("If", "flag", "c", **choice), node("Add", "c h", "s"), node("Tanh", "s", "next")],
        [AGAIN, value("next", ["n", 8])],
        STEP,
    )
    outer = body(
        [GOES_ON, node("Loop", "times true h", "loop", body=inner), node("Add", "loop k", "next")],
        [AGAIN, value("next", ["n", 8]), value("next", ["n", 8])],
        [*STEP, value("k", ["n", 8])],
    )
    nodes = [START, node("Loop", "times true start start", "end other", body=outer), LAST]
    return model(nodes, [*RNN, integer("times", 2), truth("true")], [X, FLAG])


@graph("loop_growing_state", widths=[7], removable=0.1, stays="body-shape unknown-shape")
def loop_growing_state() -> onnx.ModelProto:
    """A state that gets longer stays as it is; a hidden layer beside it can be cut."""
    inside = body(
        [
            GOES_ON,
            node("MatMul", "x a", "p"),
            node("Relu", "p", "q"),
            node("MatMul", "q b", "r"),
            node("Concat", "h r", "next", axis=0),
        ],
        [AGAIN, value("next", [None, 8])],
        [*STEP[:2], value("h", [None, 8])],
        [weight("a", 4, 7, seed=3), weight("b", 7, 8, seed=4)],
    )
    nodes = [START, node("Loop", "times true start", "end", body=inside), LAST]
    return model(nodes, [*RNN, integer("times", 3), truth("true")], [X], [value("y", [None, 3])])


@graph("loop_norms", widths=[8, 9])
def loop_norms() -> onnx.ModelProto:
    """Averages over channels right at the end of a body; products of activations within; an inner width of its own."""
    inside = body(
        [
            GOES_ON,
            node("MatMul", "h a", "p"),
            node("Softmax", "p", "weights", axis=-1),
            node("Transpose", "p", "turned", perm=[1, 0]),
            node("MatMul", "weights turned", "scores"),
            node("MatMul", "scores h", "mixed"),
            node("Add", "mixed h", "sum"),
            node("LayerNormalization", "sum scale shift", "next"),
        ],
        [AGAIN, value("next", ["n", 8]), value("weights", ["n", 9])],
        STEP,
        [weight("a", 8, 9, seed=3), weight("scale", 8, seed=4), weight("shift", 8, seed=5)],
    )
    nodes = [
        START,
        node("Loop", "times true start", "end all", body=inside),
        node("ReduceMax", "all", "most", axes=[0], keepdims=0),
        node("MatMul", "most mix", "m"),
        node("MatMul", "end out", "e"),
        node("Add", "m e", "y"),
    ]
    weights = [RNN[0], RNN[2], weight("mix", 9, 3), integer("times", 2), truth("true")]
    return model(nodes, weights, [X])


# -- scans ---------------------------------------------------------------------------------------


def scanned(name: str = "t") -> onnx.ValueInfoProto:
    return value(name, ["n", 4])


@graph("scan_rnn", widths=[7, 8])
def scan_rnn() -> onnx.ModelProto:
    """One state over time, every output read."""
    inside = body(
        [node("MatMul", "t into", "v"), *CELL, node("MatMul", "next a", "each")],
        [value("next", ["n", 8]), value("each", ["n", 7])],
        [value("h", ["n", 8]), scanned()],
        [weight("a", 8, 7, seed=3)],
    )
    nodes = [
        node("Gather", "x none", "first"),
        node("MatMul", "first into", "start"),
        node("Scan", "start x", "end all", body=inside, num_scan_inputs=1),
        node("MatMul", "all mix", "m"),
        node("MatMul", "end out", "e"),
        node("Add", "m e", "y"),
    ]
    weights = [*RNN, weight("mix", 7, 3), integer("none", 0)]
    return model(nodes, weights, [TIME], [value("y", [5, "n", 3])])


@graph("scan_two_states", widths=[6, 8])
def scan_two_states() -> onnx.ModelProto:
    """An LSTM spelled out without gates: two states of two widths, one feeding the other."""
    inside = body(
        [
            node("MatMul", "t into", "v"),
            *CELL,
            node("MatMul", "next down", "d"),
            node("Add", "d c", "sum"),
            node("Sigmoid", "sum", "after"),
        ],
        [value("next", ["n", 8]), value("after", ["n", 6])],
        [value("h", ["n", 8]), value("c", ["n", 6]), scanned()],
        [weight("down", 8, 6, seed=3)],
    )
    nodes = [
        node("Gather", "x none", "first"),
        node("MatMul", "first into", "start"),
        node("MatMul", "first other", "start2"),
        node("Scan", "start start2 x", "end end2", body=inside, num_scan_inputs=1),
        node("MatMul", "end2 out", "y"),
    ]
    weights = [*RNN[:2], weight("other", 4, 6), weight("out", 6, 3), integer("none", 0)]
    return model(nodes, weights, [TIME])


@graph("scan_axes", widths=[6, 7, 8])
def scan_axes() -> onnx.ModelProto:
    """Over the middle axis, from the end, beside a tensor of channels; outputs along the last axis and backwards."""
    inside = body(
        [
            node("MatMul", "t into", "v"),
            *CELL,
            node("MatMul", "q b", "r"),
            node("MatMul", "next a", "p"),
            node("Mul", "p r", "each"),
        ],
        [value("next", ["n", 8]), value("each", ["n", 7])],
        [value("h", ["n", 8]), scanned(), value("q", ["n", 6])],
        [weight("a", 8, 7, seed=3), weight("b", 6, 7, seed=5)],
    )
    nodes = [
        node("ReduceMean", "x", "mean", axes=[1], keepdims=0),
        node("MatMul", "mean into", "start"),
        node("MatMul", "x side", "q"),
        node(
            "Scan",
            "start x q",
            "end all",
            body=inside,
            num_scan_inputs=2,
            scan_input_axes=[1, -2],
            scan_input_directions=[1, 0],
            scan_output_axes=[-1],
            scan_output_directions=[1],
        ),
        node("Transpose", "all", "turned", perm=[0, 2, 1]),
        node("MatMul", "turned mix", "y"),
    ]
    weights = [*RNN[:2], weight("side", 4, 6, seed=6), weight("mix", 7, 3)]
    return model(nodes, weights, [value("x", ["n", 5, 4])], [value("y", ["n", 5, 3])])


# -- functions -----------------------------------------------------------------------------------

FUNCTIONS = [helper.make_opsetid("", 17), helper.make_opsetid("f", 1)]


@graph("functions", widths=[6, 8, 8])
def functions() -> onnx.ModelProto:
    """One called twice with other weights and attributes, from another one, with a body of its own."""
    slope = onnx.AttributeProto(name="alpha", ref_attr_name="slope", type=onnx.AttributeProto.FLOAT)
    leaky = node("LeakyRelu", "h", "z")
    leaky.attribute.append(slope)
    dense = helper.make_function(
        "f", "Dense", ["x", "w"], ["z"], [node("MatMul", "x w", "h"), leaky], FUNCTIONS, ["slope"]
    )
    halves = {
        "then_branch": body([node("Dense", "x a", "h", domain="f", slope=0.5)], [value("h", None)]),
        "else_branch": body([node("MatMul", "x a", "h"), node("Abs", "h", "g")], [value("g", None)]),
    }
    both = helper.make_function(
        "f",
        "Both",
        ["x", "a", "b", "flag"],
        ["z"],
        [node("If", "flag", "h", **halves), node("Dense", "h b", "z", domain="f", slope=0.1)],
        FUNCTIONS,
    )
    nodes = [
        node("Both", "x first second flag", "h", "one", domain="f"),
        node("Both", "h third last flag", "y", "two", domain="f"),
    ]
    weights = [weight("first", 4, 8), weight("second", 8, 6), weight("third", 6, 8), weight("last", 8, 3)]
    return model(nodes, weights, [X, FLAG], domains=["f"], functions=[dense, both])


# -- PyTorch -------------------------------------------------------------------------------------


class Cell(nn.Module):
    """The layers that the networks below share."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.again, self.out = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 3)


@module("torch_cond", (2, 4), widths=[6, 8, 10])
class Cond(nn.Module):
    """``torch.cond`` on a value: two layers against one."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 8), nn.Linear(6, 3)
        self.wide, self.narrow, self.plain = nn.Linear(8, 10), nn.Linear(10, 6), nn.Linear(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        def yes(h: Tensor) -> Tensor:
            return self.narrow(torch.relu(self.wide(h)))

        def no(h: Tensor) -> Tensor:
            return self.plain(h).tanh()

        return self.last(torch.cond(x.sum() > 0, yes, no, (self.first(x),)))


@module("torch_while", (2, 4), widths=[8])
class While(Cell):
    """``while_loop``: a Loop that ends by its condition."""

    def forward(self, x: Tensor) -> Tensor:
        def step(i: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
            return i + 1, self.again(h).tanh()

        start = (torch.zeros((), dtype=torch.int64), self.into(x))
        return self.out(while_loop(lambda i, h: i < 3, step, start)[1])


@module("torch_scan", (5, 2, 4), widths=[8])
class Scanned(Cell):
    """``scan`` over time: a Scan."""

    def forward(self, x: Tensor) -> Tensor:
        def step(h: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
            after = torch.tanh(self.again(h) + self.into(t))
            return after, after * 2

        last, each = scan(step, self.into(x[0]), x, dim=0)
        return self.out(each) + self.out(last)


class Scripted(Cell):
    """Control flow of Python: a Loop over time, an If on a value in it."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.into(x[0])
        for t in range(x.size(0)):
            if bool(h.sum() > 0):
                h = torch.tanh(self.again(h) + self.into(x[t]))
            else:
                h = torch.relu(self.again(h))
        return self.out(h)


@graph("torch_scripted", widths=[8])
def torch_scripted() -> onnx.ModelProto:
    """By the older exporter, which writes the control flow of Python as it is; any length of time."""
    torch.manual_seed(0)
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that this exporter, and TorchScript, are old
        scripted = torch.jit.script(Scripted().eval())
        names, axes = ["x"], {"x": [0, 1]}
        torch.onnx.export(
            scripted, (torch.randn(5, 2, 4),), out, dynamo=False, opset_version=17, input_names=names, dynamic_axes=axes
        )
    return onnx.load_from_string(out.getvalue())
