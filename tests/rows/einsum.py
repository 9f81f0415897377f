"""Einsum in the forms that networks use."""

from __future__ import annotations

from rows.row import Act, Row, Weight


def einsum(equation: str, *shapes: tuple[int, ...], free: str, note: str = "", weight: bool = False) -> Row:
    last = Weight(shapes[-1]) if weight else Act(shapes[-1])
    operands = (*(Act(s) for s in shapes[:-1]), last)
    return Row("Einsum", operands, free, {"equation": equation}, note=note or equation.replace(" ", ""))


ROWS = [
    einsum("ij,jk->ik", (4, 6), (6, 5), free="e0 e1 e2", weight=True),
    einsum("bhqd, bhkd -> bhqk", (2, 3, 4, 6), (2, 3, 5, 6), free="e0 e1 e2 e3 e4", note="attention"),
    einsum("bshd,hdo->bso", (2, 4, 3, 6), (3, 6, 5), free="e0 e1 e2 e3 e4", weight=True),
    einsum("...i,io->...o", (2, 4, 6), (6, 5), free="e0 e1 e~0 e~1", weight=True),
    einsum("...ij,...jk", (3, 4, 6), (3, 6, 5), free="e0 e1 e2 e~0", note="implicit-ellipsis"),
    einsum("...ij,...jk->...ik", (2, 3, 4, 6), (2, 1, 6, 5), free="e0 e1 e2 e~0 e~1", note="ellipsis-broadcast"),
    einsum("ba,cb", (4, 6), (5, 4), free="e0 e1 e2", note="implicit"),
    einsum("ij->ji", (4, 6), free="e0 e1"),
    einsum("ij->j", (4, 6), free="e0 e1"),
    einsum("ijj->ij", (4, 6, 6), free="e0 e1", note="diagonal"),
    einsum("ii", (6, 6), free="e0", note="trace"),
    einsum("i,j->ij", (4,), (6,), free="e0 e1", note="outer"),
    einsum("bi,bi->b", (4, 6), (4, 6), free="e0 e1", note="dot"),
    einsum("ij,ij->", (4, 6), (4, 6), free="e0 e1", note="full"),
    einsum("bi,oij,bj->bo", (4, 3), (5, 3, 6), (4, 6), free="e0 e1 e2 e3", note="bilinear"),
    einsum("Ij,jK->IK", (4, 6), (6, 5), free="e0 e1 e2", note="capitals", weight=True),
    einsum("ij,kj->ik", (4, 1), (5, 6), free="e0 e1 e2", note="broadcast"),
]
