"""Versions of files: those of the first format are read, later minor ones too, other major ones are refused.

``golden/`` holds files as version 1 wrote them; they are never written anew.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from functions import chosen
from onnxmorph import Plan, Round, Structure, Trained, analyze, latency, morph, shrink
from onnxmorph.adapters.torch_log import CsvLog
from onnxmorph.calibration import Place, calibrate
from onnxmorph.errors import CalibrationError, DeviceError, RunError, StructureError
from onnxmorph.latency.machine import machine
from test_loops import once, start

GOLDEN = Path(__file__).parent / "golden"
MODEL, STRUCTURE, DEVICE = (GOLDEN / name for name in ("model.onnx", "structure.json", "device.toml"))
PLAN = Plan(budget="params=90%", rounds=2, tolerance=0.0)  # of golden/run
LATER = ["1.1", "1.27"]
OTHER = [2, "2.0", 0]
NO_VERSION = [True, 1.5, "one", "1.2.3", None, [1]]


# ---------------------------------------------------------------- structures


def structure(version: object = 1, **more: object) -> str:
    return json.dumps({**json.loads(STRUCTURE.read_text()), "version": version, **more})


def test_a_structure_of_the_first_format_applies() -> None:
    small = shrink(MODEL, found := Structure.load(STRUCTURE))
    assert found.groups[0].keep == (1, 4, 6, 7)
    assert analyze(small.model).count() == found.costs["after"]


@pytest.mark.parametrize("version", [1, *LATER])
def test_a_later_structure_is_read_without_what_it_adds(version: object) -> None:
    bounds = {"min_width": {"*": 1}} | ({} if version == 1 else {"max_width": {"*": 9}})  # of 1 it would not be heeded
    document = json.loads(structure(version, new={"a": [1]}, bounds=bounds))
    document["groups"][0]["colour"] = "red"
    found, plain = Structure.from_json(json.dumps(document)), Structure.load(STRUCTURE)
    assert (found.groups, found.parameters, found.costs) == (plain.groups, plain.parameters, plain.costs)
    assert found.bounds.document() == {"min_width": {"*": 1}}


@pytest.mark.parametrize("version", OTHER)
def test_another_structure_is_refused(version: object) -> None:
    with pytest.raises(StructureError, match=f"this onnxmorph reads 1, not {version}; upgrade onnxmorph") as caught:
        Structure.from_json(structure(version))
    assert caught.value.code == "structure-version"


@pytest.mark.parametrize("version", NO_VERSION)
def test_what_is_no_version_is_told(version: object) -> None:
    with pytest.raises(StructureError, match="structure: version: expected a whole number, or a text") as caught:
        Structure.from_json(structure(version))
    assert caught.value.code == "structure"


# ---------------------------------------------------------------- devices


def device(path: Path, version: str = "1", **edits: str) -> Path:
    text = DEVICE.read_text().replace("version = 1", f"version = {version}")
    for table, line in edits.items():
        text = re.sub(rf"^(\[{table}.*\])$", rf"\1\n{line}", text, count=1, flags=re.MULTILINE)
    path.write_text(text)
    return path


def predicted(path: Path) -> float:
    analysis = analyze(MODEL)
    return float(latency.costs(analysis, latency.load(path))["latency"].value(analysis.widths))


def test_a_device_of_the_first_format_predicts_what_it_did() -> None:
    assert predicted(DEVICE) == pytest.approx(4.0247940319645165e-06)
    found = latency.load(DEVICE)
    assert (found.peaks, found.bandwidth) == ({"float32": 1e12, "int8": 4e12}, 100e9)
    assert (found.alignment["float32"], found.classic["peak"], found.overhead) == (8, 8.1e12, 1e-6)


@pytest.mark.parametrize("table", ["peak", "alignment", "classic", "measured", "measured.networks"])
def test_a_later_device_is_read_without_what_it_adds(table: str, tmp_path: Path) -> None:
    for version in LATER:
        assert predicted(device(tmp_path / "d.toml", f'"{version}"', **{table: "colour = 9"})) == predicted(DEVICE)
    with pytest.raises(DeviceError, match="colour: unknown") as caught:  # of this version it is a slip of the pen
        predicted(device(tmp_path / "d.toml", **{table: "colour = 9"}))
    assert caught.value.code == "device-key"


@pytest.mark.parametrize(
    ("version", "code"), [("2", "device-version"), ('"2.1"', "device-version"), ("1.1", "device-value")]
)
def test_another_device_is_refused(version: str, code: str, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"d\.toml: version: ") as caught:
        latency.load(device(tmp_path / "d.toml", version))
    assert caught.value.code == code


def test_measuring_keeps_what_else_is_in_a_file_or_leaves_it_alone(tmp_path: Path) -> None:
    def measure(runs: int, why: str) -> None:
        with pytest.raises(CalibrationError, match=why):
            calibrate(analyze(MODEL), here, Place("CPUExecutionProvider", 1), most=runs)

    here = tmp_path / "here.toml"
    measure(1, "1 runs are too few")
    here.write_text(here.read_text() + "\n[classic]\npeak = 7e12\n")
    measure(2, "2 runs are too few")
    found = latency.load(here)
    assert found.classic["peak"] == 7e12 and found.measured is not None
    (network,) = machine(found.measured, "here").networks.values()
    assert len(network.runs) == 2
    here.write_text(here.read_text().replace("version = 1", 'version = "1.1"'))
    before = here.read_bytes()
    measure(3, "of a newer version, of which this onnxmorph would lose a part")
    assert here.read_bytes() == before


# ---------------------------------------------------------------- runs


def untrained(round: Round) -> Trained:
    raise AssertionError("what is done is not done again")


def edited(folder: Path, name: str, edit: Callable[[dict[str, Any]], object]) -> None:
    for path in folder.rglob(name):
        document = json.loads(path.read_text())
        edit(document)
        path.write_text(json.dumps(document))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(GOLDEN / "run", tmp_path / "run"))


def rows() -> list[Any]:
    return json.loads((GOLDEN / "run" / "pareto.json").read_text())  # type: ignore[no-any-return]


def test_a_run_of_the_first_format_is_known(folder: Path) -> None:
    assert [each.row() for each in morph(untrained, MODEL, PLAN, folder).visited] == rows()


def test_a_run_of_the_first_format_goes_on(folder: Path) -> None:
    shutil.rmtree(folder / "final")
    shutil.rmtree(folder / "round-2")
    found = morph(chosen.choose, MODEL, PLAN, folder)
    assert (found.rounds, len(found.visited)) == (2, len(rows()))


@pytest.mark.parametrize("version", [1, *LATER])
def test_a_later_run_is_read_without_what_it_adds(version: object, folder: Path) -> None:
    edited(folder, "run.json", lambda d: d.update(version=version, distill=True))
    for name in ("shrunk.json", "expanded.json", "final.json"):
        edited(folder, name, lambda d: d.update(version=version, colour="red"))
    assert [each.row() for each in morph(untrained, MODEL, PLAN, folder).visited] == rows()


def test_what_an_earlier_version_did_not_ask_is_as_by_default(folder: Path) -> None:
    edited(folder, "run.json", lambda d: d.pop("init"))
    morph(untrained, MODEL, PLAN, folder)
    with pytest.raises(RunError, match="another init: 'preserve' there, 'fresh' here"):
        morph(untrained, MODEL, Plan(budget="params=90%", rounds=2, tolerance=0.0, init="fresh"), folder)


@pytest.mark.parametrize("version", [*OTHER, *NO_VERSION])
def test_another_run_is_refused(version: object, folder: Path) -> None:
    edited(folder, "run.json", lambda d: d.update(version=version))
    before = {path: path.read_bytes() for path in folder.rglob("*.*")}
    with pytest.raises(
        RunError, match=re.escape(f"run.json: version: this onnxmorph reads 1, not {version}")
    ) as caught:
        morph(untrained, MODEL, PLAN, folder)
    assert caught.value.code == "run-version"
    assert {path: path.read_bytes() for path in folder.rglob("*.*") if path.name != ".lock"} == before


# ---------------------------------------------------------------- logs, and what docs/files.md says


def test_a_log_of_the_first_format_is_taken_up(tmp_path: Path) -> None:
    path = Path(shutil.copy(GOLDEN / "log.csv", tmp_path))
    module, optimizer, morph = start()
    for step in range(3):
        once(module, optimizer, morph, step)
    CsvLog(path).write(morph)
    there, now = (text.splitlines() for text in ((GOLDEN / "log.csv").read_text(), path.read_text()))
    assert now[:3] == there[:3] and len(now) == 4 and now[3].startswith("3,")


DOCUMENT = (Path(__file__).parents[1] / "docs" / "files.md").read_text(encoding="utf-8")


def test_the_block_of_the_document_runs_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)
    exec(block, {})
    assert torch.load("checkpoint.pt", weights_only=True) == {"step": 100}
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_every_file_that_a_run_writes_is_described() -> None:
    names = {path.name for path in (GOLDEN / "run").rglob("*") if path.is_file()}
    for name in (*names, "milestone-001.json", "output.txt", "failed.json", ".lock", ".holder", ".data"):
        assert f"{name}`" in DOCUMENT, name
