"""The penalty in Keras: the same as in NumPy, in ``fit`` and beside it; and models rebuilt with the widths left."""

from __future__ import annotations

import json
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import onnxmorph
from keras_nets import net
from numpy_training import NumpyMorph, assert_alike
from onnxmorph.adapters.keras import Morph, cut, resize
from onnxmorph.adapters.keras_fit import MorphCallback
from onnxmorph.adapters.standing import begin
from onnxmorph.analysis import analyze
from onnxmorph.converters.keras import export
from onnxmorph.errors import BudgetError, StructureError, TrainingError
from onnxmorph.structure import Structure
from onnxmorph.surgery.verify import relative, run_session

pytestmark = pytest.mark.xdist_group("jax")


def arrays(variables: list[Any]) -> dict[str, np.ndarray]:
    found = {v.path: keras.ops.convert_to_numpy(v.value) for v in variables if v.dtype == "float32"}
    return {name: np.array(value) for name, value in found.items()}  # jax's cannot be written to


def noise(shapes: dict[str, np.ndarray], step: int) -> dict[str, np.ndarray]:
    """What an optimizer does, as far as the penalty can tell: everything moves a little."""
    rng = np.random.default_rng(step)
    return {name: rng.normal(size=a.shape).astype(np.float32) / 100 for name, a in shapes.items()}


def randomly(model: keras.Model) -> keras.Model:
    rng = np.random.default_rng(0)
    for v in model.variables:
        if v.dtype == "float32":
            v.assign(rng.random(v.shape) + 0.5 if len(v.shape) == 1 else rng.normal(size=v.shape) / 2)
    return model


@pytest.mark.parametrize(("name", "by"), [("residual", "adam"), ("attention", "sgd")])
def test_a_training_is_the_one_in_numpy(name: str, by: str) -> None:
    case, steps = net(name), 24
    model = keras.models.clone_model(case.model)
    model.set_weights(case.model.get_weights())
    optimizer = {"sgd": keras.optimizers.SGD, "adam": keras.optimizers.Adam}[by](0.1)
    optimizer.build(model.trainable_variables)
    start, squares = arrays(model.variables), {}
    for v in optimizer.variables:
        if v.path.endswith("velocity"):
            path = next(p for p in start if v.path.endswith(f"/{p.replace('/', '_')}_velocity"))
            squares[path] = noise(start, 99)[path] ** 2
            v.assign(squares[path])
    morph = Morph(model, case.inputs, optimizer, "flops=60%", steps=steps)
    held, inputs = [v.path for v in model.trainable_variables], keras.tree.flatten(case.inputs)
    options: Any = {"steps": steps, "method": "proximal", "magnitudes": "auto", "combine": None}
    training = begin(analyze(case.exported), inputs, list(start), held, "flops=60%", **options)
    reference = NumpyMorph(training, start, float(np.float32(0.1)), squares, optimizer.epsilon if squares else 0.0)
    for step in range(steps):
        moved = noise(start, step)
        for v in model.variables:
            if v.path in moved:
                v.assign(v + moved[v.path])
        morph.step()
        reference.arrays = {n: a + moved[n] for n, a in reference.arrays.items()}
        reference.step()
    assert_alike(arrays(model.variables), reference.arrays)
    assert morph.structure() == training.structure("morph by proximal")
    assert morph.done and any((a == 0).any() for a in reference.arrays.values())


DIGITS = np.random.default_rng(0).normal(size=(96, 6, 6, 2)).astype(np.float32)
CLASSES = (DIGITS[:, :3].mean((1, 2, 3)) > DIGITS[:, 3:].mean((1, 2, 3))).astype(np.int64)


def small_net() -> keras.Model:
    parts = [
        *(
            keras.Input((6, 6, 2)),
            layers.Conv2D(8, 3, use_bias=False, name="conv"),
            layers.BatchNormalization(name="norm"),
        ),
        *(layers.ReLU(), layers.Flatten(), layers.Dense(12, "relu", name="hidden"), layers.Dense(2, name="classes")),
    ]
    model = keras.Sequential(parts, name="net")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss)
    return model


@pytest.fixture(scope="module")
def fitted() -> tuple[keras.Model, MorphCallback, Any]:
    keras.utils.set_random_seed(0)
    model, callback = small_net(), MorphCallback("flops=50%", DIGITS[:2])
    history = model.fit(DIGITS, CLASSES, 16, 4, callbacks=[callback], verbose=0)
    return model, callback, history.history


def test_fit_ends_within_the_budget(fitted: tuple[keras.Model, MorphCallback, Any]) -> None:
    _, callback, history = fitted
    assert callback.morph is not None and callback.morph.done
    costs = callback.morph.structure().costs
    assert 0.45 < costs["after"]["flops"] / costs["before"]["flops"] <= 0.5
    assert callback.morph.magnitudes == {"net/conv/kernel:3": "norm", "net/hidden/kernel:1": "lasso"}
    assert history["morph/flops"][-1] == costs["after"]["flops"] < history["morph/flops"][0]


def test_the_small_model_computes_what_the_masked_does(fitted: tuple[keras.Model, MorphCallback, Any]) -> None:
    model, callback, _ = fitted
    assert callback.morph is not None
    small = resize(model, callback.morph.structure())
    assert small.get_layer("conv").filters == callback.morph.widths["net/conv/kernel:3"] < 8
    assert [v.path for v in small.variables] == [v.path for v in model.variables]
    assert relative(predicted(model, DIGITS), predicted(small, DIGITS)) <= 1e-5


def test_what_the_optimizer_remembers_of_the_dead_is_zero(fitted: tuple[keras.Model, MorphCallback, Any]) -> None:
    model, callback, _ = fitted
    gone = arrays(model.variables)["net/norm/gamma"] == 0
    assert gone.sum() == 8 - callback.morph.widths["net/conv/kernel:3"]
    memory = {v.path.rpartition("/")[2]: keras.ops.convert_to_numpy(v.value) for v in model.optimizer.variables}
    momentum, kernel = memory["net_conv_kernel_momentum"], arrays(model.variables)["net/conv/kernel"]
    assert not momentum[..., gone].any() and momentum[..., ~gone].all() and memory["net_conv_kernel_velocity"].all()
    assert not kernel[..., gone].any() and kernel[..., ~gone].all()


def predicted(model: keras.Model, inputs: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(model(inputs, training=False)))


def test_a_killed_and_resumed_training_gives_the_same() -> None:
    def run(values: Any, state: str | None, first: int, last: int) -> tuple[Any, Morph]:
        model = randomly(small_net())
        if values is not None:
            model.set_weights(values)
        morph = Morph(model, DIGITS[:2], model.optimizer, "params=50%", steps=30)
        if state is not None:
            morph.load_state_dict(json.loads(state))
        for step in range(first, last):
            for v, moved in zip(model.variables, noise(arrays(model.variables), step).values(), strict=True):
                v.assign(v + moved * (arrays([v])[v.path] != 0))  # what is silent gets no gradient
            morph.step()
        return model.get_weights(), morph

    whole, uninterrupted = run(None, None, 0, 30)
    part, before = run(None, None, 0, 24)
    assert min(before.widths.values()) < 8 and not before.done
    resumed, after = run(part, json.dumps(before.state_dict()), 24, 30)
    assert after.structure() == uninterrupted.structure()
    for ours, theirs in zip(resumed, whole, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_finish_meets_the_budget_at_once() -> None:
    model = randomly(small_net())
    morph = Morph(model, DIGITS[:2], model.optimizer, "flops=40%", steps=1000)
    morph.finish()
    assert morph.done and not morph.over
    assert (arrays(model.variables)["net/norm/gamma"] == 0).sum() == 8 - morph.widths["net/conv/kernel:3"]


def test_weights_that_are_no_numbers_stop_it() -> None:
    model = randomly(small_net())
    morph = Morph(model, DIGITS[:2], model.optimizer, "flops=50%", steps=10)
    model.get_layer("hidden").kernel.assign(np.full((128, 12), np.nan))
    with pytest.raises(TrainingError) as raised:
        morph.step()
    assert raised.value.code == "not-finite" and set(morph.widths.values()) == {8, 12}


def test_fit_over_an_unknown_number_of_steps_needs_it_said() -> None:
    with pytest.raises(TrainingError) as raised:
        callback = MorphCallback("flops=50%", DIGITS[:2])
        callback.set_params({"epochs": 2, "steps": None})
        callback.on_train_begin()
    assert raised.value.code == "training-steps"
    with pytest.raises(BudgetError):
        Morph(small_net(), DIGITS[:2], keras.optimizers.SGD(), "flops=0.1%", steps=10)


# ---------------------------------------------------------------- models rebuilt


def of_layers(shape: tuple[int, ...], *parts: layers.Layer) -> keras.Model:
    return keras.Sequential([keras.Input(shape), *parts, layers.Flatten(), layers.Dense(3)], name="net")


REBUILT = {
    "conv": lambda: of_layers((9, 4), layers.Conv1D(8, 3), layers.Conv1D(8, 3, groups=4), layers.LayerNormalization()),
    "depthwise": lambda: of_layers(
        (8, 8, 6), layers.Conv2D(6, 1), layers.DepthwiseConv2D(3), layers.SeparableConv2D(7, 3)
    ),
    "transposed": lambda: of_layers((5, 5, 3), layers.Conv2DTranspose(6, 3), layers.GroupNormalization(3)),
    "recurrent": lambda: of_layers((3, 4), layers.LSTM(6, return_sequences=True)),
    "inside": lambda: of_layers(
        (4,), keras.Sequential([keras.Input((4,)), layers.Dense(9), layers.Dense(7)], name="inner")
    ),
}


@pytest.mark.parametrize("name", REBUILT)
def test_a_rebuilt_model_is_the_shrunk_graph(name: str) -> None:
    model = randomly(REBUILT[name]())
    x = np.random.default_rng(1).normal(size=(3, *model.input_shape[1:])).astype(np.float32)
    exported = export(model, x)
    small = onnxmorph.shrink(exported, budget="params=60%")
    feeds = {exported.graph.inputs[0].name: x}
    assert relative(run_session(small.model)(feeds)[0], predicted(resize(model, small.structure), x)) <= 1e-5


def test_heads_are_rebuilt() -> None:
    case = net("attention")
    small = onnxmorph.shrink(case.exported, budget="params=50%")
    rebuilt = resize(case.model, small.structure)
    heads = rebuilt.get_layer("heads")
    widths = {g.id: len(g.keep) for g in small.structure.groups}
    assert (heads._num_heads, heads._key_dim) == (widths["heads/query/kernel:1"], widths["heads/query/kernel:2"])
    feeds = dict(zip([v.name for v in case.exported.graph.inputs], case.inputs, strict=True))
    assert relative(run_session(small.model)(feeds)[0], predicted(rebuilt, case.inputs)) <= 1e-5


def test_an_expanded_model_comes_back() -> None:
    model = randomly(small_net())
    exported = export(model, DIGITS[:3])
    wide = onnxmorph.expand(exported, onnxmorph.shrink(exported, budget="flops=40%").structure, "flops=100%")
    assert any(list(g.keep) != list(range(g.width)) for g in wide.structure.groups)
    feeds = {exported.graph.inputs[0].name: DIGITS[:3]}
    wider = resize(model, wide.structure, wide.model)
    assert relative(run_session(wide.model)(feeds)[0], predicted(wider, DIGITS[:3])) <= 1e-5


class Own(keras.Model):
    def __init__(self) -> None:
        super().__init__(name="own")
        self.first, self.last = layers.Dense(6, name="first"), layers.Dense(2, name="last")

    def call(self, x: Any) -> Any:
        return self.last(self.first(x))


UNKNOWN = {
    "reshape_1": lambda: of_layers((8,), layers.Dense(8), layers.Reshape((-1, 1), name="reshape_1")),
    "einsum": lambda: of_layers((4,), layers.EinsumDense("ab,bc->ac", 8, bias_axes="c", name="einsum")),
    "own": Own,
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_a_layer_that_cannot_be_rebuilt_is_named(name: str) -> None:
    model = UNKNOWN[name]()
    shape = (4,) if name == "own" else model.input_shape[1:]
    x = np.random.default_rng(1).normal(size=(3, *shape)).astype(np.float32)
    model(x)
    randomly(model)
    structure = onnxmorph.shrink(export(model, x), budget="params=60%").structure
    with pytest.raises(StructureError, match=name) as raised:
        resize(model, structure)
    assert raised.value.code == "keras-layer"
    assert {p: v.shape for p, v in cut(model, structure).items()} != {v.path: tuple(v.shape) for v in model.variables}


def test_a_structure_of_something_else_is_an_error() -> None:
    structure = onnxmorph.shrink(net("residual").exported, budget="flops=50%").structure
    with pytest.raises(StructureError, match="no parameter"):
        cut(small_net(), structure)
    empty = json.loads(structure.to_json())
    empty["groups"][0]["keep"] = []
    with pytest.raises(StructureError) as raised:
        resize(net("residual").model, Structure.from_json(json.dumps(empty)))
    assert raised.value.code == "structure-empty"
