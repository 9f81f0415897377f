"""Scores of channels: from weights, and from gradients of the loss."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import numpy_helper
from torch import Tensor, nn

from exported import exported
from onnxmorph.adapters.torch import gradients
from onnxmorph.analysis import Analysis, analyze
from onnxmorph.axes import Floats
from onnxmorph.converters.torch import export
from onnxmorph.errors import StructureError
from onnxmorph.importance import METHODS, Gradients, load_gradients, scores
from onnxmorph.structure import Structure
from onnxmorph.surgery import shrink
from onnxmorph.widths import slices
from tiny import convnet

Batch = tuple[Tensor, Tensor]


def weights_of(proto: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {t.name: numpy_helper.to_array(t).astype(float) for t in proto.graph.initializer}


def drawn(seed: int, batches: int = 3) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=(batches, *w.shape)) for name, w in weights_of(convnet()).items()}


def network() -> tuple[nn.Module, list[Batch]]:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 5, 3), nn.ReLU(), nn.Flatten()]
    module = nn.Sequential(*layers, nn.Linear(5 * 16, 4))
    return module, [(torch.randn(4, 3, 8, 8), torch.randint(4, (4,))) for _ in range(3)]


def loss(module: nn.Module, batch: Batch) -> Tensor:
    return F.cross_entropy(module(batch[0]), batch[1])


# ---------------------------------------------------------------- from weights


@pytest.mark.parametrize("by", [m for m in METHODS if m != "taylor"])
def test_a_zero_channel_scores_nothing_and_none_scores_less(by: str) -> None:
    proto = convnet()
    for t in proto.graph.initializer:
        if t.name in ("k1", "scale", "shift"):
            t.CopyFrom(
                numpy_helper.from_array(
                    np.append(numpy_helper.to_array(t)[:-1], 0 * numpy_helper.to_array(t)[-1:], 0), t.name
                )
            )
        if t.name == "k2":
            t.CopyFrom(
                numpy_helper.from_array(
                    np.append(numpy_helper.to_array(t)[:, :-1], 0 * numpy_helper.to_array(t)[:, -1:], 1), t.name
                )
            )
    found = scores(analyze(proto), by)
    assert found.min() >= 0
    assert by == "random" or (found[16] == 0 and (found[1:16] > 0).all())


@pytest.mark.parametrize("by", ["l1", "l2", "bn"])
def test_a_layer_may_be_in_any_unit(by: str) -> None:
    proto = convnet()
    before = scores(analyze(proto), by)
    for t in proto.graph.initializer:
        if t.name in ("k1", "scale"):
            t.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(t) * 100, t.name))
    np.testing.assert_allclose(scores(analyze(proto), by), before, rtol=1e-5)


def test_the_default_is_the_magnitude() -> None:
    analysis = analyze(convnet())
    np.testing.assert_array_equal(scores(analysis), scores(analysis, "l2"))


# ---------------------------------------------------------------- from gradients


def test_taylor_is_the_sum_over_all_slices_of_a_channel() -> None:
    analysis, found = analyze(convnet()), drawn(0)
    w = {name: array * found[name] for name, array in weights_of(convnet()).items()}
    first = w["k1"].sum((2, 3, 4)) + w["scale"] + w["shift"] + w["k2"].sum((1, 3, 4))
    second = w["k2"].sum((2, 3, 4)) + w["w"].sum(2)
    wanted = np.sqrt((np.concatenate([first, second], 1) ** 2).mean(0))
    np.testing.assert_allclose(scores(analysis, "taylor", gradients=found)[1:], wanted)
    one = {name: array[0] for name, array in found.items()}
    wanted = np.abs(np.concatenate([first, second], 1)[0])
    np.testing.assert_allclose(scores(analysis, "taylor", gradients=one)[1:], wanted)


def test_taylor_is_what_the_loss_changes_to_first_order() -> None:
    """Scaling all slices of a channel by 1 - t changes the loss by t times its score."""
    module, batches = network()
    analysis = analyze(export(module.eval(), (batches[0][0],)))
    found = scores(analysis, "taylor", gradients=gradients(module, loss, batches[:1]))
    tensors, step = dict(module.named_parameters()), 1e-3
    for own in slices(analysis):
        for channel in range(own.start, own.stop):
            with torch.no_grad():
                before = loss(module.double(), (batches[0][0].double(), batches[0][1]))
                old = {n: t.clone() for n, t in tensors.items()}
                for name, tensor in tensors.items():
                    for axis, rows in enumerate(analysis.rows.get(name, ())):
                        if rows is not None:
                            where = torch.from_numpy(np.flatnonzero((rows == channel).any(1)))
                            tensor.index_copy_(axis, where, tensor.index_select(axis, where) * (1 - step))
                after = loss(module, (batches[0][0].double(), batches[0][1]))
                for name, tensor in tensors.items():
                    tensor.copy_(old[name])
                module.float()
            assert abs(after - before).item() / step == pytest.approx(found[channel], rel=0.05, abs=1e-4)


def test_gradients_are_those_of_each_batch_and_leave_the_module_as_it_was() -> None:
    module, batches = network()
    module[0].bias.requires_grad_(False)
    module.train()
    before = {n: t.clone() for n, t in module.state_dict().items()}
    found = gradients(module, loss, batches)
    assert module.training and all(p.grad is None for p in module.parameters())
    assert all(torch.equal(t, before[n]) for n, t in module.state_dict().items())
    assert not found["0.bias"].any() and found["0.bias"].shape == (6,)
    module.eval()
    for k, batch in enumerate(batches):
        module.zero_grad()
        loss(module, batch).backward()
        np.testing.assert_allclose(found["3.weight"][k], module[3].weight.grad.numpy(), atol=1e-6)


@pytest.mark.parametrize("name", ["resnet", "vit", "mlp"])
def test_the_names_of_a_module_are_those_of_its_export(name: str) -> None:
    module, inputs, _ = exported(name)
    analysis = analyze(exported(name).model)
    found = gradients(module, lambda m, batch: m(*batch).square().mean(), [inputs])
    small = shrink(analysis, budget="flops=60%", by="taylor", gradients=found)
    assert small.structure.costs["after"]["flops"] <= 0.6 * small.structure.costs["before"]["flops"]


def wrong(found: Gradients, name: str, value: object) -> dict[str, object]:
    return {**found, name: value}


@pytest.mark.parametrize(
    ("change", "about"),
    [
        (
            lambda g: {n: a for n, a in g.items() if n != "k1"},
            r"no gradient for the parameter 'k1'; near names are 'k2'",
        ),
        (lambda g: {}, "there are 0 others"),
        (lambda g: wrong(g, "k1", g["k2"]), r"'k1' is float64 of shape \[3, 8, 16, 3, 3\]; .* \[16, 3, 3, 3\]"),
        (lambda g: wrong(g, "k1", g["k1"][None]), "shape"),
        (lambda g: wrong(g, "k1", g["k1"].astype(str)), "numbers"),
        (lambda g: wrong(g, "k1", g["k1"] * np.nan), "no numbers"),
        (lambda g: wrong(g, "k1", g["k1"][:0]), "no batches"),
        (lambda g: wrong(g, "k2", g["k2"][:2]), "'k2' are of 2 batches, others of 3"),
    ],
)
def test_gradients_that_do_not_fit_are_refused(change, about: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(StructureError, match=about) as caught:
        scores(analyze(convnet()), "taylor", gradients=change(drawn(0)))
    assert caught.value.code == "gradients"


def test_gradients_and_taylor_go_together() -> None:
    for by, given in (("taylor", None), ("l1", drawn(0))):
        with pytest.raises(StructureError, match=r"gradients=") as caught:
            scores(analyze(convnet()), by, gradients=given)
        assert caught.value.code == "gradients"


def test_a_file_of_gradients(tmp_path: Path) -> None:
    np.savez(tmp_path / "g.npz", **drawn(0))
    analysis: Analysis = analyze(convnet())
    both: list[Floats] = [
        scores(analysis, "taylor", gradients=g) for g in (drawn(0), load_gradients(tmp_path / "g.npz"))
    ]
    np.testing.assert_array_equal(*both)


@pytest.mark.parametrize("content", [None, b"", b"nonsense", "objects", "array"])
def test_a_file_that_holds_no_gradients_is_refused(content: bytes | str | None, tmp_path: Path) -> None:
    path = tmp_path / "g.npz"
    if content == "objects":
        np.savez(path, k1=np.array([{}], object))
    elif content == "array":
        with path.open("wb") as file:
            np.save(file, np.zeros(3))
    elif isinstance(content, bytes):
        path.write_bytes(content)
    with pytest.raises(StructureError, match=r"numpy\.savez") as caught:
        load_gradients(path)
    assert caught.value.code == "gradients-file"


def test_structures_say_how_they_were_chosen() -> None:
    analysis = analyze(convnet())
    structure = shrink(analysis, budget="flops=50%", by="taylor", gradients=drawn(1), round_to="auto").structure
    assert structure.provenance["method"] == "shrink by taylor" and structure.provenance["round_to"] == "auto"
    assert Structure.from_json(structure.to_json()) == structure
