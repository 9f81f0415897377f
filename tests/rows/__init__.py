"""The rows of every family: see ``row``."""

from rows import compute, contrib, contrib_quantised, movement, norms, pointwise, quantised, reductions, reshape
from rows.row import Act, Row

__all__ = ["ROWS", "Act", "Row"]

_FAMILIES = (compute, norms, pointwise, reductions, movement, reshape, quantised, contrib, contrib_quantised)
ROWS = [row for family in _FAMILIES for row in family.ROWS]
