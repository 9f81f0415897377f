"""Networks that are hard to cut, and what a person would find in each: see ``registry``."""

from structures import (
    attention,
    control,
    graphs,
    ops,
    recurrent,
    transformers,
    vision,
    vision_graphs,
    vision_nets,
    whole,
)
from structures.registry import STRUCTURES, Structure

__all__ = ["STRUCTURES", "Structure"]

_FAMILIES = (attention, control, graphs, ops, recurrent, transformers, vision, vision_graphs, vision_nets, whole)
