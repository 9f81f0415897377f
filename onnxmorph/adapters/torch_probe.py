"""What a module can be cut to, found by trying: sizes may stand in Python code that no export shows."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from onnxmorph.adapters.torch_layers import KNOWN
from onnxmorph.adapters.torch_resize import Hook, resize, tensors
from onnxmorph.adapters.torch_sizes import Sizes, read_sizes, search, units, without
from onnxmorph.analysis import Analysis
from onnxmorph.axes import Array
from onnxmorph.structure import Structure
from onnxmorph.surgery.emit import emit

Outputs = list[NDArray[Any]]
Place = tuple[str, int]  # an axis of a parameter

SAME = 1e-3  # relative; networks that differ in a channel differ by far more, by rounding far less
EXACT = 1e-5  # relative; zeroing what is silent already changes only the order of sums


@dataclass
class Probe:
    """A copy of the module with random weights, to try cuts on: weights of 0 or 1 would hide a wrong one.

    ``sizes`` are those of the module's attributes that are tried along.
    """

    analysis: Analysis
    inputs: tuple[Tensor, ...]
    module: nn.Module
    on_resize: Hook | None = None
    weights: dict[str, Tensor] = field(default_factory=dict)
    sizes: Sizes = field(default_factory=dict)
    expected: dict[tuple[frozenset[int], int], Outputs] = field(default_factory=dict)

    @staticmethod
    def of(module: nn.Module, inputs: tuple[Tensor, ...], analysis: Analysis, on_resize: Hook | None) -> Probe:
        """Make the copy, in eval mode."""
        probe = Probe(analysis, inputs, copy.deepcopy(module).eval(), on_resize)
        by_name = tensors(probe.module)
        rng = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for name in analysis.parameters.keys() & by_name.keys():
                tensor = by_name[name]
                if tensor.ndim > 1:
                    noise = torch.randn(tensor.shape, generator=rng) / max(1, tensor[0].numel()) ** 0.5
                else:
                    noise = torch.rand(tensor.shape, generator=rng) + 0.5
                probe.weights[name] = tensor.copy_(noise)
        return probe

    def forward(self, module: nn.Module) -> Outputs:
        """What a module says to the inputs."""
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _flat(module(*self.inputs))

    def masked(self, places: Iterable[Place], alive: NDArray[np.bool_]) -> Outputs:
        """What the whole module says with the positions of dead channels zero at these places."""
        changed: dict[str, Tensor] = {}
        for name, axis in places:
            tensor = changed.setdefault(name, self.weights[name].detach().clone())
            rows = self.analysis.rows[name][axis]
            assert rows is not None
            dead = torch.from_numpy(np.flatnonzero(~alive[rows].all(1))).to(tensor.device)
            tensor.index_fill_(axis, dead, 0)
        with torch.no_grad():
            return _flat(torch.func.functional_call(self.module, changed, self.inputs))

    def cut(self, groups: frozenset[int], trial: int) -> Array:
        """Copies that take some channels of these groups; which is random.

        Trial 0 leaves one channel of each, trial 1 takes one, trial 2 any number. Then each trial cuts those
        whose number (among them) has a certain bit, or those that have it not: of two groups that only fit
        when cut alike (halves of a split), each is so cut without the other once.
        """
        rng = np.random.default_rng(trial)
        copies = np.ones(self.analysis.channels + 1, np.int64)
        bit, polarity = divmod(trial - 3, 2)
        for number, g in enumerate(sorted(groups)):
            if trial < 3 or number >> bit & 1 == polarity:
                group = self.analysis.groups[g]
                lost = {0: group.width - 1, 1: 1}.get(trial, int(rng.integers(1, group.width)))
                copies[group.start + 1 + rng.permutation(group.width)[:lost]] = 0
        return copies

    def resized_wrongly(self, groups: frozenset[int], trial: int) -> str | None:
        """Why the resized module is not the rewritten graph when these groups are cut; None where it is."""
        copies = self.cut(groups, trial)
        structure = Structure.of(self.analysis, copies, attributes=self.sizes)
        try:
            small = resize(self.module, structure, self.on_resize)
            mine = self.forward(small)
        except Exception as error:  # the user's code may raise anything
            return f"resized, the module raises {type(error).__name__}: {' '.join(str(error).split())[:120]}"
        if (groups, trial) not in self.expected:
            by_name = tensors(small)
            arrays = {name: by_name[name].detach().cpu().numpy() for name in self.weights}
            self.expected[groups, trial] = self._run(emit(self.analysis, copies, arrays))
        if not agree(mine, self.expected[groups, trial]):
            return "resized, the module computes something else: a size stands in its Python code"
        return None

    def _run(self, model: ir.Model) -> Outputs:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL  # it runs once
        session = onnxruntime.InferenceSession(
            ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        feeds = {i.name: x.detach().cpu().numpy() for i, x in zip(session.get_inputs(), self.inputs, strict=True)}
        return [np.asarray(o) for o in session.run(None, feeds)]


def _flat(output: object) -> Outputs:
    """The tensors of nested outputs, in the exporter's order."""

    def walk(value: object) -> Iterator[Tensor]:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, Mapping):
            for each in value.values():
                yield from walk(each)
        elif isinstance(value, (tuple, list)):
            for each in value:
                yield from walk(each)

    return [t.detach().cpu().numpy() for t in walk(output)]


def agree(one: Outputs, other: Outputs, within: float = SAME) -> bool:
    """Whether all outputs are the same, relative to the largest value of each."""
    return len(one) == len(other) and all(
        a.shape == b.shape and bool(np.abs(a - b).max(initial=0) <= within * np.abs(b).max(initial=0))
        for a, b in zip(one, other, strict=True)
    )


Test = Callable[[frozenset[int]], str | None]


def passing(test: Test, candidates: Sequence[int]) -> tuple[frozenset[int], dict[int, str]]:
    """The largest set found by bisection that passes a test together, and why each of the others does not.

    n candidates of which k fail cost about 1 + 2·k·log2(n/k) tests; none failing costs one.
    """
    reasons: dict[int, str] = {}

    def extend(base: frozenset[int], more: Sequence[int]) -> frozenset[int]:
        if not more:
            return base
        reason = test(base | frozenset(more))
        if reason is None:
            return base | frozenset(more)
        if len(more) == 1:
            reasons[more[0]] = reason
            return base
        half = len(more) // 2
        return extend(extend(base, more[:half]), more[half:])

    return extend(frozenset(), list(candidates)), reasons


def followed(probe: Probe) -> tuple[dict[int, str], Sizes]:
    """What the module cannot follow, and what its attributes have to be for the rest; both found by trying.

    Returns:
        groups that it cannot lose channels of, by number, with the reason, and the sizes of attributes.
    """
    analysis = probe.analysis
    writes = {
        g
        for plan, rows in zip(analysis.plans, analysis.factor_rows, strict=True)
        if plan.spec.writes or plan.spec.takes
        for each in rows.values()
        if each is not None
        for g in np.unique(analysis.group_of[each]).tolist()
    }
    wide = [g for g, group in enumerate(analysis.groups) if group.width > 1]
    order = [g for g in wide if g not in writes] + [g for g in wide if g in writes]
    numbers = {group.id: g for g, group in enumerate(analysis.groups)}

    def test(groups: frozenset[int]) -> str | None:
        trials = range(3 + 2 * (len(groups) - 1).bit_length())
        return next((r for trial in trials if (r := probe.resized_wrongly(groups, trial))), None)

    def works(sizes: Sizes, ids: frozenset[str]) -> bool:
        probe.sizes = sizes
        return test(frozenset(numbers[each] for each in ids)) is None

    locked = passing(test, order)[1]
    if not locked:
        return locked, {}
    ids = [analysis.groups[g].id for g in sorted(locked)]
    found = units(analysis, probe.module, read_sizes(probe.module, probe.forward, KNOWN), frozenset(ids))
    probe.sizes = search(found, ids, works)
    left = passing(test, order)[1] if probe.sizes else locked
    if left.keys() < locked.keys():
        stays = {analysis.groups[g].id: analysis.groups[g].width for g in left}
        return left, {path: without(size, stays) for path, size in probe.sizes.items()}
    probe.sizes = {}
    return locked, {}


def silenced_groups(
    probe: Probe, candidates: Sequence[int], quiet: Mapping[int, Sequence[Place]], whole: Mapping[int, Sequence[Place]]
) -> frozenset[int]:
    """Groups whose channels are silent once the `quiet` places alone are zero; found by trying.

    Silent: zeroing the `whole` of a channel's slices then changes nothing.
    """

    def test(groups: frozenset[int]) -> str | None:
        alive = probe.cut(groups, 2) > 0
        one, other = (probe.masked([p for g in groups for p in places[g]], alive) for places in (quiet, whole))
        return None if agree(one, other, EXACT) else "it is heard"

    return passing(test, [g for g in candidates if probe.analysis.groups[g].width > 1])[0]
