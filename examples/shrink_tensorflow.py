"""A TensorFlow module, cut by what its weights say, and its variables with the channels that are left.

python examples/shrink_tensorflow.py [FOLDER]
"""

import sys
from pathlib import Path

import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits

import onnxmorph
from onnxmorph.converters.tensorflow import export

out = Path(sys.argv[1] if len(sys.argv) > 1 else "out/examples")
out.mkdir(parents=True, exist_ok=True)
rng = np.random.default_rng(0)

pixels, labels = load_digits(return_X_y=True)
images = (pixels.reshape(-1, 8, 8, 1) / 16).astype(np.float32)


class Net(tf.Module):
    def __init__(self, weights: dict[str, np.ndarray]) -> None:
        super().__init__()
        self.weights = {name: tf.Variable(value, name=name) for name, value in weights.items()}

    @tf.function
    def __call__(self, x):
        for name in ("conv0", "conv1"):
            x = tf.nn.conv2d(x, self.weights[f"{name}/kernel"], 1, "SAME") + self.weights[f"{name}/bias"]
            x = tf.nn.max_pool2d(tf.nn.relu(x), 2, 2, "VALID")
        return tf.reduce_mean(x, [1, 2]) @ self.weights["classes/kernel"]


shapes = {"conv0/kernel": (3, 3, 1, 16), "conv1/kernel": (3, 3, 16, 32), "classes/kernel": (32, 10)}
weights = {name: (rng.normal(size=s) * np.sqrt(2 / np.prod(s[:-1]))).astype(np.float32) for name, s in shapes.items()}
weights |= {f"conv{k}/bias": np.zeros(16 << k, np.float32) for k in range(2)}
net = Net(weights)
for _ in range(5):
    for chosen in np.split(rng.permutation(1200), 24):
        with tf.GradientTape() as tape:
            found = tf.nn.sparse_softmax_cross_entropy_with_logits(labels[chosen], net(images[chosen]))
            loss = tf.reduce_mean(found)
        for variable, gradient in zip(
            net.trainable_variables, tape.gradient(loss, net.trainable_variables), strict=True
        ):
            variable.assign_sub(0.3 * gradient)

small = onnxmorph.shrink(export(net, images[:2], out / "model.onnx"), budget="flops=60%")
small.save(out / "small.onnx")
small.structure.save(out / "structure.json")

# The same for the module: along every axis that the structure lists, the indices that it keeps.
kept = {name: variable.numpy() for name, variable in net.weights.items()}
for name, axes in small.structure.parameters.items():
    for axis, indices in axes.items():
        kept[name] = np.take(kept[name], indices, axis)
narrow = Net(kept)
accuracy = (narrow(images[1200:]).numpy().argmax(1) == labels[1200:]).mean()
print(f"loss {loss:.3f}; widths: {small.structure.widths.tolist()}, {accuracy:.1%} right without further training")
