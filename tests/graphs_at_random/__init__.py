"""Random valid networks, composed of what the rules cover: see ``moves``."""

from __future__ import annotations

from collections.abc import Callable

import onnx

from graphs_at_random.moves import MOVES
from graphs_at_random.sketch import Choices, Sketch, describe

__all__ = ["MOVES", "describe", "random_graph"]


def random_graph(draw: Callable[[int], int], *, steps: int = 10, zero: bool = False) -> onnx.ModelProto:
    """A network of a few nodes.

    Args:
        draw: gives a number below its argument; 0 is the simplest choice.
        steps: the most moves.
        zero: use moves that keep zeros only.
    """
    choose = Choices(draw)
    sketch = Sketch(choose, choose.of([17, 13, 18, 21]))
    moves = [m for m in MOVES if m.zero or not zero]
    batch = choose.of(["n", 2])
    for _ in range(1 + choose.draw(3) // 2):
        rank = choose.between(2, 5)
        sketch.pool.append(sketch.start(rank, batch))
    for _ in range(choose.between(1, steps)):
        x = sketch.pool[-1 - choose.draw(min(4, len(sketch.pool)))]
        sketch.pool += choose.of(moves).apply(sketch, x)
    return sketch.model()
