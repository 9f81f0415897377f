"""Polynomials in the group widths, with exact integer coefficients."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Widths = NDArray[np.int64]
Monomial = tuple[int, ...]  # variable numbers, ascending, repeated for powers
Terms = Mapping[Monomial, int]


@dataclass(frozen=True, eq=False)
class Polynomial:
    """``sum_t coefficients[t] * prod_j widths[variables[t, j]]``, evaluated on whole arrays.

    ``variables`` is ``[terms, degree]``; entry -1 stands for the constant 1.

    >>> p = Polynomial.of({(0, 1): 6, (): 5})
    >>> p.value(np.array([2, 3])), p.gradient(np.array([2, 3])).tolist()
    (41, [18, 12])
    """

    coefficients: NDArray[np.int64]
    variables: NDArray[np.int64]

    @staticmethod
    def of(terms: Terms) -> Polynomial:
        """From monomials to coefficients."""
        kept = {m: c for m, c in terms.items() if c}
        degree = max((len(m) for m in kept), default=0)
        variables = np.full((len(kept), degree), -1, np.int64)
        for row, monomial in enumerate(kept):
            variables[row, : len(monomial)] = monomial
        huge = any(abs(c) >= 2**53 for c in kept.values())  # exact in Python's integers, then
        return Polynomial(np.array(list(kept.values()), object if huge else np.int64), variables)

    def terms(self) -> dict[Monomial, int]:
        """The monomials and their coefficients."""
        return {
            tuple(int(v) for v in row if v >= 0): int(c)
            for c, row in zip(self.coefficients, self.variables, strict=True)
        }

    def _factors(self, widths: Widths) -> Widths:
        return np.append(np.asarray(widths, np.int64), 1)[self.variables]

    def value(self, widths: Widths) -> int:
        """The cost at these widths, exact; `widths` is ``[groups]``."""
        if not len(self.coefficients):
            return 0
        factors = self._factors(widths)
        rough = np.abs(self.coefficients.astype(float)) @ factors.astype(float).prod(1)
        exact = object if rough > 2**62 else np.int64  # Python's integers know no overflow
        return int(self.coefficients.astype(exact) @ factors.astype(exact).prod(1))

    def gradient(self, widths: Widths) -> Widths:
        """The price of one channel of every group at these widths, ``[groups]``."""
        result = np.zeros(len(widths) + 1, self.coefficients.dtype)
        present = self._factors(widths)
        for j in range(self.variables.shape[1]):
            rest = np.delete(present, j, 1).prod(1) * self.coefficients
            np.add.at(result, self.variables[:, j], rest)  # -1 lands in the spare last entry
        return result[:-1]

    def __str__(self) -> str:
        def monomial(m: Monomial, c: int) -> str:
            return "·".join([str(c)] * (c != 1 or not m) + [f"w{v}" for v in m])

        return (
            " + ".join(monomial(m, c) for m, c in sorted(self.terms().items(), key=lambda t: (-len(t[0]), t[0]))) or "0"
        )


def multiply(a: Terms, b: Terms) -> dict[Monomial, int]:
    """The product of two term tables."""
    for one, other in ((a, b), (b, a)):
        if len(one) == 1 and () in one:
            return {m: c * one[()] for m, c in other.items()}
    result: dict[Monomial, int] = {}
    for m, c in a.items():
        for n, d in b.items():
            key = tuple(sorted(m + n))
            result[key] = result.get(key, 0) + c * d
    return result


def add(parts: Iterable[Terms]) -> dict[Monomial, int]:
    """The sum of term tables."""
    result: dict[Monomial, int] = {}
    for part in parts:
        for m, c in part.items():
            result[m] = result.get(m, 0) + c
    return result
