"""How a file may store a model: types, sparse tensors, defaults of inputs, constants, typed and raw data."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from onnxmorph import analyze, scale, shrink, verify
from onnxmorph.analysis import Analysis
from onnxmorph.errors import ModelError
from onnxmorph.importance import METHODS, scores
from onnxmorph.structure import Structure
from onnxmorph.surgery.run import in_float, run_session
from onnxmorph.surgery.verify import random_inputs
from tiny import MLP, convnet, mlp, model, node, value, weight

DTYPES = {"FLOAT16": 1e-2, "BFLOAT16": 1e-4, "DOUBLE": 1e-4}  # bfloat16 runs in float32


def half(analysis: Analysis, seed: int = 0) -> NDArray[np.int64]:
    rng = np.random.default_rng(seed)
    copies = np.ones(analysis.channels + 1, np.int64)
    for group in analysis.groups:
        copies[group.start + 1 + rng.permutation(group.width)[: group.width // 2]] = 0
    return copies


def of_type(proto: onnx.ModelProto, dtype: str) -> onnx.ModelProto:
    """A float32 model in another type, at an opset that has it for every op."""
    kind = TensorProto.DataType.Value(dtype)
    proto.opset_import[0].version = 22
    for tensor in proto.graph.initializer:
        array = numpy_helper.to_array(tensor).astype(helper.tensor_dtype_to_np_dtype(kind))
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    for each in (*proto.graph.input, *proto.graph.output):
        each.type.tensor_type.elem_type = kind
    return proto


def types_of(found: ir.Model) -> set[str]:
    return {v.const_value.dtype.name for v in found.graph.initializers.values() if v.const_value is not None}


# ---------------------------------------------------------------- floating-point types


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("build", [mlp, convnet])
def test_a_model_is_cut_in_its_own_type(build: Callable[[], onnx.ModelProto], dtype: str) -> None:
    analysis, plain = analyze(of_type(build(), dtype)), analyze(build())
    share = {n: p.value(analysis.widths) / plain.costs[n].value(plain.widths) for n, p in analysis.costs.items()}
    size = ir.DataType[dtype].itemsize / ir.DataType.FLOAT.itemsize
    assert share == {n: size if "bytes" in n or n == "peak_memory" else 1 for n in share}
    small = shrink(analysis, Structure.of(analysis, half(analysis)))
    onnx.checker.check_model(ir.to_proto(small.model), full_check=True)
    assert types_of(small.model) == {dtype}
    found = verify(analysis, small.model, small.structure)
    assert found.ok and found.tolerance == DTYPES[dtype]
    assert all(np.isfinite(scores(analysis, by)).all() for by in METHODS if by != "taylor")


@pytest.mark.parametrize("dtype", DTYPES)
def test_constants_are_folded_in_the_type_of_the_model(dtype: str) -> None:
    proto = convnet()
    gamma = next(t for t in proto.graph.initializer if t.name == "scale")
    silent = np.where(np.arange(16) > 9, 0, numpy_helper.to_array(gamma)).astype(np.float32)
    gamma.CopyFrom(numpy_helper.from_array(silent, "scale"))
    proto.graph.initializer.append(weight("bias", 8, seed=5))
    next(n for n in proto.graph.node if n.name == "second").input.append("bias")
    analysis = analyze(of_type(proto, dtype))
    copies = np.ones(analysis.channels + 1, np.int64)
    first = next(g for g in analysis.groups if g.width == 16)
    copies[first.start + 11 : first.start + 17] = 0
    small = shrink(analysis, Structure.of(analysis, copies))
    assert types_of(small.model) == {dtype}
    found = verify(analysis, small.model, small.structure)
    assert found.ok and found.folded > 10 * found.tolerance


@pytest.mark.parametrize("dtype", DTYPES)
def test_growth_keeps_type_and_function(dtype: str) -> None:
    analysis = analyze(of_type(convnet(), dtype))
    for init in ("preserve", "fresh"):
        wide = scale(analysis, "flops=300%", init=init)
        assert types_of(wide.model) == {dtype}
        if init == "preserve":
            feeds = {
                n: a.astype(np.float32) for n, a in random_inputs(analysis.graph, np.random.default_rng(0)).items()
            }
            before, after = (run_session(in_float(m))(feeds)[0] for m in (analysis.graph.model, wide.model))
            assert np.abs(before - after).max() <= 2e-2 * np.abs(before).max()


def test_computing_in_float32_is_seen_in_the_result_only_by_its_rounding() -> None:
    analysis = analyze(of_type(convnet(), "FLOAT16"))
    feeds = random_inputs(analysis.graph, np.random.default_rng(0))
    narrow = run_session(analysis.graph.model)(feeds)[0]
    wide = run_session(in_float(analysis.graph.model))({n: a.astype(np.float32) for n, a in feeds.items()})[0]
    assert narrow.dtype == np.float16 and wide.dtype == np.float32
    assert 0 < np.abs(narrow.astype(np.float64) - wide).max() < 1e-2 * np.abs(wide).max()


def test_a_wrong_small_model_is_seen_in_every_type() -> None:
    for dtype in DTYPES:
        analysis = analyze(of_type(mlp(), dtype))
        small = shrink(analysis, Structure.of(analysis, half(analysis)))
        tensor = small.model.graph.initializers["b"]
        tensor.const_value = ir.tensor(tensor.const_value.numpy()[::-1].copy(), name="b")
        assert not verify(analysis, small.model, small.structure).ok


# ---------------------------------------------------------------- sparse tensors


def sparse(name: str, whole: NDArray[np.float32], *, flat: bool = True) -> onnx.SparseTensorProto:
    places = np.argwhere(whole).astype(np.int64)
    indices = np.ravel_multi_index(tuple(places.T), whole.shape).astype(np.int64) if flat else places
    return helper.make_sparse_tensor(
        numpy_helper.from_array(whole[whole != 0], name), numpy_helper.from_array(indices, f"{name}_at"), whole.shape
    )


def thin(*shape: int) -> NDArray[np.float32]:
    rng = np.random.default_rng(0)
    return np.where(rng.uniform(size=shape) < 0.3, rng.normal(size=shape), 0).astype(np.float32)


@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize("constant", [True, False])
def test_a_sparse_weight_is_a_weight(constant: bool, flat: bool) -> None:
    whole = thin(4, 8)
    stored = sparse("a", whole, flat=flat)
    nodes = [helper.make_node("Constant", [], ["a"], sparse_value=stored)] if constant else []
    proto = model([*nodes, *MLP], [weight("b", 8, 3, seed=1)])
    if not constant:
        proto.graph.sparse_initializer.append(stored)
    before = proto.SerializeToString()
    analysis = analyze(proto)
    assert [g.width for g in analysis.groups] == [8]
    np.testing.assert_array_equal(analysis.graph.weights("a"), whole)
    small = shrink(analysis, Structure.of(analysis, half(analysis)))
    assert verify(analysis, small.model, small.structure).difference < 1e-6
    assert proto.SerializeToString() == before


def test_a_sparse_weight_in_a_file_and_in_a_body(tmp_path: object) -> None:
    whole = thin(4, 3)
    body = helper.make_graph([node("MatMul", "x w", "z")], "then", [], [value("z", ["n", 3])])
    body.sparse_initializer.append(sparse("w", whole))
    other = helper.make_graph([node("MatMul", "x v", "u")], "else", [], [value("u", ["n", 3])], [weight("v", 4, 3)])
    yes = numpy_helper.from_array(np.array(True), "yes")
    proto = model([helper.make_node("If", ["yes"], ["y"], then_branch=body, else_branch=other)], [yes])
    path = f"{tmp_path}/m.onnx"
    onnx.save(proto, path)
    graph = analyze(path).graph
    x = np.ones((2, 4), np.float32)
    np.testing.assert_allclose(run_session(graph.model)({"x": x})[0], x @ whole, rtol=1e-6)


@pytest.mark.parametrize("case", ["huge", "out of range", "negative", "outside", "short"])
def test_a_broken_sparse_tensor_is_refused(case: str) -> None:
    stored = sparse("a", thin(4, 8))
    if case == "huge":
        stored.dims[:] = [1 << 20, 1 << 20]
    elif case == "outside":
        stored.values.data_location = TensorProto.EXTERNAL
        stored.values.external_data.add(key="location", value="secret.bin")
    elif case == "short":
        stored.values.raw_data = stored.values.raw_data[:-4]
    else:
        place = numpy_helper.to_array(stored.indices).copy()
        place[-1] = 1000 if case == "out of range" else -1
        stored.indices.CopyFrom(numpy_helper.from_array(place, "at"))
    proto = model(MLP, [weight("b", 8, 3)])
    proto.graph.sparse_initializer.append(stored)
    with pytest.raises(ModelError, match="sparse tensor 'a'") as e:
        analyze(proto)
    assert e.value.code == "model-tensor"


# ---------------------------------------------------------------- inputs, constants, data fields


@pytest.mark.parametrize("version", [3, 10])
def test_weights_that_are_also_inputs_are_weights(version: int) -> None:
    proto = model(MLP, [weight("a", 4, 8), weight("b", 8, 3, seed=1)], opset=8)
    proto.graph.input.extend([value("a", [4, 8]), value("b", [8, 3])])
    proto.graph.node[0].input.append("c0")
    proto.graph.node[2].input.append("c1")
    for name, size in (("c0", 8), ("c1", 3)):
        proto.graph.initializer.append(weight(name, size))
        proto.graph.input.append(value(name, [size]))
    proto.ir_version = version
    onnx.checker.check_model(proto)
    analysis = analyze(proto)
    assert analysis.graph.inputs == ("x",)
    assert [g.width for g in analysis.groups] == [8]
    small = shrink(analysis, Structure.of(analysis, half(analysis)))
    onnx.checker.check_model(ir.to_proto(small.model), full_check=True)
    assert [v.name for v in small.model.graph.inputs] == ["x"]
    assert verify(analysis, small.model, small.structure).difference < 1e-6


NUMBERS = {
    "value_float": 0.5,
    "value_floats": [0.5, 1.5, 2.5, 0.5, 1.5, 2.5, 0.5, 1.5],
    "value": numpy_helper.from_array(np.full(8, 0.5, np.float32)),
}


@pytest.mark.parametrize("attribute", NUMBERS)
def test_constants_of_every_kind(attribute: str) -> None:
    nodes = [
        helper.make_node("Constant", [], ["c"], **{attribute: NUMBERS[attribute]}),
        helper.make_node("Constant", [], ["s"], value_ints=[-1, 8]),
        helper.make_node("Constant", [], ["t"], value_strings=["left", "alone"]),
        node("MatMul", "x a", "h"),
        node("Mul", "h c", "g"),
        node("Reshape", "g s", "r"),
        node("MatMul", "r b", "y"),
        node("Identity", "t", "u"),
    ]
    outputs = [value("y", ["n", 3]), value("u", [2], TensorProto.STRING)]
    analysis = analyze(model(nodes, [weight("a", 4, 8), weight("b", 8, 3, seed=1)], outputs=outputs))
    assert [g.width for g in analysis.groups] == [8]
    assert analysis.costs["params"].value(analysis.widths) == 4 * 8 + 8 * 3  # constants do not count
    small = shrink(analysis, Structure.of(analysis, half(analysis))).model
    feeds = {"x": np.ones((1, 4), np.float32)}
    assert run_session(small)(feeds)[1].tolist() == ["left", "alone"]
    again = analyze(small)
    assert again.costs["params"].value(again.widths) == 4 * 4 + 4 * 3


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("kind", ["FLOAT", "FLOAT16", "BFLOAT16", "DOUBLE"])
def test_raw_data_and_typed_fields_are_the_same(kind: str, raw: bool) -> None:
    number = TensorProto.DataType.Value(kind)
    values = np.linspace(-1, 1, 32).reshape(4, 8).astype(helper.tensor_dtype_to_np_dtype(number))
    content = values.tobytes() if raw else values.astype(np.float64).reshape(-1).tolist()
    stored = helper.make_tensor("a", number, [4, 8], content, raw=raw)
    assert stored.HasField("raw_data") == raw
    proto = of_type(model(MLP, [weight("b", 8, 3)]), kind) if kind != "FLOAT" else model(MLP, [weight("b", 8, 3)])
    proto.graph.initializer.append(stored)
    analysis = analyze(proto)
    np.testing.assert_array_equal(analysis.graph.weights("a"), values)
    small = shrink(analysis, Structure.of(analysis, half(analysis)))
    assert verify(analysis, small.model, small.structure).ok


@pytest.mark.parametrize("kind", ["INT4", "UINT4", "INT2", "UINT2"])
def test_packed_integers_are_cut_by_position_not_by_byte(kind: str) -> None:
    """Rows of an odd length: a byte holds the end of one and the beginning of the next."""
    number = TensorProto.DataType.Value(kind)
    low, high = (-2, 1) if kind == "INT2" else (0, 3) if kind == "UINT2" else (-8, 7) if kind == "INT4" else (0, 15)
    values = np.random.default_rng(0).integers(low, high + 1, (4, 7))
    stored = helper.make_tensor("q", number, [4, 7], values.reshape(-1).tolist())
    nodes = [node("DequantizeLinear", "q s", "a", axis=1), *MLP]
    weights = [stored, weight("s", 7), weight("b", 7, 3, seed=1)]
    analysis = analyze(model(nodes, weights, opset=25 if "2" in kind else 21))
    assert [g.width for g in analysis.groups] == [7]
    copies = half(analysis)
    small = shrink(analysis, Structure.of(analysis, copies)).model
    kept = small.graph.initializers["q"].const_value
    again = numpy_helper.to_array(ir.to_proto(small).graph.initializer[0])
    assert kept.dtype.name == kind
    np.testing.assert_array_equal(kept.numpy().astype(int), values[:, copies[1:] > 0])
    np.testing.assert_array_equal(again.astype(int), values[:, copies[1:] > 0])


def test_a_model_without_recorded_shapes() -> None:
    proto = convnet()
    assert not proto.graph.value_info
    named = onnx.shape_inference.infer_shapes(convnet())
    found, wanted = analyze(proto), analyze(named)
    assert found.groups == wanted.groups
    small = shrink(found, Structure.of(found, half(found)))
    assert verify(found, small.model, small.structure).difference < 1e-5
