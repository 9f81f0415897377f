"""The callbacks of Lightning and of the Hugging Face Trainer, in the real trainers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from transformers import BertConfig, BertForSequenceClassification, TrainingArguments
from transformers import Trainer as HubTrainer

from onnxmorph.adapters.lightning import MorphCallback
from onnxmorph.adapters.torch import Morph, resize
from onnxmorph.adapters.transformers import MorphCallback as HubCallback
from onnxmorph.errors import TrainingError
from test_loops import data, network

pytestmark = pytest.mark.filterwarnings("default")  # the trainers warn of what a tiny run does not have

STEPS = 30


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)


def share(morph: Morph) -> float:
    assert morph.done
    return morph.cost["flops"] / morph.analysis.costs["flops"].value(morph.analysis.widths)


# ---------------------------------------------------------------- Lightning


class Task(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.network = network()
        self.example_input_array = data(0)[0]

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)

    def training_step(self, batch: Tensor, number: int) -> Tensor:
        x, y = data(self.global_step, 4)  # as from a loader that can be resumed, which PyTorch's own cannot
        return F.cross_entropy(self.network(x), y)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.05, momentum=0.9)


def fit(folder: Path, stop: int, resume: Path | None = None, accumulate: int = 1, **more) -> tuple[Task, MorphCallback]:
    """Train up to step `stop` of STEPS planned ones."""
    seed_everything(0, verbose=False)
    task, callback = Task(), MorphCallback("flops=50%", part="network", steps=STEPS)
    trainer = Trainer(
        accelerator="cpu", max_steps=stop, accumulate_grad_batches=accumulate, default_root_dir=folder,
        callbacks=[callback, ModelCheckpoint(folder, save_last=True)], logger=CSVLogger(folder, name="log", version=0),
        log_every_n_steps=5, enable_progress_bar=False, enable_model_summary=False, gradient_clip_val=1.0, **more,
    )  # fmt: skip
    loader = DataLoader(range(8 * STEPS), 4)
    trainer.fit(task, loader, ckpt_path=resume)
    return task, callback


def test_lightning_meets_the_budget_with_accumulated_batches(tmp_path: Path) -> None:
    task, callback = fit(tmp_path, STEPS, accumulate=2)
    morph = callback.morph
    assert 0.44 <= share(morph) <= 0.5
    assert morph.scalars()["step"] <= STEPS
    x = data(0)[0]
    torch.testing.assert_close(resize(task.network, morph.structure()).eval()(x), task.network.eval()(x))
    columns = (tmp_path / "log" / "version_0" / "metrics.csv").read_text().splitlines()[0].split(",")
    assert {"strength", "cost/flops", "width/0.weight:0"} <= set(columns)


def test_lightning_killed_and_resumed_gives_the_same_structure(tmp_path: Path) -> None:
    whole = fit(tmp_path / "whole", STEPS)
    broken = fit(tmp_path / "broken", STEPS * 2 // 3)
    assert not broken[1].morph.done  # what is planned later is not forced at the end of a part
    resumed = fit(tmp_path / "resumed", STEPS, tmp_path / "broken" / "last.ckpt")
    assert resumed[1].morph.structure() == whole[1].morph.structure()
    for name, tensor in whole[0].state_dict().items():
        assert torch.equal(tensor, resumed[0].state_dict()[name]), name


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("training-part", "Task has no part 'net'; its parts are network"),
        ("training-inputs", "give example_inputs"),
        ("training-steps", "give steps"),
        ("training-optimizer", "no optimizer of the trainer holds parameters of Sequential"),
    ],
)
def test_what_the_lightning_callback_cannot_find_out(code: str, message: str) -> None:
    task = Task()
    if code == "training-inputs":
        task.example_input_array = None
    if code == "training-optimizer":
        other = nn.Parameter(torch.zeros(1))
        task.configure_optimizers = lambda: torch.optim.SGD([other], 0.1)
    callback = MorphCallback("flops=50%", part="net" if code == "training-part" else "network")
    trainer = Trainer(
        accelerator="cpu", max_steps=-1 if code == "training-steps" else 3, max_epochs=-1, callbacks=[callback],
        logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    with pytest.raises(TrainingError, match=message) as caught:
        trainer.fit(task, DataLoader(range(8 * STEPS), 4))
    assert caught.value.code == code


# ---------------------------------------------------------------- Hugging Face


class Parity(Dataset):
    """Whether more than half of the words are odd."""

    def __len__(self) -> int:
        return 8 * STEPS

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        words = torch.randint(0, 20, (8,), generator=torch.Generator().manual_seed(index))
        return {"input_ids": words, "labels": (words % 2).sum() // 5}


def hub(folder: Path, resume: Path | None = None) -> tuple[nn.Module, HubCallback, HubTrainer]:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=20, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=8, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    model = BertForSequenceClassification(config)
    callback = HubCallback("params=85%", torch.zeros(2, 8, dtype=torch.int64), part="")
    arguments = TrainingArguments(
        str(folder), max_steps=STEPS, per_device_train_batch_size=4, gradient_accumulation_steps=2, learning_rate=1e-3,
        use_cpu=True, save_steps=20, logging_steps=10, report_to=[], disable_tqdm=True,
    )  # fmt: skip
    trainer = HubTrainer(model, arguments, train_dataset=Parity(), callbacks=[callback])
    trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    return model, callback, trainer


def test_hugging_face_meets_the_budget_and_resumes_with_the_same_structure(tmp_path: Path) -> None:
    model, callback, trainer = hub(tmp_path / "whole")
    morph = callback.morph
    assert morph.done
    assert 0.8 <= morph.cost["params"] / morph.analysis.costs["params"].value(morph.analysis.widths) <= 0.85
    assert trainer.state.log_history[0]["morph/step"] == 10
    checkpoint = tmp_path / "whole" / "checkpoint-20"
    saved = json.loads((checkpoint / "trainer_state.json").read_text())["stateful_callbacks"]["onnxmorph"]
    assert saved["step"] == 20
    again, resumed, _ = hub(tmp_path / "resumed", checkpoint)
    assert resumed.morph.structure() == morph.structure()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    words = Parity()[0]["input_ids"][None]
    small = resize(model, morph.structure()).eval()
    torch.testing.assert_close(small(words).logits, model.eval()(words).logits)
