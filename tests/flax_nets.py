"""Networks of Flax, as functions of their parameters; sizes all differ, so that no axis passes for another."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import jax
import numpy as np
import onnx_ir as ir
from flax import linen, nnx
from jax import numpy as jnp

from onnxmorph.converters.jax import export


class Net(NamedTuple):
    function: Callable[..., Any]
    params: Any
    inputs: np.ndarray
    outputs: np.ndarray
    model: ir.Model


class Residual(linen.Module):
    """Convolutions with BatchNorm, around one a skip, and an inverted residual with a depthwise one."""

    @linen.compact
    def __call__(self, x: Any, train: bool = False) -> Any:
        def conv(x: Any, name: str, features: int, size: int = 3, groups: int = 1) -> Any:
            x = linen.Conv(features, (size, size), use_bias=False, feature_group_count=groups, name=name)(x)
            return linen.BatchNorm(use_running_average=not train, momentum=0.9, name=f"{name}_bn")(x)

        x = linen.relu(conv(x, "stem", 8))
        x = linen.relu(x + conv(linen.relu(conv(x, "inner", 12)), "outer", 8))
        x = linen.max_pool(x, window_shape=(2, 2), strides=(2, 2))
        y = linen.relu(conv(linen.relu(conv(x, "wide", 16, 1)), "depth", 16, 3, 16))
        x = x + conv(y, "narrow", 8, 1)
        return linen.Dense(5, name="classes")(x.mean((1, 2)))


class MLP(linen.Module):
    @linen.compact
    def __call__(self, x: Any, train: bool = False) -> Any:
        x = linen.gelu(linen.LayerNorm()(linen.Dense(16)(x)))
        x = linen.LayerNorm()(x + linen.Dense(16)(linen.gelu(linen.Dense(24)(x))))
        return linen.Dense(4)(x)


class Attention(linen.Module):
    @linen.compact
    def __call__(self, x: Any, train: bool = False) -> Any:
        x = linen.Dense(16)(x)
        x = x + linen.MultiHeadDotProductAttention(num_heads=4)(linen.LayerNorm()(x))
        x = x + linen.Dense(16)(linen.gelu(linen.Dense(32)(linen.LayerNorm()(x))))
        return linen.Dense(3)(x.mean(1))


class Stack(nnx.Module):
    """With a list of layers, and Dropout's key and count, which are no parameters."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.conv, self.norm = nnx.Conv(3, 8, (3, 3), rngs=rngs), nnx.BatchNorm(8, rngs=rngs)
        self.layers = nnx.List([nnx.Linear(8, 16, rngs=rngs), nnx.Linear(16, 8, rngs=rngs)])
        self.drop, self.last = nnx.Dropout(0.1, rngs=rngs), nnx.Linear(8, 4, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        x = nnx.relu(self.norm(self.conv(x))).mean((1, 2))
        for layer in self.layers:
            x = nnx.gelu(layer(x))
        return self.last(self.drop(x))


def randomly(shapes: Any) -> Any:
    """Arrays of these shapes: nothing is compiled for it, and no weight is 0 or 1, which would hide a wrong cut."""
    rng = np.random.default_rng(0)

    def draw(leaf: Any) -> Any:
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return leaf
        values = rng.random(leaf.shape) + 0.5 if len(leaf.shape) == 1 else rng.normal(size=leaf.shape) / 4
        return values.astype(np.float32)

    return jax.tree.map(draw, shapes)


LINEN = {"residual": (Residual, (8, 8, 3)), "mlp": (MLP, (10,)), "attention": (Attention, (6, 10))}
NAMES = [*LINEN, "stack"]


@cache
def net(name: str) -> Net:
    """A network, its parameters, three samples, what it says to them, its export; shared between tests."""
    shape = LINEN[name][1] if name in LINEN else (8, 8, 3)
    inputs = np.random.default_rng(1).normal(size=(3, *shape)).astype(np.float32)
    if name in LINEN:
        module = LINEN[name][0]()
        function, params = module.apply, randomly(jax.eval_shape(module.init, jax.random.key(0), inputs))
    else:
        stack = Stack(nnx.Rngs(0))
        stack.eval()
        graphdef, state = nnx.split(stack)
        function, params = lambda state, x: nnx.merge(graphdef, state)(x), randomly(state)
    outputs = np.asarray(jax.jit(function)(params, inputs))
    return Net(function, params, inputs, outputs, export(function, params, inputs))
