"""The experiments of benchmarks/accuracy in miniature: every method meets its budget, and what is done stays done."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from benchmarks.accuracy import __main__ as command
from benchmarks.accuracy import experiment, fitting, latencies, running, tables

MINIATURE = """
about = "In miniature."
networks = ["resnet8"]
seeds = [0]

[recipe]
data = "digits"
epochs = 3
train_images = 400
test_images = 200
batch = 50
flip = false
"""
METHODS = {
    "width": 'kind = "width"\ntarget = ["flops=100%", "flops=50%"]',
    "shrink": 'kind = "morph"\ntarget = ["flops=50%", "params=50%"]',
    "expand": 'kind = "morph"\ntarget = "flops=50%"\nexpand = "flops=100%"\nrounds = 2',
    "utility": 'kind = "morph"\ntarget = "flops=50%"\nexpand = "flops=100%"\nspend = "utility"\ninit = "fresh"',
    "distilled": 'kind = "morph"\ntarget = "flops=50%"\nfirst = 0.34\nuntil = 0.67\ndistil = true',
    "pupil": 'kind = "width"\ntarget = "flops=50%"\ndistil = true',
    "adam": 'kind = "morph"\ntarget = "flops=50%"\nchanged = { optimizer = "adamw", rate = 1e-3 }',
    "gates": 'kind = "morph"\ntarget = "flops=50%"\nmagnitudes = "gate"',
    "fixed": 'kind = "morph"\ntarget = "flops=50%"\nstrength = 0.0\ncharged = "all"\nfade = 0.1\nreturns = false',
    "equal": 'kind = "morph"\ntarget = "flops=50%"\nprices = "equal"\nworth = "squared"',
    "choose": 'kind = "choose"\nby = "taylor"\ntarget = "flops=50%"',
    "scratch": 'kind = "scratch"\ntarget = "flops=50%"',
}


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    methods = "".join(f'\n[[methods]]\nname = "{name}"\n{what}\n' for name, what in METHODS.items())
    (tmp_path / "mini.toml").write_text(MINIATURE + methods, encoding="utf-8")
    monkeypatch.setattr(experiment, "FOLDER", tmp_path)
    monkeypatch.setattr(fitting, "CACHE", tmp_path)
    for module in (running, tables):
        monkeypatch.setattr(module, "RESULTS", tmp_path)
    monkeypatch.setattr(tables, "DOCS", tmp_path / "docs")
    (tmp_path / "docs").mkdir()
    for name, run in command.left("mini", "*"):
        command.append(running.Worker.work(name, run), running.runs_file("mini"))
    with running.runs_file("mini").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_method_meets_its_target_in_as_many_epochs(
    rows: list[dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(rows) == 14
    for row in rows:
        name, _, most = row["target"].partition("=")
        allowed = 1.0 if row["method"] in ("expand", "utility") else float(most.rstrip("%")) / 100
        assert 0.9 * allowed < float(row[f"{name}_share"]) <= allowed, row
        assert row["epochs"] == ("6" if row["method"] in ("scratch", "pupil") else "3"), row
        assert 0 <= float(row["accuracy"]) <= 1
    assert not command.left("mini", "*"), "what is done would be trained again"

    monkeypatch.setattr(latencies, "ROUNDS", 1)
    latencies.main(["mini"])
    timed = tables.timed(tmp_path / "accuracy" / "mini" / "latencies.csv", rows)
    assert all(0 < float(row["latency_share"]) < 3 for row in timed)

    tables.main()
    document = (tmp_path / "docs" / "evidence.md").read_text(encoding="utf-8")
    assert document.count("| resnet8 |") == 14 and "In miniature." in document and "| latency |" in document
    for row in rows:
        assert f"{100 * float(row['accuracy']):.2f}" in document
    for picture in ("accuracy", "widths"):
        assert (tmp_path / "accuracy" / "mini" / f"{picture}.svg").stat().st_size > 1000
