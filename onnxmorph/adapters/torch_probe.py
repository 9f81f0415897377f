"""What a module can be cut to, found by trying: sizes may stand in Python code that no export shows."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import torch
from torch import Tensor, nn

from onnxmorph.adapters.torch_layers import KNOWN
from onnxmorph.adapters.torch_resize import Hook, resize, tensors
from onnxmorph.adapters.torch_sizes import Sizes, read_sizes, search, units, without
from onnxmorph.analysis import Analysis
from onnxmorph.structure import Structure
from onnxmorph.surgery.emit import emit
from onnxmorph.trials import Outputs, agree, passing, random_cut, random_weights


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
    expected: dict[tuple[frozenset[int], int], Outputs] = field(default_factory=dict)  # of the groups tried last

    @staticmethod
    def of(module: nn.Module, inputs: tuple[Tensor, ...], analysis: Analysis, on_resize: Hook | None) -> Probe:
        """Make the copy, in eval mode."""
        probe = Probe(analysis, inputs, copy.deepcopy(module).eval(), on_resize)
        by_name = tensors(probe.module)
        with torch.no_grad():
            for name, weights in random_weights(analysis).items():
                if name in by_name:
                    probe.weights[name] = by_name[name].copy_(torch.from_numpy(weights))
        return probe

    def forward(self, module: nn.Module) -> Outputs:
        """What a module says to the inputs."""
        with torch.no_grad(), warnings.catch_warnings(), _float32():
            warnings.simplefilter("ignore")
            return _flat(module(*self.inputs))

    def resized_wrongly(self, groups: frozenset[int], trial: int) -> str | None:
        """Why the resized module is not the rewritten graph when these groups are cut; None where it is."""
        copies = random_cut(self.analysis, groups, trial)
        structure = Structure.of(self.analysis, copies, attributes=self.sizes)
        try:
            small = resize(self.module, structure, self.on_resize)
            mine = self.forward(small)
        except Exception as error:  # the user's code may raise anything
            return f"resized, the module raises {type(error).__name__}: {' '.join(str(error).split())[:120]}"
        if (groups, trial) not in self.expected:
            self.expected = {key: found for key, found in self.expected.items() if key[0] == groups}
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


@contextmanager
def _float32() -> Iterator[None]:
    """A GPU may round what it multiplies to 10 bits (TF32), and that is too coarse to compare."""
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.backends.cudnn.flags(enabled=torch.backends.cudnn.enabled, allow_tf32=False):
            yield
    finally:
        torch.set_float32_matmul_precision(precision)


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
    try:
        read = read_sizes(probe.module, probe.forward, KNOWN)
    except Exception:  # the user's classes need not bear being watched
        return locked, {}
    probe.sizes = search(units(analysis, probe.module, read, frozenset(ids)), ids, works)
    left = passing(test, order)[1] if probe.sizes else locked
    if left.keys() < locked.keys():
        stays = {analysis.groups[g].id: analysis.groups[g].width for g in left}
        return left, {path: without(size, stays) for path, size in probe.sizes.items()}
    probe.sizes = {}
    return locked, {}


def told(analysis: Analysis, locked: Collection[int], sizes: Sizes) -> dict[str, Any]:
    """What `followed` found, for the provenance of structures, where `resize` reads it."""
    attributes = {path: [[times, list(of)] for times, of in size] for path, size in sizes.items()}
    found = {"attributes": attributes, "locked": [analysis.groups[g].id for g in sorted(locked)]}
    return {name: each for name, each in found.items() if each}
