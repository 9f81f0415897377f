"""A plain JAX loop over a Flax module that ends at half the FLOPs, and the module with the widths that are left.

python examples/train_jax.py [FOLDER]
"""

import sys
from pathlib import Path

import jax
import numpy as np
import optax
from flax import linen
from jax import numpy as jnp
from sklearn.datasets import load_digits

import onnxmorph
from onnxmorph.adapters.jax import Morph, resize
from onnxmorph.converters.jax import export

EPOCHS, BATCH = 10, 64
out = Path(sys.argv[1] if len(sys.argv) > 1 else "out/examples")
out.mkdir(parents=True, exist_ok=True)


class Net(linen.Module):
    widths: tuple[int, int] = (16, 32)

    @linen.compact
    def __call__(self, x, train=False):
        for k, width in enumerate(self.widths):
            x = linen.Conv(width, (3, 3), use_bias=False, name=f"conv{k}")(x)
            x = linen.relu(linen.BatchNorm(use_running_average=not train, momentum=0.9, name=f"norm{k}")(x))
            x = linen.max_pool(x, window_shape=(2, 2), strides=(2, 2))
        return linen.Dense(10, name="classes")(x.reshape((x.shape[0], -1)))


pixels, labels = load_digits(return_X_y=True)
images = (pixels.reshape(-1, 8, 8, 1) / 16).astype(np.float32)
net, steps = Net(), EPOCHS * (len(images) // BATCH)
variables = jax.jit(net.init)(jax.random.key(0), images[:2])
optimizer = optax.adam(3e-3)
opt_state = optimizer.init(variables["params"])


@jax.jit
def update(variables, opt_state, x, y):
    def loss_of(params):
        scores, changed = net.apply({**variables, "params": params}, x, train=True, mutable=["batch_stats"])
        return optax.softmax_cross_entropy_with_integer_labels(scores, y).mean(), changed

    (loss, changed), gradients = jax.value_and_grad(loss_of, has_aux=True)(variables["params"])
    updates, opt_state = optimizer.update(gradients, opt_state)
    return {"params": optax.apply_updates(variables["params"], updates), **changed}, opt_state, loss


morph = Morph(net.apply, variables, images[:2], "flops=50%", steps=steps, learning_rate=3e-3)  # the first line
rng = np.random.default_rng(0)
for epoch in range(EPOCHS):
    for chosen in np.split(rng.permutation(len(images))[: len(images) // BATCH * BATCH], len(images) // BATCH):
        variables, opt_state, loss = update(variables, opt_state, images[chosen], labels[chosen])
        variables, opt_state = morph.step(variables, opt_state)  # the second line
    print(f"epoch {epoch + 1}: loss {loss:.3f}, {morph.cost['flops']:,} FLOPs, λ {morph.strength:.2g}")
variables, opt_state = morph.finish(variables, opt_state)  # does nothing where the budget is met already

# What to do with it: the shrunk ONNX file, and the module of these widths with the parameters that live.
structure = morph.structure()
structure.save(out / "structure.json")
onnxmorph.shrink(export(net.apply, variables, images[:2]), structure).save(out / "small.onnx")
kept = resize(variables, structure)
small = Net(tuple(kept["params"][f"conv{k}"]["kernel"].shape[-1] for k in range(2)))
difference = jnp.abs(small.apply(kept, images) - net.apply(variables, images)).max()
accuracy = (small.apply(kept, images).argmax(1) == labels).mean()
print(f"widths: {morph.widths}, magnitudes: {set(morph.magnitudes.values())}, {accuracy:.1%} right")
print(f"the small module differs from the large one by {difference:.1e}")
