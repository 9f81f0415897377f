"""What a random graph may do next: each move continues from a tensor and gives new ones, or none.

A move marked ``zero`` keeps zeros: where all parameters of a channel are zero, everything behind it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import numpy as np

from graphs_at_random.sketch import Sketch

Found = list[str]


@dataclass(frozen=True)
class Move:
    name: str
    apply: Callable[[Sketch, str], Found]
    zero: bool


MOVES: list[Move] = []


def move(*, zero: bool = False) -> Callable[[Callable[[Sketch, str], Found]], Callable[[Sketch, str], Found]]:
    def enter(function: Callable[[Sketch, str], Found]) -> Callable[[Sketch, str], Found]:
        MOVES.append(Move(function.__name__, function, zero))
        return function

    return enter


def divisors(n: int) -> list[int]:
    return [d for d in range(1, n + 1) if n % d == 0]


def broadcastable(sketch: Sketch, x: str) -> list[int]:
    """A shape that broadcasts to that of `x`: its leading axes may be missing, others may be 1."""
    choose = sketch.choose
    shape = [1 if m or choose.draw(3) == 2 else s for s, m in zip(sketch.shape(x), sketch.dynamic(x), strict=True)]
    return shape[choose.draw(len(shape) + 1) if choose.draw(4) == 3 else 0 :]


def partners(sketch: Sketch, x: str) -> list[str]:
    """The tensors that can be combined with `x` position by position, newest last."""

    def fit(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
        return all(p == q or 1 in (p, q) for p, q in zip(a[::-1], b[::-1], strict=False))

    return [
        y
        for y in sketch.pool
        if x == y
        or (
            fit(sketch.shape(x), sketch.shape(y))
            and sketch.fits(np.broadcast_shapes(sketch.shape(x), sketch.shape(y)))
            and _aligned(sketch, x, y)
        )
    ]


def _aligned(sketch: Sketch, x: str, y: str) -> bool:
    """Whether axes that depend on the batch meet their like, or one position."""
    pairs = zip(*([*zip(sketch.shape(n), sketch.dynamic(n), strict=True)][::-1] for n in (x, y)), strict=False)
    return all(a == b or 1 in (a[0], b[0]) for a, b in pairs)


# ---------------------------------------------------------------- position by position


@move(zero=True)
def odd_function(sketch: Sketch, x: str) -> Found:
    return [sketch.add(sketch.choose.of(["Relu", "Tanh", "Neg", "Abs", "LeakyRelu", "Identity", "Erf", "Softsign"]), x)]


@move()
def function(sketch: Sketch, x: str) -> Found:
    return [sketch.add(sketch.choose.of(["Sigmoid", "Softplus", "Cos", "HardSigmoid"]), x)]


@move(zero=True)
def scale(sketch: Sketch, x: str) -> Found:
    return [sketch.add("Mul", x, sketch.weight(*broadcastable(sketch, x)))]


@move()
def shift(sketch: Sketch, x: str) -> Found:
    w = sketch.weight(*broadcastable(sketch, x))
    op = sketch.choose.of(["Add", "Sub", "Max", "Min"])
    return [sketch.add(op, x, w) if sketch.choose.flag() else sketch.add(op, w, x)]


@move(zero=True)
def sum_of_two(sketch: Sketch, x: str) -> Found:
    return [
        sketch.add(
            sketch.choose.of(["Add", "Sub", "Max", "Min", "Sum", "Mean"]), x, sketch.choose.of(partners(sketch, x))
        )
    ]


@move(zero=True)
def product_of_two(sketch: Sketch, x: str) -> Found:
    return [sketch.add("Mul", sketch.add("Tanh", x), sketch.choose.of(partners(sketch, x)))]


@move()
def choice_of_two(sketch: Sketch, x: str) -> Found:
    y = sketch.choose.of(partners(sketch, x))
    return [sketch.add("Where", sketch.add("Greater", x, y), x, y)]


@move(zero=True)
def prelu(sketch: Sketch, x: str) -> Found:
    return [sketch.add("PRelu", x, sketch.weight(*broadcastable(sketch, x)))]


# ---------------------------------------------------------------- sums of products


def _window(sketch: Sketch, x: str) -> tuple[list[int], int, bool]:
    """A kernel, its stride, and whether the image is padded to keep its size."""
    choose = sketch.choose
    kernel = [choose.between(1, min(3, s)) for s in sketch.shape(x)[2:]]
    return kernel, choose.between(1, 2), choose.flag()


def _convolvable(sketch: Sketch, x: str) -> bool:
    return len(sketch.shape(x)) >= 3 and 1 in sketch.static_axes(x) and not any(sketch.dynamic(x)[2:])


@move(zero=True)
def convolution(sketch: Sketch, x: str) -> Found:
    if not _convolvable(sketch, x):
        return []
    c, choose = sketch.shape(x)[1], sketch.choose
    groups = choose.of(divisors(c))
    out = groups * choose.between(1, max(1, min(3, 12 // groups)) if groups > 1 else 8)
    kernel, stride, padded = _window(sketch, x)
    pads = [(k - 1) // 2 if padded else 0 for k in kernel] + [k // 2 if padded else 0 for k in kernel]
    inputs = [x, sketch.weight(out, c // groups, *kernel, fan_in=c // groups * prod(kernel))]
    if choose.flag():
        inputs.append(sketch.weight(out))
    return [sketch.add("Conv", *inputs, group=groups, strides=[stride] * len(kernel), pads=pads)]


@move(zero=True)
def transposed_convolution(sketch: Sketch, x: str) -> Found:
    if not _convolvable(sketch, x) or len(sketch.shape(x)) > 4:
        return []
    c, choose = sketch.shape(x)[1], sketch.choose
    groups = choose.of(divisors(c))
    each = choose.between(1, 3)
    kernel, stride, _ = _window(sketch, x)
    grown = [sketch.shape(x)[0], groups * each, *(s * stride + 2 for s in sketch.shape(x)[2:])]
    if not sketch.fits(grown):
        return []
    inputs = [x, sketch.weight(c, each, *kernel, fan_in=c // groups * prod(kernel))]
    if choose.flag():
        inputs.append(sketch.weight(groups * each))
    return [sketch.add("ConvTranspose", *inputs, group=groups, strides=[stride] * len(kernel))]


@move(zero=True)
def linear(sketch: Sketch, x: str) -> Found:
    """Over the last axis, or the one before."""
    shape, choose = sketch.shape(x), sketch.choose
    right = len(shape) < 2 or choose.draw(3) < 2
    axis = len(shape) - (1 if right else 2)
    if axis < 0 or axis not in sketch.static_axes(x):
        return []
    out = choose.between(1, 8)
    if right:
        vector = len(shape) > 1 and choose.draw(8) == 7
        return [
            sketch.add("MatMul", x, sketch.weight(*([shape[-1]] if vector else [shape[-1], out]), fan_in=shape[-1]))
        ]
    return [sketch.add("MatMul", sketch.weight(out, shape[-2], fan_in=shape[-2]), x)]


@move(zero=True)
def tied(sketch: Sketch, x: str) -> Found:
    """With a weight that is there already, or its transpose."""
    shape = sketch.shape(x)
    if not shape or len(shape) - 1 not in sketch.static_axes(x):
        return []
    matrices = [w for w in sketch.weights if len(sketch.shape(w)) == 2]
    straight = [w for w in matrices if sketch.shape(w)[0] == shape[-1]]
    back = [w for w in matrices if sketch.shape(w)[1] == shape[-1]]
    if back and (not straight or sketch.choose.flag()):
        return [sketch.add("MatMul", x, sketch.add("Transpose", sketch.choose.of(back), perm=[1, 0]))]
    return [sketch.add("MatMul", x, sketch.choose.of(straight))] if straight else []


@move(zero=True)
def gemm(sketch: Sketch, x: str) -> Found:
    shape, choose = sketch.shape(x), sketch.choose
    if len(shape) != 2:
        return []
    turned, back = choose.draw(4) == 3, choose.flag()
    k = shape[0 if turned else 1]
    if (0 if turned else 1) not in sketch.static_axes(x):
        return []
    n = choose.between(1, 8)
    inputs = [x, sketch.weight(*((n, k) if back else (k, n)), fan_in=k)]
    if choose.flag():
        inputs.append(sketch.weight(*choose.of([(n,), (1, n), (1,)])))
    return [sketch.add("Gemm", *inputs, transA=int(turned), transB=int(back))]


@move()
def attention(sketch: Sketch, x: str) -> Found:
    """Softmax of a product of two projections, times a third; of several heads or of one."""
    shape, choose = sketch.shape(x), sketch.choose
    if len(shape) not in (2, 3) or len(shape) - 1 not in sketch.static_axes(x):
        return []
    heads, d, e = choose.between(1, 3), choose.between(1, 3), choose.between(1, 3)
    names = []
    for size in (d, d, e):
        y = sketch.add("MatMul", x, sketch.weight(shape[-1], heads * size, fan_in=shape[-1]))
        if heads > 1 and len(shape) == 3:
            y = sketch.add("Transpose", sketch.add("Reshape", y, sketch.ints(0, 0, heads, size)), perm=[0, 2, 1, 3])
        names.append(y)
    query, key, value = names
    rank = len(sketch.shape(key))
    turned = sketch.add("Transpose", key, perm=[*range(rank - 2), rank - 1, rank - 2])
    scores = sketch.add("Softmax", sketch.add("MatMul", query, turned), axis=-1)
    result = sketch.add("MatMul", scores, value)
    if heads > 1 and len(shape) == 3:
        result = sketch.add("Transpose", result, perm=[0, 2, 1, 3])
        result = sketch.add("Reshape", result, sketch.ints(0, 0, -1))
    return [result]


@move(zero=True)
def product_with_itself(sketch: Sketch, x: str) -> Found:
    shape = sketch.shape(x)
    if len(shape) < 2:
        return []
    turned = sketch.add("Transpose", x, perm=[*range(len(shape) - 2), len(shape) - 1, len(shape) - 2])
    left, right = (x, turned) if sketch.choose.flag() else (turned, x)
    return [sketch.add("Tanh", sketch.add("MatMul", left, right))]


@move(zero=True)
def residual(sketch: Sketch, x: str) -> Found:
    """``x + f(x W1) W2`` along any axis."""
    axes = sketch.static_axes(x, 2)
    if not axes:
        return []
    axis, rank = sketch.choose.of(axes), len(sketch.shape(x))
    order = [t for t in range(rank) if t != axis] + [axis]
    size, hidden = sketch.shape(x)[axis], sketch.choose.between(1, 6)
    y = sketch.add("Transpose", x, perm=order)
    y = sketch.add("MatMul", y, sketch.weight(size, hidden, fan_in=size))
    y = sketch.add("MatMul", sketch.add("Relu", y), sketch.weight(hidden, size, fan_in=hidden))
    return [sketch.add("Add", x, sketch.add("Transpose", y, perm=[order.index(t) for t in range(rank)]))]


@move()
def squeeze_excite(sketch: Sketch, x: str) -> Found:
    if not _convolvable(sketch, x):
        return []
    c, rank = sketch.shape(x)[1], len(sketch.shape(x))
    hidden, ones = sketch.choose.between(1, 4), [1] * (rank - 2)
    y = sketch.add("GlobalAveragePool", x)
    y = sketch.add("Relu", sketch.add("Conv", y, sketch.weight(hidden, c, *ones, fan_in=c)))
    y = sketch.add("Sigmoid", sketch.add("Conv", y, sketch.weight(c, hidden, *ones, fan_in=hidden), sketch.weight(c)))
    return [sketch.add("Mul", x, y)]


# ---------------------------------------------------------------- norms and reductions


@move()
def norm(sketch: Sketch, x: str) -> Found:
    shape, choose = sketch.shape(x), sketch.choose
    kinds = []
    if len(shape) >= 2 and 1 in sketch.static_axes(x):
        kinds.append("batch")
        if len(shape) >= 3 and prod(shape[2:]) > 1:
            kinds += ["instance", *(["group"] if sketch.opset >= 21 else [])]
    if shape and sketch.opset >= 17 and len(shape) - 1 in sketch.static_axes(x, 2):
        kinds.append("layer")
    if not kinds:
        return []
    kind = choose.of(kinds)
    if kind == "layer":
        axis = len(shape) - 1
        while axis - 1 in sketch.static_axes(x) and choose.draw(3) == 2:
            axis -= 1
        inputs = [x, sketch.weight(*shape[axis:]), *([sketch.weight(*shape[axis:])] if choose.flag() else [])]
        return [sketch.add("LayerNormalization", *inputs, axis=axis - len(shape) if choose.flag() else axis)]
    inputs = [x, sketch.weight(shape[1]), sketch.weight(shape[1])]
    if kind == "batch":
        state = [sketch.constant(sketch.rng.uniform(*r, shape[1]).astype(np.float32)) for r in ((-1, 1), (0.5, 1.5))]
        return [sketch.add("BatchNormalization", *inputs, *state)]
    if kind == "group":
        y = sketch.add("GroupNormalization", *inputs, num_groups=choose.of(divisors(shape[1])))
        sketch.types[y] = sketch.types[x]  # onnx infers nothing
        return [y]
    return [sketch.add("InstanceNormalization", *inputs)]


@move()
def softmax(sketch: Sketch, x: str) -> Found:
    shape = sketch.shape(x)
    if not shape:
        return []
    op = sketch.choose.of(["Softmax", "LogSoftmax"])
    return [sketch.add(op, x, axis=sketch.choose.between(-len(shape), len(shape) - 1))]


@move(zero=True)
def sum_over(sketch: Sketch, x: str) -> Found:
    return _reduced(sketch, x, ["ReduceSum", "ReduceL2", "ReduceL1", "ReduceSumSquare"])


@move()
def mean_over(sketch: Sketch, x: str) -> Found:
    return _reduced(sketch, x, ["ReduceMean", "ReduceMax", "ReduceMin", "ReduceLogSumExp"])


def _reduced(sketch: Sketch, x: str, ops: list[str]) -> Found:
    rank, choose = len(sketch.shape(x)), sketch.choose
    if not rank:
        return []
    axes, op, keep = choose.subset(range(rank)), choose.of(ops), choose.draw(2)
    if sketch.opset < 18 and op != "ReduceSum":
        y = sketch.add(op, x, axes=axes, keepdims=keep)
    else:
        y = sketch.add(op, x, sketch.ints(*axes), keepdims=keep)
    return [sketch.add("Tanh", y) if op == "ReduceSumSquare" else y]


@move(zero=True)
def pool(sketch: Sketch, x: str) -> Found:
    if not _convolvable(sketch, x):
        return []
    op = sketch.choose.of(["MaxPool", "AveragePool"])
    kernel, stride, _ = _window(sketch, x)
    return [sketch.add(op, x, kernel_shape=kernel, strides=[stride] * len(kernel))]


@move()
def global_pool(sketch: Sketch, x: str) -> Found:
    if not _convolvable(sketch, x):
        return []
    return [sketch.add(sketch.choose.of(["GlobalAveragePool", "GlobalMaxPool"]), x)]


# ---------------------------------------------------------------- axes


def _reshape(sketch: Sketch, x: str, target: list[tuple[int, bool]]) -> Found:
    """To these sizes; of an axis that depends on the batch it is -1, and there may be only one."""
    if sum(moving for _, moving in target) > 1:
        return []
    sizes = [s for s, _ in target]
    if not sketch.fits(sizes):
        return []
    static = [t for t, (_, moving) in enumerate(target) if not moving]
    entries = [-1 if moving else s for s, moving in target]
    if static and len(static) == len(target) and sketch.choose.draw(4) == 3:
        entries[sketch.choose.of(static)] = -1
    return [sketch.add("Reshape", x, sketch.ints(*entries))]


def _axes(sketch: Sketch, x: str) -> list[tuple[int, bool]]:
    return list(zip(sketch.shape(x), sketch.dynamic(x), strict=True))


@move(zero=True)
def split_axis(sketch: Sketch, x: str) -> Found:
    found = _axes(sketch, x)
    able = [t for t, (s, moving) in enumerate(found) if not moving and len(divisors(s)) > 2]
    if not able:
        return []
    axis = sketch.choose.of(able)
    size = found[axis][0]
    outer = sketch.choose.of(divisors(size)[1:-1])
    return _reshape(sketch, x, [*found[:axis], (outer, False), (size // outer, False), *found[axis + 1 :]])


@move(zero=True)
def merge_axes(sketch: Sketch, x: str) -> Found:
    found = _axes(sketch, x)
    if len(found) < 2:
        return []
    axis = sketch.choose.between(0, len(found) - 2)
    (a, moving), (b, also) = found[axis], found[axis + 1]
    return _reshape(sketch, x, [*found[:axis], (a * b, moving or also), *found[axis + 2 :]])


@move(zero=True)
def regroup(sketch: Sketch, x: str) -> Found:
    """Merge two axes and split them at another place."""
    found = _axes(sketch, x)
    pairs = [t for t in range(len(found) - 1) if not (found[t][1] or found[t + 1][1])]
    if not pairs:
        return []
    axis = sketch.choose.of(pairs)
    size = found[axis][0] * found[axis + 1][0]
    outer = sketch.choose.of(divisors(size))
    return _reshape(sketch, x, [*found[:axis], (outer, False), (size // outer, False), *found[axis + 2 :]])


@move(zero=True)
def flatten(sketch: Sketch, x: str) -> Found:
    shape = sketch.shape(x)
    if not shape or any(sketch.dynamic(x)[1:]):
        return []
    y = sketch.choose.between(0, len(shape))
    return [sketch.add("Flatten", x, axis=y)] if sketch.fits([prod(shape[:y]), prod(shape[y:])]) else []


@move(zero=True)
def computed_reshape(sketch: Sketch, x: str) -> Found:
    """As exporters write it: the first size read from the shape, the others merged."""
    shape = sketch.shape(x)
    if len(shape) < 3 or any(sketch.dynamic(x)[1:]) or not sketch.fits([shape[0], prod(shape[1:])]):
        return []
    first = sketch.add("Gather", sketch.add("Shape", x), sketch.constant(np.array(0)), axis=0)
    first = sketch.add("Unsqueeze", first, sketch.ints(0))
    target = sketch.add("Concat", first, sketch.ints(-1), axis=0)
    y = sketch.add("Reshape", x, target)
    sketch.settle(y, [(shape[0], sketch.dynamic(x)[0]), (prod(shape[1:]), False)])
    return [y]


@move(zero=True)
def shuffle(sketch: Sketch, x: str) -> Found:
    """Of channels: split an axis, swap its factors, merge them."""
    found = _axes(sketch, x)
    able = [t for t, (s, moving) in enumerate(found) if not moving and len(divisors(s)) > 2]
    if not able or len(found) > 4:
        return []
    axis = sketch.choose.of(able)
    size = found[axis][0]
    outer = sketch.choose.of(divisors(size)[1:-1])
    wide = _reshape(sketch, x, [*found[:axis], (outer, False), (size // outer, False), *found[axis + 1 :]])
    if not wide:
        return []
    order = list(range(len(found) + 1))
    order[axis], order[axis + 1] = axis + 1, axis
    return _reshape(sketch, sketch.add("Transpose", wide[0], perm=order), found)


@move(zero=True)
def transpose(sketch: Sketch, x: str) -> Found:
    left, order = list(range(len(sketch.shape(x)))), list[int]()
    while left:
        order.append(left.pop(sketch.choose.draw(len(left))))
    return [sketch.add("Transpose", x, perm=order)] if order else []


@move(zero=True)
def add_axis(sketch: Sketch, x: str) -> Found:
    rank = len(sketch.shape(x))
    return [sketch.add("Unsqueeze", x, sketch.ints(sketch.choose.between(0, rank)))] if rank < 5 else []


@move(zero=True)
def drop_axis(sketch: Sketch, x: str) -> Found:
    ones = [t for t in sketch.static_axes(x) if sketch.shape(x)[t] == 1]
    return [sketch.add("Squeeze", x, sketch.ints(sketch.choose.of(ones)))] if ones else []


# ---------------------------------------------------------------- positions


@move(zero=True)
def slice_(sketch: Sketch, x: str) -> Found:
    axes = sketch.static_axes(x, 2)
    if not axes:
        return []
    axis, choose = sketch.choose.of(axes), sketch.choose
    size = sketch.shape(x)[axis]
    if choose.draw(4) == 3:
        start, end, step = choose.of([(0, 2**62, 2), (1, 2**62, 2), (size - 1, -(2**62), -1), (0, size, 3)])
    else:
        start = choose.between(0, size - 1)
        end, step = choose.between(start + 1, size), 1
        if end < size and choose.flag():
            start, end = start - size, end - size
    return [sketch.add("Slice", x, *(sketch.ints(v) for v in (start, end, axis, step)))]


@move(zero=True)
def split(sketch: Sketch, x: str) -> Found:
    axes = sketch.static_axes(x, 2)
    if not axes:
        return []
    axis, choose = sketch.choose.of(axes), sketch.choose
    size = sketch.shape(x)[axis]
    first = choose.of([size // 2, *range(1, size)])
    sizes = [first, size - first]
    if sizes[1] > 1 and choose.flag():
        sizes[1:] = [1, sizes[1] - 1]
    return sketch.add_many("Split", len(sizes), x, sketch.ints(*sizes), axis=axis)


@move(zero=True)
def gather(sketch: Sketch, x: str) -> Found:
    axes, choose = sketch.static_axes(x), sketch.choose
    if not axes:
        return []
    axis = choose.of(axes)
    size = sketch.shape(x)[axis]
    kind = choose.draw(8)
    if kind == 7:
        index = np.array(choose.draw(size))
    else:
        index = np.array([choose.between(-size, size - 1) for _ in range(choose.between(1, min(6, size + 1)))])
        if kind == 6 and len(index) % 2 == 0 and len(sketch.shape(x)) < 5:
            index = index.reshape(2, -1)
    return [sketch.add("Gather", x, sketch.constant(index.astype(np.int64)), axis=axis)]


@move(zero=True)
def concat(sketch: Sketch, x: str) -> Found:
    """With a tensor that is there, with a parameter, or with itself."""
    axes, choose = sketch.static_axes(x), sketch.choose
    if not axes:
        return []
    axis, found = choose.of(axes), _axes(sketch, x)
    rest = [*found[:axis], *found[axis + 1 :]]
    fit = []
    for y in sketch.pool:
        other = _axes(sketch, y)
        if len(other) == len(found) and [*other[:axis], *other[axis + 1 :]] == rest and not other[axis][1]:
            fit.append(y)
    parts = [x, choose.of(fit)]
    if not any(moving for _, moving in rest) and choose.draw(4) == 3:
        parts[choose.draw(2)] = sketch.weight(
            *(s if t != axis else choose.between(1, 3) for t, (s, _) in enumerate(found))
        )
    if choose.draw(4) == 3:
        parts.append(choose.of(fit))
    total = list(sketch.shape(x))
    total[axis] = sum(sketch.shape(p)[axis] for p in parts)
    return (
        [sketch.add("Concat", *parts, axis=axis - len(total) if choose.flag() else axis)] if sketch.fits(total) else []
    )


@move(zero=True)
def pad(sketch: Sketch, x: str) -> Found:
    axes, choose = sketch.static_axes(x), sketch.choose
    if not axes:
        return []
    shape, pads = sketch.shape(x), [0] * (2 * len(sketch.shape(x)))
    for axis in choose.subset(axes):
        pads[axis], pads[axis + len(shape)] = choose.between(0, 2), choose.between(0, 2)
    grown = [s + pads[t] + pads[t + len(shape)] for t, s in enumerate(shape)]
    mode = choose.of(["constant", "constant", "edge", "reflect"])
    if mode == "reflect" and any(max(pads[t], pads[t + len(shape)]) >= s for t, s in enumerate(shape)):
        mode = "edge"
    return [sketch.add("Pad", x, sketch.ints(*pads), mode=mode)] if sketch.fits(grown) else []


@move(zero=True)
def expand(sketch: Sketch, x: str) -> Found:
    shape, choose = list(sketch.shape(x)), sketch.choose
    target = [1 if m else s for s, m in zip(shape, sketch.dynamic(x), strict=True)]
    ones = [t for t in sketch.static_axes(x) if shape[t] == 1]
    if ones:
        target[choose.of(ones)] = choose.between(2, 4)
    if len(shape) < 5 and (not ones or choose.draw(3) == 2):
        target = [choose.between(1, 3), *target]
    grown = np.broadcast_shapes(tuple(shape), tuple(target))
    return [sketch.add("Expand", x, sketch.ints(*target))] if sketch.fits(grown) else []


@move(zero=True)
def resize(sketch: Sketch, x: str) -> Found:
    shape = sketch.shape(x)
    if len(shape) != 4 or not _convolvable(sketch, x) or not sketch.fits([*shape[:2], *(2 * s for s in shape[2:])]):
        return []
    scales = sketch.constant(np.array([1, 1, 2, 2], np.float32))
    sketch.values[scales] = sketch.graph.initializer[-1]
    return [sketch.add("Resize", x, "", scales, mode=sketch.choose.of(["nearest", "linear"]))]


@move(zero=True)
def depth_and_space(sketch: Sketch, x: str) -> Found:
    if len(sketch.shape(x)) != 4 or not _convolvable(sketch, x):
        return []
    _, c, h, w = sketch.shape(x)
    if c % 4 == 0 and (h % 2 or w % 2 or sketch.choose.flag()):
        return [sketch.add("DepthToSpace", x, blocksize=2, mode=sketch.choose.of(["DCR", "CRD"]))]
    return [sketch.add("SpaceToDepth", x, blocksize=2)] if h % 2 == w % 2 == 0 and c <= 6 else []
