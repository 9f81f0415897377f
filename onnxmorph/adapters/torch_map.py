"""Which slices of a module's parameters belong to which channels, and what their magnitude is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from onnxmorph.adapters.torch_loop import said_by_first_rank
from onnxmorph.adapters.torch_probe import Place, Probe, followed, silenced_groups
from onnxmorph.adapters.torch_resize import Hook, tensors
from onnxmorph.adapters.torch_slices import Magnitudes, Slices
from onnxmorph.analysis import Analysis
from onnxmorph.axes import Mask
from onnxmorph.bounds import near
from onnxmorph.errors import StructureError

MAGNITUDES = ("auto", "norm", "lasso")


@dataclass(frozen=True)
class Map:
    """Where the channels are in a module.

    Attributes:
        locked: group id to the reason why it keeps all its channels.
        followed: for `resize`: ``attributes`` of the module that are sizes, and groups that are ``locked`` for it.
        norm: the groups whose magnitude is the scales of norms, ``[groups]``.
        lasso: those whose magnitude is all coupled slices, ``[groups]``.
        magnitudes: what is measured and shrunk.
        rest: what else a channel says whose scale is shrunk: shifts and biases.
        pinned: kept zero at every step where a channel is dead.
        silenced: kept zero now and then: the weights that a norm silences.
        sliced: the parameters of all these, by name.
        trained: the names of parameters that the optimizer moves.
    """

    analysis: Analysis
    locked: Mapping[str, str]
    followed: Mapping[str, Any]
    norm: Mask
    lasso: Mask
    magnitudes: Magnitudes
    rest: Slices
    pinned: tuple[Slices, Slices]
    silenced: Slices
    sliced: Mapping[str, Tensor]
    trained: frozenset[str]

    @property
    def kinds(self) -> dict[str, str]:
        """Group id to ``norm`` or ``lasso``."""
        kind = zip(self.analysis.groups, self.norm.tolist(), self.lasso.tolist(), strict=True)
        return {g.id: "norm" if norm else "lasso" for g, norm, lasso in kind if norm or lasso}

    @staticmethod
    def of(
        module: nn.Module,
        inputs: tuple[Tensor, ...],
        optimizer: torch.optim.Optimizer,
        analysis: Analysis,
        asked: str | Mapping[str, str],
        how: str,
        on_resize: Hook | None,
    ) -> Map:
        """Try out what the module can be resized to, and which scales silence a channel.

        Args:
            module: as exported.
            inputs: ``forward``'s positional tensors.
            optimizer: holds what is trained.
            analysis: of the export.
            asked: a kind of magnitude for all groups, or by group id.
            how: several scales of one channel combine by ``rms`` or ``max``.
            on_resize: see `resize`.

        Raises:
            StructureError: an unknown magnitude, or one that would need what is frozen.
        """
        found = _Places(analysis, tensors(module), optimizer)
        probe = Probe.of(module, inputs, analysis, on_resize)
        unfollowed, attributes = said_by_first_rank(followed(probe))
        locked = {**found.untrained(), **unfollowed}
        free = [g for g in range(len(analysis.groups)) if g not in locked]
        norm = said_by_first_rank(_choose_norm(found, asked, probe, free))
        lasso = set(free) - norm
        groups, whole, quiet, trained = np.arange(len(analysis.groups)), found.whole, found.quiet, found.trained
        by_norm, by_lasso = np.isin(groups, list(norm)), np.isin(groups, list(lasso))

        def slices(places: Sequence[Place], of: Mask) -> Slices:
            return Slices.of(analysis, found.tensors, places, of)

        scales = [p for g in norm for p in found.places(g, "scale") if p[0] in trained]
        weights = [p for g in lasso for p in whole(g) if p[0] in trained]
        mapped = {n for g in free for n, _ in whole(g)}
        return Map(
            analysis,
            {analysis.groups[g].id: locked[g] for g in sorted(locked)},
            {"attributes": attributes, "locked": [analysis.groups[g].id for g in sorted(unfollowed)]},
            by_norm,
            by_lasso,
            Magnitudes(slices(scales, by_norm), slices(weights, by_lasso), how, analysis.channels + 1),
            rest=slices([p for g in norm for p in quiet(g) if p not in scales], by_norm),
            pinned=(
                slices([p for g in norm for p in quiet(g)], by_norm),
                slices([p for g in lasso for p in whole(g)], by_lasso),
            ),
            silenced=slices([p for g in norm for p in whole(g) if p not in quiet(g)], by_norm),
            sliced={n: t for n, t in found.tensors.items() if n in mapped and isinstance(t, nn.Parameter)},
            trained=trained,
        )


class _Places:
    """Where the groups' channels are sliced."""

    def __init__(self, analysis: Analysis, by_name: Mapping[str, Tensor], optimizer: torch.optim.Optimizer) -> None:
        self.analysis = analysis
        self.tensors = {n: by_name[n] for n in analysis.parameters if n in by_name}
        held = {id(p) for g in optimizer.param_groups for p in g["params"]}
        moving = (n for n, t in self.tensors.items() if id(t) in held and t.requires_grad)
        self.trained = frozenset(moving)

    def places(self, group: int, *roles: str | None) -> list[Place]:
        """Where parameters of these roles (None: weights and biases) are sliced."""
        members, role = self.analysis.groups[group].members, self.analysis.roles
        return [(m.tensor, m.axis) for m in members if m.tensor in self.tensors and role.get(m.tensor) in roles]

    def whole(self, group: int) -> list[Place]:
        """Weights, biases, scales and shifts."""
        return self.places(group, None, "scale", "shift")

    def quiet(self, group: int) -> list[Place]:
        """Scales, shifts and biases."""
        return [p for p in self.whole(group) if self.tensors[p[0]].ndim == 1]

    def untrained(self) -> dict[int, str]:
        """The groups that nothing shrinks, by number, with the reason."""
        left: dict[int, str] = {}
        for g in range(len(self.analysis.groups)):
            names = list(dict.fromkeys(n for n, _ in self.whole(g)))
            if not self.trained.intersection(names):
                named = f", among them {names[0]}" if names else ""
                left[g] = f"none of its parameters is trained by the optimizer{named}"
        return left


def _choose_norm(
    found: _Places, magnitudes: str | Mapping[str, str], probe: Probe, free: Sequence[int]
) -> frozenset[int]:
    """The groups whose magnitude is the scales of norms."""
    ids = [g.id for g in found.analysis.groups]
    asked = dict.fromkeys(ids, magnitudes) if isinstance(magnitudes, str) else magnitudes
    unknown = [kind for kind in asked.values() if kind not in MAGNITUDES]
    strange = [name for name in asked if name not in ids]
    if unknown or strange:
        message = f"magnitudes: {(unknown + strange)[0]!r} is neither a group's id nor one of {', '.join(MAGNITUDES)}"
        raise StructureError(f"{message}; {near(strange[0], ids)}" if strange else message, code="magnitudes")
    scales = {g: [n for n, _ in found.places(g, "scale")] for g in free}
    scaled = [g for g in free if any(n in found.trained for n in scales[g])]
    frozen = next((g for g in free if scales[g] and g not in scaled and asked.get(ids[g]) == "norm"), None)
    if frozen is not None:
        raise StructureError(
            f"the magnitude of group {ids[frozen]!r} would be {', '.join(scales[frozen])}, which the optimizer does "
            "not train; set requires_grad and give it to the optimizer, or ask for 'lasso'",
            code="magnitudes-frozen",
        )
    told = {g: asked.get(ids[g], "auto") for g in scaled}
    open_ = [g for g in scaled if told[g] == "auto"]
    quiet, whole = ({g: places(g) for g in open_} for places in (found.quiet, found.whole))
    return silenced_groups(probe, open_, quiet, whole) | {g for g in scaled if told[g] == "norm"}
