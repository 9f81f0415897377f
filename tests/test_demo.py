"""The demo, reduced: what its table, its files and its errors say."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from PIL import Image

import onnxmorph
from documents import read
from onnxmorph.adapters.demo import main
from onnxmorph.adapters.demo.images import read_images
from onnxmorph.adapters.demo.recipe import RECIPES, recipe_for
from onnxmorph.adapters.demo.run import run
from onnxmorph.errors import OnnxMorphError, OutputError

pytestmark = pytest.mark.xdist_group("demo")  # what takes long to set up is made once

QUICK = replace(RECIPES["digits"], seed_epochs=1, morph_epochs=5, tune_epochs=1, latency_rounds=3)
SEED = 3


def read_table(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "table.csv").read_text(encoding="utf-8").splitlines()))


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "out"
    assert run(QUICK, None, folder, SEED, as_json=False) == 0
    return folder


@pytest.fixture(scope="module")
def table(out: Path) -> list[dict[str, str]]:
    return read_table(out)


def test_six_networks_are_compared(table: list[dict[str, str]]) -> None:
    assert [row["network"].split(" × ")[0] for row in table] == [
        *("seed", "shrunk", "shrunk + fine-tuned", "expanded + retrained"),
        *("width", "width"),
    ]


def test_table_says_what_the_files_say(out: Path, table: list[dict[str, str]]) -> None:
    images = read_images(QUICK, None, out)
    for row in table:
        of = onnxmorph.analyze(out / row["file"])
        assert int(row["flops"]) == of.costs["flops"].value(of.widths)
        assert int(row["params"]) == of.costs["params"].value(of.widths)
        session = onnxruntime.InferenceSession(out / row["file"], providers=["CPUExecutionProvider"])
        (scores,) = session.run(None, {session.get_inputs()[0].name: images.test})
        right = float((scores.argmax(1) == images.test_labels).mean())
        assert float(row["accuracy"]) == pytest.approx(right, abs=1.5 / len(images.test))
        assert float(row["latency_ms"]) > 0


def test_budget_is_met(out: Path, table: list[dict[str, str]]) -> None:
    flops = {row["file"]: int(row["flops"]) for row in table}
    structure = onnxmorph.Structure.load(out / "structure.json")
    assert flops["seed.onnx"] == structure.costs["before"]["flops"]
    assert flops["shrunk.onnx"] == flops["shrunk_finetuned.onnx"] == structure.costs["after"]["flops"]
    for small in ("shrunk.onnx", "scaled_half.onnx"):
        assert 0.98 * 0.5 <= flops[small] / flops["seed.onnx"] <= 0.5
    for large in ("expanded_retrained.onnx", "scaled_full.onnx"):
        assert 0.95 <= flops[large] / flops["seed.onnx"] <= 1


def test_structure_belongs_to_what_was_written(out: Path) -> None:
    structure = onnxmorph.Structure.load(out / "structure.json")
    assert onnxmorph.verify(out / "penalised.onnx", out / "shrunk.onnx", structure).difference < 1e-5
    assert structure.provenance["seed"] == SEED


def test_same_seed_gives_the_same_structure(out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(QUICK, None, tmp_path, SEED, as_json=True) == 0
    assert (tmp_path / "structure.json").read_bytes() == (out / "structure.json").read_bytes()
    document = read(capsys.readouterr().out, "demo")  # nothing but the one object on stdout
    assert [{k: str(v) for k, v in row.items()} for row in document["table"]] == read_table(tmp_path)
    assert max(document["torch_difference"].values()) <= 1e-5
    files = {*document["files"], ".lock"}
    assert {p.name for p in tmp_path.iterdir()} == files == {p.name for p in out.iterdir()}


def jpegs(count: int, size: int = 32) -> dict[str, Any]:
    """`count` images in one split of the documented format."""
    rng, files = np.random.default_rng(count), []
    for _ in range(count):
        file = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (size, size, 3), np.uint8)).save(file, "JPEG")
        files.append(file.getvalue())
    return {
        "bytes": np.frombuffer(b"".join(files), np.uint8),
        "offsets": np.cumsum([0, *map(len, files)]),
        "labels": (np.arange(count) % 10).astype(np.uint8),
    }


def write_npz(path: Path, size: int = 32, **change: Any) -> Path:
    arrays = {f"{split}_{k}": v for split in ("train", "test") for k, v in jpegs(20, size).items()}
    np.savez(path, allow_pickle=True, **{**arrays, **change})
    return path


def test_cifar10_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, recipe = write_npz(tmp_path / "c.npz"), recipe_for("cifar10")
    out = tmp_path / "out"
    out.mkdir()
    first = read_images(recipe, path, out)
    assert first.train.shape == first.test.shape == (20, 3, 32, 32)
    assert abs(first.train.mean()) < 1e-5
    monkeypatch.setattr(Image, "open", None)
    again = read_images(recipe, path, out)
    assert np.array_equal(first.train, again.train) and np.array_equal(first.test_labels, again.test_labels)


@pytest.mark.parametrize(
    "change",
    [
        {"size": 16},
        {"train_bytes": np.zeros(10, np.uint8)},
        {"test_offsets": np.arange(3)},
        {"test_labels": np.zeros(0, np.uint8)},
        {"train_offsets": np.array([{}], object)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_malformed_images_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    path = write_npz(tmp_path / "c.npz", **change)
    with pytest.raises(OnnxMorphError, match=r"c\.npz is not the file") as error:
        main("cifar10", path, tmp_path / "out")
    assert error.value.code == "demo-data-file"
    assert list((tmp_path / "out").iterdir()) == []


def test_wrong_arguments_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("no npz")
    for data, path, code, says in (
        ("cifar10", None, "demo-data-path", "needs --data-path FILE"),
        ("cifar10", tmp_path / "none.npz", "demo-data-path", "cannot be read"),
        ("cifar10", tmp_path / "text.npz", "demo-data-file", "is not the file"),
        ("digits", tmp_path / "text.npz", "demo-data-path", "come with scikit-learn"),
        ("faces", None, "demo-data", "digits, cifar10"),
    ):
        with pytest.raises(OnnxMorphError, match=says) as error:
            main(data, path, tmp_path / "out")
        assert error.value.code == code
    with pytest.raises(OutputError):
        main(out=tmp_path / "text.npz")


def test_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxmorph.adapters.demo.NEEDS", {"no_such_module": "scikit-learn"})
    with pytest.raises(OnnxMorphError, match=r"scikit-learn.*onnxmorph\[demo\]"):
        main(out=tmp_path)
