"""Keras's own fit, with a callback that ends at half the FLOPs, and the model with the widths that are left.

KERAS_BACKEND=torch python examples/train_keras.py [FOLDER]     # or jax
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
import numpy as np
from keras import layers
from sklearn.datasets import load_digits

import onnxmorph
from onnxmorph.adapters.keras import resize
from onnxmorph.adapters.keras_fit import MorphCallback
from onnxmorph.converters.keras import export

out = Path(sys.argv[1] if len(sys.argv) > 1 else "out/examples")
out.mkdir(parents=True, exist_ok=True)
keras.utils.set_random_seed(0)

pixels, labels = load_digits(return_X_y=True)
images = (pixels.reshape(-1, 8, 8, 1) / 16).astype(np.float32)
model = keras.Sequential(
    [
        keras.Input((8, 8, 1)),
        *(layers.Conv2D(16, 3, padding="same", use_bias=False), layers.BatchNormalization(momentum=0.9)),
        *(layers.ReLU(), layers.MaxPooling2D(2)),
        *(layers.Conv2D(32, 3, padding="same", use_bias=False), layers.BatchNormalization(momentum=0.9)),
        *(layers.ReLU(), layers.MaxPooling2D(2)),
        *(layers.Flatten(), layers.Dense(10)),
    ]
)
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile(keras.optimizers.Adam(3e-3), loss, metrics=["accuracy"])

callback = MorphCallback("flops=50%", images[:2])
model.fit(images, labels, batch_size=64, epochs=10, callbacks=[callback], verbose=2)

# What to do with it: the shrunk ONNX file, and the shrunk model to train further.
structure = callback.morph.structure()
structure.save(out / "structure.json")
onnxmorph.shrink(export(model, images[:2]), structure).save(out / "small.onnx")
small = resize(model, structure)
small.save(out / "small.keras")
difference = np.abs(small.predict(images, verbose=0) - model.predict(images, verbose=0)).max()
print(f"widths: {callback.morph.widths}")
print(f"the small model differs from the large one by {difference:.1e}")
