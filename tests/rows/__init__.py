"""The rows of every family: see ``row``."""

from rows import compute, movement, norms, pointwise, quantised, reductions, reshape
from rows.row import Act, Row

__all__ = ["ROWS", "Act", "Row"]

_FAMILIES = (compute, norms, pointwise, reductions, movement, reshape, quantised)
ROWS = [row for family in _FAMILIES for row in family.ROWS]
