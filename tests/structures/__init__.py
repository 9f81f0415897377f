"""Networks that are hard to cut, and what a person would find in each: see ``registry``."""

from structures import graphs, ops, whole
from structures.registry import STRUCTURES, Structure

__all__ = ["STRUCTURES", "Structure"]

_FAMILIES = (graphs, ops, whole)  # importing a family registers its networks
