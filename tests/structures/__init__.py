"""Networks that are hard to cut, and what a person would find in each: see ``registry``."""

from structures import control, graphs
from structures.registry import STRUCTURES, Structure

__all__ = ["STRUCTURES", "Structure"]

_FAMILIES = (control, graphs)  # importing a family registers its networks
