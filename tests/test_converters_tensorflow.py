"""TensorFlow to ONNX: names, values and function survive, and what cannot be written is an error, not a broken file.

tests/test_keras_backends.py runs this, and the tests of Keras, on the backend tensorflow.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx_ir as ir
import pytest
from keras import layers

import onnxmorph
from onnxmorph.errors import ConversionError
from onnxmorph.surgery.verify import relative, run_session

if keras.config.backend() != "tensorflow":
    pytest.skip("Keras is on another backend", allow_module_level=True)
tf = pytest.importorskip("tensorflow")
export = pytest.importorskip("onnxmorph.converters.tensorflow").export

pytestmark = pytest.mark.nightly

ROOT = Path(onnxmorph.__file__).parents[1]
RNG = np.random.default_rng(0)
X = RNG.normal(size=(3, 5)).astype(np.float32)


def variable(name: str, *shape: int) -> Any:
    return tf.Variable(RNG.normal(size=shape).astype(np.float32) / 2, name=name)


W, V = variable("first/w", 5, 8), variable("second/w", 8, 3)
NAMESAKE = variable("first/w", 8, 3)
FIXED = tf.constant(RNG.normal(size=(8, 3)).astype(np.float32))


class Module(tf.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w, self.v, self.unread = W, V, variable("unread", 7)

    @tf.function
    def __call__(self, x: Any) -> Any:
        return tf.nn.relu(x @ self.w) @ self.v


def loop(x: Any) -> Any:
    x, k = x @ W, tf.constant(0)
    while k < 3:
        x, k = tf.nn.relu(x) * 0.5, k + 1
    return x @ V


def branch(x: Any) -> Any:
    if tf.reduce_sum(x) > 0:
        h = x @ W
    else:
        h = tf.nn.relu(x @ W)
    return h @ V


FUNCTIONS: dict[str, Any] = {
    "module": Module(),
    "function": tf.function(lambda x: tf.nn.gelu(x @ W) @ V),
    "lambda": lambda x: tf.math.erfc(x @ W) @ V,
    "loop": tf.function(loop),
    "branch": tf.function(branch),
    "constant": lambda x: tf.nn.relu(x @ W) @ FIXED + tf.reduce_sum(V),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_keep_names_values_and_what_they_compute(name: str) -> None:
    model = export(FUNCTIONS[name], X)
    parameters = {n for n, p in onnxmorph.analyze(model).parameters.items() if p.shape}
    assert parameters - {"constant", "constant_1"} == {"first/w", "second/w"}
    for each in (W, V):
        np.testing.assert_array_equal(model.graph.initializers[each.name[:-2]].const_value.numpy(), each.numpy())
    for batch in (1, 3):
        assert relative(FUNCTIONS[name](X[:batch]).numpy(), run_session(model)({"input": X[:batch]})[0]) <= 1e-4


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name != "constant"])
def test_functions_are_cut(name: str) -> None:
    model = export(FUNCTIONS[name], X)
    small = onnxmorph.shrink(model, budget="flops=50%")
    assert small.structure.costs["after"]["flops"] <= 0.5 * small.structure.costs["before"]["flops"]
    assert onnxmorph.verify(model, small.model, small.structure).difference <= 1e-4


def grouped() -> keras.Model:
    """Convolutions in groups, before and after one that is not."""
    parts = [
        layers.Conv2D(8, 3, groups=2, activation="gelu", name="two"),
        layers.BatchNormalization(name="bn"),
        layers.Conv2D(12, 1, name="one"),
        layers.Conv2D(12, 3, groups=4, use_bias=False, name="four"),
        layers.GlobalAveragePooling2D(),
        layers.Dense(3, name="classes"),
    ]
    return keras.Sequential([keras.Input((7, 7, 4)), *parts], name="net")


def recurrent() -> keras.Model:
    parts = [keras.Input((7, 5)), layers.LSTM(6, name="lstm"), layers.Dense(3, name="classes")]
    return keras.Sequential(parts, name="net")


@pytest.mark.parametrize(("make", "first"), [(grouped, "net/two/kernel"), (recurrent, "net/lstm/lstm_cell/kernel")])
def test_keras_models_that_are_calls_and_loops_in_tensorflow(make: Callable[[], keras.Model], first: str) -> None:
    keras.utils.set_random_seed(0)
    model = make()
    x = RNG.normal(size=(3, *model.input_shape[1:])).astype(np.float32)
    exported = export(model, x)
    assert first in exported.graph.initializers
    for each in model.weights:
        np.testing.assert_array_equal(exported.graph.initializers[each.path].const_value.numpy(), each.numpy())
    assert relative(model(x, training=False).numpy(), run_session(exported)({"input": x})[0]) <= 1e-4
    small = onnxmorph.shrink(exported, budget="params=60%")
    assert onnxmorph.verify(exported, small.model, small.structure).difference <= 1e-4


def test_groups_of_a_convolution_are_cut_as_groups() -> None:
    model = export(grouped(), np.ones((2, 7, 7, 4), np.float32))
    assert [n.attributes["group"].as_int() for n in model.graph if n.op_type == "Conv"] == [2, 1, 4]
    assert {g.id: g.width for g in onnxmorph.analyze(model).groups} == {
        "net/two/kernel:3": 4,
        "net/one/kernel:3": 3,
        "net/one/kernel:3/2": 4,
        "net/four/kernel:3": 3,
    }


FINGERPRINT = """
from test_converters_tensorflow import FUNCTIONS, X, export, grouped, np, onnxmorph, recurrent
models = [export(f, X) for f in FUNCTIONS.values()]
models += [export(make(), np.ones((2, *make().input_shape[1:]), "float32")) for make in (grouped, recurrent)]
print(*[onnxmorph.analyze(model).graph.fingerprint for model in models])
"""


def test_fingerprints_are_the_same_in_every_process() -> None:
    def run(seed: str) -> list[str]:
        command = [sys.executable, "-c", FINGERPRINT]
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    one, two = run("1"), run("2")
    assert one == two and len(set(one)) == len(one) == len(FUNCTIONS) + 2


def test_fingerprints_are_the_same_from_one_export_to_the_next() -> None:
    model = grouped()
    exports = [export(model, np.ones((size, 7, 7, 4), np.float32)) for size in (2, 3)]
    assert len({onnxmorph.analyze(each).graph.fingerprint for each in exports}) == 1


@pytest.mark.parametrize(
    ("function", "match"),
    [
        (lambda x: tf.math.lgamma(tf.abs(x @ W)) @ V, r"Lgamma \(node 'Lgamma'\); write it"),
        (tf.function(lambda x: tf.math.bessel_i0(x @ W)), "BesselI0"),
        (lambda x: tf.transpose(x @ W, tf.argsort(tf.reduce_sum(x, 0)[:2])), "fails at node 'transpose'"),
        (lambda x: tf.pad(x, [[0, 0]], "NO MODE"), "NO MODE"),
        (lambda x: x.nothing, "AttributeError.*nothing"),
    ],
    ids=["unknown", "unknown-inside", "no-constant", "misused", "broken"],
)
def test_what_has_no_counterpart_is_an_error_and_no_file(function: Any, match: str, tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match=match) as raised:
        export(function, X, tmp_path / "model.onnx")
    assert raised.value.code == "tensorflow-export" and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "inputs", ["text", (), (X, np.float32(1)), (X, X[:1]), [1.0, 2.0]], ids=["text", "none", "scalar", "two", "list"]
)
def test_inputs_that_are_no_batch_are_an_error(inputs: object) -> None:
    with pytest.raises(ConversionError) as raised:
        export(lambda *x: x[0] @ W, inputs)
    assert raised.value.code == "tensorflow-inputs"


def test_two_variables_of_one_name_are_an_error() -> None:
    with pytest.raises(ConversionError, match="first/w") as raised:
        export(lambda x: x @ W @ NAMESAKE, X)
    assert raised.value.code == "tensorflow-names"


def test_the_file_is_written_with_the_sizes_of_the_examples(tmp_path: Path) -> None:
    export(lambda x, y: x @ W + y, (X, X[:, :1]), tmp_path / "model.onnx", dynamic_batch=False)
    model = ir.load(tmp_path / "model.onnx")
    assert {value.name: list(value.shape or ()) for value in model.graph.inputs} == {
        "input_0": [3, 5],
        "input_1": [3, 1],
    }
    assert model.opset_imports == {"": 18}
    assert b".py" not in (tmp_path / "model.onnx").read_bytes()


def test_keras_stays_as_it_is() -> None:
    model = grouped()
    before, call = [v.numpy() for v in model.variables], layers.BatchNormalization.call
    export(model, np.ones((2, 7, 7, 4), np.float32))
    assert layers.BatchNormalization.call is call
    for value, was in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(value.numpy(), was)


def test_the_block_of_the_document_runs_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "frameworks.md").read_text(encoding="utf-8")
    (block,) = (b for b in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "tensorflow" in b)
    names: dict[str, Any] = {"module": Module(), "example_inputs": X}
    exec(block, names)
    assert names["small"].structure.groups and (tmp_path / "model.onnx").is_file()
