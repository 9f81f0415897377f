"""The equations in which rules are written, and their parser.

    Conv      n (g i) [y...], (g o) i [k...], (g o) -> n (g o) z...

Tensors are separated by commas, axes by spaces. A name is a *factor*; the same factor has the same size and
the same channels wherever it stands.

    a           a factor that is an axis
    (a b)       an ordered product of factors, `a` outermost
    (a + b)     a concatenation
    [a]         fixed: the op depends on the positions of a
    {a}         averaged: positions may go, but what remains is normalised over the live ones
    a...        as many axes as the rank leaves, aligned to the right and broadcast as ONNX does
    1           an axis of one position
    _           a tensor of values: no channels (a shape, an index, a bound)
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from onnxmorph.errors import RuleError


@dataclass(frozen=True)
class Factor:
    """One named size; ``many`` marks ``name...`` before it is bound to a rank."""

    name: str
    many: bool = False


@dataclass(frozen=True)
class Product:
    """``(a b)``: row-major product of terms."""

    terms: tuple[Term, ...]


@dataclass(frozen=True)
class Sum:
    """``(a + b)``: concatenation of terms."""

    terms: tuple[Term, ...]


Term = Factor | Product | Sum


@dataclass(frozen=True)
class Equation:
    """A parsed equation: per tensor its axes (None for ``_``), and the factors that are fixed or averaged."""

    inputs: tuple[tuple[Term, ...] | None, ...]
    outputs: tuple[tuple[Term, ...] | None, ...]
    fixed: frozenset[str]
    averaged: frozenset[str]


_TOKEN = re.compile(r"\s*([A-Za-z][A-Za-z0-9]*(?:\.\.\.)?|[][(){}+,_1]|->)")


@lru_cache(maxsize=4096)
def parse(text: str) -> Equation:
    """Parse an equation.

    >>> parse("n (g i), (g o) i -> n (g o)").outputs
    ((Factor(name='n', many=False), Product(terms=(Factor(name='g', many=False), Factor(name='o', many=False)))),)

    Raises:
        RuleError: the text is not an equation; the message shows where.
    """
    return _Parser(text).equation()


@lru_cache(maxsize=4096)
def parse_term(text: str) -> Term:
    """Parse one axis, e.g. ``"(g c)"``."""
    axes = parse(f"{text} -> _").inputs[0]
    if axes is None or len(axes) != 1:
        raise RuleError(f"{text!r} is not one axis", code="notation")
    return axes[0]


class _Parser:
    def __init__(self, text: str) -> None:
        self.text, self.tokens, at = text, list[str](), 0
        self.fixed, self.averaged = set[str](), set[str]()
        while at < len(text.rstrip()):
            found = _TOKEN.match(text, at)
            if not found:
                raise RuleError(f"equation {text!r}: cannot read {text[at:]!r}", code="notation")
            self.tokens.append(found[1])
            at = found.end()
        self.at = 0

    def equation(self) -> Equation:
        inputs = self.side()
        self.expect("->")
        outputs = self.side()
        if self.peek():
            raise RuleError(f"equation {self.text!r}: {self.peek()!r} is left over", code="notation")
        return Equation(inputs, outputs, frozenset(self.fixed), frozenset(self.averaged))

    def peek(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def expect(self, token: str) -> None:
        if self.peek() != token:
            raise RuleError(f"equation {self.text!r}: expected {token!r}, found {self.peek()!r}", code="notation")
        self.at += 1

    def side(self) -> tuple[tuple[Term, ...] | None, ...]:
        tensors: list[tuple[Term, ...] | None] = [self.tensor()]
        while self.peek() == ",":
            self.at += 1
            tensors.append(self.tensor())
        return tuple(tensors)

    def tensor(self) -> tuple[Term, ...] | None:
        if self.peek() == "_":
            self.at += 1
            return None
        axes = []
        while self.peek() not in (",", "->", ""):
            axes.append(self.term())
        return tuple(axes)

    def term(self) -> Term:
        token = self.peek()
        self.at += 1
        if token == "1":
            return Product(())
        if token == "(":
            return self.group()
        if token in ("[", "{"):
            start, terms = self.at, [self.term()]
            while self.peek() != ("]" if token == "[" else "}"):
                terms.append(self.term())
            names = {t.rstrip(".") for t in self.tokens[start : self.at] if t[0].isalpha()}
            (self.fixed if token == "[" else self.averaged).update(names)
            self.at += 1
            return terms[0] if len(terms) == 1 else Product(tuple(terms))
        if token[:1].isalpha():
            return Factor(token.rstrip("."), token.endswith("..."))
        raise RuleError(f"equation {self.text!r}: unexpected {token!r}", code="notation")

    def group(self) -> Term:
        parts: list[list[Term]] = [[]]
        while self.peek() != ")":
            if self.peek() == "+":
                self.at += 1
                parts.append([])
            else:
                parts[-1].append(self.term())
        self.at += 1
        terms = tuple(part[0] if len(part) == 1 else Product(tuple(part)) for part in parts)
        return Sum(terms) if len(terms) > 1 else Product(tuple(parts[0]))


@lru_cache(maxsize=4096)
def bind(text: str, ranks: tuple[tuple[int, ...], tuple[int, ...]]) -> Equation:
    """Parse an equation and replace every ``name...`` by as many factors as the ranks ask for.

    They are numbered from the right.

    Args:
        text: the equation.
        ranks: the ranks of the inputs and of the outputs; -1 for a tensor that is absent.
    """
    equation = parse(text)
    sides = [
        tuple(
            None if axes is None or rank < 0 else tuple(_spread(axes, rank))
            for axes, rank in zip(side, of, strict=False)
        )
        for side, of in zip((equation.inputs, equation.outputs), ranks, strict=True)
    ]
    names = {f.name for side in sides for axes in side if axes for axis in axes for f in factors(axis)}
    fixed, averaged = (
        frozenset(n for n in names if n.split("~")[0] in marked) for marked in (equation.fixed, equation.averaged)
    )
    return Equation(sides[0], sides[1], fixed, averaged)


def _spread(axes: tuple[Term, ...], rank: int) -> Iterator[Term]:
    spare = rank - sum(not (isinstance(a, Factor) and a.many) for a in axes)
    for axis in axes:
        if isinstance(axis, Factor) and axis.many:
            yield from (Factor(f"{axis.name}~{i}") for i in range(spare - 1, -1, -1))
        else:
            yield axis


def factors(term: Term) -> Iterator[Factor]:
    """The factors of a term, left to right."""
    if isinstance(term, Factor):
        yield term
    else:
        for each in term.terms:
            yield from factors(each)


def size_of(term: Term, sizes: Mapping[str, int]) -> int:
    """The number of positions of a term."""
    if isinstance(term, Factor):
        return sizes[term.name]
    parts = [size_of(each, sizes) for each in term.terms]
    if isinstance(term, Sum):
        return sum(parts)
    total = 1
    for part in parts:
        total *= part
    return total


def solve_sizes(
    equation: Equation, shapes: Sequence[Sequence[Sequence[int] | None]], known: Mapping[str, int], where: str
) -> dict[str, int]:
    """The size of every factor of a bound equation.

    Args:
        equation: bound to the ranks of `shapes`.
        shapes: the shapes of the inputs and of the outputs.
        known: sizes that the op's attributes give.
        where: names the node in errors.

    Raises:
        RuleError: a size is contradictory or cannot be found.
    """
    sizes = dict(known)
    pending: list[tuple[Term, int]] = []
    for side, of in zip((equation.inputs, equation.outputs), shapes, strict=True):
        for axes, shape in zip(side, of, strict=False):
            if axes is None or shape is None:
                continue
            if len(axes) != len(shape):
                raise RuleError(f"{where}: a tensor of shape {tuple(shape)} does not fit its rule", code="rule-rank")
            for axis, size in zip(axes, shape, strict=True):
                if isinstance(axis, Factor):
                    old = sizes.get(axis.name, size)
                    if old != size and 1 not in (old, size):
                        message = f"{where}: factor {axis.name} is both {old} and {size}"
                        raise RuleError(message, code="rule-size")
                    sizes[axis.name] = size if old == 1 else old
                else:
                    pending.append((axis, size))
    while pending:
        left = [(term, size) for term, size in pending if not _solve(term, size, sizes, where)]
        if len(left) == len(pending):
            raise RuleError(f"{where}: the sizes of its factors cannot be found", code="rule-size")
        pending = left
    return sizes


def result_shapes(
    text: str, shapes: Sequence[Sequence[int] | None], known: Mapping[str, int], where: str
) -> list[tuple[int, ...] | None]:
    """The shapes of the outputs; None where the sizes of the inputs and the known ones do not tell.

    >>> result_shapes("b... m k, b... k n -> b... m n", [(2, 3, 4), (4, 5)], {}, "")
    [(2, 3, 5)]

    Raises:
        RuleError: the shapes do not fit the equation.
    """
    equation = parse(text)
    many: dict[str, int] = {}
    for axes, shape in zip(equation.inputs, shapes, strict=False):
        for axis in axes or () if shape is not None else ():
            if isinstance(axis, Factor) and axis.many:
                rank = len(shape or ()) - sum(not (isinstance(a, Factor) and a.many) for a in axes or ())
                many[axis.name] = max(many.get(axis.name, 0), rank)
    for name in known:  # z~0, z~1, …
        base, _, number = name.partition("~")
        if number:
            many[base] = max(many.get(base, 0), int(number) + 1)
    ranks = [-1 if s is None else len(s) for s in shapes]
    after = [
        -1 if axes is None else sum(many.get(a.name, 0) if isinstance(a, Factor) and a.many else 1 for a in axes)
        for axes in equation.outputs
    ]
    bound = bind(text, (tuple(ranks), tuple(after)))
    sizes = solve_sizes(bound, (shapes, [None] * len(after)), known, where)
    return [
        None
        if axes is None or any(f.name not in sizes for axis in axes for f in factors(axis))
        else tuple(size_of(axis, sizes) for axis in axes)
        for axes in bound.outputs
    ]


def _solve(term: Term, size: int, sizes: dict[str, int], where: str) -> bool:
    """Find the one unknown size of a term; False while there are two."""
    unknown = [f.name for f in factors(term) if f.name not in sizes]
    if len(unknown) > 1:
        return False
    if unknown:
        assert isinstance(term, (Product, Sum)) and all(isinstance(t, Factor) for t in term.terms), term
        rest = size_of(type(term)(tuple(f for f in factors(term) if f.name in sizes)), sizes)
        sizes[unknown[0]] = size - rest if isinstance(term, Sum) else size // max(rest, 1)
    if size_of(term, sizes) != size and size != 1:
        message = f"{where}: an axis of {size} positions does not fit its rule ({size_of(term, sizes)})"
        raise RuleError(message, code="rule-size")
    return True
