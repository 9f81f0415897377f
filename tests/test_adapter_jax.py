"""The penalty in JAX: the same as in NumPy, and the pytree that comes out of it is the small network."""

from __future__ import annotations

import itertools
import json
from typing import Any

import jax
import numpy as np
import optax
import pytest
from flax import nnx
from jax import numpy as jnp

import onnxmorph
from flax_nets import Stack, net
from numpy_training import NumpyMorph, assert_alike
from onnxmorph.adapters.jax import Morph, load_weights, resize
from onnxmorph.adapters.standing import begin
from onnxmorph.analysis import analyze
from onnxmorph.converters.jax import export, names
from onnxmorph.errors import BoundsError, OnnxMorphError, StructureError, TrainingError
from onnxmorph.structure import Structure
from onnxmorph.surgery.verify import relative, run_session

pytestmark = pytest.mark.xdist_group("jax")

AS_DEFAULT: dict[str, Any] = {"method": "proximal", "magnitudes": "auto", "combine": None}


def arrays(params: Any) -> dict[str, np.ndarray]:
    found = zip(names(params), jax.tree.leaves(params), strict=True)
    return {name: np.asarray(leaf) for name, leaf in found if jnp.issubdtype(leaf.dtype, jnp.floating)}


def noise(shapes: dict[str, np.ndarray], step: int) -> dict[str, np.ndarray]:
    """What an optimizer does, as far as the penalty can tell: everything moves a little."""
    rng = np.random.default_rng(step)
    return {name: rng.normal(size=a.shape).astype(np.float32) / 100 for name, a in shapes.items()}


def pushed(params: Any, step: int) -> Any:
    by = noise(arrays(params), step)
    leaves, tree = jax.tree.flatten(params)
    return jax.tree.unflatten(tree, [a + by[n] if n in by else a for n, a in zip(names(params), leaves, strict=True)])


def adam(params: Any, squares: dict[str, np.ndarray], prefix: str) -> Any:
    """The state of optax.adam over a part of a pytree, with these mean squares."""
    first, last = optax.adam(0.1).init(params)
    nu = [jnp.asarray(squares[prefix + n], jnp.float32) for n in names(params)]
    return first._replace(mu=params, nu=jax.tree.unflatten(jax.tree.structure(params), nu)), last


@pytest.mark.parametrize(
    ("name", "by", "order"),
    [("attention", "sgd", "magnitude"), ("stack", "adam", "magnitude"), ("attention", "sgd", "taylor")],
)
def test_a_training_is_the_one_in_numpy(name: str, by: str, order: str) -> None:
    case, steps, prefix = net(name), 24, "" if name == "stack" else "params/"
    params, opt_state, start = case.params, None, arrays(case.params)
    squares = {n: a**2 for n, a in noise(start, 99).items()} if by == "adam" else {}
    if squares:
        part = nnx.filter_state(params, nnx.Param) if name == "stack" else params["params"]
        opt_state = adam(part, squares, prefix)
    morph = Morph(case.function, params, case.inputs, "flops=60%", steps=steps, learning_rate=0.1, by=order)
    held = [n for n in names(params) if n.startswith(prefix)]
    training = begin(
        analyze(case.model), [case.inputs], names(params), held, "flops=60%", steps=steps, **AS_DEFAULT, by=order
    )
    reference = NumpyMorph(training, start, 0.1, squares, 1e-8)
    for step in range(steps):
        reference.gradients = noise(start, 1000 + step)
        gradients = jax.tree.unflatten(
            jax.tree.structure(params), [reference.gradients.get(n, 0.0) for n in names(params)]
        )
        given = gradients["params"] if order == "taylor" else None
        params, opt_state = morph.step(pushed(params, step), opt_state, given)
        reference.arrays = {n: a + noise(start, step)[n] for n, a in reference.arrays.items()}
        reference.step()
    assert_alike(arrays(params), reference.arrays)
    assert morph.structure() == training.structure("morph by proximal")
    assert morph.done and any((a == 0).any() for a in reference.arrays.values())


@pytest.fixture
def trained() -> tuple[Morph, Any, Any]:
    """The MLP of ``perceptron`` at half its FLOPs, its parameters, and the state of Adam."""
    params, steps = WEIGHTS, 20
    opt_state: Any = adam(params, {n: a**2 for n, a in arrays(params).items()}, "")
    morph = Morph(perceptron, params, X, "flops=50%", steps=steps)
    for step in range(steps):
        params, opt_state = morph.step(pushed(params, step), opt_state)
    return morph, params, opt_state


def perceptron(params: Any, x: jax.Array) -> jax.Array:
    """Takes every size from its parameters."""
    for layer in params["layers"]:
        x = jax.nn.relu(x @ layer["w"] + layer["b"])
    return x @ params["last"]


def weights(*sizes: int) -> Any:
    rng = np.random.default_rng(0)
    pairs = [(i, o, rng.normal(size=(i, o)) / 2) for i, o in itertools.pairwise(sizes)]
    layers = [{"w": w.astype(np.float32), "b": np.full(o, 0.1, np.float32)} for _, o, w in pairs]
    return {"layers": layers, "last": rng.normal(size=(sizes[-1], 3)).astype(np.float32)}


X, WEIGHTS = np.random.default_rng(2).normal(size=(5, 8)).astype(np.float32), weights(8, 12, 10)


def test_the_small_parameters_compute_what_the_masked_do(trained: tuple[Morph, Any, Any]) -> None:
    morph, params, _ = trained
    structure = morph.structure()
    assert morph.done and 0.45 < morph.cost["flops"] / structure.costs["before"]["flops"] <= 0.5
    small = resize(params, structure)
    assert [a["w"].shape[1] for a in small["layers"]] == list(morph.widths.values())
    np.testing.assert_allclose(perceptron(small, X), perceptron(params, X), rtol=1e-5, atol=1e-6)


def test_what_the_optimizer_remembers_of_the_dead_is_zero_but_for_squares(trained: tuple[Morph, Any, Any]) -> None:
    _, params, (state, _) = trained
    dead = [np.asarray(b["b"]) == 0 for b in params["layers"]]
    assert all(d.any() for d in dead)
    for layer, memory, squares, gone in zip(
        params["layers"], state.mu["layers"], state.nu["layers"], dead, strict=True
    ):
        assert not np.asarray(memory["b"])[gone].any() and not np.asarray(memory["w"])[:, gone].any()
        assert np.asarray(memory["b"])[~gone].all() and np.asarray(squares["b"]).all()
        assert layer["w"].shape == memory["w"].shape


@pytest.mark.parametrize(
    "optimizer",
    [
        optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(0.1, weight_decay=1e-4)),
        optax.masked(optax.rmsprop(0.1), jax.tree.map(lambda _: True, WEIGHTS)),
        optax.multi_transform({"all": optax.adam(0.1)}, "all"),
        optax.inject_hyperparams(optax.adagrad)(learning_rate=0.1),
        optax.MultiSteps(optax.adam(0.1), 2),
    ],
    ids=["chain", "masked", "multi", "inject", "steps"],
)
def test_running_squares_are_found_wherever_optax_keeps_them(optimizer: optax.GradientTransformation) -> None:
    morph = Morph(perceptron, WEIGHTS, X, "flops=50%", steps=10)
    state, gradients = optimizer.init(WEIGHTS), jax.tree.map(lambda w: 0.1 * jnp.ones_like(w), WEIGHTS)
    for _ in range(2):
        _, state = optimizer.update(gradients, state, WEIGHTS)
    _, squares, eps = morph._rates(state)
    assert squares is not None and len(squares) == len(morph._norms(WEIGHTS)) and eps > 0
    assert (squares > 0).all() and np.ptp(squares) <= 1e-6


def test_a_killed_and_resumed_training_gives_the_same() -> None:
    def run(params: Any, state: str | None, first: int, last: int) -> tuple[Any, Morph]:
        morph = Morph(perceptron, params, X, "params=50%", steps=30)
        if state is not None:
            morph.load_state_dict(json.loads(state))
        for step in range(first, last):
            params, _ = morph.step(pushed(params, step))
        return params, morph

    whole, uninterrupted = run(WEIGHTS, None, 0, 30)
    part, before = run(WEIGHTS, None, 0, 17)
    assert min(before.widths.values()) < 12 and not before.done
    resumed, after = run(part, json.dumps(before.state_dict()), 17, 30)
    assert after.structure() == uninterrupted.structure()
    jax.tree.map(np.testing.assert_array_equal, resumed, whole)


def test_finish_meets_the_budget_at_once() -> None:
    morph = Morph(perceptron, WEIGHTS, X, "flops=40%", steps=1000)
    params, _ = morph.finish(WEIGHTS)
    assert morph.done and not morph.over
    assert (np.asarray(params["layers"][0]["b"]) == 0).sum() == 12 - morph.widths["layers/0/w:1"]


def test_the_loss_term_has_the_gradient_of_the_penalty() -> None:
    morph = Morph(perceptron, WEIGHTS, X, "flops=50%", steps=10, method="loss", learning_rate=0.1)
    slopes, tiny = morph.slopes(WEIGHTS), 1e-3
    gradient = jax.jit(jax.grad(morph.loss_term))(WEIGHTS, slopes)
    assert morph.strength > 0

    def penalty(params: Any) -> float:
        training = morph._training
        return float(training.slopes(morph._norms(params))[1])

    length = np.sqrt(sum(float((g**2).sum()) for g in jax.tree.leaves(gradient)))
    up, down = (jax.tree.map(lambda w, g, by=by: w + by * g / length, WEIGHTS, gradient) for by in (tiny, -tiny))
    assert (penalty(up) - penalty(down)) / (2 * tiny) == pytest.approx(length, rel=1e-2)
    assert all(
        np.isfinite(g).all()
        for g in jax.tree.leaves(jax.grad(morph.loss_term)(jax.tree.map(jnp.zeros_like, WEIGHTS), slopes))
    )


def test_an_expanded_network_comes_back() -> None:
    model = export(perceptron, WEIGHTS, X)
    wide = onnxmorph.expand(model, onnxmorph.shrink(model, budget="flops=40%").structure, "flops=100%")
    params = load_weights(resize(WEIGHTS, wide.structure), wide.model)
    assert params["layers"][0]["w"].shape != WEIGHTS["layers"][0]["w"].shape
    assert relative(run_session(wide.model)({"input": X})[0], np.asarray(perceptron(params, X))) <= 1e-5


def test_modules_of_nnx_take_their_widths_from_the_state() -> None:
    case = net("stack")
    structure = onnxmorph.shrink(case.model, budget="flops=50%").structure
    graphdef = nnx.split(nnx.eval_shape(lambda: Stack(nnx.Rngs(0))))[0]
    module = nnx.merge(graphdef, resize(case.params, structure))
    module.eval()
    small = onnxmorph.shrink(case.model, structure)
    assert relative(run_session(small.model)({"input": case.inputs})[0], np.asarray(module(case.inputs))) <= 1e-4


def another(params: Any) -> Any:
    return {**params, "more": params["last"]}


def infinite(params: Any) -> Any:
    return {**params, "last": params["last"] * np.float32("nan")}


@pytest.mark.parametrize(("change", "code"), [(another, "module-changed"), (infinite, "not-finite")])
def test_a_loop_that_cannot_go_on_says_why(change: Any, code: str) -> None:
    morph = Morph(perceptron, WEIGHTS, X, "flops=50%", steps=10)
    with pytest.raises(TrainingError) as raised:
        morph.step(change(WEIGHTS))
    assert raised.value.code == code and set(morph.widths.values()) == {12, 10}


@pytest.mark.parametrize(
    ("options", "kind", "code"),
    [
        ({"method": "by hand"}, StructureError, "method"),
        ({"magnitudes": "none"}, StructureError, "magnitudes"),
        ({"magnitudes": "gate"}, StructureError, "magnitudes"),
        ({"bounds": onnxmorph.Bounds(round_to={"*": 8})}, BoundsError, "bounds-training"),
    ],
)
def test_options_that_are_none_are_errors(options: Any, kind: type[OnnxMorphError], code: str) -> None:
    with pytest.raises(kind) as raised:
        Morph(perceptron, WEIGHTS, X, "flops=50%", steps=10, **options)
    assert raised.value.code == code


def test_a_structure_of_something_else_is_an_error(trained: tuple[Morph, Any, Any]) -> None:
    structure = trained[0].structure()
    with pytest.raises(StructureError, match="no parameter"):
        resize({"other": np.ones(3)}, structure)
    with pytest.raises(StructureError, match="too small"):
        resize(weights(8, 2, 2), structure)
    empty = json.loads(structure.to_json())
    empty["groups"][0]["keep"] = []
    with pytest.raises(StructureError) as raised:
        resize(WEIGHTS, Structure.from_json(json.dumps(empty)))
    assert raised.value.code == "structure-empty"


def test_where_channels_go_by_gradients_they_have_to_be_given() -> None:
    case = net("attention")
    morph = Morph(case.function, case.params, case.inputs, "flops=60%", steps=20, by="taylor")
    with pytest.raises(TrainingError, match=r"there is none of .*pass step\(\) the gradients") as caught:
        morph.step(case.params)
    assert caught.value.code == "gradients-missing"
