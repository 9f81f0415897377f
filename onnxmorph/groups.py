"""What an analysis finds: groups of channels, axes that stay, ops that average, and where explanations come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from onnxmorph.axes import Array, Channels
from onnxmorph.propagate import AxisLabels, Reason


@dataclass(frozen=True)
class Member:
    """One axis of one parameter."""

    tensor: str
    axis: int


@dataclass(frozen=True)
class Group:
    """Interchangeable channels. They are numbered ``start + 1 … start + width`` in label arrays."""

    id: str
    width: int
    start: int
    members: tuple[Member, ...]


@dataclass(frozen=True)
class Fixed:
    """A parameter's axis that has positions which must stay, and why."""

    code: str
    tensor: str
    axis: int
    reason: str
    positions: int


@dataclass(frozen=True)
class Average:
    """An op that normalises over an axis which can be cut: afterwards it does so over the live positions."""

    node: str
    op: str
    groups: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Trace:
    """What was known before channels were grouped: where explanations come from.

    ``labels`` are per tensor and axis, in the numbers of ``channels`` and ``reasons``; ``roots[c]`` is what channel
    c of the analysis is there. ``whole`` are the tensors that the user's boundaries hold.
    """

    channels: Channels
    labels: Mapping[str, AxisLabels | None]
    reasons: Sequence[Reason]
    roots: Array
    whole: frozenset[str]
