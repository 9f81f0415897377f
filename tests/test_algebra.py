"""Laws of the channel algebra: labels, equations, positions, polynomials, groups, budgets and searches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import product as every
from math import prod

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from onnxmorph.analysis import Analysis, analyze
from onnxmorph.axes import Array, Channels, Labels, product, stack
from onnxmorph.budget import COSTS, Budget, Limit
from onnxmorph.errors import BudgetError, RuleError
from onnxmorph.grouping import group, is_regular
from onnxmorph.knapsack import select
from onnxmorph.notation import Equation, Factor, Product, Sum, Term, bind, factors, parse, size_of, solve_sizes
from onnxmorph.polynomial import Polynomial, add, multiply
from onnxmorph.positions import count, take
from onnxmorph.search import multiply as multiply_widths
from onnxmorph.widths import keep_best, spread, steps

REASON = 1

settings.register_profile("laws", deadline=None, derandomize=True)
settings.load_profile("laws")


# ---------------------------------------------------------------- labels

SPLITS = {4: [(2, 2)], 6: [(2, 3), (3, 2)], 12: [(3, 4), (2, 6), (2, 2, 3)]}


@dataclass
class Program:
    """Axes made and tied at random, and what must then hold: pairs of axes that live and die together."""

    channels: Channels = field(default_factory=Channels)
    axes: list[Array] = field(default_factory=list)
    equal: list[tuple[Array, Array]] = field(default_factory=list)
    fixed: list[Array] = field(default_factory=list)

    def of_size(self, size: int, pick: int) -> Array:
        fitting = [a for a in self.axes if len(a) == size]
        if not fitting:
            self.axes.append(self.channels.fresh(size)[:, None])
            return self.axes[-1]
        return fitting[pick % len(fitting)]

    def step(self, kind: str, size: int, pick: int, other: int, seed: int) -> None:
        rng, channels = np.random.default_rng(seed), self.channels
        x, y = self.of_size(size, pick), self.of_size(size, other)
        if kind == "fresh":
            self.axes.append(channels.fresh(size)[:, None])
        elif kind == "tie":
            channels.tie(x, y, REASON)
            self.equal.append((x, y))
        elif kind == "gather":
            self.axes.append(x[rng.integers(0, size, size)])
        elif kind == "permute":
            self.axes.append(x[rng.permutation(size)])
        elif kind == "fix":
            positions = x[rng.permutation(size)[:1]]
            channels.fix(positions, REASON)
            self.fixed.append(positions)
        elif kind == "split":
            sizes = SPLITS[size][pick % len(SPLITS[size])]
            parts = channels.split(x, sizes, REASON)
            self.axes += [a for a in parts if isinstance(a, np.ndarray)]
            whole = product(parts, sizes)
            self.equal.append((x, whole if isinstance(whole, np.ndarray) else np.zeros((size, 1), np.int64)))
        elif kind == "product":
            sizes = SPLITS[size][pick % len(SPLITS[size])]
            found = product([self.of_size(s, other) if s in SPLITS else None for s in sizes], sizes)
            if isinstance(found, np.ndarray):
                self.axes.append(found)

    def alive(self, axis: Array, living: Array) -> Array:
        return living[self.channels.resolve(axis)].all(1)


INSTRUCTIONS = st.lists(
    st.tuples(
        st.sampled_from(["fresh", "tie", "tie", "gather", "permute", "fix", "split", "product"]),
        st.sampled_from(sorted(SPLITS)),
        st.integers(0, 7),
        st.integers(0, 7),
        st.integers(0, 99),
    ),
    max_size=14,
)


def run(instructions: Sequence[tuple[str, int, int, int, int]]) -> Program:
    program = Program()
    for instruction in instructions:
        program.step(*instruction)
    return program


@settings(max_examples=300)
@given(INSTRUCTIONS, st.integers(0, 2**32 - 1))
def test_a_position_is_alive_exactly_when_all_its_channels_are(
    instructions: list[tuple[str, int, int, int, int]], seed: int
) -> None:
    """Whatever the free channels do, tied positions agree, products agree with factors, fixed ones live."""
    program = run(instructions)
    rng = np.random.default_rng(seed)
    for chance in (0.5, 0.8, 0.95):
        living = rng.random(10_000) < chance
        living[0] = True
        for x, y in program.equal:
            np.testing.assert_array_equal(program.alive(x, living), program.alive(y, living))
        for axis in program.fixed:
            assert program.alive(axis, living).all()


def partition(program: Program) -> list[list[tuple[int, ...]]]:
    """The resolved labels of all axes, channels numbered by first appearance."""
    numbers: dict[int, int] = {0: 0}
    return [
        [
            tuple(sorted(numbers.setdefault(c, len(numbers)) for c in row))
            for row in program.channels.resolve(a).tolist()
        ]
        for a in program.axes
    ]


@given(INSTRUCTIONS, st.sampled_from(sorted(SPLITS)), st.integers(0, 7), st.integers(0, 7))
def test_a_tie_is_symmetric(instructions: list[tuple[str, int, int, int, int]], size: int, a: int, b: int) -> None:
    one, other = run(instructions), run(instructions)
    one.channels.tie(one.of_size(size, a), one.of_size(size, b), REASON)
    x, y = other.of_size(size, a), other.of_size(size, b)
    other.channels.tie(y, x, REASON)
    living = np.random.default_rng(0).random(10_000) < 0.8
    living[0] = True
    # channels may be named differently, so compare what can be told apart: which rows are alike
    for left, right in zip(partition(one), partition(other), strict=True):
        assert _alike(left) == _alike(right)


def _alike(rows: Sequence[object]) -> list[int]:
    first: dict[object, int] = {}
    return [first.setdefault(row, i) for i, row in enumerate(rows)]


@given(INSTRUCTIONS, st.sampled_from(sorted(SPLITS)), st.integers(0, 7), st.integers(0, 7))
def test_a_second_tie_changes_nothing(
    instructions: list[tuple[str, int, int, int, int]], size: int, a: int, b: int
) -> None:
    program = run(instructions)
    x, y = program.of_size(size, a), program.of_size(size, b)
    program.channels.tie(x, y, REASON)
    before = partition(program)
    program.channels.tie(x, y, REASON)
    program.channels.tie(y, x, REASON)
    assert partition(program) == before


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=12),
    st.lists(st.integers(0, 9), max_size=2),
    st.booleans(),
)
def test_ties_of_plain_channels_are_the_smallest_equivalence(
    pairs: list[tuple[int, int]], fixed: list[int], at_once: bool
) -> None:
    """Nothing more is tied, and nothing more is fixed, than what follows from the pairs; one by one or all at once."""
    channels = Channels()
    ids = channels.fresh(10)
    channels.fix(ids[np.array(fixed, np.int64)], REASON)
    owner = list(range(10))
    for a, b in pairs:
        owner = [owner[a] if o == owner[b] else o for o in owner]
    for few in [pairs] if at_once else [[pair] for pair in pairs]:
        one, other = (np.array([pair[side] for pair in few], np.int64) for side in (0, 1))
        channels.tie(ids[one][:, None], ids[other][:, None], REASON)
        channels.find(ids)  # what waits is carried out
    staying = {owner[i] for i in fixed}
    assert (channels.why(ids) > 0).tolist() == [o in staying for o in owner]
    free = [i for i in range(10) if owner[i] not in staying]
    assert _alike(channels.find(ids)[free].tolist()) == _alike([owner[i] for i in free])


@given(st.sampled_from([sizes for options in SPLITS.values() for sizes in options]))
def test_splitting_a_product_gives_its_factors_back(sizes: tuple[int, ...]) -> None:
    channels = Channels()
    parts: list[Labels | None] = [channels.fresh(s)[:, None] for s in sizes]
    whole = product(parts, sizes)
    assert isinstance(whole, np.ndarray)
    for before, after in zip(parts, channels.split(whole, sizes, REASON), strict=True):
        np.testing.assert_array_equal(before, after)


@given(st.sampled_from([sizes for options in SPLITS.values() for sizes in options]))
def test_splitting_fresh_channels_refines_them(sizes: tuple[int, ...]) -> None:
    """L[i, j, …] := A[i] and B[j] and …, with every factor free and its own."""
    channels = Channels()
    whole = channels.fresh(prod(sizes))[:, None]
    parts = channels.split(whole, sizes, REASON)
    assert all(isinstance(p, np.ndarray) and p.shape[1] == 1 for p in parts)
    flat = np.concatenate([p.reshape(-1) for p in parts if isinstance(p, np.ndarray)])
    assert len(np.unique(channels.find(flat))) == sum(sizes) and (channels.why(flat) == 0).all()
    rows = channels.resolve(whole)
    for row, index in zip(rows, every(*map(range, sizes)), strict=True):
        wanted = {int(p[i, 0]) for p, i in zip(parts, index, strict=True) if isinstance(p, np.ndarray)}
        assert {c for c in row.tolist() if c} == wanted


def test_a_fixed_partner_fixes_and_passes_its_reason_on() -> None:
    channels = Channels()
    a, b = channels.fresh(3)[:, None], channels.fresh(3)[:, None]
    channels.fix(a[:1], 7)
    channels.tie(a, b, REASON)
    assert channels.why(b[:, 0]).tolist() == [7, 0, 0]


def test_a_fixed_factor_adds_no_column() -> None:
    """Flatten gives every channel its H·W positions."""
    assert product([np.array([[1], [2]]), 5, None], (2, 3, 1)).tolist() == [[1], [1], [1], [2], [2], [2]]


def test_a_concatenation_pads_with_what_is_always_alive() -> None:
    assert stack([np.array([[1, 2]]), 9, np.array([[3]])], (1, 1, 1)).tolist() == [[1, 2], [0, 0], [3, 0]]


# ---------------------------------------------------------------- equations

NAME = st.text("abcghnoxyz", min_size=1, max_size=2)
FACTOR = st.builds(Factor, NAME, st.just(False))
TERM = st.recursive(
    FACTOR,
    lambda inner: st.one_of(
        st.builds(lambda t: Product(tuple(t)), st.lists(inner, min_size=2, max_size=3)),
        st.builds(lambda t: Sum(tuple(t)), st.lists(inner, min_size=2, max_size=3)),
    ),
    max_leaves=4,
)
AXIS = st.one_of(TERM, st.builds(Factor, NAME, st.just(True)), st.just(Product(())))
TENSOR = st.one_of(st.none(), st.lists(AXIS, min_size=1, max_size=4).map(tuple))
SIDE = st.lists(TENSOR, min_size=1, max_size=3).map(tuple)


def text_of(term: Term) -> str:
    if isinstance(term, Factor):
        return term.name + "..." * term.many
    if not term.terms:
        return "1"
    return f"({(' + ' if isinstance(term, Sum) else ' ').join(map(text_of, term.terms))})"


def side_text(side: tuple[tuple[Term, ...] | None, ...]) -> str:
    return ", ".join("_" if axes is None else " ".join(map(text_of, axes)) for axes in side)


@given(SIDE, SIDE)
def test_equations_survive_writing_and_reading(
    inputs: tuple[tuple[Term, ...] | None, ...], outputs: tuple[tuple[Term, ...] | None, ...]
) -> None:
    text = f"{side_text(inputs)} -> {side_text(outputs)}"
    assert parse(text) == Equation(inputs, outputs, frozenset(), frozenset())


def test_marks_are_sets_of_names() -> None:
    found = parse("n [c] {y...}, ([g] {h}) -> n c y...")
    assert (found.fixed, found.averaged) == ({"c", "g"}, {"y", "h"})
    bound = bind("n [c] {y...}, ([g] {h}) -> n c y...", ((4, 1), (4,)))
    assert (bound.fixed, bound.averaged) == ({"c", "g"}, {"y~0", "y~1", "h"})


@pytest.mark.parametrize(
    "text",
    ["", "a", "a ->", "a b", "a -> b -> c", "(a b -> c", "a b) -> c", "[a -> a", "a -> [a", "[a} -> a", "{a] -> a",
     "a, -> %", "a -> ?", "-> -> a"],
)  # fmt: skip
def test_a_text_that_is_no_equation_is_refused(text: str) -> None:
    if text in ("a ->",):  # a scalar
        assert parse(text).outputs == ((),)
    else:
        with pytest.raises(RuleError):
            parse(text)


@given(
    st.lists(st.integers(1, 5), min_size=3, max_size=3),
    st.integers(0, 3),
    st.lists(st.integers(1, 5), min_size=3, max_size=3),
)
def test_sizes_are_found_again(sizes: list[int], rank: int, more: list[int]) -> None:
    g, i, o = sizes
    tail = tuple(more[:rank])
    equation = bind("n (g i) y..., (g o) i, (i + o) -> n (g o) y...", ((2 + rank, 2, 1), (2 + rank,)))
    shapes = [[(2, g * i, *tail), (g * o, i), (i + o,)], [(2, g * o, *tail)]]
    found = solve_sizes(equation, shapes, {"g": g}, "here")
    assert (found["g"], found["i"], found["o"]) == (g, i, o)
    for side, of in zip((equation.inputs, equation.outputs), shapes, strict=True):
        for axes, shape in zip(side, of, strict=True):
            assert tuple(size_of(a, found) for a in axes or ()) == shape


@pytest.mark.parametrize(
    "text, shapes, known",
    [
        ("a b -> a", [[(2,)], [(2,)]], {}),  # rank
        ("a, a -> a", [[(2,), (3,)], [(2,)]], {}),  # one factor, two sizes
        ("(a b) -> a", [[(7,)], [(2,)]], {}),  # no multiple
        ("(a b) -> (a b)", [[(6,)], [(6,)]], {}),  # two unknowns
        ("(a + b) -> a", [[(5,)], [(2,)]], {"b": 1}),
    ],
)
def test_sizes_that_contradict_are_refused(
    text: str, shapes: list[list[tuple[int, ...]]], known: dict[str, int]
) -> None:
    with pytest.raises(RuleError, match="here"):
        solve_sizes(parse(text), shapes, known, "here")


def test_factors_come_from_left_to_right() -> None:
    assert [f.name for f in factors(Product((Factor("a"), Sum((Factor("b"), Factor("c"))))))] == [*"abc"]


# ---------------------------------------------------------------- positions

COPIES = st.lists(st.integers(0, 3), min_size=2, max_size=5)


def axes_of_copies(*each: list[int]) -> tuple[list[Array], Array]:
    """Plain axes with channels of their own, and the copies of all of them."""
    axes, start = [], 1
    for counts in each:
        axes.append(np.arange(start, start + len(counts))[:, None])
        start += len(counts)
    return axes, np.array([1, *(c for counts in each for c in counts)])


@given(st.lists(st.lists(st.integers(0, 6), min_size=2, max_size=2), min_size=1, max_size=12), st.integers(0, 99))
def test_removal_keeps_the_order(rows: list[list[int]], seed: int) -> None:
    labels = np.array(rows)
    copies = np.append(1, np.random.default_rng(seed).integers(0, 2, 6))
    taken = take(labels, copies)
    assert taken.old.tolist() == np.flatnonzero(copies[labels].all(1)).tolist()
    assert len(taken.old) == count(labels, copies)


@given(COPIES, COPIES, COPIES)
def test_a_product_of_grown_axes_is_the_grown_product(a: list[int], b: list[int], c: list[int]) -> None:
    axes, copies = axes_of_copies(a, b, c)
    sizes = [len(x) for x in axes]
    whole = product(axes, sizes)
    assert isinstance(whole, np.ndarray)
    data = np.arange(prod(sizes)).reshape(sizes)
    for t, axis in enumerate(axes):
        data = data.take(take(axis, copies).old, t)
    assert take(whole, copies).old.tolist() == data.reshape(-1).tolist()


@given(COPIES, st.integers(2, 4), COPIES)
def test_a_fixed_factor_keeps_its_place_in_a_grown_product(a: list[int], fixed: int, b: list[int]) -> None:
    """(a [f] b) and ([f] a b): what a Flatten behind a convolution does."""
    (x, y), copies = axes_of_copies(a, b)
    for axes, sizes in (([x, 1, y], (len(x), fixed, len(y))), ([1, x, y], (fixed, len(x), len(y)))):
        whole = product(axes, sizes)
        data = np.arange(prod(sizes)).reshape(sizes)
        for t, axis in enumerate(axes):
            if isinstance(axis, np.ndarray):
                data = data.take(take(axis, copies).old, t)
        assert take(np.asarray(whole), copies).old.tolist() == data.reshape(-1).tolist()


@given(COPIES, COPIES)
def test_a_transposed_product_is_the_product_of_the_transposed(a: list[int], b: list[int]) -> None:
    """Channel shuffle: (a b) to (b a), before or after growing."""
    (x, y), copies = axes_of_copies(a, b)
    n, m = len(x), len(y)
    one, other = (np.asarray(product(axes, sizes)) for axes, sizes in (([x, y], (n, m)), ([y, x], (m, n))))
    shuffled = np.arange(n * m).reshape(n, m).T.reshape(-1)  # old position of every shuffled one
    grown = take(one, copies).old.reshape(count(x, copies), count(y, copies)).T.reshape(-1)
    assert shuffled[take(other, copies).old].tolist() == grown.tolist()


@given(COPIES, COPIES, COPIES)
def test_a_concatenation_of_grown_axes_is_the_grown_concatenation(a: list[int], b: list[int], c: list[int]) -> None:
    (x, y, z), copies = axes_of_copies(a, b, c)
    left = np.asarray(product([x, y], (len(x), len(y))))
    whole = np.asarray(stack([left, z], (len(left), len(z))))
    parts = [take(left, copies).old, len(left) + take(z, copies).old]
    assert take(whole, copies).old.tolist() == np.concatenate(parts).tolist()


@given(COPIES, COPIES)
def test_copies_are_numbered(a: list[int], b: list[int]) -> None:
    """Every new position is another (old position, copy of each channel)."""
    (x, y), copies = axes_of_copies(a, b)
    whole = np.asarray(product([x, y], (len(x), len(y))))
    taken = take(whole, copies)
    found = Counter(zip(taken.old.tolist(), map(tuple, taken.copy.tolist()), strict=True))
    wanted = [(p, (i, j)) for p, (u, v) in enumerate(whole) for i in range(copies[u]) for j in range(copies[v])]
    assert found == Counter(wanted)


# ---------------------------------------------------------------- polynomials

TERMS = st.dictionaries(
    st.lists(st.integers(0, 3), max_size=4).map(lambda m: tuple(sorted(m))), st.integers(1, 1000), max_size=6
)
WIDTHS = st.lists(st.integers(0, 60), min_size=4, max_size=4).map(np.array)


def brute(terms: dict[tuple[int, ...], int], widths: Array) -> int:
    return sum(c * prod(int(widths[v]) for v in m) for m, c in terms.items())


@given(TERMS, WIDTHS)
def test_a_polynomial_has_the_value_of_its_terms(terms: dict[tuple[int, ...], int], widths: Array) -> None:
    p = Polynomial.of(terms)
    assert p.value(widths) == brute(terms, widths)
    assert p.terms() == terms


@given(TERMS, WIDTHS)
def test_a_gradient_is_the_derivative(terms: dict[tuple[int, ...], int], widths: Array) -> None:
    """d/dw of w^n is n w^(n-1), by removing one factor at a time."""
    wanted = [
        sum(c * m.count(g) * prod([int(widths[v]) for v in m if v != g] + [int(widths[g])] * (m.count(g) - 1))
            for m, c in terms.items() if g in m)
        for g in range(4)
    ]  # fmt: skip
    assert Polynomial.of(terms).gradient(widths).tolist() == wanted


@given(TERMS, TERMS, WIDTHS)
def test_products_and_sums_of_terms(
    a: dict[tuple[int, ...], int], b: dict[tuple[int, ...], int], widths: Array
) -> None:
    assume(all(len(m) <= 2 for m in (*a, *b)))
    assert brute(multiply(a, b), widths) == brute(a, widths) * brute(b, widths)
    assert brute(add([a, b]), widths) == brute(a, widths) + brute(b, widths)


# ---------------------------------------------------------------- groups


@settings(max_examples=200)
@given(INSTRUCTIONS, st.integers(1, 5))
def test_a_group_is_a_class_of_channels_that_stand_in_the_same_places(
    instructions: list[tuple[str, int, int, int, int]], owned: int
) -> None:
    program = run(instructions)
    found = group(program.channels, program.axes[:owned], program.axes[owned:], 8, 9)
    unique = {id(a): found.arrays[id(a)] for a in program.axes}
    places: list[Counter[tuple[int, int]]] = [Counter() for _ in found.group_of]
    for key, array in unique.items():
        for (_, column), channel in np.ndenumerate(array):
            places[channel][key, column] += 1
    assert found.group_of[0] == -1 and found.widths.sum() == len(found.group_of) - 1
    for g, (start, width) in enumerate(zip(found.starts, found.widths, strict=True)):
        assert (found.group_of[start + 1 : start + 1 + width] == g).all()
    by_place: dict[frozenset[tuple[tuple[int, int], int]], set[int]] = {}
    for channel in range(1, len(places)):
        by_place.setdefault(frozenset(places[channel].items()), set()).add(int(found.group_of[channel]))
    assert sorted(g for groups in by_place.values() for g in groups) == list(range(len(found.widths)))
    in_parameters = {c for a in program.axes[:owned] for c in found.arrays[id(a)].reshape(-1).tolist()}
    assert in_parameters >= set(range(1, len(places)))
    for array in unique.values():
        assert array.shape[1] < 2 or is_regular(found.group_of[array], array, found.widths)


def test_halves_that_are_used_apart_are_two_groups() -> None:
    channels = Channels()
    weight, first, second = channels.fresh(6)[:, None], channels.fresh(3)[:, None], channels.fresh(3)[:, None]
    channels.tie(weight[:3], first, REASON)
    channels.tie(weight[3:], second, REASON)
    assert group(channels, [weight, first, second], [], 8, 9).widths.tolist() == [3, 3]


def test_a_product_with_holes_is_fixed() -> None:
    channels = Channels()
    a, b = channels.fresh(2)[:, None], channels.fresh(2)[:, None]
    grid = np.asarray(product([a, b], (2, 2)))
    assert group(channels, [a, b], [grid], 8, 9).widths.tolist() == [2, 2]
    assert group(channels, [a, b], [grid[[0, 3]]], 8, 9).widths.tolist() == []
    assert channels.why(np.append(a, b)).tolist() == [8, 8, 8, 8]


def test_a_product_of_uneven_use_falls_apart() -> None:
    channels = Channels()
    a, b = channels.fresh(2)[:, None], channels.fresh(2)[:, None]
    grid = np.asarray(product([a, b], (2, 2)))
    assert group(channels, [a, b], [grid[:3]], 8, 9).widths.tolist() == [1, 1, 1, 1]


def test_channels_without_a_parameter_are_fixed() -> None:
    channels = Channels()
    a, b = channels.fresh(2)[:, None], channels.fresh(2)[:, None]
    assert group(channels, [a], [b], 8, 9).widths.tolist() == [2]
    assert channels.why(b[:, 0]).tolist() == [9, 9]


# ---------------------------------------------------------------- budgets and searches


@cache
def network() -> Analysis:
    """Five widths: two of a residual stream's towers, heads x dim, and a depthwise stack."""
    rng = np.random.default_rng(0)
    nodes, weights = [], []

    def op(kind: str, inputs: list[str], output: str, *shapes: tuple[int, ...], **attributes: object) -> str:
        names = [f"{output}.{i}" for i in range(len(shapes))]
        weights.extend(
            numpy_helper.from_array(rng.normal(size=s).astype(np.float32), n)
            for n, s in zip(names, shapes, strict=True)
        )
        nodes.append(helper.make_node(kind, inputs + names, [output], **attributes))
        return output

    stem = op("Conv", ["x"], "stem", (24, 3, 3, 3), (24,), pads=[1, 1, 1, 1])
    wide = op("Conv", [stem], "wide", (40, 24, 1, 1), (40,))
    deep = op("Conv", [wide], "deep", (40, 1, 3, 3), group=40, pads=[1, 1, 1, 1])
    back = op("Conv", [deep], "back", (24, 40, 1, 1))
    total = op("Add", [stem, back], "total")
    side = op("Conv", [total], "side", (9, 24, 1, 1))
    both = op("Concat", [total, side], "both", axis=1)
    last = op("Conv", [both], "last", (5, 33, 1, 1))
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, [1, 5, 8, 8])],
        weights,
    )
    return analyze(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10))


def rounded(base: Array, omega: float, step: Array, full: Array, grow: bool) -> Array:
    """What the docstring of ``multiply`` says, group by group."""
    found = []
    for b, s, f in zip(base.tolist(), step.tolist(), full.tolist(), strict=True):
        smallest = min(s, f, max(b, 1))
        width = int(b * omega + 1e-9)
        cut = width // s * s if width >= s else smallest
        cut = max(cut, smallest)
        if not grow:
            cut = f if width >= f else min(cut, f)
        found.append(cut)
    return np.array(found)


SHARES = st.integers(8, 95).map(lambda share: f"flops={share}%")
BUDGETS = st.one_of(SHARES, SHARES.map(lambda b: b + ",params=60%"), st.just("params=30%,activations=90%"))


@settings(max_examples=60)
@given(BUDGETS, st.sampled_from([1, 4, 8]), st.booleans(), st.integers(1, 5))
def test_the_multiplier_is_the_largest_that_the_budget_allows(text: str, round_to: int, grow: bool, part: int) -> None:
    analysis, budget = network(), Budget.parse(text)
    base = np.maximum(analysis.widths * part // 5, 1)
    try:
        omega, widths = multiply_widths(analysis, base, budget, round_to, grow)
    except BudgetError:
        smallest = rounded(base, 0, steps(analysis, round_to), analysis.widths, grow)
        assert not budget.met(analysis, smallest)
        return
    step = steps(analysis, round_to)
    assert budget.met(analysis, widths)
    uniform = rounded(base, omega, step, analysis.widths, grow)
    assert (uniform <= widths).all() and (widths <= uniform + step).all()
    if not (widths == analysis.widths).all() or grow:
        assert not budget.met(analysis, rounded(base, omega * (1 + 1e-6) + 1e-6, step, analysis.widths, grow))
    for g in np.flatnonzero(widths == uniform):  # those that got no step from what was left over
        more = widths.copy()
        more[g] += step[g] if grow else min(step[g], analysis.widths[g] - widths[g])
        assert (more[g] == widths[g]) or not budget.met(analysis, more)
    on_grid = (widths % step == 0) | (widths < step) | (widths == analysis.widths)
    assert on_grid.all()


@given(st.integers(0, 99))
def test_widths_are_kept_by_score_and_spread_evenly(seed: int) -> None:
    analysis, rng = network(), np.random.default_rng(seed)
    scores = rng.uniform(size=analysis.channels + 1)
    small = np.array([rng.integers(1, g.width + 1) for g in analysis.groups])
    large = np.array([rng.integers(1, 3 * g.width + 1) for g in analysis.groups])
    base = keep_best(analysis, scores, small)
    copies = spread(analysis, base, large)
    for each, few, many in zip(analysis.groups, small, large, strict=True):
        own = slice(each.start + 1, each.start + 1 + each.width)
        assert base[own].sum() == few and copies[own].sum() == many
        assert (copies[own][base[own] == 0] == 0).all()
        living = copies[own][base[own] == 1]
        assert living.max() - living.min() <= 1


def test_the_network_of_these_tests_has_the_groups_it_says() -> None:
    assert {g.id: g.width for g in network().groups} == {"stem.0:0": 24, "wide.0:0": 40, "side.0:0": 9}


LIMITS = st.builds(
    Limit,
    st.sampled_from(COSTS),
    st.one_of(st.integers(1, 200).map(lambda n: n / 100), st.integers(1, 10**12).map(float)),
    st.booleans(),
)


@given(st.lists(LIMITS, min_size=1, max_size=3))
@example([Limit("flops", 0.07, True)])
@example([Limit("params", 1234567.0, False)])
def test_budgets_survive_writing_and_reading(limits: list[Limit]) -> None:
    budget = Budget(tuple(limits))
    found = Budget.parse(str(budget))
    assert [(x.cost, x.relative) for x in found.limits] == [(x.cost, x.relative) for x in limits]
    assert [x.amount for x in found.limits] == pytest.approx([x.amount for x in limits], rel=1e-9)


@pytest.mark.parametrize(
    "text, amount",
    [("flops=2", 2), ("flops=1.5k", 1500), ("FLOPS = 2M".lower(), 2e6), ("flops=3G", 3e9), ("flops=1e3", 1e3),
     ("flops=.5T", 5e11), ("flops=1e-1", 0.1),
     ("peak_memory=64MB", 64e6), ("param_bytes=10MiB", 10 * 2**20), ("bytes_moved=3kB", 3000),
     ("bytes_moved=3 kb", 3000), ("activation_bytes=1.5GiB", 1.5 * 2**30), ("param_bytes=7", 7),
     ("param_bytes=7B", 7), ("param_bytes=2M", 2e6),
     ("latency=3ms", 3e-3), ("latency=250 us", 250e-6), ("latency=250µs", 250e-6), ("latency=250μs", 250e-6),
     ("classic_latency=40ns", 40e-9), ("latency=1.5s", 1.5)],
)  # fmt: skip
def test_units_of_budgets(text: str, amount: float) -> None:
    found = Budget.parse(text)
    assert found.limits == (Limit(text.partition("=")[0].strip(), pytest.approx(amount), False),)
    assert Budget.parse(str(found)).limits[0].amount == pytest.approx(amount)


@pytest.mark.parametrize(
    "text, code",
    [("", "budget"), ("flops", "budget"), ("flops=", "budget"), ("flops=half", "budget"), ("flops=0", "budget"),
     ("flops=0%", "budget"), ("flops=-5%", "budget"), ("flops=1.2.3", "budget"), ("flops=.", "budget"),
     ("flops=50%;params=1", "budget"), ("flops=50%,", "budget"), ("flops=5X", "budget-unit"),
     ("speed=5", "budget-cost"),
     ("flops=5ms", "budget-unit"), ("flops=5MB", "budget-unit"),
     ("latency=3", "budget-unit"), ("latency=3M", "budget-unit"), ("peak_memory=3ms", "budget-unit")],
)  # fmt: skip
def test_a_budget_that_cannot_be_read_is_refused(text: str, code: str) -> None:
    with pytest.raises(BudgetError) as caught:
        Budget.parse(text)
    assert caught.value.code == code


def test_a_latency_without_a_unit_is_asked_for_one() -> None:
    with pytest.raises(BudgetError, match="write a unit behind 3: one of ns, us, µs, ms, s"):
        Budget.parse("flops=50%,latency=3")


@pytest.mark.parametrize("text", ["latency=50%", "latency=3ms"])
def test_a_latency_needs_a_device(text: str) -> None:
    budget = Budget.parse(text)
    for ask in (budget.absolute, budget.resources):
        with pytest.raises(BudgetError, match="--device") as caught:
            ask(network())
        assert caught.value.code == "budget-device"


def test_a_latency_is_not_rounded() -> None:
    budget = Budget.parse("latency=50%")
    seconds = network().with_costs(latency=Polynomial.of({(0,): 0.5, (): 0.25}))
    assert budget.absolute(seconds) == {"latency": seconds.costs["latency"].value(seconds.widths) / 2}
    assert Budget.parse("latency=2.5ms").absolute(seconds) == {"latency": 0.0025}


def test_the_tightest_of_several_limits_holds() -> None:
    for text in ("flops=50%,flops=20%", "flops=20%,flops=50%"):
        assert Budget.parse(text).absolute(network()) == Budget.parse("flops=20%").absolute(network())


def test_a_budget_out_of_reach_names_the_smallest_cost() -> None:
    analysis = network()
    least = analysis.costs["params"].value(np.ones(len(analysis.groups), np.int64))
    search: Callable[..., object]
    for search in (select, multiply_widths):
        first = np.zeros(analysis.channels + 1) if search is select else analysis.widths
        with pytest.raises(BudgetError, match=f"params cannot go below {least:,}"):
            search(analysis, first, Budget.parse("params=1%"))
