"""Keras to ONNX, on backends torch and jax: names, values, function and batch survive."""

from __future__ import annotations

import os
from pathlib import Path

import keras
import numpy as np
import onnx_ir as ir
import pytest
from keras import layers

import onnxmorph
from keras_nets import NETS, Net, net
from onnxmorph.converters.keras import export
from onnxmorph.errors import ConversionError
from onnxmorph.surgery.verify import relative, run_session

BACKEND = os.environ["KERAS_BACKEND"]

pytestmark = pytest.mark.xdist_group("jax")


@pytest.fixture(params=NETS)
def case(request: pytest.FixtureRequest) -> Net:
    return net(request.param)


def floating(model: keras.Model) -> dict[str, np.ndarray]:
    found = (v for v in model.variables if v.dtype == "float32")  # the rest: seeds of Dropout
    return {v.path: keras.ops.convert_to_numpy(v.value) for v in found}


def test_the_backend_is_the_one_that_was_asked_for() -> None:
    assert keras.config.backend() == BACKEND


def test_every_variable_keeps_its_path_and_value(case: Net) -> None:
    for name, value in floating(case.model).items():
        tensor = case.exported.graph.initializers[name].const_value
        assert tensor is not None
        np.testing.assert_array_equal(tensor.numpy(), value, err_msg=name)


def test_analysis_finds_the_same_channels_on_every_backend() -> None:
    groups = onnxmorph.analyze(net("residual").exported).groups
    width = {(m.tensor, m.axis): g.width for g in groups for m in g.members}
    assert [width[f"{name}/kernel", 3] for name in ("stem", "inner", "wide")] == [8, 12, 16] and len(groups) == 3
    groups = onnxmorph.analyze(net("attention").exported).groups
    width = {(m.tensor, m.axis): g.width for g in groups for m in g.members}
    assert (width["heads/query/kernel", 1], width["heads/query/kernel", 2]) == (4, 5)


@pytest.mark.parametrize(
    ("name", "kind", "count"),
    [
        ("residual", "BatchNormalization", 6),
        ("mlp", "LayerNormalization", 1),
        ("attention", "LayerNormalization", 2),
        ("grouped", "GroupNormalization", 1),
    ],
)
def test_norms_are_nodes(name: str, kind: str, count: int) -> None:
    model = net(name).exported
    if (BACKEND, kind) == ("torch", "GroupNormalization"):
        kind = "InstanceNormalization"  # as PyTorch writes it
    assert [node.op_type for node in model.graph].count(kind) == count
    roles = onnxmorph.analyze(model).roles
    assert {"scale", "shift"} <= set(roles.values())


@pytest.mark.parametrize("batch", [1, 3])
def test_onnx_runtime_agrees_with_keras(case: Net, batch: int) -> None:
    inputs = keras.tree.map_structure(lambda x: x[:batch], case.inputs)
    feeds = dict(zip([v.name for v in case.exported.graph.inputs], keras.tree.flatten(inputs), strict=True))
    assert relative(case.outputs[:batch], run_session(case.exported)(feeds)[0]) <= 1e-4


def test_the_batch_is_free_and_nothing_else(case: Net) -> None:
    for value in (*case.exported.graph.inputs, *case.exported.graph.outputs):
        assert value.shape is not None
        assert str(value.shape[0]) == "batch"
        assert all(isinstance(size, int) for size in value.shape[1:])


def test_half_the_flops_and_the_same_function(case: Net) -> None:
    small = onnxmorph.shrink(case.exported, budget="flops=50%")
    costs = small.structure.costs
    assert 0.4 < costs["after"]["flops"] / costs["before"]["flops"] <= 0.5
    assert onnxmorph.verify(case.exported, small.model, small.structure).difference <= 1e-4


def test_the_model_stays_as_it_is() -> None:
    calls = layers.BatchNormalization.call, layers.MaxPooling2D.call
    model = mlp()
    before = floating(model)
    export(model, np.ones((2, 3), np.float32))
    assert (layers.BatchNormalization.call, layers.MaxPooling2D.call) == calls
    for name, value in floating(model).items():
        np.testing.assert_array_equal(value, before[name])


def mlp() -> keras.Model:
    parts = [keras.Input((3,)), layers.Dense(4, name="one"), layers.Dense(2, name="two")]
    return keras.Sequential(parts, name="mlp")


def test_the_file_is_written_with_the_sizes_of_the_examples(tmp_path: Path) -> None:
    export(mlp(), np.ones((2, 3), np.float32), tmp_path / "model.onnx", dynamic_batch=False)
    model = ir.load(tmp_path / "model.onnx")
    assert {"mlp/one/kernel", "mlp/one/bias", "mlp/two/kernel", "mlp/two/bias"} == set(model.graph.initializers)
    (value,) = model.graph.inputs
    assert value.shape is not None and list(value.shape) == [2, 3]


class Twice(keras.Model):
    """Layers in lists of their own may have the same name."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = [layers.Dense(3, name="same"), layers.Dense(3, name="same")]

    def call(self, x: object) -> object:
        return self.parts[1](self.parts[0](x))


def test_two_variables_of_one_path_are_an_error() -> None:
    model, x = Twice(), np.ones((2, 3), np.float32)
    with pytest.raises(ConversionError, match="not built") as raised:
        export(model, x)
    model(x)
    with pytest.raises(ConversionError, match="same/kernel"):
        export(model, x)
    assert raised.value.code == "keras-names"
