"""Variables of Keras, on any backend: slices of them summed and multiplied, and what an optimizer remembers of them."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

SQUARES = ("velocity", "accumulator")  # running squares of gradients in Keras: Adam and RMSprop, Adagrad

Masks = list[tuple[Any, Any]]  # variables, and what they are multiplied with


def remembered(optimizer: keras.optimizers.Optimizer) -> dict[str, Any]:
    """The variables of an optimizer by their label, e.g. ``dense_kernel_momentum``: see `label`."""
    return {v.path.rpartition("/")[2]: v for v in optimizer.variables}


def label(path: str, slot: str = "") -> str:
    """What an optimizer calls its slot (``momentum``, ``velocity``) for the variable of that path."""
    return f"{path.replace('/', '_')}_{slot}"


def values(variable: Any) -> Any:
    """In float32, without gradient."""
    return ops.stop_gradient(ops.cast(variable.value, "float32"))


def total(each: Any, axis: int) -> Any:
    """Over all axes but one, ``[positions]``."""
    return ops.sum(each, [t for t in range(len(each.shape)) if t != axis]) if len(each.shape) > 1 else each


def along(each: NDArray[Any], shape: Any, axis: int) -> NDArray[np.float32]:
    """Values per position as an array that is broadcast over the other axes."""
    return each.astype(np.float32).reshape([-1 if t == axis else 1 for t in range(len(shape))])


def mask(shape: Any, axis: int, positions: NDArray[Any]) -> NDArray[np.float32]:
    """Factors that zero these positions of a variable."""
    factors = np.ones(shape[axis], np.float32)
    factors[positions] = 0
    return along(factors, shape, axis)


def multiply(masks: Masks) -> None:
    """In place."""
    for variable, factors in masks:
        variable.assign(ops.multiply(ops.stop_gradient(variable.value), ops.cast(factors, variable.dtype)))
