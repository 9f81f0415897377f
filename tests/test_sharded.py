"""Parameters that FSDP2 shards over two real processes: trained as unsharded ones are, alike on both."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Partial, Shard

from onnxmorph.adapters.torch import Morph, resize
from onnxmorph.adapters.torch_sharded import held
from onnxmorph.errors import StructureError, TrainingError
from onnxmorph.structure import Structure
from torchlib import read_once

pytestmark = pytest.mark.xdist_group("sharded")  # what takes long to set up is made once

STEPS = 30
Build = Callable[..., torch.optim.Optimizer]
OPTIMIZERS: dict[str, Build] = {
    "momentum": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9),
    "adam": lambda p: torch.optim.Adam(p, 3e-3),
}


def network(second: int = 16) -> nn.Sequential:
    """Of 15 channels one rank has more than the other; the first group has a norm, the second none."""
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(3, 15, 3, padding=1, bias=False), nn.BatchNorm2d(15), nn.ReLU(), nn.Conv2d(15, second, 3)),
        *(nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(second, 4)),
    )


def data(seed: int) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    y = torch.randint(0, 4, (8,), generator=rng)
    return torch.randn(8, 3, 6, 6, generator=rng) + y.view(-1, 1, 1, 1) / 2, y


def last(p: nn.Parameter) -> Shard | None:
    """The second axis where FSDP takes it: it has to be even."""
    return Shard(1) if p.ndim > 1 and p.shape[1] % 2 == 0 else None


def rows(module: nn.Module) -> None:
    mesh = init_device_mesh("cpu", (2,))
    fully_shard(module[0], mesh=mesh)
    fully_shard(module, mesh=mesh)


def columns(module: nn.Module) -> None:
    fully_shard(module, mesh=init_device_mesh("cpu", (2,)), shard_placement_fn=last)


def replicas(module: nn.Module) -> None:
    fully_shard(module, mesh=init_device_mesh("cpu", (2, 1), mesh_dim_names=("copies", "parts")))


SHARDINGS = {each.__name__: each for each in (rows, columns, replicas)}
CASES = (("rows", "momentum"), ("rows", "adam"), ("columns", "adam"), ("replicas", "momentum"))


def train(module: nn.Module, morph: Morph, first: int) -> None:
    for step in range(STEPS):
        x, y = data(first + step)
        morph.optimizer.zero_grad()
        F.cross_entropy(module(x), y).backward()
        morph.optimizer.step()
        morph.step()


def morphed(module: nn.Module, build: Build, whole: nn.Module | None = None) -> Morph:
    return Morph(module, data(0)[0], build(module.parameters()), "flops=50%", steps=STEPS, whole=whole)


def all_of(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def outcome(module: nn.Module, morph: Morph) -> dict[str, Tensor]:
    """What a run came to, in whole tensors: weights, and what the optimizer remembers of them."""
    found = {name: all_of(t.detach()) for name, t in module.state_dict().items()}
    for name, parameter in module.named_parameters():
        for key, tensor in morph.optimizer.state[parameter].items():
            found[f"{name} {key}"] = all_of(tensor)
    return found


def run(module: nn.Module, morph: Morph, first: int = 0) -> dict[str, Any]:
    """The first strength, the gradient of the penalty, and the outcome."""
    strength = morph.strength
    morph.loss_term().backward()
    slopes = {n: all_of(p.grad) for n, p in module.named_parameters() if p.grad is not None}
    train(module, morph, first)
    with torch.no_grad():
        module.eval()(data(0)[0])  # leaves gathered copies behind where the module is sharded
    morph.finish()
    return {"strength": strength, "slopes": slopes, "end": outcome(module, morph)}


@cache
def unsharded(kind: str) -> tuple[dict[str, Any], Structure]:
    torch.set_num_threads(1)
    module = network()
    morph = morphed(module, OPTIMIZERS[kind])
    return run(module, morph), morph.structure()


def refusal(module: nn.Module, build: Build, whole: nn.Module | None) -> str:
    with pytest.raises(TrainingError) as caught:
        morphed(module, build, whole)
    assert caught.value.code == "training-sharded"
    return str(caught.value)


def on_rank(rank: int, folder: Path) -> None:
    """One of two processes."""
    torch.set_num_threads(1)
    read_once(pytest.MonkeyPatch())
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    for name, kind in CASES:
        for own in (False, True):  # whether each rank has data of its own
            module, build = network(), OPTIMIZERS[kind]
            SHARDINGS[name](module)
            morph = morphed(module, build, network())
            torch.save(run(module, morph, 1000 * rank * own), folder / f"{name} {kind} {own} {rank}.pt")
            morph.structure().save(folder / f"{name} {kind} {own} {rank}.json")
    refused = [refusal(module, build, None), refusal(module, build, network(second=8))]
    with pytest.raises(StructureError) as caught:
        resize(module, morph.structure())
    partial = DTensor.from_local(torch.ones(4), init_device_mesh("cpu", (2,)), [Partial()])
    with pytest.raises(TrainingError) as strange:
        held(partial, 0)
    torch.save([*refused, str(caught.value), str(strange.value)], folder / f"refused {rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ranks")
    torch.multiprocessing.spawn(on_rank, (path,), nprocs=2)
    return path


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_sharded_training_is_unsharded_training(folder: Path, name: str, kind: str) -> None:
    expected, structure = unsharded(kind)
    for rank in range(2):
        found = torch.load(folder / f"{name} {kind} False {rank}.pt", weights_only=True)
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)
        assert Structure.load(folder / f"{name} {kind} False {rank}.json") == structure


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_every_rank_has_the_same_structure_bit_for_bit_and_what_went_is_zero(
    folder: Path, name: str, kind: str
) -> None:
    one, other = ((folder / f"{name} {kind} True {rank}.json").read_bytes() for rank in range(2))
    assert one == other
    structure = Structure.load(folder / f"{name} {kind} True 0.json")
    assert sum(len(g.keep) for g in structure.groups) < sum(g.width for g in structure.groups)
    end = torch.load(folder / f"{name} {kind} True 0.pt", weights_only=True)["end"]
    for parameter, kept in structure.parameters.items():
        for axis, indices in kept.items():
            dead = [i for i in range(end[parameter].shape[axis]) if i not in indices]
            for tensor in (parameter, *(f"{parameter} {key}" for key in ("momentum_buffer", "exp_avg"))):
                if tensor in end and "running" not in parameter:
                    assert not end[tensor].index_select(axis, torch.tensor(dead)).any(), tensor
    module = network()
    module.load_state_dict({name: tensor for name, tensor in end.items() if " " not in name})
    x = data(0)[0]
    torch.testing.assert_close(resize(module, structure).eval()(x), module.eval()(x))


def test_a_sharded_module_is_not_exported_nor_resized_itself(folder: Path) -> None:
    for rank in range(2):
        alone, other, resized, partial = torch.load(folder / f"refused {rank}.pt", weights_only=True)
        assert "0.weight is sharded over ranks" in alone
        assert "3.weight, (16, 15, 3, 3), is (8, 15, 3, 3) in the module given as whole" in other
        assert "0.weight is sharded over ranks" in resized
        assert "placed by Partial" in partial
