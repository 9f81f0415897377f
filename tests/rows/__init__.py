"""The rows of every family: see ``row``."""

from rows import compute, control, movement, norms, pointwise, reductions, reshape
from rows.row import Act, Row

__all__ = ["ROWS", "Act", "Row"]

_FAMILIES = (compute, control, norms, pointwise, reductions, movement, reshape)
ROWS = [row for family in _FAMILIES for row in family.ROWS]
