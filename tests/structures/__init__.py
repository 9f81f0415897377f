"""Networks that are hard to cut, and what a person would find in each: see ``registry``."""

from structures import attention, graphs, ops, recurrent, transformers
from structures.registry import STRUCTURES, Structure

__all__ = ["STRUCTURES", "Structure"]

_FAMILIES = (attention, graphs, ops, recurrent, transformers)  # importing a family registers its networks
