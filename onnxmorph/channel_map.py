"""Where the channels are in a network that trains: which of its parameters' slices are measured, shrunk, silenced."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxmorph.analysis import Analysis
from onnxmorph.axes import Mask
from onnxmorph.bounds import near
from onnxmorph.errors import StructureError
from onnxmorph.magnitudes import COMBINATIONS, Place, Slices, Sources
from onnxmorph.surgery.grow import reading_places
from onnxmorph.trials import silenced_groups

KINDS = ("norm", "lasso", "gate")
HOW = dict.fromkeys(KINDS, "rms")  # how several sources of one channel combine; it has one gate


def _same(value: Any) -> Any:
    return value


@dataclass(frozen=True)
class ChannelMap:
    """Where the channels are in the parameters of a network.

    Attributes:
        locked: group id to the reason why it keeps all its channels.
        kinds: group id to ``norm`` (the scales of normalisation layers), ``lasso`` (all coupled slices) or ``gate`` (a
            factor of its own, which the network does not have: `gate_of` names the parameter).
        reasons: group id to why that was chosen.
        lingers: the groups whose magnitude is not all they say, ``[groups]``.
        sources: what is measured and shrunk.
        rest: what else a channel says whose scale is shrunk: shifts and biases.
        gated: what gates multiply: the weights that read a channel; all that it has where these do not silence it.
        pinned: kept zero at every step where a channel is dead.
        silenced: kept zero now and then: the weights that a norm silences.
        sliced: the names of the parameters of all these.
        trained: the names of parameters that the optimizer moves.
    """

    analysis: Analysis
    locked: Mapping[str, str]
    kinds: Mapping[str, str]
    reasons: Mapping[str, str]
    lingers: Mask
    sources: Sources
    rest: Slices
    gated: Slices
    pinned: Slices
    silenced: Slices
    sliced: frozenset[str]
    trained: frozenset[str]

    @staticmethod
    def of(
        analysis: Analysis,
        names: Collection[str],
        trained: Collection[str],
        feeds: Mapping[str, NDArray[Any]],
        *,
        magnitudes: str | Mapping[str, str] = "auto",
        combine: str | Mapping[str, str] = HOW,
        locked: Mapping[int, str] | None = None,
        agreed: Callable[[Any], Any] = _same,
    ) -> ChannelMap:
        """Choose for every group what its magnitude is made of; which scales silence a channel is tried out.

        Args:
            analysis: of the network.
            names: the parameters and statistics that the network has, in the names of the analysis.
            trained: those of them that the optimizer moves.
            feeds: inputs of the analysed model.
            magnitudes: ``auto``, ``norm``, ``lasso`` or ``gate``, or group id to one of them.
            combine: of `COMBINATIONS`, or kind to one of them.
            locked: groups that keep all their channels, by number, with the reason.
            agreed: what the first of several processes found out, on all of them.

        Raises:
            StructureError: an unknown magnitude or combination, or a magnitude that would need what is frozen.
        """
        places = _Places(analysis, frozenset(names), frozenset(trained))
        how = _combinations(combine)
        closed = agreed({**places.untrained(), **(locked or {})})
        free = [g for g in range(len(analysis.groups)) if g not in closed]
        reasons = agreed(places.choose(magnitudes, feeds, free))
        number = np.arange(len(analysis.groups))
        of_kind = {kind: [g for g in free if reasons[g][0] == kind] for kind in KINDS}
        by_norm, by_lasso, by_gate = of_kind.values()
        norm, lasso, gate = (np.isin(number, of) for of in of_kind.values())
        scales = [p for g in by_norm for p in places.of(g, "scale") if p[0] in trained]
        weights = [p for g in by_lasso for p in places.whole(g) if p[0] in trained]
        quiet = [p for g in by_norm for p in places.quiet(g)]
        loud = [p for g in by_norm for p in places.whole(g) if p not in quiet]
        ids = [group.id for group in analysis.groups]
        own = np.arange(analysis.channels + 1)[:, None]
        gates = {(gate_of(ids[g]), 0): own[analysis.group_of == g] for g in by_gate}
        measured = Slices.joined({**Slices.of(analysis, (scales, norm), (weights, lasso)).parts, **gates})
        elements = [
            int(np.prod(analysis.parameters[name].shape)) // len(rows) if name in names else 1
            for (name, _), rows in measured.parts.items()
        ]
        masks: dict[str, Mask] = {}
        for kind, groups in zip(KINDS, (norm, lasso, gate), strict=True):
            mine = np.append(groups, False)[analysis.group_of]
            masks[how[kind]] = masks.get(how[kind], False) | mine
        shut = agreed(places.shut_by_readers(feeds, by_gate))
        gated = [((places.readers if g in shut else places.whole)(g), number == g) for g in by_gate]
        return ChannelMap(
            analysis,
            {ids[g]: closed[g] for g in sorted(closed)},
            {ids[g]: reasons[g][0] for g in free},
            {ids[g]: reasons[g][1] for g in free},
            norm,
            Sources(measured, np.repeat(elements, measured.sizes), masks, analysis.channels + 1),
            rest=Slices.of(analysis, ([p for p in quiet if p not in scales], norm)),
            gated=Slices.of(analysis, *gated),
            pinned=Slices.of(
                analysis, (quiet, norm), ([p for g in (*by_lasso, *by_gate) for p in places.whole(g)], lasso | gate)
            ),
            silenced=Slices.of(analysis, (loud, norm)),
            sliced=frozenset(name for g in free for name, _ in places.whole(g)),
            trained=places.trained,
        )

    @property
    def prunable(self) -> Mask:
        """The groups that may lose channels, ``[groups]``."""
        return np.array([group.id in self.kinds for group in self.analysis.groups], bool)


def gate_of(group: str) -> str:
    """The name of the parameter that holds the gates of a group, by its id; they are no part of the network."""
    return f"gate of {group}"


def _combinations(asked: str | Mapping[str, str]) -> dict[str, str]:
    how = {**HOW, **(dict.fromkeys(KINDS, asked) if isinstance(asked, str) else asked)}
    strange = [each for each in how.values() if each not in COMBINATIONS] + [kind for kind in how if kind not in KINDS]
    if strange:
        message = f"combine: {strange[0]!r} is neither a kind ({', '.join(KINDS)}) nor one of {', '.join(COMBINATIONS)}"
        raise StructureError(message, code="combine")
    return how


@dataclass(frozen=True)
class _Places:
    """Where the groups' channels are sliced."""

    analysis: Analysis
    names: frozenset[str]
    trained: frozenset[str]

    def of(self, group: int, *roles: str | None) -> list[Place]:
        """Where parameters of these roles (None: weights and biases) are sliced."""
        members, role = self.analysis.groups[group].members, self.analysis.roles
        return [(m.tensor, m.axis) for m in members if m.tensor in self.names and role.get(m.tensor) in roles]

    def whole(self, group: int) -> list[Place]:
        """Weights, biases, scales and shifts."""
        return self.of(group, None, "scale", "shift")

    def quiet(self, group: int) -> list[Place]:
        """Scales, shifts and biases."""
        return [p for p in self.whole(group) if len(self.analysis.parameters[p[0]].shape) == 1]

    def readers(self, group: int) -> list[Place]:
        """The weights that read a channel."""
        return [p for p in self.whole(group) if p in self.reading]

    def shut_by_readers(self, feeds: Mapping[str, NDArray[Any]], groups: Sequence[int]) -> frozenset[int]:
        """Of these groups those that nothing but their readers hears."""
        readers, whole = ({g: find(g) for g in groups} for find in (self.readers, self.whole))
        return silenced_groups(self.analysis, feeds, groups, readers, whole)

    @cached_property
    def reading(self) -> frozenset[Place]:
        """Where ops sum over what they read."""
        return reading_places(self.analysis)

    def untrained(self) -> dict[int, str]:
        """The groups that nothing shrinks, by number, with the reason."""
        left: dict[int, str] = {}
        for g in range(len(self.analysis.groups)):
            names = list(dict.fromkeys(n for n, _ in self.whole(g)))
            if not self.trained.intersection(names):
                named = f", among them {names[0]}" if names else ""
                left[g] = f"none of its parameters is trained by the optimizer{named}"
        return left

    def choose(
        self, magnitudes: str | Mapping[str, str], feeds: Mapping[str, NDArray[Any]], free: Sequence[int]
    ) -> dict[int, tuple[str, str]]:
        """The kind of magnitude of every free group, and why."""
        ids = [g.id for g in self.analysis.groups]
        asked = dict.fromkeys(ids, magnitudes) if isinstance(magnitudes, str) else magnitudes
        unknown = [kind for kind in asked.values() if kind not in ("auto", *KINDS)]
        strange = [name for name in asked if name not in ids]
        if unknown or strange:
            known = f"is neither a group's id nor one of auto, {', '.join(KINDS)}"
            message = f"magnitudes: {(unknown + strange)[0]!r} {known}"
            raise StructureError(f"{message}; {near(strange[0], ids)}" if strange else message, code="magnitudes")
        scales = {g: [n for n, _ in self.of(g, "scale")] for g in free}
        scaled = [g for g in free if any(n in self.trained for n in scales[g])]
        frozen = next((g for g in free if scales[g] and g not in scaled and asked.get(ids[g]) == "norm"), None)
        if frozen is not None:
            raise StructureError(
                f"the magnitude of group {ids[frozen]!r} would be {', '.join(scales[frozen])}, which the optimizer "
                "does not train; set requires_grad and give it to the optimizer, or ask for 'lasso'",
                code="magnitudes-frozen",
            )
        told = {g: asked.get(ids[g], "auto") for g in free}
        open_ = [g for g in scaled if told[g] == "auto"]
        quiet, whole = ({g: find(g) for g in open_} for find in (self.quiet, self.whole))
        silent = silenced_groups(self.analysis, feeds, open_, quiet, whole)

        def chosen(g: int) -> tuple[str, str]:
            if g in scaled and told[g] == "norm":
                return "norm", "asked for"
            if g in silent:
                return "norm", f"zero scale, shift and bias silence it ({', '.join(dict.fromkeys(scales[g]))})"
            if told[g] in ("lasso", "gate"):
                return told[g], "asked for"
            if not scales[g]:
                return "lasso", "no norm scales it"
            return "lasso", "its scales do not silence it" if g in scaled else "its scales are frozen"

        return {g: chosen(g) for g in free}
