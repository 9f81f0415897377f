"""Networks that are hard to cut, and what a person would find in each: see ``registry``."""

from structures import graphs, vision, vision_graphs, vision_nets
from structures.registry import STRUCTURES, Structure

__all__ = ["STRUCTURES", "Structure"]

_FAMILIES = (graphs, vision, vision_graphs, vision_nets)  # importing a family registers its networks
