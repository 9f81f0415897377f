"""PyTorch to ONNX: names, values, function and batch survive the export of every network in ``nets``."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn

import onnxmorph.model
from exported import NAMES, Exported, exported
from full_nets import resnet18, resnet50, vit_b_16
from nets import NETS, Example
from onnxmorph.converters.torch import export, tied_names
from onnxmorph.errors import ConversionError, OutputError


@pytest.fixture(params=NAMES)
def case(request: pytest.FixtureRequest) -> Exported:
    return exported(request.param)


def resized(x: Tensor, batch: int) -> Tensor:
    """``x`` with ``batch`` samples, each different from the others and from those of ``x``."""
    generator = torch.Generator().manual_seed(batch)
    return torch.randn(batch, *x.shape[1:], generator=generator) + x[:1]


def run(model: ir.Model | Path, inputs: tuple[Tensor, ...]) -> np.ndarray:
    """The only output of ``model``, or of the file at that path."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    source = str(model) if isinstance(model, Path) else ir.to_proto(model).SerializeToString()
    session = ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    (output,) = session.run(None, dict(zip(names, [x.numpy() for x in inputs], strict=True)))
    return output


def assert_agree(module: nn.Module, model: ir.Model | Path, inputs: tuple[Tensor, ...]) -> None:
    with torch.no_grad():
        expected = module(*inputs).numpy()
    actual = run(model, inputs)
    assert actual.shape == expected.shape
    # 1e-5 of the outputs' scale: they lie between 0.1 and 10.
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5 * max(1.0, np.abs(expected).max()))


def parameter_array(model: ir.Model, name: str) -> np.ndarray:
    value = model.graph.initializers[tied_names(model).get(name, name)].const_value
    assert value is not None
    return value.numpy()


# ---------------------------------------------------------------- every network


def test_every_parameter_keeps_its_name_and_value(case: Exported) -> None:
    module, _, model = case
    for name, tensor in module.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            np.testing.assert_array_equal(parameter_array(model, name), tensor.numpy(), err_msg=name)


def test_batch_norm_is_a_node_of_its_own_parameters(case: Exported) -> None:
    module, _, model = case
    norms = {name: m for name, m in module.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)}
    nodes = [node for node in model.graph if node.op_type == "BatchNormalization"]
    leaves = ("weight", "bias", "running_mean", "running_var")
    read = {tuple(value.name for value in node.inputs[1:] if value is not None) for node in nodes}
    assert read == {tuple(f"{name}.{leaf}" for leaf in leaves) for name in norms}


def test_a_convolution_without_bias_stays_without(case: Exported) -> None:
    module, _, model = case
    convolutions = [node for node in model.graph if node.op_type in ("Conv", "ConvTranspose")]
    biases = {node.inputs[2].name for node in convolutions if len(node.inputs) > 2 and node.inputs[2] is not None}
    assert biases <= set(module.state_dict())


@pytest.mark.parametrize("batch", [1, 3])
def test_onnx_runtime_agrees_with_torch(case: Exported, batch: int) -> None:
    module, inputs, model = case
    assert_agree(module, model, tuple(resized(x, batch) for x in inputs))


def test_the_batch_is_free_and_nothing_else(case: Exported) -> None:
    _, inputs, model = case
    for value, example in zip(model.graph.inputs, inputs, strict=True):
        assert value.shape is not None
        assert [str(size) for size in value.shape] == ["batch", *map(str, example.shape[1:])]
    for value in model.graph.outputs:
        assert value.shape is not None
        assert str(value.shape[0]) == "batch"
        assert all(isinstance(size, int) for size in value.shape[1:])


def test_the_checker_accepts_the_model_and_the_versions_are_written(case: Exported) -> None:
    proto = ir.to_proto(case.model)
    onnx.checker.check_model(proto, full_check=True)
    assert proto.ir_version == 10
    assert [(opset.domain, opset.version) for opset in proto.opset_import] == [("", 20)]


def test_no_path_of_this_machine_is_in_the_model(case: Exported) -> None:
    assert b".py" not in ir.to_proto(case.model).SerializeToString()


def test_the_model_holds_nothing_of_torch(case: Exported) -> None:
    graph = case.model.graph
    values = (*graph.inputs, *graph.initializers.values(), *(o for node in graph for o in node.outputs))
    kept = {type(x).__module__ for each in (*graph.all_nodes(), *values) for x in each.meta.values()}
    assert not any(name.startswith("torch") for name in kept)


def test_channels_are_never_gathered_by_computed_indices(case: Exported) -> None:
    """PyTorch's pooling after a permute becomes a Gather with computed indices; ours a mean."""
    _, _, model = case
    assert not [node for node in model.graph if node.op_type in ("Range", "GatherND", "GatherElements")]


# ---------------------------------------------------------------- ways to call it


def small() -> tuple[nn.Sequential, Tensor]:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(), nn.Linear(6, 2)), torch.randn(3, 4)


def test_a_batch_of_one_in_the_example_is_free_too() -> None:
    module, x = small()
    model = export(module, x[:1])
    assert_agree(module.eval(), model, (x,))


def test_a_fixed_batch_stays_fixed() -> None:
    module, x = small()
    model = export(module, x, dynamic_batch=False)
    assert model.graph.inputs[0].shape == ir.Shape([3, 4])
    assert_agree(module.eval(), model, (x,))


def test_the_module_is_left_as_it_was() -> None:
    module, x = small()
    module.train()
    module[1].eval()
    flags = [m.training for m in module.modules()]
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    export(module, x)
    assert [m.training for m in module.modules()] == flags
    assert all(p.requires_grad and p.grad is None for p in module.parameters())
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_nothing_is_printed_warned_or_logged(capfd: pytest.CaptureFixture[str]) -> None:
    export(*small())
    assert capfd.readouterr() == ("", "")


def test_the_model_is_a_copy_of_the_weights() -> None:
    module, x = small()
    model = export(module, x)
    before = parameter_array(model, "0.weight").copy()
    with torch.no_grad():
        module[0].weight.add_(1)
    np.testing.assert_array_equal(parameter_array(model, "0.weight"), before)


def test_tied_parameters_have_one_initializer_under_their_first_name() -> None:
    model = exported("tied_linear").model
    assert tied_names(model) == {"decoder.weight": "encoder.weight"}
    assert "decoder.weight" not in model.graph.initializers
    assert len(model.graph.initializers["encoder.weight"].uses()) == 3
    assert tied_names(exported("mlp").model) == {}


def test_dead_parameters_are_left_out() -> None:
    module, x = small()
    module.register_parameter("dead", nn.Parameter(torch.ones(3)))
    assert "dead" not in export(module, x).graph.initializers


# ---------------------------------------------------------------- files


def test_the_file_is_the_model(tmp_path: Path) -> None:
    module, x = small()
    path = tmp_path / "net.onnx"
    path.write_text("old")
    model = export(module, x, path)
    assert ir.to_proto(ir.load(path)).SerializeToString() == ir.to_proto(model).SerializeToString()
    assert os.listdir(tmp_path) == ["net.onnx"]
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask


def test_weights_too_large_for_one_file_go_to_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxmorph.weights, "SINGLE_FILE", 10_000)
    module = nn.Linear(64, 64)
    x = torch.randn(2, 64)
    export(module, x, tmp_path / "net.onnx")
    assert sorted(os.listdir(tmp_path)) == ["net.onnx", "net.onnx.data"]
    onnx.checker.check_model(str(tmp_path / "net.onnx"))
    assert_agree(module, tmp_path / "net.onnx", (x,))


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "net.onnx"
    path.write_text("old")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ir, "save", full)
    with pytest.raises(OutputError, match="No space left") as caught:
        export(*small(), path)
    assert caught.value.code == "output"
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["net.onnx"]


def test_a_missing_folder_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        export(*small(), tmp_path / "absent" / "net.onnx")


# ---------------------------------------------------------------- what cannot be exported


class Forward(nn.Module):
    """A module whose forward is the given function."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


@pytest.mark.parametrize(
    ("function", "code", "words"),
    [
        (lambda x: x.reshape(2, -1), "torch-batch", "dynamic_batch=False"),
        (lambda x: x * 2 if x.shape[0] > 4 else x, "torch-batch", "dynamic_batch=False"),
        (lambda x: x * 2 if x.sum() > 0 else x, "torch-export", "data-dependent"),
        (lambda x: torch.linalg.eigvals(x.reshape(-1, 4, 4)).real, "torch-export", "linalg_eig"),
        (lambda x: x @ x, "torch-export", "reduction dim"),
    ],
    ids=["fixed-batch", "batch-branch", "data-branch", "no-such-op", "wrong-shape"],
)
def test_what_cannot_be_exported_says_why(function: Callable[[Tensor], Tensor], code: str, words: str) -> None:
    module = Forward(function).train()
    with pytest.raises(ConversionError, match=words) as caught:
        export(module, torch.randn(2, 16))
    assert caught.value.code == code
    assert "\n" not in str(caught.value)
    assert module.training


def test_an_onnxscript_too_old_for_torch_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: object, **__: object) -> None:
        raise ModuleNotFoundError("No module named 'onnxscript._framework_apis.torch_9_9'")

    monkeypatch.setattr(torch.onnx, "export", absent)
    with pytest.raises(ConversionError, match="upgrade onnxscript") as caught:
        export(*small())
    assert caught.value.code == "torch-onnxscript"


@pytest.mark.parametrize("inputs", [(), (torch.tensor(1.0),), (torch.ones(2, 3), torch.ones(3, 3)), ("x",)])
def test_examples_without_a_batch_are_refused(inputs: tuple[Tensor, ...]) -> None:
    with pytest.raises(ConversionError) as caught:
        export(nn.Identity(), inputs)
    assert caught.value.code == "torch-inputs"


# ---------------------------------------------------------------- the networks themselves


def test_networks_are_the_same_each_time() -> None:
    def flat(example: Example) -> Tensor:
        module, inputs = example
        with torch.no_grad():
            return module(*inputs).flatten()

    for build in NETS.values():
        assert torch.equal(flat(build()), flat(build()))


def test_no_affine_parameter_or_statistic_is_trivial() -> None:
    for name, build in NETS.items():
        for key, tensor in build()[0].state_dict().items():
            if tensor.is_floating_point():
                assert not ((tensor == 0) | (tensor == 1)).any(), (name, key)


@pytest.mark.parametrize(
    ("build", "parameters"), [(resnet18, 11_689_512), (resnet50, 25_557_032), (vit_b_16, 86_567_656)]
)
def test_full_size_networks_have_the_published_size(build: Callable[[], nn.Module], parameters: int) -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in build().parameters()) == parameters


@pytest.mark.nightly
@pytest.mark.parametrize("build", [resnet18, resnet50, vit_b_16])
def test_full_size_networks_survive_the_export(build: Callable[[], nn.Module], tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = build().eval()
    x = torch.randn(2, 3, 224, 224)
    path = tmp_path / "net.onnx"
    model = export(module, x[:1], path)
    onnx.checker.check_model(str(path), full_check=True)
    names = {name for name in module.state_dict() if not name.endswith("num_batches_tracked")}
    assert names <= set(model.graph.initializers)
    assert_agree(module, path, (x,))
