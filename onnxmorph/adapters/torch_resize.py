"""A structure applied to the user's own module, and the proof of which groups that can be done to."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from onnxmorph.analysis import Analysis
from onnxmorph.axes import Array
from onnxmorph.errors import StructureError
from onnxmorph.structure import Structure
from onnxmorph.surgery.emit import emit

Hook = Callable[[nn.Module, Structure], None]
Kept = Mapping[int, Sequence[int]]  # axis of a module's weight to the kept indices
Outputs = list[NDArray[Any]]

SAME = 1e-3  # relative; two networks that differ in a channel differ by far more, float32 by far less


def resize(module: nn.Module, structure: Structure, on_resize: Hook | None = None) -> nn.Module:
    """A copy of the module with the structure's channels only: slices of its weights, sizes brought up to date.

    Names, tying, ``requires_grad``, buffers, hooks and training mode are those of the module, which stays as
    it is. Sizes that stand in the module's own Python code are not known here; `Morph` finds the groups that
    this would break and keeps them whole.

    Args:
        module: the module that the structure's model was exported from.
        structure: indices may repeat (an expanded network); then `load_weights` gives the copies their weights.
        on_resize: is called with the copy and the structure, to bring the module's own attributes up to date.

    Raises:
        StructureError: the structure belongs to another module.
    """
    small = copy.deepcopy(module)
    by_name = tensors(small)
    if structure.parameters and not structure.parameters.keys() & by_name.keys():
        raise StructureError(
            "no parameter of the structure is in the module; give the module it was made from",
            code="structure-module",
        )
    cut: dict[int, tuple[Tensor, Kept]] = {}
    for name, kept in structure.parameters.items():
        if kept and name in by_name:
            cut[id(by_name[name])] = (_sliced(name, by_name[name], kept), kept)
    for owner in small.modules():
        weight = getattr(owner, "weight", None)
        before = cut.get(id(weight))
        for table in (owner._parameters, owner._buffers):
            for key, tensor in table.items():
                if id(tensor) in cut:
                    table[key] = cut[id(tensor)][0]  # type: ignore[assignment]  # the same kind as before
        if before is not None and isinstance(weight, Tensor):
            _update_sizes(owner, weight, before[1])
    if on_resize is not None:
        on_resize(small, structure)
    return small


def tensors(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by every name they have."""
    return {
        **dict(module.named_buffers(remove_duplicate=False)),
        **dict(module.named_parameters(remove_duplicate=False)),
    }


def _sliced(name: str, tensor: Tensor, kept: Kept) -> Tensor:
    result = tensor.detach()
    for axis, indices in kept.items():
        if axis >= result.ndim or max(indices, default=-1) >= result.shape[axis]:
            raise StructureError(
                f"{name} has the shape {tuple(tensor.shape)}, too small for the structure; "
                "give the module it was made from",
                code="structure-module",
            )
        result = result.index_select(axis, torch.tensor(indices, dtype=torch.int64, device=result.device))
    return nn.Parameter(result, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else result


def blocks(kept: Sequence[int], size: int) -> int:
    """How many outer factors are left of an axis ``(outer inner)``, `size` positions each before.

    The order keeps products ordered, so a new block begins where the outer index changes or the inner falls.

    >>> blocks([0, 1, 0, 1, 4, 5], size=4)
    3
    """
    if size == 1 or not kept:
        return len(kept)
    outer, inner = np.divmod(np.asarray(kept), size)
    return 1 + int(((outer[1:] != outer[:-1]) | (inner[1:] < inner[:-1])).sum())


def _conv(m: Any, weight: Tensor, kept: Kept) -> dict[str, Any]:
    groups = blocks(kept[0], weight.shape[0] // m.groups) if 0 in kept and m.groups > 1 else m.groups
    whole, part = m.weight.shape[:2]
    first, second = ("in", "out") if m.transposed else ("out", "in")
    return {"groups": groups, f"{first}_channels": whole, f"{second}_channels": part * groups}


def _group_norm(m: Any, weight: Tensor, kept: Kept) -> dict[str, Any]:
    groups = blocks(kept[0], weight.shape[0] // m.num_groups)
    return {"num_channels": len(m.weight), "num_groups": groups}


_Sizes = Callable[[Any, Tensor, Kept], dict[str, Any]]
# What each kind of module says about its own sizes: from itself (resized), its weight before, what was kept.
_SIZES: tuple[tuple[tuple[type[nn.Module], ...], _Sizes], ...] = (
    ((nn.modules.conv._ConvNd,), _conv),
    ((nn.Linear,), lambda m, w, k: {"out_features": m.weight.shape[0], "in_features": m.weight.shape[1]}),
    ((nn.modules.batchnorm._NormBase,), lambda m, w, k: {"num_features": len(m.weight)}),
    ((nn.LayerNorm, nn.RMSNorm), lambda m, w, k: {"normalized_shape": tuple(m.weight.shape)}),
    ((nn.GroupNorm,), _group_norm),
    (
        (nn.Embedding, nn.EmbeddingBag),
        lambda m, w, k: {"num_embeddings": m.weight.shape[0], "embedding_dim": m.weight.shape[1]},
    ),
    ((nn.PReLU,), lambda m, w, k: {"num_parameters": len(m.weight)}),
)


def _update_sizes(owner: nn.Module, before: Tensor, kept: Kept) -> None:
    for kinds, sizes in _SIZES:
        if isinstance(owner, kinds):
            for name, value in sizes(owner, before, kept).items():
                setattr(owner, name, value)


def load_weights(module: nn.Module, model: ir.Model) -> tuple[str, ...]:
    """Copy the initializers of a model into the module's parameters and buffers of the same names, in place.

    Returns the floating-point initializers that the module has no place for (a bias that folding added,
    constants of the graph).

    Raises:
        StructureError: a shape differs.
    """
    by_name, left = tensors(module), []
    for name, value in model.graph.initializers.items():
        array = value.const_value
        if array is None or not array.dtype.is_floating_point():
            continue
        if name not in by_name:
            left.append(name)
            continue
        target = by_name[name]
        if tuple(array.shape) != tuple(target.shape):
            message = f"{name} is {tuple(array.shape)} in the model and {tuple(target.shape)} in the module"
            raise StructureError(f"{message}; resize the module by the same structure", code="structure-module")
        with torch.no_grad():
            target.copy_(torch.from_numpy(array.numpy().copy()))
    return tuple(left)


# -- what can be resized -------------------------------------------------------------------------


@dataclass
class Probe:
    """A copy of the module with random weights, to try cuts on: weights of 0 or 1 would hide a wrong one."""

    analysis: Analysis
    inputs: tuple[Tensor, ...]
    module: nn.Module
    on_resize: Hook | None = None
    weights: dict[str, Tensor] = field(default_factory=dict)

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

    def masked(self, names: Mapping[str, Sequence[int]], alive: NDArray[np.bool_]) -> Outputs:
        """What the whole module says with the given axes of the given parameters zero where a channel is not alive."""
        changed = {}
        for name, axes in names.items():
            tensor = self.weights[name].detach().clone()
            for axis in axes:
                rows = self.analysis.rows[name][axis]
                assert rows is not None
                dead = torch.from_numpy(np.flatnonzero(~alive[rows].all(1))).to(tensor.device)
                tensor.index_fill_(axis, dead, 0)
            changed[name] = tensor
        with torch.no_grad():
            return _flat(torch.func.functional_call(self.module, changed, self.inputs))

    def cut(self, groups: frozenset[int], seed: int) -> Array:
        """Copies that take some channels of these groups: how many, and which, is random."""
        rng = np.random.default_rng(seed)
        copies = np.ones(self.analysis.channels + 1, np.int64)
        for g in sorted(groups):
            group = self.analysis.groups[g]
            dead = rng.permutation(group.width)[: rng.integers(1, group.width)]
            copies[group.start + 1 + dead] = 0
        return copies

    def resized_wrongly(self, groups: frozenset[int], seed: int) -> str | None:
        """Why the resized module is not the rewritten graph when these groups are cut; None where it is."""
        copies = self.cut(groups, seed)
        structure = Structure.of(self.analysis, copies)
        try:
            small = resize(self.module, structure, self.on_resize)
            mine = self.forward(small)
        except Exception as error:  # the user's code may raise anything
            return f"resized, the module raises {type(error).__name__}: {' '.join(str(error).split())[:120]}"
        by_name = tensors(small)
        arrays = {name: by_name[name].detach().cpu().numpy() for name in self.weights}
        if not agree(mine, self._run(emit(self.analysis, copies, arrays))):
            return "resized, the module computes something else: a size stands in its Python code"
        return None

    def _run(self, model: ir.Model) -> Outputs:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(
            ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        feeds = {
            i.name: x.detach().cpu().numpy() for i, x in zip(session.get_inputs(), self.inputs, strict=True)
        }
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


def locked_groups(probe: Probe) -> dict[int, str]:
    """Groups that the module cannot lose channels of, by number, with the reason; found by trying."""
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

    def test(groups: frozenset[int]) -> str | None:
        # Several random cuts: sizes that fit by chance (two halves cut alike) do not do so twice.
        return next((r for seed in range(3) if (r := probe.resized_wrongly(groups, seed))), None)

    return passing(test, order)[1]
