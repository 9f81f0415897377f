"""JAX to ONNX: names, values, function and batch survive the export of functions and Flax modules."""

from __future__ import annotations

import stat
from pathlib import Path

import jax
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from jax import numpy as jnp

import onnxmorph
from flax_nets import NAMES, Net, net
from onnxmorph.converters.jax import export, names
from onnxmorph.errors import ConversionError
from onnxmorph.surgery.verify import relative, run_session

pytestmark = pytest.mark.xdist_group("jax")  # what jax2onnx loads and JAX compiles serves all of them


@pytest.fixture(params=NAMES)
def case(request: pytest.FixtureRequest) -> Net:
    return net(request.param)


def floating(params: object) -> dict[str, np.ndarray]:
    found = zip(names(params), jax.tree.leaves(params), strict=True)
    return {name: np.asarray(leaf) for name, leaf in found if jnp.issubdtype(leaf.dtype, jnp.floating)}


def test_every_parameter_keeps_its_name_and_value(case: Net) -> None:
    for name, value in floating(case.params).items():
        tensor = case.model.graph.initializers[name].const_value
        assert tensor is not None
        np.testing.assert_array_equal(tensor.numpy(), value, err_msg=name)


def test_analysis_knows_no_parameter_but_those(case: Net) -> None:
    found = onnxmorph.analyze(case.model).parameters
    assert {name for name, p in found.items() if p.shape} == floating(case.params).keys()


def test_names_are_paths() -> None:
    assert "params/inner_bn/scale" in names(net("residual").params)
    assert "layers/1/kernel" in names(net("stack").params)
    assert names([{"a": 1.0}, 2.0]) == ["0/a", "1"]


@pytest.mark.parametrize(
    ("name", "norms"),
    [("residual", {"BatchNormalization": 6}), ("mlp", {"LayerNormalization": 2}), ("stack", {"BatchNormalization": 1})],
)
def test_norms_stay_nodes(name: str, norms: dict[str, int]) -> None:
    found = [node.op_type for node in net(name).model.graph]
    assert {kind: found.count(kind) for kind in norms} == norms


@pytest.mark.parametrize("batch", [1, 3])
def test_onnx_runtime_agrees_with_jax(case: Net, batch: int) -> None:
    found = run_session(case.model)({"input": case.inputs[:batch]})[0]
    assert relative(case.outputs[:batch], found) <= 1e-4


def test_the_batch_is_free_and_nothing_else(case: Net) -> None:
    for value in (*case.model.graph.inputs, *case.model.graph.outputs):
        assert value.shape is not None
        assert str(value.shape[0]) == "batch"
        assert all(isinstance(size, int) for size in value.shape[1:])


def test_half_the_flops_and_the_same_function(case: Net) -> None:
    small = onnxmorph.shrink(case.model, budget="flops=50%")
    costs = small.structure.costs
    assert 0.4 < costs["after"]["flops"] / costs["before"]["flops"] <= 0.5
    assert onnxmorph.verify(case.model, small.model, small.structure).difference <= 1e-4


def test_heads_are_a_group() -> None:
    groups = {g.id: g.width for g in onnxmorph.analyze(net("attention").model).groups}
    query = "params/MultiHeadDotProductAttention_0/query/kernel"
    assert (groups[f"{query}:1"], groups[f"{query}:2"]) == (4, 4)


def test_the_checker_accepts_the_model_and_no_path_of_this_machine_is_in_it(case: Net) -> None:
    proto = ir.to_proto(case.model)
    onnx.checker.check_model(proto, full_check=True)
    assert [(opset.domain, opset.version) for opset in proto.opset_import] == [("", 23)]
    assert b".py" not in proto.SerializeToString()


def affine(params: dict[str, jax.Array], x: jax.Array, *more: jax.Array) -> jax.Array:
    return jnp.concatenate([x @ params["w"], *more], 1)


WEIGHTS = {"w": np.ones((4, 3), np.float32), "unread": np.ones(7, np.float32)}
X = np.ones((2, 4), np.float32)


def test_what_is_not_read_is_left_out_and_the_file_is_written(tmp_path: Path) -> None:
    export(affine, WEIGHTS, (X, np.ones((2, 3), np.float32)), tmp_path / "model.onnx")
    model = ir.load(tmp_path / "model.onnx")
    assert [*model.graph.initializers] == ["w"]
    assert [value.name for value in model.graph.inputs] == ["input_0", "input_1"]
    assert stat.S_ISREG((tmp_path / "model.onnx").stat().st_mode)


def test_without_a_dynamic_batch_all_sizes_are_those_of_the_examples() -> None:
    def fixed(params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
        return jnp.concatenate([x @ params["w"], jnp.zeros((2, 1))], 1)

    with pytest.raises(ConversionError, match="dynamic_batch=False") as raised:
        export(fixed, WEIGHTS, X)
    assert raised.value.code == "jax-export"
    (value,) = export(fixed, WEIGHTS, X, dynamic_batch=False).graph.outputs
    assert value.shape is not None and list(value.shape) == [2, 4]


@pytest.mark.parametrize(
    "inputs", ["text", (), (X, np.float32(1.0)), (X, X[:1]), [1.0, 2.0]], ids=["text", "none", "scalar", "two", "list"]
)
def test_inputs_that_are_no_batch_are_an_error(inputs: object) -> None:
    with pytest.raises(ConversionError) as raised:
        export(affine, WEIGHTS, inputs)
    assert raised.value.code == "jax-inputs"
