"""ONNX back as a module: what it computes, its names, its gradients, and its weights on their way back."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

import zoo
from backend_cases import cases
from exported import NAMES, exported
from onnxmorph.converters.torch import export
from onnxmorph.converters.torch_back import OPS, OnnxModule, from_module, to_module
from onnxmorph.errors import ConversionError, ModelError
from onnxmorph.surgery import shrink
from onnxmorph.surgery.run import run_session
from tiny import MLP, convnet, integers, mlp, model, node, save, value, weight

SAME = 1e-5  # relative to the largest number
networks = pytest.mark.parametrize("name", NAMES)


def in_runtime(of: ir.Model, inputs: Sequence[Tensor]) -> list[np.ndarray]:
    of = of.clone()
    return run_session(of)({v.name: x.numpy() for v, x in zip(of.graph.inputs, inputs, strict=True)})


def agree(module: nn.Module, of: ir.Model, inputs: Sequence[Tensor], tolerance: float = SAME) -> None:
    """The module computes what ONNX Runtime does."""
    with torch.no_grad():
        found = module(*inputs)
    found = found if isinstance(found, tuple) else (found,)
    for mine, theirs in zip(found, in_runtime(of, inputs), strict=True):
        assert mine.shape == theirs.shape
        assert np.abs(mine.numpy() - theirs).max() <= tolerance * np.abs(theirs).max()


@cache
def half(name: str) -> ir.Model:
    return shrink(exported(name).model, budget="flops=50%").model


def trained(module: nn.Module) -> nn.Module:
    """In training mode, without what draws random numbers: the export has no Dropout."""
    module.train()
    for each in module.modules():
        if isinstance(each, nn.Dropout):
            each.eval()
    return module


# -- every network ---------------------------------------------------------------------------------


@networks
def test_the_module_computes_what_the_model_does(name: str) -> None:
    _, inputs, of = exported(name)
    module = to_module(of).eval()
    agree(module, of, inputs)
    agree(module, of, [torch.cat([x, x.flip(0), x]) for x in inputs])  # the batch is free


@networks
def test_names_are_those_of_the_original(name: str) -> None:
    original, _, of = exported(name)
    module = to_module(of)
    assert {n for n, _ in module.named_parameters()} == {n for n, _ in original.named_parameters()}
    theirs = original.state_dict()
    for key, tensor in module.state_dict().items():
        assert key in of.graph.initializers
        assert key not in theirs or torch.equal(tensor, theirs[key])


@networks
def test_gradients_and_statistics_are_those_of_the_original(name: str) -> None:
    example = exported(name)
    original, module = trained(copy.deepcopy(example.module)), trained(to_module(example.model))
    inputs = [torch.cat([x, x.flip(-1) * 0.5]) for x in example.inputs]
    for each in (original, module):
        torch.manual_seed(0)
        y = each(*inputs)
        (y * torch.linspace(-1, 1, y.numel()).reshape(y.shape)).sum().backward()
    theirs = dict(original.named_parameters())
    largest = max(p.grad.abs().max() for p in theirs.values())
    for key, mine in module.named_parameters():
        bound = 1e-4 * max(theirs[key].grad.abs().max(), 1e-2 * largest)  # some are zero but for rounding
        assert (mine.grad - theirs[key].grad).abs().max() <= bound, key
    statistics = dict(original.named_buffers())
    for key, mine in module.named_buffers():
        if key.endswith(("running_mean", "running_var")):
            torch.testing.assert_close(mine, statistics[key], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [n for n in NAMES if n.values[0] != "sliced_halves"])  # where nothing can go
def test_a_shrunk_model_comes_back_too(name: str) -> None:
    module = to_module(half(name)).eval()
    agree(module, half(name), exported(name).inputs)
    sizes = {n: tuple(v.shape) for n, v in half(name).graph.initializers.items()}
    assert all(tuple(p.shape) == sizes[n] for n, p in module.named_parameters())


@pytest.mark.parametrize("name", ["resnet", "vit_fused", "convnext", "groupnorm", "two_inputs"])
def test_training_lowers_the_loss_and_the_weights_go_back(name: str) -> None:
    inputs, small = exported(name).inputs, half(name)
    module, losses = to_module(small), []
    assert module.training
    optimizer = torch.optim.Adam(module.parameters(), 1e-2)
    for _ in range(12):
        optimizer.zero_grad()
        losses.append(nn.functional.cross_entropy(module(*inputs), torch.tensor([1, 2])))
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.8 * losses[0]
    before = {n: v.const_value.numpy().copy() for n, v in small.graph.initializers.items()}
    result = from_module(module, small)
    agree(module.eval(), result, inputs)
    onnx.checker.check_model(ir.to_proto(result), full_check=True)
    changed = {n for n, v in result.graph.initializers.items() if not np.array_equal(v.const_value.numpy(), before[n])}
    assert changed >= {n for n, p in module.named_parameters() if p.grad is not None and p.grad.abs().max() > 1e-6}
    assert all(np.array_equal(v.const_value.numpy(), before[n]) for n, v in small.graph.initializers.items())


@pytest.mark.parametrize("name", ["mlp", "unet"])
def test_it_compiles_as_a_whole(name: str) -> None:
    """Where no shape is computed on the way; that would part the graph."""
    module = to_module(exported(name).model).eval()
    compiled = torch.compile(module, backend="eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(*exported(name).inputs), module(*exported(name).inputs))


def test_a_copy_is_a_module_of_its_own() -> None:
    module = to_module(mlp())
    twin, x = copy.deepcopy(module), torch.ones(2, 4)
    with torch.no_grad():
        twin.get_parameter("a").zero_()
    assert not twin(x).any() and module(x).any()


# -- onnx's node tests -----------------------------------------------------------------------------

# Cases that are left out, and why.
APART = {
    "training_dropout": "the module's mode decides, not the node's",
    "training_dropout_default": "the module's mode decides, not the node's",
    "reduce_max_empty_set": "PyTorch has no largest of nothing",
    "reduce_max_empty_set_bool": "PyTorch has no largest of nothing",
    "reduce_min_empty_set": "PyTorch has no smallest of nothing",
    "resize_downsample_scales_linear_align_corners": "sizes before rounding; ONNX Runtime takes those after, as we do",
    "resize_downsample_scales_cubic_align_corners": "sizes before rounding; ONNX Runtime takes those after, as we do",
}


def node_tests() -> list[str]:
    """Those of the ops in the table, on floating-point numbers, signed integers and truth values."""

    def plain(array: Any) -> bool:
        return isinstance(array, np.ndarray | np.generic) and array.dtype.kind in "fib"

    def wanted(case: Any) -> bool:
        ops = {n.op_type for n in case.model.graph.node}
        return ops <= OPS.keys() and all(plain(a) for inputs, outputs in case.data_sets for a in (*inputs, *outputs))

    return [name for name, case in cases().items() if name not in APART and wanted(case)]


def test_ops_compute_what_onnx_says() -> None:
    """In one test: there are some 700 cases, of a millisecond each."""
    tried, refused = set[str](), set[str]()
    for name in node_tests():
        case = cases()[name]
        try:
            module = to_module(case.model).eval()
        except (ConversionError, ModelError):
            refused.add(name)
            continue
        for inputs, expected in case.data_sets:
            given = dict(zip((v.name for v in case.model.graph.input), inputs, strict=False))
            with torch.no_grad():
                found = module(*(torch.from_numpy(np.array(given[name])) for name in module.inputs))
            for mine, theirs in zip(found if isinstance(found, tuple) else (found,), expected, strict=True):
                assert (mine.numpy().dtype, mine.shape) == (theirs.dtype, theirs.shape), name
                np.testing.assert_allclose(mine.numpy(), theirs, rtol=1e-3, atol=1e-5, err_msg=name)
        tried |= {n.op_type for n in case.model.graph.node}
    assert len(refused) < 80, "more is refused than before"
    assert OPS.keys() - tried == {"GRU", "LayerNormalization", "Not"}, "these are tried elsewhere"


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_recurrent_layers(kind: str, direction: str) -> None:
    d, gates = 1 + (direction == "bidirectional"), {"LSTM": 4, "GRU": 3, "RNN": 1}[kind]
    further = {"linear_before_reset": 1} if kind == "GRU" else {}
    cell = node(kind, "x w r b", "y h", hidden_size=5, direction=direction, **further)
    weights = [weight("w", d, gates * 5, 4), weight("r", d, gates * 5, 5, seed=1), weight("b", d, gates * 10, seed=2)]
    outputs = [value("y", [7, d, "n", 5]), value("h", [d, "n", 5])]
    of = model([cell], weights, [value("x", [7, "n", 4])], outputs)
    agree(to_module(of), ir.from_proto(of), [torch.randn(7, 3, 4)])


@pytest.mark.parametrize("opset", [7, 9])
def test_upsample(opset: int) -> None:
    scales = numpy_helper.from_array(np.array([1, 1, 2, 3], np.float32), "s")
    grown = node("Upsample", "x s", "y") if opset == 9 else node("Upsample", "x", "y", scales=[1.0, 1.0, 2.0, 3.0])
    of = model([grown], [scales] if opset == 9 else [], [value("x", ["n", 2, 4, 4])], [value("y", None)], opset)
    agree(to_module(of), ir.from_proto(of), [torch.randn(2, 2, 4, 4)])


# -- modes -----------------------------------------------------------------------------------------


def test_batch_norm_learns_statistics_in_training_only() -> None:
    module, x = to_module(convnet()), torch.randn(4, 3, 8, 8) * 3 + 1
    before = {n: b.clone() for n, b in module.named_buffers()}
    assert before.keys() == {"mean", "variance"}
    module.eval()(x)
    assert all(torch.equal(b, before[n]) for n, b in module.named_buffers())
    in_eval = module(x)
    module.train()(x)
    activity = nn.functional.conv2d(x, module.get_parameter("k1"), padding=1).transpose(0, 1).flatten(1)
    torch.testing.assert_close(module.get_buffer("mean"), 0.1 * activity.mean(1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(module.get_buffer("variance"), 0.9 + 0.1 * activity.var(1), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(module(x), in_eval)


def test_dropout_drops_in_training_only() -> None:
    ratio = numpy_helper.from_array(np.array(0.25, np.float32), "ratio")
    module = to_module(model([node("Dropout", "x ratio", "y")], [ratio], outputs=[value("y", ["n", 4])]))
    x = torch.ones(1000, 4)
    assert torch.equal(module.eval()(x), x)
    torch.manual_seed(0)
    dropped = module.train()(x)
    assert 0.2 < (dropped == 0).float().mean() < 0.3
    torch.testing.assert_close(dropped.max(), torch.tensor(1 / 0.75))


# -- names and buffers -----------------------------------------------------------------------------


@pytest.mark.parametrize(("first", "second"), [("a", "a.b"), ("type.forward", "train"), ("x..y", "z."), ("/m:0", "w")])
def test_any_name_can_be_a_parameter(first: str, second: str) -> None:
    nodes = [node("Gemm", f"x {first}", "h"), node("Relu", "h", "r"), node("Gemm", f"r {second}", "y")]
    of = model(nodes, [weight(first, 4, 8), weight(second, 8, 3, seed=1)])
    module, other = to_module(of), to_module(mlp())
    assert {n for n, _ in module.named_parameters()} == module.state_dict().keys() == {first, second}
    x = torch.randn(5, 4)
    torch.testing.assert_close(module(x), other(x))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    module.load_state_dict({first: other.get_parameter("a"), second: other.get_parameter("b")})
    torch.testing.assert_close(module(x), other(x))


def test_buffers_are_what_the_original_does_not_train_and_what_is_named() -> None:
    class Positions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 4)
            self.register_buffer("table", torch.randn(3, 4))

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x) + self.table

    of = export(Positions(), torch.randn(2, 3, 4))
    assert {n for n, _ in to_module(of).named_parameters()} == {"linear.weight", "linear.bias"}
    assert "table" in dict(to_module(of).named_buffers())
    assert {n for n, _ in to_module(of, buffers=["*.bias"]).named_parameters()} == {"linear.weight"}


def test_bounds_numbers_and_constants_are_no_parameters() -> None:
    low = numpy_helper.from_array(np.array([-1], np.float32).reshape(()), "low")
    constant = node("Constant", "", "c", value=weight("c", 1, 4))
    number = numpy_helper.from_array(np.array(2, np.float32), "two")
    nodes = [constant, node("Clip", "x low", "d"), node("Mul", "d two", "e"), node("Mul", "e c", "f")]
    of = model([*nodes, node("MatMul", "f a", "y")], [low, number, weight("a", 4, 3)])
    module = to_module(of)
    assert [n for n, _ in module.named_parameters()] == ["a"]
    assert {n for n, _ in module.named_buffers()} == {"low", "two", "c"}
    agree(module, ir.from_proto(of), [torch.randn(2, 4)])


def test_shapes_are_computed_with_the_batch() -> None:
    """X [n, 4] to [n, 2, 2] by Shape, Gather, Concat and Reshape."""
    nodes = [
        node("Shape", "x", "s"),
        node("Gather", "s zero", "n"),
        node("Unsqueeze", "n axis", "batch"),
        node("Concat", "batch rest", "target", axis=0),
        node("Reshape", "x target", "y"),
    ]
    known = [numpy_helper.from_array(np.array(0), "zero"), integers("axis", 0), integers("rest", 2, 2)]
    module = to_module(model(nodes, known, outputs=[value("y", ["n", 2, 2])]))
    for batch in (1, 3):
        assert module(torch.ones(batch, 4)).shape == (batch, 2, 2)


def test_what_is_read_no_more_is_freed() -> None:
    """Of a chain, two tensors are alive at any time: what a node reads and what it writes."""
    alive, most = set[int](), 0

    class Counted(Tensor):
        def __init__(self, *_: Any) -> None:
            nonlocal most
            alive.add(id(self))
            most = max(most, len(alive))

        def __del__(self) -> None:
            alive.discard(id(self))

        @classmethod
        def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            found = super().__torch_function__(func, types, args, kwargs or {})
            if isinstance(found, Counted):
                found.__init__()
            return found

    length = 20
    nodes = [node("Relu", f"h{i}" if i else "x", f"h{i + 1}" if i + 1 < length else "y") for i in range(length)]
    module = to_module(model(nodes, outputs=[value("y", ["n", 4])]))
    with torch.no_grad():
        module(torch.ones(2, 4).as_subclass(Counted))
    assert 2 <= most <= 4


# -- what is refused -------------------------------------------------------------------------------


def test_all_that_is_missing_is_said_at_once() -> None:
    nodes = [
        node("Gemm", "x a", "h", "one"),
        node("Strange", "h", "i", "two", domain="com.example"),
        node("Det", "i", "j", "three"),
        node("LRN", "j", "y", "four", size=2),
    ]
    of = model(nodes, [weight("a", 4, 8)], domains=["com.example"])
    words = r"'two' \(Strange\); node 'three' \(Det\); node 'four' \(LRN\): an even size; train the original"
    with pytest.raises(ConversionError, match=words) as caught:
        to_module(of)
    assert caught.value.code == "torch-op"


def test_a_type_that_pytorch_does_not_have() -> None:
    words = helper.make_tensor("words", TensorProto.STRING, [1], [b"a"])
    ends = [value("x", [1], TensorProto.STRING)], [value("y", [1], TensorProto.BOOL)]
    of = model([node("Equal", "x words", "y")], [words], *ends, opset=19)
    with pytest.raises(ConversionError, match="'words': the type STRING") as caught:
        to_module(of)
    assert caught.value.code == "torch-op"


def test_the_number_of_inputs_is_checked() -> None:
    with pytest.raises(TypeError, match=re.escape("takes 1 inputs (x), not 2")):
        to_module(mlp())(torch.ones(1, 4), torch.ones(1, 4))


@pytest.mark.parametrize(("other", "words"), [(mlp(6), "a is"), (convnet(), "no initializer")])
def test_weights_go_only_into_the_model_they_come_from(other: onnx.ModelProto, words: str) -> None:
    with pytest.raises(ConversionError, match=words) as caught:
        from_module(to_module(mlp()), other)
    assert caught.value.code == "torch-weights"


def test_weights_keep_the_types_of_the_model(tmp_path: Path) -> None:
    arrays = {w.name: numpy_helper.to_array(w).astype(np.float16) for w in mlp().graph.initializer}
    halves = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    ends = [value("x", ["n", 4], TensorProto.FLOAT16)], [value("y", ["n", 3], TensorProto.FLOAT16)]
    path = save(model(MLP, halves, *ends), tmp_path / "half.onnx")
    module = to_module(path).float()
    with torch.no_grad():
        module.get_parameter("a").fill_(0.5)
    result = from_module(module, path).graph.initializers["a"].const_value
    assert result.dtype == ir.DataType.FLOAT16
    np.testing.assert_array_equal(result.numpy(), np.full((4, 8), 0.5, np.float16))


# -- real exports ----------------------------------------------------------------------------------


def real() -> Iterator[Any]:
    for path in zoo.PATHS:
        marks = [pytest.mark.nightly] if zoo.parameters(path) > 1_500_000 else []
        yield pytest.param(path, id=zoo.name_of(path), marks=marks)


@zoo.needed
@pytest.mark.parametrize("path", list(real()))
def test_real_exports_come_back(path: Path) -> None:
    proto = zoo.filled(path)
    module, of, inputs = to_module(proto).eval(), ir.from_proto(proto), []
    assert isinstance(module, OnnxModule)
    rng = np.random.default_rng(0)
    for entry in (v for v in of.graph.inputs if v.name in module.inputs):
        sizes = [size if isinstance(size, int) else 64 if axis else 2 for axis, size in enumerate(entry.shape)]
        drawn = rng.normal(size=sizes) if entry.dtype.is_floating_point() else rng.integers(0, 2, sizes)
        inputs.append(torch.from_numpy(drawn.astype(entry.dtype.numpy())))
    agree(module, of, inputs)
