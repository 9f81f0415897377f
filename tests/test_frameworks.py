"""What docs/frameworks.md shows runs as it stands there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jax
import keras
import numpy as np
import optax
import pytest
from flax import linen, nnx

DOCUMENT = Path(__file__).parents[1] / "docs" / "frameworks.md"
BLOCKS = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)

X, Y = np.random.default_rng(0).normal(size=(32, 6)).astype(np.float32), np.arange(32) % 3


def of_jax() -> dict[str, Any]:
    model = linen.Sequential([linen.Dense(8), linen.relu, linen.Dense(3)])
    variables = jax.jit(model.init)(jax.random.key(0), X)
    optimizer = optax.sgd(0.1)

    def loss(variables: Any, x: Any, y: Any) -> Any:
        return optax.softmax_cross_entropy_with_integer_labels(model.apply(variables, x), y).mean()

    @jax.jit
    def update(variables: Any, opt_state: Any, x: Any, y: Any) -> Any:
        updates, opt_state = optimizer.update(jax.grad(loss)(variables, x, y)["params"], opt_state)
        return {"params": optax.apply_updates(variables["params"], updates)}, opt_state

    names = {"model": model, "variables": variables, "opt_state": optimizer.init(variables["params"]), "loss": loss}
    rngs = nnx.Rngs(0)
    network = nnx.Sequential(nnx.Linear(6, 8, rngs=rngs), jax.nn.relu, nnx.Linear(8, 3, rngs=rngs))
    schedule = optax.cosine_decay_schedule(0.1, 2000)
    return {
        **names,
        "update": update,
        "schedule": schedule,
        "x": X,
        "y": Y,
        "network": network,
    }


def of_keras() -> dict[str, Any]:
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(3)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return {"model": model, "x": X, "y": Y}


@pytest.mark.xdist_group("jax")
def test_the_blocks_of_the_document_run_as_they_stand(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(BLOCKS) == 5
    for block in BLOCKS:
        names = of_keras() if "adapters.keras" in block else of_jax()
        names |= {"example_inputs": X[:2], "batches": [(X, Y)] * 3}
        exec(block, names)
        morph = names["callback"].morph if "callback" in names else names["morph"]
        assert [*morph.widths.values()] == [8] or morph.done
        if "small" in names:
            (width,) = morph.widths.values()
            assert width < 8
            small = names["small"]
            found = (
                small.layers[0].units if isinstance(small, keras.Model) else small["params"]["layers_0"]["bias"].size
            )
            assert found == width
