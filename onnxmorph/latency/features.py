"""What the time of a kernel may depend on, as numbers that are added up with coefficients measured on a device.

Kernels of one *kind* share their coefficients: same op at the anchor, same factors of more than one position, same
factors that channels stand on (marked ``*``), as in ``Conv i* k o* z``. The features are a kernel's work
(multiply-accumulates; else operations; else elements written), its bytes, and one start; its work with sizes rounded up
to multiples, for it runs in vectors and blocks; its work per position, for what is done once a row; and work and bytes
where a size is off a multiple, for data that have to be laid out anew. A kernel with a size off the multiple of vectors
(``off``) may run another way than one on it (``on``). Steps and plateaus are kept, not smoothed away.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations

import numpy as np

from onnxmorph.analysis import Analysis
from onnxmorph.axes import Floats, Mask
from onnxmorph.latency.kernels import Kernel
from onnxmorph.polynomial import Polynomials, Terms, Widths

MULTIPLES = (4, 8, 16, 32)  # of elements in vectors and blocks: 16 to 128 bytes of float32
VECTOR, BLOCK = 4, 16  # where a runtime changes to kernels for blocked data, and their blocks
MOST = 3  # factors of a kernel that are looked at, those of most positions
ANY = "*"  # the kind that every kernel is of
PLAIN = ("start", "bytes", "work")  # the features of any kernel


@dataclass(frozen=True, eq=False)
class Kind:
    """The kernels of one kind in a network: their numbers, and their sizes as polynomials.

    ``sizes`` are per kernel and varying factor, kernel by kernel: ``[members * len(varying)]``.
    """

    name: str
    members: tuple[int, ...]
    varying: tuple[str, ...]
    work: Polynomials
    bytes: Polynomials
    sizes: Polynomials
    times: Floats

    def features(self, widths: Widths) -> dict[str, Callable[[], Floats]]:
        """Every feature of every member at several widths, each to be called for.

        `widths` is ``[variants, groups]``, a feature ``[variants, members]``.
        """
        work, moved = (each.values(widths).astype(float) for each in (self.work, self.bytes))
        start = np.broadcast_to(self.times, work.shape)
        sizes = self.sizes.values(widths).astype(float).reshape(*work.shape, len(self.varying))
        sizes = np.maximum(sizes, 1)
        grown = {q: np.ceil(sizes / q) * q / sizes for q in MULTIPLES}
        off = {q: grown[q] > 1 for q in MULTIPLES}  # [variants, members, varying]
        off_any = {q: off[q].any(-1) for q in (VECTOR, BLOCK)}
        on = ~off_any[VECTOR]

        def rounded(q: int, factors: Sequence[int], where: Mask | bool = True) -> Floats:
            return np.asarray(work * grown[q][..., factors].prod(-1) * where)

        def per(f: int, where: Mask | bool = True) -> Floats:
            return np.asarray(work / sizes[..., f] * where)

        def rounded_per(f: int) -> Floats:
            return np.asarray(rounded(BLOCK, every) / (sizes * grown[BLOCK])[..., f])

        def only(of: Floats, where: Mask) -> Floats:
            return np.asarray(of * where)

        every = range(len(self.varying))
        found: dict[str, Callable[[], Floats]] = {
            "start": lambda: start, "bytes": lambda: moved, "work": lambda: work,
        }  # fmt: skip
        if not self.varying:
            return found
        found |= {f"work|{q}": partial(rounded, q, every) for q in MULTIPLES}
        found["start off"] = partial(only, start, ~on)
        found["bytes on"] = partial(only, moved, on)
        found[f"work|{BLOCK} on"] = partial(rounded, BLOCK, every, on)
        found[f"work|{BLOCK} off"] = partial(rounded, BLOCK, every, ~on)
        for q, where in off_any.items():
            found |= {
                f"work off any/{q}": partial(only, work, where),
                f"bytes off any/{q}": partial(only, moved, where),
            }
        for f, name in enumerate(self.varying):
            found |= {f"work|{name}/{q}": partial(rounded, q, [f]) for q in MULTIPLES}
            found |= {f"work per {name}": partial(per, f), f"work|{BLOCK} per {name}": partial(rounded_per, f)}
            found[f"work|{name}/{BLOCK} on"] = partial(rounded, BLOCK, [f], on)
            found[f"work per {name} off"] = partial(per, f, ~on)
            for q in MULTIPLES[:-1]:
                found[f"work off {name}/{q}"] = partial(only, work, off[q][..., f])
                found[f"bytes off {name}/{q}"] = partial(only, moved, off[q][..., f])
        for (f, one), (g, other) in combinations(enumerate(self.varying), 2):
            both = off[BLOCK][..., f] & off[BLOCK][..., g]
            found[f"work off {one},{other}/{BLOCK}"] = partial(only, work, both)
            found[f"bytes off {one},{other}/{BLOCK}"] = partial(only, moved, both)
        return found


def kinds(analysis: Analysis, found: Sequence[Kernel]) -> tuple[Kind, ...]:
    """The kernels of a network by kind."""
    described = [_described(analysis, kernel) for kernel in found]
    result = []
    for name in dict.fromkeys(d.name for d in described):
        members = [k for k, d in enumerate(described) if d.name == name]
        own = [described[k] for k in members]
        result.append(
            Kind(
                name,
                tuple(members),
                own[0].varying,
                Polynomials.of([d.work for d in own]),
                Polynomials.of([found[k].bytes for k in members]),
                Polynomials.of([size for d in own for size in d.sizes]),
                np.array([found[k].times for k in members], float),
            )
        )
    return tuple(result)


@dataclass(frozen=True)
class _Described:
    name: str
    varying: tuple[str, ...]
    work: Terms
    sizes: tuple[Terms, ...]


def _described(analysis: Analysis, kernel: Kernel) -> _Described:
    step = kernel.steps[0]
    plan, rows = analysis.plans[step], analysis.factor_rows[step]
    vary = sorted((f for f in plan.sizes if rows.get(f) is not None), key=lambda f: (-plan.sizes[f], f))[:MOST]
    names = dict(_distinct(sorted(f for f in plan.sizes if plan.sizes[f] > 1 or f in vary)))
    varying = sorted(vary, key=lambda f: names[f])
    title = [plan.node.type, *sorted(names[f] + "*" * (f in vary) for f in names)]
    costs = (analysis.op_costs[cost][step].terms() for cost in ("macs", "flops", "activations"))
    work: Terms = next((each for each in costs if each), {(): kernel.times})
    sizes = tuple(analysis.sizes(rows[f], plan.sizes[f]) for f in varying)
    return _Described(" ".join(title), tuple(names[f] for f in varying), work, sizes)


def _distinct(names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Numbered factors (``a0 a3``) by what they are called and which of several they are (``a a'``)."""
    seen: dict[str, int] = {}
    for name in names:
        base = re.sub(r"~?\d+$", "", name)
        yield name, base + "'" * seen.get(base, 0)
        seen[base] = seen.get(base, 0) + 1
