"""Networks of Keras, on whichever backend is set; sizes all differ, so that no axis passes for another."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import keras
import numpy as np
import onnx_ir as ir
from keras import layers

from onnxmorph.converters.keras import export

ZEROS = "zeros"  # random numbers come later: JAX would compile a program for every shape


class Net(NamedTuple):
    model: keras.Model
    inputs: Any
    outputs: np.ndarray
    exported: ir.Model


def residual() -> keras.Model:
    """Convolutions with BatchNorm, around one a skip, and an inverted residual with a depthwise one."""

    def conv(x: Any, name: str, features: int, size: int = 3) -> Any:
        options = {"padding": "same", "use_bias": False, "name": name}
        if name == "depth":
            x = layers.DepthwiseConv2D(size, depthwise_initializer=ZEROS, **options)(x)
        else:
            x = layers.Conv2D(features, size, kernel_initializer=ZEROS, **options)(x)
        return layers.BatchNormalization(momentum=0.9, name=f"{name}_bn")(x)

    images = keras.Input((8, 8, 3), name="images")
    x = layers.ReLU()(conv(images, "stem", 8))
    x = layers.ReLU()(layers.Add()([x, conv(layers.ReLU()(conv(x, "inner", 12)), "outer", 8)]))
    x = layers.AveragePooling2D(2)(layers.MaxPooling2D(2, 1)(x))
    y = layers.ReLU()(conv(layers.ReLU()(conv(x, "wide", 16, 1)), "depth", 16))
    x = layers.Add()([x, conv(y, "narrow", 8, 1)])
    x = layers.Dropout(0.1)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(images, layers.Dense(5, kernel_initializer=ZEROS, name="classes")(x))


def mlp() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((10,)),
            *(layers.Dense(16, kernel_initializer=ZEROS), layers.LayerNormalization(), layers.Activation("gelu")),
            *(layers.Dense(24, "relu", kernel_initializer=ZEROS), layers.RMSNormalization()),
            layers.Dense(4, kernel_initializer=ZEROS),
        ],
        name="mlp",
    )


def attention() -> keras.Model:
    """Of two inputs, tokens and what is added to them."""
    tokens, more = keras.Input((6, 10)), keras.Input((6, 16))
    x = layers.Add()([layers.Dense(16, kernel_initializer=ZEROS)(tokens), more])
    y = layers.LayerNormalization()(x)
    x = layers.Add()([x, layers.MultiHeadAttention(4, 5, kernel_initializer=ZEROS, name="heads")(y, y)])
    y = layers.Dense(32, "gelu", kernel_initializer=ZEROS)(layers.LayerNormalization()(x))
    x = layers.Add()([x, layers.Dense(16, kernel_initializer=ZEROS)(y)])
    x = layers.GlobalAveragePooling1D()(x)
    return keras.Model([tokens, more], layers.Dense(3, kernel_initializer=ZEROS)(x))


def grouped() -> keras.Model:
    """GroupNorm, a separable convolution, and one inside a model inside the model."""
    inner = keras.Sequential([keras.Input((4, 4, 8)), layers.SeparableConv2D(6, 3)], name="inside")
    images = keras.Input((6, 6, 4))
    x = layers.GroupNormalization(4)(layers.Conv2D(8, 3)(images))
    x = layers.Flatten()(inner(layers.Activation("silu")(x)))
    return keras.Model(images, layers.Dense(3)(x))


NETS = {net.__name__: net for net in (residual, mlp, attention, grouped)}


@cache
def net(name: str) -> Net:
    """A network of random weights, three samples, what it says to them, its export; shared between tests."""
    model, rng = NETS[name](), np.random.default_rng(0)
    for variable in model.variables:
        if variable.dtype == "float32":
            shape = variable.shape
            variable.assign(rng.random(shape) + 0.5 if len(shape) == 1 else rng.normal(size=shape) / 4)
    arrays = [rng.normal(size=(3, *each.shape[1:])).astype(np.float32) for each in model.inputs]
    inputs = arrays if len(arrays) > 1 else arrays[0]
    outputs = np.asarray(keras.ops.convert_to_numpy(model(inputs, training=False)))
    return Net(model, inputs, outputs, export(model, inputs))
