"""The rows of every family: see ``row``."""

from rows import (
    attention,
    compute,
    contrib,
    contrib_quantised,
    control,
    create,
    einsum,
    indexing,
    losses,
    movement,
    norms,
    pointwise,
    quantised,
    recurrent,
    reductions,
    reshape,
    signal,
    vision,
)
from rows.row import Act, Row

__all__ = ["ROWS", "Act", "Row"]

_FAMILIES = (
    *(compute, einsum, norms, pointwise, reductions, movement, reshape, recurrent, attention),
    *(control, create, indexing, losses, signal, vision),
    *(quantised, contrib, contrib_quantised),
)
ROWS = [row for family in _FAMILIES for row in family.ROWS]
