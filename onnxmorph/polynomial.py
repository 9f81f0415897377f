"""Polynomials in the group widths, with exact integer coefficients."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Widths = NDArray[np.int64]
Number = int | float  # a float only for halves of bytes: tensors of 4-bit numbers
Monomial = tuple[int, ...]  # variable numbers, ascending, repeated for powers
Terms = Mapping[Monomial, Number]
CHUNK = 1 << 22  # numbers that a sweep holds at once


class Resource(Protocol):
    """What a network of given widths takes of something: a polynomial, or what is made of several."""

    def value(self, widths: Widths) -> Number:
        """How much at these widths, ``[groups]``."""

    def gradient(self, widths: Widths) -> NDArray[Any]:
        """How much one channel of every group takes at these widths, ``[groups]``."""


@runtime_checkable
class Stepped(Protocol):
    """A resource that rewards multiples, as a device does whose kernels work on whole vectors."""

    @property
    def multiples(self) -> NDArray[np.int64]:
        """The multiple that the width of every group should be, ``[groups]``; 1 where none is better than others."""


@runtime_checkable
class Uneven(Protocol):
    """A resource that may rise although a width falls."""

    @property
    def rises(self) -> NDArray[np.bool_]:
        """The groups with which it may, ``[groups]``."""


@runtime_checkable
class Swept(Protocol):
    """A resource that is evaluated at many widths at once faster than one by one."""

    def sweep(self, many: Widths) -> NDArray[np.float64]:
        """How much at each of these widths, ``[n, groups] -> [n]``, to float64's precision."""


def sweep(resource: Resource, many: Widths) -> NDArray[np.float64]:
    """The resource at each of many widths, ``[n, groups] -> [n]``."""
    if isinstance(resource, Swept):
        return resource.sweep(many)
    return np.array([resource.value(widths) for widths in many], float)


@dataclass(frozen=True, eq=False)
class Polynomial:
    """``sum_t coefficients[t] * prod_j widths[variables[t, j]]``, evaluated on whole arrays.

    ``variables`` is ``[terms, degree]``; entry -1 stands for the constant 1.

    >>> p = Polynomial.of({(0, 1): 6, (): 5})
    >>> p.value(np.array([2, 3])), p.gradient(np.array([2, 3])).tolist()
    (41, [18, 12])
    """

    coefficients: NDArray[Any]
    variables: NDArray[np.int64]

    @staticmethod
    def of(terms: Terms) -> Polynomial:
        """From monomials to coefficients."""
        kept = {m: c for m, c in terms.items() if c}
        degree = max((len(m) for m in kept), default=0)
        variables = np.full((len(kept), degree), -1, np.int64)
        for row, monomial in enumerate(kept):
            variables[row, : len(monomial)] = monomial
        return Polynomial(_coefficients(kept), variables)

    def terms(self) -> dict[Monomial, Number]:
        """The monomials and their coefficients."""
        return {
            tuple(int(v) for v in row if v >= 0): c
            for c, row in zip(self.coefficients.tolist(), self.variables, strict=True)
        }

    def factors(self, widths: Widths) -> Widths:
        """The widths that every term multiplies, ``[terms, degree]``; of several networks, ``[..., terms, degree]``."""
        widths = np.asarray(widths, np.int64)
        with_one = np.concatenate([widths, np.ones((*widths.shape[:-1], 1), np.int64)], -1)  # what -1 stands for
        return np.asarray(with_one[..., self.variables])

    def value(self, widths: Widths) -> int:
        """The cost at these widths, exact, halves rounded up; `widths` is ``[groups]``."""
        if not len(self.coefficients):
            return 0
        factors = self.factors(widths)
        rough = np.abs(self.coefficients.astype(float)) @ factors.astype(float).prod(1)
        exact = object if rough > 2**62 else np.int64  # Python's integers know no overflow
        if self.coefficients.dtype == float:
            return ceil(float(self.coefficients @ factors.astype(float).prod(1)))
        return int(self.coefficients.astype(exact) @ factors.astype(exact).prod(1))

    def sweep(self, many: Widths) -> NDArray[np.float64]:
        """The cost at each of many widths, ``[n, groups] -> [n]``, to float64's precision."""
        rows = max(1, CHUNK // max(1, self.variables.size))
        parts = (self.each(many[i : i + rows]).sum(1) for i in range(0, len(many), rows))
        result: NDArray[np.float64] = np.ceil(np.concatenate([np.zeros(0), *parts]))
        return result

    def each(self, many: Widths) -> NDArray[np.float64]:
        """Every term at each of many widths, ``[n, groups] -> [n, terms]``."""
        padded = np.concatenate([many, np.ones((len(many), 1), np.int64)], 1).T.astype(float)
        result = np.repeat(self.coefficients.astype(float)[:, None], len(many), 1)
        for factors in self.variables.T:
            result *= padded[factors]  # whole rows are picked, which is faster than single numbers
        return result.T

    def gradient(self, widths: Widths) -> NDArray[Any]:
        """The price of one channel of every group at these widths, ``[groups]``."""
        result = np.zeros(len(widths) + 1, self.coefficients.dtype)
        present = self.factors(widths)
        for j in range(self.variables.shape[1]):
            rest = np.delete(present, j, 1).prod(1) * self.coefficients
            np.add.at(result, self.variables[:, j], rest)  # -1 lands in the spare last entry
        return result[:-1]

    def __str__(self) -> str:
        def monomial(m: Monomial, c: Number) -> str:
            return "·".join([str(c)] * (c != 1 or not m) + [f"w{v}" for v in m])

        return (
            " + ".join(monomial(m, c) for m, c in sorted(self.terms().items(), key=lambda t: (-len(t[0]), t[0]))) or "0"
        )


@dataclass(frozen=True, eq=False)
class Polynomials:
    """Several polynomials, evaluated at once: term ``t`` of ``whole`` belongs to polynomial ``rows[t]`` of ``count``.

    >>> both = Polynomials.of([{(0,): 2}, {(0, 1): 1, (): 5}])
    >>> both.values(np.array([3, 4])).tolist(), both.gradient(np.array([3, 4]), np.array([1, 10])).tolist()
    ([6, 17], [42, 30])
    """

    whole: Polynomial
    rows: NDArray[np.int64]
    count: int

    @staticmethod
    def of(many: Sequence[Terms]) -> Polynomials:
        """From the terms of each."""
        flat = [(row, m, c) for row, terms in enumerate(many) for m, c in terms.items() if c]
        degree = max((len(m) for _, m, _ in flat), default=0)
        variables = np.full((len(flat), degree), -1, np.int64)
        for t, (_, monomial, _) in enumerate(flat):
            variables[t, : len(monomial)] = monomial
        whole = Polynomial(_coefficients({t: c for t, (_, _, c) in enumerate(flat)}), variables)
        return Polynomials(whole, np.array([row for row, _, _ in flat], np.int64), len(many))

    def values(self, widths: Widths) -> NDArray[Any]:
        """Every polynomial at these widths: ``[groups]`` to ``[count]``, or ``[..., groups]`` to ``[..., count]``."""
        kind = self.whole.coefficients.dtype
        terms = self.whole.coefficients * self.whole.factors(widths).astype(kind).prod(-1)
        result = np.zeros((*terms.shape[:-1], self.count), kind)
        np.add.at(result, (..., self.rows), terms)  # type: ignore[arg-type] # numpy's stubs know no tuple here
        return result

    def gradient(self, widths: Widths, weights: NDArray[Any]) -> NDArray[Any]:
        """The gradient of ``weights @ values(widths)``, ``[groups]``; `weights` is ``[count]``."""
        scaled = self.whole.coefficients * np.asarray(weights)[self.rows]
        return Polynomial(scaled, self.whole.variables).gradient(widths)


def _coefficients(of: Mapping[Any, Number]) -> NDArray[Any]:
    """As integers: of Python where they are huge, for these are exact; as floats where there are halves."""
    numbers = list(of.values())
    if any(isinstance(c, float) for c in numbers):
        return np.array(numbers, float)
    return np.array(numbers, object if any(abs(c) >= 2**53 for c in numbers) else np.int64)


def multiply(a: Terms, b: Terms) -> dict[Monomial, Number]:
    """The product of two term tables."""
    for one, other in ((a, b), (b, a)):
        if len(one) == 1 and () in one:
            return {m: c * one[()] for m, c in other.items()}
    result: dict[Monomial, Number] = {}
    for m, c in a.items():
        for n, d in b.items():
            key = tuple(sorted(m + n))
            result[key] = result.get(key, 0) + c * d
    return result


def add(parts: Iterable[Terms]) -> dict[Monomial, Number]:
    """The sum of term tables."""
    result: dict[Monomial, Number] = {}
    for part in parts:
        for m, c in part.items():
            result[m] = result.get(m, 0) + c
    return result
