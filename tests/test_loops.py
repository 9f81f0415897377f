"""The loops that people have: accumulated, scaled, clipped, compiled, averaged, on several ranks, and interrupted."""

from __future__ import annotations

import copy
import csv
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader
from transformers import TrainingArguments

from onnxmorph.adapters.torch import Morph, resize
from onnxmorph.adapters.torch_log import CsvLog
from onnxmorph.adapters.torch_loop import IDLE
from onnxmorph.converters.torch import export
from onnxmorph.errors import BudgetError, OutputError, StructureError, TrainingError
from onnxmorph.structure import Structure
from torchlib import read_once

STEPS = 40


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4)),
    )


def data(seed: int, n: int = 8) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    y = torch.randint(0, 4, (n,), generator=rng)
    x = torch.randn(n, 3, 6, 6, generator=rng)
    return x + y.view(-1, 1, 1, 1) / 2, y


def start(build: Callable[..., torch.optim.Optimizer] = torch.optim.SGD, rate: float = 0.05):
    module = network()
    optimizer = build(module.parameters(), rate)
    return module, optimizer, Morph(module, data(0)[0], optimizer, "flops=50%", steps=STEPS)


def once(module: nn.Module, optimizer: torch.optim.Optimizer, morph: Morph, step: int) -> None:
    x, y = data(step)
    optimizer.zero_grad()
    F.cross_entropy(module(x), y).backward()
    optimizer.step()
    morph.step()


def plain() -> Structure:
    module, optimizer, morph = start()
    for step in range(STEPS):
        once(module, optimizer, morph, step)
    return met(morph)


def met(morph: Morph) -> Structure:
    """The structure, which is that of a loop that kept its promise."""
    share = morph.cost["flops"] / morph.analysis.costs["flops"].value(morph.analysis.widths)
    assert morph.done
    assert 0.44 <= share <= 0.5
    return morph.structure()


# ---------------------------------------------------------------- one process


def test_step_after_every_batch_of_an_accumulated_one_is_a_step_per_step_of_the_optimizer() -> None:
    found = []
    for always in (True, False):
        module, optimizer, morph = start()
        for batch in range(2 * STEPS):
            x, y = data(batch)
            (F.cross_entropy(module(x), y) / 2).backward()
            if batch % 2:
                optimizer.step()
                optimizer.zero_grad()
            if always or batch % 2:
                morph.step()
        found.append(met(morph))
    assert found[0] == found[1]


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_mixed_precision_with_a_scaler_and_clipping(kind: torch.dtype) -> None:
    module, optimizer, morph = start()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40, enabled=kind == torch.float16)
    taken = called = 0
    while taken < STEPS:
        x, y = data(called)
        optimizer.zero_grad()
        with torch.autocast("cpu", kind):
            loss = F.cross_entropy(module(x), y)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        before = scaler.get_scale()
        scaler.step(optimizer)
        scaler.update()
        morph.step()
        called += 1
        taken += scaler.get_scale() >= before
        assert morph.scalars()["step"] == taken or morph.done
    assert (called > taken) == (kind == torch.float16)  # the first scale is too large on purpose
    met(morph)
    assert all(p.isfinite().all() for p in module.parameters())


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # PyTorch's own, while it compiles SGD
@pytest.mark.parametrize("when", ["before", "after", "in place", "the optimizer too"])
def test_compiled_gives_the_structure_of_the_plain_loop(when: str) -> None:
    torch.compiler.reset()
    module = network()
    compiled: nn.Module = module
    optimizer = torch.optim.SGD(module.parameters(), 0.05)
    if when == "after":
        compiled = torch.compile(module, backend="aot_eager")  # the compiler's front; its kernels round differently
    elif when == "in place":
        module.compile(backend="aot_eager")
    morph = Morph(compiled, data(0)[0], optimizer, "flops=50%", steps=STEPS)
    if when in ("before", "the optimizer too"):
        compiled = torch.compile(module, backend="aot_eager")
    if when == "the optimizer too":
        optimizer.step = torch.compile(optimizer.step, backend="aot_eager")
    for step in range(STEPS):
        once(compiled, optimizer, morph, step)
    assert met(morph) == plain()
    small = resize(compiled, morph.structure()).eval()
    torch.testing.assert_close(small(data(0)[0]), module.eval()(data(0)[0]))


def test_a_moving_average_follows_by_the_same_structure() -> None:
    module, optimizer, morph = start()
    average = AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(0.8), use_buffers=True)
    for step in range(STEPS + 40):
        once(module, optimizer, morph, step)
        average.update_parameters(module)
    structure, x = met(morph), data(0)[0]
    small = resize(average, structure).eval()
    assert [p.shape for p in small.parameters()] == [p.shape for p in resize(module, structure).parameters()]
    torch.testing.assert_close(small(x), average.eval()(x), rtol=1e-3, atol=1e-4)  # what died has faded there, too
    assert not torch.equal(small[0].weight, resize(module, structure)[0].weight)


# ---------------------------------------------------------------- several ranks


ROUNDING = (0.0, 1e-5)  # relative noise on the weights of rank 1, as from other hardware


def on_rank(rank: int, folder: Path) -> None:
    """One of two processes: other data, other first weights, other example inputs."""
    torch.set_num_threads(1)
    read_once(pytest.MonkeyPatch())
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    for rounding in ROUNDING:
        module = network()
        with torch.no_grad():
            for p in module.parameters():
                p.mul_(1 + 0.1 * rank)
        optimizer = torch.optim.Adam(module.parameters(), 3e-3)
        if not rounding:
            morph = Morph(module, data(rank)[0], optimizer, "flops=50%", steps=STEPS)
            first = morph.strength
        parallel = DistributedDataParallel(module)  # the weights are those of rank 0 from here on
        if rounding:
            morph = Morph(parallel, data(rank)[0], optimizer, "flops=50%", steps=STEPS)
        for step in range(STEPS):
            if rank and rounding:
                with torch.no_grad():
                    for p in module.parameters():
                        p.mul_(1 + rounding * torch.randn(p.shape, generator=torch.Generator().manual_seed(step)))
            once(parallel, optimizer, morph, 1000 * rank + step)
        state = {"first": first, "module": module.state_dict(), "morph": morph.state_dict()}
        met(morph).save(folder / f"{rounding} {rank}.json")
        torch.save(state, folder / f"{rounding} {rank}.pt")
    dist.destroy_process_group()


def test_every_rank_has_the_same_structure_bit_for_bit(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(on_rank, (tmp_path,), nprocs=2)
    for rounding in ROUNDING:
        assert (tmp_path / f"{rounding} 0.json").read_bytes() == (tmp_path / f"{rounding} 1.json").read_bytes()
        zero, one = (torch.load(tmp_path / f"{rounding} {rank}.pt", weights_only=True) for rank in range(2))
        assert zero["first"] == one["first"] > 0
        assert zero["morph"] == one["morph"]
        for name, tensor in zero["module"].items():
            if not rounding and "running" not in name:  # statistics go out before a forward, not after it
                assert torch.equal(tensor, one["module"][name]), name


# ---------------------------------------------------------------- what cannot go on


def test_weights_that_are_no_numbers_stop_the_loop_and_nothing_is_cut() -> None:
    module, optimizer, morph = start()
    for step in range(5):
        once(module, optimizer, morph, step)
    kept, saved = morph.structure(), copy.deepcopy(module.state_dict())
    with pytest.raises(TrainingError, match=r"since step 6 .* 0.weight:0") as caught:
        optimizer.zero_grad()
        (F.cross_entropy(module(data(5)[0]), data(5)[1]) * torch.inf).backward()
        optimizer.step()
        morph.step()
    assert caught.value.code == "not-finite"
    with pytest.raises(TrainingError, match="since step 6"):
        morph.finish()
    assert morph.structure().groups == kept.groups
    module.load_state_dict(saved)
    for step in range(5, STEPS):
        once(module, optimizer, morph, step)
    met(morph)


def change(module: nn.Sequential, optimizer: torch.optim.Optimizer, what: str) -> None:
    if what == "replaced":
        module[0] = nn.Conv2d(3, 16, 3, padding=1, bias=False)
    elif what == "gone":
        del module[7]
    elif what == "frozen":
        module[1].weight.requires_grad = False
    else:
        group = optimizer.param_groups[0]
        group["params"] = [p for p in group["params"] if p is not module[3].weight]


@pytest.mark.parametrize(
    ("what", "code", "message"),
    [
        ("replaced", "module-changed", "0.weight is another parameter"),
        ("gone", "module-changed", "no parameter '7.weight' any more; near names are .*'3.weight'"),
        ("frozen", "module-frozen", "1.weight was frozen"),
        ("dropped", "module-changed", "does not hold"),
    ],
)
def test_a_module_changed_after_the_map_was_made(what: str, code: str, message: str) -> None:
    module, optimizer, morph = start()
    once(module, optimizer, morph, 0)
    change(module, optimizer, what)
    with pytest.raises(TrainingError, match=message) as caught:
        morph.finish()
    assert caught.value.code == code
    with pytest.raises(TrainingError, match=message):  # in the loop, within ten steps
        for _ in range(11):
            optimizer.step()
            morph.step()


def test_an_optimizer_that_never_steps_is_the_wrong_one() -> None:
    _, _, morph = start()
    for _ in range(IDLE - 1):
        morph.step()
    assert morph.scalars()["step"] == 0
    with pytest.raises(TrainingError, match="never took a step"):
        morph.step()


def test_scales_that_are_asked_for_have_to_be_trained() -> None:
    module = network()
    module[1].weight.requires_grad = False
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    with pytest.raises(StructureError, match=r"would be 1.weight, which the optimizer does not train"):
        Morph(module, data(0)[0], optimizer, "flops=50%", steps=9, magnitudes={"0.weight:0": "norm"})
    with pytest.raises(StructureError, match=r"near names are '0.weight:0'"):
        Morph(module, data(0)[0], optimizer, "flops=50%", steps=9, magnitudes={"0.weights:0": "norm"})


def test_a_budget_out_of_reach_names_what_is_frozen() -> None:
    module = network()
    trained = [module[7].bias]
    with pytest.raises(BudgetError, match=r"locked is '0.weight:0' \(none .* among them 0.weight\) and 1 more"):
        Morph(module, data(0)[0], torch.optim.SGD(trained, 0.1), "flops=50%", steps=9)


# ---------------------------------------------------------------- the log, and what docs/training.md shows


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_log_has_a_row_per_step_and_is_taken_up_where_a_run_is_resumed(tmp_path: Path) -> None:
    module, optimizer, morph = start()
    log = CsvLog(tmp_path / "log.csv")
    for step in range(STEPS):
        if step == 20:
            saved = copy.deepcopy((module.state_dict(), optimizer.state_dict(), morph.state_dict()))
        once(module, optimizer, morph, step)
        log.write(morph)
        log.write(morph)  # nothing new
    met(morph)
    whole = rows(tmp_path / "log.csv")
    steps = [int(row["step"]) for row in whole]
    assert steps == list(range(1, len(steps) + 1))
    assert float(whole[-1]["cost/flops"]) == morph.cost["flops"]
    assert [int(whole[-1][f"width/{g}"]) for g in morph.widths] == list(morph.widths.values())
    assert float(whole[3]["strength"]) > 0

    module, optimizer, morph = start()
    for each, state in zip((module, optimizer, morph), saved, strict=True):
        each.load_state_dict(state)
    log = CsvLog(tmp_path / "log.csv")
    for step in range(20, STEPS):
        once(module, optimizer, morph, step)
        log.write(morph)
    assert rows(tmp_path / "log.csv") == whole


def test_a_log_of_another_run_is_left_alone(tmp_path: Path) -> None:
    module, optimizer, morph = start()
    once(module, optimizer, morph, 0)
    (tmp_path / "log.csv").write_text("a,b\n1,2\n")
    with pytest.raises(OutputError, match="other columns"):
        CsvLog(tmp_path / "log.csv").write(morph)
    assert (tmp_path / "log.csv").read_text() == "a,b\n1,2\n"
    np.testing.assert_equal(morph.scalars()["step"], 1)


@pytest.mark.parametrize("there", ["", "step", "{columns},new/thing\n1,{zeros},0.5\n2,{zeros},0.25\n3,0"])
def test_a_log_of_a_later_version_or_one_that_was_cut_is_taken_up(there: str, tmp_path: Path) -> None:
    module, optimizer, morph = start()
    names = list(morph.scalars())
    text = there.format(columns=",".join(names), zeros=",".join("0" * (len(names) - 1)))
    (tmp_path / "log.csv").write_text(text)
    log = CsvLog(tmp_path / "log.csv")
    for step in range(3):
        once(module, optimizer, morph, step)
        if step:
            log.write(morph)
    found = rows(tmp_path / "log.csv")
    assert [row["step"] for row in found] == (["1", "2", "3"] if "new" in there else ["2", "3"])
    assert [row.get("new/thing", "") for row in found] == (["0.5", "", ""] if "new" in there else ["", ""])
    assert list(found[-1]) == [*names, *(["new/thing"] if "new" in there else [])]


DOCUMENT = Path(__file__).parents[1] / "docs" / "training.md"
BLOCKS = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.filterwarnings("default")  # of the trainers, about what a tiny run does not have
def test_the_blocks_of_the_document_run_as_they_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Task(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network, self.example_input_array = network(), data(0)[0]

        def forward(self, x: Tensor) -> Tensor:
            return self.network(x)

        def training_step(self, batch: list[Tensor], number: int) -> Tensor:
            return F.cross_entropy(self.network(batch[0]), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), 0.05)

    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network()

        def forward(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
            scores = self.network(x)
            return F.cross_entropy(scores, labels), scores

    monkeypatch.chdir(tmp_path)
    alone = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0", "RANK": "0", "WORLD_SIZE": "1"}
    samples = [tuple(t[0] for t in data(k, 1)) for k in range(16)]
    export(network(), (data(0)[0],), tmp_path / "model.onnx")
    assert len(BLOCKS) >= 10
    for block in BLOCKS:
        module = network()
        names = {
            "module": module,
            "example_inputs": data(0)[0],
            "optimizer": torch.optim.SGD(module.parameters(), 0.05),
            "loss": nn.CrossEntropyLoss(),
            "loader": DataLoader(samples, 4),
            "Task": Task,
            "model": Classifier(),
            "dataset": [{"x": x, "labels": y} for x, y in samples],
            "arguments": TrainingArguments("hub", max_steps=4, use_cpu=True, report_to=[], disable_tqdm=True),
        }
        with monkeypatch.context() as patched:
            if "init_process_group" in block:
                for name, value in alone.items():
                    patched.setenv(name, value)
            exec(block, names)
        if isinstance(names.get("small"), nn.Module):
            assert names["small"](data(0)[0]).shape == (8, 4)
    assert (tmp_path / "widths.csv").exists()
