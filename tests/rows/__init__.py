"""The rows of every family: see ``row``."""

from rows import attention, compute, movement, norms, pointwise, recurrent, reductions, reshape
from rows.row import Act, Row

__all__ = ["ROWS", "Act", "Row"]

_FAMILIES = (compute, norms, pointwise, reductions, movement, reshape, recurrent, attention)
ROWS = [row for family in _FAMILIES for row in family.ROWS]
