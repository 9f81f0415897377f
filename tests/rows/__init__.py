"""The rows of every family: see ``row``."""

from rows import (
    attention,
    compute,
    control,
    create,
    einsum,
    indexing,
    losses,
    movement,
    norms,
    pointwise,
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
)
ROWS = [row for family in _FAMILIES for row in family.ROWS]
